"""Going on with a training: from where, what comes along, and what has changed since."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.loops.progress import _ProcessedTracker
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from ..components.callbacks import EMA
from ..components.callbacks.average import load_state
from ..components.callbacks.ema import TRAINING
from .differences import Difference, differences, table
from .errors import UserError
from .record import read_environment
from .run import find_run, is_exported, newest_checkpoint, read_checkpoint, read_config
from .shipped import CONFIG, ENVIRONMENT, LATEST, RUNS, run_name

NETWORK = ("model.backbone", "model.conditioner")
"""What weights belong to: at a resume it must be what it was."""

TRAINED_BY = ("model.optimizer", "model.scheduler")
"""Classes whose state goes on: others would find none of theirs."""

FREE = ("dropout", "self_conditioning", "activation_checkpointing")
"""Settings in it that say how it is trained, not what it computes."""


@dataclass(frozen=True)
class Resumption:
    """What a training goes on from.

    Args:
        checkpoint: The file.
        run: The run folder that it is of; None: it lies elsewhere.
        in_place: Whether that run goes on; otherwise a new one begins where the checkpoint was made.
        step: Optimizer steps that were done.
    """

    checkpoint: Path
    run: Path | None
    in_place: bool
    step: int

    @classmethod
    def at(cls, checkpoint: Path, run: Path | None, in_place: bool) -> Resumption:
        """That at a checkpoint, which is read at once: a training that goes on in the run would soon remove it.

        Raises:
            UserError: It cannot be read, or holds no state of a training.
        """
        found = read_checkpoint(checkpoint)
        if not {"global_step", "optimizer_states"} <= found.keys():
            raise UserError(f"--resume {checkpoint}: it holds weights alone; --init_from takes those")
        return cls(checkpoint, run, in_place, found["global_step"])

    def changes(self, config: dict[str, Any]) -> list[Difference]:
        """The settings in which a config differs from that of the run.

        Raises:
            UserError: The network is another one, or the class of the optimizer or the scheduler.
        """
        if self.run is None:
            return []
        found = differences(read_config(self.run), config)
        network = [each for each in found if each.key.startswith(NETWORK) and each.key.rpartition(".")[2] not in FREE]
        if trained_by := [each for each in found if each.key in TRAINED_BY]:
            raise UserError(
                f"{self.checkpoint} holds the state of others:\n{table(trained_by)}\n"
                "leave them as they were, or start anew from its weights with --init_from"
            )
        if network:
            raise UserError(
                f"{self.checkpoint} is of another network:\n{table(network)}\n"
                "leave these settings as they were, or start anew from its weights, if they fit, with --init_from"
            )
        return found


def find_resumption(name: str, recipes: list[Path], runs: Path = RUNS) -> Resumption:
    """What ``--resume NAME`` stands for.

    Args:
        name: A run folder, which goes on; ``latest``: the latest of the recipe, or of all; a checkpoint, from which a
            new run goes on.
        recipes: Those that the command names.
        runs: The folder of all runs.

    Raises:
        UserError: There is none, or it holds no state of a training.
    """
    if Path(name).is_file():
        if Path(name).suffix == ".safetensors":
            raise UserError(f"--resume {name}: it holds weights alone; --init_from takes those")
        checkpoint = Path(name).resolve()
        run = next((folder for folder in checkpoint.parents[:2] if (folder / CONFIG).is_file()), None)
        return Resumption.at(checkpoint, run, in_place=False)
    folder = find_run(_latest(recipes, runs) if name == LATEST else name)
    newest = newest_checkpoint(folder)
    if newest is None and is_exported(folder):
        raise UserError(f"--resume {name}: it holds weights alone; --init_from takes those")
    if newest is None:
        raise UserError(f"--resume {name}: {folder} has no checkpoint yet")
    return Resumption.at(newest, folder, in_place=True)


def _latest(recipes: list[Path], runs: Path) -> Path:
    """The run that began last: of these recipes, or of all."""
    of = run_name(recipes) or "*"
    links = [link for link in runs.glob(f"{of}/{LATEST}") if link.is_dir()]
    if not links:
        raise UserError(f"--resume {LATEST}: there is no run in {runs / of}")
    return max(links, key=lambda link: link.lstat().st_mtime_ns)


def requeued(command: str, runs: Path = RUNS) -> Resumption | None:
    """The run of this very command in this very job, if SLURM has started it again.

    Args:
        command: The command that was given, which ``env.json`` has.
        runs: The folder of all runs.

    Returns:
        What goes on; None: it is the first time, or no checkpoint was saved yet.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job or os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        return None
    folders = {file.parent.resolve() for file in runs.glob(f"*/*/{ENVIRONMENT}")}  # some by a link, too
    for folder in sorted(folders, key=lambda run: run.name, reverse=True):
        begun = read_environment(folder)
        times = [(time.get("slurm_job"), time.get("command")) for time in (begun, *begun.get("resumes", []))]
        if (job, command) in times and (newest := newest_checkpoint(folder)):
            return Resumption.at(newest, folder, in_place=True)
    return None


