"""HTML as a tree of elements: the library that writes it out escapes whatever files say."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias
from xml.etree.ElementTree import Element, tostring

Child: TypeAlias = "Element | str"

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_KEPT_TEXT = 2000


def el(name: str, attributes: Mapping[str, object] | None = None, *children: Child) -> Element:
    """An element with attributes and children; texts are texts, never markup."""
    node = Element(name, {key: _clean(str(value)) for key, value in (attributes or {}).items()})
    for child in children:
        if isinstance(child, Element):
            node.append(child)
        elif len(node):
            node[-1].tail = (node[-1].tail or "") + _clean(child)
        else:
            node.text = (node.text or "") + _clean(child)
    return node


def document(root: Element) -> bytes:
    """A whole HTML file."""
    return b"<!DOCTYPE html>\n" + tostring(root, encoding="unicode", method="html").encode() + b"\n"


def page_head(title: str, style: str, script: str, media: str = "img-src data:") -> Element:
    """The head of a page that holds all it needs: it runs its own script alone, and asks nothing of any host.

    Args:
        title: What the tab is called.
        style: Its style sheet.
        script: Its script, which goes into the body.
        media: What else it shows, as in a Content-Security-Policy.
    """
    policy = f"default-src 'none'; {media}; style-src {_hash(style)}; script-src {_hash(script)}; "
    policy += "base-uri 'none'; form-action 'none'"
    return el(
        "head", {},
        el("meta", {"charset": "utf-8"}),
        el("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        el("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        el("meta", {"name": "color-scheme", "content": "light dark"}),
        el("title", {}, title),
        el("style", {}, style),
    )  # fmt: skip


def table(head: Sequence[str], rows: Iterable[Sequence[Child]], caption: str, limit: int = 60) -> Element:
    """A table that scrolls by itself where the screen is narrow; rows beyond `limit` are left out, and counted.

    Args:
        head: Titles of the columns.
        rows: Cells; the first of a row is its title.
        caption: What the table shows.
        limit: Most rows.
    """
    rows = list(rows)
    body = [
        el("tr", {}, el("th", {"scope": "row"}, row[0]), *(el("td", {}, cell) for cell in row[1:]))
        for row in rows[:limit]
    ]
    left_out = [el("p", {"class": "note"}, f"{len(rows) - limit:,} more rows are left out.")] if rows[limit:] else []
    made = el(
        "table",
        {},
        el("caption", {}, caption),
        el("thead", {}, el("tr", {}, *(el("th", {"scope": "col"}, title) for title in head))),
        el("tbody", {}, *body),
    )
    return el("div", {"class": "wide", "tabindex": "0", "role": "region", "aria-label": caption}, made, *left_out)


def facts(pairs: Iterable[tuple[str, Child]]) -> Element:
    """Names and what they are."""
    rows = [el("div", {}, el("dt", {}, name), el("dd", {}, value)) for name, value in pairs]
    return el("dl", {}, *rows)


def code(text: object) -> Element:
    """A name of a file, a setting or a metric."""
    return el("code", {}, short(text))


def short(text: object) -> str:
    """A text of a file that may hold anything, at most 2,000 characters of it."""
    text = str(text)
    return text if len(text) <= _KEPT_TEXT else f"{text[:_KEPT_TEXT]} … ({len(text) - _KEPT_TEXT:,} more characters)"


def number(value: object) -> str:
    """A number with four significant digits, ``2.229``, ``12,345``, ``1e-4``; other things as they are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else short(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e9:
        mantissa, _, exponent = f"{value:.3e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """``1 min 26 s``, ``2 h 5 min``, ``3 d 4 h``."""
    left = round(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or parts or length == 1:
            parts.append(f"{count} {unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 ")) or "0 s"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _clean(text: str) -> str:
    """The text without what no HTML file may hold: control characters and halves of characters."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)
