"""``snapvideo sample``: videos of texts."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..sampling import OPTIONS, split_settings

if TYPE_CHECKING:
    from torch import Tensor


def run(verb: str, argv: list[str]) -> None:
    """Sample, write the videos, say where they are."""
    words, settings = split_settings(argv)
    options = _parser().parse_intermixed_args(words)
    prompts = _prompts(options)
    sys.path.append(os.getcwd())  # where a user's own classes are
    from ...components.media import MAX_FPS, MIN_FPS, grid_columns, write_grid
    from ..generate import generate, sampling_record
    from ..run import PRETRAINED, find_run, find_weights, load_model, model_section, usual_fps

    if options.fps is not None and not MIN_FPS <= options.fps <= MAX_FPS:
        raise UserError(f"--fps {options.fps}: it must be {MIN_FPS} to {MAX_FPS}")
    folder = find_run(options.run)
    weights = options.checkpoint or find_weights(folder)
    model = load_model(folder, weights, options.steps, options.guidance, options.device, settings)
    fps = options.fps or usual_fps(folder)
    default = Path("samples") if PRETRAINED in folder.parents else folder / "samples"
    try:
        out = _folder(options.out, default)
    except OSError as error:
        raise UserError(f"{options.out or default} cannot be written: {error.strerror}") from error
    section = model_section(folder, options.steps, options.guidance, settings)
    meta = sampling_record(model, section, folder, weights, fps)
    captions = [prompt for prompt in prompts for _ in range(options.num)]
    seeds = [options.seed + i for _ in prompts for i in range(options.num)]
    try:
        batches = generate(model, captions, seeds, fps, options.batch_size, options.precision)
        shown = _write_clips(out, batches, captions, seeds, options.num, meta)
        write_grid(out, shown, grid_columns(len(prompts), options.num), fps)
    finally:
        with suppress(OSError):  # it is not empty: what was made before a failure stays
            out.rmdir()
    near = os.path.relpath(out) if out.is_relative_to(Path.cwd()) else out
    print(f"videos: {near} ({len(captions)}, and grid.mp4, grid.gif, contact_sheet.png, meta.jsonl)")
    if len(shown) < len(captions):
        print(f"the grid and the sheet show the first {len(shown)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snapvideo sample",
        description="Make videos of texts.",
        epilog=f"{OPTIONS} can be others than in training: --model.sampler DDIM --model.sampler.eta 0.5",
        allow_abbrev=False,
    )
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
            lines = options.file.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--prompts {options.file}: {error}") from error
        prompts += [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError('say what to show: snapvideo sample RUN "a red circle moves left", or --prompts FILE')
    for name, value in (("-n", options.num), ("--batch-size", options.batch_size)):
        if value < 1:
            raise UserError(f"{name} {value}: it must be at least 1")
    if not 0 <= options.seed <= 2**63 - options.num:
        raise UserError(f"--seed {options.seed}: it must be at least 0, and the last of {options.num} below 2^63")
    for prompt in prompts:
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"prompt {prompt!r} is not UTF-8: {error.reason}") from error
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


def _write_clips(
    out: Path, batches: Iterable[Tensor], captions: list[str], seeds: list[int], num: int, meta: dict[str, Any]
) -> Tensor:
    """Write each video as it is made, `num` for each prompt, and its line in ``meta.jsonl``; those for the grid."""
    import torch

    from ...components.media import GRID_VIDEOS, encode_gif, enlarge, write_bytes, write_mp4

    lines: list[str] = []
    shown: list[Tensor] = []
    for video in itertools.chain.from_iterable(batches):
        index = len(lines)
        slug = re.sub(r"\W+", "-", captions[index].lower()).strip("-")[:40]
        name = f"p{index // num:02d}_s{seeds[index]}_{slug}"
        large = enlarge(video)
        write_mp4(out / f"{name}.mp4", large, meta["fps"])
        write_bytes(out / f"{name}.gif", encode_gif(large, meta["fps"]))
        line = {"file": f"{name}.mp4", "prompt": captions[index], "seed": seeds[index]} | meta
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        write_bytes(out / "meta.jsonl", "".join(lines).encode())
        shown += [video] if index < GRID_VIDEOS else []
    return torch.stack(shown)
