"""Guidance: makes one denoiser of a conditional and an unconditional one."""

from __future__ import annotations

import math
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from ..interfaces import Branches, Denoise, Guidance


class ClassifierFree(Guidance):
    """Classifier-free guidance (Ho & Salimans 2022): ``D = D_null + scale * (D_condition - D_null)``.

    Args:
        scale: 1: the condition alone, at half the cost; above 1: further towards it; 0: without it.
        low: Lowest sigma with guidance; below it the condition alone (Kynkäänniemi et al. 2024).
        high: Highest sigma with guidance; above it the condition alone.

    Raises:
        ValueError: The scale is not finite, or the interval is empty.
    """

    def __init__(self, scale: float = 4.0, low: float = 0.0, high: float = math.inf) -> None:
        _check_scale("scale", scale)
        if not low < high:
            raise ValueError(f"guidance low={low} must be below high={high}")
        self.scale, self.low, self.high = scale, low, high

    def __call__(self, branches: Branches) -> Denoise:
        """See `Guidance.__call__`."""

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            if not self.low <= sigma[0] <= self.high:
                return branches.conditional(x, sigma)
            return _guided(branches, x, sigma, self.scale)

        return denoise


class Oscillating(Guidance):
    """Guidance that alternates between two scales (Ho et al. 2022, Imagen Video, 2.7).

    The first noise levels have the high scale; after them every second one has the low one, which takes back the
    saturation that a high scale brings.

    Args:
        scale: The high scale.
        low_scale: The low scale.
        num_high: Noise levels before the first with the low scale, at least 1.

    Raises:
        ValueError: A value out of range.
    """

    def __init__(self, scale: float = 15.0, low_scale: float = 1.0, num_high: int = 10) -> None:
        _check_scale("scale", scale)
        _check_scale("low_scale", low_scale)
        if num_high < 1:
            raise ValueError(f"guidance num_high={num_high} must be at least 1")
        self.scale, self.low_scale, self.num_high = scale, low_scale, num_high

    def __call__(self, branches: Branches) -> Denoise:
        """See `Guidance.__call__`."""
        lowest, past = math.inf, -self.num_high - 1

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal lowest, past
            if sigma[0] < lowest:  # not at a level's second evaluation, nor where churn raised it
                lowest, past = float(sigma[0]), past + 1
            return _guided(branches, x, sigma, self.low_scale if past >= 0 and past % 2 == 0 else self.scale)

        return denoise


class Threshold(Guidance):
    """Brings guided estimates back into the range of videos (Saharia et al. 2022, Imagen, 2.3).

    Args:
        guidance: Makes the estimates.
        mode: ``static``: clip to [-1, 1]; ``dynamic``: clip each video to [-s, s] and divide it by s, s the quantile of
            its absolute values, at least 1.
        quantile: The quantile of ``dynamic``, 0..1.

    Raises:
        ValueError: `quantile` is out of range.
    """

    def __init__(
        self, guidance: Guidance, mode: Literal["static", "dynamic"] = "dynamic", quantile: float = 0.995
    ) -> None:
        if not 0 < quantile <= 1:
            raise ValueError(f"guidance quantile={quantile} must be above 0 and at most 1")
        self.guidance, self.mode, self.quantile = guidance, mode, quantile

    @property
    def scale(self) -> float | None:
        """That of what makes the estimates, if it has one."""
        return getattr(self.guidance, "scale", None)

    def __call__(self, branches: Branches) -> Denoise:
        """See `Guidance.__call__`."""
        guided = self.guidance(branches)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            estimate = guided(x, sigma)
            if self.mode == "static":
                return estimate.clamp(-1, 1)
            # kthvalue: torch.quantile takes 16 million values at most.
            values = estimate.abs().flatten(1)
            rank = max(math.ceil(self.quantile * values.shape[1]), 1)
            limit = rearrange(values.kthvalue(rank).values.clamp(min=1), "b -> b 1 1 1 1")
            return torch.minimum(torch.maximum(estimate, -limit), limit) / limit

        return denoise


def _check_scale(name: str, scale: float) -> None:
    if not math.isfinite(scale):
        raise ValueError(f"guidance {name}={scale} must be a finite number (1: no guidance)")


def _guided(branches: Branches, x: Tensor, sigma: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return branches.conditional(x, sigma)
    conditional, null = branches.both(x, sigma)
    return null + scale * (conditional - null)
