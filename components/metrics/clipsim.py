"""CLIPSIM: whether frames show what their captions say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .pretrained import CLIP
from .video_metric import VideoMetric


class CLIPSIM(VideoMetric):
    """Mean cosine similarity of frames and captions by a CLIP (Wu et al., 2021), -1 to 1; larger is better.

    The mean over all frames of a video, then over videos. Not multiplied by 100, as in the paper's tables.

    Args:
        network: Which CLIP.
    """

    higher_is_better = True

    count: Tensor
    sum: Tensor

    def __init__(self, network: CLIP) -> None:
        super().__init__()
        self.network = network
        for state in ("count", "sum"):
            self.add_state(state, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def observe(self, videos: Tensor, captions: Sequence[str], fps: Tensor | None = None) -> Tensor:
        """Similarities ``[B]`` of videos uint8 ``[B, 3, T, H, W]`` and their captions.

        Raises:
            ValueError: The network can't be read, the videos are something else, or there is not one caption for each.
        """
        if len(videos) != len(captions):
            raise ValueError(f"{len(captions)} captions for {len(videos)} videos: give one for each")
        frames, texts = self.network(videos), self.network.read(captions, videos.device)
        return F.cosine_similarity(frames, texts[:, None], dim=-1).mean(dim=1)

    def add(self, rows: Tensor, real: bool = False) -> None:
        """Add similarities ``[B]``; real videos are not compared with."""
        self.count = self.count + len(rows)
        self.sum = self.sum + rows.to(self.sum.device).double().sum()

    def compute(self) -> dict[str, Tensor]:
        """The mean as "clipsim"; NaN of no videos."""
        return {"clipsim": self.sum / self.count}

    def record(self) -> dict[str, Any]:
        """The network with its preprocessing, and which frames."""
        return {"score": "clipsim", "frames": "all", "network": self.network.record()}