class Resume(Callback):
    """Mends what Lightning takes from a checkpoint at a resume, and says what it came to.

    Args:
        resumption: What training goes on from.
        changes: The settings that are others now.
    """

    def __init__(self, resumption: Resumption, changes: list[Difference]) -> None:
        self.resumption = resumption
        self.changes = changes
        self._found: dict[str, str] = {}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note what is to be told of it; without an average go on from the training weights, not from the averaged."""
        data = checkpoint.get(type(getattr(trainer, "datamodule", None)).__qualname__, {}).get("positions", {})
        averages = checkpoint.get("averaging_state", {}).get("n_averaged")
        others: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside of its class
        ends = averages is not None and not any(isinstance(callback, EMA) for callback in others)
        if ends:
            load_state(pl_module, checkpoint[TRAINING])
        counts = checkpoint.get("callbacks", {}).get("Record", {})
        self._found = {
            "EMA": "none from here on" if ends else "none" if averages is None else f"{int(averages)} updates",
            "data": ", ".join(f"{name} {place}" for name, place in data.items()) or "from its beginning",
            "randomness": f"a function of seed {os.environ.get('PL_GLOBAL_SEED', 0)}, rank and step",
            "so far": f"{counts.get('clips', 0)} clips in {counts.get('seconds', 0) / 3600:.2f} h",
        }

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with a whole step, and with the optimizer's settings of the recipe.

        The data starts again with the first batch of the step that was interrupted, so the count of its batches must.
        A validation that was due comes first: whether it was done is not known. The learning rate keeps its place in
        the schedule.
        """
        loop = trainer.fit_loop.epoch_loop
        _start_with_whole_step(loop, trainer.accumulate_grad_batches)
        if (
            not trainer.fit_loop.restarted_on_epoch_end
            and loop.batch_progress.current.ready < trainer.num_training_batches
        ):
            _validate_first(loop.val_loop)
        # A validation logs as of the step that it follows, the first of which is 0. Lightning will add 1, or not.
        loop._batches_that_stepped = trainer.global_step - (1 if loop.restarted_on_last else 2)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                base = optimizer.defaults["lr"]
                lr = group["lr"] * (base / group["initial_lr"]) if group.get("initial_lr") else base
                group.update(optimizer.defaults | {"lr": lr, "initial_lr": base})
        for config in trainer.lr_scheduler_configs:
            for scheduler in (config.scheduler, *getattr(config.scheduler, "_schedulers", ())):  # in sequence, say
                scheduler.base_lrs = [group["initial_lr"] for group in config.scheduler.optimizer.param_groups]
        if trainer.is_global_zero:
            print(self._ledger(trainer))

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        """Log as of the step at hand: for loggers Lightning counts apart, and wrongly after some restarts."""
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def _ledger(self, trainer: Trainer) -> str:
        """What the training goes on with, for people."""
        end = f" of {trainer.max_steps}" if trainer.max_steps >= 0 else ""
        rate = f"{trainer.optimizers[0].param_groups[0]['lr']:.4g}"
        lines = {"step": f"{trainer.global_step}{end}", "learning rate": rate} | self._found
        ledger = [f"resumed from {self.resumption.checkpoint}", *(f"  {key:14} {lines[key]}" for key in lines)]
        if self.changes:
            ledger += ["  settings that are others now:", *(f"    {line}" for line in table(self.changes).splitlines())]
        return "\n".join(ledger)


def _start_with_whole_step(loop: _TrainingEpochLoop, window: int) -> None:
    """Forget the batches of a step that was not done.

    A checkpoint that was saved as a batch ended does not count it as completed: the loop will, when it starts.

    Args:
        loop: Restarted, with the counts of the checkpoint.
        window: Batches of a step.
    """
    counted_later = int(loop.restarted_on_train_batch_end)
    progress = loop.batch_progress
    partial = (progress.current.completed + counted_later) % window
    for counts in (progress.current, progress.total):
        assert isinstance(counts, _ProcessedTracker)
        whole = counts.completed + counted_later - partial
        counts.ready = counts.started = counts.processed = whole
        counts.completed = whole - counted_later


def _validate_first(loop: _EvaluationLoop) -> None:
    """Let a validation, if it is due before the next batch, run from its beginning, as if it had been interrupted."""
    loop.batch_progress.reset()
    loop.batch_progress.increment_ready()
    loop.batch_progress.increment_started()
    loop.update_restart_stage()
