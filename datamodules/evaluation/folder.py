"""Captioned videos of one's own to be measured on."""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ...components.interfaces import VideoShape
from ..samples import Sample
from ..sources import index_source
from .evaluation_set import EvaluationSet, RealClip, digest
from .files import RULE, File, FileClips


class FolderSet(EvaluationSet):
    """Captions and clips of a folder, shards or a list: what training data is made of.

    Prompts are captions in an order that is a function of the seed; real clips are of all files.

    Args:
        videos: Folder, tar files (``data-{000..015}.tar``), or a ``.csv`` or ``.jsonl``.
        seed: Another seed takes other captions and other times of the clips.
    """

    def __init__(self, videos: Path, seed: int = 0) -> None:
        self.videos, self.seed = videos, seed

    @cached_property
    def samples(self) -> list[Sample]:
        """Those with a caption."""
        return index_source(self.videos, "video").samples

    def prompts(self, num: int, shape: VideoShape) -> list[str]:
        """See `EvaluationSet.prompts`."""
        if num > len(self.samples):
            raise ValueError(f"num is {num}: {self.videos} has {len(self.samples)} videos with a caption; lower it")
        order = np.random.default_rng(self.seed).permutation(len(self.samples))
        return [self.samples[index].caption for index in order[:num]]

    def real(self, shape: VideoShape, fps: float) -> Dataset[RealClip | None]:
        """See `EvaluationSet.real`."""
        files = [File(partial(sample.tree.open, sample.key), sample.caption) for sample in self.samples]
        return FileClips(files, shape, fps, self.seed)

    def record(self) -> dict[str, Any]:
        """See `EvaluationSet.record`."""
        listed = digest([f"{sample.key}\t{sample.caption}" for sample in self.samples])
        return {"name": "captioned videos", "real": len(self.samples), "list": listed, "seed": self.seed, "clips": RULE}
