"""What it saves to compute the keys and values of a caption once per sample, not in each evaluation of the denoiser.

    python docs/benchmarks/prepared_condition.py snap_video_500m --threads 2 --rounds 10

Evaluations with and without take turns. FLOPs are counted, times are medians; guidance doubles both sides alike.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from snapvideo.components.interfaces import Backbone, Condition
from snapvideo.recipes.parsing import know_our_classes
from snapvideo.recipes.plan import FlopCounter
from snapvideo.recipes.run import build_part
from snapvideo.recipes.shipped import find_recipes
from snapvideo.recipes.training import read_settings
from snapvideo.recipes.workload import CONDITION_TOKENS as TOKENS


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    know_our_classes()
    section = read_settings(find_recipes(arguments.recipe))["model"]["init_args"]["backbone"]
    network = build_part(Backbone, section).eval()
    x, c_noise = torch.randn(1, *network.shape), torch.zeros(1)
    plain = Condition(torch.randn(1, TOKENS, network.dim_condition), torch.ones(1, TOKENS, dtype=torch.bool))
    with torch.no_grad():
        conditions = {"plain": plain, "prepared": network.prepare(plain)}
        seconds: dict[str, list[float]] = {name: [] for name in conditions}
        for _ in range(arguments.rounds + 1):
            for name, condition in conditions.items():
                begun = time.perf_counter()
                network(x, c_noise, condition)
                seconds[name].append(time.perf_counter() - begun)
        for name, condition in conditions.items():
            with FlopCounter() as counter:
                network(x, c_noise, condition)
            median = statistics.median(seconds[name][1:])
            print(f"{name:10}{counter.total / 1e9:10.1f} GFLOP{1e3 * median:10.1f} ms")


if __name__ == "__main__":
    main()
