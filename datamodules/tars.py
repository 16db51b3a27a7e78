"""Tar files as trees: scanned once, then read at random.

Python's ``tarfile`` ends without a word where a header is damaged or cut off. `scan` goes on with the next header that
can be read and says what is lost between. What it found is kept beside the tar file, in ``.NAME.index.json``, for as
long as size and time of the tar stay the same.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from .trees import Tree
from .whole_file import whole_file

_BLOCK = 512
_COMPANION = ".embeddings.tar"
_VERSION = 1  # raise it when a scan finds other things
_WITHOUT_DATA = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
_SEARCHED = 1 << 20  # bytes at a time where a header is looked for
_LONGEST_EXTENSION = 1 << 20  # bytes of a header that says more about the next; a larger one is damaged


@dataclass
class Contents:
    """What a tar file holds.

    Args:
        members: Offset and bytes of each file, by name.
        lost: ``(name, reason)`` of what cannot be read; the name is an offset where it is not known.
    """

    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    lost: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, offset: int, size: int, end: int) -> None:
        """Take note of a file that should end before byte `end` of the tar."""
        parts = name.split("/")
        if name.startswith("/") or ".." in parts:
            self.lost.append((name, "unsafe name: it leads out of the tar"))
        elif offset + size > end:
            self.lost.append((name, f"truncated: the tar ends {offset + size - end} bytes before it does"))
        elif (name := "/".join(part for part in parts if part not in ("", "."))) in self.members:
            self.lost.append((name, "duplicate: the tar holds another file of this name"))
        else:
            self.members[name] = offset, size


class Tar(Tree):
    """A tar file, not compressed. What is in ``shard.embeddings.tar`` beside ``shard.tar`` can be opened, too.

    Args:
        path: The file.

    Attributes:
        members: Offset and bytes of each file, by name.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no tar file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._time = path.stat().st_mtime_ns
        contents = read_contents(path)
        self.members = contents.members
        self.lost = contents.lost
        self._beside: Tar | None = None
        beside = companion(path)
        if beside != path and beside.exists():
            try:
                self._beside = Tar(beside)
                self.lost = [*self.lost, *self._beside.lost]
            except (OSError, ValueError) as error:  # the media are good all the same
                self.lost = [*self.lost, (beside.name, f"bad shard: {error}")]

    def folders(self) -> Iterator[tuple[str, Set[str]]]:
        """See `Tree`."""
        folders: dict[str, set[str]] = {}
        for member in self.members:
            folder, _, name = member.rpartition("/")
            if not any(part.startswith(".") for part in member.split("/")):
                folders.setdefault(f"{folder}/" if folder else "", set()).add(name)
        for prefix in sorted(folders):  # "a/" comes before "a/b/"
            yield prefix, folders[prefix]

    def open(self, name: str) -> BinaryIO:
        """See `Tree`."""
        if self._beside is not None and name in self._beside.members:  # newer than what was packed with the media
            return self._beside.open(name)
        offset, size = self._find(name)
        return io.BufferedReader(Slice(self.path, offset, size, name), buffer_size=1 << 15)

    def size(self, name: str) -> int:
        """See `Tree`."""
        return self._find(name)[1]

    def stamp(self, name: str) -> list[int]:
        """See `Tree`."""
        return [*self._find(name), self._time]

    def locate(self, name: str) -> str:
        """See `Tree`; a name that leads out of the tar looks as if it did not."""
        return f"{self.path}/{name}"

    def _find(self, name: str) -> tuple[int, int]:
        try:
            return self.members[name]
        except KeyError:
            raise FileNotFoundError(2, "no such file in the tar", self.locate(name)) from None


class Slice(io.RawIOBase):
    """Part of a file as a file of its own.

    Args:
        path: The file.
        offset: Where the part begins, in bytes.
        size: How long it is, in bytes.
        name: What it is called.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path, offset: int, size: int, name: str) -> None:
        super().__init__()
        self.name = name
        self._offset, self._size, self._at = offset, size, 0
        self._file = os.open(path, os.O_RDONLY)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where reading goes on, from the beginning of the part."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go on reading elsewhere, also beyond the end."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001  # collections.abc.Buffer is of Python 3.12
        """Fill a buffer as far as there is something to read."""
        count = max(0, min(len(buffer), self._size - self._at))
        data = os.pread(self._file, count, self._offset + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Let go of the file."""
        if not self.closed:
            os.close(self._file)
        super().close()


def companion(path: Path) -> Path:
    """The tar file that holds the embeddings of the samples in another."""
    return path if path.name.endswith(_COMPANION) else path.with_name(path.name.removesuffix(".tar") + _COMPANION)


