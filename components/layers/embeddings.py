"""Embeddings of scalars (noise level, frame rate, resolution) and of positions."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from .attention import xavier_linear


class FourierFeatures(nn.Module):
    """``[sin, cos](2 pi f x)`` for fixed frequencies f ~ N(0, 1), kept in a buffer.

    Args:
        num_features: Features per scalar, sines and cosines together; even.
    """

    frequencies: Tensor

    def __init__(self, num_features: int = 256) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(num_features // 2))

    def forward(self, x: Tensor) -> Tensor:
        """Features ``[..., num_features]`` of `x` ``[...]``."""
        angles = 2 * math.pi * x.float().unsqueeze(-1) * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class ScalarToken(nn.Module):
    """One conditioning token from a few scalars: 256 Fourier features -> Linear -> SiLU -> Linear.

    Args:
        dim: Width of the token.
        hidden: Width of the hidden layer.
        num_scalars: Scalars that share the 256 features.
    """

    def __init__(self, dim: int, hidden: int, num_scalars: int = 1) -> None:
        super().__init__()
        self.features = FourierFeatures(256 // num_scalars)
        self.mlp = nn.Sequential(xavier_linear(256, hidden), nn.SiLU(), xavier_linear(hidden, dim))

    def forward(self, scalars: Tensor) -> Tensor:
        """Tokens ``[B, D]`` of scalars ``[B, num_scalars]``."""
        return self.mlp(rearrange(self.features(scalars), "b s f -> b (s f)"))
