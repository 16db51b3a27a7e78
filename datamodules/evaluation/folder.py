"""Captioned videos of one's own to be measured on."""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ...components.interfaces import VideoShape
from ..samples import Sample
from ..sources import index_source
from .evaluation_set import EvaluationSet, RealClips, digest
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

    def real(self, shape: VideoShape, fps: float) -> RealClips:
        """See `EvaluationSet.real`."""
        files = [File(_name(sample), partial(sample.tree.open, sample.key), sample.caption) for sample in self.samples]
        return FileClips(files, shape, fps, self.seed)

    def record(self) -> dict[str, Any]:
        """See `EvaluationSet.record`."""
        listed = digest((_name(sample), sample.tree.size(sample.key), sample.caption) for sample in self.samples)
        about = {"name": "captioned videos", "videos": len(self.samples), "list": listed, "seed": self.seed}
        return about | {"clips": RULE}


def _name(sample: Sample) -> str:
    """What a sample is called in a folder, or in tars, wherever these are."""
    tar = "" if sample.tree.path.is_dir() else f"{sample.tree.path.name}/"
    return f"{tar}{sample.key}"
