"""``snapvideo report``: the page of a training, made anew."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..errors import UserError


def run(verb: str, argv: list[str]) -> None:
    """Make the page, say where it is."""
    options = _parser().parse_args(argv)
    from ..report import write_report
    from ..run import find_run, is_exported

    folder = find_run(options.run)
    if is_exported(folder):
        raise UserError(
            f"{options.run} is an exported model, and its training is not here: name a run, as runs/demo/latest"
        )
    if options.out is not None and options.out.is_dir():
        raise UserError(f"-o {options.out} is a folder: name a file, as {options.out / 'report.html'}")
    try:
        path = write_report(folder, options.out)
    except OSError as error:
        raise UserError(
            f"{options.out or folder} cannot be written: {error.strerror}; -o names another file"
        ) from error
    print(f"report: {os.path.relpath(path) if path.absolute().is_relative_to(Path.cwd()) else path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snapvideo report",
        description="Make one page of a training: curves, samples over time, data, environment, recipe. It is made of "
        "the run folder alone. Training writes it too, whenever it validates or samples.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="run folder, as runs/demo/latest, or a folder of runs (its latest)")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="the file to write (report.html in the run folder)"
    )
    return parser