def is_companion(path: Path) -> bool:
    """Whether a tar file goes with another and is no source of its own."""
    return path.name.endswith(_COMPANION)


def read_contents(path: Path) -> Contents:
    """What a tar file holds, from its index where that is of this very file, else by a scan that writes the index.

    Args:
        path: The tar file.

    Raises:
        OSError: The tar file cannot be read.
        ValueError: It is no tar file.
    """
    status = path.stat()
    state = {"version": _VERSION, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    index = path.with_name(f".{path.name}.index.json")
    try:
        stored = json.loads(index.read_bytes())
        if all(stored[name] == value for name, value in state.items()):
            members = {name: (offset, size) for name, (offset, size) in stored["members"].items()}
            return Contents(members, [(name, reason) for name, reason in stored["lost"]])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or not ours
    contents = scan(path)
    with suppress(OSError), whole_file(index) as temporary:  # a folder that cannot be written to is scanned each time
        temporary.write_text(json.dumps(state | {"members": contents.members, "lost": contents.lost}))
    return contents


def scan(path: Path) -> Contents:
    """List the files in a tar, and what is lost of it.

    Args:
        path: The tar file: ustar, with the extensions of pax and GNU for long names and large files.

    Raises:
        OSError: It cannot be read.
        ValueError: It holds no header of a tar file at all.
    """
    contents = Contents()
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        offset, extensions, closed = 0, dict[str, str](), False
        while offset < end:
            block = _at(file, offset, _BLOCK)
            if not block.strip(b"\0"):  # an empty block: the end mark, padding, or zeros where something was
                closed = closed or len(block) == _BLOCK
                offset = _skip_zeros(file, offset)
                continue
            header = _parse(block, extensions)
            if header is None:
                following = _next_header(file, offset + 1)
                what = "truncated" if following is None and len(block) < _BLOCK else "damaged tar"
                contents.lost.append((f"byte {offset}", f"{what}: no header where one must be"))
                offset, extensions = end if following is None else following, {}
                continue
            start = offset + _BLOCK
            has_data = header.type not in _WITHOUT_DATA  # whatever their header says
            offset = start + (-(-header.size // _BLOCK) * _BLOCK if has_data else 0)
            if header.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.SOLARIS_XHDTYPE):
                extensions = _read_extension(_at(file, start, min(header.size, _LONGEST_EXTENSION)), header.type)
                continue
            extensions = {} if header.type not in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE) else extensions
            if header.type in tarfile.REGULAR_TYPES:
                contents.add(header.name, start, header.size, end)
            elif header.type in (tarfile.LNKTYPE, tarfile.SYMTYPE):
                contents.lost.append((header.name, "link: a tar must hold the file itself"))
    if not contents.members and all(name.startswith("byte ") for name, _ in contents.lost) and end > 0 and not closed:
        raise ValueError(f"{path} is no tar file")
    if not closed:
        contents.lost.append((f"byte {end}", "truncated: the tar has no end mark"))
    return contents


@dataclass
class _Header:
    name: str
    size: int
    type: bytes


def _parse(block: bytes, extensions: dict[str, str]) -> _Header | None:
    """A header, with what the one before said of it; None where there is none."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        size = int(extensions.get("size", info.size))
    except (tarfile.HeaderError, ValueError):
        return None
    return _Header(extensions.get("path", info.name), size, info.type) if size >= 0 else None


def _read_extension(data: bytes, kind: bytes) -> dict[str, str]:
    """``path`` and ``size`` that a header of an extension gives the next file, where it does."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.split(b"\0")[0].decode("utf-8", "surrogateescape")}
    found = {}
    while data:
        length, _, record = data.partition(b" ")
        if not length.isdigit() or int(length) <= len(length) + 1:
            break
        key, _, value = record[: int(length) - len(length) - 2].partition(b"=")
        if key in (b"path", b"size"):
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
    return found


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _skip_zeros(file: BinaryIO, offset: int) -> int:
    """The first block from `offset` on that is not all zeros, or the end."""
    while data := _at(file, offset, _SEARCHED):
        rest = data.lstrip(b"\0")
        if rest:
            return offset + (len(data) - len(rest)) // _BLOCK * _BLOCK
        offset += len(data)
    return offset


def _next_header(file: BinaryIO, offset: int) -> int | None:
    """Where the next header is that can be read, at the beginning of a block; None if there is none."""
    offset = -(-offset // _BLOCK) * _BLOCK
    while data := _at(file, offset, _SEARCHED):
        for start in range(0, len(data), _BLOCK):
            block = data[start : start + _BLOCK]
            if block[257:262] == b"ustar" and _parse(block, {}) is not None:
                return offset + start
        offset += len(data)
    return None
