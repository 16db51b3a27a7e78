"""An exponential moving average of the weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from .bad_steps import skipped


class EMA(WeightAveraging):
    """Keeps an exponential moving average of the weights and puts it in place for validation and at the end.

    Checkpoints hold the average in `state_dict`, so that whatever loads one gets it, and the training weights in
    `current_model_state`. Buffers are copied, not averaged. Half-life of the paper: 6000 steps (Table 9).

    Differs from the paper: early on the average is shorter, with a decay of (1 + t) / (10 + t) after t updates, as long
    as that is below the decay of the half-life. Otherwise short runs would end with mostly untrained weights.

    Args:
        half_life: Steps after which weights count half as much in the average.

    Raises:
        ValueError: The half-life is not above 0, or, at the start of training, weights have too little precision.
    """

    def __init__(self, half_life: float = 6000.0) -> None:
        if not half_life > 0:
            raise ValueError(f"half_life is {half_life}: it must be above 0 steps")
        self.decay = 0.5 ** (1 / half_life)
        self._swapped = False
        super().__init__(use_buffers=False, multi_avg_fn=self._average)  # averaging buffers would spoil integers

    @torch.no_grad()
    def _average(self, averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor) -> None:
        t = int(num_averaged)
        torch._foreach_lerp_(averaged, current, 1 - min(self.decay, (1 + t) / (10 + t)))

    @contextmanager
    def averaged(self, module: LightningModule) -> Iterator[None]:
        """A context in which `module`, the one in training, has the averaged weights.

        It does nothing where they are in place already: in validation, and outside `fit`.
        """
        if self._swapped or self._average_model is None:
            yield
            return
        self._swap_models(module)
        try:
            yield
        finally:
            self._swap_models(module)

    def _swap_models(self, pl_module: LightningModule) -> None:
        super()._swap_models(pl_module)
        self._swapped = not self._swapped

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the average. Lightning warns that it is not sharded wherever a model could be: recipes refuse both."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*model that overrides the configure_model")
            super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse weights in half precision: a step of the average is smaller than their rounding."""
        for name, parameter in pl_module.named_parameters():
            if parameter.dtype in (torch.float16, torch.bfloat16):
                raise ValueError(
                    f"EMA cannot average {name}, which is {parameter.dtype}: small steps are lost in rounding. "
                    "Use a mixed precision: trainer.precision: bf16-mixed"
                )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Take the new weights into the average; a step that was skipped made none."""
        if not skipped(trainer):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the training weights back if validation was interrupted, before a checkpoint is saved."""
        if self._swapped:
            self._swap_models(pl_module)
