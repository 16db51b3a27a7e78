"""``snapvideo sample``: videos of texts, by a model or a cascade of them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..options import AUG_LEVEL, add_common, add_devices, check_processes, machine_of, near, numbers, wishes_of
from ..quiet import quieten
from ..requests import Wish, requests_of
from ..sampling import OPTIONS, split_settings
from ..shipped import is_run

if TYPE_CHECKING:
    from ..generation import Maker
    from ..videos import VideoFolder


def run(verb: str, argv: list[str]) -> None:
    """Sample, write the videos, say where they are."""
    words, settings = split_settings(argv)
    options = _parser().parse_intermixed_args(words)
    names = _take_runs(options)
    if options.aug_level and len(names) == 1:
        raise UserError(f"--aug-level {options.aug_level} is of upsamplers: name their runs after the first")
    levels = numbers("--aug-level", options.aug_level or AUG_LEVEL, float, len(names) - 1)
    steps = numbers("--steps", options.steps, int, len(names)) if options.steps else None
    guidance = numbers("--guidance", options.guidance, float, len(names)) if options.guidance else None
    wishes = _wishes(options)
    check_processes(options)
    quieten(devices=False)
    sys.path.append(os.getcwd())  # where a user's own classes are
    from ...components.media import grid_columns
    from ..length import plan_of, record_of_plan
    from ..run import find_run, is_exported, trained_fps, usual_fps
    from ..source import record_of, sources_of
    from ..stages import Stages
    from ..videos import VideoFolder

    runs = [find_run(name, options.trust) for name in names]
    sources = sources_of(runs, steps, guidance, settings, options.checkpoint)
    fps = options.fps or usual_fps(runs[0])
    plan, given, record = None, None, record_of(sources, levels)
    models = [source.build() for source in sources]
    if _is_planned(options):
        plan, given = plan_of(options, fps, trained_fps(runs[0]), models[0].shape.num_frames)
        fps, record = plan.rates[-1], record | record_of_plan(plan, given)
        _check_rates(plan.rates, [trained_fps(folder) for folder in runs])
    Stages(models, levels, plan, given)  # what is wrong is said before weights are read
    requests = requests_of(wishes, options.num, options.seed, fps)
    default = Path("samples") if is_exported(runs[-1]) else runs[-1] / "samples"
    record |= machine_of(options, options.devices * options.num_nodes)
    videos = VideoFolder(requests, record, options.out, default)
    videos.check()
    maker = Stages([source.load() for source in sources], levels, plan, given)
    _make(maker, videos, options, grid_columns(len(wishes), options.num))


def _take_runs(options: argparse.Namespace) -> list[str]:
    """The runs of the command line: those among the first words of the prompts are taken from there.

    Raises:
        UserError: One of them is not there, or a checkpoint is named, and there are several.
    """
    names = [options.run]
    while options.prompts[not options.file :] and is_run(options.prompts[0]):  # the last word is a prompt
        names.append(options.prompts.pop(0))
    if wrong := next((word for word in options.prompts if "/" in word and len(word.split()) == 1), None):
        raise UserError(f"{wrong} is no run; if it is a prompt, put it into a file: --prompts FILE")
    if options.checkpoint and len(names) > 1:
        raise UserError("--checkpoint is of one run, and there are several: the newest weights of each are taken")
    return names


def _check_rates(rates: Sequence[float], trained: Sequence[Sequence[float]]) -> None:
    """Refuse frame rates beyond those that a stage was trained at: the first makes all, others the last.

    Raises:
        UserError: One is.
    """
    for number, known in enumerate(trained, start=1):
        for rate in rates if number == 1 else rates[-1:]:
            if known and not min(known) <= rate <= max(known):
                span = f"{min(known):g} to {max(known):g} fps" if len(known) > 1 else f"{known[0]:g} fps alone"
                raise UserError(f"{rate:g} fps: stage {number} was trained at {span}; set --fps, or --rates, within")


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
            again = "the same command" if options.out else f"the same command with -o {near(videos.path)}"
            print(f"videos: {near(videos.path)} ({count} of {total}); {again} makes the others")
        raise
    if trainer.is_global_zero:
        before = total - len(missing.names)
        there = f"; {before} were there already" if before else ""
        files = "and grid.mp4, grid.gif, contact_sheet.png, meta.jsonl"
        print(f"videos: {near(videos.path)} ({total}, {files}{there})")
        if total > GRID_VIDEOS:
            print(f"the grid and the sheet show the first {GRID_VIDEOS}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snapvideo sample",
        usage="snapvideo sample RUN [RUN ...] PROMPT [PROMPT ...] [--OPTION ...]",
        description="Make videos of texts.",
        epilog=f"{OPTIONS} can be others than in training, of all runs: --model.sampler DDIM --model.sampler.eta 0.5",
        allow_abbrev=False,
    )
    what = "run folder, as runs/demo/latest, exported model, shipped one, as demo, or USER/NAME on the Hub"
    parser.add_argument("run", metavar="RUN", help=what)
    what = "what the video shows; runs before it enlarge videos"
    parser.add_argument("prompts", metavar="[RUN ...] PROMPT", nargs="*", help=what)
    parser.add_argument("-n", dest="num", type=int, default=4, metavar="N", help="videos of each prompt (4)")
    what = "steps of the sampler; of each run, as 64,16"
    parser.add_argument("--steps", metavar="N[,N]", help=what)
    parser.add_argument("--guidance", metavar="S[,S]", help="pull towards the prompt; 1: none; of each run, as 4,1")
    what = "noise on what upsamplers enlarge, 0 to 1 (0.1)"
    parser.add_argument("--aug-level", metavar="A[,A]", help=what)
    add_common(parser)
    _add_length(parser)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights; default: the newest of the run")
    add_devices(parser)
    return parser


def _add_length(parser: argparse.ArgumentParser) -> None:
    """Add the options of longer videos and of given frames."""
    parser.add_argument("--duration", type=float, metavar="SECONDS", help="length; longer ones are made in windows")
    what = "rising frame rates it is made at, as 4,8,24"
    parser.add_argument("--rates", metavar="FPS,...", help=what)
    what = "frames that windows share (half a window)"
    parser.add_argument("--overlap", type=int, metavar="N", help=what)
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--first-frame", type=Path, metavar="IMAGE", help="an image that the video begins with")
    what = "two images that the video begins and ends with"
    given.add_argument("--between", type=Path, nargs=2, metavar=("IMAGE", "IMAGE"), help=what)
    given.add_argument("--extend", type=Path, metavar="CLIP", help="a video that is gone on from")


def _is_planned(options: argparse.Namespace) -> bool:
    """Whether options ask for more than the model's own clips."""
    names = ("duration", "rates", "first_frame", "between", "extend")
    return any(getattr(options, name) is not None for name in names)


def _wishes(options: argparse.Namespace) -> list[Wish]:
    """The prompts of the command line and of the file.

    Raises:
        UserError: There are none, or an option is out of range.
    """
    wishes = wishes_of(options, options.prompts)
    if not wishes:
        raise UserError('say what to show: snapvideo sample RUN "a red circle moves left", or --prompts FILE')
    if options.overlap is not None and not _is_planned(options):
        raise UserError("--overlap is of longer videos: give --duration, too")
    if _is_planned(options) and (own := next((wish for wish in wishes if wish.fps is not None), None)):
        raise UserError(
            f"fps {own.fps:g} of {own.prompt!r} is for clips of the model's length: leave it out and set --fps"
        )
    return wishes
