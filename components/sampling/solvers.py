"""Samplers: pure functions of a denoiser, a source of noise and noise levels.

They solve ``dx/dsigma = (x - D(x, sigma)) / sigma``, or its stochastic relatives, in ``x = clean + sigma * eps``. So
what other papers write in their own coordinates, with a signal that fades, is here divided by that signal.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from ..interfaces import Denoise, Noise, Sampler

LONG_STEP = 0.25
"""Steps that leave a smaller share of the noise are long."""

LONGEST_FORECAST = 3.0
"""How many times as long as the step before a step may be to go by the change in that one."""


@dataclass(frozen=True)
class Churn:
    """Noise that is added before each step and removed by it (Karras et al. 2022, Algorithm 2).

    Args:
        amount: S_churn: over all steps together, the share by which noise is raised, >= 0.
        low: S_min: lowest sigma at which it is.
        high: S_max: highest sigma at which it is.
        inflate: S_noise: standard deviation of the noise that is added (EDM: 1.003 for ImageNet).

    Raises:
        ValueError: A value out of range.
    """

    amount: float
    low: float = 0.0
    high: float = math.inf
    inflate: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.amount < math.inf:
            raise ValueError(f"churn.amount={self.amount} must be a finite number of at least 0")
        if not self.low <= self.high:
            raise ValueError(f"churn.low={self.low} is above churn.high={self.high}")

    def __call__(self, x: Tensor, sigma: Tensor, noise: Noise, num_steps: int) -> tuple[Tensor, Tensor]:
        """`x` with noise added, and its raised noise level."""
        gamma = min(self.amount / num_steps, math.sqrt(2) - 1) if self.low <= sigma <= self.high else 0.0
        if gamma == 0:
            return x, sigma
        raised = sigma * (1 + gamma)
        return x + (raised**2 - sigma**2).sqrt() * self.inflate * noise(), raised


class _Solver(Sampler, ABC):
    """What all samplers here have: a number of steps.

    Raises:
        ValueError: Fewer than one step.
    """

    def __init__(self, num_steps: int) -> None:
        if num_steps < 1:
            raise ValueError(f"num_steps={num_steps} must be at least 1")
        self.num_steps = num_steps


class Euler(_Solver):
    """Euler's method: one evaluation of the denoiser a step (without churn it is DDIM).

    Args:
        num_steps: Steps.
        churn: Noise added before each step; None: deterministic.
    """

    def __init__(self, num_steps: int = 64, churn: Churn | None = None) -> None:
        super().__init__(num_steps)
        self.churn = churn or Churn(0.0)

    def __call__(self, denoise: Denoise, noise: Noise, sigmas: Tensor) -> Tensor:
        """See `Sampler.__call__`."""
        x, levels = _start(noise, sigmas)
        for sigma, sigma_next in levels:
            x, sigma = self.churn(x, sigma, noise, self.num_steps)
            slope = (x - denoise(x, sigma.expand(len(x)))) / sigma
            x = x + (sigma_next - sigma) * slope
        return x


class Heun(_Solver):
    """EDM's second-order sampler (Karras et al. 2022, Algorithms 1 and 2; paper, 3.2).

    Two evaluations of the denoiser a step, one in the last. It averages the slopes at both ends of a step; where that
    leaves less than `LONG_STEP` of the noise, it averages the estimates of the clean video instead, which is as
    accurate in short steps and stable in long ones. EDM's levels have no such step from 18 steps on; a framework whose
    first level stands for pure noise has one.

    Args:
        num_steps: Steps (paper: 256 for the first stage; its FVD is good from 64).
        churn: Noise added before each step; None: deterministic, as in the paper.
    """

    def __init__(self, num_steps: int = 64, churn: Churn | None = None) -> None:
        super().__init__(num_steps)
        self.churn = churn or Churn(0.0)

    def __call__(self, denoise: Denoise, noise: Noise, sigmas: Tensor) -> Tensor:
        """See `Sampler.__call__`."""
        x, levels = _start(noise, sigmas)
        for sigma, sigma_next in levels:
            long = sigma_next < LONG_STEP * sigma
            x, sigma = self.churn(x, sigma, noise, self.num_steps)
            clean = denoise(x, sigma.expand(len(x)))
            slope = (x - clean) / sigma
            x_next = x + (sigma_next - sigma) * slope
            if sigma_next > 0:
                clean_next = denoise(x_next, sigma_next.expand(len(x)))
                if long:
                    # slope_next has the change of the estimate over sigma_next: times sigma it would swamp the noise
                    x_next = x_next + 0.5 * (1 - sigma_next / sigma) * (clean_next - clean)
                else:
                    slope_next = (x_next - clean_next) / sigma_next
                    x_next = x + (sigma_next - sigma) * (0.5 * slope + 0.5 * slope_next)
            x = x_next
        return x


class DDIM(_Solver):
    """DDIM (Song et al. 2021, Eq. 12 and 16): steps that replace a share of the noise by fresh noise.

    Args:
        num_steps: Steps.
        eta: Share, 0..1: 0 is deterministic, 1 is `Ancestral`.

    Raises:
        ValueError: `eta` is out of range.
    """

    def __init__(self, num_steps: int = 64, eta: float = 0.0) -> None:
        super().__init__(num_steps)
        self.eta = _share("eta", eta)

    def __call__(self, denoise: Denoise, noise: Noise, sigmas: Tensor) -> Tensor:
        """See `Sampler.__call__`."""
        x, levels = _start(noise, sigmas)
        for sigma, sigma_next in levels:
            clean = denoise(x, sigma.expand(len(x)))
            fresh = self.eta * sigma_next * (1 - (sigma_next / sigma) ** 2).sqrt()
            x = clean + (sigma_next**2 - fresh**2).sqrt() * (x - clean) / sigma
            if fresh > 0:
                x = x + fresh * noise()
        return x


class Ancestral(DDIM):
    """DDPM's ancestral sampling (Ho et al. 2020, Algorithm 2), with the variance of its Eq. 7.

    Args:
        num_steps: Steps.
    """

    def __init__(self, num_steps: int = 256) -> None:
        super().__init__(num_steps, eta=1.0)


class DPMSolver(_Solver):
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2): second order at one evaluation of the denoiser a step.

    It goes on from the change of the estimate in the step before. Where a step is more than `LONGEST_FORECAST` times as
    long, in the logarithm of sigma, it is first order.

    Args:
        num_steps: Steps.
        eta: Share of the SDE's noise, 0..1: 0 solves the ODE, 1 is SDE-DPM-Solver++(2M) (its Eq. 18).

    Raises:
        ValueError: `eta` is out of range.
    """

    def __init__(self, num_steps: int = 32, eta: float = 0.0) -> None:
        super().__init__(num_steps)
        self.eta = _share("eta", eta)

    def __call__(self, denoise: Denoise, noise: Noise, sigmas: Tensor) -> Tensor:
        """See `Sampler.__call__`."""
        x, levels = _start(noise, sigmas)
        before: tuple[Tensor, Tensor] | None = None
        for sigma, sigma_next in levels:
            clean = denoise(x, sigma.expand(len(x)))
            if sigma_next == 0:
                return clean
            step = (sigma / sigma_next).log()  # h, in the logarithm of the signal-to-noise ratio
            ahead = clean
            if before is not None and step < LONGEST_FORECAST * before[1]:
                clean_before, step_before = before
                ahead = clean + 0.5 * step / step_before * (clean - clean_before)
            keep = (-step * (1 + self.eta)).exp()
            x = (sigma_next / sigma) * (-self.eta * step).exp() * x + (1 - keep) * ahead
            if self.eta > 0:
                x = x + sigma_next * (1 - (-2 * self.eta * step).exp()).sqrt() * noise()
            before = clean, step
        return x


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} must be in 0..1")
    return value


def _start(noise: Noise, sigmas: Tensor) -> tuple[Tensor, Iterator[tuple[Tensor, Tensor]]]:
    """Pure noise at the highest level, and the pairs of levels that the steps lead from and to."""
    eps = noise()
    sigmas = sigmas.to(eps.dtype).to(eps.device)  # in this order: not every device has float64
    return eps * sigmas[0], pairwise(sigmas)
