"""Signals that end a training, held back until a batch is done."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

logger = logging.getLogger(__name__)

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""What ends a training, once its batch is done. The same a second time ends it where it is."""

ONCE = 0.5
"""Seconds in which the same signal again is no second one: torchrun passes on what the terminal has sent to all."""

REQUEUE = signal.SIGUSR1
"""What SLURM is told to send ahead of a job's end: Lightning saves a checkpoint then, and asks for the job again."""


class Interrupted(SystemExit):
    """A training was asked to end, and did between batches. The exit code is the shell's for a signal."""


class EndedAtOnce(SystemExit):
    """A training was asked to end twice, and did where it was. The exit code is likewise."""


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """A context in which SIGTERM raises, as Ctrl-C does anyway, so that nothing half begun is left behind.

    Until signals are held: Lightning calls this handler after its own.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise EndedAtOnce(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class HeldSignals(Callback):
    """Notes signals as they come, for `act` to act on between batches, on all ranks at the same one.

    A signal may come in the middle of the optimizer's step, when some weights are those of the next step and some are
    not: what Lightning saves then is the state of no step. And each rank gets it at a moment of its own.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._came: dict[int, float] = {}  # and when

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to note signals, in place of Lightning's handlers. Until then they end all at once."""
        self._came = {signal.SIGTERM: time.monotonic()} if trainer.received_sigterm else {}
        self.hold()

    def hold(self) -> None:
        """Begin to note signals. Only the main thread of a process can."""
        if threading.current_thread() is not threading.main_thread():
            return
        held = [*STOPPING, *([REQUEUE] if callable(signal.getsignal(REQUEUE)) else [])]
        self._before = {number: signal.signal(number, self._note) for number in held}

    def release(self) -> None:
        """Give signals back to what handled them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def act(self, trainer: Trainer) -> bool:
        """Whether training is to end now, on all ranks; requeue the job if that was asked for.

        Args:
            trainer: Its ranks must all call this at the same place.
        """
        if not _any_rank(trainer, bool(self._came)):  # most often; each such question waits for all ranks
            return False
        if _any_rank(trainer, REQUEUE in self._came):
            self._came.pop(REQUEUE, None)
            handler = self._before.get(REQUEUE)
            if callable(handler):
                handler(REQUEUE, None)
        return _any_rank(trainer, any(number in self._came for number in STOPPING))

    def interruption(self) -> Interrupted:
        """What to raise once all is saved."""
        came = [number for number in STOPPING if number in self._came]
        return Interrupted(128 + min(came, default=signal.SIGTERM))  # another rank's signal, if none came here

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number in STOPPING and now - self._came.get(number, now) > ONCE:
            raise EndedAtOnce(128 + number)
        if number not in self._came and number in STOPPING:
            name = signal.Signals(number).name
            logger.warning("%s: training ends after this batch. Once more ends it at once.", name)
        self._came.setdefault(number, now)


def _any_rank(trainer: Trainer, decision: bool) -> bool:
    return trainer.strategy.reduce_boolean_decision(decision, all=False)
