"""DDPM (Ho et al. 2020) with input scaling, as a table of noise levels.

In DDPM's own coordinates ``x_t = sqrt(ab) x / k + sqrt(1 - ab) eps``, with ``ab`` the running product of ``1 - beta``
and k the input scale (its inverse is b in Chen 2023, "On the Importance of Noise Scheduling for Diffusion Models").
Divided by the signal that is ``y = x + sigma eps`` with ``sigma = k s``, ``s = sqrt(1/ab - 1)``: all samplers work.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..interfaces import Framework, Predict, VideoShape
from .linear_target import LinearTarget
from .scaling import InputScale, check_input_scale, column, double, input_scale, shape_of

LEAST_SIGNAL = 2.0**-32
"""Stands for no signal at all: at its noise level, 65536, float32 still resolves what lower levels add."""


class DDPM(Framework):
    """Discrete noise levels, predicting noise, velocity or video; the loss is the plain squared error.

    Args:
        schedule: ``linear``: beta from 1e-4 to 0.02 (Ho et al. 2020); ``cosine``: Nichol and Dhariwal 2021, Eq. 17.
        prediction: What the network predicts: the noise (``eps``), ``sqrt(ab) eps - sqrt(1 - ab) x`` (``v``, Salimans
            and Ho 2022) or the clean video (``x0``).
        sigma_in: Divides the clean video before noise is added, > 0, 1 for DDPM; ``auto``: as in `EDM`.
        num_levels: Noise levels, at least 2.
        zero_terminal_snr: Rescale the levels so that the last is pure noise (Lin et al. 2024, Algorithm 1).

    Raises:
        ValueError: A value out of range, or noise to be predicted where it is all there is.
    """

    def __init__(
        self,
        schedule: Literal["linear", "cosine"] = "cosine",
        prediction: Literal["eps", "v", "x0"] = "v",
        sigma_in: InputScale = "auto",
        num_levels: int = 1000,
        zero_terminal_snr: bool = False,
    ) -> None:
        super().__init__()
        check_input_scale("sigma_in", sigma_in)
        if num_levels < 2:
            raise ValueError(f"num_levels={num_levels} must be at least 2")
        if zero_terminal_snr and prediction == "eps":
            raise ValueError(
                "prediction='eps' with zero_terminal_snr: pure noise says nothing of the video; use 'v' or 'x0'"
            )
        self.prediction, self.sigma_in = prediction, sigma_in
        with torch.device("cpu"):  # numbers, also where a model is built without any
            products = (1 - _betas(schedule, num_levels)).cumprod(0)
        if zero_terminal_snr:
            products = _without_last_signal(products)
        self.table = (1 / products - 1).sqrt()
        """Noise levels s ``[num_levels]``, rising, float64."""

    def noise_levels(self, quantile: Tensor, shape: VideoShape) -> Tensor:
        """Each level of the table is as likely, as sigma = k s."""
        index = (double(quantile) * len(self.table)).long().clamp(0, len(self.table) - 1)
        levels = self.table.to(index.device)[index] * input_scale(self.sigma_in, shape)
        return levels.float().to(quantile.device)

    def sampling_levels(self, num_steps: int, shape: VideoShape) -> Tensor:
        """Equal steps down the table from its last level ("trailing" in Lin et al. 2024, Table 2), then 0.

        Raises:
            ValueError: More steps than levels.
        """
        num_levels = len(self.table)
        if num_steps > num_levels:
            raise ValueError(f"{num_steps} steps are more than the {num_levels} noise levels of DDPM (num_levels)")
        index = (num_levels - torch.arange(num_steps, dtype=torch.float64) * num_levels / num_steps).round().long() - 1
        levels = self.table[index] * input_scale(self.sigma_in, shape)
        return torch.cat([levels, levels.new_zeros(1)])

    def denoise(self, predict: Predict, y: Tensor, sigma: Tensor) -> Tensor:
        """The clean video that solves ``x_t`` and the prediction for it."""
        x_t, prediction, c = self._predict(predict, y, sigma)
        return c.solve(x_t, prediction)

    def loss(self, predict: Predict, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        """Squared error of the prediction, averaged over each sample ``[B]`` (Ho et al. 2020, Eq. 14)."""
        _, prediction, c = self._predict(predict, x + column(sigma) * noise, sigma)
        return (prediction - c.target(x, noise)).square().flatten(1).mean(1)

    def _predict(self, predict: Predict, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, LinearTarget]:
        """``x_t``, the prediction at it and the coefficients, float32 or better.

        The network sees ``x_t`` scaled to unit variance, as in Chen 2023; with k = 1 it is ``x_t``. Its noise level is
        ``ln(s)/4``, as in EDM: unlike the index it doesn't depend on the number of levels.
        """
        k = input_scale(self.sigma_in, shape_of(y))
        dtype = torch.promote_types(y.dtype, torch.float32)
        s = sigma.to(dtype) / k
        signal, noise = 1 / (1 + s**2).sqrt(), s / (1 + s**2).sqrt()
        one, zero = torch.ones_like(s), torch.zeros_like(s)
        # v keeps DDPM's own target whatever k is, as the paper keeps EDM's.
        p, q = {"eps": (zero, one), "v": (-noise, signal), "x0": (one, zero)}[self.prediction]
        c = LinearTarget(*(column(values) for values in (signal / k, noise, p, q)))
        x_t = c.a * y.to(dtype)
        c_in = 1 / (signal**2 / k**2 + noise**2).sqrt()
        return x_t, predict(column(c_in) * x_t, s.log() / 4).to(dtype), c


def _betas(schedule: str, num_levels: int) -> Tensor:
    """The variances that each level adds ``[num_levels]``, float64."""
    if schedule == "linear":
        return torch.linspace(1e-4, 0.02, num_levels, dtype=torch.float64)
    time = torch.arange(num_levels + 1, dtype=torch.float64) / num_levels
    products = ((time + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (1 - products[1:] / products[:-1]).clamp(max=0.999)


def _without_last_signal(products: Tensor) -> Tensor:
    """Shift and scale sqrt(ab) so that its last value is 0 and its first one stays."""
    root = products.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])).square().clamp(min=LEAST_SIGNAL)
