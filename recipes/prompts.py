"""Prompts in a file."""

from __future__ import annotations

from pathlib import Path

from .errors import UserError


def read_prompts(file: Path) -> list[str]:
    """The lines of a file, without those that are empty.

    Raises:
        UserError: It cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts {file}: {error}") from error
    return [line.strip() for line in lines if line.strip()]
