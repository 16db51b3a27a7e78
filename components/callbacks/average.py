"""One average of the weights of a module in training, wherever they are: on one device, on each, or spread over all.

Lightning's `WeightAveraging` averages a deep copy of the module, made before FSDP2 spreads the weights, and so cannot
follow them. Here an average is a list of tensors instead, one for each parameter: what this device has of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


class Average:
    """An average of a module's weights, beginning with what they are now.

    Of parameters, that is: buffers stay with the module. With FSDP2 each device averages its own shards, and nothing
    is sent.

    Args:
        module: The module.

    Raises:
        ValueError: Weights have half precision: a step of the average is smaller than their rounding.
    """

    def __init__(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters():
            if parameter.dtype in (torch.float16, torch.bfloat16):
                raise ValueError(
                    f"{name} is {parameter.dtype} and cannot be averaged: small steps are lost in rounding. "
                    "Use a mixed precision: trainer.precision: bf16-mixed"
                )
        self._parts = [part.clone() for part in _parts(module)]

    def follow(self, module: nn.Module) -> None:
        """Go to the devices that the module has been moved to."""
        self._parts = [mine.to(part.device) for mine, part in zip(self._parts, _parts(module), strict=True)]

    @torch.no_grad()
    def update(self, module: nn.Module, decay: float) -> None:
        """Become ``decay * average + (1 - decay) * weights``."""
        torch._foreach_lerp_(self._parts, _parts(module), 1 - decay)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Put the average into the module and keep here what was there; a second time undoes it to the bit."""
        for mine, part in zip(self._parts, _parts(module), strict=True):
            before = part.clone()
            part.copy_(mine)
            mine.copy_(before)

    @contextmanager
    def in_place(self, module: nn.Module) -> Iterator[None]:
        """A context in which the module has the average."""
        self.swap(module)
        try:
            yield
        finally:
            self.swap(module)

    def state(self, trainer: Trainer) -> dict[str, Tensor]:
        """The state of the module with the average, whole and on the CPU, as the trainer's strategy saves it.

        All devices must ask for it; some strategies give it to the first alone.

        Raises:
            ValueError: The strategy saves shards, in a folder.
        """
        with self.in_place(trainer.lightning_module):
            state = trainer.strategy.lightning_module_state_dict()
            if any(isinstance(tensor, DTensor) for tensor in state.values()):
                raise ValueError(
                    f"averages need whole checkpoints: {type(trainer.strategy).__name__} must have "
                    "save_distributed_checkpoint=False"
                )
            return {name: tensor.to("cpu", copy=True) for name, tensor in state.items()}


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module, whole and on the CPU; where there are several devices, on the first alone.

    All must ask for it.
    """
    state = get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def load_state(module: LightningModule, state: Mapping[str, Tensor]) -> None:
    """Load a whole state, written by one device or many, into a module, which may be spread over devices."""
    set_model_state_dict(module, dict(state), options=StateDictOptions(full_state_dict=True))


@torch.no_grad()
def _parts(module: nn.Module) -> list[Tensor]:
    """What this device has of each parameter, in the memory of the module."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()  # after an evaluation some are still whole: a gathered copy
    return [p.to_local() if isinstance(p, DTensor) else p.detach() for p in module.parameters()]
