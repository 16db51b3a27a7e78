"""How much of a FIT training step is spent in matrix products: its rate against this machine's own, in one run.

    python docs/benchmarks/fit_step.py

A FIT of 25M parameters (16 frames of 36x64, batch 2, float32, 2 threads) takes forward and backward passes, in turn
with plain matrix products; rates are medians. It is the paper's FIT 500M at 3/8 of its widths and a third of its
blocks, with all else as there: 512 latents, 4 latent layers per block, 48 and 64 channels per head, dropout. The step
is without self-conditioning, whose first pass would be work without a backward pass.

FLOPs are those that the maths needs: the products in attention count, what its backward pass computes again does not.
Peak memory is measured with and without activation checkpointing, each in a process of its own.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from snapvideo.components import FIT
from snapvideo.components.draws import Draws
from snapvideo.components.interfaces import Condition, VideoShape

BATCH = 2


def make_fit(checkpointing: bool) -> FIT:
    """The paper's FIT 500M, its widths times 3/8 and 2 of its 6 blocks."""
    return FIT(
        VideoShape(num_frames=16, height=36, width=64),
        num_blocks=2,
        dim_patch=288,
        dim_latent=384,
        dim_condition=288,
        self_conditioning=0.0,
        activation_checkpointing=checkpointing,
    )


def make_step(fit: FIT) -> Callable[[], None]:
    """Forward and backward of one batch."""
    x, c_noise = torch.randn(BATCH, *fit.shape), torch.randn(BATCH)
    condition = Condition(torch.randn(BATCH, 66, fit.dim_condition), torch.ones(BATCH, 66, dtype=torch.bool))
    draws = Draws(0, BATCH)

    def step() -> None:
        fit.zero_grad()
        fit.train_forward(x, c_noise, condition, draws).square().mean().backward()

    return step


def count_flops() -> int:
    """FLOPs of a step, on the meta device: there attention is products that the counter knows."""
    with torch.device("meta"):
        step = make_step(make_fit(checkpointing=False))
        with FlopCounterMode(display=False) as counter:
            step()
    return counter.get_total_flops()


def seconds(call: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def rates(rounds: int) -> None:
    """Print the step's GFLOP/s as a share of the matrix products', and where its time goes."""
    fit = make_fit(checkpointing=False)
    step = make_step(fit)
    a, b, out = torch.randn(2048, 2048), torch.randn(2048, 2048), torch.empty(2048, 2048)

    def product() -> None:
        torch.mm(a, b, out=out)

    step_flops, product_flops = count_flops(), 2 * 2048**3
    for _ in range(3):
        step(), product()
    times = [(seconds(step), seconds(product)) for _ in range(rounds)]
    step_rate = statistics.median(step_flops / s / 1e9 for s, _ in times)
    product_rate = statistics.median(product_flops / p / 1e9 for _, p in times)
    parameters = sum(p.numel() for p in fit.parameters())
    print(f"parameters {parameters / 1e6:.1f}M, batch {BATCH}, {step_flops / 1e9:.1f} GFLOP forward and backward")
    print(f"step {step_rate:.0f} GFLOP/s, matrix products {product_rate:.0f} GFLOP/s: {step_rate / product_rate:.0%}")
    shares = [product_flops / p * s / step_flops for s, p in times]
    print(f"share by pair of neighbours: median {statistics.median(1 / s for s in shares):.0%}")
    with profile(activities=[ProfilerActivity.CPU]) as record:
        for _ in range(3):
            step()
    print(record.key_averages().table(sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=48))


def memory(field: str) -> float:
    """A line of Linux's account of this process, in GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**20


def peak(checkpointing: bool) -> None:
    """Print the peak memory of a few steps, and what of it was there before."""
    step = make_step(make_fit(checkpointing))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    before = memory("VmRSS")
    for _ in range(3):
        step()
    print(
        f"checkpointing {checkpointing}: peak {memory('VmHWM'):.2f} GiB, {before:.2f} GiB of it before the first step"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peak", choices=["plain", "checkpointing"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.peak:
        peak(arguments.peak == "checkpointing")
        return
    rates(arguments.rounds)
    for variant in ("plain", "checkpointing"):
        subprocess.run([sys.executable, __file__, "--threads", str(arguments.threads), "--peak", variant], check=True)


if __name__ == "__main__":
    main()
