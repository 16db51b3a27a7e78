"""Real clips that are read from files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from ...components.interfaces import VideoShape
from ..decode import decode_video
from ..samples import Unusable
from .evaluation_set import RealClip

RULE = "one clip per file from a random time; covers the frame, centre cut out; area filter down, bicubic up"
"""How a clip is cut out of a file, for records."""


class File(NamedTuple):
    """A video file.

    Args:
        open: Opens it.
        text: What is said of it.
    """

    open: Callable[[], BinaryIO]
    text: str


def file_at(path: Path, text: str) -> File:
    """A video file of this machine."""
    return File(partial(_open, path), text)


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


class FileClips(Dataset[RealClip | None]):
    """A clip of each file, from a time that is a function of the seed and of the file's place in the list.

    Args:
        files: Which.
        shape: Size of the clips.
        fps: Frames per second.
        seed: Another seed takes other times.
    """

    def __init__(self, files: Sequence[File], shape: VideoShape, fps: float, seed: int) -> None:
        self.files, self.shape, self.fps, self.seed = files, shape, fps, seed

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> RealClip | None:
        """The clip of a file; None, where it cannot be used: it is too short, has another frame rate, is broken."""
        file = self.files[index]
        try:
            with file.open() as opened:
                clip = decode_video(opened, self.shape, [self.fps], np.random.default_rng([self.seed, index]))
        except (Unusable, OSError):
            return None
        return RealClip(clip.video, file.text)
