"""What a set of prompts and real clips gives to an evaluation."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from ...components.interfaces import VideoShape


class RealClip(NamedTuple):
    """A real clip.

    Args:
        video: uint8 ``[C, T, H, W]``.
        text: What is said of it.
    """

    video: Tensor
    text: str


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
    def real(self, shape: VideoShape, fps: float) -> Dataset[RealClip | None]:
        """Real clips of a size and a frame rate, read when they are asked for; None: one that cannot be used.

        Args:
            shape: Their size.
            fps: Frames per second.

        Raises:
            ValueError: There are none, or its files cannot be read.
        """

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """What tells this set from others, as plain values."""


def digest(texts: Sequence[str]) -> str:
    """What tells a list of texts from others."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
