"""A folder that a command fills with videos: what is there, what is missing, and what each was made with.

A video is there when its record is: while the folder fills, ``NAME.json`` beside ``NAME.mp4``, written last. So several
processes write without a word to each other, and a kill leaves no video that is half there. `VideoFolder.gather` makes
``meta.jsonl`` of the records, in the order of the requests; a folder without it is not one of these.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor

from ..components.interfaces import VideoShape
from ..components.media import (
    GRID_VIDEOS,
    encode_gif,
    enlarge,
    read_mp4,
    shrink,
    to_uint8,
    write_bytes,
    write_grid,
    write_mp4,
)
from .differences import differences
from .errors import UserError
from .lock import only_sampling
from .requests import Request

META = "meta.jsonl"
OVERVIEW = ("grid.mp4", "grid.gif", "contact_sheet.png")

OWN = ("prompt", "seed", "fps")
"""What a record says of its own video; the rest is the same for all of a folder."""

FREE = ("batch_size", "device", "versions")
"""Settings of a record that may be others when a command goes on: they change videos by rounding alone."""


class VideoFolder:
    """A folder of the videos of some requests.

    Args:
        requests: What the folder is to hold.
        settings: What all are made with; each record has it.
        out: The folder; None: a new one in `default`, named by the time.
        default: Where new folders go.
        gifs: Whether a GIF is beside each video.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        settings: dict[str, Any],
        out: Path | None,
        default: Path,
        gifs: bool = True,
    ) -> None:
        self.requests = list(requests)
        self.gifs = gifs
        self.settings = settings
        self.out, self.default = out, default
        self.path = out or default  # `open` finds a name for a new one
        self._is_open = False

    def check(self) -> None:
        """Refuse a folder that is another's; quick, for every process to do before heavy work.

        Raises:
            UserError: It cannot be read, holds other files, or videos that were made with other settings.
        """
        if self.out is not None and any(not name.startswith(".") for name in self._names()):
            if not self._is_begun():
                raise UserError(
                    f"-o {self.out}: it holds other files; name a new folder, or one to go on with that "
                    "snapvideo sample has begun"
                )
            for _, record in itertools.islice(self._records(), 1):  # all were made with the same
                self._compare(record)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A context that a folder with a name has one of at a time.

        Raises:
            UserError: Another command fills it, or it cannot be written.
        """
        with ExitStack() as stack:
            if self.out is not None:  # nobody else knows of a new one
                with _writing(self.out):
                    stack.enter_context(only_sampling(self.out))
            yield

    def open(self) -> list[Request]:
        """Make the folder, or go on with it: one process does it before any writes. What is missing in it.

        Raises:
            UserError: See `check`, or it cannot be written, or it holds videos that nobody asked for.
        """
        self.check()
        with _writing(self.path):
            if self.out is None:
                self.path = new_folder(self.default)
            self.path.mkdir(parents=True, exist_ok=True)
            for rest in self.path.rglob(".*.partial"):  # of a process that was killed
                rest.unlink()
            return self._open()

    def _open(self) -> list[Request]:
        wanted = {request.name: request for request in self.requests}
        for name, record in self._records():
            self._compare(record)
            self._compare_own(record, wanted.get(name))
        there = self.gather()
        self._is_open = True
        return [request for request in self.requests if request.name not in there]

    def write(self, request: Request, stages: Mapping[str, Tensor]) -> None:
        """Write a video, and last its record.

        Args:
            request: Which.
            stages: By name, ``[C, T, H, W]`` in [-1, 1]: the last is the video, earlier ones go to folders of their
                names.

        Raises:
            UserError: The disk refuses it.
        """
        *earlier, result = stages
        own = {"file": f"{request.name}.mp4", "prompt": request.prompt, "seed": request.seed, "fps": request.fps}
        with _writing(self.path):
            for stage in earlier:
                self._write_clip(self.path / stage, request, stages[stage])
            self._write_clip(self.path, request, stages[result])
            write_bytes(self.path / f"{request.name}.json", _line(own | self.settings))

    def _write_clip(self, folder: Path, request: Request, video: Tensor) -> None:
        large = enlarge(to_uint8(video))
        write_mp4(folder / f"{request.name}.mp4", large, request.fps)
        if self.gifs:
            write_bytes(folder / f"{request.name}.gif", encode_gif(large, request.fps))

    def gather(self) -> set[str]:
        """Make ``meta.jsonl`` of the records of all videos, and remove those beside them; whose they are."""
        names = self._names()
        beside = [name for name in names if name.endswith(".json")]
        records = {name: record for name, record in self._records(beside) if f"{name}.mp4" in names}
        found = [request.name for request in self.requests if request.name in records]
        write_bytes(self.path / META, b"".join(_line(records[name]) for name in found))
        for name in beside:
            if name.removesuffix(".json") in records:  # others are none of ours
                (self.path / name).unlink()
        return set(found)

    def close(self) -> int:
        """Gather the records; a folder without a video is removed. How many videos there are."""
        if not self._is_open:
            return 0
        found = self.gather()
        if not found and all(name == META or name.startswith(".") for name in self._names()):
            (self.path / META).unlink()
            with suppress(OSError):  # what is hidden in it is another's
                self.path.rmdir()
        return len(found)

    def has_overview(self) -> bool:
        """Whether the grid and the contact sheet are there."""
        return all((self.path / name).is_file() for name in OVERVIEW)

    def write_overview(self, columns: int, shape: VideoShape) -> int:
        """Make the grid and the contact sheet of the first videos, of the files of them; how many are in it.

        Args:
            columns: Videos per row of the grid.
            shape: Size of the videos before they were enlarged for players.
        """
        shown = self.requests[:GRID_VIDEOS]
        cells = [self.read(request, shape) for request in shown]
        write_grid(self.path, torch.stack(cells), columns, shown[0].fps)
        return len(shown)

    def read(self, request: Request, shape: VideoShape) -> Tensor:
        """A video of its file, uint8 ``[C, T, H, W]``; of a small one, what the codec loses is averaged away.

        Args:
            request: Which.
            shape: Size of the videos before they were enlarged for players.

        Raises:
            UserError: It cannot be read.
        """
        file = self.path / f"{request.name}.mp4"
        try:
            return shrink(read_mp4(file), shape.height, shape.width)
        except (av.FFmpegError, ValueError) as error:
            raise UserError(f"{file} cannot be read: remove it, and the same command makes it again") from error

    def _names(self) -> set[str]:
        with _writing(self.path), suppress(FileNotFoundError):
            return set(os.listdir(self.path))
        return set()

    def _records(self, beside: Iterable[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """The records by the names of their videos: those that were gathered, then those in files `beside` videos.

        Args:
            beside: Names of files; None: all that there are.
        """
        with suppress(FileNotFoundError):
            for line in (self.path / META).read_bytes().splitlines():
                yield from _read_record(line)
        for name in self._names() if beside is None else beside:
            if name.endswith(".json"):
                yield from _read_record((self.path / name).read_bytes())

    def _is_begun(self) -> bool:
        """Whether ``meta.jsonl`` is there, and is of videos: that of samples on the way of a training is not."""
        with suppress(FileNotFoundError), (self.path / META).open("rb") as file:
            first = file.readline()
            return not first or any(_read_record(first))
        return False

    def _compare(self, record: dict[str, Any]) -> None:
        """Refuse the record of a video that was made with other settings."""
        theirs, ours = (
            {key: value for key, value in made.items() if key not in ("file", *OWN, *FREE)}
            for made in (record, json.loads(_line(self.settings)))
        )
        for key, made, wanted in differences(theirs, ours):
            raise UserError(
                f"-o {self.path}: {record['file']} was made with {key} {made!r}, and this command has {wanted!r}; go "
                "on with the same settings, or name another folder"
            )

    def _compare_own(self, record: dict[str, Any], request: Request | None) -> None:
        """Refuse the record of a video that is not asked for."""
        for key in OWN:
            wanted = getattr(request, key, None)
            if record.get(key) != wanted:
                what = "does not ask for it" if request is None else f"has {wanted!r}"
                raise UserError(
                    f"-o {self.path}: {record['file']} is of the {key} {record.get(key)!r}, and this command {what}; "
                    "go on with the same prompts (more can be added), or name another folder"
                )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """A context in which what a disk refuses is a user's error."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error


def new_folder(default: Path) -> Path:
    """A new folder in `default`, named by the time."""
    name = time.strftime("%Y-%m-%d_%H%M%S")
    for number in itertools.count(1):
        folder = default / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
    return folder


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _read_record(line: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """A record and the name of its video, if it is one: a disk may have lost the end of it."""
    with suppress(ValueError):
        record = json.loads(line)
        if isinstance(record, dict) and isinstance(record.get("file"), str):
            yield record["file"].removesuffix(".mp4"), record
