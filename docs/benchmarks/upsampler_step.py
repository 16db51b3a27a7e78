"""One training step of the 3.9B upsampler at its full size of video, 16x288x512, with fewer blocks: time and memory.

    python docs/benchmarks/upsampler_step.py --blocks 1 --latent-layers 1
    python docs/benchmarks/upsampler_step.py --blocks 1 --latent-layers 1 --no-chunks --no-checkpointing

One clip, forward and backward pass with the first pass of self-conditioning, and the optimizer's step. The peak is that
of the process, beside it what `snapvideo recipe check` plans for it; each configuration needs a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from snapvideo.recipes.plan import make_plan
from snapvideo.recipes.run import build_model, machine_precision
from snapvideo.recipes.shipped import find_recipe
from snapvideo.recipes.training import read_settings
from snapvideo.recipes.workload import Workload


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--latent-layers", type=int, default=1)
    parser.add_argument("--no-chunks", action="store_true")
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--plan-only", action="store_true", help="plan it and do nothing")
    arguments = parser.parse_args()
    backbone = "--model.backbone"
    settings = [f"{backbone}.num_blocks={arguments.blocks}", f"{backbone}.num_latent_layers={arguments.latent_layers}"]
    settings += [f"{backbone}.patch_chunk=0"] if arguments.no_chunks else []
    settings += [f"{backbone}.activation_checkpointing=false"] if arguments.no_checkpointing else []
    section = read_settings([find_recipe("snap_video_3.9b_upsampler")], settings)["model"]
    precision = machine_precision("cpu")
    plan = make_plan(lambda: build_model(section), 1, precision, averages=0)
    print(f"{plan.parameters / 1e6:.0f}M parameters, {precision}; planned peak {plan.peak(1) / 1e9:.2f} GB")
    if arguments.plan_only:
        return

    before = _peak()
    torch.manual_seed(0)
    model = build_model(section)
    optimizer = model.optimizer(model.backbone.parameters())
    work = Workload(model.backbone, model.framework, 1, "cpu")
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        work.train()
    optimizer.step()
    seconds = time.perf_counter() - start
    changed = sum(int((p.grad is not None) and bool(p.grad.any())) for p in model.backbone.parameters())
    print(f"step: {seconds:.0f} s, peak {(_peak() - before) / 1e9:.2f} GB beside what the process had before")
    print(f"{changed} of {sum(1 for _ in model.backbone.parameters())} tensors of weights got a gradient")


def _peak() -> int:
    """The most memory that this process has had, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
