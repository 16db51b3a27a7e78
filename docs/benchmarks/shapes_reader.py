"""Measures what measures moving shapes: is what was drawn read rightly, and what is spoilt read as spoilt?

    python docs/benchmarks/shapes_reader.py reads --scenes 1000 --out reader
    python docs/benchmarks/shapes_reader.py spoils --scenes 500 --out reader
    python docs/benchmarks/shapes_reader.py distance --scenes 1000 --out reader
    python docs/benchmarks/shapes_reader.py time --scenes 100 --out reader

`reads` scores clips as they are drawn, at several sizes, lengths and frame rates, with `ShapeAccuracy`. `spoils` scores
clips with noise (standard deviation in levels of 255), blur (in pixels), their frames shuffled, played backwards, and
with the caption of another scene. `distance` gives `ShapeFrechet` between clips of one half of the seeds, spoilt, and
those of the other, as drawn; `drawn` is the least that so many clips can reach. `time` gives milliseconds of processor
time per video, on one thread.

Rows of JSON go to the screen, and the table, in Markdown, to ``<out>/<table>.md``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from snapvideo.components.metrics import ShapeAccuracy, ShapeFrechet
from snapvideo.datamodules.shapes import caption, draw_scene, render

SEED, BATCH = 11, 16


@dataclass(frozen=True)
class Clip:
    """The size and rate of a clip."""

    height: int
    width: int
    num_frames: int
    fps: float

    def __str__(self) -> str:
        return f"{self.height}x{self.width}, {self.num_frames} frames, {self.fps:g} fps"


READ = [
    Clip(24, 24, 8, 8),
    Clip(36, 64, 8, 8),
    Clip(36, 64, 8, 16),
    Clip(36, 64, 16, 24),
    Clip(36, 64, 8, 24),
    Clip(72, 128, 8, 8),
    Clip(128, 128, 8, 8),
]
SPOILT = Clip(36, 64, 8, 8)


def drawn(clip: Clip, first: int, count: int) -> tuple[Tensor, list[str]]:
    """Clips ``[B, 3, T, H, W]`` and captions of scenes of consecutive seeds."""
    aspect = clip.width / clip.height
    scenes = [draw_scene(np.random.default_rng([SEED, first + i]), aspect=aspect) for i in range(count)]
    duration = clip.num_frames / clip.fps
    videos = [render(scene, clip.num_frames, clip.height, duration, clip.width) for scene in scenes]
    texts = [caption(scene) for scene in scenes]
    return rearrange(torch.from_numpy(np.stack(videos)), "b t h w c -> b c t h w").contiguous(), texts


def noisy(levels: float) -> Callable[[Tensor], Tensor]:
    """Gaussian noise."""

    def spoil(videos: Tensor) -> Tensor:
        noise = torch.randn(videos.shape, generator=torch.Generator().manual_seed(0))
        return (videos + levels * noise).round().clamp(0, 255).to(torch.uint8)

    return spoil


def blurred(pixels: float) -> Callable[[Tensor], Tensor]:
    """Gaussian blur of every frame; the border goes on outside."""

    def spoil(videos: Tensor) -> Tensor:
        reach = int(3 * pixels) + 1
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / pixels).square())
        kernel = kernel / kernel.sum()
        frames = rearrange(videos.float(), "b c t h w -> (b c t) 1 h w")
        frames = torch.nn.functional.pad(frames, (reach,) * 4, mode="replicate")
        frames = torch.nn.functional.conv2d(frames, kernel[None, None, None])
        frames = torch.nn.functional.conv2d(frames, kernel[None, None, :, None])
        return rearrange(frames.round(), "(b c t) 1 h w -> b c t h w", c=3, t=videos.shape[2]).to(torch.uint8)

    return spoil


def shuffled(videos: Tensor) -> Tensor:
    """Frames in another order, for each clip its own."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack([video[:, torch.randperm(video.shape[1], generator=generator)] for video in videos])


SPOILS: dict[str, Callable[[Tensor], Tensor]] = {
    "drawn": lambda videos: videos,
    **{f"noise {levels}": noisy(levels) for levels in (4, 8, 16, 32, 64)},
    **{f"blur {pixels:g}": blurred(pixels) for pixels in (0.5, 1, 2, 3)},
    "shuffled": shuffled,
    "backwards": lambda videos: videos.flip(2),
}


def accuracy(clip: Clip, count: int, spoil: Callable[[Tensor], Tensor], shift: int = 0) -> dict[str, float]:
    """Scores of spoilt clips with their captions, or those of the scene that so many places later was drawn."""
    metric = ShapeAccuracy()
    for start in range(0, count, BATCH):
        number = min(BATCH, count - start)
        videos, texts = drawn(clip, start, number)
        texts = texts if not shift else drawn(clip, count + start, number)[1]
        metric.update(spoil(videos), texts, torch.full((number,), clip.fps))
    return {name: float(value) for name, value in metric.compute().items()}


def distance(clip: Clip, count: int, spoil: Callable[[Tensor], Tensor]) -> float:
    """Fréchet distance of so many spoilt clips to as many that are drawn."""
    metric = ShapeFrechet()
    for start in range(0, count, BATCH):
        number = min(BATCH, count - start)
        metric.update(spoil(drawn(clip, start, number)[0]), [""] * number)
        metric.update(drawn(clip, count + start, number)[0], [""] * number, real=True)
    return float(metric.compute()["shape_fd"])


def milliseconds(clip: Clip, count: int) -> dict[str, float]:
    """Time per video of reading and of features."""
    videos, texts = drawn(clip, 0, count)
    fps = torch.full((count,), clip.fps)
    result = {}
    for name, metric in (("ShapeAccuracy", ShapeAccuracy()), ("ShapeFrechet", ShapeFrechet())):
        metric.observe(videos[:2], texts[:2], fps[:2])
        begin = time.process_time()
        for part in range(0, count, BATCH):
            metric.observe(videos[part : part + BATCH], texts[part : part + BATCH], fps[part : part + BATCH])
        result[name] = 1000 * (time.process_time() - begin) / count
    return result


class Table:
    """Rows, shown as they are done and written as Markdown."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, list[dict[str, object]]()

    def add(self, digits: int, **row: object) -> None:
        """Add one."""
        self.rows.append({name: round(v, digits) if isinstance(v, float) else v for name, v in row.items()})
        print(json.dumps(self.rows[-1]), flush=True)
        names = list(self.rows[0])
        lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in self.rows)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["reads", "spoils", "distance", "time"])
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("reader"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(options.out / f"{options.table}.md")
    if options.table == "reads":
        for clip in READ:
            table.add(4, clips=str(clip), **accuracy(clip, options.scenes, SPOILS["drawn"]))
    elif options.table == "spoils":
        for name, spoil in SPOILS.items():
            table.add(3, clips=name, **accuracy(SPOILT, options.scenes, spoil))
        table.add(3, clips="other captions", **accuracy(SPOILT, options.scenes, SPOILS["drawn"], shift=1))
    elif options.table == "distance":
        counts = [options.scenes // 10, options.scenes // 2, options.scenes]
        for name, spoil in SPOILS.items():
            table.add(3, clips=name, **{f"{count} clips": distance(SPOILT, count, spoil) for count in counts})
    else:
        for clip in READ:
            table.add(2, clips=str(clip), **milliseconds(clip, options.scenes))


if __name__ == "__main__":
    main()
