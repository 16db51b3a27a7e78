"""Weights of a model in a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .media import whole_file

WEIGHTS = "model.safetensors"
SCALE = ".int8_scale"
LARGE = 2**14
"""Values from which on a matrix or kernel is packed in int8."""

Stored: TypeAlias = Literal["float32", "float16", "bfloat16", "int8"]
"""How weights are stored; int8: large matrices and kernels, and all else in float16."""


def write_weights(weights: Mapping[str, Tensor], file: Path, stored: Stored = "float32") -> None:
    """Write weights by name.

    Args:
        weights: Weights.
        file: The file.
        stored: How; float32 keeps weights in float32 as they are.
    """
    packed = compress(weights) if stored == "int8" else _cast(weights, getattr(torch, stored))
    with whole_file(file) as partial:
        save_file(packed, partial, {"format": "pt"})  # what readers of the format look for


def read_weights(file: Path) -> dict[str, Tensor]:
    """Weights by name.

    Raises:
        ValueError: There is no such file, or it cannot be read.
    """
    if not file.is_file():
        raise ValueError(f"there is no checkpoint {file}")
    try:
        return expand(load_file(file))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is no checkpoint that can be read: {error}") from error


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    """Refuse weights of another model.

    Raises:
        ValueError: They differ in names or shapes from those of `model`; the message names one that does.
    """
    wanted = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in weights.items()}
    wrong = [name for name in wanted | found if wanted.get(name) != found.get(name)]
    if wrong:
        first = f"{wrong[0]} is {found.get(wrong[0], 'missing')} there and {wanted.get(wrong[0], 'missing')} here"
        raise ValueError(f"{file} holds weights of another model: {len(wrong)} of {len(wanted)} differ; {first}")


def compress(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in float16; large matrices and kernels in int8, with a scale per output channel beside them."""
    packed = {}
    for name, tensor in weights.items():
        if name.endswith(".weight") and tensor.dim() > 1 and tensor.numel() >= LARGE and tensor.is_floating_point():
            scale = tensor.abs().amax(tuple(range(1, tensor.dim())), keepdim=True).div(127).clamp(min=1e-12)
            packed[name + SCALE] = scale.contiguous()
            packed[name] = (tensor / scale).round().clamp(-127, 127).to(torch.int8).contiguous()
        else:
            packed |= _cast({name: tensor}, torch.float16)
    return packed


def expand(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `compress` packed, int8 weights in float32."""
    scales = {name.removesuffix(SCALE): scale for name, scale in packed.items() if name.endswith(SCALE)}
    return {
        name: tensor.float() * scales[name] if name in scales else tensor
        for name, tensor in packed.items()
        if not name.endswith(SCALE)
    }


def _cast(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights of another type; what counts stays as it is."""
    return {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in weights.items()
    }
