"""Measures a cascade of moving shapes: what does an upsampler add to interpolation, and what does it spoil?

    python docs/benchmarks/cascade.py runs/shapes_base/latest runs/shapes_upsampler/latest --clips 32 --captions 96

Enlarging: clips are drawn at the upsampler's size, averaged down to its input and enlarged again, by interpolation and
by the upsampler at several noise levels and numbers of steps; PSNR in dB against what was drawn, mean of the clips.

End to end: `ShapeAccuracy` of clips with one thing that moves, as they are drawn, as the first stage makes them, and as
both are enlarged.

No scene is one that the models were trained on: those have another seed. Rows of JSON go to the screen and to `--out`,
with two sheets of the middle frame of each clip: input, bicubic, upsampled at the best setting, drawn (enlarged.png);
first stage, bicubic, upsampled at each level (cascade.png).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from snapvideo.components import VideoDiffusion
from snapvideo.components.draws import seed_of
from snapvideo.components.interfaces import LowRes, Prompt, VideoShape
from snapvideo.components.media import contact_sheet, encode_png, enlarge, to_uint8, write_bytes
from snapvideo.components.metrics import ShapeAccuracy
from snapvideo.datamodules.shapes import Scene, caption, draw_scene, render
from snapvideo.recipes.run import load_model

FPS, BATCH, SHOWN = 8.0, 8, 12


def scenes(count: int, seed: int, shape: VideoShape, moving: bool) -> list[Scene]:
    """Scenes as those of training data; `moving`: with one thing, which moves."""
    found: list[Scene] = []
    index = 0
    while len(found) < count:
        scene = draw_scene(np.random.default_rng([seed, index]), aspect=shape.width / shape.height)
        index += 1
        if not moving or (len(scene.things) == 1 and scene.things[0].motion == "moves"):
            found.append(scene)
    return found


def drawn(asked: Sequence[Scene], shape: VideoShape) -> Tensor:
    """Exact clips ``[B, C, T, H, W]`` in [-1, 1] at `FPS`."""
    duration = shape.num_frames / FPS
    clips = [render(scene, shape.num_frames, shape.height, duration, shape.width) for scene in asked]
    return rearrange(torch.from_numpy(np.stack(clips)), "b t h w c -> b c t h w").float() / 127.5 - 1


def resized(videos: Tensor, shape: VideoShape, mode: str) -> Tensor:
    """Videos at another size, frame by frame, in [-1, 1]."""
    frames = rearrange(videos, "b c t h w -> (b t) c h w")
    frames = F.interpolate(frames, (shape.height, shape.width), mode=mode).clamp(-1, 1)
    return rearrange(frames, "(b t) c h w -> b c t h w", t=videos.shape[2])


def sampled(model: VideoDiffusion, asked: Sequence[Scene], low: Tensor | None = None, level: float = 0.0) -> Tensor:
    """A video of each scene's caption, as `Cascade` makes it; of an upsampler, of the low-resolution videos.

    Args:
        model: The model.
        asked: B scenes.
        low: For an upsampler, ``[B, C, T, h, w]`` in [-1, 1].
        level: Noise on these, 0 to 1.
    """
    parts = []
    for start in tqdm(range(0, len(asked), BATCH), desc="sampling", leave=False):
        texts = [caption(scene) for scene in asked[start : start + BATCH]]
        count, seeds = len(texts), list(range(start, start + len(texts)))
        size = torch.tensor([[model.shape.height, model.shape.width]], dtype=torch.float32).expand(count, 2)
        prompt = Prompt(texts, torch.full((count,), FPS), size)
        if low is not None:
            clean = low[start : start + BATCH]
            generators = [torch.Generator().manual_seed(seed_of(seed, 1, 1)) for seed in seeds]
            noise = torch.stack([torch.randn(clean.shape[1:], generator=g) for g in generators])
            prompt.low_res = LowRes.corrupt(clean, torch.full((count,), level), noise)
            seeds = [seed_of(seed, 1, 0) for seed in seeds]
        parts.append(model.sample(prompt, seeds).cpu())
    return torch.cat(parts)


def psnr(videos: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of 8-bit values, mean of the clips."""
    error = (to_uint8(videos).float() - to_uint8(truth).float()).square().mean((1, 2, 3, 4))
    return float(10 * (255**2 / error).log10().mean())


def accuracy(videos: Tensor, asked: Sequence[Scene]) -> dict[str, float]:
    """Shares of the videos that show what captions ask for."""
    metric = ShapeAccuracy()
    metric.update(to_uint8(videos), [caption(scene) for scene in asked], torch.full((len(asked),), FPS))
    return {name: round(float(value), 3) for name, value in metric.compute().items()}


