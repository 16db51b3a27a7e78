"""``snapvideo sample``: videos of texts."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def run(verb: str, argv: list[str]) -> None:
    """Sample, write the videos, say where they are."""
    options = _parser().parse_args(argv)
    prompts = _prompts(options)
    sys.path.append(os.getcwd())  # where a user's own classes are
    from ..generate import generate
    from ..run import PRETRAINED, find_run, find_weights, load_model, read_config, versions

    folder = find_run(options.run)
    weights = options.checkpoint or find_weights(folder)
    model = load_model(folder, weights, options.steps, options.guidance, options.device)
    fps = options.fps or ((read_config(folder).get("sampling") or {}).get("init_args") or {}).get("fps", 8.0)
    captions = [prompt for prompt in prompts for _ in range(options.num)]
    seeds = [options.seed + i for _ in prompts for i in range(options.num)]
    videos = generate(model, captions, seeds, fps, options.batch_size, options.precision)

    out = _folder(options.out, default=Path("samples") if PRETRAINED in folder.parents else folder / "samples")
    meta = {
        "steps": model.sampler.num_steps,
        "guidance": getattr(model.guidance, "scale", None),
        "run": f"{folder.parent.name}/{folder.name}",
        "checkpoint": weights.name,
        "versions": versions(),
    }
    _write(out, videos, captions, seeds, options.num, fps, meta)
    near = os.path.relpath(out) if out.is_relative_to(Path.cwd()) else out
    print(f"videos: {near} ({len(videos)}, and grid.mp4, grid.gif, contact_sheet.png, meta.jsonl)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="snapvideo sample", description="Make videos of texts.", allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="run folder, as runs/demo/latest, or a shipped model, as demo")
    parser.add_argument("prompts", metavar="PROMPT", nargs="*", help="what the video shows")
    parser.add_argument("--prompts", dest="file", type=Path, metavar="FILE", help="file with a prompt per line")
    parser.add_argument("-n", dest="num", type=int, default=4, metavar="N", help="videos of each prompt (4)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of the sampler: more are better and slower")
    parser.add_argument("--guidance", type=float, metavar="SCALE", help="pull towards the prompt; 1: none")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first video; the next have the next (0)")
    parser.add_argument("--fps", type=float, help="frames per second, asked of the model and played")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="folder to write; one in it, if it is not empty")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights; default: the newest of the run")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="videos at a time (8)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (the fastest there is)")
    parser.add_argument("--precision", choices=["auto", "32-true", "bf16-mixed"], default="auto")
    return parser


def _prompts(options: argparse.Namespace) -> list[str]:
    """The prompts of the command line and of the file.

    Raises:
        UserError: There are none, or an option is out of range.
    """
    prompts = list(options.prompts)
    if options.file is not None:
        try:
            lines = options.file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--prompts {options.file}: {error}") from error
        prompts += [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError('say what to show: snapvideo sample RUN "a red circle moves left", or --prompts FILE')
    for name, value in (("-n", options.num), ("--batch-size", options.batch_size)):
        if value < 1:
            raise UserError(f"{name} {value}: it must be at least 1")
    if options.fps is not None and not 0 < options.fps < math.inf:
        raise UserError(f"--fps {options.fps}: it must be a finite number above 0")
    if options.seed < 0:
        raise UserError(f"--seed {options.seed}: it must be at least 0")
    return prompts


def _folder(out: Path | None, default: Path) -> Path:
    """A folder without files: `out`, or a new one, named by the time, in it or in `default`.

    So samples of an earlier call are never overwritten.
    """
    if out is not None and not (out.is_dir() and any(out.iterdir())):
        out.mkdir(parents=True, exist_ok=True)
        return out
    name = time.strftime("%Y-%m-%d_%H%M%S")
    for number in itertools.count(1):
        folder = (out or default) / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            continue
    return folder


def _write(
    out: Path, videos: Tensor, captions: list[str], seeds: list[int], num: int, fps: float, meta: dict[str, Any]
) -> None:
    """Write each video and all together; `num` videos belong to each prompt."""
    from ...components.media import contact_sheet, encode_gif, encode_png, enlarge, grid, write_bytes, write_mp4

    lines = []
    for index, (video, caption, seed) in enumerate(zip(videos, captions, seeds, strict=True)):
        slug = re.sub(r"\W+", "-", caption.lower()).strip("-")[:40]
        name = f"p{index // num:02d}_s{seed}_{slug}"
        large = enlarge(video)
        write_mp4(out / f"{name}.mp4", large, fps)
        write_bytes(out / f"{name}.gif", encode_gif(large, fps))
        line = {"file": f"{name}.mp4", "prompt": caption, "seed": seed, "fps": fps} | meta
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    joined = enlarge(grid(videos, num if num > 1 else math.ceil(math.sqrt(len(videos)))))
    write_mp4(out / "grid.mp4", joined, fps, loops=4)
    write_bytes(out / "grid.gif", encode_gif(joined, fps))
    write_bytes(out / "contact_sheet.png", encode_png(contact_sheet(enlarge(videos, 64))))
    write_bytes(out / "meta.jsonl", "".join(lines).encode())
