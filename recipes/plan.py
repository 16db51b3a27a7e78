"""What training a recipe costs, found without data, weights or a GPU: parameters, FLOPs and memory."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ..components import VideoDiffusion
from ..components.conditioning.null import NullToken
from ..components.layers import blocks
from .workload import Work, Workload

FLOP_BATCH = 10
"""Clips of which FLOPs are counted: self-conditioning's first pass sees a share of a batch, 9 in 10 in the paper."""


@dataclass(frozen=True)
class Plan:
    """What training costs on one device that holds all of the model. Bytes and FLOPs.

    A frozen text encoder is not counted.

    Args:
        parameters: Parameters of the backbone and of what makes its conditioning tokens, learned nulls left out: what
            published sizes count.
        parameters_backbone: Parameters of the backbone alone.
        flops_forward: FLOPs of one evaluation of the backbone, per clip; a multiplication and an addition are two.
        flops_train: FLOPs of one training step, per clip.
        weights: Memory for weights and buffers.
        gradients: Memory for gradients.
        optimizer: Memory for the optimizer's state.
        ema: Memory for averaged weights.
        update: The most that the optimizer's step needs beside these.
        largest_block: Weights of the largest block, which FSDP gathers.
        outside_blocks: Weights of no block, which FSDP gathers for a whole step.
        activations: The most that a training step needs beside all these, with the first clip of a batch,
        activations_per_clip: and with each further one.
        batch_size: Clips per device and batch.
    """

    parameters: int
    parameters_backbone: int
    flops_forward: int
    flops_train: int
    weights: int
    gradients: int
    optimizer: int
    ema: int
    update: int
    largest_block: int
    outside_blocks: int
    activations: int
    activations_per_clip: int
    batch_size: int

    def peak(self, batch_size: int, shards: int = 1) -> int:
        """Peak memory of a device: in the backward pass or in the optimizer's step.

        With several devices, the weights of a block and of the next one are there as a whole, the gradients of one, and
        those of the one before on their way to the other devices (torch's `fully_shard`).

        Args:
            batch_size: Clips per device.
            shards: Devices that weights, their averages, gradients and the optimizer's state are spread over.
        """
        step = self.activations + self.activations_per_clip * (batch_size - 1)
        return math.ceil(self._kept(shards) + max(step + self._gathered(shards), self.update / shards))

    def largest_batch(self, memory: float, shards: int = 1) -> int:
        """Clips per device that fit in so many bytes; 0: none."""
        if self.peak(1, shards) > memory:
            return 0
        room = memory - self._kept(shards) - self._gathered(shards) - self.activations
        return 1 + int(room // self.activations_per_clip)

    def _kept(self, shards: int) -> float:
        """Bytes of a device that are there all the time."""
        return (self.weights + self.gradients + self.optimizer + self.ema) / shards

    def _gathered(self, shards: int) -> int:
        """Bytes of a device for weights and gradients that it shares with others, where they are there as a whole."""
        return 0 if shards == 1 else 4 * self.largest_block + 2 * self.outside_blocks

    def as_dict(self) -> dict[str, int]:
        """All figures by name, and ``peak`` at the recipe's batch size on a device that holds all of the model."""
        return asdict(self) | {"peak": self.peak(self.batch_size)}


def make_plan(
    build: Callable[[], VideoDiffusion], batch_size: int, precision: str | None = None, averages: int = 1
) -> Plan:
    """Plan the training of a model.

    Args:
        build: Makes the model; called once, on the meta device.
        batch_size: Clips per device and batch.
        precision: The trainer's: with ``bf16-mixed``, activations are planned for it, otherwise for float32.
        averages: Averages of the weights that are kept.
    """
    with torch.device("meta"):
        model = build()
        workload = Workload(model.backbone, model.framework, FLOP_BATCH, "meta")
        flops_forward, flops_train = count_flops(workload, FLOP_BATCH)
    mixed = precision == "bf16-mixed"
    weights = _bytes([*model.parameters(), *model.buffers()])
    gradients = _bytes(p for p in model.parameters() if p.requires_grad)
    states, update = optimizer_memory(model.optimizer)
    in_blocks = [_bytes(block.parameters()) for block in blocks(model)]
    one, two = (_activations(model, count, mixed) for count in (1, 2))
    return Plan(
        parameters=_count(model) - sum(_count(part) for part in model.modules() if isinstance(part, NullToken)),
        parameters_backbone=_count(model.backbone),
        flops_forward=flops_forward,
        flops_train=flops_train,
        weights=weights,
        gradients=gradients,
        optimizer=round(gradients * states),
        ema=weights * averages,
        update=round(gradients * update),
        largest_block=max(in_blocks, default=0),
        outside_blocks=_bytes(model.parameters()) - sum(in_blocks),
        activations=one,
        activations_per_clip=max(two - one, 1),
        batch_size=batch_size,
    )


def count_flops(work: Work, batch_size: int) -> tuple[int, int]:
    """FLOPs per video of matrix products, convolutions and attention: of an evaluation, and of a training step.

    What activation checkpointing computes again is not counted: the maths doesn't need it.

    Args:
        work: On the meta device.
        batch_size: Its videos.
    """

    def count(call: Callable[[], object]) -> int:
        with FlopCounter() as counter:
            call()
        return counter.total // batch_size

    with _without_checkpointing(work.network):
        work.evaluate()  # the first has no state to start from
        return count(work.evaluate), count(work.train)


@contextmanager
def _without_checkpointing(network: nn.Module) -> Iterator[None]:
    parts: list[Any] = [part for part in network.modules() if getattr(part, "activation_checkpointing", False)]
    for part in parts:
        part.activation_checkpointing = False
    try:
        yield
    finally:
        for part in parts:
            part.activation_checkpointing = True


def optimizer_memory(optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]) -> tuple[float, float]:
    """What an optimizer keeps for each byte of a matrix, and what its step needs beside: found by steps of one."""
    weight = nn.Parameter(torch.ones(64, 64))
    weight.grad = torch.ones_like(weight)
    made = optimizer([weight])
    made.step()
    with _Live() as live:
        made.step()
    states = [s for s in tree_leaves(made.state[weight]) if isinstance(s, Tensor) and s.numel() > 1]
    # On a GPU all matrices are updated at once, by at least a copy of them.
    return _bytes(states) / _bytes([weight]), max(1.0, live.peak / _bytes([weight]))


