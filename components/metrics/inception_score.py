"""The Inception Score: whether each video shows something, and all together many things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from .network import Classifier, frames_in_words, spaced_frames
from .video_metric import VideoMetric


class InceptionScore(VideoMetric):
    """Inception Score (Salimans et al., 2016), 1 to the number of classes; larger is better.

    ``exp`` of the mean Kullback-Leibler divergence of a video's classes from those of all videos, which is the entropy
    of all less the mean of the entropies. `compute` gives the mean over the splits, and their standard deviation as
    ``inception_score_std`` (0 of one split).

    Sums are kept in place of probabilities. Videos are dealt out to the splits in turn, so with more than one of them
    the score depends a little on the order of the videos, as it does in all implementations.

    Args:
        network: `C3D` for videos, as publications on UCF-101 have it; `Inception` for frames.
        splits: The number of equal parts that are scored by themselves; small parts score lower. 10 is common.
        frames: How many frames of a video the network sees, evenly spaced; None: all. `Inception` takes each for a
            picture of its own; 1 is the middle one.

    Raises:
        ValueError: `splits` or `frames` is below 1.
    """

    higher_is_better = True

    count: Tensor
    negentropy: Tensor
    probabilities: Tensor

    def __init__(self, network: Classifier, splits: int = 10, frames: int | None = None) -> None:
        super().__init__()
        if splits < 1:
            raise ValueError(f"splits={splits}: the videos make 1 part or more")
        if frames is not None and frames < 1:
            raise ValueError(f"frames={frames}: a video has 1 or more; null takes all")
        self.network, self.splits, self.frames = network, splits, frames
        zeros = torch.zeros(splits, dtype=torch.float64)
        self.add_state("count", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("negentropy", zeros.clone(), dist_reduce_fx="sum")
        # One column, until the first rows say how many classes there are.
        self.add_state("probabilities", zeros[:, None].clone(), dist_reduce_fx="sum")

    def observe(self, videos: Tensor, captions: Sequence[str], fps: Tensor | None = None) -> Tensor:
        """Probabilities ``[B, N, K]`` of videos uint8 ``[B, 3, T, H, W]``, as `Classifier.classify` gives them.

        Raises:
            ValueError: The network can't be read, or takes no such videos.
        """
        return self.network.classify(videos if self.frames is None else spaced_frames(videos, self.frames))

    def add(self, rows: Tensor, real: bool = False) -> None:
        """Add probabilities ``[B, N, K]``; real videos are not compared with."""
        rows = rows.to(self.count.device).double()
        # All frames of a video go to one split: they are alike.
        split = (int(self.count.sum()) // rows.shape[1] + torch.arange(len(rows), device=rows.device)) % self.splits
        self.count = self.count.index_add(0, split, torch.full_like(rows[:, 0, 0], rows.shape[1]))
        self.negentropy = self.negentropy.index_add(0, split, torch.xlogy(rows, rows).sum(dim=(1, 2)))
        total = self.probabilities.expand(-1, rows.shape[-1])
        self.probabilities = total.index_add(0, split, rows.sum(dim=1))

    def compute(self) -> dict[str, Tensor]:
        """Mean and deviation over the splits that have videos; NaN where nothing was added."""
        some = self.count > 0
        count = self.count[some]
        mean = self.probabilities[some] / count[:, None]
        scores = (self.negentropy[some] / count - torch.xlogy(mean, mean).sum(dim=1)).exp()
        # Where nothing was added, the mean of nothing is NaN.
        return {
            "inception_score": scores.mean(),
            "inception_score_std": (scores - scores.mean()).square().mean().sqrt(),
        }

    def direction(self, score: str) -> bool | None:
        """See `VideoMetric.direction`: a deviation is neither good nor bad."""
        return None if score == "inception_score_std" else True

    def record(self) -> dict[str, Any]:
        """The network with its preprocessing, the splits, and which frames it sees."""
        return {
            "score": "inception_score",
            "splits": self.splits,
            "frames": frames_in_words(self.frames),
            "network": self.network.record(),
        }

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """As of all metrics; also where one of the processes has seen none of the videos."""
        if distributed.is_available() and distributed.is_initialized():
            self.probabilities = self.probabilities.expand(-1, self.network.classes).contiguous()
        super().sync(*args, **kwargs)
