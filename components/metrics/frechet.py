"""The Fréchet distance between features of generated and of real videos: FVD and FID."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from .network import FeatureNetwork, ImageNetwork, VideoNetwork, frames_in_words, spaced_frames
from .video_metric import VideoMetric


def frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> Tensor:
    """Squared Fréchet distance between two Gaussians, float64 scalar (Dowson and Landau, 1982).

    ``|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2))``. Written with factors ``A = F F^T`` and ``B = G G^T``, the trace
    of the root is the sum of the singular values of ``F^T G``. So singular covariances, those of fewer samples than
    dimensions, need no term that makes them regular.

    Args:
        mean_a: ``[D]``.
        covariance_a: ``[D, D]``.
        mean_b: ``[D]``.
        covariance_b: ``[D, D]``.
    """
    mean_a, covariance_a, mean_b, covariance_b = (
        tensor.double() for tensor in (mean_a, covariance_a, mean_b, covariance_b)
    )
    root = torch.linalg.svdvals(_factor(covariance_a).T @ _factor(covariance_b)).sum()
    distance = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * root
    return distance.clamp(min=0)  # equal Gaussians: rounding, of either sign, is left


def _factor(covariance: Tensor) -> Tensor:
    """F ``[D, R]`` with ``F F^T`` a covariance ``[D, D]`` of rank R."""
    values, vectors = torch.linalg.eigh(covariance)
    # What is below the rounding of the largest is zero, as in `torch.linalg.matrix_rank`; its root would be visible.
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    return vectors[:, kept] * values[kept].sqrt()


@dataclass(frozen=True)
class Moments:
    """Sums over vectors, float64, from which their mean and covariance follow; those of two sets add up.

    Args:
        count: How many, scalar.
        sum: ``[D]``; a scalar 0 of none.
        outer: Sum of the outer products with themselves ``[D, D]``; a scalar 0 of none.
    """

    count: Tensor
    sum: Tensor
    outer: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Moments:
        """Those of rows ``[N, D]``."""
        rows = rows.double()
        return cls(rows.new_tensor(len(rows)), rows.sum(dim=0), rows.T @ rows)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.sum + other.sum, self.outer + other.outer)

    @property
    def mean(self) -> Tensor:
        """``[D]``."""
        return self.sum / self.count

    @property
    def covariance(self) -> Tensor:
        """The unbiased estimate ``[D, D]``, of two or more."""
        return (self.outer - self.count * torch.outer(self.mean, self.mean)) / (self.count - 1)


class FrechetDistance(VideoMetric):
    """The distance of the features of generated videos from those of real ones; the base of `FVD` and `FID`.

    Sums are kept in place of features: memory does not grow with the number of videos. They are float64, whatever the
    precision of a model around it.
    """

    uses_real = True
    higher_is_better = False

    count: Tensor
    sum: Tensor
    outer: Tensor
    real_count: Tensor
    real_sum: Tensor
    real_outer: Tensor

    def __init__(self, network: FeatureNetwork, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name
        for state in ("count", "sum", "outer", "real_count", "real_sum", "real_outer"):
            # A scalar, until the first rows say how wide they are.
            self.add_state(state, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @property
    def moments(self) -> Moments:
        """Of what is scored."""
        return Moments(self.count, self.sum, self.outer)

    @property
    def real_moments(self) -> Moments:
        """Of the real ones."""
        return Moments(self.real_count, self.real_sum, self.real_outer)

    def add(self, rows: Tensor, real: bool = False) -> None:
        """Add features ``[B, D]`` or ``[B, F, D]``."""
        more = Moments.of(rows.reshape(-1, rows.shape[-1]).to(self.count.device))
        if real:
            total = self.real_moments + more
            self.real_count, self.real_sum, self.real_outer = total.count, total.sum, total.outer
        else:
            total = self.moments + more
            self.count, self.sum, self.outer = total.count, total.sum, total.outer

    def compute(self) -> dict[str, Tensor]:
        """The distance by its name; NaN where fewer than two vectors were added on a side."""
        made, real = self.moments, self.real_moments
        if min(made.count, real.count) < 2:
            return {self.name: torch.full_like(self.count, torch.nan)}
        return {self.name: frechet_distance(made.mean, made.covariance, real.mean, real.covariance)}

    def record(self) -> dict[str, Any]:
        """The network with its preprocessing, and what is compared."""
        return {"score": self.name, "covariance": "unbiased, float64", "network": self.network.record()}

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """As of all metrics; also where one of the processes has seen none of the videos."""
        if distributed.is_available() and distributed.is_initialized():
            width = self.network.width
            for state in ("sum", "real_sum"):
                setattr(self, state, getattr(self, state).expand(width).contiguous())
            for state in ("outer", "real_outer"):
                setattr(self, state, getattr(self, state).expand(width, width).contiguous())
        super().sync(*args, **kwargs)


class FVD(FrechetDistance):
    """Fréchet Video Distance (Unterthiner et al., 2018); smaller is better.

    Args:
        network: `I3D` for "fvd", which publications give; `VideoMAE` for "videomae_fvd", which looks more at motion.
    """

    def __init__(self, network: VideoNetwork) -> None:
        super().__init__(network, f"{network.prefix}fvd")

    def observe(self, videos: Tensor, captions: Sequence[str], fps: Tensor | None = None) -> Tensor:
        """Features ``[B, D]`` of videos uint8 ``[B, 3, T, H, W]``.

        Raises:
            ValueError: The network can't be read, or takes no such videos.
        """
        return self.network(videos)


class FID(FrechetDistance):
    """Fréchet Inception Distance (Heusel et al., 2017) of frames; smaller is better.

    Args:
        network: `Inception` for "fid"; `CLIP` for "clip_fid" (Kynkäänniemi et al., 2023).
        frames: How many frames of each video, evenly spaced; 1 is the middle one. Frames of one video are alike: more
            of them do not stand for more videos.

    Raises:
        ValueError: `frames` is below 1.
    """

    def __init__(self, network: ImageNetwork, frames: int = 1) -> None:
        super().__init__(network, f"{network.prefix}fid")
        if frames < 1:
            raise ValueError(f"frames={frames}: a video has 1 or more")
        self.frames = frames

    def observe(self, videos: Tensor, captions: Sequence[str], fps: Tensor | None = None) -> Tensor:
        """Features ``[B, F, D]`` of F frames of videos uint8 ``[B, 3, T, H, W]``.

        Raises:
            ValueError: The network can't be read, or the videos have fewer frames.
        """
        return self.network(spaced_frames(videos, self.frames))

    def record(self) -> dict[str, Any]:
        """As of every Fréchet distance, and which frames."""
        return super().record() | {"frames": frames_in_words(self.frames)}
