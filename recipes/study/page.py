"""The page that raters see: one file with all clips in it. It says neither what A and B are nor which side is whose."""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from xml.etree.ElementTree import Element

from ..report.markup import document, el, page_head
from .plan import Study
from .questions import Question

ANSWERS = (("left", "Left"), ("none", "No difference"), ("right", "Right"))
"""What votes say, and what raters read."""

KEYS = (
    ("1", "left"),
    ("2", "no difference"),
    ("3", "right"),
    ("R", "replay"),
    ("P", "pause"),
    ("N", "next pair"),
    ("B", "back"),
)


def make_page(study: Study) -> bytes:
    """The page, as an HTML file."""
    style, script = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    told = {
        "study": study.name,
        "pairs": [{"name": pair.name, "prompt": pair.left.prompt} for pair in study.pairs],
        "questions": [question.name for question in study.questions],
    }
    data = json.dumps(told, ensure_ascii=False).replace("<", "\\u003c")  # a prompt may end a script
    clips = [
        el(
            "script",
            {"type": "text/plain", "id": f"{side}-{pair.name}"},
            base64.b64encode(clip.file.read_bytes()).decode(),
        )
        for pair in study.pairs
        for side, clip in (("left", pair.left), ("right", pair.right))
    ]
    body = el(
        "body", {},
        _header(len(study.pairs)),
        el("noscript", {}, el("p", {}, "This page needs JavaScript to show its clips.")),
        el("main", {}, _rating(study.questions), _finished()),
        _footer(),
        el("script", {"type": "application/json", "id": "study"}, data),
        *clips,
        el("script", {}, script),
    )  # fmt: skip
    return document(el("html", {"lang": "en"}, page_head("Which clip?", style, script, "media-src blob:"), body))


def _header(count: int) -> Element:
    said = "Two clips of the same text play side by side. Compare them, and choose no difference where you see none. "
    said += "Your answers are kept in this browser until you are done, also when you close the page."
    return el(
        "header", {},
        el("h1", {}, "Which clip?"),
        el("p", {"class": "note"}, said),
        el("div", {"class": "bar"},
           el("label", {"for": "name"}, "Your name"),
           el("input", {"id": "name", "type": "text", "maxlength": "60", "autocomplete": "off", "spellcheck": "false"}),
           el("progress", {"id": "progress", "max": count, "value": "0", "aria-label": "pairs that are rated"}),
           el("span", {"id": "count"}, f"0 of {count} pairs rated")),
    )  # fmt: skip


def _rating(questions: tuple[Question, ...]) -> Element:
    return el(
        "section", {"id": "rating", "aria-labelledby": "text"},
        el("p", {"id": "number", "class": "note"}),
        el("h2", {"id": "text", "tabindex": "-1"}),
        el("div", {"id": "clips", "class": "clips"}, _clip("left", "Left"), _clip("right", "Right")),
        el("div", {"class": "buttons players"}, _button("replay", "Replay"), _button("pause", "Pause")),
        el("form", {"id": "questions"}, *(_question(place, each) for place, each in enumerate(questions))),
        el("div", {"class": "buttons"}, _button("back", "Back"), _button("next", "Next pair", "main")),
    )  # fmt: skip


def _clip(side: str, title: str) -> Element:
    video = el("video", {"id": side, "muted": "muted", "playsinline": "playsinline", "aria-label": f"{title} clip"})
    return el("figure", {}, el("figcaption", {}, title), video)


def _question(place: int, question: Question) -> Element:
    """Radio buttons under a question; its place stands for it in their names."""
    choices = []
    for answer, title in ANSWERS:
        name = f"q{place}-{answer}"
        choices += [
            el("input", {"type": "radio", "id": name, "name": f"q{place}", "value": answer}),
            el("label", {"for": name}, title),
        ]
    return el("fieldset", {}, el("legend", {}, question.text), el("div", {"class": "answers"}, *choices))


def _finished() -> Element:
    said = "Every pair is rated. Download your votes, and send the file to whoever gave you this page."
    return el(
        "section", {"id": "finished", "hidden": "hidden"},
        el("h2", {"id": "thanks", "tabindex": "-1"}, "Finished, thank you"),
        el("p", {}, said),
        el("div", {"class": "buttons"}, _button("again", "Look at my answers"),
           _button("other", "Begin anew, as another rater")),
    )  # fmt: skip


def _footer() -> Element:
    keys = [el("li", {}, el("kbd", {}, key), f" {what}") for key, what in KEYS]
    return el(
        "footer", {},
        el("div", {"class": "buttons"}, _button("download", "Download votes")),
        el("p", {"id": "said", "class": "note", "role": "status"}),
        el("p", {}, el("input", {"type": "checkbox", "id": "shortcuts", "checked": "checked"}), " ",
           el("label", {"for": "shortcuts"}, "Keys answer the marked question")),
        el("ul", {"class": "keys", "aria-label": "Keys"}, *keys),
    )  # fmt: skip


def _button(name: str, title: str, kind: str = "plain") -> Element:
    return el("button", {"type": "button", "id": name, "class": kind}, title)
