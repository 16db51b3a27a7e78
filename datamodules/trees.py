"""Files under names: a folder here, a tar file in `tars`. A sample is the same in both, and so is its decoding."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import BinaryIO


class Tree(ABC):
    """Files under names with forward slashes, read only.

    Attributes:
        path: Where it is.
        lost: ``(name, reason)`` of what should be in it and cannot be reached.
    """

    path: Path
    lost: Sequence[tuple[str, str]] = ()

    @abstractmethod
    def folders(self) -> Iterator[tuple[str, Set[str]]]:
        """Every folder as a prefix, "" or "a/b/", and the names of its files; parents first, without hidden ones.

        Raises:
            ValueError: A folder cannot be listed.
        """

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """A file, to be closed by the caller.

        Raises:
            OSError: It cannot be opened.
        """

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            OSError: There is none.
        """

    def stamp(self, name: str) -> list[int]:
        """Numbers that change when a file does.

        Raises:
            OSError: There is none.
        """
        return [self.size(name)]

    def locate(self, name: str) -> str:
        """Where a file is, for people."""
        return str(self.path / name)


class Folder(Tree):
    """A folder with all its subfolders; links are followed, each real folder is seen once.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def folders(self) -> Iterator[tuple[str, Set[str]]]:
        """See `Tree`."""
        seen = set()
        for directory, children, names in os.walk(self.path, onerror=_refuse, followlinks=True):
            real = os.path.realpath(directory)
            if real in seen:
                children.clear()
                continue
            seen.add(real)
            children[:] = [child for child in sorted(children) if not child.startswith(".")]
            prefix = "" if directory == str(self.path) else Path(directory).relative_to(self.path).as_posix() + "/"
            yield prefix, {name for name in names if not name.startswith(".")}

    def open(self, name: str) -> BinaryIO:
        """See `Tree`."""
        return (self.path / name).open("rb")

    def size(self, name: str) -> int:
        """See `Tree`."""
        return (self.path / name).stat().st_size

    def stamp(self, name: str) -> list[int]:
        """See `Tree`."""
        status = (self.path / name).stat()
        return [status.st_size, status.st_mtime_ns]


def _refuse(error: OSError) -> None:
    raise ValueError(f"{error.filename} cannot be listed: {error.strerror}") from error
