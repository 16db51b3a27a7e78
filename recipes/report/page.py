"""The page: what a run is and where it stands, then its curves, samples, data, environment and recipe."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from xml.etree.ElementTree import Element

from ...components.callbacks.bad_steps import BAD_STEPS
from ...components.media import write_bytes
from .curves import WIDTH
from .folder import METRICS, RunFolder, amount, mapping, read_run
from .markup import code, document, duration, el, facts, number, page_head, short, table
from .panels import MOST_FIGURES, MOST_POINTS, WAIT, draw, figures, mean_of, not_finite, step_axis, turned_up
from .progress import state_of
from .sections import data_section, environment_section, recipe_section, samples_section

REPORT = "report.html"
KEPT_COMMAND = 50_000

SIGNS = {"running": "▶", "finished": "✓", "stopped": "■", "failed": "✕", "unknown": "?"}

READING = (
    "Look at samples first. A falling loss does not say that they are good, and a flat one not that they are bad.",
    "Steps are optimizer steps done. A row of metrics.csv that says step 39 is about the 40th.",
    "Losses can be compared within a run, and between runs on the same data whose frameworks have the same settings. "
    "With another sigma_in, sigma_data or distribution of noise levels the same number means something else.",
    "Noise bands are fifths of the training levels, equally likely. Levels that are hardly trained are in none: if all "
    "bands fall while samples ignore their captions, or their parts ignore each other, train at higher levels "
    "(P_mean, sigma_in).",
    "Where the recipe has averaged weights (ema), val/… and samples are theirs; val_raw/…, where it is there, is of "
    "the weights in training.",
    "The thick line of a figure is the mean of the last values at each step: it comes a little late.",
)


def write_report(run: Path, path: Path | None = None) -> Path:
    """Write the page of a run folder, at once or not at all.

    Args:
        run: The folder.
        path: The file; None: ``report.html`` in the folder.

    Returns:
        The file.
    """
    path = path or run / REPORT
    write_bytes(path, make_page(read_run(run)))
    return path


def make_page(run: RunFolder) -> bytes:
    """The page of a run, as an HTML file."""
    style, script = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    word, why = state_of(run.progress, run.step, run.max_steps, run.training)
    axis = step_axis(run.metrics)
    sections = [
        _curves(run),
        samples_section(run.samples, run.step),
        data_section(run.census, run.step),
        environment_section(run.environment, run.resumes),
        recipe_section(run.recipe_text),
        _reading(),
    ]
    links = [el("li", {}, el("a", {"href": f"#{part.get('id')}"}, part[0].text or "")) for part in sections]
    title = f"{SIGNS[word]} {run.path.parent.name}/{run.path.name}"
    made = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    again = "While it runs, the page loads itself anew when you come back to its tab. " if word == "running" else ""
    footer = el("footer", {}, "Made ", _time(made), f" of {run.path.name}. {again}Anew: ",
                el("code", {}, "snapvideo report RUN"), ".")  # fmt: skip
    scale = " ".join(str(value) for value in (axis.low, axis.high, axis.start, axis.end, WIDTH))
    body = el(
        "body", {"data-state": word, "data-axis": scale},
        _header(run, word, why),
        el("nav", {"aria-label": "Parts of this page"}, el("ul", {}, *links)),
        el("main", {}, _findings(run), *sections),
        footer,
        el("script", {}, script),
    )  # fmt: skip
    return document(el("html", {"lang": "en"}, page_head(title, style, script), body))


def _time(text: object) -> Element:
    """A point in time; the script adds how long ago that is."""
    return el("time", {"datetime": short(text)}, re.sub(r"^(\S+)T(\S+)([+-]\d{4})$", r"\1 \2 \3", short(text)))


def _header(run: RunFolder, word: str, why: str) -> Element:
    total = f" of {run.max_steps:,}" if run.max_steps else ""
    said = f" — {short(why)}" if why else ""
    bar = [el("progress", {"max": run.max_steps, "value": min(run.step, run.max_steps)})] if run.max_steps else []
    command = str(run.environment.get("command") or "not recorded")[:KEPT_COMMAND]
    return el(
        "header", {},
        el("p", {"class": "recipe"}, run.path.parent.name),
        el("h1", {}, run.path.name),
        el("p", {"class": f"state {word}"}, el("strong", {}, f"{SIGNS[word]} {word}"),
           f" at step {run.step:,}{total}{said}"),
        *bar,
        facts(_facts(run, word)),
        el("pre", {"class": "command", "aria-label": "the command that was given"}, el("code", {}, command)),
    )  # fmt: skip


def _facts(run: RunFolder, word: str) -> Iterator[tuple[str, Element | str]]:
    """What people ask first."""
    progress, seconds, at = run.progress, amount(run.progress.get("seconds")), amount(run.progress.get("step"))
    late = f" (at step {at:,})" if at is not None and at != run.step else ""
    yield "clips seen", f"{number(progress.get('clips'))}{late}" if progress else "not recorded"
    yield "training time", "not recorded" if seconds is None else f"{duration(seconds)}{late}"
    if word == "running" and run.max_steps and seconds is not None and at:
        yield "left, at this pace", f"about {duration(seconds / at * max(0, run.max_steps - at))}"
    for name in ("train/loss", "val/loss", "val_raw/loss"):
        if name in run.metrics:
            curve = run.metrics[name]
            label = "train/loss, one batch" if name == "train/loss" else name
            yield label, f"{number(curve.values[-1])} at step {curve.steps[-1]:,}"
    yield "began", _time(run.environment["started"]) if "started" in run.environment else "not recorded"
    if run.resumes:
        yield "went on", f"{len(run.resumes)} ×, last from step {number(run.resumes[-1].get('step'))}"
    if "time" in progress:
        yield "last heard of" if word in ("running", "stopped") else "ended", _time(progress["time"])
    yield (
        "device",
        f"{run.environment.get('device', 'not recorded')}, {run.environment.get('precision', '')}".strip(", "),
    )
    yield "checkpoint", code(run.checkpoints[-1]) if run.checkpoints else "none yet"


def _findings(run: RunFolder) -> Element:
    """What its owner should know before anything else."""
    found = [*not_finite(run.metrics), *run.problems]
    if bad := run.bad_steps:
        last = f"the last of them {bad[-1]:,}; their loss or gradient was not finite"
        found.append(f"{BAD_STEPS}: {len(bad):,} steps were skipped, {last}.")
    if (curve := run.metrics.get("val/loss")) and (said := turned_up(curve)):
        found.append(said)
    if wait := run.metrics.get("data_wait"):
        late = wait.finite.values[-max(1, len(wait) // 10) :]
        if late and mean_of(late) > WAIT:
            said = (
                f"data_wait: training waits for data {mean_of(late):.0%} of the time, by the last {len(late):,} values"
            )
            found.append(f"{said}; more data.num_workers may help.")
    for modality, census in run.census.items():
        share = amount(mapping(census).get("share_unusable"))
        if share:
            found.append(f"census.json: {share:.1%} of the {modality} files cannot be used; see Data.")
    if not found:
        losses = "values that are not finite, steps that were skipped, a validation loss that turned up"
        others = "waiting for data, files that are missing or unusable"
        return el("p", {"class": "quiet"}, f"Nothing stands out of what this page looks for: {losses}, {others}.")
    items = [el("li", {}, text) for text in found]
    return el("section", {"class": "findings"}, el("h2", {}, "What stands out"), el("ul", {}, *items))


def _curves(run: RunFolder) -> Element:
    drawn = figures(run.metrics)
    limit = max(24, min(400, MOST_POINTS // max(1, len(run.metrics))))
    axis, labels = step_axis(run.metrics), _labels(run)
    resumed = [step for each in run.resumes if isinstance(step := each.get("step"), int) and step > axis.low]
    shown, explained = [], set[str]()  # notes that were given
    for i, figure in enumerate(drawn[:MOST_FIGURES]):
        shown.append(draw(figure, f"figure-{i}", axis, limit, labels, resumed, figure.panel.note not in explained))
        explained.add(figure.panel.note)
    notes: list[Element] = []
    if resumed:
        notes.append(el("p", {"class": "note"}, "At dotted upright lines training was resumed; see Environment."))
    if not drawn:
        notes.append(el("p", {"class": "note"}, f"No metrics yet: {METRICS} has no whole row."))
    elif not any(name.startswith("val") for name in run.metrics):
        notes.append(
            el("p", {"class": "note"}, "No validation yet; without clips kept for it (data.holdout) there is none.")
        )
    if len(drawn) > len(shown):
        notes.append(
            el("p", {"class": "note"}, f"{len(drawn) - len(shown)} more figures are left out; the table has all.")
        )
    rows: Sequence[tuple[Element | str, ...]] = [
        (code(name), number(curve.values[-1]), f"{curve.steps[-1]:,}", *_ends(curve.finite.values), f"{len(curve):,}")
        for name, curve in run.metrics.items()
    ]
    head = ("metric", "last", "at step", "least", "most", "values")
    numbers = el("details", {}, el("summary", {}, f"The same as numbers: {len(rows)} metrics"),
                 table(head, rows, "All metrics", limit=1000))  # fmt: skip
    return el("section", {"id": "curves"}, el("h2", {}, "Curves"), *notes,
              el("div", {"class": "figures"}, *shown), *([numbers] if rows else []))  # fmt: skip


def _ends(values: Sequence[float]) -> tuple[str, str]:
    return (number(min(values)), number(max(values))) if values else ("–", "–")


def _labels(run: RunFolder) -> dict[str, str]:
    """Whose losses of validation are."""
    averaged = run.recipe.get("ema") is not None
    labels = {}
    for name in run.metrics:
        if name.startswith("val_raw/"):
            labels[name] = "training weights"
        elif name.startswith("val/") and averaged:
            labels[name] = "averaged weights"
    return labels


def _reading() -> Element:
    points = [el("li", {}, text) for text in READING]
    return el("section", {"id": "reading"}, el("h2", {}, "How to read this page"), el("ul", {}, *points))
