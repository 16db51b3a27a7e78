"""Parts of the page that say what went in and what comes out: samples, data, environment, recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any
from xml.etree.ElementTree import Element

from .folder import Samples, amount, mapping
from .markup import code, el, facts, number, short, table
from .pictures import STILLS, Picture, animation, spread, still

KEPT_RECIPE = 200_000
MOST_RESUMES = 20
WEIGHTS = {"ema": "averaged weights", "raw": "training weights"}
SPREAD = {"fps": "frames per second", "seconds": "seconds", "height": "height, pixels", "width": "width, pixels",
          "caption": "caption, characters"}  # fmt: skip
QUANTILES = ("least", "10%", "median", "90%", "most")


def samples_section(found: Sequence[Samples], step: int) -> Element:
    """The newest samples, moving, and contact sheets of some steps.

    Args:
        found: All there are.
        step: Where the run is; what is of later steps is from before it was resumed.
    """
    title, samples = el("h2", {}, "Samples over time"), [each for each in found if each.step <= step]
    if not samples:
        return el("section", {"id": "samples"}, title, el("p", {"class": "note"}, "No samples yet."))
    chosen = spread(samples)
    left_out = len(samples) - len(chosen)
    note = "The same prompts and seeds each time: a row for each video, frames from left to right."
    if left_out:
        note += f" {STILLS} of {len(samples)} steps are shown; {left_out} are left out, and lie in the run folder."
    if len(samples) < len(found):
        note += (
            f" {len(found) - len(samples)} are of steps that come again, since training was resumed, and are left out."
        )
    sheets = [_sheet(each) for each in chosen]
    return el(
        "section", {"id": "samples"}, title,
        el("div", {"class": "newest"}, _newest(samples[-1]), _prompts(samples[-1])),
        el("p", {"class": "note"}, note),
        el("div", {"class": "sheets"}, *sheets),
    )  # fmt: skip


def _newest(samples: Samples) -> Element:
    picture = animation(samples)
    step = f"Step {samples.step:,}, {_weights(samples)}"
    if picture is None:
        return el("p", {"class": "note"}, f"{step}: grid.gif is not there, or cannot be read.")
    about = f"The {len(samples.videos)} newest samples side by side, moving"
    return el("figure", {"class": "moving"}, _image(picture, about), el("figcaption", {}, step + _reduced(picture)))


def _sheet(samples: Samples) -> Element:
    picture = still(samples)
    step = el("strong", {}, f"step {samples.step:,}")
    if picture is None:
        return el("figure", {}, el("p", {"class": "note"}, "contact_sheet.png is not there, or cannot be read."),
                  el("figcaption", {}, step))  # fmt: skip
    about = f"Frames of {len(samples.videos)} samples at step {samples.step:,}"
    return el(
        "figure", {}, _image(picture, about), el("figcaption", {}, step, f", {_weights(samples)}{_reduced(picture)}")
    )


def _image(picture: Picture, about: str) -> Element:
    return el("img", {"src": picture.address, "width": picture.width, "height": picture.height, "alt": about})


def _reduced(picture: Picture) -> str:
    return "; made smaller here" if picture.reduced else ""


def _weights(samples: Samples) -> str:
    names = {str(video.get("weights")) for video in samples.videos if "weights" in video}
    return ", ".join(WEIGHTS.get(name, short(name)) for name in sorted(names)) or "weights not recorded"


def _prompts(samples: Samples) -> Element:
    """Prompts in the order of the grid, with the seeds of each."""
    seeds: dict[str, list[str]] = {}
    for video in samples.videos:
        seeds.setdefault(short(video.get("prompt", "?")), []).append(short(video.get("seed", "?")))
    rows = [(prompt, ", ".join(numbers)) for prompt, numbers in seeds.items()]
    if not rows:
        return el("p", {"class": "note"}, "Prompts and seeds: meta.jsonl is not there, or cannot be read.")
    return table(("prompt", "seeds"), rows, "Prompts, in the order of the videos")


def data_section(census: Mapping[str, Any], steps: int) -> Element:
    """What there is to train on."""
    title = el("h2", {}, "Data")
    parts = [el("div", {}, *_modality(modality, mapping(found), steps)) for modality, found in census.items()]
    if not parts:
        missing = "There is no census: of streams, and of data that is not the kit's own, none is taken."
        parts = [el("p", {"class": "note"}, missing)]
    return el("section", {"id": "data"}, title, el("div", {"class": "modalities"}, *parts))


def _modality(modality: str, census: Mapping[str, Any], steps: int) -> Iterator[Element]:
    yield el("h3", {}, f"{modality}s")
    counts = [
        ("files", number(census.get("files"))),
        ("usable, of those looked at", f"{number(census.get('usable'))} of {number(census.get('looked_at'))}"),
        ("unusable, by that", f"{_percent(census.get('share_unusable'))} of all files"),
        ("kept for validation", number(census.get("held_out"))),
        ("clips per step", number(census.get("per_step"))),
    ]
    yield facts(counts)
    examples = mapping(census.get("examples"))
    reasons = [
        (short(why), number(count), short(examples.get(why, "–")))
        for why, count in mapping(census.get("unusable")).items()
    ]
    if reasons:
        yield table(("reason", "files", "for example"), reasons, "Why files cannot be used", limit=20)
    found = census.get("sources")
    sources = [_source(mapping(source), steps) for source in (found if isinstance(found, list) else [])]
    if sources:
        yield table(("source", "samples", "share", "steps for all", "times seen"), sources, "Sources", limit=40)
    buckets = [
        (short(size), number(of.get("samples")), _percent(of.get("share_of_steps")), number(of.get("steps_per_pass")))
        for size, of in ((size, mapping(of)) for size, of in mapping(census.get("buckets")).items())
    ]
    if buckets:
        yield table(
            ("frames x height x width", "samples", "share of steps", "steps for all"), buckets, "Buckets", limit=40
        )
    spread = sorted(mapping(census.get("spread")).items(), key=lambda item: _place(item[0]))
    quantiles = [
        (SPREAD.get(name, short(name)), *(number(mapping(values).get(q)) for q in QUANTILES)) for name, values in spread
    ]
    if quantiles:
        yield table(("", *QUANTILES), quantiles, "What the usable ones are like")


def _source(source: Mapping[str, Any], steps: int) -> tuple[str, ...]:
    needed = amount(source.get("steps_per_pass"))
    passes = number(steps / needed) if needed else "–"
    counts = (number(source.get("samples")), _percent(source.get("share")), number(needed), passes)
    return short(source.get("path", "?")), *counts


def _percent(given: object) -> str:
    share = amount(given)
    return "–" if share is None else f"{share:.1%}"


def _place(name: str) -> int:
    return list(SPREAD).index(name) if name in SPREAD else len(SPREAD)


def environment_section(environment: Mapping[str, Any], resumes: Sequence[Mapping[str, Any]]) -> Element:
    """Versions, machine, precision, and how it went on."""
    title, rows = el("h2", {}, "Environment"), list(_flat(environment))
    if not rows:
        return el("section", {"id": "environment"}, title, el("p", {"class": "note"}, "Not recorded."))
    parts = [table(("", ""), rows, "What the run depends on besides its recipe")]
    for i, each in enumerate(resumes[-MOST_RESUMES:]):
        same = {key for key, value in each.items() if environment.get(key) == value}
        again = [row for row in _flat({key: value for key, value in each.items() if key not in same})]
        parts.append(
            table(("", ""), again, f"Resumed, {i + 1 + max(0, len(resumes) - MOST_RESUMES)}: what was not as above")
        )
    return el("section", {"id": "environment"}, title, *parts)


def _flat(node: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Element]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key} ")
        elif above == "changes " and isinstance(value, list) and len(value) == 2:
            yield short(key), code(f"{value[0]} → {value[1]}")
        elif value is not None and key != "resumes":
            yield short(f"{above}{key}"), code(value)


def recipe_section(text: str) -> Element:
    """The resolved recipe, closed at first."""
    title = el("h2", {}, "Recipe")
    if not text:
        return el(
            "section", {"id": "recipe"}, title, el("p", {"class": "note"}, "config.yaml is not there, or is empty.")
        )
    kept = text[:KEPT_RECIPE]
    more = f"\n… {len(text) - len(kept):,} more characters are left out" if len(kept) < len(text) else ""
    lines = sum(1 for _ in islice(text.splitlines(), 100_000))
    summary = el("summary", {}, f"config.yaml, {lines:,} lines, with all that was left to defaults")
    return el(
        "section", {"id": "recipe"}, title, el("details", {}, summary, el("pre", {}, el("code", {}, kept + more)))
    )
