"""What ``snapvideo sample`` is asked for: prompts with their seeds, a name for each video, and batches of them.

It does not import torch: what is wrong in a file of prompts is said at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .errors import UserError, did_you_mean

NAME = re.compile(r"\w[\w.+=-]{0,127}", re.ASCII)
"""Names of videos that a file of prompts may give: with suffix and seed they are names of files everywhere."""

TAKEN = re.compile(r"grid|p\d+_s\d+_.*", re.ASCII | re.IGNORECASE)
"""Names that others have: the grid, and videos without a name of their own."""


class Wish(NamedTuple):
    """A prompt, and what a line of a file may say beside it.

    Args:
        prompt: What the videos show.
        seed: Seed of the first; None: that of the command.
        fps: Frames per second, asked of the model and played; None: that of the command.
        name: Name of the files; None: made of number, seed and prompt.
    """

    prompt: str
    seed: int | None = None
    fps: float | None = None
    name: str | None = None


class Request(NamedTuple):
    """One video.

    Args:
        prompt: What it shows.
        seed: Where its noise comes from.
        fps: Frames per second, asked of the model and played.
        name: Name of its files, without a suffix.
    """

    prompt: str
    seed: int
    fps: float
    name: str


def requests_of(wishes: Sequence[Wish], num: int, seed: int, fps: float) -> list[Request]:
    """The videos that are wished for, in the order of the prompts, then of the seeds.

    Args:
        wishes: The prompts.
        num: Videos of each, with one seed after the other.
        seed: First seed of the prompts that have none of their own.
        fps: Frames per second of the prompts that have none of their own.
    """
    found = []
    for number, wish in enumerate(wishes):
        first = seed if wish.seed is None else wish.seed
        slug = re.sub(r"\W+", "-", wish.prompt.lower()).strip("-")[:40]
        for own in range(first, first + num):
            name = f"p{number:02d}_s{own}_{slug}"
            if wish.name is not None:
                name = wish.name if num == 1 else f"{wish.name}_s{own}"
            found.append(Request(wish.prompt, own, fps if wish.fps is None else wish.fps, name))
    return found


def batches_of(requests: Sequence[Request], size: int) -> list[list[Request]]:
    """The batches: a function of these two alone, so that neither a kill nor the number of processes changes one."""
    return [list(requests[first : first + size]) for first in range(0, len(requests), size)]


def read_wishes(file: Path, num: int = 1) -> list[Wish]:
    """The prompts of a file: a text per line, or a JSON object per line where its name ends with ``.jsonl``.

    Args:
        file: Blank lines in it are left out.
        num: Videos of each prompt: the last of them needs a seed, too.

    Raises:
        UserError: It cannot be read, or a line is wrong; the message names line and field.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts {file}: {error}") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if file.suffix.lower() != ".jsonl":
        return [Wish(text) for _, text in numbered]
    wishes: list[Wish] = []
    names: dict[str, int] = {}
    for number, text in numbered:
        place = f"--prompts {file}, line {number}"
        wish = Wish(**_fields(place, text))
        if problem := _problem(wish, num):
            raise UserError(f"{place}: {problem}")
        if wish.name is not None and (first := names.setdefault(wish.name.lower(), number)) != number:
            raise UserError(f"{place}: name {wish.name!r} is that of line {first}, too: give each its own")
        wishes.append(wish)
    return wishes


def _fields(place: str, text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: it is not JSON: {error}") from error
    if not isinstance(fields, dict) or "prompt" not in fields:
        raise UserError(f'{place}: prompt is missing: write {{"prompt": "a red circle moves left"}}')
    for key in fields:
        if key not in Wish._fields:
            near = did_you_mean(key, Wish._fields)
            raise UserError(f"{place}: {key} is none of the fields.{near}\nfields: {', '.join(Wish._fields)}")
    return fields


def _problem(wish: Wish, num: int) -> str | None:
    """What is wrong with the fields of a line."""
    prompt, seed, fps, name = wish
    if not isinstance(prompt, str) or not prompt.strip():
        return f"prompt is {prompt!r}: it must be a text"
    if not is_unicode(prompt):
        return f"prompt {prompt!r} is not UTF-8"
    if seed is not None and not (type(seed) is int and 0 <= seed <= 2**63 - num):
        return f"seed is {seed!r}: it must be a whole number, at least 0, and the last of {num} below 2^63"
    if fps is not None and not (type(fps) in (int, float) and in_range(fps)):
        return f"fps is {fps!r}: it must be {fps_range()}"
    if name is not None and not (isinstance(name, str) and NAME.fullmatch(name)):
        return f"name is {name!r}: it must be of letters a-z, digits and . _ - + =, 128 at most, without a suffix"
    if name is not None and TAKEN.fullmatch(name):
        return f"name is {name!r}: such names are those of other files; choose another"
    return None


def is_unicode(text: str) -> bool:
    """Whether a text can be written to a file: words of a command line may be of any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def in_range(fps: float) -> bool:
    """Whether files and players can do with a frame rate."""
    from ..components.media import MAX_FPS, MIN_FPS  # imports torch, where there is a frame rate to check

    return MIN_FPS <= fps <= MAX_FPS


def fps_range() -> str:
    """The frame rates that files and players can do with, in words."""
    from ..components.media import MAX_FPS, MIN_FPS

    return f"{MIN_FPS:g} to {MAX_FPS:g}"
