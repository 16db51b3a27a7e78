"""Networks of several recipes side by side: speed against the machine's own matrix products, memory, ratios."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from tqdm import tqdm

from ..components.interfaces import Backbone, Framework
from ..components.layers import blocks
from .errors import UserError
from .parsing import know_our_classes
from .plan import count_flops
from .run import build_part, pick_device
from .workload import Work, Workload

Dtype = Literal["float32", "bfloat16"]
KINDS = ("train", "inference")
WARM_UP = 2
PRODUCT_SIZE = {"cpu": 2048, "cuda": 8192}
"""Side of the matrices whose product tells what the machine can do."""


@dataclass(frozen=True)
class Timing:
    """One kind of work of one network.

    Args:
        ms_per_video: Median of the rounds.
        low: The fastest round,
        high: and the slowest.
        tflops: FLOPs of the maths per second, 10^12, at the median.
        fraction: Share of the rate of matrix products at the same dtype, median over rounds of neighbours in time.
        peak_memory: Bytes, weights and gradients included; None where the machine doesn't say.
    """

    ms_per_video: float
    low: float
    high: float
    tflops: float
    fraction: float
    peak_memory: int | None


@dataclass(frozen=True)
class Result:
    """What one recipe came to.

    Args:
        recipe: Its name.
        parameters: Of the backbone.
        flops_forward: FLOPs of an evaluation, per video.
        flops_train: FLOPs of a training step, per video.
        train: Forward and backward pass, with self-conditioning's first pass.
        inference: One evaluation of the denoiser.
    """

    recipe: str
    parameters: int
    flops_forward: int
    flops_train: int
    train: Timing
    inference: Timing

    def as_dict(self) -> dict[str, Any]:
        """All figures in one level: ``train_ms_per_video`` and so on."""
        flat = {key: value for key, value in asdict(self).items() if not isinstance(value, dict)}
        for kind in ("train", "inference"):
            flat |= {f"{kind}_{key}": value for key, value in asdict(getattr(self, kind)).items()}
        return flat


@dataclass(frozen=True)
class Settings:
    """How networks are compared.

    Args:
        batch_size: Videos per step. Of one, self-conditioning's first pass sees all, of ten 9.
        dtype: ``bfloat16``: autocast, as training does.
        device: ``cpu``, ``cuda``.
        compile: Whether the blocks of networks go through `torch.compile`.
        rounds: Times that all are measured, in turn.
    """

    batch_size: int
    dtype: Dtype
    device: str
    compile: bool
    rounds: int


Make: TypeAlias = Callable[[int, torch.device], Work]
"""Makes a network and a batch: (videos, device) -> work. It can be pickled, for processes of their own."""


def work_of(section: dict[str, Any], batch_size: int, device: torch.device) -> Workload:
    """The network of a recipe at work on random videos.

    Args:
        section: The section ``model`` of the recipe.
        batch_size: Videos.
        device: Where.
    """
    know_our_classes()
    parts = section["init_args"]
    # The classes are abstract: what is built is one of theirs.
    backbone: Backbone = build_part(Backbone, parts["backbone"])  # type: ignore[type-abstract]
    framework: Framework = build_part(Framework, parts["framework"])  # type: ignore[type-abstract]
    return Workload(backbone.to(device), framework, batch_size, device)


def compare(networks: Mapping[str, Make], settings: Settings) -> list[Result]:
    """Measure networks in turn, round by round.

    Args:
        networks: What makes them, by name.
        settings: How.
    """
    device = _device(settings.device)
    rounds = _rounds({name: _made(make, settings, device) for name, make in networks.items()}, settings, device)
    product_flops = 2 * PRODUCT_SIZE[device.type] ** 3
    results = []
    for name, make in networks.items():
        with torch.device("meta"):
            work = make(settings.batch_size, torch.device("meta"))
            forward, train = count_flops(work, settings.batch_size)
        if device.type == "cuda":  # processes of their own need the memory that this one has kept
            gc.collect()
            torch.cuda.empty_cache()
        peaks = _peaks(make, settings, device)
        timings = {
            kind: _timing(rounds[name, kind], flops, product_flops, settings.batch_size, peaks[kind])
            for kind, flops in (("train", train), ("inference", forward))
        }
        results.append(Result(name, sum(p.numel() for p in work.network.parameters()), forward, train, **timings))
    return results


def _device(name: str) -> torch.device:
    """The device, made the current one; float32 is the same for products and convolutions."""
    device = pick_device(name)
    if device.type not in PRODUCT_SIZE:
        raise UserError(f"--device {device}: bench measures {' and '.join(PRODUCT_SIZE)}")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32
    return device


def _made(make: Make, settings: Settings, device: torch.device) -> Work:
    torch.manual_seed(0)
    work = make(settings.batch_size, device)
    if settings.compile:
        for block in blocks(work.network):  # equal ones are compiled once
            block.compile()
    return work


def _rounds(
    works: Mapping[str, Work], settings: Settings, device: torch.device
) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Seconds of each kind of work of each network, and of a matrix product right after it, round by round."""
    product = _product(settings, device)
    rounds: dict[tuple[str, str], list[tuple[float, float]]] = {(name, kind): [] for name in works for kind in KINDS}
    with tqdm(total=(WARM_UP + settings.rounds) * len(rounds), desc="measuring", unit="call", disable=None) as progress:
        for index in range(WARM_UP + settings.rounds):
            for name, kind in rounds:
                pair = _time(works[name], kind, settings, device), _seconds(product, device)
                if index >= WARM_UP:
                    rounds[name, kind].append(pair)
                works[name].network.zero_grad(set_to_none=False)
                progress.update()
    return rounds


