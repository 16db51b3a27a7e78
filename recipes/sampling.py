"""What sampling needs of a model besides its weights: parts that can be other than in training, each time anew."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from .errors import UserError

PARTS = ("sampler", "guidance", "levels")
"""The parts: ``--model.sampler`` and so on."""

OPTIONS = ", ".join(f"--model.{part}" for part in PARTS)


def split_settings(argv: list[str]) -> tuple[list[str], list[str]]:
    """Words of the command line, and the settings among them, ``--model.sampler=DDIM``.

    Raises:
        UserError: A setting of another part, which training has fixed.
    """
    words, settings = [], []
    rest = iter(argv)
    for word in rest:
        if not word.startswith("--model."):
            words.append(word)
            continue
        if not word.startswith(tuple(f"--model.{part}" for part in PARTS)):
            raise UserError(f"{word}: training has fixed it; {OPTIONS} can be set")
        settings.append(word if "=" in word else f"{word}={next(rest, '')}")
    return words, settings


def with_sampling(section: dict[str, Any], num_steps: int | None, guidance: float | None) -> dict[str, Any]:
    """The section ``model`` of a config with another number of steps or scale of guidance; None: as it is."""
    section = deepcopy(section)
    for name, setting, value in (("sampler", "num_steps", num_steps), ("guidance", "scale", guidance)):
        part = section["init_args"][name].setdefault("init_args", {})
        while isinstance(part.get("guidance"), dict):  # what is around another guidance has no scale of its own
            part = part["guidance"].setdefault("init_args", {})
        if value is not None:
            part[setting] = value
    return section


def sampling_settings(section: dict[str, Any]) -> dict[str, Any]:
    """What a sample depends on besides the weights, of the section ``model`` of a config: for its record."""
    return {part: section["init_args"][part] for part in PARTS if section["init_args"].get(part) is not None}
