"""What the U-Net is made of: residual blocks, attention that reads the conditioning, and the stages of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ..interfaces import Condition, VideoShape
from ..layers.patching import Size3


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of 32 groups (ADM); below 128 channels, of 4 channels each, so that a group never is one channel."""
    return nn.GroupNorm(math.gcd(32, channels if channels >= 128 else channels // 4), channels)


def start_at_zero(layer: nn.Linear | nn.Conv2d | nn.Conv3d) -> nn.Module:
    """The layer with weights and bias 0: a residual branch that ends in it adds nothing before training."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def mean_token(condition: Condition) -> Tensor:
    """The mean ``[B, D]`` of the tokens that are not padding."""
    mask = rearrange(condition.mask, "b s -> b s 1")
    return (condition.tokens * mask).sum(1) / mask.sum(1).clamp(min=1)


class LevelEmbedding(nn.Sequential):
    """The noise level as one vector: sines and cosines, Linear, SiLU, Linear.

    Args:
        num_features: Sines and cosines together; even.
        dim: Width of the vector.
    """

    frequencies: Tensor

    def __init__(self, num_features: int, dim: int) -> None:
        super().__init__(nn.Linear(num_features, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.register_buffer("frequencies", torch.logspace(0, -4, num_features // 2), persistent=False)

    def forward(self, c_noise: Tensor) -> Tensor:
        """Vectors ``[B, dim]`` of noise levels ``[B]``."""
        angles = c_noise.float().unsqueeze(-1) * self.frequencies
        return super().forward(torch.cat([angles.cos(), angles.sin()], dim=-1))


class ResidualBlock(nn.Module):
    """Two convolutions; the noise level scales and shifts between them (ADM).

    Args:
        dim: Channels in.
        dim_out: Channels out.
        dim_level: Width of the noise level's vector.
        dropout: Dropout before the second convolution.
        resample: ``down`` halves rows and columns by averaging, ``up`` doubles them by repeating, on both branches.
    """

    def __init__(
        self, dim: int, dim_out: int, dim_level: int, dropout: float, resample: Literal["down", "up"] | None = None
    ) -> None:
        super().__init__()
        self.norm_in = group_norm(dim)
        self.conv_in = nn.Conv2d(dim, dim_out, 3, padding=1)
        self.level = nn.Linear(dim_level, 2 * dim_out)
        self.norm_out = group_norm(dim_out)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = start_at_zero(nn.Conv2d(dim_out, dim_out, 3, padding=1))
        self.skip = nn.Identity() if dim == dim_out else nn.Conv2d(dim, dim_out, 1)
        self.resample: nn.Module = nn.Identity()
        if resample is not None:
            self.resample = nn.AvgPool2d(2) if resample == "down" else nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Images ``[(B T), C, H, W]`` in and out; `level` is ``[(B T), D]``, after its SiLU."""
        h = self.conv_in(self.resample(F.silu(self.norm_in(x))))
        scale, shift = rearrange(self.level(level), "n (two c) -> two n c 1 1", two=2)
        h = self.conv_out(self.dropout(F.silu(torch.addcmul(shift, self.norm_out(h), 1 + scale))))
        return self.skip(self.resample(x)) + h


class ConditionedAttention(nn.Module):
    """Attention among the places of a frame or among the frames of a place, and to the conditioning.

    Keys and values of the conditioning come before the layer's own: one softmax over both.

    Args:
        dim: Channels in and out.
        head_dim: Channels per head.
        dim_condition: Width of the conditioning tokens.
        num_frames: Frames to attend over at most, each with a learned position; None: attend over places.

    Raises:
        ValueError: `head_dim` does not divide `dim`.
    """

    def __init__(self, dim: int, head_dim: int, dim_condition: int, num_frames: int | None = None) -> None:
        super().__init__()
        if dim % head_dim:
            fits = [d for d in range(1, dim + 1) if dim % d == 0]
            raise ValueError(f"head_dim={head_dim} does not divide the {dim} channels of a level; {fits} fit")
        self.head_dim = head_dim
        self.norm = group_norm(dim)
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.condition_to_kv = nn.Linear(dim_condition, 2 * dim)
        self.to_out = start_at_zero(nn.Linear(dim, dim))
        self.positions = None if num_frames is None else nn.Parameter(0.5 * torch.randn(num_frames, 1, 1, dim))

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        """Images ``[(B T), C, H, W]`` in and out, B as in the condition."""
        batch, (height, width) = len(condition.tokens), x.shape[-2:]
        tokens = rearrange(self.norm(x), "(b t) c h w -> b t h w c", b=batch)
        if self.positions is None:
            order = "(b t) m (h w) d"
        else:
            order = "(b h w) m t d"
            tokens = tokens + self.positions[: tokens.shape[1]]
        q, k, v = rearrange(self.to_qkv(tokens), f"b t h w (p m d) -> p {order}", p=3, d=self.head_dim)
        shared = rearrange(self.condition_to_kv(condition.tokens), "b s (p m d) -> p b m s d", p=2, d=self.head_dim)
        times = len(q) // batch
        shared = repeat(shared, "p b m s d -> p (b n) m s d", n=times)
        k, v = torch.cat([shared[0], k], dim=2), torch.cat([shared[1], v], dim=2)
        mask = F.pad(condition.mask, (0, q.shape[2]), value=True)
        out = F.scaled_dot_product_attention(q, k, v, repeat(mask, "b s -> (b n) 1 1 s", n=times))
        out = self.to_out(rearrange(out, f"{order} -> b t h w (m d)", b=batch, h=height, w=width))
        return x + rearrange(out, "b t h w c -> (b t) c h w")


class Stage(nn.Module):
    """A residual block and the attention layers after it.

    Args:
        block: The residual block.
        attentions: Attention layers; none at levels without.
    """

    def __init__(self, block: ResidualBlock, attentions: Sequence[ConditionedAttention] = ()) -> None:
        super().__init__()
        self.block = block
        self.attentions = nn.ModuleList(attentions)

    def forward(self, x: Tensor, level: Tensor, condition: Condition) -> Tensor:
        """Images ``[(B T), C, H, W]`` in and out."""
        x = self.block(x, level)
        for attention in self.attentions:
            x = attention(x, condition)
        return x


class EnlargedVideo(nn.Module):
    """What a conditioning video says by itself: its channels, enlarged, mixed into those of the prediction.

    An upsampler changes little of what it enlarges. The branches of the network end in zeros at the start, and would
    have to learn first to copy.

    Args:
        condition_channels: Channels of the conditioning video.
        channels: Channels of the prediction.
    """

    GAIN = 48.0
    """As `MeanVideo.GAIN`: the prediction is a multiple of the video, 4 times at a sigma_data of 0.25."""

    def __init__(self, condition_channels: int, channels: int) -> None:
        super().__init__()
        self.mix = start_at_zero(nn.Conv3d(condition_channels, channels, 1))

    def forward(self, video: Tensor) -> Tensor:
        """Videos ``[B, C, T, H, W]`` of enlarged conditioning videos ``[B, C', T, H, W]``."""
        mixed: Tensor = self.GAIN * self.mix(video)
        return mixed


class MeanVideo(nn.Module):
    """What the conditioning says by itself: a coarse video, affine in its normalised mean token, made smooth.

    Where there is nothing to see but noise, the best estimate is the mean of all videos of a caption. The branches of
    the network end in zeros at the start, and words are slow to change the video through them.

    Args:
        dim_condition: Width of the conditioning tokens.
        shape: Size of the videos.
        grid: Frames, rows and columns of the coarse video.
    """

    GAIN = 4.0
    """Adam moves all weights at one pace, and these start at zero: a gain lets them move the video as much faster."""

    def __init__(self, dim_condition: int, shape: VideoShape, grid: Size3) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim_condition)
        self.to_video = start_at_zero(nn.Linear(dim_condition, shape.channels * math.prod(grid)))
        self.shape, self.grid = shape, grid

    def forward(self, condition: Condition, like: Tensor) -> Tensor:
        """Videos of the size of `like` ``[B, C, T, H, W]``: of fewer frames, the first; of other sides, stretched."""
        axes = dict(zip("thw", self.grid, strict=True))
        coarse = rearrange(self.to_video(self.norm(mean_token(condition))), "b (c t h w) -> b c t h w", **axes)
        size = self.shape.num_frames, *like.shape[3:]
        return self.GAIN * F.interpolate(coarse, size, mode="trilinear")[:, :, : like.shape[2]]

    def fit(self, rows: Tensor, source: MeanVideo) -> Tensor:
        """Weights or biases ``[(C T H W), ...]`` of another grid, stretched to this one."""
        axes = dict(zip("thw", source.grid, strict=True))
        coarse = rearrange(rows.reshape(len(rows), -1), "(c t h w) d -> d c t h w", **axes)
        coarse = F.interpolate(coarse, self.grid, mode="trilinear")
        return rearrange(coarse, "d c t h w -> (c t h w) d").reshape(-1, *rows.shape[1:])
