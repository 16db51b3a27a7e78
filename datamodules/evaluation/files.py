"""Real clips that are read from files."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ...components.interfaces import VideoShape
from ..decode import decode_video
from ..samples import Unusable
from .evaluation_set import RealClip, RealClips

RULE = "one clip per file from a random time; covers the frame, centre cut out; area filter down, bicubic up"
"""How a clip is cut out of a file, for records."""


class File(NamedTuple):
    """A video file.

    Args:
        name: What it is called in its set.
        open: Opens it.
        text: What is said of it.
    """

    name: str
    open: Callable[[], BinaryIO]
    text: str


def file_at(path: Path, text: str) -> File:
    """A video file of this machine, by its own name."""
    return File(path.name, partial(_open, path), text)


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def size_of(path: Path) -> int:
    """Bytes of a file; -1: it is not there."""
    return path.stat().st_size if path.is_file() else -1


class FileClips(RealClips):
    """A clip of each file, from a time that is a function of the seed and of the file's name.

    Args:
        files: Which.
        shape: Size of the clips.
        fps: Frames per second.
        seed: Another seed takes other times.
    """

    def __init__(self, files: Sequence[File], shape: VideoShape, fps: float, seed: int) -> None:
        self.files, self.shape, self.fps, self.seed = files, shape, fps, seed
        self.names = [file.name for file in files]

    def __getitem__(self, index: int) -> RealClip | Unusable:
        """The clip of a file; why it cannot be used, where it is not there, too short, broken, ...

        Raises:
            ValueError: The file is there, and cannot be opened or read: it may be another time.
        """
        file = self.files[index]
        try:
            with file.open() as opened:
                rng = np.random.default_rng([self.seed, zlib.crc32(file.name.encode())])
                clip = decode_video(opened, self.shape, [self.fps], rng)
        except FileNotFoundError:
            return Unusable("missing")
        except Unusable as reason:
            return reason
        except OSError as error:
            raise ValueError(f"{file.name} cannot be read: {error.strerror or error}") from error
        return RealClip(clip.video, file.text)
