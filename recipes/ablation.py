"""Trainings that differ in one thing, each measured by one protocol: what is to be run, and what came of it."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError
from .explain import explain
from .parsing import Parser

Settings = dict[str, Any]
"""Values by dotted keys, as on the command line: ``{model.framework.sigma_in: 2.0}``."""


@dataclass(frozen=True)
class Variant:
    """One of the things that are compared.

    Args:
        name: What tables call it.
        recipes: Recipes over those of all.
        settings: Settings of the training over those of all.
        evaluation: Options of ``snapvideo eval`` over those of all.
    """

    name: str
    recipes: list[str] = field(default_factory=list)
    settings: Settings = field(default_factory=dict)
    evaluation: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Ablation:
    """What is compared, and how.

    Args:
        variants: At least one, of different names.
        protocol: How each is measured.
        recipes: Recipes of all.
        model: A trained model in place of a training: variants differ in their evaluation alone.
        settings: Settings of the training of all.
        evaluation: Options of ``snapvideo eval`` of all.
        seeds: A training of each variant for each; the deviation of scores is over them.
        scores: Those that are plotted; all are in the table.

    Raises:
        ValueError: A setting is out of range, or two do not go together.
    """

    variants: list[Variant]
    protocol: str
    recipes: list[str] = field(default_factory=list)
    model: str | None = None
    settings: Settings = field(default_factory=dict)
    evaluation: Settings = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])
    scores: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"variants are {names}: give at least one, all of different names")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}: give at least one, all different")
        trained = [*self.recipes, *self.settings, *(key for v in self.variants for key in (*v.recipes, *v.settings))]
        if self.model is not None and trained:
            raise ValueError(f"model is {self.model}, which is not trained again: leave {trained[0]} out")
        if self.model is None and not all(self.recipes or variant.recipes for variant in self.variants):
            raise ValueError("recipes is empty: name one, or a model that is trained")


SECTIONS: dict[str, type | None] = {part.name: None for part in fields(Ablation)} | {"variants": Variant}
"""The settings of an ablation, and the class that one of them holds."""


@dataclass(frozen=True)
class Job:
    """A training to be done, unless it is of a trained model, and to be measured.

    Args:
        variant: Name of the variant.
        seed: Seed of the training, or, of a trained model, of the evaluation.
        model: The trained model; None: it is to be trained.
        training: Words of ``snapvideo fit``.
        evaluation: Words of ``snapvideo eval`` after run and protocol.
    """

    variant: str
    seed: int
    model: str | None
    training: tuple[str, ...]
    evaluation: tuple[str, ...]

    @property
    def label(self) -> str:
        """Name of the run: the same for all jobs of one training, another for every other."""
        mark = hashlib.sha256(json.dumps(self.training).encode()).hexdigest()[:8]
        slug = re.sub(r"[^\w.+=-]+", "-", self.variant, flags=re.ASCII).strip("-")[:40]
        return f"{slug or 'variant'}-s{self.seed}-{mark}"


def read_ablation(file: Path) -> Ablation:
    """What a file says.

    Raises:
        UserError: It cannot be read, or a setting is wrong.
    """
    parser = Parser(prog="snapvideo sweep", exit_on_error=False)
    parser.add_class_arguments(Ablation)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise UserError(f"{file} is not an ablation: it must hold settings, as in `protocol: shapes`")
        return Ablation(**vars(parser.instantiate(parser.parse_object(content))))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    except argparse.ArgumentError as error:
        raise UserError(f"{file}: {explain(str(error), SECTIONS)}") from error
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error


def jobs_of(ablation: Ablation) -> list[Job]:
    """All trainings and evaluations, variant by variant."""
    found = []
    for variant in ablation.variants:
        for seed in ablation.seeds:
            recipes = [word for name in (*ablation.recipes, *variant.recipes) for word in ("-c", name)]
            settings = words_of(ablation.settings | variant.settings)
            evaluation = words_of(ablation.evaluation | variant.evaluation)
            if ablation.model is not None:
                evaluation = (*evaluation, f"--seed={seed}")
            training = (*recipes, *settings, f"--seed_everything={seed}")
            found.append(Job(variant.name, seed, ablation.model, training, evaluation))
    return found


def words_of(settings: Settings) -> tuple[str, ...]:
    """Settings as words of a command line."""
    return tuple(f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items())


def check_jobs(jobs: Sequence[Job]) -> None:
    """Read the settings of all trainings, so that a mistake in the last one is told before the first begins.

    Raises:
        UserError: One is wrong; the message names the variant.
    """
    from .shipped import find_recipe
    from .training import read_settings

    for job in {job.variant: job for job in jobs if job.model is None}.values():  # seeds are numbers
        names = [name for flag, name in pairwise(job.training) if flag == "-c"]
        try:
            read_settings([find_recipe(name) for name in names], job.training[2 * len(names) :])
        except UserError as error:
            raise UserError(f"variant {job.variant!r}: {error}") from error
