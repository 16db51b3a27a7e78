"""What travels between data, conditioners and backbones: sizes, prompts, batches of videos and conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class VideoShape:
    """The size of one video.

    Args:
        num_frames: Frames per video, T.
        height: Rows of pixels, H.
        width: Columns of pixels, W.
        channels: Colour channels, C.
    """

    num_frames: int
    height: int
    width: int
    channels: int = 3

    def __post_init__(self) -> None:
        for name in ("num_frames", "height", "width", "channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"shape.{name} is {getattr(self, name)}: it must be at least 1")

    def __iter__(self) -> Iterator[int]:
        """Unpack in the order of the axes: ``C, T, H, W``."""
        return iter((self.channels, self.num_frames, self.height, self.width))

    def __str__(self) -> str:
        """``16x36x64``: frames, rows, columns."""
        return f"{self.num_frames}x{self.height}x{self.width}"


class _Tensors:
    """A dataclass that moves with the tensors that it holds."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same in page-locked memory (called by the DataLoader)."""
        return self._map(Tensor.pin_memory)

    def __getitem__(self, rows: Tensor) -> Self:
        """The samples `rows` ``[M]`` alone."""
        return self._map(lambda tensor: tensor[rows.to(tensor.device)])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with `change` of each tensor, also of those inside."""
        changed: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, _Tensors):
                changed[name] = value._map(change)
            elif isinstance(value, Tensor):
                changed[name] = change(value)
        return replace(self, **changed)  # type: ignore[type-var]  # those that inherit are dataclasses


@dataclass
class Prompt(_Tensors):
    """All that a video can be asked to be: what a `Conditioner` sees.

    Args:
        captions: B texts.
        fps: Frames per second ``[B]``; infinite for images, which are videos of equal frames (paper, 3.3).
        resolution: Height and width in pixels of the original, before resizing ``[B, 2]``.
        embeddings: What the text encoder makes of the captions, where the data brings it along; None: it doesn't.
        low_res: What an upsampler is to enlarge; None: nothing.
    """

    captions: list[str]
    fps: Tensor
    resolution: Tensor
    embeddings: Condition | None = field(default=None, kw_only=True)
    low_res: LowRes | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, rows: Tensor) -> Self:
        """The samples `rows` ``[M]`` alone."""
        return replace(super().__getitem__(rows), captions=[self.captions[row] for row in rows.tolist()])


@dataclass
class LowRes(_Tensors):
    """Low-resolution videos, with noise on them, so that an upsampler does not trust them to the pixel (paper, 3.4).

    Args:
        video: ``[B, C, T, h, w]``: ``sqrt(1 - level^2) * clean + level * noise``.
        level: Noise level ``[B]``, 0 (clean) to 1 (noise alone).
    """

    video: Tensor
    level: Tensor

    @staticmethod
    def corrupt(clean: Tensor, level: Tensor, noise: Tensor) -> LowRes:
        """Put standard normal noise ``[B, C, T, h, w]`` of a level ``[B]`` on clean videos of the same shape."""
        a = level.view(-1, 1, 1, 1, 1)
        return LowRes((1 - a**2).sqrt() * clean + a * noise, level)

    @staticmethod
    def stack(parts: Sequence[LowRes]) -> LowRes | None:
        """The parts as one batch, one after the other; None of none."""
        if not parts:
            return None
        return LowRes(torch.cat([part.video for part in parts]), torch.cat([part.level for part in parts]))


@dataclass
class VideoBatch(Prompt):
    """Videos or images with their labels.

    Args:
        video: ``[B, C, T, H, W]``: uint8 in 0..255 until it is on the device, then float in [-1, 1]. An image has T = 1
            until it is on the device, where `join` repeats it.
        keys: B names, each telling which sample of the source this is.
        skipped: ``(name, reason)`` of the files that could not be used while this batch was made.
        num_frames: T on the device, also of images; 0: what the video has.
        num_images: Images among them, which come after the videos; -1: they are counted, best where the batch is made,
            since counting on a device waits for it.
    """

    video: Tensor
    keys: list[str]
    skipped: Sequence[tuple[str, str]] = ()
    num_frames: int = 0
    num_images: int = -1

    def __post_init__(self) -> None:
        if self.num_images < 0:
            self.num_images = int(self.is_image.sum())

    def __getitem__(self, rows: Tensor) -> Self:
        """The samples `rows` ``[M]`` alone, videos before images."""
        return replace(super().__getitem__(rows), keys=[self.keys[row] for row in rows.tolist()], num_images=-1)

    @property
    def shape(self) -> VideoShape:
        """The size of its videos."""
        channels, num_frames, height, width = self.video.shape[1:]
        return VideoShape(num_frames, height, width, channels)

    @property
    def is_image(self) -> Tensor:
        """Which samples are images ``[B]``, bool."""
        return self.fps.isinf()

    @staticmethod
    def join(parts: Sequence[VideoBatch], num_frames: int) -> VideoBatch:
        """One float batch in [-1, 1] of the parts (videos, images), images repeated to `num_frames`.

        Raises:
            ValueError: A part is neither `num_frames` long nor an image.
        """
        for part in parts:
            if part.video.shape[2] not in (1, num_frames):
                raise ValueError(f"a batch has {part.video.shape[2]} frames; {num_frames} (videos) or 1 (images) fit")
        videos = [part.video.float().div(127.5).sub(1.0).expand(-1, -1, num_frames, -1, -1) for part in parts]
        return VideoBatch.stack([replace(part, video=video) for part, video in zip(parts, videos, strict=True)])

    @staticmethod
    def stack(parts: Sequence[VideoBatch]) -> VideoBatch:
        """The parts, of videos of one size, as one batch, one after the other."""
        embeddings = [part.embeddings for part in parts if part.embeddings is not None]
        return VideoBatch(
            captions=[caption for part in parts for caption in part.captions],
            fps=torch.cat([part.fps for part in parts]),
            resolution=torch.cat([part.resolution for part in parts]),
            video=torch.cat([part.video for part in parts]),
            keys=[key for part in parts for key in part.keys],
            skipped=[skip for part in parts for skip in part.skipped],
            embeddings=Condition.stack(embeddings) if embeddings else None,
            low_res=LowRes.stack([part.low_res for part in parts if part.low_res is not None]),
            num_images=sum(part.num_images for part in parts),
        )


@dataclass
class Condition(_Tensors):
    """What a backbone is conditioned on.

    Args:
        tokens: ``[B, S, D]``.
        mask: ``[B, S]`` bool; False where a token must not be attended to (padding).
        video: Pixels that the backbone sees beside the noisy video's, enlarged to its size ``[B, C', T, h, w]``; None:
            there are none.
    """

    tokens: Tensor
    mask: Tensor
    video: Tensor | None = None

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """All tokens of the parts, side by side; videos as channels of one."""
        videos = [p.video for p in parts if p.video is not None]
        tokens, mask = torch.cat([p.tokens for p in parts], dim=1), torch.cat([p.mask for p in parts], dim=1)
        return Condition(tokens, mask, torch.cat(videos, dim=1) if videos else None)

    @staticmethod
    def stack(parts: Sequence[Condition]) -> Condition:
        """The parts as one batch, one after the other; tokens of shorter ones are padded."""
        length = max(part.mask.shape[1] for part in parts)
        tokens = [pad(part.tokens, (0, 0, 0, length - part.mask.shape[1])) for part in parts]
        mask = torch.cat([pad(p.mask, (0, length - p.mask.shape[1])) for p in parts])
        videos = [p.video for p in parts if p.video is not None]
        return Condition(torch.cat(tokens), mask, torch.cat(videos) if videos else None)
