"""Known frames and long videos on moving shapes: does motion go on, and do windows join?

    python docs/benchmarks/known_frames.py known --captions 48 --steps 12 --out frames
    python docs/benchmarks/known_frames.py long --captions 32 --steps 12 --out frames
    python docs/benchmarks/known_frames.py rates --run runs/shapes_base/latest --captions 32 --steps 12 --out frames

`known` samples clips of which some frames are given, as drawn exactly, at several scales. A row tells how often a
fixed function reads the direction and the shape of the caption, the squared error to the drawn clip in the frames that
are not given, and how much neighbouring frames differ (mean absolute difference, values in [-1, 1]) where a given frame
meets a sampled one, and elsewhere. `long` samples 3 s, and tells how much frames differ where windows meet, and at the
same places inside of clips that are sampled from text. `rates` samples 1 s at 16 fps, window by window at that rate
and by way of 8 fps, with a model that was trained at both, and tells the same, and whether the direction is that of the
caption. Half of the captions of both are of things that move, half of things that bounce. Contact sheets go to `--out`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from snapvideo.components import GivenFrames, LongVideo, Reconstruction, Threshold, VideoDiffusion
from snapvideo.components.interfaces import Prompt
from snapvideo.components.media import contact_sheet, encode_png, enlarge, to_uint8, write_bytes
from snapvideo.components.metrics import ShapeAccuracy
from snapvideo.components.metrics.shape_reader import read_scene
from snapvideo.datamodules.shapes import Scene, caption, draw_scene, render
from snapvideo.recipes.run import load_model

FPS, BATCH, SHOWN = 8.0, 16, 8
MOTIONS = ("moves", "bounces")
KNOWN = {
    "nothing": (),
    "the first": (0,),
    "first and last": (0, 7),
    "every third": (0, 3, 6),
    "the first half": (0, 1, 2, 3),
}


def scenes(count: int, motion: str, aspect: float = 1.0, seed: int = 7) -> list[Scene]:
    """Scenes of one thing with a motion, for frames of so many heights' width."""
    found: list[Scene] = []
    index = 0
    while len(found) < count:
        scene = draw_scene(np.random.default_rng([seed, index]), aspect=aspect)
        index += 1
        if len(scene.things) == 1 and scene.things[0].motion == motion:
            found.append(scene)
    return found


def drawn(asked: Sequence[Scene], num_frames: int, size: int) -> Tensor:
    """Exact clips ``[B, C, T, H, W]`` in [-1, 1], of 1 s."""
    clips = torch.stack([torch.from_numpy(render(scene, num_frames, size)) for scene in asked])
    return clips.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def prompt(asked: Sequence[Scene], fps: float = FPS, height: int = 24, width: int = 24) -> Prompt:
    """Labels of scenes."""
    count = len(asked)
    size = torch.tensor([[height, width]], dtype=torch.float32).expand(count, 2)
    return Prompt([caption(scene) for scene in asked], torch.full((count,), fps), size)


