"""When a training saves itself, and how: each file is whole or not there, and the one before it stays until then."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as CheckpointCallback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ..components.callbacks.bad_steps import Diverged, skipped
from ..components.media import whole_file
from .interrupt import EndedAtOnce, HeldSignals, Interrupted
from .run import LAST

logger = logging.getLogger(__name__)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, then moves it there.

    Lightning's own writes it to the memory first, once more as large as the checkpoint, and moves it from another disk
    maybe, during which a kill leaves half of it.

    Attributes:
        failure: Why the last checkpoint was not written; None: it was.
    """

    failure: OSError | None = None

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any = None,  # noqa: ANN401  # Lightning's
    ) -> None:
        """Write a checkpoint. A disk that is full does not end the training: `failure` says so."""
        self.failure = None
        try:
            with whole_file(path) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())  # or it might be moved before it is written
        except (OSError, RuntimeError) as error:
            # Within a tensor torch hides the error of the file behind one of its own.
            reason = error if isinstance(error, OSError) else error.__context__
            if not isinstance(reason, OSError):
                raise
            self.failure = OSError(*reason.args)  # without its traceback, which holds the checkpoint


class Checkpoint(CheckpointCallback):
    """Saves ``checkpoints/step=....ckpt`` every so many steps, at the end, and when training is interrupted.

    ``checkpoints/last.ckpt`` is a link to the newest. A checkpoint is whole or not there; older ones go once it is. On
    SIGINT (Ctrl-C) and SIGTERM training saves after the batch at hand, and ends; `signals` must be among the callbacks,
    before those that work before the first step.

    After a step that was skipped (`SkipBadSteps`) it is never time, and a checkpoint that the end asks for takes no
    other's place: the weights may be what is wrong.

    Args:
        every_n_steps: Optimizer steps from one checkpoint to the next, at least 1.
        keep: How many of the newest are kept; 0: all.

    Attributes:
        signals: Holds signals back.

    Raises:
        ValueError: A setting is out of range.
    """

    def __init__(self, every_n_steps: int = 1000, keep: int = 2) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}: it must be at least 1")
        if keep < 0:
            raise ValueError(f"keep is {keep}: it must be at least 1, or 0 for all")
        self.every_n_steps = every_n_steps
        self.keep = keep
        self.signals = HeldSignals()
        self._saved_step = self._seen_step = -1
        self._stepping = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin; the step that a training is resumed at is saved already.

        This is the last to begin: what signals asked for meanwhile is done now.
        """
        self._saved_step = self._seen_step = trainer.global_step
        self._stepping = False
        folder = _last(trainer).parent  # asked by every rank
        if trainer.is_global_zero:
            for half in folder.glob(".step=*.partial"):  # of a run that was killed while it saved
                half.unlink()
        if self.signals.act(trainer):
            raise self.signals.interruption()

    def on_before_optimizer_step(self, trainer: Trainer, *_: object) -> None:
        """From here on to the end of the batch, weights may be between two steps."""
        self._stepping = True

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Save if it is time, or if training is to end; several batches may make one step."""
        self._stepping = False
        step = trainer.global_step
        due = step != self._seen_step and step % self.every_n_steps == 0 and not skipped(trainer)
        self._seen_step = step
        ends = self.signals.act(trainer)
        if due or ends:
            self._save(trainer)
        if ends:
            raise self.signals.interruption()

    def on_validation_batch_end(self, trainer: Trainer, *_: object) -> None:
        """End a validation, too, when training is to end; what is saved then is saved by `on_exception`."""
        if self.signals.act(trainer):
            raise self.signals.interruption()

    def on_train_epoch_end(self, trainer: Trainer, *_: object) -> None:
        """Save the last step, if no other epoch follows; in `on_train_end` EMA has replaced the training weights.

        Raises:
            OSError: It cannot be written.
        """
        steps = 0 <= trainer.max_steps <= trainer.global_step  # `done` of the loop would tell people twice
        epochs = 0 < (trainer.max_epochs or 0) <= trainer.current_epoch + 1
        if (steps or epochs or trainer.should_stop) and (failure := self._save(trainer)):
            raise failure

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what can be saved: what one process alone holds, or all ranks together have stopped at.

        What has diverged is not, nor what was told to end at once: that may be anywhere. What goes wrong is said, and
        hides no error that came before.
        """
        alone = trainer.world_size == 1 or isinstance(exception, Interrupted)
        whole = self._saved_step >= 0 and not self._stepping
        try:
            if alone and whole and not isinstance(exception, Diverged | EndedAtOnce | KeyboardInterrupt):
                self._save(trainer)
        except Exception as error:  # out of memory once more, say
            logger.error("step %d cannot be saved (%s: %s)", trainer.global_step, type(error).__name__, error)
        finally:
            self.signals.release()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give signals back; in `teardown` Lightning's handlers are gone already, and would come back."""
        self.signals.release()

    def _save(self, trainer: Trainer) -> OSError | None:
        """Save the step at hand, unless it is saved; the reason if it could not be."""
        step = trainer.global_step
        if step == self._saved_step:
            return None
        last = _last(trainer)
        trainer.save_checkpoint(last.with_name(f"step={step:08d}.ckpt"), weights_only=False)
        checkpoint_io = trainer.strategy.checkpoint_io
        failure = trainer.strategy.broadcast(getattr(checkpoint_io, "failure", None))
        if failure:
            logger.error("step %d cannot be saved (%s); the checkpoint before it is kept", step, failure)
            return failure
        self._saved_step = step
        if trainer.is_global_zero:
            self._tidy(last, step, 0 if skipped(trainer) else self.keep)
        return None

    def _tidy(self, last: Path, step: int, keep: int) -> None:
        """Point to the newest checkpoint; remove older ones, if `keep` is not 0, and what SLURM's requeueing left."""
        newest = last.with_name(f"step={step:08d}.ckpt")
        with whole_file(last) as link:
            link.symlink_to(newest.name)
        old = sorted(last.parent.glob("step=*.ckpt"))[:-keep] if keep else []
        for path in [*old, *last.parent.parent.glob("hpc_ckpt_*.ckpt")]:
            path.unlink(missing_ok=True)


def _last(trainer: Trainer) -> Path:
    """The link to the newest checkpoint, on all ranks the same: they must all ask."""
    return Path(trainer.log_dir or trainer.default_root_dir) / LAST
