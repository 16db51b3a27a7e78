"""The callback that keeps the page of a training up to date."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ..interrupt import Interrupted
from .page import write_report
from .progress import Progress, Word

if TYPE_CHECKING:
    from ..record import Record

logger = logging.getLogger(__name__)


class Report(Callback):
    """Writes ``report.html`` and ``progress.json`` when training starts, validates, samples and ends.

    ``progress.json`` is written once a minute, too. So a run that is killed has a page. What goes wrong with it is
    said, and never ends a training.

    Args:
        record: Counts clips and seconds; it comes before this one in the trainer's list.
    """

    every = 60.0

    def __init__(self, record: Record) -> None:
        self.record = record
        self._told = time.monotonic()
        self._run: Path | None = None
        self._step = 0
        self._state: Word | None = None  # what was written last

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them: there is a recipe, and maybe the untrained model's samples."""
        self._run = Path(trainer.log_dir or trainer.default_root_dir)  # asked by every rank: it is broadcast
        self._step = trainer.global_step
        self._write(trainer, "running")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Write them if this step has samples, or one if it is time; several batches may make one step."""
        if trainer.global_step == self._step or self._run is None:
            return
        self._step = trainer.global_step
        if trainer.is_global_zero and (self._run / "samples" / f"step={self._step:08d}").exists():
            self._write(trainer, "running")
        elif time.monotonic() - self._told >= self.every:
            self._tell(trainer, "running")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them: there is a new validation loss."""
        self._write(trainer, "running")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say whether all steps are done."""
        early = 0 <= trainer.global_step < trainer.max_steps
        epochs = 0 < (trainer.max_epochs or 0) <= trainer.current_epoch
        why = "trainer.max_epochs is reached" if epochs else "trainer.max_time is over, or a callback asked for it"
        self._write(trainer, "stopped" if early else "finished", f"before max_steps: {why}" if early else "")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say what ended it."""
        self._fail(trainer, exception)

    def close(self, trainer: Trainer) -> None:
        """Write them for the last time.

        An error saves a checkpoint after all callbacks were told. Or it came from one of them, and this one was not.
        """
        error = sys.exc_info()[1]
        if self._state == "running" and error is not None:
            self._fail(trainer, error)
        elif self._run is not None:
            attempt(write_report, self._run)

    def _fail(self, trainer: Trainer, error: BaseException) -> None:
        if isinstance(error, Interrupted) and isinstance(error.code, int):
            self._write(trainer, "stopped", f"it was told to end, by {signal.Signals(error.code - 128).name}")
        elif isinstance(error, KeyboardInterrupt | SystemExit | SIGTERMException):
            self._write(trainer, "stopped", "it was told to end at once")
        else:
            self._write(trainer, "failed", f"{type(error).__name__}: {error}"[:1000])

    def _write(self, trainer: Trainer, state: Word, why: str = "") -> None:
        self._tell(trainer, state, why)
        if self._run is not None and trainer.is_global_zero:
            attempt(write_report, self._run)

    def _tell(self, trainer: Trainer, state: Word, why: str = "") -> None:
        if self._run is None or not trainer.is_global_zero:
            return
        self._state, self._told = state, time.monotonic()
        total = trainer.max_steps if trainer.max_steps > 0 else None
        now = Progress(state, why, trainer.global_step, total, self.record.clips, round(self.record.seconds, 1))
        attempt(now.write, self._run)


def attempt(write: Callable[[Path], object], run: Path) -> None:
    """Write something into a run folder; if that fails, say so and go on: a page is worth less than a training."""
    try:
        write(run)
    except Exception as error:
        logger.warning("the report could not be written: %s: %s", type(error).__name__, error)
