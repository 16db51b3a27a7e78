"""Averages of the weights whose length is chosen after training."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors import SafetensorError
from safetensors.torch import save_file

from ..media import whole_file
from ..power_average import decay, exponent_of
from .average import Average, load_state, whole_state

logger = logging.getLogger(__name__)

AVERAGES = "averages"
"""The folder of averages in that of a run."""

SNAPSHOTS = f"{AVERAGES}/snapshots"
"""The folder of those that training wrote, of which others can be made."""

STATE = "post_hoc_ema"


def file_name(std: float, step: int) -> str:
    """The name of a file with one average: ``std=0.050-step=00001000.safetensors``."""
    return f"std={std:<05}-step={step:08d}.safetensors"


class PostHocEMA(Callback):
    """Writes snapshots of averages of the weights, of which ``snapvideo ema`` makes one of any length afterwards.

    It keeps power-function averages of a few lengths (Karras et al. 2024, section 3.1), whose length is a share of the
    steps so far, and writes each to ``averages/snapshots/`` in the run's folder every so many steps, and at the end.
    They have no part in the training, nor in validation and samples, and go with `EMA` or without. Each snapshot says
    at which step its average `begun`; above 0, that is where a training without averages was resumed.

    Snapshots are float32, as weights are. An average is a sum of snapshots of both signs, which short ones multiply by
    tens: with 80 snapshots and a length of 0.02, the rounding of float16 would add three times the error that the
    method has, and that of bfloat16 twenty times.

    Args:
        every_n_steps: Optimizer steps from one snapshot to the next. A snapshot takes 4 bytes a parameter and length.
        stds: Lengths: standard deviations of the averages' weight over time, as shares of the steps so far, each above
            0 and below 0.289. Two are enough (section 3.2).

    Raises:
        ValueError: A setting is out of range; or, at the start of training, weights have too little precision, or the
            checkpoint holds averages of other lengths.
    """

    def __init__(self, every_n_steps: int, stds: Sequence[float] = (0.05, 0.10)) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}: it must be at least 1")
        if not stds or len(set(stds)) < len(stds):
            raise ValueError(f"stds is {list(stds)}: it must be one or more lengths, each another")
        for std in stds:
            exponent_of(std)  # refuses what is out of range
        self.every_n_steps = every_n_steps
        self.stds = list(stds)
        self._averages: list[Average] = []
        self._begun = 0
        self._latest_step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget what an earlier `fit` left."""
        self._averages, self._begun = [], 0

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the averages from the checkpoint; if it has none, they begin at its step."""
        self._averages = []
        if trainer.state.fn != "fit":
            return
        if STATE not in checkpoint:
            self._begun = checkpoint["global_step"]
            return
        self._begun = checkpoint[STATE].get("begun", 0)
        if checkpoint[STATE]["stds"] != self.stds:
            raise ValueError(
                f"post_hoc_ema.stds is {self.stds}, and the checkpoint has averages of {checkpoint[STATE]['stds']}: "
                "go on with those, since others would know nothing of the steps so far"
            )
        self._averages = [Average(pl_module) for _ in self.stds]
        for std, average in zip(self.stds, self._averages, strict=True):
            with average.in_place(pl_module):
                load_state(pl_module, checkpoint[_key(std)])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the averages, on the device; or follow there, if a checkpoint brought them."""
        self._averages = self._averages or [Average(pl_module) for _ in self.stds]
        for average in self._averages:
            average.follow(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After a checkpoint without averages, begin them now, as if weights had never been others.

        Snapshots of later steps are removed: this training is on another way from here on.
        """
        self._averages = self._averages or [Average(pl_module) for _ in self.stds]
        self._latest_step = trainer.global_step
        folder = _folder(trainer)
        if trainer.is_global_zero:
            for file in folder.glob("std=*-step=*.safetensors"):
                if int(file.stem.rpartition("=")[2]) > trainer.global_step:
                    file.unlink()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Update the averages after a step, which several batches may make, and write them if it is time.

        After a step that was skipped (`SkipBadSteps`) weights have been what they are for a step longer.
        """
        if trainer.global_step == self._latest_step:
            return
        self._latest_step = trainer.global_step
        for std, average in zip(self.stds, self._averages, strict=True):
            average.update(pl_module, decay(trainer.global_step, std))
        if trainer.global_step % self.every_n_steps == 0:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the averages of the last step."""
        if trainer.global_step % self.every_n_steps:
            self._write(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the averages."""
        if not self._averages:
            return
        checkpoint[STATE] = {"stds": self.stds, "begun": self._begun}
        for std, average in zip(self.stds, self._averages, strict=True):
            checkpoint[_key(std)] = average.state(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free the memory."""
        self._averages = []

    def _write(self, trainer: Trainer, module: LightningModule) -> None:
        folder = _folder(trainer)
        buffers = [name for name, _ in module.named_buffers()]
        for std, average in zip(self.stds, self._averages, strict=True):
            about = {"std": repr(std), "step": str(trainer.global_step), "begun": str(self._begun)}
            about["buffers"] = json.dumps(buffers)
            with average.in_place(module):
                state = {name: tensor.contiguous() for name, tensor in whole_state(module).items()}
                if trainer.is_global_zero:
                    try:
                        with whole_file(folder / file_name(std, trainer.global_step)) as partial:
                            save_file(state, partial, about)
                    except (OSError, SafetensorError) as error:  # a full disk, say: training is worth more
                        logger.error("step %d has no snapshot of length %g: %s", trainer.global_step, std, error)


def _key(std: float) -> str:
    """Where a checkpoint has the average of a length."""
    return f"{STATE}.std={std}"


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.log_dir or trainer.default_root_dir, SNAPSHOTS)  # asked by every rank: it is broadcast
