"""How far generated videos of moving shapes are from real ones, by features without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .frechet import FrechetDistance
from .network import FeatureNetwork, check_videos
from .shape_features import FEATURES, shape_features

VERSION = 1
"""Raise it when the same videos get other features."""


class ShapeFeatures(FeatureNetwork):
    """`shape_features`, in the place of a network: formulas, without weights and files."""

    @property
    def files(self) -> Sequence[Path]:
        """None."""
        return ()

    def load(self) -> nn.Module:
        """Nothing: there are no weights."""
        return nn.Identity()

    def preprocessing(self) -> dict[str, Any]:
        """The units of the features; frames are taken as they are."""
        return {"units": dict(FEATURES)}

    def record(self) -> dict[str, Any]:
        """The version and the units."""
        return {"name": type(self).__name__, "version": VERSION, "preprocessing": self.preprocessing()}

    @property
    def width(self) -> int:
        """How many features there are."""
        return len(FEATURES)

    def __call__(self, videos: Tensor) -> Tensor:
        """Features ``[B, D]``, float32, of videos uint8 ``[B, 3, T, H, W]``.

        Raises:
            ValueError: The videos are something else.
        """
        check_videos(videos)
        return shape_features(videos)


class ShapeFrechet(FrechetDistance):
    """Fréchet distance of the `shape_features` of generated videos to those of real ones; smaller is better.

    ``shape_fd`` is 0 for the same distribution of features, and rises with noise, blur, wrong colours and wrong motion.
    Few videos make it larger than it is: compare it at equal numbers of at least some hundreds, and of one size, length
    and frame rate. It does not look at captions.
    """

    def __init__(self) -> None:
        super().__init__(ShapeFeatures(), "shape_fd")

    def observe(self, videos: Tensor, captions: Sequence[str], fps: Tensor | None = None) -> Tensor:
        """Features ``[B, D]`` of videos uint8 ``[B, 3, T, H, W]``; captions and frame rates make no difference.

        Raises:
            ValueError: The videos are something else.
        """
        return self.network(videos)
