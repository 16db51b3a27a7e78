"""Moving shapes: scenes that are drawn at random, described exactly and rendered at any size and frame rate.

A scene is one or two coloured shapes on a plain background. Its caption determines everything about it but the places,
so that a generated video can be scored against the words it was made from. Lengths are in sides of the square frame,
times in seconds, and y points down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

VERSION = 2
"""Is raised when the same seed gives other pixels or words."""

DURATION = 1.0
"""Seconds that a scene lasts: its things stay inside the frame for this long."""

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
}
BACKGROUNDS = {"black": (0, 0, 0), "gray": (128, 128, 128), "white": (255, 255, 255)}
SHAPES = ("circle", "square", "triangle")
RADII = {"small": 0.14, "medium": 0.18, "large": 0.22}
"""Radius of a circle of each size; squares and triangles of the same size have the same area."""
SPEEDS = {"slow": 0.15, "normal": 0.3, "fast": 0.4}
"""Sides per second of a thing that moves. A large fast triangle just fits."""
PERIODS = {"slow": 1.2, "normal": 0.8, "fast": 0.5}
"""Seconds per bounce: short enough that any second of video shows a turn."""

HELD_OUT = frozenset(
    {
        ("red", "triangle"),
        ("green", "circle"),
        ("blue", "square"),
        ("circle", "up"),
        ("square", "left"),
        ("triangle", "right"),
    }
)
"""Combinations of a colour and a shape, or of a shape and where it moves, that training can leave out.

