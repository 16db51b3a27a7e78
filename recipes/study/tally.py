"""What the votes of a study come to: preference with its interval, and how far raters agree."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from .plan import Key
from .votes import Ballot

LEVEL = 0.95
"""How often intervals of such studies hold the true share."""

NAN = float("nan")


@dataclass(frozen=True)
class Tally:
    """What the votes on a question come to.

    Args:
        votes: How many there are.
        a: For A.
        b: For B.
        none: Of no difference.
        preference: Share of A, 0 to 1, where no difference counts as half a vote for each; NaN without votes.
        low: Lower end of its interval.
        high: Upper end.
        agreement: See `alpha`.
    """

    votes: int
    a: int
    b: int
    none: int
    preference: float
    low: float
    high: float
    agreement: float


def tally(key: Key, ballots: Sequence[Ballot]) -> dict[str, Tally]:
    """Tallies by question.

    Args:
        key: The key of the study.
        ballots: The votes, each of a rater.
    """
    found = {}
    for question in key.about["questions"]:
        units = [
            [_whose(ballot.answers[pair, question], left) for ballot in ballots if (pair, question) in ballot.answers]
            for pair, left in key.left.items()
        ]
        counts = Counter(vote for votes in units for vote in votes)
        total, a, b, none = counts.total(), counts["a"], counts["b"], counts["none"]
        low, high = wilson(a + none / 2, total)
        share = (a + none / 2) / total if total else NAN
        found[question] = Tally(total, a, b, none, share, low, high, alpha(units))
    return found


def wilson(wins: float, count: int, level: float = LEVEL) -> tuple[float, float]:
    r"""The interval of a share by Wilson's score (E. B. Wilson, JASA 22, 1927).

    Its ends are the shares $p$ with $|wins / count - p| = z \sqrt{p (1 - p) / count}$. A vote of no difference may
    count as half a win: such votes vary less than whole ones, so that the interval is rather too wide.

    Args:
        wins: How many of `count` there are.
        count: Votes, taken as independent of each other.
        level: How often the interval holds the true share.

    Returns:
        Its ends, within 0 to 1; NaN without votes.
    """
    if count == 0:
        return NAN, NAN
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, weight = wins / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / weight
    half = z / weight * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def alpha(units: Iterable[Sequence[str]]) -> float:
    """Krippendorff's alpha for labels without an order ("Computing Krippendorff's Alpha-Reliability", 2011, part C).

    1 is full agreement, 0 what chance gives, below 0 less than chance. Units may have any number of labels: missing
    votes need no filling in. Those with fewer than two say nothing of agreement, and are left out.

    Args:
        units: The labels of each unit, one for each rater who gave one.

    Returns:
        alpha; NaN, where no unit has two labels, or all labels are the same: there is no chance to compare with.
    """
    totals: Counter[str] = Counter()
    observed = 0.0  # pairs of labels of one unit that differ
    for labels in units:
        if len(labels) < 2:
            continue
        counts = Counter(labels)
        totals += counts
        observed += sum(n * (len(labels) - n) for n in counts.values()) / (len(labels) - 1)
    count = totals.total()
    expected = sum(n * (count - n) for n in totals.values())  # pairs of all labels that differ
    return 1 - (count - 1) * observed / expected if expected else NAN


def table(tallies: dict[str, Tally]) -> str:
    """A row for each question, in percent."""
    head = ["question", "prefer A", "95% interval", "A", "none", "B", "votes", "alpha"]
    rows = [
        [
            name,
            _percent(each.preference),
            f"{_percent(each.low)} to {_percent(each.high)}" if each.votes else "–",
            *(str(number) for number in (each.a, each.none, each.b, each.votes)),
            "–" if math.isnan(each.agreement) else f"{each.agreement:.2f}",
        ]
        for name, each in tallies.items()
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in (head, *rows)
    )


def as_json(key: Key, ballots: Sequence[Ballot], tallies: dict[str, Tally]) -> bytes:
    """The contents of ``tally.json``; what is no number is null."""
    questions: dict[str, Any] = {
        name: {field: None if math.isnan(value) else value for field, value in asdict(each).items()}
        for name, each in tallies.items()
    }
    found = {
        "study": key.study,
        "a": key.about["a"],
        "b": key.about["b"],
        "pairs": len(key.left),
        "raters": {ballot.rater: len(ballot.answers) for ballot in ballots},
        "interval": f"Wilson, {LEVEL:.0%}; no difference counts as half a vote for each",
        "agreement": "Krippendorff's alpha, nominal, of A, B and no difference",
        "questions": questions,
    }
    return json.dumps(found, ensure_ascii=False, indent=1).encode() + b"\n"


def _whose(answer: str, left: str) -> str:
    """``a``, ``b`` or ``none``, of a side."""
    if answer == "none":
        return answer
    return left if answer == "left" else {"a": "b", "b": "a"}[left]


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}%"