def sheet(path: Path, kinds: Sequence[Tensor]) -> None:
    """A row for each of the first clips: the middle frame of each kind of it, all of one size."""
    frames = torch.stack([videos[:SHOWN, :, videos.shape[2] // 2] for videos in kinds], dim=2)
    write_bytes(path, encode_png(contact_sheet(enlarge(to_uint8(frames), 144))))


class Rows:
    """Rows of a table, shown and written as they are done."""

    def __init__(self, path: Path, about: dict[str, object]) -> None:
        self.path, self.about = path, about
        self.rows: list[dict[str, object]] = []

    def add(self, **row: object) -> None:
        """Add one."""
        print(json.dumps(row), flush=True)
        self.rows.append(row)
        write_bytes(self.path, json.dumps({**self.about, "rows": self.rows}, indent=1).encode())


def enlarging(
    upsampler: VideoDiffusion,
    asked: Sequence[Scene],
    small: VideoShape,
    levels: Sequence[float],
    steps: Sequence[int],
    rows: Rows,
) -> None:
    """PSNR of clips that were averaged down and are enlarged again."""
    truth = drawn(asked, upsampler.shape)
    low = resized(truth, small, "area")
    bicubic = resized(low, upsampler.shape, "bicubic")
    for mode in ("nearest", "bilinear", "bicubic"):
        rows.add(enlarged=mode, psnr=round(psnr(resized(low, upsampler.shape, mode), truth), 2))
    own = upsampler.sampler.num_steps
    best, shown = -np.inf, bicubic
    for count in steps:
        upsampler.sampler.num_steps = count
        for level in levels:
            videos = sampled(upsampler, asked, low, level)
            found = psnr(videos, truth)
            rows.add(enlarged="upsampler", aug_level=level, steps=count, psnr=round(found, 2))
            if found > best:
                best, shown = found, videos
    upsampler.sampler.num_steps = own
    sheet(rows.path.with_name("enlarged.png"), [resized(low, upsampler.shape, "nearest"), bicubic, shown, truth])


def end_to_end(
    base: VideoDiffusion, upsampler: VideoDiffusion, asked: Sequence[Scene], levels: Sequence[float], rows: Rows
) -> None:
    """Accuracy of what is drawn and of what the first stage makes, each small and enlarged."""
    truth = drawn(asked, upsampler.shape)
    rows.add(clips="drawn", at="large", **accuracy(truth, asked))
    for clips, low in (("drawn", resized(truth, base.shape, "area")), ("first stage", sampled(base, asked))):
        bicubic = resized(low, upsampler.shape, "bicubic")
        rows.add(clips=clips, at="small", **accuracy(low, asked))
        rows.add(clips=clips, at="bicubic", **accuracy(bicubic, asked))
        enlarged = [sampled(upsampler, asked, low, level) for level in levels]
        for level, videos in zip(levels, enlarged, strict=True):
            rows.add(clips=clips, at="upsampler", aug_level=level, **accuracy(videos, asked))
    nearest = resized(low, upsampler.shape, "nearest")
    sheet(rows.path.with_name("cascade.png"), [nearest, bicubic, *enlarged])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="run of the first stage")
    parser.add_argument("upsampler", help="run that enlarges what it makes")
    parser.add_argument("--clips", type=int, default=32, help="clips to enlarge; 0: leave it out")
    parser.add_argument("--captions", type=int, default=96, help="captions from end to end; 0: leave it out")
    parser.add_argument("--levels", type=float, nargs="+", default=[0.0, 0.05, 0.1, 0.2, 0.4], help="noise, 0 to 1")
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 4, 8, 16], help="of the upsampler, for --clips")
    parser.add_argument("--base-steps", type=int, help="of the first stage; default: its own")
    parser.add_argument("--upsampler-steps", type=int, help="of the upsampler, for --captions; default: its own")
    parser.add_argument("--guidance", type=float, help="of the first stage; default: its own")
    parser.add_argument("--seed", type=int, default=1, help="of the scenes; that of training data is 0")
    parser.add_argument("--out", type=Path, default=Path("cascade"))
    options = parser.parse_args()
    base = load_model(options.base, num_steps=options.base_steps, guidance=options.guidance)
    upsampler = load_model(options.upsampler, num_steps=options.upsampler_steps)
    for level in options.levels:
        upsampler.conditioner.check_low_res(base.shape, level)
    about = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    rows = Rows(options.out / "cascade.json", about)
    if options.clips:
        asked = scenes(options.clips, options.seed, upsampler.shape, moving=False)
        enlarging(upsampler, asked, base.shape, options.levels, options.steps, rows)
    if options.captions:
        asked = scenes(options.captions, options.seed, upsampler.shape, moving=True)
        end_to_end(base, upsampler, asked, options.levels, rows)


if __name__ == "__main__":
    main()
