"""Results of evaluations: written, read again, and put side by side where they were measured in the same way."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ..components.media import write_bytes
from .differences import differences
from .errors import UserError
from .scores import Score

RESULT = "result.json"
ARROWS = {True: " (higher is better)", False: " (lower is better)", None: ""}
EVALUATIONS = "eval"
"""The folder of evaluations in a run folder."""


@dataclass(frozen=True)
class Result:
    """What came of an evaluation.

    Args:
        protocol: Name of the protocol.
        name: Name of what was measured.
        record: All that a number depends on besides the model; see `Protocol.record`.
        model: What was measured: run, weights, sampler, guidance, versions.
        scores: By name.
        cost: Seconds per 1000 videos, by what they were spent on; nothing, where nothing was made.
    """

    protocol: str
    name: str
    record: Mapping[str, Any]
    model: Mapping[str, Any]
    scores: Mapping[str, Score]
    cost: Mapping[str, float]

    def write(self, file: Path) -> None:
        """Write it as JSON; what is no number is null."""
        text = json.dumps({**vars(self), "scores": plain_scores(self.scores)}, ensure_ascii=False, indent=1)
        write_bytes(file, text.encode() + b"\n")


def plain_scores(scores: Mapping[str, Score]) -> dict[str, dict[str, float | bool | None]]:
    """Scores for JSON: what is no number is null."""
    return {
        name: {key: value if value is None or math.isfinite(value) else None for key, value in score._asdict().items()}
        for name, score in scores.items()
    }


def read_scores(plain: Mapping[str, Mapping[str, Any]]) -> dict[str, Score]:
    """What `plain_scores` was given."""
    return {
        name: Score(
            **{key: math.nan if score[key] is None else float(score[key]) for key in ("value", "deviation", "real")},
            higher_is_better=score["higher_is_better"],
        )
        for name, score in plain.items()
    }


def read_result(file: Path) -> Result:
    """A result.

    Raises:
        UserError: It cannot be read.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Result(**content | {"scores": read_scores(content["scores"]), "name": str(content["name"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is no result of snapvideo eval: {error}") from error


def mark_of(settings: object) -> str:
    """What tells plain values from others, in names of folders."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def find_result(place: Path, protocol: str | None) -> Path:
    """The file of a result.

    Args:
        place: It, the folder of an evaluation, or a run folder: the newest evaluation in it.
        protocol: Of this protocol.

    Raises:
        UserError: There is none, or a run has some of several protocols and none is named.
    """
    if place.is_file():
        return place
    if (place / RESULT).is_file():
        return place / RESULT
    found = sorted(place.glob(f"{EVALUATIONS}/*/{RESULT}"), key=lambda file: file.stat().st_mtime)
    by_protocol = {read_result(file).protocol: file for file in found}
    if protocol is None and len(by_protocol) == 1:
        return found[-1]
    if protocol in by_protocol:
        return by_protocol[protocol]
    known = ", ".join(sorted(by_protocol))
    if not known:
        raise UserError(f"{place} has no result: snapvideo eval {place} PROTOCOL makes one")
    what = f"no result of {protocol}" if protocol else "results of several protocols: name one by --protocol"
    raise UserError(f"{place} has {what}; there are: {known}")


def refuse_different(results: Mapping[str, Result]) -> None:
    """Refuse numbers that were not measured in the same way.

    Args:
        results: By their places.

    Raises:
        UserError: Two records differ; the message says in what.
    """
    for first, place in product(list(results)[:1], results):
        if found := differences(results[first].record, results[place].record):
            lines = "\n".join(f"  {difference.key}: {difference.one}  |  {difference.other}" for difference in found)
            raise UserError(f"{first} and {place} were not measured in the same way:\n{lines}")


def table(results: Sequence[Result]) -> str:
    """A row for each score and each cost, a column for each result and one for real clips, in Markdown."""
    names = list(dict.fromkeys(name for result in results for name in result.scores))
    rows = [["", *(result.name for result in results), "real clips"]]
    for name in names:
        scores = [result.scores.get(name) for result in results]
        known = next(score for score in scores if score is not None)
        rows.append([f"{name}{ARROWS[known.higher_is_better]}", *map(_cell, scores), number(known.real)])
    for what in dict.fromkeys(what for result in results for what in result.cost):
        costs = [number(result.cost.get(what, math.nan)) for result in results]
        rows.append([f"{what}, seconds per 1000", *costs, "-"])
    return f"{markdown(rows)}\n\n±: 1.96 standard deviations, over draws of the videos"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, whose first row is its head."""
    rows = [[re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    head, *body = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["-" * width for width in widths], *body))


def _cell(score: Score | None) -> str:
    if score is None or math.isnan(score.value):
        return "-"
    return number(score.value) + ("" if math.isnan(score.deviation) else f" ± {spread(1.96 * score.deviation)}")


def spread(value: float) -> str:
    """Two digits, or whole numbers, for people."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def number(value: float) -> str:
    """Four digits, for people."""
    return "-" if math.isnan(value) else f"{value:.4g}"
