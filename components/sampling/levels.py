"""Noise levels for sampling other than the framework's own: the same ends, other steps between."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from ..interfaces import Levels


class _EqualSteps(Levels):
    """Equal steps of something that rises or falls with sigma."""

    @abstractmethod
    def _place(self, sigma: Tensor) -> Tensor:
        """Where a level lies on the scale of equal steps."""

    @abstractmethod
    def _sigma(self, place: Tensor) -> Tensor:
        """The level at a place: the inverse of `_place`."""

    def __call__(self, sigmas: Tensor) -> Tensor:
        """See `Levels.__call__`."""
        first, last = self._place(sigmas[0]), self._place(sigmas[-2])
        count = len(sigmas) - 1
        ramp = torch.arange(count, dtype=torch.float64) / max(count - 1, 1)
        return torch.cat([self._sigma(first + ramp * (last - first)), sigmas.new_zeros(1)])


class RhoLevels(_EqualSteps):
    """Equal steps in ``sigma^(1/rho)`` (Karras et al. 2022, Eq. 5).

    Args:
        rho: Higher: more of the steps at low noise, > 0.

    Raises:
        ValueError: `rho` is out of range.
    """

    def __init__(self, rho: float = 7.0) -> None:
        self.rho = _positive("rho", rho)

    def _place(self, sigma: Tensor) -> Tensor:
        return sigma ** (1 / self.rho)

    def _sigma(self, place: Tensor) -> Tensor:
        return place**self.rho


class LinearLevels(_EqualSteps):
    """Equal steps of the signal's share of the variance, ``1 / (1 + (sigma/scale)^2)``.

    That is the schedule ``gamma = 1 - t`` of Chen 2023 ("On the Importance of Noise Scheduling for Diffusion Models").

    Args:
        scale: The sigma at which that share is a half, > 0: an input scale goes here.

    Raises:
        ValueError: `scale` is out of range.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = _positive("scale", scale)

    def _place(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + (sigma / self.scale) ** 2)

    def _sigma(self, place: Tensor) -> Tensor:
        return self.scale * (1 / place - 1).sqrt()


class CosineLevels(_EqualSteps):
    """Equal steps of the angle whose tangent is sigma: the cosine schedule in continuous time (Nichol & Dhariwal 2021).

    Args:
        scale: The sigma at 45 degrees, > 0: around it steps are smallest, relative to sigma (an input scale goes here).

    Raises:
        ValueError: `scale` is out of range.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = _positive("scale", scale)

    def _place(self, sigma: Tensor) -> Tensor:
        return (sigma / self.scale).atan()

    def _sigma(self, place: Tensor) -> Tensor:
        return self.scale * place.tan()


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value} must be a finite number above 0")
    return value
