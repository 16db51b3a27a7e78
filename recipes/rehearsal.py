"""The most that a training needs of memory, asked before its first step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..components import VideoDiffusion
from ..components.callbacks import SampleGrid
from ..components.interfaces import VideoBatch
from ..components.video_diffusion import evaluating
from ..datamodules import JointData
from .plan import optimizer_memory

EVALUATIONS = 2
"""Evaluations of the denoiser that are rehearsed of a sampling: the first has no state, all others are alike."""


class Rehearsal(Callback):
    """Runs each kind of work once before the first step, also of a resumed run, so that memory errors come at once.

    A training step without the optimizer's, on black clips as many as in the largest batch; the first evaluations of a
    sampling; a batch of validation. It leaves nothing behind: no weight, buffer, gradient, random number, metric or
    batch of the data is another afterwards. The batches are rehearsed where the data is a `JointData`.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Rehearse."""
        assert isinstance(pl_module, VideoDiffusion)
        with _unchanged(pl_module), _ballast(trainer, pl_module):
            data = getattr(trainer, "datamodule", None)
            if isinstance(data, JointData):
                self._train(trainer, pl_module, data)
            self._sample(trainer, pl_module)  # as later, beside the gradients of the step before
            _drop_gradients(pl_module)
            if isinstance(data, JointData) and any(trainer.num_val_batches):
                self._validate(trainer, pl_module, data)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the first step finds the memory as it would have been

    def _train(self, trainer: Trainer, model: VideoDiffusion, data: JointData) -> None:
        batch = _on_device(trainer, data, training=True)
        with trainer.precision_plugin.train_step_context():
            loss = model.training_step(batch, 0)["loss"]
        loss.backward()

    def _sample(self, trainer: Trainer, model: VideoDiffusion) -> None:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside of its class
        grid = next((callback for callback in callbacks if isinstance(callback, SampleGrid)), None)
        if grid is None:
            return
        prompt, seeds = next(grid.batches(trainer, model))
        evaluations = iter(range(EVALUATIONS))

        def count() -> None:
            if next(evaluations, None) is None:
                raise _Enough

        try:
            with trainer.precision_plugin.forward_context():
                model.sample(prompt, seeds, count)
        except _Enough:
            pass

    def _validate(self, trainer: Trainer, model: VideoDiffusion, data: JointData) -> None:
        batch = _on_device(trainer, data, training=False)
        with trainer.precision_plugin.val_step_context(), torch.no_grad(), evaluating(model):
            model.validation_step(batch, 0)


class _Enough(Exception):
    """A sampling has shown what it needs."""


def _on_device(trainer: Trainer, data: JointData, training: bool) -> VideoBatch:
    """The largest batch, as the data and the trainer hand it to the model."""
    return trainer.strategy.batch_to_device(data.largest_batch(training), dataloader_idx=0)


def _drop_gradients(model: VideoDiffusion) -> None:
    for parameter in model.parameters():
        parameter.grad = None


@contextmanager
def _unchanged(model: VideoDiffusion) -> Iterator[None]:
    """A context that leaves a model without gradients, and its buffers, all random numbers and metrics as they were."""
    buffers = [
        (part, name, buffer, buffer.clone())
        for part in model.modules()
        for name, buffer in part.named_buffers(recurse=False)
    ]
    with isolate_rng(), _silent(model):
        yield
    _drop_gradients(model)
    with torch.no_grad():
        for part, name, buffer, value in buffers:
            setattr(part, name, buffer.copy_(value))


@contextmanager
def _silent(model: VideoDiffusion) -> Iterator[None]:
    """A context in which no part of a model logs."""
    parts = [part for part in model.modules() if isinstance(part, LightningModule)]

    def log(*_: Any, **__: Any) -> None:
        """Nothing."""

    for part in parts:
        part.log = log  # type: ignore[method-assign]
    try:
        yield
    finally:
        for part in parts:
            del part.log


@contextmanager
def _ballast(trainer: Trainer, model: VideoDiffusion) -> Iterator[None]:
    """A context in which as much memory is taken as the optimizer's state will need, where there is none yet."""
    if any(optimizer.state for optimizer in trainer.optimizers):
        yield
        return
    per_byte, _ = optimizer_memory(model.optimizer)
    own = [_own(parameter) for parameter in model.parameters() if parameter.requires_grad]
    taken = [torch.empty(round(per_byte * part.nbytes), dtype=torch.uint8, device=part.device) for part in own]
    try:
        yield
    finally:
        del taken


def _own(parameter: Tensor) -> Tensor:
    """The part of a parameter that is on this device."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
