"""Scores of the same prompts and seeds at several values of one setting."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from ..components import VideoDiffusion, metrics
from ..components.interfaces import VideoShape
from ..components.media import write_bytes
from ..components.metrics import VideoMetric
from .errors import UserError, did_you_mean
from .requests import Request, batches_of
from .run import build_part
from .source import Source, record_of
from .stages import Stages
from .videos import VideoFolder

Scores = Mapping[str, float]

METRICS = ("ShapeAccuracy",)
"""Those that need neither arguments nor real clips."""


@dataclass(frozen=True)
class Point:
    """A value of the setting, and what is sampled at it.

    Args:
        value: The value.
        name: Name of the folder of its videos.
        sources: The runs; those of all points have the same weights.
        levels: Noise level for each run but the first.
    """

    value: str
    name: str
    sources: list[Source]
    levels: list[float]

    def shape(self) -> VideoShape:
        """The size of its videos.

        Raises:
            UserError: A setting is wrong, or the runs do not fit each other.
        """
        return Stages([source.build() for source in self.sources], self.levels).shape

    def folder(self, requests: Sequence[Request], machine: Mapping[str, Any], out: Path) -> VideoFolder:
        """The folder of its videos, which goes into `out`; `machine` is what the records say of where it is made."""
        settings = record_of(self.sources, self.levels) | dict(machine)
        return VideoFolder(requests, settings, out / self.name, out)

    def maker(self, models: Sequence[VideoDiffusion]) -> Stages:
        """What makes its videos: models that have the weights of its sources, whatever else they sampled before."""
        for model, source in zip(models, self.sources, strict=True):
            model.sampler, model.guidance = source.sampler(), source.guidance()
        return Stages(models, self.levels)


def make_metric(name: str) -> Metric:
    """A metric of a kind that is ours, or of the user's own.

    Args:
        name: ``ShapeAccuracy``, or the import path of a class that takes no arguments.

    Raises:
        UserError: There is none of that name, or it compares with real videos, which a sweep has none of.
    """
    if "." not in name and name not in METRICS:
        raise UserError(
            f"--metric {name}: there is none of that name.{did_you_mean(name, METRICS)}\n"
            f"known: {', '.join(METRICS)}; your own: my_module.MyClass; metrics with networks: snapvideo eval"
        )
    path = name if "." in name else f"{metrics.__name__}.{name}"
    metric: Metric = build_part(Metric, {"class_path": path})  # type: ignore[type-abstract]
    if isinstance(metric, VideoMetric) and metric.uses_real:
        raise UserError(
            f"--metric {name}: it compares with real videos, and a sweep has none; take another, as ShapeAccuracy"
        )
    return metric


def score(metric: Metric, requests: Sequence[Request], read: Callable[[Request], Tensor], batch_size: int) -> Scores:
    """The scores of videos, by name.

    Args:
        metric: ``update(videos, captions)`` takes uint8 ``[B, C, T, H, W]`` and B texts; ``compute()`` gives scalars by
            name.
        requests: The videos.
        read: Gives one, uint8 ``[C, T, H, W]``.
        batch_size: Videos at a time.

    Raises:
        ValueError: The metric gives something else, or cannot score such videos or captions.
    """
    metric.reset()
    for batch in batches_of(requests, batch_size):
        videos, captions = torch.stack([read(request) for request in batch]), [request.prompt for request in batch]
        if isinstance(metric, VideoMetric):
            metric.update(videos, captions, torch.tensor([request.fps for request in batch]))
        else:
            metric.update(videos, captions)
    scores = metric.compute()
    if not isinstance(scores, Mapping) or not scores:
        raise ValueError(f"compute() gives {scores!r}: it must be scores by their names")
    return {name: float(value) for name, value in scores.items()}


def rehearse(metric: Metric, requests: Sequence[Request], shape: VideoShape, batch_size: int) -> list[str]:
    """Score black videos, before any are made; the names of the scores.

    Raises:
        UserError: The metric cannot score videos of such a size, or one of the captions.
    """
    black = torch.zeros(tuple(shape), dtype=torch.uint8)
    try:
        return list(score(metric, requests, lambda request: black, batch_size))
    except Exception as error:  # whatever a class of the user's own does not like
        size = "x".join(map(str, shape))
        raise UserError(f"--metric {type(metric).__name__} cannot score videos {size} of these: {error}") from error


def choose_by(asked: str | None, names: Sequence[str]) -> str:
    """The score by which one value is better than another: ``all``, or the first, where none is asked for.

    Raises:
        UserError: The metric has none of that name.
    """
    if asked is None:
        return "all" if "all" in names else names[0]
    if asked not in names:
        raise UserError(
            f"--by {asked}: it is none of the scores.{did_you_mean(asked, names)}\nscores: {', '.join(names)}"
        )
    return asked


def best_of(points: Mapping[str, Scores], by: str, higher_is_better: bool | None) -> list[str]:
    """The values whose score is the best: several, where it is equal; none, where no score is a number.

    Args:
        points: Scores by values of the setting.
        by: The score to compare.
        higher_is_better: Whether it is the highest; None, as of a metric that does not say: it is.
    """
    known = {value: scores[by] for value, scores in points.items() if not math.isnan(scores[by])}
    best = (min if higher_is_better is False else max)(known.values(), default=None)
    return [value for value, number in known.items() if number == best]


def table(option: str, points: Mapping[str, Scores], best: Sequence[str]) -> str:
    """A row for each value, the best marked."""
    names = list(next(iter(points.values())))
    rows = [[value, *(f"{scores[name]:.3f}" for name in names)] for value, scores in points.items()]
    widths = [max(map(len, column)) for column in zip([option, *names], *rows, strict=True)]
    header, *lines = (
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in ([option, *names], *rows)
    )
    marked = [f"{line} *" if value in best else line for line, value in zip(lines, points, strict=True)]
    return "\n".join([header, *marked])


def write_result(file: Path, about: Mapping[str, Any], points: Mapping[str, Scores], best: Sequence[str]) -> None:
    """Write the scores as JSON; a score that is no number is null."""
    listed = [
        {"value": value, "scores": {name: None if math.isnan(x) else x for name, x in scores.items()}}
        for value, scores in points.items()
    ]
    text = json.dumps({**about, "points": listed, "best": list(best)}, ensure_ascii=False, indent=1)
    write_bytes(file, text.encode() + b"\n")
