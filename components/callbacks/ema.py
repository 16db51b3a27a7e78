"""An exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from .average import Average, load_state
from .bad_steps import skipped

TRAINING = "current_model_state"
"""Where a checkpoint has the training weights: as Lightning's own `WeightAveraging` does."""


class EMA(Callback):
    """Keeps an exponential moving average of the weights and puts it in place for validation and at the end.

    Checkpoints hold the average in `state_dict`, so that whatever loads one gets it, and the training weights in
    `current_model_state`. Buffers are copied, not averaged. With FSDP2 each device averages its own shards. Half-life
    of the paper: 6000 steps (Table 9).

    Differs from the paper: early on the average is shorter, with a decay of (1 + t) / (10 + t) after t updates, as long
    as that is below the decay of the half-life. Otherwise short runs would end with mostly untrained weights. The first
    update keeps nothing: the average begins with the weights of the first step, and untrained ones have no part in it.

    Args:
        half_life: Steps after which weights count half as much in the average.

    Raises:
        ValueError: The half-life is not above 0, or, at the start of training, weights have too little precision.
    """

    def __init__(self, half_life: float = 6000.0) -> None:
        if not half_life > 0:
            raise ValueError(f"half_life is {half_life}: it must be above 0 steps")
        self.decay = 0.5 ** (1 / half_life)
        self._aside: Average | None = None  # the average, or the training weights while it is in place
        self._in_place = False
        self._updates = 0
        self._latest_step = 0

    @contextmanager
    def averaged(self, module: LightningModule) -> Iterator[None]:
        """A context in which `module`, the one in training, has the averaged weights.

        It does nothing where they are in place already: in validation, and outside `fit`.
        """
        with self._having(module, average=True):
            yield

    @contextmanager
    def training_weights(self, module: LightningModule) -> Iterator[None]:
        """A context in which `module`, the one in training, has the training weights: the reverse of `averaged`.

        It does nothing where they are in place already: everywhere but in validation.
        """
        with self._having(module, average=False):
            yield

    @contextmanager
    def _having(self, module: LightningModule, average: bool) -> Iterator[None]:
        if self._aside is None or self._in_place == average:
            yield
            return
        self._swap(module)
        try:
            yield
        finally:
            self._swap(module)

    def _swap(self, module: LightningModule) -> None:
        assert self._aside is not None
        self._aside.swap(module)
        self._in_place = not self._in_place

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget what an earlier `fit` left."""
        self._aside, self._in_place, self._updates = None, False, 0

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the average, which is in the module by now, and give it the training weights, if there are others."""
        if trainer.state.fn != "fit":
            return
        self._aside = None  # memory for one alone
        self._aside = Average(pl_module)
        if "averaging_state" in checkpoint:
            self._updates = int(checkpoint["averaging_state"]["n_averaged"])
            load_state(pl_module, checkpoint[TRAINING])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the average, on the device; or, where a checkpoint brought it before the weights went there, follow."""
        if self._aside is None:
            self._aside = Average(pl_module)
        else:
            self._aside.follow(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with a whole step."""
        self._latest_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Take the new weights into the average; several batches may make a step, and one that is skipped has none."""
        if trainer.global_step == self._latest_step:
            return
        self._latest_step = trainer.global_step
        if skipped(trainer):
            return
        assert self._aside is not None
        t = self._updates
        self._aside.update(pl_module, min(self.decay, (1 + t) / (10 + t)) if t else 0.0)
        self._updates += 1

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in place."""
        if self._aside is not None:
            self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the training weights back."""
        if self._aside is not None:
            self._swap(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in place."""
        self._swap(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the training weights back if validation was interrupted."""
        if self._in_place:
            self._swap(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as the state of the module, and the training weights beside it."""
        if self._aside is None:
            return
        aside = self._aside.state(trainer)
        here = {name: checkpoint["state_dict"][name] for name in aside}
        average, training = (here, aside) if self._in_place else (aside, here)
        checkpoint["state_dict"] |= average
        checkpoint[TRAINING] = training
        checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self._updates)}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free the memory: what is left to do needs the average alone, and the module has it."""
        self._aside, self._in_place = None, False
