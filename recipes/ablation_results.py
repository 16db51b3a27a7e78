"""What came of an ablation: a table and a plot of scores, made from the results of its evaluations alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from xml.etree.ElementTree import Element, tostring

from ..components.media import write_bytes
from .ablation import Job
from .report.curves import round_values
from .report.markup import el
from .results import ARROWS, Result, markdown, number

Results = Mapping[str, Mapping[int, Result]]
"""Results by variant and seed."""

LEFT, WIDTH, ROW, TOP = 190, 230, 26, 34
"""Pixels of a plot: names of variants, a panel, a variant, what is above the first."""

STYLE = """
text { font: 12px sans-serif; fill: #333 }
.axis { stroke: #bbb }
.dot { fill: #26a; fill-opacity: .6 }
.mean { stroke: #26a; stroke-width: 3 }
"""


@dataclass(frozen=True)
class Training:
    """What a training has cost.

    Args:
        steps: Steps of the optimizer.
        clips: Videos and images seen.
        seconds: Time that it took.
    """

    steps: int
    clips: int
    seconds: float


def table(results: Results, trainings: Mapping[str, Sequence[Training]]) -> str:
    """A row for each score, and what training took; a column for each variant: mean and deviation over the seeds."""
    rows = [["", *results]]
    for name, up in _scores(results).items():
        rows.append([f"{name}{ARROWS[up]}", *(_cell(_values(own, name)) for own in results.values())])
    if any(trainings.values()):
        for what in ("steps", "clips", "seconds"):
            spent = [[getattr(training, what) for training in trainings.get(variant, ())] for variant in results]
            rows.append([what, *(f"{mean(values):.0f}" if values else "-" for values in spent)])
    rows.append(["seeds", *(str(len(own)) for own in results.values())])
    return markdown(rows)


def _scores(results: Results) -> dict[str, bool | None]:
    """Names of all scores, and which way is up."""
    return {
        name: score.higher_is_better
        for own in results.values()
        for result in own.values()
        for name, score in result.scores.items()
    }


def _values(own: Mapping[int, Result], name: str) -> list[float]:
    """A score at each seed, where it is a number."""
    found = [result.scores[name].value for result in own.values() if name in result.scores]
    return [value for value in found if not math.isnan(value)]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return number(mean(values)) + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")


def plot(results: Results, names: Sequence[str]) -> Element:
    """A panel for each score: a dot for each seed, a stroke at the mean, a row for each variant."""
    up = _scores(results)
    shown = [name for name in (names or list(up)) if name in up]
    height = TOP + ROW * len(results) + 30
    size = {"width": LEFT + WIDTH * len(shown), "height": height}
    root = el("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {size['width']} {height}", **size})
    root.append(el("style", {}, STYLE))
    root.append(el("rect", {**size, "fill": "#fff"}))
    for row, variant in enumerate(results):
        root.append(el("text", {"x": 8, "y": TOP + ROW * row + 17}, variant))
    for column, name in enumerate(shown):
        for node in _panel(results, name, up[name], LEFT + WIDTH * column):
            root.append(node)
    return root


def _panel(results: Results, name: str, up: bool | None, left: float) -> list[Element]:
    values = {variant: _values(own, name) for variant, own in results.items()}
    everything = [value for own in values.values() for value in own]
    if not everything:
        return []
    low, high = min(everything), max(everything)
    margin = 0.08 * (high - low) or 0.05 * max(abs(high), 1e-3)
    low, high = low - margin, high + margin
    bottom = TOP + ROW * len(results)

    def x(value: float) -> float:
        return round(left + 10 + (WIDTH - 30) * (value - low) / (high - low), 1)

    nodes = [el("text", {"x": left + 10, "y": 20}, f"{name}{ARROWS[up]}")]
    for tick in round_values(low, high)[:5]:
        nodes.append(el("line", {"class": "axis", "x1": x(tick), "x2": x(tick), "y1": TOP, "y2": bottom}))
        nodes.append(el("text", {"x": x(tick), "y": bottom + 18, "text-anchor": "middle"}, f"{tick:g}"))
    for row, own in enumerate(values.values()):
        y = TOP + ROW * row + ROW / 2
        nodes += [el("circle", {"class": "dot", "cx": x(value), "cy": y, "r": 4}) for value in own]
        if own:
            middle = x(mean(own))
            nodes.append(el("line", {"class": "mean", "x1": middle, "x2": middle, "y1": y - 8, "y2": y + 8}))
    return nodes


def write_results(
    out: Path, results: Results, trainings: Mapping[str, Sequence[Training]], scores: Sequence[str], jobs: Sequence[Job]
) -> None:
    """Write ``table.md``, ``plot.svg`` and ``ablation.json``."""
    write_bytes(out / "table.md", f"{table(results, trainings)}\n".encode())
    write_bytes(out / "plot.svg", tostring(plot(results, scores)) + b"\n")
    values = {
        variant: {
            seed: {name: None if math.isnan(score.value) else score.value for name, score in result.scores.items()}
            for seed, result in own.items()
        }
        for variant, own in results.items()
    }
    record = {
        "jobs": [
            {"variant": job.variant, "seed": job.seed, "training": job.training, "evaluation": job.evaluation}
            for job in jobs
        ],
        "trainings": {name: [vars(training) for training in own] for name, own in trainings.items()},
        "scores": values,
    }
    write_bytes(out / "ablation.json", json.dumps(record, ensure_ascii=False, indent=1).encode() + b"\n")