def _time(work: Work, kind: str, settings: Settings, device: torch.device) -> float:
    """Seconds of a training step, or of an evaluation after another: a sample's share the weights cast to bfloat16."""
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.dtype == "bfloat16"):
        if kind == "train":
            return _seconds(work.train, device)
        work.evaluate()
        return _seconds(work.evaluate, device)


def _timing(
    rounds: Sequence[tuple[float, float]], flops: int, product_flops: int, batch_size: int, peak: int | None
) -> Timing:
    times = [seconds / batch_size for seconds, _ in rounds]
    median = statistics.median(times)
    shares = [flops / (seconds / batch_size) / (product_flops / product) for seconds, product in rounds]
    return Timing(
        ms_per_video=1e3 * median,
        low=1e3 * min(times),
        high=1e3 * max(times),
        tflops=flops / median / 1e12,
        fraction=statistics.median(shares),
        peak_memory=peak,
    )


def _product(settings: Settings, device: torch.device) -> Callable[[], object]:
    """A product of two square matrices of the dtype."""
    size = PRODUCT_SIZE[device.type]
    a, b = torch.randn(2, size, size, device=device, dtype=getattr(torch, settings.dtype))
    return partial(torch.mm, a, b, out=torch.empty_like(a))


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """How long a call takes; on a GPU by its own clock."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1e3
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _peaks(make: Make, settings: Settings, device: torch.device) -> dict[str, int | None]:
    """Peak memory of both kinds of work, each in a process of its own, where nothing else was allocated before."""
    if device.type != "cuda" and not Path("/proc/self/clear_refs").exists():
        return dict.fromkeys(KINDS)
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        return {kind: pool.submit(_peak, make, settings, kind).result() for kind in KINDS}


def _peak(make: Make, settings: Settings, kind: str) -> int:
    """The most memory of two steps, the network included."""
    device = _device(settings.device)
    with torch.device("meta"):
        make(1, torch.device("meta"))  # imports what is needed
    gc.collect()
    before = _resident("VmRSS") if device.type == "cpu" else 0
    work = _made(make, settings, device)
    if device.type == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    for _ in range(2):
        _time(work, kind, settings, device)
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM") - before


def _resident(field: str) -> int:
    """A line of Linux's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024
