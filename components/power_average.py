"""Averages over training whose lengths can be chosen afterwards: power functions (Karras et al. 2024, section 3).

Source: "Analyzing and Improving the Training Dynamics of Diffusion Models", section 3 and appendix C. All in float64.

A power-function average at step t weighs what the weights were at time tau in proportion to ``tau ** exponent``. Its
length is given as a relative standard deviation `std` (the paper's sigma_rel): that of its weight over time, as a share
of the steps so far. It is a share, so that the average grows with training; 0.10 of 10,000 steps is 1,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LONGEST = 12**-0.5
"""The relative standard deviation of the plain mean over all steps, 0.289: no power function with growth is longer."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Profile:
    """Which average: its length and when.

    Args:
        step: The step at which it is taken, at least 1.
        std: Its relative standard deviation, above 0 and below `LONGEST`.
    """

    step: int
    std: float


def exponent_of(std: float) -> float:
    """The exponent (the paper's gamma) of the average with a relative standard deviation (Eq. 126, Algorithm 2).

    Raises:
        ValueError: It is not above 0 and below `LONGEST`.
    """
    if not 0 < std < LONGEST:
        raise ValueError(f"std is {std}: it must be above 0 and below {LONGEST:.3f}, the mean over all steps")
    variance = std**2
    # Eq. 3 solved for the exponent is a cubic with three real roots; the largest is the one above 0.
    return float(np.roots([1.0, 7.0, 16.0 - 1 / variance, 12.0 - 1 / variance]).real.max())


def std_of(exponent: float) -> float:
    """The relative standard deviation of a power-function average (Eq. 3, Eq. 123)."""
    return float(np.sqrt((exponent + 1) / (exponent + 3)) / (exponent + 2))


def decay(step: int, std: float) -> float:
    """The share of the average that stays when the weights of a step, counted from 1, enter it (Eq. 2, Eq. 127).

    With it, the weights of step s have in the average at step t the share that lies between times s - 1 and s of the
    power function: exactly, not only for many steps.
    """
    return float((1 - 1 / step) ** (exponent_of(std) + 1))


def response(times: Floats, profile: Profile) -> Floats:
    """The weight of each of `times` in an average, per step; they integrate to 1 (Eq. 1, Eq. 108)."""
    exponent = exponent_of(profile.std)
    inside = np.clip(times / profile.step, 0, 1)
    return np.where(times <= profile.step, (exponent + 1) * inside**exponent / profile.step, 0.0)


def inner_products(ones: Sequence[Profile], others: Sequence[Profile]) -> Floats:
    """Integral over time of the product of the responses of each pair, ``[ones, others]`` (Eq. 151)."""
    step_1, exponent_1 = (column[:, None] for column in _columns(ones))
    step_2, exponent_2 = _columns(others)
    first, last = np.minimum(step_1, step_2), np.maximum(step_1, step_2)
    exponent_of_last = np.where(step_1 < step_2, exponent_2, exponent_1)
    gain = (exponent_1 + 1) * (exponent_2 + 1) / (exponent_1 + exponent_2 + 1)
    return gain * (first / last) ** exponent_of_last / last


def combine(known: Sequence[Profile], wanted: Profile) -> tuple[Floats, float]:
    """The weighted sum of known averages that is nearest to another one (Algorithm 3).

    Differs from the paper: the shares are then divided by their sum, as in its authors' code, so that weights that
    never change are given back as they are.

    Args:
        known: Averages that there are.
        wanted: The one to make.

    Returns:
        The share of each, and the error: the distance of the sum's response from the wanted one (the root of the
        integral of the squared difference), relative to the wanted one.
    """
    products, towards = inner_products(known, known), inner_products(known, [wanted])[:, 0]
    shares = np.linalg.lstsq(products, towards, rcond=None)[0]
    shares = shares / shares.sum()
    size = inner_products([wanted], [wanted])[0, 0]
    squared = size - 2 * shares @ towards + shares @ products @ shares
    return shares, float(np.sqrt(max(squared, 0.0) / size))


def _columns(profiles: Sequence[Profile]) -> tuple[Floats, Floats]:
    """Steps and exponents."""
    steps = np.array([profile.step for profile in profiles], np.float64)
    return steps, np.array([exponent_of(profile.std) for profile in profiles], np.float64)
