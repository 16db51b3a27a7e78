"""What all scores of videos have in common: a video becomes a row of numbers, and the rows of many become scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchmetrics import Metric


class VideoMetric(Metric, ABC):
    """A score of videos.

    `observe` is what costs time, and looks at each video by itself. Its rows can be kept: to go on after a kill, to
    score other draws of the same videos (an interval), or two halves of the real ones (a floor).

    Attributes:
        uses_real: Whether it compares videos with real ones, which `update` takes with ``real=True``.
    """

    full_state_update = False
    uses_real = False

    def __init__(self) -> None:
        super().__init__(compute_with_cache=False)  # rows that are added would not change what is cached

    @property
    def update_called(self) -> bool:
        """What torchmetrics would warn of: there may be rows without an `update`."""
        return True

    @abstractmethod
    def observe(self, videos: Tensor, captions: Sequence[str], fps: Tensor | None = None) -> Tensor:
        """What the score needs of each video ``[B, ...]``; it does not depend on the rest of the batch.

        Args:
            videos: uint8 ``[B, C, T, H, W]``, on the device that is to do the work.
            captions: B texts.
            fps: Frames per second ``[B]``; None: what needs it is not scored.

        Raises:
            ValueError: The videos or captions are none that it can score; the message says what it can.
        """

    @abstractmethod
    def add(self, rows: Tensor, real: bool = False) -> None:
        """Add rows of `observe` to what is scored; to the real ones where `real`."""

    def update(self, videos: Tensor, captions: Sequence[str], fps: Tensor | None = None, real: bool = False) -> None:
        """Add videos: `observe`, then `add`."""
        self.add(self.observe(videos, captions, fps), real)

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Scores by name, scalars; one that nothing was added for is NaN."""

    def direction(self, score: str) -> bool | None:
        """Whether a score is better if it is higher; None: neither."""
        return self.higher_is_better

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """All that a number depends on besides the videos, as plain values: networks by hash, sizes, filters."""
