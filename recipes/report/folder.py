"""What a run folder holds, as far as it can be read: files may be missing, cut short, or grow meanwhile."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ...components.callbacks.bad_steps import BAD_STEPS
from ..lock import is_training
from ..shipped import CENSUS, CONFIG, ENVIRONMENT
from .progress import PROGRESS

METRICS = "metrics.csv"
NO_METRICS = ("step", "epoch")
"""Columns of ``metrics.csv`` that say where a row stands."""


@dataclass(frozen=True)
class Curve:
    """Values of one metric.

    Args:
        steps: Optimizer steps done when each was measured, rising.
        values: As many values; some may not be finite.
    """

    steps: Sequence[int]
    values: Sequence[float]

    def __len__(self) -> int:
        return len(self.steps)

    def at(self, places: Iterable[int]) -> Curve:
        """Some of the values."""
        places = list(places)
        return Curve([self.steps[i] for i in places], [self.values[i] for i in places])

    @cached_property
    def finite(self) -> Curve:
        """The finite values alone."""
        return self.at(i for i, value in enumerate(self.values) if math.isfinite(value))

    @cached_property
    def not_finite(self) -> Curve:
        """The others alone."""
        return self.at(i for i, value in enumerate(self.values) if not math.isfinite(value))


@dataclass(frozen=True)
class Samples:
    """A folder ``samples/step=...``.

    Args:
        step: The step.
        folder: The folder.
        videos: The lines of its ``meta.jsonl``: a video each.
    """

    step: int
    folder: Path
    videos: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class RunFolder:
    """All of a run that its page shows, except pictures.

    Args:
        path: The folder.
        recipe_text: ``config.yaml`` as it is.
        recipe: What it says.
        environment: What ``env.json`` says.
        census: What ``census.json`` says.
        progress: What ``progress.json`` says.
        metrics: Curves by name.
        samples: Those made on the way, the first first.
        checkpoints: Names of the files, the oldest first.
        bad_steps: Steps that were skipped, as their loss or gradient was not finite.
        training: Whether a process trains in the folder, as far as this machine can tell.
        problems: What is missing or cannot be read, in sentences.
    """

    path: Path
    recipe_text: str
    recipe: dict[str, Any]
    environment: dict[str, Any]
    census: dict[str, Any]
    progress: dict[str, Any]
    metrics: dict[str, Curve]
    samples: Sequence[Samples]
    checkpoints: Sequence[str]
    bad_steps: Sequence[int]
    training: bool | None
    problems: Sequence[str]

    @property
    def step(self) -> int:
        """The last step that left a trace; 0: none did."""
        recorded = self.progress.get("step")
        traces = [curve.steps[-1] for curve in self.metrics.values()]
        if isinstance(recorded, int):
            return max([recorded, *traces])
        traces += [int(name) for file in self.checkpoints for name in re.findall(r"step=(\d+)", file)]
        return max([samples.step for samples in self.samples] + traces, default=0)

    @property
    def resumes(self) -> list[dict[str, Any]]:
        """What ``env.json`` says of each time that training went on."""
        found = self.environment.get("resumes")
        return [mapping(each) for each in found] if isinstance(found, list) else []

    @property
    def max_steps(self) -> int | None:
        """Steps at which training ends; None: it has no such number."""
        for given in (self.progress.get("max_steps"), mapping(self.recipe.get("trainer")).get("max_steps")):
            if isinstance(given, int) and given > 0:
                return given
        return None


def read_run(path: Path) -> RunFolder:
    """Read a run folder; whatever cannot be read is left out, and named in `problems`."""
    problems: list[str] = []
    recipe_text = _text(path / CONFIG, problems)
    return RunFolder(
        path=path,
        recipe_text=recipe_text,
        recipe=_recipe(recipe_text, problems),
        environment=_json(path / ENVIRONMENT, problems),
        census=_json(path / CENSUS, problems),
        progress=_json(path / PROGRESS, []),  # a run of an older version has none, and misses nothing else
        metrics=_metrics(path / METRICS, problems),
        samples=_samples(path / "samples"),
        checkpoints=sorted(file.name for file in (path / "checkpoints").glob("step=*.ckpt")),
        bad_steps=_bad_steps(path / BAD_STEPS),
        training=is_training(path),
        problems=problems,
    )


def mapping(node: object) -> dict[str, Any]:
    """A mapping of a file that may hold anything; an empty one in place of what is none."""
    return node if isinstance(node, dict) else {}


def amount(node: object) -> float | None:
    """A finite number of a file that may hold anything; None in place of what is none."""
    return node if isinstance(node, int | float) and math.isfinite(node) else None


def _text(path: Path, problems: list[str]) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        problems.append(f"{path.name} is not there.")
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}.")
    return ""


def _recipe(text: str, problems: list[str]) -> dict[str, Any]:
    try:
        return mapping(yaml.safe_load(text))
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date that is none
        problems.append(f"{CONFIG} is not YAML.")
        return {}


def _json(path: Path, problems: list[str]) -> dict[str, Any]:
    text = _text(path, problems)
    try:
        return mapping(json.loads(text)) if text else {}
    except (ValueError, RecursionError):
        problems.append(f"{path.name} is not JSON, or is cut short.")
        return {}


def _metrics(path: Path, problems: list[str]) -> dict[str, Curve]:
    """Curves by name, in the order of the columns; Lightning counts from 0 the step that a row is about."""
    text = _text(path, problems)
    whole = text[: text.rfind("\n") + 1].replace("\0", "\N{REPLACEMENT CHARACTER}")  # the last row may be half a row
    rows = csv.reader(whole.splitlines())
    header = next(rows, [])
    if "step" not in header:
        if text:
            problems.append(f"{path.name} has no column `step`.")
        return {}
    place_of_step = header.index("step")
    points: list[list[tuple[int, float]]] = [[] for _ in header]
    unreadable = 0
    for row in rows:
        try:
            step = int(float(row[place_of_step])) + 1
            values = [(i, float(cell)) for i, cell in enumerate(row) if cell]
            for i, value in values:
                points[i].append((step, value))
        except (ValueError, IndexError, OverflowError):  # it is no row of numbers, or has more cells than names
            unreadable += 1
    if unreadable:
        problems.append(f"{path.name}: {unreadable} rows are not numbers alone and are left out.")
    curves = {}
    for name, found in zip(header, points, strict=True):
        if found and name not in NO_METRICS:
            found.sort(key=lambda point: point[0])
            curves[name] = Curve([step for step, _ in found], [value for _, value in found])
    return curves


def _samples(path: Path) -> list[Samples]:
    found = []
    for folder in path.glob("step=*"):
        step = re.fullmatch(r"step=(\d+)", folder.name)
        if step and folder.is_dir():
            found.append(Samples(int(step[1]), folder, _lines(folder / "meta.jsonl")))
    return sorted(found, key=lambda samples: samples.step)


def _bad_steps(path: Path) -> list[int]:
    return sorted({line["step"] for line in _lines(path) if isinstance(line.get("step"), int)})


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, each of them JSON."""
    lines = []
    for line in _text(path, []).split("\n"):
        try:
            lines.append(mapping(json.loads(line)))
        except (ValueError, RecursionError):  # it is empty or cut short
            continue
    return lines
