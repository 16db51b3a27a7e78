"""What a training tells while it runs: metrics in a file, its pace, and how long it waits for data."""

from __future__ import annotations

import csv
import logging
import sys
import time
from collections import deque
from pathlib import Path

from lightning.fabric.loggers.csv_logs import CSVLogger as PlainCSVLogger
from lightning.fabric.loggers.csv_logs import _ExperimentWriter
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from ..components import VideoDiffusion
from ..components.callbacks import EMA
from ..components.interfaces import VideoBatch
from ..components.media import whole_file
from ..datamodules.clips import Loader
from .report.markup import duration

logger = logging.getLogger(__name__)


class Metrics(CSVLogger):
    """``metrics.csv`` in the run folder; a run that is resumed goes on in it.

    Args:
        run: The run folder.
        step: Where training begins: rows from there on are left out, they come again.
    """

    def __init__(self, run: Path, step: int = 0) -> None:
        super().__init__(run, name="", version="")
        self._step = step

    @property
    @rank_zero_experiment
    def experiment(self) -> _ExperimentWriter:  # Lightning's own adds an empty hparams.yaml
        """The writer."""
        if self._experiment is None:
            file = Path(self.log_dir) / _ExperimentWriter.NAME_METRICS_FILE
            columns = _cut(file, self._step)
            self._experiment = _Rows(self.log_dir)
            self._experiment.metrics_keys = columns
        return self._experiment

    save = PlainCSVLogger.save


class _Rows(_ExperimentWriter):
    """Rows that are added to those that a file has."""

    def _check_log_dir_exists(self) -> None:
        """Leave what is there."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """Add columns, so that a kill leaves the file as it was or as it will be."""
        file = Path(self.metrics_file_path)
        _write(file, fieldnames, _read(file)[1])


def _cut(file: Path, step: int) -> list[str]:
    """Leave the rows of steps before `step` in a file of metrics, if it is there; its columns."""
    if not file.is_file():
        return []
    columns, rows = _read(file)
    _write(file, columns, [row for row in rows if (row.get("step") or "").isdigit() and int(row["step"]) < step])
    return columns


def _read(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows."""
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        return list(reader.fieldnames or ()), list(reader)


def _write(file: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    with whole_file(file) as partial, partial.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, columns, extrasaction="ignore")  # a last line may be half a one
        writer.writeheader()
        writer.writerows(rows)


class RawValidation(Callback):
    """Validates the training weights beside their average, as ``val_raw/loss`` beside ``val/loss``.

    Args:
        ema: What keeps the average.
    """

    def __init__(self, ema: EMA) -> None:
        self.ema = ema

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: VideoBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure the batch again."""
        assert isinstance(pl_module, VideoDiffusion)
        with self.ema.training_weights(pl_module), trainer.precision_plugin.val_step_context():
            pl_module.log_validation("val_raw/loss", batch)


class Lines(Callback):
    """Tells how far training is, a line a minute, where no terminal shows a bar: in a file, or the log of a job."""

    every = 60.0

    def __init__(self) -> None:
        self._told = time.monotonic()
        self._began: tuple[float, int] | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: VideoBatch, batch_idx: int
    ) -> None:
        """Say it, if it is time."""
        now, step = time.monotonic(), trainer.global_step
        self._began = self._began or (now, step)  # what the first step waits for does not come again
        if not trainer.is_global_zero or now - self._told < self.every or sys.stdout.isatty():
            return
        self._told = now
        (began, first), known = self._began, trainer.callback_metrics
        words = [f"step {step}" + (f" of {trainer.max_steps}" if trainer.max_steps > 0 else "")]
        for name, text in {"train/loss": "loss {:.4g}", "perf/clips_per_second": "{:.3g} clips/s"}.items():
            words += [text.format(float(known[name]))] if name in known else []
        if 0 < trainer.max_steps and first < step:
            words.append(f"{duration((now - began) / (step - first) * (trainer.max_steps - step))} left")
        print(", ".join(words), flush=True)


class Pace(Callback):
    """Logs ``perf/clips_per_second`` of all devices, ``data_wait`` and ``train/lr``.

    `data_wait` is the share of the time that training waits for data. It and the clips are over the last 50 batches,
    the first of all, for which workers start, left out. Waiting too long is said once.
    """

    window, too_long = 50, 0.2

    def __init__(self) -> None:
        self._past: deque[tuple[float, float, int]] = deque(maxlen=self.window + 1)
        self._clips = 0
        self._said = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: VideoBatch, batch_idx: int
    ) -> None:
        """Look at the clocks of the loader and of the wall."""
        pl_module.log("train/lr", trainer.optimizers[0].param_groups[0]["lr"], batch_size=1)
        loader = trainer.train_dataloader
        self._clips += len(batch) * trainer.world_size
        self._past.append((getattr(loader, "waited", 0.0), time.monotonic(), self._clips))
        (waited, began, clips), (waited_now, now, clips_now) = self._past[0], self._past[-1]
        if now == began:
            return
        pl_module.log("perf/clips_per_second", (clips_now - clips) / (now - began), batch_size=1)
        if isinstance(loader, Loader):
            share = (waited_now - waited) / (now - began)
            pl_module.log("data_wait", share, prog_bar=True, batch_size=1)
            self._warn(share, loader.num_workers)

    def _warn(self, share: float, num_workers: int) -> None:
        if share > self.too_long and len(self._past) > self.window and not self._said:
            self._said = True
            workers = f"data.num_workers={num_workers}"
            logger.warning("training waits for data %.0f%% of the time; more than %s may help", 100 * share, workers)
