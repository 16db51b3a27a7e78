"""What came of an ablation: a record, from which its table and its plot are made, here and in the docs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from xml.etree.ElementTree import Element, tostring

from ..components.media import write_bytes
from .errors import UserError
from .report.curves import round_values
from .report.markup import el
from .results import ARROWS, markdown, number, plain_scores, read_scores, spread
from .scores import Score

RECORD = "ablation.json"

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


@dataclass(frozen=True)
class Measured:
    """A variant with one seed.

    Args:
        seed: The seed.
        words: Words of ``snapvideo fit``, and of ``snapvideo eval`` after run and protocol.
        scores: By name.
        training: What it cost; None: a trained model was measured.
    """

    seed: int
    words: Sequence[Sequence[str]]
    scores: Mapping[str, Score]
    training: Training | None


@dataclass(frozen=True)
class Outcome:
    """What came of an ablation.

    Args:
        protocol: How all were measured.
        variants: What is measured of each variant, so far.
        plotted: Scores of the plot; none: all.
        environment: Versions and device of the last evaluation, and what its numbers depend on besides the model.
    """

    protocol: str
    variants: Mapping[str, Sequence[Measured]]
    plotted: Sequence[str]
    environment: Mapping[str, Any]

    def write(self, out: Path) -> None:
        """Write the record, ``table.md`` and ``plot.svg``."""
        variants = {
            name: [asdict(one) | {"scores": plain_scores(one.scores)} for one in own]
            for name, own in self.variants.items()
        }
        text = json.dumps(vars(self) | {"variants": variants}, ensure_ascii=False, indent=1)
        write_bytes(out / RECORD, text.encode() + b"\n")
        write_bytes(out / "table.md", f"{self.table()}\n".encode())
        write_bytes(out / "plot.svg", tostring(self.plot()) + b"\n")

    def table(self) -> str:
        """A row for each score, and what training took; a column for each variant: mean and deviation over seeds."""
        rows = [["", *self.variants]]
        for name, up in self._scores().items():
            rows.append([f"{name}{ARROWS[up]}", *(_cell(_values(own, name)) for own in self.variants.values())])
        trainings = [[one.training for one in own if one.training] for own in self.variants.values()]
        for what in ("steps", "clips", "seconds") if any(trainings) else ():
            spent = [[getattr(training, what) for training in own] for own in trainings]
            rows.append([what, *(f"{mean(values):.0f}" if values else "-" for values in spent)])
        rows.append(["seeds", *(str(len(own)) for own in self.variants.values())])
        return f"{markdown(rows)}\n\n±: standard deviation over the seeds"

    def plot(self) -> Element:
        """A panel for each score: a dot for each seed, a stroke at the mean, a row for each variant."""
        up = self._scores()
        shown = [name for name in (self.plotted or list(up)) if name in up]
        height = TOP + ROW * len(self.variants) + 30
        size = {"width": LEFT + WIDTH * len(shown), "height": height}
        root = el("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {size['width']} {height}", **size})
        root.append(el("style", {}, STYLE))
        root.append(el("rect", {**size, "fill": "#fff"}))
        for row, variant in enumerate(self.variants):
            root.append(el("text", {"x": 8, "y": TOP + ROW * row + 17}, variant))
        for column, name in enumerate(shown):
            values = [_values(own, name) for own in self.variants.values()]
            for node in _panel(values, f"{name}{ARROWS[up[name]]}", LEFT + WIDTH * column):
                root.append(node)
        return root

    def _scores(self) -> dict[str, bool | None]:
        """Names of all scores, and which way is up."""
        measured = [one for own in self.variants.values() for one in own]
        return {name: score.higher_is_better for one in measured for name, score in one.scores.items()}


def read_outcome(file: Path) -> Outcome:
    """What `Outcome.write` has written.

    Raises:
        UserError: It cannot be read.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        variants = {
            name: [
                Measured(
                    one["seed"],
                    one["words"],
                    read_scores(one["scores"]),
                    Training(**one["training"]) if one["training"] else None,
                )
                for one in own
            ]
            for name, own in content["variants"].items()
        }
        return Outcome(**content | {"variants": variants})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is no record of an ablation: {error}") from error


def _values(own: Sequence[Measured], name: str) -> list[float]:
    """A score at each seed, where it is a number."""
    found = [one.scores[name].value for one in own if name in one.scores]
    return [value for value in found if not math.isnan(value)]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return number(mean(values)) + (f" ± {spread(stdev(values))}" if len(values) > 1 else "")


def _panel(values: Sequence[Sequence[float]], title: str, left: float) -> list[Element]:
    everything = [value for own in values for value in own]
    if not everything:
        return []
    low, high = min(everything), max(everything)
    margin = 0.08 * (high - low) or 0.05 * max(abs(high), 1e-3)
    low, high = low - margin, high + margin
    bottom = TOP + ROW * len(values)

    def x(value: float) -> float:
        return round(left + 10 + (WIDTH - 30) * (value - low) / (high - low), 1)

    nodes = [el("text", {"x": left + 10, "y": 20}, title)]
    for tick in round_values(low, high)[:5]:
        nodes.append(el("line", {"class": "axis", "x1": x(tick), "x2": x(tick), "y1": TOP, "y2": bottom}))
        nodes.append(el("text", {"x": x(tick), "y": bottom + 18, "text-anchor": "middle"}, f"{tick:g}"))
    for row, own in enumerate(values):
        y = TOP + ROW * row + ROW / 2
        nodes += [el("circle", {"class": "dot", "cx": x(value), "cy": y, "r": 4}) for value in own]
        if own:
            middle = x(mean(own))
            nodes.append(el("line", {"class": "mean", "x1": middle, "x2": middle, "y1": y - 8, "y2": y + 8}))
    return nodes
