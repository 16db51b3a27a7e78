"""Pictures of figures; they need matplotlib, which the extra ``eval`` installs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    from .bench import Result


def need_matplotlib() -> None:
    """Look for it, before anything is measured.

    Raises:
        UserError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UserError("--plot needs matplotlib: pip install 'snapvideo[eval]'")


def bars(results: Sequence[Result]) -> bytes:
    """A PNG file: milliseconds per video of each recipe, with the spread, for training and inference."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.4 + 0.5 * len(results)), layout="constrained")
    names = [result.recipe for result in results]
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), ("train", "inference"), strict=True):
        timings = [getattr(result, kind) for result in results]
        times = [timing.ms_per_video for timing in timings]
        spread = [[t - timing.low for t, timing in zip(times, timings, strict=True)]]
        spread.append([timing.high - t for t, timing in zip(times, timings, strict=True)])
        drawn = axes.barh(names, times, xerr=spread, color="#4477aa", ecolor="#222222", capsize=3)
        labels = [f"{t:,.0f} ms, {timing.fraction:.0%}" for t, timing in zip(times, timings, strict=True)]
        axes.bar_label(drawn, labels, padding=6)
        axes.margins(x=0.6)
        axes.set_title({"train": "training step", "inference": "one evaluation"}[kind])
        axes.set_xlabel("ms per video; share of the rate of matrix products")
    figure.axes[0].invert_yaxis()  # one axis, shared: the first recipe on top
    with BytesIO() as file:
        FigureCanvasAgg(figure).print_png(file)
        return file.getvalue()
