"""Rectified flow (Liu et al. 2023; Lipman et al. 2023), with the training times of Esser et al. 2024 (SD3).

In its own coordinates ``x_t = (1 - t) x + t eps`` and the network predicts the velocity ``eps - x``. Divided by the
signal that is ``y = x + sigma eps`` with ``sigma = t / (1 - t)``, and an Euler step in sigma is one in t.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..interfaces import Framework, Predict, VideoShape
from .linear_target import LinearTarget
from .scaling import InputScale, check_input_scale, column, input_scale, log_normal

LAST_TIME = 0.999
"""Where sampling starts: t = 1, pure noise, is infinite sigma."""


class FlowMatching(Framework):
    """Rectified flow with logit-normal times.

    Args:
        shift: Multiplies all noise levels, > 0 (Esser et al. 2024, Eq. 23: ``t' = shift t / (1 + (shift - 1) t)``);
            ``auto``: ``max(H, W)/64 * sqrt(T)`` of the video, so that more frames and pixels get as much more noise.
        logit_mean: Mean of ``ln(t / (1 - t))`` in training, before the shift.
        logit_std: Its standard deviation, > 0.

    Raises:
        ValueError: A value out of range.
    """

    def __init__(self, shift: InputScale = "auto", logit_mean: float = 0.0, logit_std: float = 1.0) -> None:
        super().__init__()
        check_input_scale("shift", shift)
        if not math.isfinite(logit_mean):
            raise ValueError(f"logit_mean={logit_mean} must be a finite number")
        if not 0 < logit_std < math.inf:
            raise ValueError(f"logit_std={logit_std} must be a finite number above 0")
        self.shift, self.logit_mean, self.logit_std = shift, logit_mean, logit_std

    def noise_levels(self, quantile: Tensor, shape: VideoShape) -> Tensor:
        """``ln(sigma / shift) ~ N(logit_mean, logit_std)``."""
        return log_normal(quantile, self.logit_mean, self.logit_std, input_scale(self.shift, shape))

    def sampling_levels(self, num_steps: int, shape: VideoShape) -> Tensor:
        """Equal steps in t before the shift, from `LAST_TIME` to 0."""
        time = LAST_TIME * torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)
        return time / (1 - time) * input_scale(self.shift, shape)

    def denoise(self, predict: Predict, y: Tensor, sigma: Tensor) -> Tensor:
        """``D = x_t - t F``."""
        x_t, velocity, c = self._predict(predict, y, sigma)
        return c.solve(x_t, velocity)

    def loss(self, predict: Predict, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        """``|F - (eps - x)|^2``, averaged over each sample ``[B]``."""
        _, velocity, c = self._predict(predict, x + column(sigma) * noise, sigma)
        return (velocity - c.target(x, noise)).square().flatten(1).mean(1)

    def _predict(self, predict: Predict, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, LinearTarget]:
        """``x_t``, the velocity at it and the coefficients, float32 or better.

        The network's noise level is the time, from -1 to 1: where sampling starts lies beyond all levels of training
        in ``ln(sigma)``, and beside them in time.
        """
        dtype = torch.promote_types(y.dtype, torch.float32)
        s = sigma.to(dtype)
        time, one = s / (1 + s), torch.ones_like(s)
        c = LinearTarget(*(column(values) for values in (1 / (1 + s), time, -one, one)))
        x_t = c.a * y.to(dtype)
        return x_t, predict(x_t, 2 * time - 1).to(dtype), c
