"""U-Net: the image U-Net of ADM, with attention over frames and to the conditioning (paper, 4 and Table 7).

The baseline of FIT. Frames are images of a batch; they meet in attention, which reads the conditioning in the same
softmax, and in the first convolution where it is told to span several. Blocks are those of Dhariwal & Nichol 2021,
"Diffusion Models Beat GANs on Image Synthesis" (ADM).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ..interfaces import Backbone, Condition, State, VideoShape
from ..layers.condition_video import join_videos
from ..layers.patching import Size3
from ..layers.tables import widen
from .unet_blocks import (
    ConditionedAttention,
    EnlargedVideo,
    LevelEmbedding,
    MeanVideo,
    ResidualBlock,
    Stage,
    group_norm,
    mean_token,
    start_at_zero,
)
from .unet_frames import fit_places, split_head, split_stem


class UNet(Backbone):
    """U-Net backbone. The defaults are the paper's 85M (Table 7) but for `shape` (its 16 x 36 x 64).

    What the paper leaves open is chosen to come closest to its parameter counts: attention over frames follows
    attention over places at the same levels, and both read the conditioning.

    Args:
        shape: Size of the videos; rows and columns that cannot be halved often enough are padded inside. Training takes
            other rows and columns and fewer frames, too.
        channels: Channels of the first level, a multiple of 4.
        multipliers: Channels of each level as multiples of `channels`; a level has half the rows and columns of the
            one before.
        num_blocks: Residual blocks per level on the way down; there is one more on the way up.
        attention_levels: Levels with attention, 0 the first; between down and up there always is one.
        head_dim: Channels per head.
        dim_condition: Width of the conditioning tokens.
        dropout: Dropout in the residual blocks, 0..1.
        patch: Frames, rows and columns that are the channels of one place (the paper: 1, 1, 1). Patches save most of
            the first level. What is in one patch has weights of its own: motion within it is learned place by place.
        stem_frames: Places in time that the first convolution sees, odd (the paper: 1). With more, frames need not wait
            for attention to add up what they have in common.
        pool_condition: Add the mean of the conditioning tokens, through a layer that each frame has of its own, to the
            noise level's vector, which reaches every block: captions are followed after fewer steps (not in the paper).
        mean_video: Add to the prediction a coarse video that is affine in the normalised mean of the conditioning
            tokens, with as many rows and columns as the last level: words are read after fewer steps. It is the same at
            all noise levels, and meant for training at levels well above `sigma_data` (not in the paper).
        condition_channels: Channels of the video that it sees beside the noisy one (an upsampler: 3); 0: none. What is
            seen is also mixed into the prediction, by weights that start at zero.

    Raises:
        ValueError: Sizes that don't divide; the message names those that would.
    """

    def __init__(
        self,
        shape: VideoShape,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 3),
        num_blocks: int = 2,
        attention_levels: Sequence[int] = (1, 2, 3),
        head_dim: int = 64,
        dim_condition: int = 768,
        dropout: float = 0.1,
        patch: Size3 = (1, 1, 1),
        stem_frames: int = 1,
        pool_condition: bool = False,
        mean_video: bool = False,
        condition_channels: int = 0,
    ) -> None:
        super().__init__()
        for name, size in (("num_blocks", num_blocks), ("head_dim", head_dim), ("dim_condition", dim_condition)):
            if size < 1:
                raise ValueError(f"{name}={size} must be at least 1")
        _check_sizes(shape, channels, multipliers, attention_levels, patch, stem_frames)
        self.shape = shape
        self.dim_condition = dim_condition
        self.condition_channels = condition_channels
        self.patch = patch
        self.halvings = len(multipliers) - 1
        num_frames = shape.num_frames // patch[0]
        patch_dim = shape.channels * math.prod(patch)
        dim_level = 4 * channels
        dims = [channels * multiplier for multiplier in multipliers]

        def attentions(dim: int) -> list[ConditionedAttention]:
            return [ConditionedAttention(dim, head_dim, dim_condition, frames) for frames in (None, num_frames)]

        def stage(level: int, dim_in: int) -> Stage:
            block = ResidualBlock(dim_in, dims[level], dim_level, dropout)
            return Stage(block, attentions(dims[level]) if level in attention_levels else ())

        def resample(level: int, how: Literal["down", "up"]) -> Stage:
            return Stage(ResidualBlock(dims[level], dims[level], dim_level, dropout, how))

        self.level = LevelEmbedding(channels, dim_level)
        self.pooled = None
        if pool_condition:
            self.pooled = nn.Sequential(nn.LayerNorm(dim_condition), nn.Linear(dim_condition, num_frames * dim_level))
        self.mean_video = None
        if mean_video:
            rows, columns = (edge * 2**self.halvings for edge in patch[1:])
            grid = (num_frames, -(-shape.height // rows), -(-shape.width // columns))
            self.mean_video = MeanVideo(dim_condition, shape, grid)
        self.down = nn.ModuleList()
        skips = [channels]
        for level, dim in enumerate(dims):
            if level:
                self.down.append(resample(level - 1, "down"))
                skips.append(dims[level - 1])
            for _ in range(num_blocks):
                self.down.append(stage(level, skips[-1]))
                skips.append(dim)
        middle = [ResidualBlock(dims[-1], dims[-1], dim_level, dropout) for _ in range(2)]
        self.middle = nn.ModuleList([Stage(middle[0], attentions(dims[-1])), Stage(middle[1])])
        self.up = nn.ModuleList()
        self.enlarge = nn.ModuleList()
        before = dims[-1]
        for level, dim in reversed(list(enumerate(dims))):
            widths = [before] + num_blocks * [dim]
            self.up.append(nn.ModuleList(stage(level, width + skips.pop()) for width in widths))
            if level:
                self.enlarge.append(resample(level, "up"))
            before = dim
        self.head = nn.Sequential(
            group_norm(dims[0]), nn.SiLU(), start_at_zero(nn.Conv2d(dims[0], patch_dim, 3, padding=1))
        )
        self.to(memory_format=torch.channels_last)  # the layout in which convolutions and attention need no copies
        self.enlarged = EnlargedVideo(condition_channels, shape.channels) if condition_channels else None
        dim_seen = (shape.channels + condition_channels) * math.prod(patch)
        self.stem = nn.Conv3d(dim_seen, channels, (stem_frames, 3, 3), padding=(stem_frames // 2, 1, 1))

    def fit_weights(self, weights: dict[str, Tensor], source: Backbone) -> dict[str, Tensor]:
        """See `Backbone.fit_weights`.

        The coarse video of `mean_video` is stretched; what the stem sees beside the noisy video starts at zero. Frames
        of another number take what belongs to the place in time where they lie. A model whose patches hold fewer frames
        starts from the mean of what the frames of a patch had.
        """
        if not isinstance(source, UNet) or self.patch[1:] != source.patch[1:]:
            return weights
        parts, rest = divmod(source.patch[0], self.patch[0])
        if parts == 0 or rest:
            return weights
        fitted = dict(weights)
        before, after = (unet.shape.num_frames // unet.patch[0] for unet in (source, self))
        for name, weight in weights.items():
            if name.startswith("pooled.1.") or name.endswith(".positions"):
                fitted[name] = fit_places(weight, before, after)
            elif name.startswith("head.2."):
                fitted[name] = split_head(weight, parts, source.shape.channels)
        stem = split_stem(weights["stem.weight"], parts, source.shape.channels + source.condition_channels)
        fitted["stem.weight"] = widen(stem, self.stem.weight.shape[1])
        if self.mean_video is not None and source.mean_video is not None:
            for name in ("mean_video.to_video.weight", "mean_video.to_video.bias"):
                fitted[name] = self.mean_video.fit(weights[name], source.mean_video)
        return fitted

    def check_shape(self, shape: VideoShape) -> None:
        """See `Backbone.check_shape`: any rows and columns will do, and as many frames as `shape` has, or fewer."""
        most, patch = self.shape.num_frames, self.patch[0]
        if shape.channels != self.shape.channels or shape.num_frames not in range(patch, most + 1, patch):
            frames = list(range(patch, most + 1, patch))
            raise ValueError(
                f"UNet takes videos of {frames} frames and {self.shape.channels} channels, not of {shape.num_frames} "
                f"and {shape.channels}: its layers know places in time up to {most}, in patches of {patch}"
            )

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition, state: State = None) -> tuple[Tensor, State]:
        """See `Backbone.forward`; there is no state."""
        level = F.silu(self._level(c_noise, condition, x.shape[2] // self.patch[0]))
        seen = join_videos(x, condition.video, self.condition_channels)
        h = rearrange(self.stem(self._to_patches(seen)), "b c t h w -> (b t) c h w")
        h = h.contiguous(memory_format=torch.channels_last)
        skips = [h]
        for stage in self.down:
            h = stage(h, level, condition)
            skips.append(h)
        for stage in self.middle:
            h = stage(h, level, condition)
        for i, stages in enumerate(self.up):
            if i:
                h = self.enlarge[i - 1](h, level, condition)
            assert isinstance(stages, nn.ModuleList)
            for stage in stages:
                h = stage(torch.cat([h, skips.pop()], dim=1), level, condition)
        video = self._to_video(self.head(h), x)
        if self.enlarged is not None:
            video = video + self.enlarged(seen[:, x.shape[1] :])
        return (video if self.mean_video is None else video + self.mean_video(condition, x)), None

    def _level(self, c_noise: Tensor, condition: Condition, frames: int) -> Tensor:
        """The vector of the noise level for each frame ``[(B T), D]``."""
        level = repeat(self.level(c_noise), "b d -> (b t) d", t=frames)
        if self.pooled is None:
            return level
        pooled = self.pooled(mean_token(condition))
        pooled = rearrange(pooled, "b (t d) -> b t d", d=level.shape[1])[:, :frames]
        return level + rearrange(pooled, "b t d -> (b t) d")

    def _to_patches(self, video: Tensor) -> Tensor:
        """The padded video ``[B, C, T, H, W]`` with the pixels of a patch as channels of one place."""
        height, width = (size * 2**self.halvings for size in self.patch[1:])
        rows, columns = video.shape[3:]
        video = F.pad(video, (0, -columns % width, 0, -rows % height))
        return rearrange(video, "b c (t pt) (h ph) (w pw) -> b (c pt ph pw) t h w", **self._patch_axes())

    def _to_video(self, images: Tensor, like: Tensor) -> Tensor:
        """The video ``[B, C, T, H, W]`` of images of patches ``[(B T), C, H, W]``, of the batch and size of `like`."""
        axes = {"b": len(like), **self._patch_axes()}
        video = rearrange(images, "(b t) (c pt ph pw) h w -> b c (t pt) (h ph) (w pw)", **axes)
        return video[..., : like.shape[3], : like.shape[4]]

    def _patch_axes(self) -> dict[str, int]:
        return dict(zip(("pt", "ph", "pw"), self.patch, strict=True))


def _check_sizes(
    shape: VideoShape,
    channels: int,
    multipliers: Sequence[int],
    attention_levels: Sequence[int],
    patch: Size3,
    stem_frames: int,
) -> None:
    """Raise ValueError where sizes of a `UNet` don't fit each other, naming those that would."""
    if len(patch) != 3 or min(patch) < 1:
        raise ValueError(f"patch={list(patch)} must be three sizes of at least 1: frames, rows, columns")
    if shape.num_frames % patch[0]:
        fits = [t for t in range(1, shape.num_frames + 1) if shape.num_frames % t == 0]
        raise ValueError(
            f"patch={list(patch)}: {patch[0]} frames don't divide the video's {shape.num_frames}; {fits} fit"
        )
    if stem_frames < 1 or stem_frames % 2 == 0:
        raise ValueError(f"stem_frames={stem_frames} must be odd and at least 1: as many frames before as after")
    if channels < 4 or channels % 4:
        raise ValueError(f"channels={channels} must be a multiple of 4")
    if not multipliers or min(multipliers) < 1:
        raise ValueError(f"multipliers={list(multipliers)} must be one or more numbers of at least 1")
    if not set(attention_levels) <= set(range(len(multipliers))):
        raise ValueError(
            f"attention_levels={list(attention_levels)}: with {len(multipliers)} multipliers, levels are "
            f"{list(range(len(multipliers)))}"
        )
