"""``snapvideo sweep``: the same prompts and seeds at several values of one setting of sampling, scored."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..ablations import find_ablation, shipped_ablations
from ..errors import UserError
from ..options import AUG_LEVEL, Number, add_common, machine_of, near, numbers, wishes_of
from ..quiet import quieten
from ..requests import requests_of
from ..sampling import OPTIONS, split_settings

if TYPE_CHECKING:
    from ..generation import Maker
    from ..sweep import Scores
    from ..videos import VideoFolder

SWEPT = {"aug_level": "--aug-level", "guidance": "--guidance", "steps": "--steps"}
"""What can be swept."""

RESULT = "sweep.json"


class Settings(NamedTuple):
    """The settings at one value of what is swept.

    Args:
        value: The value.
        levels: Noise level for each run but the first.
        guidance: Scale for each run; None: those of their configs.
        steps: Steps for each run; None: those of their configs.
    """

    value: str
    levels: list[float]
    guidance: list[float] | None
    steps: list[int] | None


def run(verb: str, argv: list[str]) -> None:
    """Sample and score at each value, print a table, say where the videos are."""
    if argv and (file := find_ablation(argv[0])):
        from .ablate import run as ablate

        ablate(file, argv[1:])
        return
    words, own = split_settings(argv)
    options = _parser().parse_intermixed_args(words)
    swept, rows = _rows(options)
    wishes = wishes_of(options)
    if not wishes:
        raise UserError("say what to show: --prompts FILE, with a prompt per line")
    _check_out(options.out, swept)
    quieten(devices=False)
    sys.path.append(os.getcwd())  # where a user's own classes are
    from ...components.media import grid_columns
    from ..run import find_run, is_exported, usual_fps
    from ..source import sources_of
    from ..sweep import Point, best_of, choose_by, make_metric, rehearse, score, table, write_result
    from ..videos import new_folder

    runs = [find_run(name, options.trust) for name in options.runs]
    metric = make_metric(options.metric)
    points = [
        Point(row.value, _name(swept, row.value), sources_of(runs, row.steps, row.guidance, own), row.levels)
        for row in rows
    ]
    requests = requests_of(wishes, options.num, options.seed, options.fps or usual_fps(runs[0]))
    machine = machine_of(options)
    *_, shape = [point.shape() for point in points]  # what is wrong is said before weights are read
    if options.out is not None:
        for point in points:
            point.folder(requests, machine, options.out).check()
    by = choose_by(options.by, rehearse(metric, requests, shape, options.batch_size))
    models = [source.load() for source in points[0].sources]
    out = options.out or new_folder(Path("sweeps") if is_exported(runs[-1]) else runs[-1] / "sweeps")
    about = {"option": swept, "metric": options.metric, "by": by, "videos": len(requests)}
    scores: dict[str, Scores] = {}
    for point in points:
        print(f"{swept} {point.value} ({len(scores) + 1} of {len(points)})", flush=True)
        folder = point.folder(requests, machine, out)
        _make(point.maker(models), folder, options, grid_columns(len(wishes), options.num), out)
        scores[point.value] = score(metric, requests, partial(folder.read, shape=shape), options.batch_size)
        best = best_of(scores, by, metric.higher_is_better)
        write_result(out / RESULT, about, scores, best)
    print(table(swept, scores, best))
    print(f"* the best {by} of {len(requests)} videos each")
    print(f"sweep: {near(out)} (a folder of videos for each, and {RESULT})")


def _rows(options: argparse.Namespace) -> tuple[str, list[Settings]]:
    """The name of the option that has several values, and the settings at each of them.

    Raises:
        UserError: There is none, or more than one; a value is no number, or there twice.
    """
    texts = {key: getattr(options, key) for key in SWEPT}
    several = [key for key, text in texts.items() if text is not None and "," in text]
    if len(several) != 1:
        found = " and ".join(SWEPT[key] for key in several)
        what = f"{found} have several values: one of them can be swept at a time" if several else "nothing is swept"
        raise UserError(
            f"{what}; give one of {', '.join(SWEPT.values())} several values, as --aug-level 0,0.05,0.1,0.2"
        )
    (swept,) = several
    if swept == "aug_level" and len(options.runs) == 1:
        raise UserError("--aug-level is of runs that enlarge what the run before them makes, and there is one run")
    rows = {}
    for word in texts[swept].split(","):
        row = _row(texts | {swept: word}, swept, len(options.runs))
        if row.value in rows:
            raise UserError(f"{SWEPT[swept]} {texts[swept]}: {row.value} is there twice")
        rows[row.value] = row
    return SWEPT[swept].lstrip("-"), list(rows.values())


def _row(texts: dict[str, str | None], swept: str, count: int) -> Settings:
    """The settings of so many runs where each option has one value."""

    def read(key: str, kind: Callable[[str], Number], count: int) -> list[Number] | None:
        text = texts[key]
        return None if text is None else numbers(SWEPT[key], text, kind, count, ":")

    levels = read("aug_level", float, count - 1) or []
    guidance, steps = read("guidance", float, count), read("steps", int, count)
    value = ":".join(f"{float(word):g}" for word in (texts[swept] or "").split(":"))
    return Settings(value, levels, guidance, steps)


def _check_out(out: Path | None, swept: str) -> None:
    """Refuse a folder that holds anything but a sweep of this option.

    Raises:
        UserError: It does, or cannot be read.
    """
    if out is None:
        return
    try:
        names = os.listdir(out) if out.exists() else []
    except OSError as error:
        raise UserError(f"-o {out} cannot be read: {error.strerror}") from error
    for name in sorted(names):
        if name != RESULT and not name.startswith((".", _name(swept, ""))):
            raise UserError(f"-o {out}: it holds {name}, which is not of a sweep of --{swept}; name another folder")


def _name(swept: str, value: str) -> str:
    """The name of the folder of a value."""
    return f"{swept}_{value.replace(':', '_')}"


def _make(maker: Maker, folder: VideoFolder, options: argparse.Namespace, columns: int, out: Path) -> None:
    """Fill the folder of a value; where that ends early, say how to go on."""
    from ..filling import fill, make_trainer
    from ..generation import Missing

    missing = Missing(folder, options.batch_size)
    try:
        fill(make_trainer(missing, options.device, options.precision), maker, missing, columns)
    except BaseException:
        folder.close()
        print(f"sweep: {near(out)}; the same command{'' if options.out else f' with -o {near(out)}'} makes the rest")
        raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snapvideo sweep",
        description="Make videos of the same texts and seeds at several values of one option, and score each value.",
        epilog=f"Give one of {', '.join(SWEPT.values())} several values. Of each run: 2:1, as --guidance 1:1,2:1,4:1. "
        f"{OPTIONS} can be others than in training. An ablation in place of RUN ({', '.join(shipped_ablations())}, "
        "or a file.yaml) trains what differs in one thing: snapvideo sweep table3 --help.",
        allow_abbrev=False,
    )
    what = "run folder, exported or shipped model, or USER/NAME on the Hub; after it, runs of upsamplers"
    parser.add_argument("runs", metavar="RUN", nargs="+", help=what)
    parser.add_argument("-n", dest="num", type=int, default=1, metavar="N", help="videos of each prompt (1)")
    what = "noise on what each upsampler enlarges, 0 to 1 (0.1): more mends more and keeps less"
    parser.add_argument("--aug-level", default=AUG_LEVEL, metavar="A[,A]", help=what)
    parser.add_argument("--guidance", metavar="S[,S]", help="pull towards the prompt; 1: none")
    parser.add_argument("--steps", metavar="N[,N]", help="steps of the sampler: more are better and slower")
    what = (
        "what scores the videos: ShapeAccuracy (the default, of moving shapes), or a class of yours by its import path"
    )
    parser.add_argument("--metric", default="ShapeAccuracy", metavar="CLASS", help=what)
    parser.add_argument(
        "--by", metavar="SCORE", help="score that tells the best value (all, or the first that there is)"
    )
    add_common(parser)
    return parser
