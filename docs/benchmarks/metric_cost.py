"""What networks of metrics cost: seconds per 1000 videos of 16 frames of 36x64, at the published sizes.

    OMP_NUM_THREADS=1 python docs/benchmarks/metric_cost.py --videos 8

The weights are random, which changes no time. Networks that come as TorchScript files (I3D, Inception, C3D) are timed
where their files are given: ``--i3d FILE --inception FILE --c3d FILE``. A row each, in Markdown; each sees one
video before the clock runs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, VideoMAEConfig, VideoMAEForVideoClassification

from snapvideo.components.metrics import C3D, CLIP, I3D, Inception, VideoMAE

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
Observe = Callable[[Tensor], object]


def observers(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Observe]]:
    """Each network by its name, as a function of uint8 videos ``[B, 3, T, H, W]``."""
    CLIPModel(CLIPConfig()).save_pretrained(folder / "clip")  # the sizes of transformers' defaults: ViT-B/32
    yield "`CLIP`, ViT-B/32, 16 frames", CLIP(str(folder / "clip"))
    for name, sizes in {"base": {}, "large": LARGE}.items():
        VideoMAEForVideoClassification(VideoMAEConfig(**sizes)).save_pretrained(folder / name)
        yield f"`VideoMAE`, {name}", VideoMAE(str(folder / name))
    if options.i3d:
        yield "`I3D`", I3D(options.i3d)
    if options.inception:
        yield "`Inception`, 16 frames", Inception(options.inception)
    if options.c3d:
        yield "`C3D`", C3D(options.c3d).classify


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=8, help="timed videos (8)")
    parser.add_argument("--device", default="cpu")
    for name in ("i3d", "inception", "c3d"):
        parser.add_argument(f"--{name}", metavar="FILE")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    videos = torch.randint(256, (options.videos, 3, 16, 36, 64), generator=generator, dtype=torch.uint8)
    videos = videos.to(options.device)
    print("| | seconds per 1000 videos |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, observe in observers(options, Path(folder)):
            observe(videos[:1])
            start = time.perf_counter()
            for video in videos.split(1):
                observe(video)
            if videos.is_cuda:
                torch.cuda.synchronize()
            print(f"| {name} | {1000 * (time.perf_counter() - start) / len(videos):.0f} |", flush=True)


if __name__ == "__main__":
    main()
