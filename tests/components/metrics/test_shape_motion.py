from __future__ import annotations

import math

import pytest
import torch

from snapvideo.components.metrics.shape_motion import NO_MOTION, SeenMotion, Track, read_direction, read_motion


def track(fps=16.0, num_frames=16, x=lambda t: 0.5 + 0 * t, y=lambda t: 0.5 + 0 * t, radius=lambda t: 0.18 + 0 * t):
    """Places at the times of frames."""
    t = torch.arange(num_frames) / fps
    return Track(torch.arange(num_frames), x(t), y(t), radius(t))


@pytest.mark.parametrize("fps", [8.0, 16.0, 24.0])
@pytest.mark.parametrize(("rate", "speed"), [(0.15, "slow"), (0.3, "normal"), (0.4, "fast"), (0.9, "fast")])
@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_lines_are_moves(fps, rate, speed, axis, sign):
    path = track(fps, 8, **{axis: lambda t: 0.4 + sign * rate * t})
    assert read_motion(path, fps) == SeenMotion("moves", "none", speed)
    directions = {("x", -1): "left", ("x", 1): "right", ("y", -1): "up", ("y", 1): "down"}
    assert read_direction(path, 8) == directions[axis, sign]


@pytest.mark.parametrize(("period", "speed"), [(1.2, "slow"), (0.8, "normal"), (0.5, "fast")])
@pytest.mark.parametrize("phase", [0.0, 0.1, 0.25, 0.4, 0.5, 0.7, 0.9])
@pytest.mark.parametrize(("axis", "name"), [("x", "horizontal"), ("y", "vertical")])
@pytest.mark.parametrize(("fps", "num_frames"), [(8.0, 8), (16.0, 8), (24.0, 16)])
def test_swings_are_bounces(period, speed, phase, axis, name, fps, num_frames):
    path = track(fps, num_frames, **{axis: lambda t: 0.5 + 0.125 * torch.sin(2 * math.pi * (t / period + phase))})
    assert read_motion(path, fps) == SeenMotion("bounces", name, speed)


def test_growth_and_rest():
    assert read_motion(track(radius=lambda t: 0.12 + 0.12 * t), 16.0).kind == "grows"
    assert read_motion(track(radius=lambda t: 0.24 - 0.12 * t), 16.0).kind == "shrinks"
    assert read_motion(track(radius=lambda t: 0.18 + 0.02 * t), 16.0).kind == "stays"
    assert read_motion(track(x=lambda t: 0.5 + 0.05 * t), 16.0).kind == "stays"


def test_leaps_and_glimpses_are_no_motion():
    leaps = torch.tensor([0.2, 0.8, 0.3, 0.7, 0.2, 0.6, 0.8, 0.3])
    assert read_motion(track(8.0, 8, x=lambda t: leaps), 8.0) == NO_MOTION
    assert read_direction(track(8.0, 8, x=lambda t: leaps), 8) == "none"
    assert read_motion(track(8.0, 2), 8.0) == NO_MOTION


def test_frames_that_lack_the_thing_are_left_out():
    whole = track(x=lambda t: 0.3 + 0.3 * t)
    some = torch.tensor([0, 1, 2, 4, 5, 7, 9, 12, 13, 14, 15])
    path = Track(some, whole.x[some], whole.y[some], whole.radius[some])
    assert read_motion(path, 16.0) == SeenMotion("moves", "none", "normal")
    assert read_direction(path, 16) == "right"
