"""A video that a backbone is conditioned on, beside the noisy one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def join_videos(x: Tensor, beside: Tensor | None, channels: int) -> Tensor:
    """The noisy video, and after its channels those of a conditioning video that is enlarged to its size.

    Each frame is enlarged by itself, bilinearly.

    Args:
        x: Noisy video ``[B, C, T, H, W]``.
        beside: Conditioning video ``[B, C', T, h, w]``.
        channels: C' that the backbone takes; 0: it takes none.

    Raises:
        ValueError: The conditioning video is missing, not wanted, or of other channels or frames.
    """
    found = 0 if beside is None else beside.shape[1]
    if found != channels:
        raise ValueError(
            f"the backbone takes a conditioning video of {channels} channels and was given {found}: "
            "condition_channels must be what the conditioner gives (LowResolution: 3; others: 0)"
        )
    if beside is None:
        return x
    if beside.shape[2] != x.shape[2]:
        raise ValueError(f"the conditioning video has {beside.shape[2]} frames, and the video {x.shape[2]}")
    frames = rearrange(beside, "b c t h w -> (b t) c h w")
    frames = F.interpolate(frames, x.shape[3:], mode="bilinear", align_corners=False)
    return torch.cat([x, rearrange(frames, "(b t) c h w -> b c t h w", t=x.shape[2]).to(x.dtype)], dim=1)
