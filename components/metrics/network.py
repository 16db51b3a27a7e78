"""What metrics see videos through: pretrained networks, which belong to no model and are read when first needed."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Network(ABC):
    """A pretrained network.

    No module, and shared by copies: a metric that holds one doesn't own its weights, nor does a model that holds the
    metric. Its files are read when it is first used, or asked for its record; until then it can be built where they are
    not. It computes in float32 and without gradient, on the device of the videos, whatever the precision around it.

    Attributes:
        prefix: What stands before the name of a score that was defined with another network.
    """

    prefix: ClassVar[str] = ""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    @property
    @abstractmethod
    def files(self) -> Sequence[Path]:
        """The files of the weights.

        Raises:
            ValueError: They are not there, or can't be fetched.
        """

    @abstractmethod
    def load(self) -> nn.Module:
        """The network in evaluation mode, on the CPU.

        Raises:
            ValueError: It can't be read.
        """

    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """How frames become its input: size, filter, antialiasing, range, which frames."""

    def record(self) -> dict[str, Any]:
        """All that its features depend on besides the videos.

        Raises:
            ValueError: Its files are not there, or can't be fetched; so ask for it before long work.
        """
        return {"name": type(self).__name__, "sha256": self._hash, "preprocessing": self.preprocessing()}

    @cached_property
    def _hash(self) -> str:
        """Of the file with the weights; of several, of their hashes in the order of their names."""
        hashes = []
        for file in sorted(self.files):
            with open(file, "rb") as stream:
                hashes.append(hashlib.file_digest(stream, "sha256").hexdigest())
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    def on(self, device: torch.device) -> nn.Module:
        """The network, on a device."""
        with torch.inference_mode(False):  # loaded in a validation, it must outlive inference mode
            return self._loaded.to(device)

    @cached_property
    def _loaded(self) -> nn.Module:
        return self.load()


class FeatureNetwork(Network):
    """A network whose features are compared."""

    @property
    @abstractmethod
    def width(self) -> int:
        """D, how many numbers there are of a video or of a frame."""

    @abstractmethod
    def __call__(self, videos: Tensor) -> Tensor:
        """Features ``[B, ..., D]``, float32.

        Args:
            videos: uint8 ``[B, 3, T, H, W]``.

        Raises:
            ValueError: The network can't be read, or takes no such videos.
        """


class VideoNetwork(FeatureNetwork):
    """Features of whole videos."""

    @abstractmethod
    def __call__(self, videos: Tensor) -> Tensor:
        """Features ``[B, D]``, float32; all else as of every network."""


class ImageNetwork(FeatureNetwork):
    """Features of single frames."""

    @abstractmethod
    def __call__(self, videos: Tensor) -> Tensor:
        """Features ``[B, T, D]``, float32, of each frame by itself; all else as of every network."""


class Classifier(Network):
    """What a video, or each frame of it, may show."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """How many classes there are."""

    @abstractmethod
    def classify(self, videos: Tensor) -> Tensor:
        """Probabilities ``[B, N, K]``, float32: N is 1 for classifiers of videos, T for those of frames.

        Args:
            videos: uint8 ``[B, 3, T, H, W]``.

        Raises:
            ValueError: The network can't be read, or takes no such videos.
        """


def check_videos(videos: Tensor) -> None:
    """Refuse what is not uint8 ``[B, 3, T, H, W]``.

    Raises:
        ValueError: It is something else.
    """
    if videos.dtype != torch.uint8 or videos.ndim != 5 or videos.shape[1] != 3:
        raise ValueError(f"videos are {videos.dtype} {list(videos.shape)}: give uint8 [B, 3, T, H, W]")


def spaced_frames(videos: Tensor, count: int) -> Tensor:
    """Evenly spaced frames ``[B, C, count, H, W]``: the middles of as many equal parts of ``[B, C, T, H, W]``.

    Raises:
        ValueError: The videos have fewer.
    """
    length = videos.shape[2]
    if count > length:
        raise ValueError(f"frames={count}: the videos have {length}")
    return videos[:, :, [(2 * i + 1) * length // (2 * count) for i in range(count)]]


def frames_in_words(count: int | None) -> str:
    """What a record says of `spaced_frames`; of None, that a network sees all."""
    return "all" if count is None else "the middle one" if count == 1 else f"{count}, evenly spaced"


def resize(frames: Tensor, size: tuple[int, int], filter: str) -> Tensor:
    """Frames ``[N, C, H, W]`` at another size, with antialiasing, as Pillow makes them.

    Args:
        frames: uint8.
        size: Height and width in pixels.
        filter: "bilinear" or "bicubic".

    Returns:
        float32 of whole numbers 0 to 255.
    """
    resized = frames.float()
    for part in ((frames.shape[-2], size[1]), size):  # Pillow's images are uint8 also between the two directions
        resized = (F.interpolate(resized, part, mode=filter, antialias=True) + 0.5).floor().clamp(0, 255)
    return resized


def normalize(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Frames ``[N, 3, H, W]`` in 0 to 255, shifted and scaled by the mean and deviation of their values in 0 to 1."""
    shift, scale = (frames.new_tensor(list(values))[:, None, None] for values in (mean, std))
    return (frames / 255 - shift) / scale
