"""Scores of rows, the interval that the choice of prompts and seeds leaves, and the same scores of real clips."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import mean
from typing import NamedTuple

import torch
from torch import Tensor

from ..components.metrics.video_metric import VideoMetric
from .rows import Rows

SPLITS = 4
"""Ways to part real clips, of which the mean is taken: one is a draw of lots."""


class Score(NamedTuple):
    """A score.

    Args:
        value: Of the videos.
        deviation: Standard deviation of the score of as many videos drawn with replacement; NaN: not measured. The mean
            of such scores may be another: a score is not corrected by it.
        real: The score of as many real clips, at most half of all; where it compares with real clips, with the rest.
        higher_is_better: Which way is up; None: neither.
    """

    value: float
    deviation: float
    real: float
    higher_is_better: bool | None


def scores_of(metrics: Mapping[str, VideoMetric], made: Rows, real: Rows, draws: int) -> dict[str, Score]:
    """The scores of all metrics by name.

    Args:
        metrics: By their keys.
        made: Their rows of the model's videos.
        real: Their rows of real clips.
        draws: Draws for the deviation.
    """
    found = {}
    for key, metric in metrics.items():
        deviations = _deviations(metric, made[key], real[key], draws)
        of_real = real_scores(metric, real[key], len(made[key]))
        for name, value in _values(metric, made[key], real[key]).items():
            found[name] = Score(value, deviations.get(name, math.nan), of_real[name], metric.direction(name))
    return found


def real_scores(metric: VideoMetric, real: Tensor, num: int) -> dict[str, float]:
    """Scores of real clips: mean over some choices of `num` of them, at most half, which are compared with the rest.

    Args:
        metric: The metric.
        real: Its rows of real clips ``[N, ...]``.
        num: Videos that a model made.
    """
    generator = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(SPLITS):
        mixed = real[torch.randperm(len(real), generator=generator)]
        count = min(num, len(real) // 2)
        parts.append(_values(metric, mixed[:count], mixed[count:]))
    return {name: mean(part[name] for part in parts) for name in parts[0]}


def values_of(metric: VideoMetric) -> dict[str, float]:
    """What a metric computes.

    Raises:
        ValueError: It is no score by name.
    """
    scores = metric.compute()
    if (
        not isinstance(scores, Mapping)
        or not scores
        or any(torch.as_tensor(one).numel() != 1 for one in scores.values())
    ):
        raise ValueError(f"compute() gives {scores!r}: it must be numbers by their names")
    return {name: float(value) for name, value in scores.items()}


def _values(metric: VideoMetric, made: Tensor, real: Tensor) -> dict[str, float]:
    metric.reset()
    if metric.uses_real:
        metric.add(real, real=True)
    metric.add(made)
    return values_of(metric)


def _deviations(metric: VideoMetric, made: Tensor, real: Tensor, draws: int) -> dict[str, float]:
    """Standard deviation of each score over draws with replacement (the bootstrap, Efron 1979); none of one draw."""
    if draws < 2:
        return {}
    generator = torch.Generator().manual_seed(0)
    drawn = [
        _values(metric, made[torch.randint(len(made), (len(made),), generator=generator)], real) for _ in range(draws)
    ]
    return {name: float(torch.tensor([values[name] for values in drawn]).double().std()) for name in drawn[0]}
