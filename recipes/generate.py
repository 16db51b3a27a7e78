"""Videos of many texts, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..components import VideoDiffusion
from ..components.interfaces import Prompt, Steer
from ..components.media import to_uint8
from .run import versions
from .sampling import sampling_settings


def generate(
    model: VideoDiffusion,
    captions: Sequence[str],
    seeds: Sequence[int],
    fps: float = 8.0,
    batch_size: int = 8,
    precision: str = "auto",
) -> Iterator[Tensor]:
    """Videos, uint8 ``[B, C, T, H, W]``, batch by batch, each depending on its own caption, seed and settings alone.

    Args:
        model: A trained model.
        captions: N texts.
        seeds: N seeds.
        fps: Frames per second that the model is asked for.
        batch_size: Videos sampled at a time; less needs less memory.
        precision: ``32-true``, ``bf16-mixed``, or ``auto``: as the device computes best.
    """
    starts = range(0, len(captions), batch_size)
    with tqdm(total=len(starts) * num_evaluations(model), desc="sampling", unit="eval") as progress:
        for start in starts:
            batch = slice(start, start + batch_size)
            yield sample_batch(model, captions[batch], seeds[batch], fps, precision, progress.update)


def sample_batch(
    model: VideoDiffusion,
    captions: Sequence[str],
    seeds: Sequence[int],
    fps: float,
    precision: str,
    on_evaluation: Callable[[], object],
    steer: Steer | None = None,
) -> Tensor:
    """Videos of one batch, uint8 ``[B, C, T, H, W]``.

    Args:
        model: A trained model.
        captions: B texts.
        seeds: B seeds.
        fps: As in `generate`.
        precision: As in `generate`.
        on_evaluation: Called at every evaluation of the denoiser; what it raises ends the sampling.
        steer: See `VideoDiffusion.sample`.
    """
    if precision == "auto":
        precision = machine_precision(model.device.type)
    size = torch.tensor([model.shape.height, model.shape.width], dtype=torch.float32)
    prompt = Prompt(list(captions), torch.full((len(captions),), fps), size.expand(len(captions), 2))
    with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        return to_uint8(model.sample(prompt, seeds, on_evaluation, steer))


def sampling_record(
    model: VideoDiffusion, section: dict[str, Any], folder: Path, weights: Path, fps: float
) -> dict[str, Any]:
    """What there is to know of a sample besides its prompt and seed, for the line in ``meta.jsonl``.

    Args:
        model: The model that sampled it.
        section: The section ``model`` of its config, with the settings of the sampling.
        folder: The run folder.
        weights: The file of the weights.
        fps: Frames per second.
    """
    return {
        "fps": fps,
        "sampler": type(model.sampler).__name__,
        "steps": model.sampler.num_steps,
        "guidance": getattr(model.guidance, "scale", None),
        "settings": sampling_settings(section),
        "run": f"{folder.parent.name}/{folder.name}",
        "checkpoint": weights.name,
        "versions": versions(),
    }


def num_evaluations(model: VideoDiffusion) -> int:
    """How often the sampler of a model evaluates the denoiser: found by a sample of one pixel."""
    evaluated = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        evaluated.append(sigma)
        return torch.zeros_like(x)

    model.sampler(denoise, lambda: torch.zeros(1, 1, 1, 1, 1), model.sampling_levels())
    return len(evaluated)


def machine_precision(device: str) -> str:
    """``bf16-mixed`` where a device of that type computes in bf16, else ``32-true``."""
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # torch.cpu.get_capabilities, which is public, is younger than our oldest torch.
        native = device == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if native else "32-true"
