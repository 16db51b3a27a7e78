"""Videos of many texts, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from ..components import VideoDiffusion
from ..components.interfaces import Prompt
from ..components.media import to_uint8


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
    if precision == "auto":
        precision = machine_precision(model.device.type)
    size = torch.tensor([model.shape.height, model.shape.width], dtype=torch.float32)
    starts = range(0, len(captions), batch_size)
    with tqdm(total=len(starts) * num_evaluations(model), desc="sampling", unit="eval") as progress:
        for start in starts:
            texts = list(captions[start : start + batch_size])
            prompt = Prompt(texts, torch.full((len(texts),), fps), size.expand(len(texts), 2))
            with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                videos = model.sample(prompt, seeds[start : start + batch_size], progress.update)
            yield to_uint8(videos)


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
