"""Words of a command line as numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .errors import UserError

Number = TypeVar("Number", int, float)


def numbers(option: str, text: str, kind: Callable[[str], Number]) -> list[Number]:
    """The numbers of an option, ``0.1,0.2``.

    Raises:
        UserError: It holds something else.
    """
    try:
        return [kind(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text}: give a number, or several with commas between them, as 4,8") from None
