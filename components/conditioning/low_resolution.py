"""The low-resolution video that an upsampler enlarges (paper, 3.4)."""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..draws import Draws, KeyDraws
from ..interfaces import Condition, Conditioner, LowRes, Prompt, VideoBatch, VideoShape
from ..layers import ScalarToken
from .scalars import one_token


class LowResolution(Conditioner):
    """A low-resolution video as pixels for the backbone, and one token of the level of the noise on it.

    In training the video is made of the clean one: averaged down, with noise of a level that is uniform in
    0..`max_level`. So the upsampler learns to mend what a first stage gets wrong; in sampling one level is chosen, and
    the first stage's video gets noise of it (paper, 3.4). Guidance steers by text: both of its branches see the video.

    Args:
        dim: Width of the token.
        height: Rows of the low-resolution video: the first stage's.
        width: Its columns.
        max_level: Highest noise level in training, above 0, at most 1.
        hidden: Width of the token's hidden layer; None: four times `dim`.

    Raises:
        ValueError: A size or the level is out of range.
    """

    video_channels = 3
    _STREAM = 1
    """Of the noise on the low-resolution video, apart from that of diffusion."""

    def __init__(self, dim: int, height: int, width: int, max_level: float = 1.0, hidden: int | None = None) -> None:
        super().__init__()
        if min(height, width) < 1:
            raise ValueError(f"LowResolution height={height}, width={width} must be at least 1")
        if not 0 < max_level <= 1:
            raise ValueError(f"LowResolution max_level={max_level} must be above 0 and at most 1")
        self.dim, self.size, self.max_level = dim, (height, width), max_level
        self.token = ScalarToken(dim, hidden or 4 * dim)

    def check_low_res(self, shape: VideoShape, level: float) -> None:
        """See `Conditioner.check_low_res`: it takes what it was trained on."""
        if (shape.height, shape.width) != self.size:
            raise ValueError(
                f"it enlarges videos of {self.size[0]}x{self.size[1]} pixels, not of {shape.height}x{shape.width}"
            )
        if not 0 <= level <= self.max_level:
            raise ValueError(f"noise of level {level:g} is not what it was trained on, 0 to {self.max_level:g}")

    def see(self, batch: VideoBatch, draws: Draws | KeyDraws) -> VideoBatch:
        """See `Conditioner.see`.

        Raises:
            ValueError: The videos are smaller than the low-resolution video.
        """
        if any(side < low for side, low in zip(batch.video.shape[3:], self.size, strict=True)):
            raise ValueError(
                f"LowResolution height={self.size[0]}, width={self.size[1]} must not exceed the videos' "
                f"{list(batch.video.shape[3:])} pixels"
            )
        channels, num_frames = batch.video.shape[1:3]
        images = F.interpolate(rearrange(batch.video, "b c t h w -> (b t) c h w"), self.size, mode="area")
        clean = rearrange(images, "(b t) c h w -> b c t h w", t=num_frames)
        noise = draws.noise((channels, num_frames, *self.size), self._STREAM)
        return replace(batch, low_res=LowRes.corrupt(clean, self.max_level * draws.uniform(), noise))

    def forward(self, prompt: Prompt, drop: Tensor) -> Condition:
        """A token ``[B, 1, D]`` and the video ``[B, C, T, h, w]``; `drop` is ignored.

        Raises:
            ValueError: There is no low-resolution video, or it is of another size.
        """
        if prompt.low_res is None:
            raise ValueError(
                "this model enlarges videos and was given none; sample a first stage with it: "
                'snapvideo sample BASE_RUN UPSAMPLER_RUN "a prompt"'
            )
        found = tuple(prompt.low_res.video.shape[3:])
        if found != self.size:
            raise ValueError(f"the low-resolution video has {list(found)} pixels, LowResolution takes {[*self.size]}")
        condition = one_token(self.token(rearrange(prompt.low_res.level, "b -> b 1")))
        return replace(condition, video=prompt.low_res.video)
