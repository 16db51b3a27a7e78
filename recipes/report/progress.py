"""How far a training has come, and how it ended: ``progress.json``, and what it means for who reads it later."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ...components.media import write_bytes

PROGRESS = "progress.json"

Word = Literal["running", "finished", "stopped", "failed", "unknown"]


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Args:
        state: What it does.
        why: What ended it; empty while it runs, and where it did all its steps.
        step: Optimizer steps done.
        max_steps: Steps at which it ends; None: it has no such number.
        clips: Clips seen, on all devices, also before a resume.
        seconds: Seconds of training, also before a resume.
    """

    state: Word
    why: str
    step: int
    max_steps: int | None
    clips: int
    seconds: float

    def write(self, run: Path) -> None:
        """Write the file, with time and place."""
        here = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "host": platform.node()}
        write_bytes(run / PROGRESS, json.dumps(asdict(self) | here, indent=1).encode())


def state_of(progress: Mapping[str, Any], step: int, max_steps: int | None, training: bool | None) -> tuple[Word, str]:
    """What a training does, and why or how that is known.

    Args:
        progress: What ``progress.json`` says.
        step: The last step that left a trace.
        max_steps: Steps at which it ends, if known.
        training: Whether a process trains in the folder, as far as this machine can tell.
    """
    word, why = progress.get("state"), str(progress.get("why") or "")
    if word in ("finished", "stopped", "failed"):
        return word, why
    if word == "running":
        if training:
            return "running", ""
        if training is None or progress.get("host") != platform.node():
            return "running", "when last heard of; it cannot be told from here whether it still is"
        return "stopped", "its process is gone and left no word: it was killed, or the machine went down"
    if max_steps is not None and step >= max_steps:
        return "finished", "it has done all its steps"
    return "unknown", f"its end is not recorded: there is no {PROGRESS}"
