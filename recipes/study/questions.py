"""What raters are asked of each pair of clips.

It does not import torch: what is wrong in a question is said at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import UserError

LONGEST_NAME, LONGEST_TEXT, MOST = 40, 300, 12


class Question(NamedTuple):
    """A question.

    Args:
        name: What the tally calls it.
        text: What raters read.
    """

    name: str
    text: str


QUESTIONS = (
    Question("photorealism", "Which clip looks more like a real video?"),
    Question("text alignment", "Which clip shows better what the text says?"),
    Question("quantity of motion", "In which clip is there more motion?"),
    Question("quality of motion", "In which clip is the motion more natural?"),
)
"""Those of the paper (Tables 6 and 10), in our words."""


def questions_of(lines: Sequence[str]) -> tuple[Question, ...]:
    """Questions as ``NAME: TEXT``; those of the paper, where there are none.

    Raises:
        UserError: One is not of this form, or two have one name, or there are too many.
    """
    if len(lines) > MOST:
        raise UserError(f"--question: {len(lines)} of them; raters answer {MOST} of a pair at most")
    found: dict[str, Question] = {}
    for line in lines:
        name, _, text = (part.strip() for part in line.partition(":"))
        if not (0 < len(name) <= LONGEST_NAME and 0 < len(text) <= LONGEST_TEXT):
            raise UserError(
                f"--question {line!r}: write NAME: TEXT, as 'motion: In which clip is there more motion?', with a name "
                f"of at most {LONGEST_NAME} characters and a text of at most {LONGEST_TEXT}"
            )
        if name.lower() in found:
            raise UserError(f"--question {line!r}: there is one of the name {name!r} already")
        found[name.lower()] = Question(name, text)
    return tuple(found.values()) or QUESTIONS
