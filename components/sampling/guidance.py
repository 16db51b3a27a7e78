"""Guidance: wraps denoisers into a denoiser."""

from __future__ import annotations

import math

from torch import Tensor

from ..interfaces import Denoise, Guidance


class ClassifierFree(Guidance):
    """Classifier-free guidance (Ho & Salimans 2022): ``D = D_null + scale * (D_condition - D_null)``.

    Args:
        scale: 1: the condition alone, at half the cost; above 1: further towards it; 0: without it.

    Raises:
        ValueError: The scale is not finite.
    """

    def __init__(self, scale: float = 4.0) -> None:
        if not math.isfinite(scale):
            raise ValueError(f"guidance scale={scale} must be a finite number (1: no guidance)")
        self.scale = scale

    def __call__(self, conditional: Denoise, unconditional: Denoise) -> Denoise:
        """See `Guidance.__call__`."""
        if self.scale == 1:
            return conditional

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            null = unconditional(x, sigma)
            return null + self.scale * (conditional(x, sigma) - null)

        return denoise
