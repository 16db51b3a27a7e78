"""The clips of a study: two folders that ``snapvideo sample`` filled, with the same prompts and seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import av

from ..errors import UserError
from ..videos import META

MOST_PAIRS = 500
"""More than anybody rates."""


LARGEST_PAGE = 200_000_000
"""Bytes; browsers become slow with more, and mail and chats take far less."""


class Clip(NamedTuple):
    """A clip.

    Args:
        prompt: What it should show.
        seed: Where its noise came from.
        file: The mp4 file.
    """

    prompt: str
    seed: int
    file: Path


def has_clips(folder: Path) -> bool:
    """Whether a folder is one of videos, not a run."""
    return (folder / META).is_file()


def read_clips(folder: Path) -> list[Clip]:
    """The clips of a folder, as its ``meta.jsonl`` lists them.

    Raises:
        UserError: A line is not of a video of ``snapvideo sample``, its file is not there, or two are of one prompt and
            seed.
    """
    clips = []
    for number, line in enumerate((folder / META).read_bytes().splitlines(), start=1):
        try:
            record = json.loads(line)
            clip = Clip(record["prompt"], record["seed"], folder / record["file"])
        except (ValueError, TypeError, KeyError, RecursionError):
            clip = None
        if clip is None or not isinstance(clip.prompt, str) or type(clip.seed) is not int:
            raise UserError(
                f"{folder / META}, line {number}: file, prompt and seed of a video must be there; snapvideo sample "
                "writes them"
            )
        if not clip.file.is_file():
            raise UserError(f"{clip.file} is not there: give the snapvideo sample of {folder} again, with -o {folder}")
        clips.append(clip)
    check_pairs([(clip.prompt, clip.seed) for clip in clips], str(folder))
    return clips


def check_pairs(keys: Sequence[tuple[str, int]], place: str) -> None:
    """Refuse prompts and seeds that make no study.

    Args:
        keys: The prompt and the seed of each pair.
        place: Where they come from, for messages.

    Raises:
        UserError: There are none, or too many, or two are the same: raters would see a pair twice.
    """
    if not keys:
        raise UserError(f"{place}: it has no prompt, so there is nothing to rate")
    if len(keys) > MOST_PAIRS:
        raise UserError(f"{place}: {len(keys)} pairs; a study has at most {MOST_PAIRS}: take fewer prompts or seeds")
    seen = set()
    for prompt, seed in keys:
        if (prompt, seed) in seen:
            raise UserError(
                f"{place}: {prompt!r} with seed {seed} is there twice; raters would see the same clips twice"
            )
        seen.add((prompt, seed))


def matched(a: Sequence[Clip], b: Sequence[Clip]) -> list[tuple[Clip, Clip]]:
    """The clips of the same prompts and seeds, in the order of A.

    Raises:
        UserError: One of them has what the other has not.
    """
    others = {(clip.prompt, clip.seed): clip for clip in b}
    for ours, theirs in ((a, b), (b, a)):
        known = {(clip.prompt, clip.seed) for clip in theirs}
        if clip := next((clip for clip in ours if (clip.prompt, clip.seed) not in known), None):
            raise UserError(
                f"{theirs[0].file.parent} has no clip of {clip.prompt!r} with seed {clip.seed}, and {clip.file.parent} "
                "has: both need the same prompts and seeds"
            )
    return [(clip, others[clip.prompt, clip.seed]) for clip in a]


def check_size(pairs: Sequence[tuple[Clip, Clip]]) -> None:
    """Refuse clips that are too large for a page, in which three bytes become four characters.

    Raises:
        UserError: They are.
    """
    size = sum(clip.file.stat().st_size for pair in pairs for clip in pair) * 4 // 3
    if size > LARGEST_PAGE:
        raise UserError(
            f"the page of {len(pairs)} pairs would have {size / 1e6:.0f} MB, and browsers do well with "
            f"{LARGEST_PAGE / 1e6:.0f} MB at most: take fewer prompts or seeds, or make several studies"
        )


def differences_of(pairs: Iterable[tuple[Clip, Clip]]) -> str:
    """What raters can tell the two sides by without looking at what they show; empty, if nothing.

    Raises:
        UserError: A clip cannot be read.
    """
    for a, b in pairs:
        ours, theirs = _form(a.file), _form(b.file)
        if ours != theirs:
            return f"a clip of A is of {ours}, and that of B of {theirs}: raters can tell them apart by that"
    return ""


def _form(file: Path) -> str:
    """The size and length of a clip, in words."""
    try:
        with av.open(str(file)) as container:
            video = container.streams.video[0]
            return f"{video.width}x{video.height} pixels, {float((video.duration or 0) * (video.time_base or 0)):.2f} s"
    except (av.FFmpegError, IndexError) as error:
        raise UserError(f"{file} is no video that can be read") from error
