"""How often videos of moving shapes show what their captions ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .network import check_videos
from .shape_captions import AskedScene, AskedThing, parse_caption
from .shape_reader import SeenScene, SeenThing, read_scene
from .video_metric import VideoMetric

READER = 2
"""Raise it when the same video and caption get another score."""

_WHOLE = 0.9


class ShapeAccuracy(VideoMetric):
    """How often videos of moving shapes show what their captions ask for.

    `compute` gives the shares, 0 to 1, of the videos that have the right

    * ``colour``: the set of colours is the one that was asked for;
    * ``shape``;
    * ``size``: not of things that grow or shrink, whose size at a given time no caption tells;
    * ``count``: as many things as were asked for;
    * ``direction``: of things that move;
    * ``motion``: moves, bounces (along the right axis), grows, shrinks or stays; needs the frame rate;
    * ``speed``: of things that move or bounce, and do what they ought to; needs the frame rate;
    * ``background``: and something in front of it;
    * ``all``: colour, background and a compactness of at least 0.9, and of captions with one thing the shape and, where
      it moves, the direction;
    * ``joint``: everything that applies, with compactness and consistency of at least 0.9;

    and two means: ``compact``, the share of the foreground that lies in one piece per colour, and ``consistency``, the
    share of the frames that show the same colours, shapes and number of things as most frames do.

    Where a caption asks for one thing, the largest that is seen is held against it. Of several, each is held against
    the one of its colour, and the score of the video is the mean over them. A share of no videos is NaN.
    """

    higher_is_better = True

    names = (
        *("colour", "shape", "size", "count", "direction", "motion", "speed"),
        *("background", "compact", "consistency", "all", "joint"),
    )

    right: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("right", torch.zeros(len(self.names)), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(len(self.names)), dist_reduce_fx="sum")

    def observe(self, videos: Tensor, captions: Sequence[str], fps: Tensor | None = None) -> Tensor:
        """Scores of each video in the order of `names` ``[B, S]``; NaN where a caption asks for nothing of a kind.

        Args:
            videos: uint8 RGB ``[B, 3, T, H, W]``.
            captions: B texts.
            fps: Frames per second ``[B]``; None: motion and speed are not scored.

        Raises:
            ValueError: The videos are not uint8 RGB, there is not one caption and frame rate for each, or a caption
                names no shape.
        """
        check_videos(videos)
        if len(videos) != len(captions):
            raise ValueError(f"{len(captions)} captions for {len(videos)} videos: give one for each")
        rates = [None] * len(videos) if fps is None else fps.tolist()
        if len(videos) != len(rates):
            raise ValueError(f"{len(rates)} frame rates for {len(videos)} videos: give one for each")
        asked = [parse_caption(caption) for caption in captions]
        rows = [
            _scores(scene, read_scene(video, rate), rate is not None)
            for scene, video, rate in zip(asked, videos, rates, strict=True)
        ]
        found = [[math.nan if row[name] is None else row[name] for name in self.names] for row in rows]
        return torch.tensor(found, dtype=torch.float32, device=videos.device).view(-1, len(self.names))

    def add(self, rows: Tensor, real: bool = False) -> None:
        """Add rows of `observe`; there is nothing real to compare with.

        Raises:
            ValueError: They are said to be of real videos.
        """
        if real:
            raise ValueError("ShapeAccuracy compares videos with captions, not with real videos")
        rows = rows.to(self.right)
        self.right += rows.nansum(dim=0)
        self.count += (~rows.isnan()).sum(dim=0)

    def compute(self) -> dict[str, Tensor]:
        """Each share by its name."""
        return dict(zip(self.names, self.right / self.count, strict=True))

    def record(self) -> dict[str, Any]:
        """The version of what reads and scores."""
        return {"reader": READER}


def _scores(asked: AskedScene, seen: SeenScene, timed: bool) -> dict[str, float | None]:
    """Scores by name; None where the caption asks for nothing that can be scored."""
    one = len(asked.things) == 1
    by_colour = {thing.colour: thing for thing in seen.things}
    largest = seen.things[0] if seen.things else None
    pairs = [(thing, largest if one else by_colour.get(thing.colour)) for thing in asked.things]
    scores: dict[str, float | None] = {
        "colour": {thing.colour for thing in asked.things} == set(by_colour),
        "shape": _mean([_shape(*pair) for pair in pairs]),
        "size": _mean([_size(*pair) for pair in pairs]),
        "count": len(asked.things) == seen.count,
        "direction": _mean([_direction(*pair) for pair in pairs]),
        "motion": _mean([_motion(*pair) for pair in pairs]) if timed else None,
        "speed": _mean([_speed(*pair) for pair in pairs]) if timed else None,
        "background": asked.background == seen.background and largest is not None,
    }
    known = {name: score for name, score in scores.items() if score is not None}
    compact = seen.compact >= _WHOLE
    first = ("colour", "shape", "direction", "background") if one else ("colour", "background")
    scores["all"] = compact and all(known.get(name, 1) == 1 for name in first)
    scores["joint"] = compact and seen.consistency >= _WHOLE and all(score == 1 for score in known.values())
    return scores | {"compact": seen.compact, "consistency": seen.consistency}


def _mean(scores: Sequence[bool | None]) -> float | None:
    """Mean of those that apply; None where none does."""
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def _shape(asked: AskedThing, seen: SeenThing | None) -> bool:
    return seen is not None and seen.shape == asked.shape


def _size(asked: AskedThing, seen: SeenThing | None) -> bool | None:
    if asked.motion in ("grows", "shrinks"):
        return None
    return seen is not None and seen.size == asked.size


def _direction(asked: AskedThing, seen: SeenThing | None) -> bool | None:
    if asked.motion != "moves":
        return None
    return seen is not None and seen.direction == asked.direction


def _motion(asked: AskedThing, seen: SeenThing | None) -> bool | None:
    if asked.motion == "none":
        return None
    if seen is None or seen.motion is None or seen.motion.kind != asked.motion:
        return False
    return asked.motion != "bounces" or seen.motion.axis == asked.direction


def _speed(asked: AskedThing, seen: SeenThing | None) -> bool | None:
    if asked.motion not in ("moves", "bounces"):
        return None
    if not _motion(asked, seen) or seen is None or seen.motion is None:
        return False
    return seen.motion.speed == asked.speed