def _activations(model: VideoDiffusion, batch_size: int, mixed: bool) -> int:
    """The most memory that the network's train step needs beside weights and gradients, found without any numbers."""
    with FakeTensorMode(allow_non_fake_inputs=True), _Live() as live:
        _move_to_cpu(model.backbone)  # where autocast works, unlike on the meta device
        workload = Workload(model.backbone, model.framework, batch_size, "cpu")
        live.peak = before = live.now
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            workload.train()
        return live.peak - before


def _move_to_cpu(module: nn.Module) -> None:
    """Give a module empty parameters, with gradients, and buffers: `Module.to_empty` cannot make fake ones."""

    def empty(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)

    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            fresh = nn.Parameter(empty(parameter), parameter.requires_grad)
            fresh.grad = empty(parameter) if parameter.requires_grad else None  # there from the second step on
            setattr(part, name, fresh)
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, empty(buffer))


class _Watch(TorchDispatchMode):
    """Sees every operation that runs under it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        self.see(func, args, kwargs or {}, out)
        return out

    def see(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:  # noqa: ANN401
        """One operation, after it ran."""
        raise NotImplementedError


class FlopCounter(_Watch):
    """Adds up FLOPs by torch's own formulas, as `total`; its FlopCounterMode fails where a part has no gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def see(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:  # noqa: ANN401
        """Add those of one operation; of most there are none."""
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)


class _Live(_Watch):
    """Counts the bytes of all tensors that live, and the most so far."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def see(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:  # noqa: ANN401
        """Count what one operation made."""
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._alive and self._alive[key]() is storage:
            return

        def drop(_: object) -> None:
            self.now -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, drop)
        self.now += size
        self.peak = max(self.peak, self.now)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
