"""The ablations that come with the package, and what a name on the command line stands for."""

from __future__ import annotations

from pathlib import Path

from ..shipped import summary

HERE = Path(__file__).parent


def shipped_ablations() -> dict[str, Path]:
    """Name and file of each."""
    return {file.stem: file for file in sorted(HERE.glob("*.yaml"))}


def summaries() -> list[str]:
    """A line for each: its name, and what it is."""
    return [f"  {name:14} {summary(file, 96)}" for name, file in shipped_ablations().items()]


def find_ablation(name: str) -> Path | None:
    """The file that `name` stands for, if it stands for one: a YAML file, or a shipped ablation."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    return shipped_ablations().get(name)
