"""The line of requests: one is sampled at a time, the others wait, and any can be cancelled."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..errors import UserError, exit_code, message
from ..memory import is_out_of_memory
from .gallery import Made
from .request import Request

Report: TypeAlias = Callable[[int, int], None]
"""Called at each evaluation with how many are done and how many there are; it may raise `Cancelled`."""


class Cancelled(Exception):
    """The video is not wanted any more."""


@dataclass(eq=False)
class Job:
    """A request on its way to a video.

    Args:
        owner: Whose it is.
        request: What was asked for.
        state: How far it is.
        done: Evaluations of the denoiser so far.
        total: Evaluations that it takes; 0: not known before it runs.
        made: The video.
        error: Why there is none, in words.
        cancelling: Whether its owner wants it no more.
    """

    owner: str
    request: Request
    state: Literal["waiting", "running", "made", "cancelled", "failed"] = "waiting"
    done: int = 0
    total: int = 0
    made: Made | None = None
    error: str = ""
    cancelling: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state not in ("waiting", "running")

    def report(self, done: int, total: int) -> None:
        """See `Report`."""
        if self.cancelling:
            raise Cancelled
        self.done, self.total = done, total


class Jobs:
    """A line of jobs, in the order in which they came. An owner has one job at a time.

    Args:
        make: Makes the video of a request.
        max_waiting: Jobs that may wait while one runs.
    """

    def __init__(self, make: Callable[[Request, Report], Made], max_waiting: int) -> None:
        self._make, self._max_waiting = make, max_waiting
        self._line: list[Job] = []  # the first of them runs, or is about to
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "sampling")

    def submit(self, owner: str, request: Request) -> Job:
        """Put a request at the end of the line.

        Raises:
            UserError: The line is full, or its owner has one in it.
        """
        with self._lock:
            if any(job.owner == owner for job in self._line):
                raise UserError("Your last video is not done yet: wait for it, or cancel it.")
            if len(self._line) > self._max_waiting:
                raise UserError(f"Too many videos are waiting already ({self._max_waiting}): try again later.")
            job = Job(owner, request)
            self._line.append(job)
            self._worker.submit(self._run, job)
        return job

    def cancel(self, owner: str) -> None:
        """End the job of an owner, if there is one: at once where it waits, at its next evaluation where it runs."""
        with self._lock:
            for job in [job for job in self._line if job.owner == owner]:
                job.cancelling = True
                if job.state == "waiting":
                    job.state = "cancelled"
                    self._line.remove(job)

    def before(self, job: Job) -> int:
        """How many come before a job."""
        with self._lock:
            return self._line.index(job) if job in self._line else 0

    def close(self) -> None:
        """Cancel all, and wait for the one that runs."""
        for job in list(self._line):
            self.cancel(job.owner)
        self._worker.shutdown()

    def _run(self, job: Job) -> None:
        with self._lock:
            if job.ended:
                return
            job.state = "running"
        end: Literal["made", "cancelled", "failed"] = "failed"
        try:
            job.made = self._make(job.request, job.report)
            end = "made"
        except Cancelled:
            end = "cancelled"
        except Exception as error:
            job.error = _words(error)
        with self._lock:
            self._line.remove(job)
            job.state = end


def _words(error: Exception) -> str:
    """What the page says of an error; what is not for visitors is printed here."""
    if is_out_of_memory(error):
        return "The memory of the device is not enough for this video."
    if exit_code(error) is not None:
        return message(error)
    traceback.print_exception(error, file=sys.stderr)
    return "Something went wrong; the terminal in which the page was started says what."