def steps(videos: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring frames ``[T - 1]``."""
    return (videos[:, :, 1:] - videos[:, :, :-1]).abs().mean((0, 1, 3, 4))


def sheet(path: Path, videos: Tensor, columns: int) -> None:
    """A contact sheet of the first videos."""
    write_bytes(path, encode_png(contact_sheet(enlarge(to_uint8(videos[:SHOWN]), 64), columns)))


def row(**values: object) -> None:
    """One row of a table, as it is done."""
    print(json.dumps({name: round(v, 4) if isinstance(v, float) else v for name, v in values.items()}), flush=True)


def known_frames(model: VideoDiffusion, count: int, scales: Sequence[float], out: Path) -> None:
    """The table of known frames."""
    asked = scenes(count, "moves")
    truth = drawn(asked, model.shape.num_frames, model.shape.width)
    plain = model.guidance
    for name, places in KNOWN.items():
        known = torch.isin(torch.arange(model.shape.num_frames), torch.tensor(places))
        meets = known[1:] != known[:-1]
        settings = [(scale, False) for scale in (scales if places else [0.0])]
        for scale, threshold in [*settings, (1.0, True)] if name == "the first" else settings:
            model.guidance = Threshold(plain) if threshold else plain
            parts = []
            for i in range(0, count, BATCH):
                steer = Reconstruction(truth[i : i + BATCH], known, scale) if places else None
                labels = prompt(asked[i : i + BATCH])
                parts.append(model.sample(labels, range(i, i + len(labels)), steer=steer))
            videos = torch.cat(parts)
            seen = [read_scene(video).things[:1] for video in to_uint8(videos)]
            right = [
                [
                    bool(thing) and getattr(thing[0], part) == getattr(scene.things[0], part)
                    for part in ("direction", "shape")
                ]
                for thing, scene in zip(seen, asked, strict=True)
            ]
            direction, shape = np.mean(right, axis=0)
            error = (to_uint8(videos).float() - to_uint8(truth).float()).square()
            row(
                known=name,
                scale=scale,
                threshold=threshold,
                direction=float(direction),
                shape=float(shape),
                worst_psnr=float(10 * (255**2 / error[:, :, known].mean((1, 2, 3, 4)).max().clamp(min=1e-2)).log10())
                if places
                else None,
                error=float((videos - truth)[:, :, ~known].square().mean()),
                at_known=float(steps(videos)[meets].mean()) if places else None,
                elsewhere=float(steps(videos)[~meets].mean()),
                drawn=float(steps(truth).mean()),
            )
            file = f"{name.replace(' ', '_')}_{scale:g}{'_threshold' if threshold else ''}.png"
            sheet(out / file, torch.stack([truth, videos], 1).flatten(0, 1) if places else videos, 8)


def long_videos(model: VideoDiffusion, count: int, out: Path) -> None:
    """The table of long videos."""
    asked = [scene for motion in MOTIONS for scene in scenes(count // 2, motion)]
    clips = drawn(asked, model.shape.num_frames, model.shape.width)
    plain = torch.cat(
        [model.sample(prompt(asked[i : i + BATCH]), range(i, min(i + BATCH, count))) for i in range(0, count, BATCH)]
    )
    for name, overlap, scale, length in (
        ("text", 1, 1.0, 0),
        ("text", 1, 0.0, 0),
        ("text", 4, 1.0, 0),
        ("clip of 1 s", 1, 1.0, 8),
        ("clip of 1 s", 4, 1.0, 8),
    ):
        video = LongVideo(3.0, (FPS,), overlap, scale)
        parts = []
        for i in range(0, count, BATCH):
            labels = prompt(asked[i : i + BATCH])
            given = GivenFrames(clips[i : i + BATCH, :, :length], range(length)) if length else None
            parts.append(video.sample(model, labels, range(i, i + len(labels)), given))
        videos = torch.cat(parts)
        plan = video.windows(model.shape.num_frames, range(length))
        joins = [window for window in plan if window.new[0] > 0]
        seams = torch.tensor([window.new[0] - 1 for window in joins])
        inside = torch.tensor([window.places.index(window.new[0]) - 1 for window in joins])
        figures = {}
        for motion, part, own in zip(MOTIONS, videos.split(count // 2), plain.split(count // 2), strict=True):
            figures[f"{motion}_at_seams"] = float(steps(part)[seams].mean())
            figures[f"{motion}_in_clips"] = float(steps(own)[inside].mean())
        row(begins_with=name, overlap=overlap, scale=scale, windows=len(plan), **figures)
        ends = torch.cat([videos[:4], videos[-4:]])
        sheet(out / f"long_{name.replace(' ', '_')}_{overlap}_{scale:g}.png", ends, 24)


def several_rates(model: VideoDiffusion, count: int, out: Path) -> None:
    """The table of 1 s at 16 fps, made at that rate alone and by way of 8 fps."""
    height, width, fast = model.shape.height, model.shape.width, 2 * FPS
    asked = [scene for motion in MOTIONS for scene in scenes(count // 2, motion, width / height)]

    def parts() -> Iterator[tuple[Prompt, range]]:
        for i in range(0, count, BATCH):
            labels = prompt(asked[i : i + BATCH], fast, height, width)
            yield labels, range(i, i + len(labels))

    def add(made: str, videos: Tensor, seams: Sequence[int] = ()) -> None:
        right = ShapeAccuracy()
        right.update(to_uint8(videos), [caption(scene) for scene in asked])
        figures = {}
        for motion, part in zip(MOTIONS, videos.split(count // 2), strict=True):
            step = steps(part)
            figures[f"{motion}_step"], figures[f"{motion}_largest"] = float(step.mean()), float(step.max())
            if seams:
                # Steps from one patch of frames to the next, as the seams are.
                others = [i for i in range(1, len(step), 2) if i not in seams]
                figures[f"{motion}_at_seams"] = float(step[list(seams)].mean())
                figures[f"{motion}_elsewhere"] = float(step[others].mean())
        row(made=made, direction=float(right.compute()["direction"]), **figures)
        sheet(out / f"rates_{made.replace(' ', '_')}.png", torch.cat([videos[:4], videos[-4:]]), 16)

    truth = [render(scene, int(fast), height, 1.0, width) for scene in asked]
    add("drawn", torch.from_numpy(np.stack(truth)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1)
    add("clips of 0.5 s", torch.cat([model.sample(labels, seeds) for labels, seeds in parts()]))
    for rates, overlap in (((fast,), 1), ((fast,), 4), ((FPS, fast), 1)):
        video = LongVideo(1.0, rates, overlap)
        seams = [window.new[0] - 1 for window in video.windows(model.shape.num_frames) if window.new[0] > 0]
        videos = torch.cat([video.sample(model, labels, seeds) for labels, seeds in parts()])
        name = f"at {'-'.join(f'{rate:g}' for rate in rates)} fps, overlap {overlap}"
        add(name, videos, seams if len(rates) == 1 else ())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["known", "long", "rates"])
    parser.add_argument("--run", default="demo", help="a run folder, or the name of a shipped model")
    parser.add_argument("--captions", type=int, default=48)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.0, 0.5, 1.0, 2.0])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=Path("frames"))
    arguments = parser.parse_args()
    model = load_model(arguments.run, num_steps=arguments.steps)
    if arguments.table == "known":
        known_frames(model, arguments.captions, arguments.scales, arguments.out)
    elif arguments.table == "long":
        long_videos(model, arguments.captions, arguments.out)
    else:
        several_rates(model, arguments.captions, arguments.out)


if __name__ == "__main__":
    main()
