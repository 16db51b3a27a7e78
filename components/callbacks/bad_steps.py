"""Steps whose loss or gradient is not finite: skipped, written down, and too many of them in a row end training."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from ..interfaces import VideoBatch

logger = logging.getLogger(__name__)

BAD_STEPS = "bad_steps.jsonl"
"""The file in the run folder that says what the batches of skipped steps were."""


class Diverged(Exception):
    """Training cannot go on: too many steps in a row had a loss or a gradient that is not finite."""


class SkipBadSteps(Callback):
    """Skips steps whose loss or gradient is not finite: weights, their `EMA` and the optimizer stay as they were.

    A skipped step counts: the schedule, averages of `PostHocEMA` and the order of the data go on, so that a resumed run
    sees what it would have seen. Its gradients are taken away, and optimizers leave parameters without a gradient as
    they are. With several devices, all skip what one must.

    What the step was made of goes to ``bad_steps.jsonl`` in the run's folder, a line for each device: `step` (the first
    is 1, as in the names of checkpoints), `rank`, `grad_norm`, and for each clip its key, noise level (`sigma`) and
    loss, as far as the model's `training_step` returns `sigma` and `losses` beside the loss.

    The norm of all gradients is logged as ``train/grad_norm``, before clipping.

    Args:
        most_in_a_row: So many skipped steps in a row end training, at least 1.

    Attributes:
        in_a_row: Steps skipped since the last that was not.

    Raises:
        ValueError: `most_in_a_row` is below 1.
        Diverged: When training ends.
    """

    def __init__(self, most_in_a_row: int = 10) -> None:
        if most_in_a_row < 1:
            raise ValueError(f"most_in_a_row is {most_in_a_row}: it must be at least 1")
        self.most_in_a_row = most_in_a_row
        self.in_a_row = 0
        self._losses: list[Tensor] = []  # of the batches of this step
        self._clips: dict[str, list[Any]] = {}  # what they are made of
        self._norm = torch.tensor(0.0)
        self._latest_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with a whole step."""
        self._losses, self._clips = [], {}
        self._latest_step = trainer.global_step

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keep the loss of a batch; that it is finite is asked once a step, so that the device need not wait."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log the norm of the gradients, and take them away if it, or a loss, is not finite."""
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        norm = get_total_norm(gradients)
        self._norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        pl_module.log("train/grad_norm", self._norm)
        finite = torch.stack([self._norm, *(loss.to(self._norm) for loss in self._losses)]).isfinite().all()
        # A gradient is the same everywhere, a loss is not. With one device this is the only wait for it in a step.
        bad = trainer.strategy.reduce((~finite).float(), reduce_op="sum").item() > 0
        self.in_a_row = self.in_a_row + 1 if bad else 0
        if bad:
            for parameter in pl_module.parameters():
                parameter.grad = None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: VideoBatch,
        batch_idx: int,
    ) -> None:
        """Note what the batch was; at the end of a step that was skipped, write it down, and maybe stop."""
        parts = outputs if isinstance(outputs, Mapping) else {}
        for name, values in (("keys", batch.keys), ("sigma", parts.get("sigma")), ("losses", parts.get("losses"))):
            self._clips.setdefault(name, []).append(values)
        if trainer.global_step == self._latest_step:
            return  # more batches make the step
        self._latest_step = trainer.global_step
        if self.in_a_row:
            self._write(trainer)
        self._losses, self._clips = [], {}
        if self.in_a_row >= self.most_in_a_row:
            raise Diverged(self._farewell(trainer))

    def state_dict(self) -> dict[str, Any]:
        """How many steps were skipped in a row."""
        return {"in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The same."""
        self.in_a_row = state_dict["in_a_row"]

    def _write(self, trainer: Trainer) -> None:
        mine: dict[str, Any] = {
            "step": trainer.global_step,
            "rank": trainer.global_rank,
            "grad_norm": _plain(self._norm),
        }
        mine |= {name: [_plain(v) for part in parts for v in _list(part)] for name, parts in self._clips.items()}
        everyones: list[Any] = [mine]
        if trainer.world_size > 1:  # the first rank writes for all: others may be on a machine of their own
            everyones = [None] * trainer.world_size
            torch.distributed.all_gather_object(everyones, mine)
        file = _file(trainer)
        if not trainer.is_global_zero:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:
            lines.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in everyones))
        logger.warning(
            "step %d is skipped: its loss or gradient is not finite (gradient norm %s). What it was made of is in %s",
            trainer.global_step,
            _plain(self._norm),
            file,
        )

    def _farewell(self, trainer: Trainer) -> str:
        last = trainer.global_step
        first = last - self.in_a_row + 1
        return (
            f"training has diverged: {self.in_a_row} steps in a row, {first} to {last}, had a loss or a gradient that "
            "is not finite\n"
            f"what they were made of: {_file(trainer)}\n"
            "a lower learning rate, a longer warm-up or trainer.gradient_clip_val may help; if the same clips come up "
            "again and again, look at them"
        )


def skipped(trainer: Trainer) -> bool:
    """Whether the latest step was skipped."""
    callbacks: Sequence[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside of its class
    return any(callback.in_a_row > 0 for callback in callbacks if isinstance(callback, SkipBadSteps))


def _file(trainer: Trainer) -> Path:
    """To be asked by every rank: the folder is broadcast."""
    return Path(trainer.log_dir or trainer.default_root_dir) / BAD_STEPS


def _list(values: Tensor | list[str] | None) -> list[Any]:
    return [] if values is None else values.tolist() if isinstance(values, Tensor) else values


def _plain(value: Tensor | float | str) -> float | str:
    """A number with the digits that matter; one that JSON doesn't have as a word: nan, inf, -inf."""
    number = value.item() if isinstance(value, Tensor) else value
    if isinstance(number, str):
        return number
    return float(f"{number:.6g}") if math.isfinite(number) else str(number)
