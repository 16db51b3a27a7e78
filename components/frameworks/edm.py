"""EDM (Karras et al. 2022) with the input scaling of Snap Video (paper, 3.1, Table 1, appendices D and E).

Symbols: ``d`` is sigma_data, ``k`` is sigma_in and ``s`` the noise level of the paper's forward process
``x_s = x / k + s * eps``. Samplers and the other components speak of ``y = k * x_s = x + sigma * eps`` with
``sigma = k * s``. With k = 1 every formula is EDM's own, to the bit. The sign of c_out is EDM's; the paper's Table 1
has it negative because its network predicts ``-F_tgt``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..interfaces import Framework, Predict, VideoShape
from .scaling import InputScale, check_input_scale, column, input_scale, log_normal, shape_of


@dataclass(frozen=True)
class Preconditioning:
    """The coefficients of Table 1 at noise levels ``s``, each of the shape of `s`.

    Args:
        s: Noise levels of the scaled forward process, > 0.
        d: Standard deviation of the data, sigma_data.
        k: Input scale, sigma_in.
    """

    s: Tensor
    d: float
    k: float

    @property
    def c_in(self) -> Tensor:
        """Scales ``x_s`` to unit variance."""
        return 1 / (self.d**2 / self.k**2 + self.s**2).sqrt()

    @property
    def c_skip(self) -> Tensor:
        """Share of ``x_s`` in the estimate."""
        return self.k * self.d**2 / (self.k * self.s**2 + self.d**2)

    @property
    def c_out(self) -> Tensor:
        """Share of the network's prediction in the estimate: EDM's c_out times a factor that is 1 at k = 1."""
        variance = self.s**2 + self.d**2
        return self.s * self.d / variance.sqrt() * (self.k * variance / (self.k * self.s**2 + self.d**2))

    @property
    def c_noise(self) -> Tensor:
        """Noise level as the network sees it."""
        return self.s.log() / 4

    @property
    def c_nrm(self) -> Tensor:
        """Scales the target ``F_tgt`` to unit variance."""
        return 1 / (self.d * (self.s**2 + self.d**2).sqrt())

    @property
    def weight(self) -> Tensor:
        """Loss weight w on the network's prediction: 1 at k = 1."""
        return ((self.s**2 + self.d**2) / (self.s**2 + self.d**2 / self.k)) ** 2

    @property
    def loss_weight(self) -> Tensor:
        """Loss weight lambda on the estimate of the clean video."""
        return 1 / self.d**2 + 1 / self.s**2


class EDM(Framework):
    """EDM with input scaling. ``sigma_in=1, sigma_data=0.5`` is EDM; the defaults are the paper's.

    Args:
        sigma_in: Divides the clean video before noise is added, > 0; ``auto``: ``max(H, W)/64 * sqrt(T)`` of the video,
            which undoes the redundancy of frames and pixels (paper, 3.1: 4 for 16 frames at 36x64).
        sigma_data: Standard deviation that the data is taken to have.
        P_mean: Mean of ln(s) in training.
        P_std: Standard deviation of ln(s) in training.
        sigma_min: Lowest s in sampling, > 0.
        sigma_max: Highest s in sampling.
        rho: Bends the sampling levels towards low noise (EDM, Eq. 5).

    Raises:
        ValueError: A value out of range.
    """

    def __init__(
        self,
        sigma_in: InputScale = "auto",
        sigma_data: float = 1.0,
        P_mean: float = -1.2,
        P_std: float = 1.2,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
    ) -> None:
        super().__init__()
        check_input_scale("sigma_in", sigma_in)
        for name, value in (("sigma_data", sigma_data), ("P_std", P_std), ("rho", rho)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name}={value} must be above 0")
        if not 0 < sigma_min < sigma_max < math.inf:
            raise ValueError(
                f"sigma_min={sigma_min} and sigma_max={sigma_max} must be finite, with 0 < sigma_min < sigma_max"
            )
        if not math.isfinite(P_mean):
            raise ValueError(f"P_mean={P_mean} must be a finite number")
        self.sigma_in, self.sigma_data, self.rho = sigma_in, sigma_data, rho
        self.P_mean, self.P_std = P_mean, P_std
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def noise_levels(self, quantile: Tensor, shape: VideoShape) -> Tensor:
        """``ln(s) ~ N(P_mean, P_std)``, as sigma = k s."""
        return log_normal(quantile, self.P_mean, self.P_std, input_scale(self.sigma_in, shape))

    def sampling_levels(self, num_steps: int, shape: VideoShape) -> Tensor:
        """EDM's Eq. 5 in s, as sigma = k s, then 0."""
        ramp = torch.arange(num_steps, dtype=torch.float64) / max(num_steps - 1, 1)
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        levels = (high + ramp * (low - high)) ** self.rho * input_scale(self.sigma_in, shape)
        return torch.cat([levels, levels.new_zeros(1)])

    def denoise(self, predict: Predict, y: Tensor, sigma: Tensor) -> Tensor:
        """``D = c_skip x_s + c_out F(c_in x_s; c_noise)`` (Table 1)."""
        x_s, c = self._scaled(y, sigma)
        F = self._predict(predict, x_s, c)
        return column(c.c_skip) * x_s + column(c.c_out) * F

    def loss(self, predict: Predict, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        """``w |F - c_nrm F_tgt|^2`` with ``F_tgt = s x - d^2 eps``, averaged over each sample ``[B]``.

        Equal to ``lambda |D - x|^2``, without its cancellation at low noise.
        """
        x_s, c = self._scaled(x + column(sigma) * noise, sigma)
        F = self._predict(predict, x_s, c)
        target = column(c.c_nrm) * (column(c.s) * x - self.sigma_data**2 * noise)
        return c.weight * (F - target).square().flatten(1).mean(1)

    def _scaled(self, y: Tensor, sigma: Tensor) -> tuple[Tensor, Preconditioning]:
        """``x_s`` and the coefficients at its level, float32 or better: autocast touches no operation here."""
        k = input_scale(self.sigma_in, shape_of(y))
        dtype = torch.promote_types(y.dtype, torch.float32)
        return y.to(dtype) / k, Preconditioning(sigma.to(dtype) / k, self.sigma_data, k)

    def _predict(self, predict: Predict, x_s: Tensor, c: Preconditioning) -> Tensor:
        return predict(column(c.c_in) * x_s, c.c_noise).to(x_s.dtype)
