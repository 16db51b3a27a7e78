"""How a thing that was followed through a video moves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SPEEDS = {"slow": 0.15, "normal": 0.3, "fast": 0.4}
"""Heights of the frame per second of a thing that moves."""
PERIODS = {"slow": 1.2, "normal": 0.8, "fast": 0.5}
"""Seconds per bounce."""
REACH = 0.125
"""Heights from the middle of a bounce to its turn."""
GROWTH = 0.7
"""Radius gained in a second, in radii halfway through the scene."""

_PHASES = 48
_LOOSEST = 0.04


@dataclass(frozen=True)
class SeenMotion:
    """What a path through a video is.

    Args:
        kind: "moves", "bounces", "grows", "shrinks", "stays", or "none" of a path that is none of these.
        axis: "horizontal" or "vertical" where it bounces, else "none".
        speed: "slow", "normal" or "fast" where it moves or bounces, else "none".
    """

    kind: str
    axis: str
    speed: str


NO_MOTION = SeenMotion("none", "none", "none")


@dataclass(frozen=True)
class Track:
    """Where a thing is, frame by frame; lengths are in heights of the frame, y points down.

    Args:
        frame: Frames in which it is seen ``[N]``, rising.
        x: Centre of its box from the left ``[N]``.
        y: The same from the top ``[N]``.
        radius: Radius of the circle of its area ``[N]``.
    """

    frame: Tensor
    x: Tensor
    y: Tensor
    radius: Tensor


def read_direction(track: Track, num_frames: int) -> str:
    """Direction of a steady motion along an axis: "left", "right", "up", "down" or "none"; needs no seconds."""
    t = track.frame.float() / max(1, num_frames - 1)
    t = t - t.mean()
    slopes, steady = [], []
    for place in (track.x, track.y):
        moved = place - place.mean()
        slope = (t * moved).sum() / (t * t).sum().clamp(min=1e-6)
        slopes.append(float(slope))
        steady.append(float(1 - (moved - slope * t).square().sum() / moved.square().sum().clamp(min=1e-6)))
    main = 0 if abs(slopes[0]) > abs(slopes[1]) else 1
    if abs(slopes[main]) < 0.03 or abs(slopes[main]) < 1.5 * abs(slopes[1 - main]) or steady[main] < 0.7:
        return "none"
    return (("left", "right"), ("up", "down"))[main][slopes[main] > 0]


def read_motion(track: Track, fps: float) -> SeenMotion:
    """Which motion fits best, by least squares over x, y and radius.

    A straight line has one of the three change evenly, at any rate. A bounce has x or y swing by `REACH` with one of
    the `PERIODS`, from any phase. A line that is slower than half of what captions ask for stays. A path further than
    0.04 heights (root mean square) from all of them is none, and so is one of fewer than 3 frames.
    """
    if len(track.frame) < 3:
        return NO_MOTION
    t = track.frame.float() / fps
    path = torch.stack([track.x, track.y, track.radius])
    t, path = t - t.mean(), path - path.mean(dim=1, keepdim=True)
    slopes = (path * t).sum(dim=1) / t.square().sum()
    explained = slopes.square() * t.square().sum()
    total = path.square().sum()
    line = float(total - explained.max())

    # [period, phase, T]
    turns = t / torch.tensor(list(PERIODS.values()))[:, None, None] + torch.arange(_PHASES)[:, None] / _PHASES
    wave = REACH * torch.sin(2 * math.pi * turns)
    wave = wave - wave.mean(dim=-1, keepdim=True)
    # [axis, period]: the swing replaces the axis, the others ought to rest.
    change = (path[:2, None, None] - wave).square().sum(dim=-1) - path[:2, None, None].square().sum(dim=-1)
    swings = total + change.amin(dim=-1)
    if min(line, float(swings.min())) > len(t) * _LOOSEST**2:
        return NO_MOTION
    if swings.min() < line:
        axis, period = divmod(int(swings.argmin()), len(PERIODS))
        return SeenMotion("bounces", ("horizontal", "vertical")[axis], list(PERIODS)[period])
    main = int(explained.argmax())
    rate = float(slopes[main])
    if main == 2 and abs(rate) > GROWTH / 2 * float(track.radius.mean()):
        return SeenMotion("grows" if rate > 0 else "shrinks", "none", "none")
    if main < 2 and abs(rate) > SPEEDS["slow"] / 2:
        return SeenMotion("moves", "none", min(SPEEDS, key=lambda name: abs(SPEEDS[name] - abs(rate))))
    return SeenMotion("stays", "none", "none")
