"""What a training writes into its run folder beside samples and checkpoints: recipe, command, environment, metrics."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ..components.interfaces import VideoBatch
from ..components.media import write_bytes
from ..datamodules import JointData
from .differences import Difference
from .run import versions
from .shipped import CENSUS, CONFIG, ENVIRONMENT, LATEST


class Record(Callback):
    """Writes ``config.yaml``, the resolved recipe, ``env.json``, how it was run, and ``census.json``, of what data.

    It points ``latest`` to the run. A run that is resumed has the config of now once a step is done with it, and in
    ``env.json`` an entry in ``resumes`` for each time: command, step, environment, and the settings that were others.

    It counts the clips of whole steps, and seconds, also across resumes; both are in every checkpoint.

    Args:
        config: The resolved recipe, as YAML.
        command: The command that was given.
        changes: The settings that are others than before a resume.
    """

    def __init__(self, config: str, command: str, changes: Sequence[Difference] = ()) -> None:
        self.config = config
        self.command = command
        self.changes = changes
        self.clips = 0
        self.seconds = 0.0
        self._began = 0.0
        self._latest_step = 0
        self._unfinished = 0  # clips of the step at hand
        self._run = Path()
        self._pointed = self._worked = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files, on the first rank, and start the clock: there is something to train."""
        self._run = Path(trainer.log_dir or trainer.default_root_dir)  # asked by every rank: it is broadcast
        self._pointed = self._worked = False
        self._began = time.monotonic() - self.seconds
        self._latest_step, self._unfinished = trainer.global_step, 0
        if trainer.is_global_zero:
            write_bytes(self._run / ENVIRONMENT, json.dumps(self._environment(trainer), indent=1).encode())
            if not (self._run / CONFIG).exists():
                write_bytes(self._run / CONFIG, self.config.encode())
            if isinstance(data := getattr(trainer, "datamodule", None), JointData):
                write_bytes(self._run / CENSUS, json.dumps(data.describe(), indent=1).encode())

    def _environment(self, trainer: Trainer) -> dict[str, Any]:
        """What ``env.json`` says from now on."""
        now = {"command": self.command, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")} | environment_of(trainer)
        before = read_environment(self._run)
        if not before:
            return now
        changes = {difference.key: [difference.one, difference.other] for difference in self.changes}
        again = {"step": trainer.global_step, "changes": changes}
        return before | {"resumes": [*before.get("resumes", []), now | again]}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: VideoBatch, batch_idx: int
    ) -> None:
        """Count; after the first batch the run is one that works, and the latest.

        A step that is interrupted is done again from its first batch, so its clips count when it is whole.
        """
        if trainer.is_global_zero and not self._pointed:
            point_latest(self._run)
            self._pointed = True
        self._unfinished += len(batch) * trainer.world_size
        if trainer.global_step != self._latest_step:
            self._latest_step = trainer.global_step
            if trainer.is_global_zero and not self._worked:
                write_bytes(self._run / CONFIG, self.config.encode())
                self._worked = True
            self.clips, self._unfinished = self.clips + self._unfinished, 0
        self.seconds = time.monotonic() - self._began

    def state_dict(self) -> dict[str, Any]:
        """The counts, and the command."""
        return {"clips": self.clips, "seconds": self.seconds, "command": self.command}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The counts."""
        self.clips, self.seconds = state_dict["clips"], state_dict["seconds"]


def read_environment(run: Path) -> dict[str, Any]:
    """What ``env.json`` of a run folder says; nothing if it cannot be read."""
    try:
        return json.loads((run / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def environment_of(trainer: Trainer) -> dict[str, Any]:
    """What a run depends on besides its recipe."""
    device = trainer.strategy.root_device
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "device": f"{trainer.world_size} x {device.type}{name}",
        "precision": trainer.precision,
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def point_latest(run: Path) -> None:
    """Let the link ``latest`` beside a run folder point to it, at once and relative, so that ``runs`` can be moved."""
    temporary = run.with_name(f".{LATEST}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(run.name)
    os.replace(temporary, run.with_name(LATEST))
