"""What a recipe may say and a training must not do: refused before anything is built."""

from __future__ import annotations

import math

from jsonargparse import Namespace

from .errors import UserError

HALF_PRECISIONS = ("bf16-true", "16-true", "transformer-engine", "transformer-engine-float16")


def refuse(config: Namespace) -> None:
    """Refuse what would harm training unseen.

    Args:
        config: All settings, parsed.

    Raises:
        UserError: Weights in half precision, checkpoints that are folders, or epochs that end within a step.
    """
    trainer = config.trainer
    if trainer.precision in HALF_PRECISIONS:
        raise UserError(
            f"trainer.precision={trainer.precision}: weights in half precision lose small steps; use bf16-mixed"
        )
    if isinstance(trainer.strategy, Namespace) and trainer.strategy.get("init_args.save_distributed_checkpoint"):
        raise UserError(
            "trainer.strategy.save_distributed_checkpoint=True: checkpoints would be folders, which neither "
            "--resume nor sample can read; set it to false: --trainer.strategy.save_distributed_checkpoint false"
        )
    batches, window = trainer.limit_train_batches, trainer.accumulate_grad_batches
    if isinstance(batches, int) and batches % window:
        raise UserError(
            f"trainer.limit_train_batches={batches} is no multiple of trainer.accumulate_grad_batches={window}: "
            "the last step of each epoch would be of fewer batches"
        )


def refuse_unused_holdout(config: Namespace) -> None:
    """Refuse to keep samples for a validation that never comes.

    Steps that a resumed run has behind it count: their validation has been.

    Args:
        config: All settings of a training, parsed.

    Raises:
        UserError: There is no validation within ``trainer.max_steps``, or none at all.
    """
    trainer, holdout = config.trainer, config.data.get("init_args", Namespace()).get("holdout")
    if not holdout or trainer.limit_val_batches == 0 or trainer.fast_dev_run:
        return
    interval, every = trainer.val_check_interval, trainer.check_val_every_n_epoch
    if not isinstance(interval, int | float | None):
        return  # a time, and steps have no known one
    window = trainer.accumulate_grad_batches
    epoch = _batches_of_an_epoch(trainer)
    total = trainer.max_steps * window if trainer.max_steps >= 0 else math.inf
    total = min(total, epoch * trainer.max_epochs if (trainer.max_epochs or -1) >= 0 else math.inf)
    first = _first_validation(interval, every, epoch)
    if first <= total and first < math.inf:
        return
    kept = f"data.holdout={holdout} keeps samples for a validation that never comes:\n"
    kept += f"trainer.val_check_interval={interval}"
    kept += f" with trainer.check_val_every_n_epoch={every}" if every not in (None, 1) else ""
    fix = "or do without: --trainer.limit_val_batches 0"
    if first == math.inf:
        why = "the end of the training data, which has none"
        why = why if epoch == math.inf else f"more batches than the {epoch:g} of an epoch"
        often = f"--trainer.val_check_interval {min(1000, total):g} --trainer.check_val_every_n_epoch null"
        raise UserError(f"{kept} waits for {why}\nset it to a number of batches: {often}; {fix}")
    limit = f"trainer.max_steps={trainer.max_steps}"
    limit += f" with trainer.accumulate_grad_batches={window}" if window > 1 else ""
    limit += f", trainer.max_epochs={trainer.max_epochs} of {epoch:g} batches" if epoch < math.inf else ""
    raise UserError(
        f"{kept} validates after batch {first:g} first, and {limit} ends training after batch {total:g}\n"
        f"set it to {total:g} or less: --trainer.val_check_interval {total:g}; {fix}"
    )


def _batches_of_an_epoch(trainer: Namespace) -> float:
    """Training data has no end: an epoch has one only where it is cut."""
    limit = trainer.limit_train_batches
    return limit if isinstance(limit, int) and not isinstance(limit, bool) else math.inf


def _first_validation(interval: float | None, every: int | None, epoch: float) -> float:
    """The batch after which the trainer validates for the first time, counted from 1; infinite: never."""
    if not isinstance(interval, int):  # the end of an epoch, or a share of one
        within = epoch * (1.0 if interval is None else interval)
    elif every is None:
        return interval  # counted across epochs
    else:
        within = interval if interval <= epoch else math.inf
    return within + (every - 1) * epoch if every not in (None, 1) else within
