"""Averages of the weights of a run, of any length, from its snapshots (Karras et al. 2024, section 3.2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..components.callbacks.post_hoc_ema import SNAPSHOTS
from ..components.media import whole_file
from ..components.power_average import LONGEST, Profile, combine
from .errors import UserError

TOLERANCE = 0.1
"""The largest error (see `combine`) of an average that is still called one of its length."""


@dataclass(frozen=True)
class Snapshot(Profile):
    """An average that training wrote.

    Args:
        step: Its step.
        std: Its length.
        file: Where it is.
        buffers: Names of what is in it and is no average.
        begun: The step at which the average began, as if weights had never been others.
    """

    file: Path
    buffers: frozenset[str]
    begun: int


def find_snapshots(run: Path, step: int | None = None) -> list[Snapshot]:
    """The snapshots of a run up to a step, by step and length: those of averages that began together.

    Args:
        run: The run folder.
        step: The last step, one that has snapshots; None: the last that has.

    Raises:
        UserError: There are none, none of that step, or one cannot be read.
    """
    found = sorted(
        (_read(file) for file in (run / SNAPSHOTS).glob("*.safetensors")), key=lambda each: (each.step, each.std)
    )
    if not found:
        raise UserError(
            f"{run} has no snapshots of averages: train with --post_hoc_ema.every_n_steps N, some 20 to 100 of them in "
            "a training"
        )
    steps = sorted({snapshot.step for snapshot in found})
    if step is not None and step not in steps:
        shown = ", ".join(map(str, steps if len(steps) <= 12 else [*steps[:5], "...", *steps[-5:]]))
        near = min(steps, key=lambda each: abs(each - step))
        raise UserError(f"--step {step}: there is no snapshot of it. Did you mean {near}?\nsteps: {shown}")
    found = [snapshot for snapshot in found if snapshot.step <= (step or steps[-1])]
    return [snapshot for snapshot in found if snapshot.begun == found[-1].begun]


def shares_for(snapshots: Sequence[Snapshot], std: float) -> tuple[list[float], float]:
    """The share of each snapshot in the average of a length at the step of the last, and its error (see `combine`).

    Args:
        snapshots: Snapshots of one run, the last one last.
        std: The length: a relative standard deviation.

    Raises:
        UserError: Snapshots cannot give this length.
    """
    if not 0 < std < LONGEST:
        raise UserError(f"--std {std}: it must be above 0 and below {LONGEST:.3f}, the mean over all steps")
    shares, error = combine(snapshots, Profile(snapshots[-1].step, std))
    if error > TOLERANCE:
        raise UserError(
            f"--std {std}: these snapshots cannot give it; the nearest average is {error:.0%} off, and {TOLERANCE:.0%} "
            f"are allowed. They give {_reach(snapshots)}; more snapshots give more (post_hoc_ema.every_n_steps)"
        )
    return shares.tolist(), error


def write_average(snapshots: Sequence[Snapshot], shares: Sequence[float], out: Path) -> None:
    """Write a weighted sum of snapshots, computed in float64 and stored as they are.

    Buffers are those of the last snapshot.

    Args:
        snapshots: Snapshots of one run, the last one last.
        shares: The share of each.
        out: The file, safetensors.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(each.file, "pt")) for each in snapshots]
        state = {}
        for name in files[-1].keys():
            newest = files[-1].get_tensor(name)
            if name not in snapshots[-1].buffers:
                total = torch.zeros_like(newest, dtype=torch.float64)
                for file, share in zip(files, shares, strict=True):
                    total.add_(file.get_tensor(name), alpha=share)
                newest = total.to(newest.dtype)
            state[name] = newest
    with whole_file(out) as partial:
        save_file(state, partial)


def _reach(snapshots: Sequence[Snapshot]) -> str:
    """The lengths that they give: ``0.035 to 0.150``."""
    step = snapshots[-1].step
    lengths = [float(std) for std in np.arange(0.005, LONGEST, 0.005)]
    lengths = sorted({*lengths, *(each.std for each in snapshots if each.step == step)})
    within = [std for std in lengths if combine(snapshots, Profile(step, std))[1] <= TOLERANCE]
    return f"{within[0]:.3f} to {within[-1]:.3f}"


def _read(file: Path) -> Snapshot:
    try:
        with safe_open(file, "pt") as opened:
            about = opened.metadata()
        buffers, begun = frozenset(json.loads(about["buffers"])), int(about.get("begun", 0))
        return Snapshot(int(about["step"]), float(about["std"]), file, buffers, begun)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is no snapshot that can be read: {error}") from error
