"""Videos to patch tokens and back, in group-major order."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

Size3 = tuple[int, int, int]


@dataclass(frozen=True)
class PatchGrid:
    """How a video falls into patches, and patches into groups.

    Tokens are kept group-major, ``[(B G), n, ...]`` with G groups of n patches, from the first layer to the last: a
    group is then a row of the batch, and reading or writing it needs no copy. Groups and the patches in them are in
    row-major order of (T, H, W). What patches and groups do not fill is padded at the bottom and right.

    Args:
        size: Frames, rows and columns of the video.
        patch: Pixels per patch, (T, H, W).
        group: Patches per group, (T, H, W).
        channels: Channels of the video.

    Raises:
        ValueError: Groups of patches don't fill the video: no padding is allowed along T, one patch along H and W.
    """

    size: Size3
    patch: Size3
    group: Size3
    channels: int = 3

    def __post_init__(self) -> None:
        for name in ("patch", "group"):
            size = getattr(self, name)
            if len(size) != 3 or min(size) < 1:
                raise ValueError(f"{name}={list(size)} must be three sizes of at least 1: frames, rows, columns")
        slack = (0, *self.patch[1:])
        for axis, length, patch, group, most in zip("THW", self.size, self.patch, self.group, slack, strict=True):
            padding = -length % (patch * group)
            if padding > most:
                patches = [p for p in range(1, length + 1) if -length % p <= (0 if axis == "T" else p)]
                groups = [g for g in range(1, -(-length // patch) + 1) if -length % (patch * g) <= most]
                fits = f"group sizes {groups}" if groups else f"patch sizes {patches}"
                raise ValueError(
                    f"patch={list(self.patch)}, group={list(self.group)}: along {axis}, groups of {group} patches of "
                    f"{patch} would pad {length} pixels by {padding}, of which {most} are allowed; {fits} fit there"
                )

    @property
    def grid(self) -> Size3:
        """Groups along (T, H, W)."""
        t, h, w = (-(-s // (p * g)) for s, p, g in zip(self.size, self.patch, self.group, strict=True))
        return t, h, w

    @property
    def num_groups(self) -> int:
        """Groups, G."""
        t, h, w = self.grid
        return t * h * w

    @property
    def patches(self) -> Size3:
        """Patches along (T, H, W), padding included."""
        t, h, w = (n * g for n, g in zip(self.grid, self.group, strict=True))
        return t, h, w

    @property
    def filled(self) -> Size3:
        """Patches along (T, H, W) that hold something of the video."""
        t, h, w = (-(-size // patch) for size, patch in zip(self.size, self.patch, strict=True))
        return t, h, w

    @property
    def patch_dim(self) -> int:
        """Values in a patch, channels included."""
        t, h, w = self.patch
        return self.channels * t * h * w

    def to_groups(self, video: Tensor) -> Tensor:
        """Patches ``[(B G), n, patch_dim]`` of a video ``[B, C, T, H, W]``."""
        frames, rows, columns = (n * p for n, p in zip(self.patches, self.patch, strict=True))
        t, h, w = video.shape[2:]
        video = F.pad(video, (0, columns - w, 0, rows - h, 0, frames - t))
        return rearrange(
            video,
            "b c (gt nt pt) (gh nh ph) (gw nw pw) -> (b gt gh gw) (nt nh nw) (c pt ph pw)",
            **self._group_axes(),
            **self._patch_axes(),
        )

    def to_video(self, tokens: Tensor) -> Tensor:
        """The video ``[B, C, T, H, W]`` of patches ``[(B G), n, patch_dim]``; padding is cut off."""
        gt, gh, gw = self.grid
        video = rearrange(
            tokens,
            "(b gt gh gw) (nt nh nw) (c pt ph pw) -> b c (gt nt pt) (gh nh ph) (gw nw pw)",
            gt=gt,
            gh=gh,
            gw=gw,
            **self._group_axes(),
            **self._patch_axes(),
        )
        frames, rows, columns = self.size
        return video[:, :, :frames, :rows, :columns]

    def group_table(self, table: Tensor) -> Tensor:
        """A table of all patches ``[T, H, W, D]`` (patch grid) in group-major order ``[G, n, D]``."""
        return rearrange(table, "(gt nt) (gh nh) (gw nw) d -> (gt gh gw) (nt nh nw) d", **self._group_axes())

    def _group_axes(self) -> dict[str, int]:
        return dict(zip(("nt", "nh", "nw"), self.group, strict=True))

    def _patch_axes(self) -> dict[str, int]:
        return dict(zip(("pt", "ph", "pw"), self.patch, strict=True))
