"""What a visitor of the page asks for, and what may be asked."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from torch import Tensor

from ...components.media import MAX_FPS, MIN_FPS
from ..errors import UserError

MAX_SEED = 2**32 - 1
"""A browser knows every digit of it, and people can still type it."""

MAX_GUIDANCE = 30.0


@dataclass(frozen=True, eq=False)
class Request:
    """A video that somebody asks for.

    Args:
        prompt: What it shows.
        seed: Seed of the noise.
        steps: Steps of the sampler.
        guidance: Scale of the guidance; None: that of the run.
        fps: Frames per second.
        first_frame: What it begins with, uint8 ``[C, H, W]``; None: what the model draws.
    """

    prompt: str
    seed: int
    steps: int
    guidance: float | None
    fps: float
    first_frame: Tensor | None = None


@dataclass(frozen=True)
class Limits:
    """What may be asked.

    Args:
        max_prompt: Characters of a prompt.
        max_steps: Steps of the sampler.
        max_waiting: Videos that may wait for their turn.
        max_upload: Megabytes of an uploaded file.

    Raises:
        UserError: A limit is not at least 1.
    """

    max_prompt: int = 500
    max_steps: int = 250
    max_waiting: int = 8
    max_upload: int = 10

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise UserError(f"--{name.replace('_', '-')} {value}: it must be at least 1")

    def request(
        self,
        prompt: object,
        seed: object,
        steps: object,
        guidance: object,
        fps: object,
        first_frame: Tensor | None = None,
    ) -> Request:
        """A request of what the fields of the page hold, which may be anything.

        Args:
            prompt: Text, not empty.
            seed: A whole number; None: one drawn at random.
            steps: A whole number.
            guidance: A number, or None for a model without guidance.
            fps: A number.
            first_frame: As `read_first_frame` reads it.

        Raises:
            UserError: A value cannot be used; the message says what can.
        """
        return Request(
            self._prompt(prompt),
            secrets.randbelow(2**31) if seed is None else _whole("Seed", seed, 0, MAX_SEED),
            _whole("Number of steps", steps, 1, self.max_steps),
            None if guidance is None else _number("Guidance", guidance, 0, MAX_GUIDANCE),
            _number("Frame rate", fps, MIN_FPS, MAX_FPS),
            first_frame,
        )

    def _prompt(self, prompt: object) -> str:
        if not isinstance(prompt, str) or not prompt.strip():
            raise UserError("The prompt is empty: say what the video shows, as “a red circle moves left”.")
        if len(prompt) > self.max_prompt:
            raise UserError(f"The prompt has {len(prompt)} characters: it may have {self.max_prompt}.")
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise UserError("The prompt holds half a character (a lone surrogate): type it anew.") from error
        return prompt.strip()


def _number(name: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        given = f"{value:.10g}" if isinstance(value, int | float) else "no number"
        raise UserError(f"{name} is {given}: it must be {low:.10g} to {high:.10g}.")
    return float(value)


def _whole(name: str, value: object, low: int, high: int) -> int:
    number = _number(name, value, low, high)
    if number % 1:
        raise UserError(f"{name} is {number:.10g}: it must be a whole number.")
    return int(number)
