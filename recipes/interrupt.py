"""Signals that end a training, held back until a step is whole."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Trainer

logger = logging.getLogger(__name__)

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""What ends a training, once its step is whole. A second one ends it where it is."""

REQUEUE = signal.SIGUSR1
"""What SLURM is told to send ahead of a job's end: Lightning saves a checkpoint then, and asks for the job again."""


class Interrupted(SystemExit):
    """A training was asked to end, and did after a whole step. The exit code is the shell's for a signal."""


class HeldSignals:
    """Notes signals as they come, for `act` to act on between steps, on all ranks at the same one.

    A signal may come in the middle of the optimizer's step, when some weights are those of the next step and some are
    not: what Lightning saves then is the state of no step. And each rank gets it at a moment of its own.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._came: set[int] = set()

    def hold(self) -> None:
        """Begin to note signals. Only the main thread of a process can."""
        self._came.clear()
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
        if trainer.strategy.reduce_boolean_decision(REQUEUE in self._came, all=False):
            self._came.discard(REQUEUE)
            handler = self._before.get(REQUEUE)
            if callable(handler):
                handler(REQUEUE, None)
        return trainer.strategy.reduce_boolean_decision(bool(self._came & set(STOPPING)), all=False)

    def interruption(self) -> Interrupted:
        """What to raise once all is saved."""
        number = min(self._came & set(STOPPING), default=signal.SIGTERM)  # another rank's signal, if none came here
        return Interrupted(128 + number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number in self._came and number in STOPPING:  # it is meant
            self.release()
            signal.raise_signal(number)
            return
        self._came.add(number)
        if number in STOPPING:
            name = signal.Signals(number).name
            logger.warning("%s: training ends after this step. Once more ends it at once.", name)
