"""What people read when something they asked for cannot be done."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

USER_ERROR, DATA_ERROR, DIVERGED = 2, 3, 4
"""Exit codes: a setting or an argument is wrong; the data cannot be used; training has diverged."""


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what, and what can."""


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` with the candidate nearest to `word`, or nothing if none is near."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f" Did you mean '{by_lower[near[0]]}'?" if near else ""


def exit_code(error: Exception) -> int | None:
    """The exit code for an error that is not a fault of the program, or None for one that is.

    The user can mend what this package refuses, wherever it does: there every `ValueError` names the value and the fix.
    The same error from deeper down is a fault, and its traceback is wanted.
    """
    if isinstance(error, UserError):
        return USER_ERROR
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    if any(kind.endswith(".samples.NothingUsable") for kind in kinds):
        return DATA_ERROR
    if any(kind.endswith(".bad_steps.Diverged") for kind in kinds):
        return DIVERGED
    if any(kind.startswith("lightning.") and kind.endswith(".MisconfigurationException") for kind in kinds):
        return USER_ERROR
    return USER_ERROR if isinstance(error, ValueError) and _raised_here(error) else None


def message(error: Exception) -> str:
    """What the error says; of one that crossed over from a worker process, without the traceback that came along."""
    text = str(error).strip()
    if "Original Traceback" in text:
        return text.splitlines()[-1].split(": ", 1)[-1]
    return text


def _raised_here(error: Exception) -> bool:
    """Whether the error was raised in this package."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("snapvideo.")
