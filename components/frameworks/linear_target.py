"""Predictions that are linear in video and noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LinearTarget:
    """A network that predicts ``p x + q eps`` of ``x_t = a x + b eps``; all fields ``[B, 1, 1, 1, 1]``.

    Args:
        a: Share of the clean video in ``x_t``.
        b: Share of the noise in ``x_t``.
        p: Share of the clean video in the target.
        q: Share of the noise in the target.
    """

    a: Tensor
    b: Tensor
    p: Tensor
    q: Tensor

    def target(self, x: Tensor, noise: Tensor) -> Tensor:
        """What the network should say of the clean video `x` and its noise."""
        return self.p * x + self.q * noise

    def solve(self, x_t: Tensor, prediction: Tensor) -> Tensor:
        """The clean video that the prediction stands for: of the two equations, eps eliminated."""
        return (self.q * x_t - self.b * prediction) / (self.q * self.a - self.b * self.p)
