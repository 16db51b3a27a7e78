"""UCF-101, zero-shot: a prompt for each class, as often as the class is in the data (paper, C.6)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...components.interfaces import VideoShape
from .evaluation_set import EvaluationSet, RealClips, digest
from .files import RULE, FileClips, file_at, size_of
from .ucf101_prompts import PROMPTS

FOLDERS = (".", "UCF-101")
"""Where the folders of the classes may be."""
LISTS = "ucfTrainTestlist"


class Ucf101(EvaluationSet):
    """Prompts and videos of the 101 classes of UCF-101 (Soomro et al. 2012).

    Args:
        root: Folder that holds ``UCF-101/CLASS/*.avi``, and for `split` the lists ``ucfTrainTestlist/trainlist01.txt``
            and so on.
        split: ``train01``, ``test01``, ...: videos of that list; None: all 13,320.
        seed: Another seed takes other times of the clips.
    """

    def __init__(self, root: Path, split: str | None = None, seed: int = 0) -> None:
        self.root, self.split, self.seed = Path(os.path.expanduser(root)), split, seed

    @cached_property
    def files(self) -> Mapping[Path, str]:
        """Videos and their classes.

        Raises:
            ValueError: There are none.
        """
        places = [self.root / folder for folder in FOLDERS]
        found = {file: file.parent.name for place in places for file in sorted(place.glob("*/*.avi"))}
        found = {file: name for file, name in found.items() if name in PROMPTS}
        if not found:
            raise ValueError(f"root {self.root} has no videos of UCF-101: it must hold UCF-101/ApplyEyeMakeup/*.avi")
        if self.split is None:
            return found
        kind, number = self.split[:-2], self.split[-2:]
        listed = self.root / LISTS / f"{kind}list{number}.txt"
        if not listed.is_file():
            known = [file.stem.replace("list", "") for file in sorted(listed.parent.glob("t*list0?.txt"))]
            raise ValueError(f"split is {self.split!r}: there is no {listed}; known: {', '.join(known) or 'none'}")
        names = {Path(line.split()[0]).name for line in listed.read_text().splitlines() if line.strip()}
        return {file: name for file, name in found.items() if file.name in names}

    def prompts(self, num: int, shape: VideoShape) -> list[str]:
        """See `EvaluationSet.prompts`: classes in the order of their names, shares rounded to sum up to `num`."""
        counts = Counter(self.files.values())
        names = sorted(counts)
        shares = np.array([counts[name] for name in names]) * (num / len(self.files))
        whole = np.floor(shares).astype(int)
        left = np.argsort(whole - shares, kind="stable")[: num - whole.sum()]  # the largest remainders
        whole[left] += 1
        return [PROMPTS[name] for name, count in zip(names, whole, strict=True) for _ in range(count)]

    def real(self, shape: VideoShape, fps: float) -> RealClips:
        """See `EvaluationSet.real`: a clip of each video, with the prompt of its class."""
        files = [file_at(file, PROMPTS[name]) for file, name in self.files.items()]
        return FileClips(files, shape, fps, self.seed)

    def record(self) -> dict[str, Any]:
        """See `EvaluationSet.record`."""
        listed = digest((file.name, size_of(file)) for file in self.files)
        about = {"name": "UCF-101", "split": self.split or "all", "videos": len(self.files), "list": listed}
        return about | {"seed": self.seed, "clips": RULE}
