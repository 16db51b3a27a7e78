"""What a set of prompts and real clips gives to an evaluation."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from ...components.interfaces import VideoShape
from ..samples import Unusable


class RealClip(NamedTuple):
    """A real clip.

    Args:
        video: uint8 ``[C, T, H, W]``.
        text: What is said of it.
    """

    video: Tensor
    text: str


class RealClips(Dataset[RealClip | Unusable], ABC):
    """Real clips of one size and frame rate, read when they are asked for; or why one cannot be used.

    Attributes:
        names: What each is called, whatever others there are: a clip is a function of its name, and of settings.
    """

    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def __getitem__(self, index: int) -> RealClip | Unusable:
        """One of them."""


class EvaluationSet(ABC):
    """Prompts to make videos of, and real clips to compare them with. Both are a function of its settings alone."""

    @abstractmethod
    def prompts(self, num: int, shape: VideoShape) -> list[str]:
        """So many prompts.

        Args:
            num: How many.
            shape: Size of the videos.

        Raises:
            ValueError: There are not so many, or its files cannot be read.
        """

    @abstractmethod
    def real(self, shape: VideoShape, fps: float) -> RealClips:
        """Real clips of a size and a frame rate.

        Args:
            shape: Their size.
            fps: Frames per second.

        Raises:
            ValueError: There are none of such a length, or files cannot be read.
        """

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """What tells this set from others, as plain values."""


def digest(words: Iterable[object]) -> str:
    """What tells a list from others."""
    return hashlib.sha256("\0".join(map(str, words)).encode()).hexdigest()[:16]
