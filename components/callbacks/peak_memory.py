"""How much memory training, validation and sampling need at most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

GB = 1e9


class PeakMemory(Callback):
    """Logs the most memory that a training step and a validation needed, ``perf/peak_gb_train`` and ``..._val``, in GB.

    On a GPU it is what torch has allocated there, on a CPU under Linux what the process holds; elsewhere it is not
    known. Name it before callbacks that do more than little at the end of a batch.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Begin to watch."""
        reset_peak(pl_module.device)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Log the step's."""
        self._log(pl_module, "train")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch."""
        reset_peak(pl_module.device)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the validation's."""
        self._log(pl_module, "val")

    def _log(self, module: LightningModule, phase: str) -> None:
        if (peak := read_peak(module.device)) is not None:
            module.log(f"perf/peak_gb_{phase}", peak / GB, batch_size=1, reduce_fx="max")


@contextmanager
def watched(device: torch.device) -> Iterator[list[float]]:
    """A context at whose end the list holds the most memory that was needed in it, in bytes, if that can be known."""
    found: list[float] = []
    reset_peak(device)
    yield found
    if (peak := read_peak(device)) is not None:
        found.append(peak)


def reset_peak(device: torch.device) -> None:
    """Forget how much was needed so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        try:
            Path("/proc/self/clear_refs").write_text("5")  # Linux, "man 5 proc": the peak is what there is now
        except OSError:
            pass


def read_peak(device: torch.device) -> float | None:
    """The most bytes that were needed since `reset_peak`; None: unknown."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    if device.type == "cpu":
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except OSError:
            return None
        return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return None
