"""What a training writes into its run folder beside samples: the recipe, where it comes from, metrics, checkpoints."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.loggers.csv_logs import CSVLogger as PlainCSVLogger
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from ..components.interfaces import VideoBatch
from ..components.media import write_bytes
from ..datamodules import JointData
from ..datamodules.clips import Loader
from .run import versions
from .shipped import CENSUS, CONFIG, ENVIRONMENT, LATEST

logger = logging.getLogger(__name__)


class Metrics(CSVLogger):
    """``metrics.csv`` in the run folder, without the empty ``hparams.yaml`` that Lightning's own adds.

    Args:
        run: The run folder.
    """

    experiment = PlainCSVLogger.experiment

    def __init__(self, run: Path) -> None:
        super().__init__(run, name="", version="")


class Checkpoint(ModelCheckpoint):
    """Saves ``checkpoints/step=....ckpt`` every so many steps, at the end and when training is interrupted.

    ``checkpoints/last.ckpt`` is a link to the newest.

    Args:
        every_n_steps: Optimizer steps from one checkpoint to the next.
        keep_all: Keep all of them, not the newest only.
    """

    def __init__(self, every_n_steps: int = 1000, keep_all: bool = False) -> None:
        super().__init__(
            filename="{step:08d}",
            save_last="link",
            save_top_k=-1 if keep_all else 1,
            save_on_exception=True,
            every_n_train_steps=every_n_steps,
            enable_version_counter=False,
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last step too; `on_train_end` is too late, since EMA has then replaced the training weights."""
        if not self._should_skip_saving_checkpoint(trainer):
            metrics = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, metrics)
            self._save_last_checkpoint(trainer, metrics)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a resumed training has a folder of its own, and a checkpoint holds no paths."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing."""


class Resume(Callback):
    """Mends what Lightning takes from a checkpoint at a resume."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with a whole step, and with the optimizer's settings of the recipe.

        The data starts again with the first batch of the step that was interrupted, so the count of its batches must.
        The learning rate keeps its place in the schedule.
        """
        batches, window = trainer.fit_loop.epoch_loop.batch_progress.current, trainer.accumulate_grad_batches
        for name in ("ready", "started", "processed", "completed"):
            setattr(batches, name, getattr(batches, name) // window * window)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                base = optimizer.defaults["lr"]
                lr = group["lr"] * (base / group["initial_lr"]) if group.get("initial_lr") else base
                group.update(optimizer.defaults | {"lr": lr, "initial_lr": base})


class Record(Callback):
    """Writes ``config.yaml``, the resolved recipe, ``env.json``, how it was run, and ``census.json``, of what data.

    It points ``latest`` to the run.

    It counts clips and seconds, also across resumes; both are in every checkpoint.

    Args:
        config: The resolved recipe, as YAML.
        command: The command that was given.
    """

    def __init__(self, config: str, command: str) -> None:
        self.config = config
        self.command = command
        self.clips = 0
        self.seconds = 0.0
        self._began = 0.0
        self._run = Path()
        self._pointed = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files, on the first rank, and start the clock: there is something to train."""
        self._run = Path(trainer.log_dir or trainer.default_root_dir)  # asked by every rank: it is broadcast
        self._pointed = False
        self._began = time.monotonic() - self.seconds
        if trainer.is_global_zero:
            environment = {"command": self.command, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            write_bytes(self._run / CONFIG, self.config.encode())
            write_bytes(self._run / ENVIRONMENT, json.dumps(environment | environment_of(trainer), indent=1).encode())
            if isinstance(data := getattr(trainer, "datamodule", None), JointData):
                write_bytes(self._run / CENSUS, json.dumps(data.describe(), indent=1).encode())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: VideoBatch, batch_idx: int
    ) -> None:
        """Count; after the first batch the run is one that works, and the latest."""
        if trainer.is_global_zero and not self._pointed:
            point_latest(self._run)
            self._pointed = True
        self.clips += len(batch) * trainer.world_size
        self.seconds = time.monotonic() - self._began

    def state_dict(self) -> dict[str, Any]:
        """The counts, and the command."""
        return {"clips": self.clips, "seconds": self.seconds, "command": self.command}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The counts."""
        self.clips, self.seconds = state_dict["clips"], state_dict["seconds"]


class DataWait(Callback):
    """Shows the share of the time that training waits for data, as ``data_wait``, over the last 50 batches.

    The first batch, for which workers start, does not count. Waiting too long is said once.
    """

    window, too_long = 50, 0.2

    def __init__(self) -> None:
        self._past: deque[tuple[float, float]] = deque(maxlen=self.window + 1)
        self._said = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Look at the clocks of the loader and of the wall."""
        loader = trainer.train_dataloader
        if not isinstance(loader, Loader):
            return
        self._past.append((loader.waited, time.monotonic()))
        (waited, began), (waited_now, now) = self._past[0], self._past[-1]
        if now == began:
            return
        share = (waited_now - waited) / (now - began)
        pl_module.log("data_wait", share, prog_bar=True, batch_size=1)
        if share > self.too_long and len(self._past) > self.window and not self._said:
            self._said = True
            workers = f"data.num_workers={loader.num_workers}"
            logger.warning("training waits for data %.0f%% of the time; more than %s may help", 100 * share, workers)


def environment_of(trainer: Trainer) -> dict[str, Any]:
    """What a run depends on besides its recipe."""
    device = trainer.strategy.root_device
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "device": f"{trainer.world_size} x {device.type}{name}",
        "precision": trainer.precision,
    }


def point_latest(run: Path) -> None:
    """Let the link ``latest`` beside a run folder point to it, at once and relative, so that ``runs`` can be moved."""
    temporary = run.with_name(f".{LATEST}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(run.name)
    os.replace(temporary, run.with_name(LATEST))
