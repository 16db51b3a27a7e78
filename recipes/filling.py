"""Fills a folder with the videos that are missing in it, in Lightning's predict loop, on several devices."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from types import FrameType
from typing import NoReturn

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from tqdm import tqdm

from .errors import UserError
from .generation import Generation, Maker, Missing
from .memory import is_out_of_memory
from .ranks import end_others, one_voice
from .requests import Request

PATIENCE = timedelta(hours=4)
"""How long a process that is ready waits for one that makes its last batch."""


class WriteVideos(Callback):
    """Writes the videos that are missing, as they are made.

    Args:
        missing: Which.
    """

    def __init__(self, missing: Missing) -> None:
        self.missing = missing

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Mapping[str, Tensor],
        batch: list[Request],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write those of a batch."""
        for place, request in enumerate(batch):
            if request.name in self.missing.names:
                self.missing.folder.write(request, {stage: videos[place] for stage, videos in outputs.items()})


class Evaluations(Callback):
    """A progress bar of the evaluations of the first process."""

    def __init__(self) -> None:
        self.bar: tqdm[NoReturn] | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show it."""
        assert isinstance(pl_module, Generation)
        total = int(sum(trainer.num_predict_batches)) * pl_module.maker.num_evaluations
        self.bar = tqdm(total=total, desc="sampling", unit="eval", disable=not trainer.is_global_zero)
        pl_module.on_evaluation = self.bar.update

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End its line."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End its line."""
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()


class EndTogether(Callback):
    """Ends all processes where one is ended from outside: nothing must be saved first.

    Lightning only notes SIGTERM, for a training to end after a step, and this loop would never ask for it.
    """

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take SIGTERM from Lightning, which gives back at the end what was there before."""
        self.parent = os.getppid()

        def end(number: int, frame: FrameType | None) -> None:
            end_others(trainer)
            raise SystemExit(128 + number)

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, end)

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: list[Request],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End a process that whoever started it left behind: the first one may be alone, in the background."""
        if not trainer.is_global_zero and os.getppid() != self.parent:
            raise SystemExit(1)


def make_trainer(
    missing: Missing,
    device: str,
    precision: str,
    devices: int = 1,
    num_nodes: int = 1,
    observers: Sequence[Callback] = (),
) -> Trainer:
    """A trainer that makes what is missing.

    Args:
        missing: What.
        device: ``cpu``, ``cuda``, ``mps``; ``cuda:1``: that one.
        precision: ``32-true`` or ``bf16-mixed``.
        devices: Processes, and devices, per machine.
        num_nodes: Machines.
        observers: What sees each batch before it is written.
    """
    accelerator, _, index = device.partition(":")
    return Trainer(
        accelerator=accelerator,
        devices=[int(index)] if index else devices,
        num_nodes=num_nodes,
        strategy=DDPStrategy(timeout=PATIENCE) if devices * num_nodes > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]  # Lightning lists its words
        plugins=[SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None,  # saves no checkpoint
        callbacks=[*observers, WriteVideos(missing), Evaluations(), EndTogether()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,  # a maker may need gradients: known frames are reconstructed by them
    )


def fill(
    trainer: Trainer,
    maker: Maker,
    missing: Missing,
    columns: int,
    resolution: tuple[int, int] | None = None,
) -> None:
    """Make what is missing in a folder, then its grid and contact sheet.

    Args:
        trainer: See `make_trainer`.
        maker: What makes videos.
        missing: What is missing.
        columns: Videos per row of the grid.
        resolution: See `Generation`.

    Raises:
        UserError: The folder cannot be used, or memory is not enough.
    """
    folder = missing.folder
    with folder.held() if trainer.is_global_zero else nullcontext():
        with one_voice(trainer), _memory_explained(missing.batch_size):
            trainer.predict(Generation(maker, resolution), datamodule=missing, return_predictions=False)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            folder.gather()
            if missing.names or not folder.has_overview():
                folder.write_overview(columns, maker.shape)


@contextmanager
def _memory_explained(batch_size: int) -> Iterator[None]:
    """A context in which too little memory is a user's error."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        less = f"set --batch-size below {batch_size}" if batch_size > 1 else "take a device with more"
        raise UserError(
            f"out of memory with --batch-size {batch_size}: {less}\n{str(error).splitlines()[0]}"
        ) from error
