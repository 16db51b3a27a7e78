"""``snapvideo sample``: videos of texts."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..quiet import quieten
from ..requests import Wish, fps_range, in_range, is_unicode, read_wishes, requests_of

if TYPE_CHECKING:
    from ..generation import Maker
    from ..videos import VideoFolder

PARTS = ("sampler", "guidance", "levels")
"""What sampling alone needs of a model, so that others than in training can be set: ``--model.sampler``."""


def run(verb: str, argv: list[str]) -> None:
    """Sample, write the videos, say where they are."""
    words, settings = _settings(argv)
    options = _parser().parse_intermixed_args(words)
    names = [options.run, *_further_runs(options.prompts)]
    del options.prompts[: len(names) - 1]
    wishes = _wishes(options)
    _check_processes(options)
    if options.checkpoint and len(names) > 1:
        raise UserError("--checkpoint is of one model: name runs alone, whose newest weights are taken")
    quieten(devices=False)
    sys.path.append(os.getcwd())  # where a user's own classes are
    from ...components.media import grid_columns
    from ..run import find_run, is_exported
    from ..stages import open_stages
    from ..videos import VideoFolder

    runs = [find_run(name, options.trust) for name in names]
    fps = options.fps or usual_fps(runs[0])
    stages = open_stages(runs, options, settings, fps)
    requests = requests_of(wishes, options.num, options.seed, fps)
    default = Path("samples") if is_exported(runs[-1]) else runs[-1] / "samples"
    videos = VideoFolder(requests, stages.made_with() | _machine(options), options.out, default)
    videos.check()
    _make(stages.load(), videos, options, grid_columns(len(wishes), options.num))


def _make(maker: Maker, videos: VideoFolder, options: argparse.Namespace, columns: int) -> None:
    """Fill the folder, and say where it is, also where it is not full yet."""
    from ...components.media import GRID_VIDEOS
    from ..filling import fill, make_trainer
    from ..generation import Missing

    missing = Missing(videos, options.batch_size)
    trainer = make_trainer(missing, options.device, options.precision, options.devices, options.num_nodes)
    total = len(videos.requests)
    try:
        fill(trainer, maker, missing, columns)
    except BaseException:
        if trainer.is_global_zero and (count := videos.close()):
            again = "the same command" if options.out else f"the same command with -o {_near(videos.path)}"
            print(f"videos: {_near(videos.path)} ({count} of {total}); {again} makes the others")
        raise
    if trainer.is_global_zero:
        before = total - len(missing.names)
        there = f"; {before} were there already" if before else ""
        files = "and grid.mp4, grid.gif, contact_sheet.png, meta.jsonl"
        print(f"videos: {_near(videos.path)} ({total}, {files}{there})")
        if total > GRID_VIDEOS:
            print(f"the grid and the sheet show the first {GRID_VIDEOS}")


def _near(path: Path) -> str:
    """A path as it is seen from here."""
    path = path.resolve()
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _made_with(run: Path, weights: Path, section: dict[str, Any]) -> dict[str, Any]:
    """What the record of a video says of the model that made it.

    Args:
        run: The run folder.
        weights: The file of weights.
        section: The section ``model`` of its config, as it is sampled.
    """
    from ...components.interfaces import Guidance, Sampler
    from ..run import build_part, fingerprint, versions

    settings = {part: section["init_args"][part] for part in PARTS if section["init_args"].get(part) is not None}
    sampler = build_part(Sampler, settings["sampler"])  # type: ignore[type-abstract]
    guidance = build_part(Guidance, settings["guidance"])  # type: ignore[type-abstract]
    return {
        "sampler": type(sampler).__name__,
        "steps": sampler.num_steps,
        "guidance": getattr(guidance, "scale", None),
        "settings": settings,
        "run": f"{run.parent.name}/{run.name}",
        "checkpoint": weights.name,
        "weights": fingerprint(weights),
        "versions": versions(),
    }


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    """What the record of a video says of where it was made; settings that are ``auto`` are found."""
    from ..run import machine_precision, pick_device

    if options.device == "auto" or options.devices * options.num_nodes == 1:
        options.device = str(pick_device(options.device))
    kind = options.device.partition(":")[0]
    if options.precision == "auto":
        options.precision = machine_precision(kind)
    return {"precision": options.precision, "batch_size": options.batch_size, "device": kind}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snapvideo sample",
        description="Make videos of texts.",
        epilog=f"{_options()} can be others than in training: --model.sampler DDIM --model.sampler.eta 0.5",
        allow_abbrev=False,
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        help="run folder, as runs/demo/latest, exported model, shipped one, as demo, or USER/NAME on the Hub",
    )
    parser.add_argument("prompts", metavar="PROMPT", nargs="*", help="what the video shows")
    what = "file with a prompt per line; .jsonl: an object per line, with prompt and maybe seed, fps, name"
    parser.add_argument("--prompts", dest="file", type=Path, metavar="FILE", help=what)
    parser.add_argument("-n", dest="num", type=int, default=4, metavar="N", help="videos of each prompt (4)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of the sampler: more are better and slower")
    parser.add_argument("--guidance", type=float, metavar="SCALE", help="pull towards the prompt; 1: none")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first video; the next have the next (0)")
    parser.add_argument("--fps", type=float, help="frames per second, asked of the model and played")
    what = "folder to write; the same command again makes what is missing in it"
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help=what)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights; default: the newest of the run")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="videos at a time, per device (8)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (the fastest there is)")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="devices, with a process each (1)")
    parser.add_argument("--num-nodes", type=int, default=1, metavar="N", help="machines, with so many devices each (1)")
    parser.add_argument("--trust", action="store_true", help="also run code that a model of the Hub names")
    parser.add_argument("--precision", choices=["auto", "32-true", "bf16-mixed"], default="auto")
    return parser


def _settings(argv: list[str]) -> tuple[list[str], list[str]]:
    """Words of the command line, and the settings among them, ``--model.sampler=DDIM``.

    Raises:
        UserError: A setting of another part, which training has fixed.
    """
    words, settings = [], []
    rest = iter(argv)
    for word in rest:
        if not word.startswith("--model."):
            words.append(word)
            continue
        if not word.startswith(tuple(f"--model.{part}" for part in PARTS)):
            raise UserError(f"{word}: training has fixed it; {_options()} can be set")
        settings.append(word if "=" in word else f"{word}={next(rest, '')}")
    return words, settings


def _options() -> str:
    return ", ".join(f"--model.{part}" for part in PARTS)


def _wishes(options: argparse.Namespace) -> list[Wish]:
    """The prompts of the command line and of the file.

    Raises:
        UserError: There are none, or an option is out of range.
    """
    numbers = ("-n", "num"), ("--batch-size", "batch_size"), ("--devices", "devices"), ("--num-nodes", "num_nodes")
    for name, key in numbers:
        if getattr(options, key) < 1:
            raise UserError(f"{name} {getattr(options, key)}: it must be at least 1")
    if not 0 <= options.seed <= 2**63 - options.num:
        raise UserError(f"--seed {options.seed}: it must be at least 0, and the last of {options.num} below 2^63")
    for prompt in options.prompts:
        if not is_unicode(prompt):
            raise UserError(f"prompt {prompt!r} is not UTF-8")
    wishes = [Wish(prompt) for prompt in options.prompts]
    wishes += read_wishes(options.file, options.num) if options.file is not None else []
    if not wishes:
        raise UserError('say what to show: snapvideo sample RUN "a red circle moves left", or --prompts FILE')
    if options.fps is not None and not in_range(options.fps):
        raise UserError(f"--fps {options.fps}: it must be {fps_range()}")
    return wishes


def _check_processes(options: argparse.Namespace) -> None:
    """Refuse to work in processes that do not know of each other: each would do the work of all.

    Raises:
        UserError: Others have started more, or fewer, than options say.
    """
    torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    started = int(os.environ.get("WORLD_SIZE" if torchrun else "SLURM_STEP_NUM_TASKS", 1))
    asked = options.devices * options.num_nodes
    if (torchrun or started > 1) and started != asked:
        raise UserError(
            f"--devices {options.devices} --num-nodes {options.num_nodes}: that is {asked}, and "
            f"{'torchrun' if torchrun else 'srun'} has started {started} processes; say how many each machine has"
        )
    if ":" in options.device and asked > 1:
        raise UserError(f"--device {options.device} is one device, and {asked} are asked for: name their type alone")
