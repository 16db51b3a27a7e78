"""A study: its pairs in a random order, each with a random side, and the key that says which side is whose."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from .clips import Clip
from .questions import Question

KEY, PAGE = "key.json", "study.html"


class Pair(NamedTuple):
    """Two clips of one prompt and seed.

    Args:
        name: What the page and the votes call it; it says nothing of the clips.
        left: The clip on the left.
        right: The clip on the right.
        a_is_left: Whether the clip of A is the left one.
    """

    name: str
    left: Clip
    right: Clip
    a_is_left: bool


@dataclass(frozen=True)
class Study:
    """A study.

    Args:
        name: What the page and the votes call it.
        about: What it is made of: the names of A and B, the seed, and the questions.
        questions: The questions.
        pairs: The pairs, in the order in which raters see them.
    """

    name: str
    about: dict[str, Any]
    questions: tuple[Question, ...]
    pairs: list[Pair]

    def key(self) -> bytes:
        """The contents of the key, which raters must not see."""
        pairs = {
            pair.name: {
                "left": "a" if pair.a_is_left else "b",
                "prompt": pair.left.prompt,
                "seed": pair.left.seed,
            }
            for pair in self.pairs
        }
        return json.dumps({"study": self.name, **self.about, "pairs": pairs}, ensure_ascii=False, indent=1).encode()


def about(names: Sequence[str], questions: Sequence[Question], seed: int) -> dict[str, Any]:
    """What a study says of itself in its key.

    Args:
        names: What to call A and B.
        questions: The questions.
        seed: Where order and sides come from.
    """
    a, b = names
    return {"a": a, "b": b, "seed": seed, "questions": {each.name: each.text for each in questions}}


def plan(pairs: Sequence[tuple[Clip, Clip]], of: Mapping[str, Any], questions: Sequence[Question]) -> Study:
    """Draw order, sides and names.

    The clip of A is on the left in half of the pairs (of an odd number, in one more or one less). All draws come from
    the seed and the contents of all clips, A's before B's: a rater who knows the seed would have to try all sides.

    Args:
        pairs: The clips of A and B.
        of: See `about`.
        questions: The questions.
    """
    contents = [
        hashlib.sha256(clip.file.read_bytes()).hexdigest() for side in zip(*pairs, strict=True) for clip in side
    ]
    prompts = [[a.prompt, a.seed] for a, _ in pairs]
    secret = hashlib.sha256(json.dumps([of["seed"], of["questions"], prompts, contents]).encode()).hexdigest()
    draw = random.Random(secret)
    count = len(pairs)
    extra = draw.randrange(2)  # of an odd number of pairs
    sides = [place < (count + extra) // 2 for place in range(count)]
    draw.shuffle(sides)
    names = [f"{number:08x}" for number in draw.sample(range(16**8), count)]
    drawn = [
        Pair(name, a, b, True) if a_is_left else Pair(name, b, a, False)
        for name, a_is_left, (a, b) in zip(names, sides, pairs, strict=True)
    ]
    draw.shuffle(drawn)
    return Study(f"{draw.randrange(16**12):012x}", dict(of), tuple(questions), drawn)


class Key(NamedTuple):
    """What a key says.

    Args:
        study: The name of the study.
        about: See `about`.
        left: ``a`` or ``b``, whose clip is on the left, by the name of the pair.
        asked: The prompt and the seed of each pair.
    """

    study: str
    about: dict[str, Any]
    left: dict[str, str]
    asked: set[tuple[str, int]]


def read_key(file: Path) -> Key:
    """Read a key.

    Raises:
        UserError: It cannot be read, or is none.
    """
    try:
        found = json.loads(file.read_bytes())
        of = {name: found[name] for name in ("a", "b", "seed", "questions")}
        left = {name: pair["left"] for name, pair in found["pairs"].items()}
        asked = {(pair["prompt"], pair["seed"]) for pair in found["pairs"].values()}
        if not (
            isinstance(found["study"], str) and isinstance(of["questions"], dict) and set(left.values()) <= {*"ab"}
        ):
            raise ValueError
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{file} is no key of a study: snapvideo study writes it beside the page") from error
    return Key(found["study"], of, left, asked)


def check_folder(folder: Path, of: Mapping[str, Any], asked: Sequence[tuple[str, int]]) -> None:
    """Refuse a folder that holds another study: votes of it would be of no page any more.

    Args:
        folder: The folder.
        of: See `about`.
        asked: The prompt and the seed of each pair.

    Raises:
        UserError: It does.
    """
    if not (folder / KEY).exists():
        if (folder / PAGE).exists():
            raise UserError(f"-o {folder}: it holds a {PAGE} without its {KEY}; name another folder")
        return
    key = read_key(folder / KEY)
    for name, was in key.about.items():
        if was != of[name]:
            raise _another(folder, f"its {name} is {was!r}, and that of this command {of[name]!r}")
    if key.asked != set(asked):
        raise _another(folder, "its prompts or seeds are others")


def check_name(folder: Path, study: Study) -> None:
    """Refuse to write over a study whose clips were others.

    Raises:
        UserError: They were.
    """
    if (folder / KEY).exists() and read_key(folder / KEY).study != study.name:
        raise _another(folder, "its clips were others")


def _another(folder: Path, why: str) -> UserError:
    return UserError(f"-o {folder}: it holds another study ({why}), and votes of it would be lost; name another folder")
