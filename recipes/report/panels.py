"""Which metrics share a figure, in what order, and how each is read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from .curves import LEFT, RIGHT, Axis, Line, Trace, plot, trace
from .folder import Curve
from .markup import code, el, number

MOST_FIGURES, MOST_POINTS = 120, 30_000
"""What a page can hold."""

WAIT = 0.2
"""Share of the time, waited for data, from which on something should be done."""


@dataclass(frozen=True)
class Panel:
    """A figure, or several that differ in the groups of the pattern.

    Args:
        title: With ``{0}`` for the first group.
        pattern: Names of metrics.
        note: What is healthy, and what is not.
        unit: Of the values; ``%``: they are shares.
        log: Shown with a logarithmic axis at first.
        smooth: Drawn thin, and its moving mean thick.
        ranked: The curves have an order: they get a ramp of colours, and their digits.
        level: A value to draw a line at.
    """

    title: str
    pattern: str
    note: str
    unit: str = ""
    log: bool = False
    smooth: bool = False
    ranked: bool = False
    level: float | None = None


_BANDS = (
    "Band 0 has the least noise, 4 the most. Healthy: each falls, but not all at the same time. Do not compare bands "
    "with each other: each has its own weight and difficulty. One that stays at its first value is not learned."
)

PANELS = (
    Panel(
        "Training loss",
        "train/loss",
        "Each thin point is one batch, with its own noise levels and clips, so it jumps; the thick mean tells the "
        "trend. Healthy: a steep fall, then a slow one. Not: a rise that stays, or crosses above: values that are not "
        "finite, of steps that were skipped.",
        log=True,
        smooth=True,
    ),
    Panel(
        "Training loss, images and videos",
        "train/loss_(?:image|video)",
        "Healthy: both fall. One that rises while the other falls: the batch sizes favour the other.",
        log=True,
        smooth=True,
    ),
    Panel(
        "Validation loss",
        r"val(?:_\w+)?/loss",
        "The same clips and noise each time, so small changes mean something. Averaged weights below training "
        "weights: the average at work, most so while the learning rate is high. Far above them: it lags, its "
        "half-life is long for this run. A rise while the training loss falls: the clips are learned by heart.",
        log=True,
    ),
    Panel(
        "Validation loss, images and videos",
        r"val(?:_\w+)?/loss_(?:image|video)",
        "Healthy: both fall. The one that turns up first has too few clips for this many steps.",
        log=True,
    ),
    Panel("Validation loss by noise band, {0}", r"(val(?:_\w+)?)/loss/band_\d+", _BANDS, log=True, ranked=True),
    Panel(
        "Validation loss by noise band, {0}",
        r"(val(?:_\w+)?/loss_(?:image|video))/band_\d+",
        _BANDS,
        log=True,
        ranked=True,
    ),
    Panel("Learning rate", "train/lr|lr-.*", "What the recipe asks for: a rise, a level, a fall to the end."),
    Panel(
        "Gradient norm",
        r"train/grad_norm\w*",
        "Of all gradients, before clipping. Healthy: a level with single spikes. A level that climbs, or crosses "
        "above, comes before a training that diverges: lower the learning rate.",
        log=True,
        smooth=True,
    ),
    Panel(
        "Throughput",
        "perf/clips_per_second",
        "Healthy: level, perhaps with dips where it validates, samples and saves. A slow fall: look at the data, or "
        "at who else uses the machine.",
        "clips/s",
        smooth=True,
    ),
    Panel(
        "Time spent waiting for data",
        "data_wait",
        "Healthy: a few percent. Above the line, 20%, the device stands idle: set data.num_workers higher.",
        "%",
        level=WAIT,
    ),
    Panel(
        "Peak memory",
        r"perf/peak_gb_\w+",
        "Healthy: level after the first steps. A rise that goes on is a leak.",
        "GB",
    ),
)

_OTHER = "Another metric of this run."


@dataclass(frozen=True)
class Figure:
    """A panel with its curves.

    Args:
        panel: How it is drawn and read.
        title: Its title.
        curves: By name of the metric.
    """

    panel: Panel
    title: str
    curves: Mapping[str, Curve]


def figures(metrics: Mapping[str, Curve]) -> list[Figure]:
    """The figures of all metrics: those of panels in their order, then one for each other metric."""
    found: dict[tuple[int, str], dict[str, Curve]] = {}
    for name, curve in metrics.items():
        place, title = len(PANELS), name
        for i, panel in enumerate(PANELS):
            if match := re.fullmatch(panel.pattern, name):
                place, title = i, panel.title.format(*match.groups())
                break
        found.setdefault((place, title), {})[name] = curve
    panels = (*PANELS, Panel("", "", _OTHER))
    ordered = sorted(found.items(), key=lambda item: item[0][0])
    return [Figure(panels[place], title, curves) for (place, title), curves in ordered]


def step_axis(metrics: Mapping[str, Curve]) -> Axis:
    """The axis that all figures share; it starts at 0 unless training was resumed far from there."""
    steps = [step for curve in metrics.values() for step in (curve.steps[0], curve.steps[-1])] or [0]
    first, last = min(steps), max(max(steps), min(steps) + 1)
    return Axis(0 if first <= 0.2 * last else first, last, LEFT, RIGHT)


def draw(
    figure: Figure,
    ident: str,
    axis: Axis,
    limit: int,
    labels: Mapping[str, str],
    resumed: Sequence[int],
    explain: bool,
) -> Element:
    """A figure: title, drawings, legend with the last values, and how to read it.

    Args:
        figure: What to draw.
        ident: A name on the page, for its switch.
        axis: The axis of steps.
        limit: Points per curve, about.
        labels: What metrics are called beside their names.
        resumed: Steps at which training went on.
        explain: Say how to read it.
    """
    panel, lines, legend = figure.panel, [], []
    for i, (name, curve) in enumerate(figure.curves.items()):
        mean, width = moving_mean(curve, limit // 2) if panel.smooth else (curve, 1)
        raw = trace(curve, limit)
        kind, digits = f"{'r' if panel.ranked else 's'}{i % (5 if panel.ranked else 6)}", re.search(r"\d+$", name)
        mark = digits[0] if panel.ranked and digits else ""
        lines.append(Line(trace(mean, limit), kind, raw, mark) if width > 1 else Line(raw, kind, None, mark))
        facts = [f"thick: mean of {width}"] if width > 1 else []
        facts += [labels[name]] if name in labels else []
        if bad := curve.not_finite.steps:
            facts.append(f"{len(bad):,} × not finite, first at step {bad[0]:,}")
        legend.append(_entry(name, raw, kind, "; ".join(facts), panel.unit))

    def form(value: float) -> str:
        return shown(value, panel.unit)

    drawings, switch = [plot(lines, axis, False, form, resumed, panel.level)], list[Element]()
    values = [value for curve in figure.curves.values() for value in curve.finite.values]
    if panel.log and values and min(values) > 0:
        drawings.insert(0, plot(lines, axis, True, form, resumed))
        box = {"type": "checkbox", "id": ident, "class": "switch"}
        switch = [el("input", box), el("label", {"for": ident}, "from zero")]
    unit = f", {panel.unit}" if panel.unit and panel.unit != "%" else ""
    return el(
        "figure",
        {},
        el("h3", {}, figure.title, el("small", {}, unit)),
        *switch,
        *(el("div", {"class": f"plot {drawing.get('class')}"}, drawing) for drawing in drawings),
        el("ul", {"class": "legend"}, *legend),
        *([el("figcaption", {}, panel.note)] if explain else []),
    )


def moving_mean(curve: Curve, most: int) -> tuple[Curve, int]:
    """The mean of values with those before them, 4% of all, at least 3, and how many; those not finite do not count.

    Args:
        curve: The values.
        most: How many means are made, evenly spaced.
    """
    width = max(3, round(len(curve) / 25))
    if len(curve) < 2 * width:
        return curve, 1
    count = min(most, len(curve))
    places = sorted({round((i + 1) * len(curve) / count) - 1 for i in range(count)})
    means = []
    for place in places:
        finite = [value for value in curve.values[max(0, place + 1 - width) : place + 1] if math.isfinite(value)]
        means.append(mean_of(finite) if math.isfinite(curve.values[place]) else math.nan)
    return Curve([curve.steps[place] for place in places], means), width


def mean_of(values: Sequence[float]) -> float:
    """The mean of finite values, however large."""
    return math.fsum(value / len(values) for value in values)


def shown(value: float, unit: str) -> str:
    """A value as the page writes it."""
    return f"{number(100 * value)}%" if unit == "%" else number(value)


def _entry(name: str, drawn: Trace, kind: str, facts: str, unit: str) -> Element:
    """A line of the legend: a sample of the curve, its name, its last value, and the values for who points at it."""
    line = el("path", {"d": "M2 5H26", "class": f"line {kind}"})
    sample = el("svg", {"viewBox": "0 0 28 10", "class": "sample", "aria-hidden": "true"}, line)
    values = [shown(value, unit) for value in drawn.kept.values]
    readings = {"data-x": " ".join(map(str, drawn.kept.steps)), "data-y": " ".join(values)}
    return el("li", {}, sample, code(name), " ", el("output", readings, values[-1]), el("small", {}, f" {facts}"))


def not_finite(metrics: Mapping[str, Curve]) -> Iterator[str]:
    """A sentence for each metric that was not finite at some step."""
    for name, curve in metrics.items():
        if bad := curve.not_finite.steps:
            yield f"{name} is not finite in {len(bad):,} of {len(curve):,} values, first at step {bad[0]:,}."


def turned_up(curve: Curve) -> str | None:
    """A sentence if the validation loss was lowest three or more values ago, and is above that by 2% or more now."""
    finite: Sequence[float] = curve.finite.values
    if len(finite) < 4:
        return None
    best = min(range(len(finite)), key=finite.__getitem__)
    if best > len(finite) - 4 or not 0 < 1.02 * finite[best] < finite[-1]:
        return None
    where = f"{number(finite[best])} at step {curve.finite.steps[best]:,}"
    above = finite[-1] / finite[best] - 1
    return f"val/loss was lowest, {where}, and is {number(finite[-1])} now, {above:.0%} above that."
