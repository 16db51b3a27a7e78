"""Leaves out what Lightning says in every run and users can do nothing about."""

from __future__ import annotations

import logging
import warnings


def quieten(devices: bool = True) -> None:
    """Leave it out in this process, from now on.

    Args:
        devices: Let Lightning say what devices it finds and uses.
    """
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning 2.6 with torch 2.13

    def tells(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or (devices and "Tip: For seamless" not in record.getMessage())

    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(tells)
