"""MSR-VTT, zero-shot: its test captions as prompts (paper, C.6)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...components.interfaces import VideoShape
from .evaluation_set import EvaluationSet, RealClips, digest
from .files import RULE, FileClips, file_at, size_of


class MsrVtt(EvaluationSet):
    """Captions and videos of the test split of MSR-VTT (Xu et al. 2016): 2,990 videos with 20 captions each.

    A number of prompts below all 59,800 are drawn by the seed.

    Args:
        annotation: Its JSON file: ``videos`` with ``video_id`` and ``split``, ``sentences`` with ``video_id`` and
            ``caption``.
        videos: Folder of its videos, ``video7010.mp4`` and so on.
        split: Split, as the file calls it.
        seed: Another seed takes other captions and other times of the clips.
    """

    def __init__(self, annotation: Path, videos: Path, split: str = "test", seed: int = 0) -> None:
        self.annotation, self.videos = (Path(os.path.expanduser(path)) for path in (annotation, videos))
        self.split, self.seed = split, seed

    @cached_property
    def captions(self) -> Mapping[str, list[str]]:
        """Captions by the name of the video, both in the order of the file.

        Raises:
            ValueError: The file cannot be read, or has no videos of the split.
        """
        try:
            content = json.loads(self.annotation.read_text(encoding="utf-8"))
            splits = {video["video_id"]: video["split"] for video in content["videos"]}
            sentences = [(sentence["video_id"], sentence["caption"]) for sentence in content["sentences"]]
        except OSError as error:
            raise ValueError(f"annotation {self.annotation} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"annotation {self.annotation} is not MSR-VTT's: `videos` with `video_id` and `split`, and `sentences` "
                f"with `video_id` and `caption` are needed ({error!r})"
            ) from error
        found: dict[str, list[str]] = {name: [] for name, split in splits.items() if split == self.split}
        for name, text in sentences:
            if name in found:
                found[name].append(text)
        if not any(found.values()):
            known = ", ".join(sorted(set(splits.values())))
            raise ValueError(f"split is {self.split!r}: {self.annotation} has captions of {known}")
        return {name: texts for name, texts in found.items() if texts}

    def prompts(self, num: int, shape: VideoShape) -> list[str]:
        """See `EvaluationSet.prompts`."""
        texts = [text for own in self.captions.values() for text in own]
        if num > len(texts):
            raise ValueError(f"num is {num}: {self.annotation} has {len(texts)} captions of {self.split}; lower it")
        chosen = sorted(np.random.default_rng(self.seed).permutation(len(texts))[:num])
        return [texts[index] for index in chosen]

    @property
    def paths(self) -> list[Path]:
        """Where the videos are, those that are not there among them."""
        return [self.videos / f"{name}.mp4" for name in self.captions]

    def real(self, shape: VideoShape, fps: float) -> RealClips:
        """See `EvaluationSet.real`: a clip of each video, with its first caption."""
        paths = self.paths
        if not any(path.is_file() for path in paths):
            raise ValueError(f"videos {self.videos} has none of the {len(paths)} of the split, as {paths[0].name}")
        texts = [own[0] for own in self.captions.values()]
        return FileClips([file_at(*pair) for pair in zip(paths, texts, strict=True)], shape, fps, self.seed)

    def record(self) -> dict[str, Any]:
        """See `EvaluationSet.record`."""
        texts = [text for own in self.captions.values() for text in own]
        about = {"name": "MSR-VTT", "split": self.split, "videos": len(self.captions), "captions": digest(texts)}
        return about | {"list": digest(map(size_of, self.paths)), "seed": self.seed, "clips": RULE}
