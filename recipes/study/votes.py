"""Files of votes, as the page of a study has them downloaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from .plan import KEY, Key, read_key

ANSWERS = ("left", "none", "right")

STUDIES = Path("studies")
"""Where new studies go."""


class Ballot(NamedTuple):
    """The votes of a rater.

    Args:
        file: Where they come from.
        study: The name of the study.
        rater: The name of the rater.
        answers: What was answered, ``left``, ``none`` or ``right``, by pair and question.
    """

    file: Path
    study: str
    rater: str
    answers: dict[tuple[str, str], str]


def read_ballots(files: Sequence[Path]) -> list[Ballot]:
    """Read the votes of one study.

    Raises:
        UserError: A file is none of votes, or of another study than the first, or two are of one rater.
    """
    ballots: list[Ballot] = []
    for file in files:
        ballot = _read(file)
        for other in ballots:
            if other.study != ballot.study:
                raise UserError(
                    f"{file} is of the study {ballot.study}, and {other.file} of {other.study}: tally one at a time"
                )
            if other.rater.casefold() == ballot.rater.casefold():
                raise UserError(
                    f"{other.file} and {file} are both of {ballot.rater}: leave out the older one, whose votes the "
                    "newer has, too; of two people of that name, change the field rater of one"
                )
        ballots.append(ballot)
    return ballots


def find_key(study: str, votes: Sequence[Path], given: Path | None) -> tuple[Path, Key]:
    """The key of a study, and its file.

    Args:
        study: The name of the study.
        votes: Files of votes: it may be beside them.
        given: The file, or its folder, if the user names it; None: looked for beside the votes, here, and in the
            folders of ``studies``.

    Raises:
        UserError: There is none, or it is of another study.
    """
    if given is not None:
        file = given / KEY if given.is_dir() else given
        key = read_key(file)
        if key.study != study:
            raise UserError(f"--key {given} is of the study {key.study}, and the votes are of {study}")
        return file, key
    places = [*(file.parent for file in votes), Path(), *sorted(STUDIES.glob("*"))]
    for file in dict.fromkeys(place / KEY for place in places):
        if file.is_file() and _named(file) == study:
            return file, read_key(file)
    raise UserError(
        f"the key of the study {study} is neither beside the votes nor here nor in {STUDIES}: --key DIR/{KEY} names it"
    )


def check_against(key: Key, ballots: Sequence[Ballot]) -> None:
    """Refuse votes of pairs or questions that the study has not.

    Raises:
        UserError: There are some.
    """
    for ballot in ballots:
        for pair, question in ballot.answers:
            if pair not in key.left:
                raise UserError(f"{ballot.file}: the study has no pair {pair!r}")
            if question not in key.about["questions"]:
                raise UserError(f"{ballot.file}: the study has no question {question!r}")


def _read(file: Path) -> Ballot:
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON, or cut short: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("votes"), list):
        raise UserError(f"{file} has no votes: take what the page's button downloads")
    for field in ("study", "rater"):
        if not isinstance(found.get(field), str) or not found[field].strip():
            raise UserError(f"{file}: {field} is {found.get(field)!r}, and must be a text")
    answers: dict[tuple[str, str], str] = {}
    for number, vote in enumerate(found["votes"], start=1):
        pair, question, answer = _vote(vote, f"{file}, vote {number}")
        if (pair, question) in answers:
            raise UserError(f"{file}, vote {number}: {question!r} of the pair {pair} is answered twice")
        answers[pair, question] = answer
    return Ballot(file, found["study"], found["rater"].strip(), answers)


def _vote(vote: Any, place: str) -> tuple[str, str, str]:  # noqa: ANN401  # whatever a file holds
    found = vote if isinstance(vote, dict) else {}
    pair, question, answer = found.get("pair"), found.get("question"), found.get("answer")
    if not (isinstance(pair, str) and isinstance(question, str) and isinstance(answer, str)):
        raise UserError(f"{place}: pair, question and answer must be texts")
    if answer not in ANSWERS:
        raise UserError(f"{place}: answer is {answer!r}; known: {', '.join(ANSWERS)}")
    return pair, question, answer


def _named(file: Path) -> str:
    """The name of the study of a key; empty, if it is none: another file of this name may lie beside votes."""
    try:
        return read_key(file).study
    except UserError:
        return ""
