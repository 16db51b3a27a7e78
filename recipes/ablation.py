"""Trainings that differ in one thing, each measured by one protocol: what is to be run, and what came of it."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError
from .explain import explain
from .parsing import Parser
from .results import mark_of
from .shipped import find_recipe

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
        if (
            not self.seeds
            or len(set(self.seeds)) < len(self.seeds)
            or not all(0 <= seed < 2**32 for seed in self.seeds)
        ):
            raise ValueError(f"seeds are {self.seeds}: give at least one, all different, at least 0 and below 2^32")
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
        run: Name of the run: the same for equal settings, whatever files they come from, another for all others.
        result: Name of what is measured of it: another one for another protocol, or other options.
    """

    variant: str
    seed: int
    model: str | None
    training: tuple[str, ...]
    evaluation: tuple[str, ...]
    run: str
    result: str


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
        raise UserError(f"{file}: {explain(str(error), SECTIONS, 'write it there')}") from error
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error


def jobs_of(ablation: Ablation, protocol: Path) -> list[Job]:
    """All trainings and evaluations, variant by variant.

    Args:
        ablation: What is compared.
        protocol: The file of its protocol.

    Raises:
        UserError: A setting of a training is wrong: that of the last is told before the first begins.
    """
    found = []
    for variant in ablation.variants:
        settings = _settings(ablation, variant)
        found += [
            _job(ablation, variant, settings, seed, protocol.read_text(encoding="utf-8")) for seed in ablation.seeds
        ]
    return found


def _job(ablation: Ablation, variant: Variant, settings: Settings, seed: int, protocol: str) -> Job:
    evaluation = words_of(ablation.evaluation | variant.evaluation)
    if ablation.model is not None:
        evaluation = (*evaluation, f"--seed={seed}")
    recipes = [word for name in (*ablation.recipes, *variant.recipes) for word in ("-c", name)]
    training = (*recipes, *words_of(ablation.settings | variant.settings), f"--seed_everything={seed}")
    slug = re.sub(r"[^\w.+=-]+", "-", variant.name, flags=re.ASCII).strip("-")[:40] or "variant"
    run = f"{slug}-s{seed}-{mark_of([settings, seed])}"
    result = f"{slug}-s{seed}-{mark_of([settings, seed, ablation.model, protocol, evaluation])}"
    return Job(variant.name, seed, ablation.model, training, evaluation, run, result)


def _settings(ablation: Ablation, variant: Variant) -> Settings:
    """All settings of the training of a variant."""
    from .training import read_settings

    if ablation.model is not None:
        return {}
    recipes, words = (*ablation.recipes, *variant.recipes), words_of(ablation.settings | variant.settings)
    try:
        return read_settings([find_recipe(name) for name in recipes], words)
    except UserError as error:
        raise UserError(f"variant {variant.name!r}: {error}") from error


def words_of(settings: Settings) -> tuple[str, ...]:
    """Settings as words of a command line."""
    return tuple(f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items())
