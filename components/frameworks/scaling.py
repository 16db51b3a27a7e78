"""Scales of noise levels and videos that frameworks share."""

from __future__ import annotations

import math
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from ..interfaces import VideoShape

InputScale = float | Literal["auto"]
"""A number above 0, or ``auto``: ``max(H, W)/64 * sqrt(T)``, which undoes the redundancy of frames and pixels."""


def check_input_scale(name: str, scale: InputScale) -> None:
    """Raise ValueError if the setting `name` is neither a number above 0 nor ``auto``."""
    if scale != "auto" and (isinstance(scale, str) or not 0 < scale < math.inf):
        raise ValueError(f"{name}={scale!r} must be a number above 0 or 'auto'")


def input_scale(scale: InputScale, shape: VideoShape) -> float:
    """The scale of videos of this shape (paper, 3.1: 4 for 16 frames at 36x64)."""
    if isinstance(scale, str):
        return max(shape.height, shape.width) / 64 * math.sqrt(shape.num_frames)
    return scale


def shape_of(video: Tensor) -> VideoShape:
    """The shape of each video of a batch ``[B, C, T, H, W]``."""
    channels, num_frames, height, width = video.shape[1:]
    return VideoShape(num_frames, height, width, channels)


def column(values: Tensor) -> Tensor:
    """``[B]`` as ``[B, 1, 1, 1, 1]``, to multiply videos."""
    return rearrange(values, "b -> b 1 1 1 1")


def log_normal(quantile: Tensor, mean: float, std: float, scale: float) -> Tensor:
    """`scale` times the quantile function of a variable whose logarithm is normal ``[B]``, found in float64."""
    normal = torch.special.ndtri(double(quantile).clamp(1e-6, 1 - 1e-6))
    return (mean + std * normal).exp().mul(scale).float().to(quantile.device)


def double(values: Tensor) -> Tensor:
    """`values` in float64, on the CPU where their device has none."""
    return values.cpu().double() if values.device.type == "mps" else values.double()
