"""One training at a time in a run folder, and one sampling in a folder of videos."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError

NAME = ".training"


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
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(otherwise) from error
        except OSError:  # a disk that has no locks
            pass
        yield


def is_training(run: Path) -> bool | None:
    """Whether a process trains in a run folder, as far as its disk can tell this machine; None: it cannot."""
    try:
        import fcntl

        with (run / NAME).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return None
    return False
