"""What few videos do to a Fréchet distance and to an Inception Score: `python docs/benchmarks/few_videos.py`.

Features are drawn from one distribution for both sides, so that the true distance is 0. Their variances are equal, or
fall as 1, 1/2, 1/3 and so on, as those of real features rather do. Classes are drawn for an Inception Score that is the
same for any number of videos.
"""

from __future__ import annotations

import torch
from torch import Tensor

from snapvideo.components.metrics import C3D, InceptionScore, frechet_distance
from snapvideo.components.metrics.frechet import Moments

COUNTS = (100, 500, 2048, 10_000, 50_000)


def distance(count: int, variances: Tensor) -> float:
    """Between two draws of `count` features, in percent of their variance."""
    a, b = (Moments.of(torch.randn(count, len(variances)).double() * variances.sqrt()) for _ in range(2))
    return 100 * float(frechet_distance(a.mean, a.covariance, b.mean, b.covariance) / variances.sum())


def score(count: int, splits: int) -> float:
    """Of probabilities of 101 classes, of which each video favours some."""
    metric = InceptionScore(C3D("never read"), splits)
    metric.add((3 * torch.randn(count, 1, 101)).softmax(dim=-1))
    return float(metric.compute()["inception_score"])


def main() -> None:
    """Print both tables."""
    torch.manual_seed(0)
    for dim in (400, 2048):
        for name, variances in (("equal", torch.ones(dim)), ("falling", 1 / torch.arange(1, dim + 1))):
            cells = " | ".join(f"{distance(count, variances.double()):.2f}" for count in COUNTS)
            print(
                f"Fréchet distance in % of the variance, {dim} {name} dimensions, {COUNTS} videos: {cells}", flush=True
            )
    for splits in (1, 10, 100):
        cells = " | ".join(f"{score(count, splits):.2f}" for count in COUNTS)
        print(f"Inception Score, {splits} splits: {cells}", flush=True)


if __name__ == "__main__":
    main()
