"""How long a video is, at which frame rates it is made, and which of its frames are given: from options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..components import LongVideo
from ..components.interfaces import VideoShape
from .errors import UserError
from .given import Given, given_clip
from .options import numbers
from .requests import fps_range, in_range
from .run import fingerprint

MOST_FRAMES = 100_000
"""More than an hour: a video is held in memory as a whole."""


def plan_of(
    options: argparse.Namespace, fps: float, trained: Sequence[float], size: int
) -> tuple[LongVideo, Given | None]:
    """The plan of a video, and its given frames.

    Args:
        options: ``duration``, ``rates``, ``overlap``, ``fps``; ``first_frame``, ``between`` or ``extend``.
        fps: Frame rate where `--rates` does not say.
        trained: Frame rates that the model was trained at.
        size: Frames of the model's videos, T.

    Raises:
        UserError: An option is out of range, or a file cannot be read.
    """
    rates = numbers("--rates", options.rates, float) if options.rates else None
    if rates and (wrong := next((rate for rate in rates if not in_range(rate)), None)):
        raise UserError(f"--rates {options.rates}: {wrong:g} must be {fps_range()}")
    if rates and options.fps is not None and rates[-1] != options.fps:
        raise UserError(
            f"--rates {options.rates} ends with {rates[-1]:g}, and --fps is {options.fps:g}: give one of them"
        )
    fps = rates[-1] if rates else fps
    given = _given(options, fps)
    if given:
        given.read(VideoShape(1, 8, 8))  # a file that is no picture is known now
    known = len(given.places) if given and given.fps is not None else 0
    overlap = max(size // 2, 1) if options.overlap is None else options.overlap
    duration = options.duration
    if duration is None:
        duration = (known + size - min(overlap, known)) / fps
    if not duration * fps <= MOST_FRAMES:
        raise UserError(f"--duration {duration:g}: at {fps:g} fps that is more than {MOST_FRAMES} frames")
    try:
        plan = LongVideo(duration, rates or rising_rates(fps, trained, duration, size), overlap)
    except ValueError as error:
        raise UserError(f"--duration, --rates, --overlap: {error}") from error
    if options.between and plan.num_frames < 2:
        raise UserError(f"--duration {duration:g}: at {fps:g} fps that is one frame, and --between gives two")
    if known >= plan.num_frames:
        raise UserError(f"--duration {duration:g}: {options.extend} is as long as that already, {known / fps:g} s")
    return plan, given


def record_of_plan(plan: LongVideo, given: Given | None) -> dict[str, Any]:
    """What the record of a video says of these."""
    about = {"duration": plan.duration, "rates": list(plan.rates), "overlap": plan.overlap}
    files = {file.name: fingerprint(file) for file in given.files} if given else {}
    return about | ({"given": {given.option: files}} if given else {})


def rising_rates(fps: float, trained: Sequence[float], duration: float, size: int) -> list[float]:
    """The frame rates of the hierarchy (paper, C.5): from one at which few windows cover a video, up to its own.

    Each is a whole multiple of the one before that windows can bridge. Where one window covers the video at a rate,
    none below it is of use.

    Args:
        fps: The video's own.
        trained: Frame rates that the model was trained at.
        duration: Length of the video in seconds.
        size: Frames of a window, T.
    """
    rates = [fps]
    for rate in sorted((rate for rate in trained if rate < fps), reverse=True):
        factor = round(rates[0] / rate)
        if duration * rates[0] > size and abs(rates[0] / rate - factor) < 1e-6 and factor < size:
            rates.insert(0, rate)
    return rates


def _given(options: argparse.Namespace, fps: float) -> Given | None:
    if options.extend is not None:
        return given_clip("--extend", options.extend, fps)
    if options.between is not None:
        return Given("--between", options.between, (0, -1))
    return Given("--first-frame", [options.first_frame], (0,)) if options.first_frame is not None else None
