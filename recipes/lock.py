"""One training at a time in a run folder, and one sampling in a folder of videos."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .errors import UserError

NAME = ".training"

ATTEMPTS, PAUSE = 5, 0.1
"""How often the lock is asked for, and seconds between: who asks `is_training` has it for a moment."""


@contextmanager
def only_training(run: Path) -> Iterator[None]:
    """A context that a run folder has one of at a time, across processes, and machines too if their disk can lock.

    Raises:
        UserError: Another process trains it.
    """
    with _only(run, NAME, f"{run} is being trained by another process: wait for it, or end it first"):
        yield


@contextmanager
def only_sampling(folder: Path) -> Iterator[None]:
    """A context that a folder of videos has one of at a time; it leaves no trace.

    Raises:
        UserError: Another process fills it.
    """
    name = ".sampling"
    with _only(folder, name, f"{folder} is being filled by another process: wait for it, or end it first"):
        try:
            yield
        finally:
            (folder / name).unlink(missing_ok=True)


@contextmanager
def _only(folder: Path, name: str, otherwise: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as file:
        for _ in range(ATTEMPTS):
            if _lock(file):
                break
            time.sleep(PAUSE)
        else:
            raise UserError(otherwise)
        yield


def _lock(file: TextIO) -> bool:
    """Whether nobody else has the file, which is locked now, where the disk can."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk that has no locks
        pass
    return True


def is_training(run: Path) -> bool | None:
    """Whether a process trains in a run folder, as far as its disk can tell this machine; None: it cannot."""
    try:
        with (run / NAME).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False
