"""``snapvideo compare``: results of evaluations side by side, if they were measured in the same way."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path


def run(verb: str, argv: list[str]) -> None:
    """Print the table."""
    options = _parser().parse_args(argv)
    from ..results import find_result, read_result, refuse_different, table

    files = [find_result(place, options.protocol) for place in options.results]
    results = {str(file.parent): read_result(file) for file in files}
    refuse_different(results)
    names = Counter(result.name for result in results.values())
    print(
        table(
            [
                replace(result, name=f"{result.name}, {Path(place).name}") if names[result.name] > 1 else result
                for place, result in results.items()
            ]
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snapvideo compare",
        description="Put results of snapvideo eval side by side. Numbers that were not measured in the same way are "
        "refused, with what differs.",
        allow_abbrev=False,
    )
    what = "a run folder, the folder of an evaluation, or its result.json"
    parser.add_argument("results", metavar="RESULT", nargs="+", type=Path, help=what)
    parser.add_argument("--protocol", metavar="NAME", help="which results of runs that have several")
    return parser
