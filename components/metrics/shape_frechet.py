"""How far generated videos of moving shapes are from real ones, by features without a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .shape_features import FEATURES, shape_features
from .video_metric import VideoMetric

VERSION = 1
"""Raise it when the same videos get another score."""


class ShapeFrechet(VideoMetric):
    """Fréchet distance of the `shape_features` of generated videos to those of real ones.

    ``shape_fd`` is 0 for the same distribution of features, and rises with noise, blur, wrong colours and wrong motion.
    Few videos make it larger than it is: compare it at equal numbers of at least some hundreds, and of one size, length
    and frame rate. It does not look at captions.
    """

    uses_real = True
    higher_is_better = False

    number: Tensor
    total: Tensor
    products: Tensor

    def __init__(self) -> None:
        super().__init__()
        size = len(FEATURES)
        # Generated, then real; float64: a covariance is a small difference of large sums.
        self.add_state("number", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(2, size, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("products", torch.zeros(2, size, size, dtype=torch.float64), dist_reduce_fx="sum")

    def observe(self, videos: Tensor, captions: Sequence[str], fps: Tensor | None = None) -> Tensor:
        """The features of each video ``[B, F]``; captions and frame rates make no difference.

        Raises:
            ValueError: The videos are not uint8 RGB.
        """
        if videos.dtype != torch.uint8 or videos.ndim != 5 or videos.shape[1] != 3:
            raise ValueError(f"videos are {videos.dtype} {list(videos.shape)}: give uint8 [B, 3, T, H, W]")
        return shape_features(videos)

    def add(self, rows: Tensor, real: bool = False) -> None:
        """Add features of generated or real videos."""
        rows = rows.to(self.total)
        self.number[int(real)] += len(rows)
        self.total[int(real)] += rows.sum(dim=0)
        self.products[int(real)] += rows.T @ rows

    def compute(self) -> dict[str, Tensor]:
        """``shape_fd``; NaN of fewer than two videos of a kind."""
        if self.number.min() < 2:
            return {"shape_fd": torch.tensor(float("nan"))}
        means = self.total / self.number[:, None]
        outer = means[:, :, None] * means[:, None, :] * self.number[:, None, None]
        covariances = (self.products - outer) / (self.number - 1)[:, None, None]
        return {"shape_fd": _frechet_distance(means[0], covariances[0], means[1], covariances[1])}

    def record(self) -> dict[str, Any]:
        """The version and the units of the features."""
        return {"version": VERSION, "features": dict(FEATURES)}


def _frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> Tensor:
    """Squared 2-Wasserstein distance of two Gaussians (Dowson and Landau 1982)."""
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp(min=0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * shared
    return distance.clamp(min=0)
