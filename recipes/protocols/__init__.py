"""The protocols that come with the package, and what a name on the command line stands for."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError, did_you_mean
from ..shipped import summary

HERE = Path(__file__).parent


def shipped_protocols() -> dict[str, Path]:
    """Name and file of each."""
    return {file.stem: file for file in sorted(HERE.glob("*.yaml"))}


def summaries() -> list[str]:
    """A line for each: its name, and what it is."""
    return [f"  {name:14} {summary(file, 100)}" for name, file in shipped_protocols().items()]


def find_protocol(name: str) -> Path:
    """The file that `name` stands for: an existing file, or a shipped protocol.

    Raises:
        UserError: There is none.
    """
    shipped = shipped_protocols()
    if Path(name).is_file():
        return Path(name)
    if name not in shipped:
        known = "\n".join(summaries())
        raise UserError(f"{name}: no such protocol or file.{did_you_mean(name, shipped)}\nprotocols:\n{known}")
    return shipped[name]
