"""Samplers: pure functions of a denoiser, noise and noise levels."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from ..interfaces import Denoise, Sampler


class Heun(Sampler):
    """EDM's deterministic second-order sampler (Karras et al. 2022, Algorithm 1; paper, 3.2).

    Two evaluations of the denoiser a step, one in the last.

    Args:
        num_steps: Steps (paper: 256 for the first stage; its FVD is good from 64).

    Raises:
        ValueError: Fewer than one step.
    """

    def __init__(self, num_steps: int = 64) -> None:
        if num_steps < 1:
            raise ValueError(f"num_steps={num_steps} must be at least 1")
        self.num_steps = num_steps

    def __call__(self, denoise: Denoise, noise: Tensor, sigmas: Tensor) -> Tensor:
        """See `Sampler.__call__`."""
        sigmas = sigmas.to(noise)
        x = noise * sigmas[0]
        for sigma, sigma_next in pairwise(sigmas):
            slope = (x - denoise(x, sigma.expand(len(x)))) / sigma
            x_next = x + (sigma_next - sigma) * slope
            if sigma_next > 0:
                slope_next = (x_next - denoise(x_next, sigma_next.expand(len(x)))) / sigma_next
                x_next = x + (sigma_next - sigma) * (0.5 * slope + 0.5 * slope_next)
            x = x_next
        return x