Each colour, shape and direction occurs in others. They are fixed, so that models can be compared.
"""

_Floats = NDArray[np.floating[Any]]
_VECTORS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "vertical": (0, 1), "horizontal": (1, 0)}
_FROM_TO = {"left": "right to left", "right": "left to right", "up": "bottom to top", "down": "top to bottom"}
_BOUNCES = {"vertical": "up and down", "horizontal": "left and right"}
_MOTIONS = ("moves",) * 35 + ("bounces",) * 6 + ("stays", "grows", "shrinks") * 3
_HALF_SIDE = {"circle": 1.0, "square": math.sqrt(math.pi) / 2, "triangle": math.sqrt(math.pi / 2)}
_BOUNCE_REACH = 0.125
_GROWTH = 0.35
_MARGIN = 0.02
_GAP = 0.04


@dataclass(frozen=True)
class Thing:
    """One coloured shape and what it does.

    Args:
        colour: One of `COLOURS`.
        shape: One of `SHAPES`.
        size: One of `RADII`; of a thing that grows or shrinks, its size halfway.
        motion: "moves", "bounces", "grows", "shrinks", "stays" or, in an image, "none".
        direction: Of moves "left", "right", "up" or "down"; of bounces "vertical" or "horizontal"; else "none".
        speed: One of `SPEEDS`; "normal" unless it moves or bounces.
        x: Centre of its bounding box halfway through the scene, from the left; as all lengths in heights of the frame.
        y: The same from the top.
        phase: Where a bounce begins, in periods, 0 to 1.
        from_to: Whether the caption says "left to right" for "right" and so on.
    """

    colour: str
    shape: str
    size: str
    motion: str
    direction: str
    speed: str
    x: float
    y: float
    phase: float = 0.0
    from_to: bool = False


@dataclass(frozen=True)
class Scene:
    """What is seen.

    Args:
        things: One or two, kept apart.
        background: One of `BACKGROUNDS`.
    """

    things: tuple[Thing, ...]
    background: str


def holds_out(scene: Scene) -> bool:
    """Whether anything in the scene is one of the `HELD_OUT` combinations."""
    return any(
        (thing.colour, thing.shape) in HELD_OUT or (thing.shape, thing.direction) in HELD_OUT for thing in scene.things
    )


def draw_scene(rng: Generator, is_image: bool = False, aspect: float = 1.0, held_out: bool | None = None) -> Scene:
    """A random scene; the same state of `rng` gives the same scene.

    Medium size, normal speed and a black background are as likely as all other choices together; 15% of the scenes have
    two things, of different colours. The things of an image have no motion, and its caption no words for it.

    Args:
        rng: Where chance comes from.
        is_image: Whether nothing moves.
        aspect: Width of the frame in heights, at least 1.
        held_out: Draw again until the scene has (True), or has not (False), a `HELD_OUT` combination; None: any scene.
    """
    while True:
        scene = _draw_any(rng, is_image, aspect)
        if held_out is None or holds_out(scene) == held_out:
            return scene


def _draw_any(rng: Generator, is_image: bool, aspect: float) -> Scene:
    background = _choose(rng, ("black", "black", "gray", "white"))
    if rng.random() >= 0.15:
        return Scene((_draw_thing(rng, tuple(COLOURS), is_image, aspect),), background)
    while True:
        first = _draw_thing(rng, tuple(COLOURS), is_image, aspect)
        second = _draw_thing(rng, tuple(name for name in COLOURS if name != first.colour), is_image, aspect)
        if _are_apart(first, second):
            return Scene((first, second), background)


def caption(scene: Scene) -> str:
    """The scene in words; medium size, normal speed and a black background go without saying."""
    clauses = [_describe(thing) for thing in scene.things]
    if scene.background != "black":
        clauses[-1] += f"{_comma(clauses[-1])} on a {scene.background} background"
    return " and ".join([clause + _comma(clause) for clause in clauses[:-1]] + clauses[-1:])


def ground_truth(scene: Scene) -> dict[str, object]:
    """The scene as plain values for a ``.json`` file: caption, background, count and what each thing is and does."""
    names = ("colour", "shape", "size", "motion", "direction", "speed")
    return {
        "caption": caption(scene),
        "background": scene.background,
        "count": len(scene.things),
        "things": [{name: getattr(thing, name) for name in names} for thing in scene.things],
    }


def render(
    scene: Scene, num_frames: int, height: int, duration: float = DURATION, width: int | None = None
) -> NDArray[np.uint8]:
    """Anti-aliased frames ``[T, H, W, 3]``, frame i as the scene is at ``i * duration / num_frames`` seconds.

    Args:
        scene: What to draw.
        num_frames: Frames, T.
        height: Rows of pixels, H.
        duration: Seconds from the first frame to the end of the last, at most `DURATION`.
        width: Columns of pixels, W; None: as many as rows. The scene was drawn for a frame of this aspect.

    Raises:
        ValueError: The duration is not in (0, `DURATION`]: things would leave the frame.
    """
    if not 0 < duration <= DURATION:
        raise ValueError(f"duration is {duration} s: scenes last more than 0 and at most {DURATION} s")
    t = np.arange(num_frames) * (duration / num_frames)
    frames = np.empty((num_frames, height, width or height, 3), np.uint8)
    frames[:] = BACKGROUNDS[scene.background]
    for thing in scene.things:
        _draw(frames, thing, t)
    return frames


def _choose(rng: Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def _draw_thing(rng: Generator, colours: tuple[str, ...], is_image: bool, aspect: float) -> Thing:
    colour, shape = _choose(rng, colours), _choose(rng, SHAPES)
    size = _choose(rng, ("small", "medium", "medium", "large"))
    motion, direction, speed = "none" if is_image else _choose(rng, _MOTIONS), "none", "normal"
    if motion in ("moves", "bounces"):
        speed = _choose(rng, ("slow", "normal", "normal", "fast"))
        direction = _choose(rng, tuple(_FROM_TO) if motion == "moves" else tuple(_BOUNCES))
    phase, from_to = float(rng.random()), motion == "moves" and bool(rng.random() < 0.1)
    middle = aspect / 2
    centred = Thing(colour, shape, size, motion, direction, speed, middle, 0.5, phase, from_to)
    # The room that is left around the box that the whole path sweeps.
    slack_x, slack_y = _slack(centred)
    x, y = rng.uniform(middle - slack_x, middle + slack_x), rng.uniform(0.5 - slack_y, 0.5 + slack_y)
    return replace(centred, x=float(x), y=float(y))


def _slack(centred: Thing) -> tuple[float, float]:
    """How far a thing at the centre of the frame could be shifted along x and y and never leave it."""
    reach = {"moves": SPEEDS[centred.speed] * DURATION / 2, "bounces": _BOUNCE_REACH}.get(centred.motion, 0.0)
    step_x, step_y = _VECTORS.get(centred.direction, (0, 0))
    growth = 1 + _GROWTH if centred.motion in ("grows", "shrinks") else 1.0
    radius = RADII[centred.size] * growth
    half = _MARGIN + radius * _HALF_SIDE[centred.shape]
    return centred.x - half - abs(step_x) * reach, centred.y - half - abs(step_y) * reach


def _are_apart(first: Thing, second: Thing) -> bool:
    """Whether the bounding boxes of two things keep a gap at all times."""
    t = np.linspace(0, DURATION, 65)
    (x1, y1, r1), (x2, y2, r2) = _path(first, t), _path(second, t)
    distance = np.maximum(np.abs(x1 - x2), np.abs(y1 - y2))
    return bool((distance > r1 * _HALF_SIDE[first.shape] + r2 * _HALF_SIDE[second.shape] + _GAP).all())


def _path(thing: Thing, t: _Floats) -> tuple[_Floats, _Floats, _Floats]:
    """Centre x, y and radius at the times t ``[T]``."""
    zero = np.zeros_like(t)
    shift = {
        "moves": SPEEDS[thing.speed] * (t - DURATION / 2),
        "bounces": _BOUNCE_REACH * np.sin(2 * np.pi * (t / PERIODS[thing.speed] + thing.phase)),
    }.get(thing.motion, zero)
    growth = {"grows": 1, "shrinks": -1}.get(thing.motion, 0) * _GROWTH * (2 * t / DURATION - 1)
    step_x, step_y = _VECTORS.get(thing.direction, (0, 0))
    return thing.x + step_x * shift, thing.y + step_y * shift, RADII[thing.size] * (1 + growth)


def _draw(frames: NDArray[np.uint8], thing: Thing, t: _Floats) -> None:
    """Blend the thing into the frames ``[T, H, W, 3]`` of the times t ``[T]``."""
    height, width = frames.shape[1:3]
    x, y, radius = (values.astype(np.float32) * height for values in _path(thing, t))
    # Only a window around the thing changes, equally large in all frames.
    window = np.arange(min(height, 2 * math.ceil(_HALF_SIDE[thing.shape] * radius.max()) + 3))
    left, top = (
        np.clip(np.floor(centre).astype(int) - len(window) // 2, 0, side - len(window))
        for centre, side in ((x, width), (y, height))
    )
    dx, dy = (
        (start[:, None] + window + 0.5 - centre[:, None]).astype(np.float32) for start, centre in ((left, x), (top, y))
    )
    alpha = _coverage(thing.shape, dx[:, None, :], dy[:, :, None], radius[:, None, None])[..., None]
    colour = np.asarray(COLOURS[thing.colour], np.float32)
    for i in range(len(t)):
        patch = frames[i, top[i] : top[i] + len(window), left[i] : left[i] + len(window)]
        patch[:] = np.rint(patch + alpha[i] * (colour - patch))


def _coverage(shape: str, dx: _Floats, dy: _Floats, radius: _Floats) -> _Floats:
    """Share of each pixel that a shape covers ``[T, H, W]``, from the distances to its sides.

    Args:
        shape: One of `SHAPES`.
        dx: Columns relative to the centre ``[T, 1, W]``; all in pixels.
        dy: Rows relative to the centre ``[T, H, 1]``.
        radius: Radius of the circle of the same area ``[T, 1, 1]``.
    """
    if shape == "circle":
        return _covered(radius - np.sqrt(dx * dx + dy * dy))
    half = radius * np.float32(_HALF_SIDE[shape])
    if shape == "square":
        return _covered(half - np.abs(dx)) * _covered(half - np.abs(dy))
    # The slanted sides run from the apex (0, -half) to the corners (+-half, half).
    return _covered((dy + half - 2 * np.abs(dx)) / np.float32(math.sqrt(5))) * _covered(half - dy)


def _covered(depth: _Floats) -> _Floats:
    """Share of a pixel that is covered when its centre lies this many pixels inside of an edge."""
    share: _Floats = np.clip(depth + 0.5, 0, 1)
    return share


def _describe(thing: Thing) -> str:
    size = "" if thing.size == "medium" else f"{thing.size} "
    motion = {
        "none": "",
        "moves": f" moves {_FROM_TO.get(thing.direction) if thing.from_to else thing.direction}",
        "bounces": f" bounces {_BOUNCES.get(thing.direction)}",
        "stays": " stays still",
    }.get(thing.motion, f" {thing.motion}")
    speed = "" if thing.speed == "normal" else f", {thing.speed}"
    return f"a {size}{thing.colour} {thing.shape}{motion}{speed}"


def _comma(clause: str) -> str:
    return "," if "," in clause else ""
