"""Curves as SVG: axes with round numbers, gaps where there is nothing, marks where a value is no number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from xml.etree.ElementTree import Element

from .folder import Curve
from .markup import el, number

WIDTH, HEIGHT = 440, 230
LEFT, RIGHT, TOP, BOTTOM = 50, 420, 14, 202
"""The rectangle that curves are drawn in."""

LEAST, MOST = 1e-300, 1e300
"""Ends of axes: what lies beyond would be lost in rounding."""

Format = Callable[[float], str]


@dataclass(frozen=True)
class Axis:
    """Where values are drawn, in pixels.

    Args:
        low: The value at `start`.
        high: The value at `end`.
        start: Pixels.
        end: Pixels.
        log: Equal ratios are equally long.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value."""
        value = min(max(value, self.low), self.high)
        low, high, value = (self._scaled(v) for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Some round values between the ends."""
        if not self.log:
            return round_values(self.low, self.high)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = math.ceil(len(decades) / 6)
        for digits in ((1,), (1, 3), (1, 2, 5)):
            values = [float(f"{digit}e{decade}") for decade in decades[::every] for digit in digits]
            inside = [value for value in values if self.low <= value <= self.high]
            if len(inside) >= 3:
                return inside
        return round_values(self.low, self.high)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value


def round_values(low: float, high: float, most: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from `low` to `high`, about `most` of them."""
    rough = high / most - low / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def value_axis(values: Sequence[float], log: bool) -> Axis:
    """An axis upwards on which all of some finite values can be seen; not a logarithmic one also shows zero."""
    low, high = min(values, default=1.0), max(values, default=1.0)
    if log:
        room = math.exp(max(0.06 * (math.log(high) - math.log(low)), 0.02))
        return Axis(max(low / room, LEAST), min(high * room, MOST), BOTTOM, TOP, log=True)
    low, high = min(low, 0.0), max(high, 0.0)
    room = 0.06 * high - 0.06 * low or 1.0
    return Axis(max(low - room * (low < 0), -MOST), min(high + room * (high > 0 or low == 0), MOST), BOTTOM, TOP)


@dataclass(frozen=True)
class Trace:
    """What is drawn of a curve.

    Args:
        kept: The points that are drawn.
        stretches: Those that a line joins: between them is no value that is not finite, and no gap.
    """

    kept: Curve
    stretches: Sequence[Curve]


@dataclass(frozen=True)
class Line:
    """One curve of a figure.

    Args:
        trace: The curve.
        kind: Class of the style sheet: colour and dashes.
        raw: The curve that this one is a mean of; drawn thin.
        mark: A letter or digit at its end.
    """

    trace: Trace
    kind: str
    raw: Trace | None = None
    mark: str = ""


def trace(curve: Curve, limit: int) -> Trace:
    """What is drawn of a curve with about `limit` points.

    A gap is three times as long as nine in ten of the distances between values.
    """
    distances = sorted(b - a for a, b in pairwise(curve.steps))
    longest = 3 * distances[math.ceil(0.9 * (len(distances) - 1))] if distances else 0
    gaps = [0, *accumulate(int(b - a > longest) for a, b in pairwise(curve.steps))]  # before each point, counted
    places = thin(curve, limit)
    parts: list[list[int]] = [[]]
    for i in places:
        finite = math.isfinite(curve.values[i])
        if parts[-1] and (not finite or gaps[i] != gaps[parts[-1][-1]]):
            parts.append([])
        if finite:
            parts[-1].append(i)
    return Trace(curve.at(places), [curve.at(part) for part in parts if part])


def thin(curve: Curve, limit: int) -> list[int]:
    """Places of the points to draw: all, or of each stretch the first, least, largest and first that is not finite."""
    if len(curve) <= limit:
        return list(range(len(curve)))
    kept, count = {0, len(curve) - 1}, max(1, limit // 4)
    edges = [round(i * len(curve) / count) for i in range(count + 1)]
    for start, end in pairwise(edges):
        finite = [i for i in range(start, end) if math.isfinite(curve.values[i])]
        if finite:
            kept |= {finite[0], min(finite, key=curve.values.__getitem__), max(finite, key=curve.values.__getitem__)}
        if len(finite) < end - start:
            kept.add(next(i for i in range(start, end) if not math.isfinite(curve.values[i])))
    return sorted(kept)


def plot(
    lines: Sequence[Line],
    steps: Axis,
    log: bool,
    form: Format,
    resumed: Sequence[int] = (),
    level: float | None = None,
) -> Element:
    """One drawing.

    Args:
        lines: What to draw.
        steps: The axis of steps.
        log: Whether the axis of values is logarithmic; all finite values are above 0 then.
        form: Writes a value.
        resumed: Steps at which training went on: upright lines.
        level: A value to draw a line at.
    """
    drawn = [line.raw or line.trace for line in lines]
    values = [value for each in drawn for value in each.kept.finite.values]
    axis = value_axis(values if level is None else [*values, level], log)
    parts = [*_grid(axis, steps, form)]
    parts += [_path(f"M{steps(step):.1f} {TOP}V{BOTTOM}", "resumed") for step in resumed]
    if level is not None:
        parts.append(_path(f"M{LEFT} {axis(level):.1f}H{RIGHT}", "level"))
    for line in lines:
        if line.raw is not None:
            parts.append(_path(_outline(line.raw, steps, axis), f"raw {line.kind}"))
        parts.append(_path(_outline(line.trace, steps, axis), f"line {line.kind}"))
    for each in drawn:
        parts += _not_finite(each.kept, steps)
    parts += _marks([line for line in lines if line.mark], steps, axis)
    parts.append(el("line", {"class": "cursor", "y1": TOP, "y2": BOTTOM, "visibility": "hidden"}))
    about = f"{'Logarithmic' if log else 'Linear'} scale, " + (
        f"values from {form(min(values))} to {form(max(values))}" if values else "no finite values"
    )
    kind = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "class": "log" if log else "linear"}
    return el("svg", kind, el("title", {}, about), *parts)


def _outline(drawn: Trace, steps: Axis, axis: Axis) -> str:
    """The path of a curve; a point alone is a line of no length, which round ends make a dot."""
    path = []
    for part in drawn.stretches:
        points = [f"{steps(s):.1f} {axis(v):.1f}" for s, v in zip(part.steps, part.values, strict=True)]
        path.append("M" + ("L".join(points) if len(points) > 1 else f"{points[0]}h0"))
    return "".join(path)


def _grid(axis: Axis, steps: Axis, form: Format) -> Iterator[Element]:
    for value in axis.ticks():
        y = round(axis(value), 1)
        yield _path(f"M{LEFT} {y}H{RIGHT}", "grid")
        yield el("text", {"x": LEFT - 6, "y": round(y + 4, 1), "text-anchor": "end"}, form(value))
    for value in steps.ticks():
        x = round(steps(value), 1)
        yield _path(f"M{x} {BOTTOM}v4", "axis")
        yield el("text", {"x": x, "y": BOTTOM + 18, "text-anchor": "middle"}, _short_step(value))
    yield _path(f"M{LEFT} {BOTTOM}H{RIGHT}", "axis")


def _not_finite(curve: Curve, steps: Axis) -> Iterator[Element]:
    """Crosses along the upper edge."""
    bad = curve.not_finite
    if bad.steps:
        crosses = "".join(f"M{steps(step) - 3:.1f} {TOP - 9}l6 6m0-6l-6 6" for step in bad.steps)
        said = ", ".join(f"{number(v)} at step {s:,}" for s, v in zip(bad.steps[:5], bad.values[:5], strict=True))
        yield el("path", {"d": crosses, "class": "bad"}, el("title", {}, said + (", …" if len(bad) > 5 else "")))


def _marks(lines: Sequence[Line], steps: Axis, axis: Axis) -> Iterator[Element]:
    """Letters at the ends of curves, moved apart where they would cover each other."""
    ends = [(line, line.trace.stretches[-1]) for line in lines if line.trace.stretches]
    below = math.inf
    for line, end in sorted(ends, key=lambda pair: pair[1].values[-1]):
        below = min(axis(end.values[-1]) + 4, below - 11)
        x = round(steps(end.steps[-1]) + 5, 1)
        yield el("text", {"x": x, "y": round(below, 1), "class": f"mark {line.kind}"}, line.mark)


def _path(d: str, kind: str) -> Element:
    return el("path", {"d": d, "class": kind})


def _short_step(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= 10 * size or (value >= size and unit == "M"):
            return f"{value / size:g}{unit}"
    return f"{value:,g}"
