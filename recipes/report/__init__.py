"""``report.html``: one page of a training, made of its run folder alone."""

from .folder import RunFolder, read_run
from .page import REPORT, make_page, write_report
from .watch import Report

__all__ = ["REPORT", "Report", "RunFolder", "make_page", "read_run", "write_report"]
