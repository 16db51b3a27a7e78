"""What captions of moving shapes ask for."""

from __future__ import annotations

import re
from dataclasses import dataclass

COLOURS = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "magenta": (1, 0, 1),
    "cyan": (0, 1, 1),
}
BACKGROUNDS = {"black": 0, "gray": 128, "white": 255}
SHAPES = ("circle", "square", "triangle")

_THING = re.compile(rf"\b(?:(small|medium|large) )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})s?\b")
_GROUND = re.compile(r"\b(black|gr[ae]y|white) background\b")
_FROM_TO = re.compile(r"\b(?:left|right|top|bottom) to (?:the )?(left|right|top|bottom)\b")
_TOWARDS = re.compile(r"\b(left|right|up|down)(?:wards?)?\b")
_UPRIGHT = {"top": "up", "bottom": "down"}
_SPEEDS = {"slow": "slow", "slowly": "slow", "fast": "fast", "quickly": "fast"}


@dataclass(frozen=True)
class AskedThing:
    """What a caption says of one thing.

    Args:
        colour: One of `COLOURS`.
        shape: One of `SHAPES`.
        size: "small", "medium" or "large".
        motion: "moves", "bounces", "grows", "shrinks", "stays", or "none" where nothing is said.
        direction: "left", "right", "up" or "down" of moves, "vertical" or "horizontal" of bounces, else "none".
        speed: "slow", "normal" or "fast".
    """

    colour: str
    shape: str
    size: str
    motion: str
    direction: str
    speed: str


@dataclass(frozen=True)
class AskedScene:
    """What a caption says.

    Args:
        things: In the order of the caption, one at least.
        background: One of `BACKGROUNDS`; black where nothing is said.
    """

    things: tuple[AskedThing, ...]
    background: str


def parse_caption(caption: str) -> AskedScene:
    """Read a caption such as "a large red circle moves left to right, fast, on a white background".

    What is not said is medium, normal and black. The words between two things belong to the first of them.

    Raises:
        ValueError: The caption names no coloured shape.
    """
    words = re.sub(r"[^a-z]+", " ", caption.lower())
    ground = _GROUND.search(words)
    background = ground[1].replace("grey", "gray") if ground else "black"
    found = list(_THING.finditer(words))
    if not found:
        raise ValueError(
            f"the caption {caption!r} names no coloured shape: write one of {', '.join(COLOURS)} "
            f"before one of {', '.join(SHAPES)}"
        )
    ends = [thing.start() for thing in found[1:]] + [len(words)]
    return AskedScene(
        tuple(_parse_thing(thing, words[thing.end() : end]) for thing, end in zip(found, ends, strict=True)), background
    )


def _parse_thing(thing: re.Match[str], predicate: str) -> AskedThing:
    motion, direction = "none", "none"
    for stem, name in (("mov", "moves"), ("bounc", "bounces"), ("gr[eo]w", "grows"), ("shr[iau]nk", "shrinks")):
        if re.search(rf"\b{stem}", predicate):
            motion = name
    if motion == "none" and re.search(r"\b(still|stays)\b", predicate):
        motion = "stays"
    if motion == "bounces":
        direction = "vertical" if re.search(r"\b(up|down)\b", predicate) else "horizontal"
    elif motion == "moves":
        towards = _FROM_TO.search(predicate) or _TOWARDS.search(predicate)
        direction = _UPRIGHT.get(towards[1], towards[1]) if towards else "none"
    speeds = [_SPEEDS[word] for word in predicate.split() if word in _SPEEDS]
    return AskedThing(thing[2], thing[3], thing[1] or "medium", motion, direction, speeds[0] if speeds else "normal")
