"""Out of memory, in words: in which work, on what batch, and the settings that need less."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ..components.callbacks import SampleGrid
from ..components.interfaces import Prompt, VideoBatch, VideoShape
from .rehearsal import Rehearsal
from .run import machine_precision

_NO_MEMORY = re.compile(r"DefaultCPUAllocator: (not enough|can't allocate) memory|MPS backend out of memory")

_WORK = {
    "validation_step": "validation",
    "log_validation": "validation",  # of the training weights beside the average
    "sample": "sampling",
    "training_step": "the training step",
    "backward": "the training step",
    "optimizer_step": "the optimizer's step",
}
"""Function that is on the way to the error -> what it is part of; earlier ones win."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of a device was not enough."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None


def explain_memory(error: BaseException, config: Mapping[str, Any], shape: VideoShape, device: torch.device) -> str:
    """What ran out of memory, and the settings of this recipe that need less, the cheapest first.

    Args:
        error: As it was caught, with its traceback.
        config: All settings.
        shape: The size of the model's videos.
        device: Where it runs.
    """
    frames = list(_frames(error))
    names = {name for name, _ in frames}
    work = next((work for name, work in _WORK.items() if name in names), "preparing the training")
    rehearsed = any(isinstance(caller, Rehearsal) for caller in callers(error))
    grid = work == "sampling" and any(isinstance(caller, Rehearsal | SampleGrid) for caller in callers(error))
    clips = _clips(frames, shape, "prompt" if work == "sampling" else "batch")
    cause = str(error).strip().splitlines()[0]
    lines = [
        f"out of memory in {work}{clips}{', in the rehearsal before the first step' if rehearsed else ''}",
        f"{_memory(device)}: {cause[:300]}",
        "what needs less, the cheapest first:",
        *(f"  {knob}" for knob in _knobs(work, grid, config, device)[:3]),
    ]
    return "\n".join(lines)


def callers(error: BaseException) -> list[object]:
    """What the methods between the catcher and the error belong to, the outermost first."""
    return [values.get("self") for _, values in _frames(error)]


def _frames(error: BaseException) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The functions between the catcher and the error, with their variables, the outermost first."""
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_code.co_name, trace.tb_frame.f_locals
        trace = trace.tb_next


def _clips(frames: list[tuple[str, Mapping[str, Any]]], shape: VideoShape, name: str) -> str:
    found = [values[name] for _, values in frames if isinstance(values.get(name), Prompt)]
    if not found:
        return ""
    _, frame_count, height, width = found[-1].video.shape[1:] if isinstance(found[-1], VideoBatch) else shape
    return f", on {len(found[-1])} clips of {frame_count}x{height}x{width} (frames x height x width)"


def _memory(device: torch.device) -> str:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name} with {properties.total_memory / 1e9:.1f} GB"
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{device.type} with {total / 1e9:.1f} GB"


def _knobs(work: str, grid: bool, config: Mapping[str, Any], device: torch.device) -> list[str]:
    """Settings that the recipe has and that would help, those that cost least first."""
    trainer = config["trainer"]
    knobs = []
    if grid and (fewer := _smaller_grid(config["sampling"]["init_args"])):
        knobs.append(fewer)
    if trainer["precision"] == "32-true" and machine_precision(device.type) == "bf16-mixed":
        knobs.append("--trainer.precision bf16-mixed")
    if not grid and (split := _smaller_batches(config["data"].get("init_args") or {}, trainer)):
        knobs.append(split)
    if grid:
        knobs.append("--sampling null (sample when training has ended: snapvideo sample RUN)")
    if work == "validation":
        knobs.append("--trainer.limit_val_batches 0 (no validation)")
    if _part(config["model"], "backbone").get("activation_checkpointing") is False:
        knobs.append("--model.backbone.activation_checkpointing true (slower by about a third)")
    if config.get("post_hoc_ema"):
        knobs.append("--post_hoc_ema null (no averages to choose later)")
    if config.get("ema"):
        knobs.append("--ema null (no averaged weights)")
    sharded = str(trainer["strategy"].get("class_path", "")) if isinstance(trainer["strategy"], dict) else ""
    if not sharded.endswith("ModelParallelStrategy") and torch.cuda.device_count() > 1:
        number = torch.cuda.device_count()
        more = f"--trainer.devices {number} --trainer.strategy.data_parallel_size {number}"
        knobs.append(f"-c overlays/fsdp2 {more} (the weights spread over all)")
    return knobs or ["a smaller model: snapvideo recipe check says what one needs"]


def _smaller_grid(grid: Mapping[str, Any]) -> str:
    videos = min(grid["batch_size"], len(grid["prompts"] or range(grid["num_held_out"])) * grid["num_per_prompt"])
    return f"--sampling.batch_size {max(1, videos // 2)}" if videos > 1 else ""


def _smaller_batches(data: Mapping[str, Any], trainer: Mapping[str, Any]) -> str:
    """Batches of half the size, twice as many to a step."""
    sizes = {name: data.get(name) or 0 for name in ("video_batch_size", "image_batch_size")}
    if max(sizes.values()) < 2:
        return ""
    halves = [f"--data.{name} {(size + 1) // 2}" for name, size in sizes.items() if size > 1]
    return f"{' '.join(halves)} --trainer.accumulate_grad_batches {2 * trainer['accumulate_grad_batches']}"


def _part(model: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return (model["init_args"][name] or {}).get("init_args") or {}
