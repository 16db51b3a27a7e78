"""``snapvideo study``: which of two models people prefer, blind: the page for raters, and what their votes come to."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..options import add_common, machine_of, near, numbers, wishes_of
from ..quiet import quieten
from ..requests import requests_of
from ..sampling import OPTIONS, split_settings
from ..study.questions import Question, questions_of

if TYPE_CHECKING:
    from ..study.clips import Clip
    from ..sweep import Point
    from ..videos import VideoFolder

OF_SAMPLING = {"--prompts": "file", "-n": "num", "--steps": "steps", "--guidance": "guidance", "--fps": "fps"}
"""Options that videos which are there have no use for."""

OF_TALLY = {"--prompts": "file", "-n": "num", "--question": "question"}
"""Options of a new study that are most likely meant where votes are tallied, and would do nothing."""

TALLY = "tally.json"


def run(verb: str, argv: list[str]) -> None:
    """Make the page of a study, or tally its votes."""
    words, settings = split_settings(argv)
    options = _parser().parse_intermixed_args(words)
    if options.tally is not None:
        _tally(options)
        return
    if options.key is not None:
        raise UserError("--key is of --tally: a new study writes its own")
    if len(options.runs) != 2:
        raise UserError("a study compares two: snapvideo study RUN_A RUN_B --prompts FILE; votes: --tally votes*.json")
    questions = questions_of(options.question or ())
    folders = [Path(os.path.expanduser(word)) for word in options.runs]
    from ..study.clips import has_clips

    found = [has_clips(folder) for folder in folders]
    if any(found) and not all(found):
        videos, other = sorted(folders, key=has_clips, reverse=True)
        raise UserError(
            f"{videos} is a folder of videos, and {other} is none: sample {other} first, with the same prompts and "
            "seeds, or name two runs"
        )
    if all(found):
        _of_videos(options, folders, questions, settings)
    else:
        _of_runs(options, questions, settings)


def _of_videos(
    options: argparse.Namespace, folders: Sequence[Path], questions: Sequence[Question], settings: Sequence[str]
) -> None:
    """The study of two folders of videos."""
    from ..study.clips import matched, read_clips
    from ..study.plan import about, check_folder

    given = [option for option, key in OF_SAMPLING.items() if getattr(options, key) is not None] + list(settings)
    if given:
        raise UserError(f"{given[0]} is of sampling, and {' and '.join(options.runs)} are sampled already")
    if options.seed < 0:
        raise UserError(f"--seed {options.seed}: it must be at least 0")
    a, b = (read_clips(folder) for folder in folders)
    if folders[0].resolve() == folders[1].resolve():
        raise UserError(f"{folders[0]} and {folders[1]} are one folder: there is nothing to compare")
    pairs = matched(a, b)
    of = about(options.runs, questions, options.seed)
    if options.out is not None:
        check_folder(options.out, of, [(clip.prompt, clip.seed) for clip in a])
    _write(options.out, pairs, of, questions)


def _of_runs(options: argparse.Namespace, questions: Sequence[Question], settings: list[str]) -> None:
    """Sample both runs, or what is missing of it; then the study of their videos."""
    options.num = 1 if options.num is None else options.num
    wishes = wishes_of(options)
    if not wishes:
        raise UserError("say what to show: --prompts FILE, with a prompt per line")
    steps = numbers("--steps", options.steps, int, 2) if options.steps else [None, None]
    guidance = numbers("--guidance", options.guidance, float, 2) if options.guidance else [None, None]
    quieten(devices=False)
    sys.path.append(os.getcwd())  # where a user's own classes are
    from ...components.media import grid_columns
    from ..run import find_run, usual_fps
    from ..source import sources_of
    from ..study.clips import check_pairs, matched, read_clips
    from ..study.plan import about, check_folder
    from ..study.votes import STUDIES
    from ..sweep import Point
    from ..videos import new_folder

    runs = [find_run(name, options.trust) for name in options.runs]
    points = []
    for side, folder, count, scale in zip("ab", runs, steps, guidance, strict=True):
        one = None if count is None else [count], None if scale is None else [scale]
        points.append(Point(side, side, sources_of([folder], *one, settings), []))
    if points[0].sources == points[1].sources:
        raise UserError(
            f"{' and '.join(options.runs)} are one model with the same settings: there is nothing to compare"
        )
    requests = requests_of(wishes, options.num, options.seed, options.fps or usual_fps(runs[0]))
    asked = [(request.prompt, request.seed) for request in requests]
    check_pairs(asked, f"--prompts {options.file}")
    for point in points:
        point.shape()  # what is wrong is said before weights are read
    of = about(_names(options), questions, options.seed)
    machine = machine_of(options)
    if options.out is not None:
        check_folder(options.out, of, asked)
        for point in points:
            point.folder(requests, machine, options.out).check()
    out = options.out or new_folder(STUDIES)
    for point, name in zip(points, options.runs, strict=True):
        print(f"{point.value.upper()}: {name}", flush=True)
        _fill(point, point.folder(requests, machine, out), options, grid_columns(len(wishes), options.num), out)
    _write(out, matched(*(read_clips(out / side) for side in "ab")), of, questions)


def _names(options: argparse.Namespace) -> list[str]:
    """What the key calls A and B: the runs, and what they are sampled with, where that is said."""
    names = list(options.runs)
    for option in ("steps", "guidance"):
        if text := getattr(options, option):
            values = text.split(",")
            names = [f"{name}, {option} {value}" for name, value in zip(names, values * (3 - len(values)), strict=True)]
    return names


def _fill(point: Point, folder: VideoFolder, options: argparse.Namespace, columns: int, out: Path) -> None:
    """Make the videos of a run; where that ends early, say how to go on."""
    from ..filling import fill, make_trainer
    from ..generation import Missing

    missing = Missing(folder, options.batch_size)
    try:
        maker = point.maker([source.load() for source in point.sources])
        fill(make_trainer(missing, options.device, options.precision), maker, missing, columns)
    except BaseException:
        folder.close()
        print(f"study: {near(out)}; the same command{'' if options.out else f' with -o {near(out)}'} makes the rest")
        raise


def _write(
    out: Path | None, pairs: Sequence[tuple[Clip, Clip]], of: dict[str, Any], questions: Sequence[Question]
) -> None:
    """Write the key and the page, and say where they are; without a folder to write to, in a new one."""
    from ...components.media import write_bytes
    from ..study.clips import check_size, differences_of
    from ..study.page import make_page
    from ..study.plan import KEY, PAGE, check_name, plan
    from ..study.votes import STUDIES
    from ..videos import new_folder

    check_size(pairs)
    said = differences_of(pairs)
    study = plan(pairs, of, questions)
    page = make_page(study)
    try:
        out = out or new_folder(STUDIES)
        check_name(out, study)
        write_bytes(out / KEY, study.key())
        write_bytes(out / PAGE, page)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error
    if said:
        print(f"note: {said}")
    print(f"page: {near(out / PAGE)} ({len(pairs)} pairs, {len(page) / 1e6:.1f} MB): give raters this file alone")
    print(f"key: {near(out / KEY)} (which clip is whose; not for raters)")
    print(f"then: snapvideo study --tally votes*.json --key {near(out / KEY)}")


def _tally(options: argparse.Namespace) -> None:
    """Print what votes come to, and write it beside the key."""
    from ..study.tally import as_json, table, tally
    from ..study.votes import check_against, find_key, read_ballots

    if options.runs:
        raise UserError(f"--tally takes votes alone, and {options.runs[0]} is before it: leave it out, or use --key")
    given = [option for option, key in OF_TALLY.items() if getattr(options, key) is not None]
    if given:
        raise UserError(f"{given[0]} is of a new study: --tally takes votes, --key and -o")
    ballots = read_ballots(options.tally)
    file, key = find_key(ballots[0].study, options.tally, options.key)
    check_against(key, ballots)
    tallies = tally(key, ballots)
    target = (options.out or file.parent) / TALLY
    from ...components.media import write_bytes

    try:
        write_bytes(target, as_json(key, ballots, tallies))
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}; -o names another folder") from error
    print(f"A: {key.about['a']}\nB: {key.about['b']}\n")
    print(table(tallies))
    print("\nNo difference counts as half a vote for each; alpha is Krippendorff's: 1 agreement, 0 chance")
    for ballot in ballots:
        if missing := len(key.left) * len(tallies) - len(ballot.answers):
            print(f"{ballot.file}: {missing} of {len(key.left) * len(tallies)} answers are missing")
    print(f"tally: {near(target)} ({len(ballots)} raters, {len(key.left)} pairs)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snapvideo study",
        usage="snapvideo study RUN_A RUN_B --prompts FILE [--OPTION ...]\n"
        "       snapvideo study VIDEOS_A VIDEOS_B [--OPTION ...]\n"
        "       snapvideo study --tally VOTES [VOTES ...] [--key FILE] [-o DIR]",
        description="Ask people which of two models they prefer: a page of paired clips, and a tally of the votes.",
        epilog=f"{OPTIONS} can be others than in training.",
        allow_abbrev=False,
    )
    what = "run folder, exported or shipped model, or USER/NAME on the Hub; or a folder that snapvideo sample filled"
    parser.add_argument("runs", metavar="RUN", nargs="*", help=what)
    parser.add_argument("-n", dest="num", type=int, metavar="N", help="videos of each prompt (1)")
    parser.add_argument("--steps", metavar="N[,N]", help="steps of the sampler; of A and B, as 64,16")
    parser.add_argument("--guidance", metavar="S[,S]", help="pull towards the prompt; of A and B, as 4,1")
    what = "what raters are asked, in place of the four of the paper; several times for several questions"
    parser.add_argument("--question", metavar="'NAME: TEXT'", action="append", help=what)
    parser.add_argument("--tally", metavar="VOTES", type=Path, nargs="+", help="files of votes to count")
    what = "the key of the study (found beside the votes, here, and in studies/*)"
    parser.add_argument("--key", metavar="FILE", type=Path, help=what)
    add_common(parser)
    return parser
