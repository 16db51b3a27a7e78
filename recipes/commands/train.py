"""``snapvideo fit|validate|test|predict``: what Lightning's Trainer does, by a recipe."""

from __future__ import annotations

import argparse
import logging
import os
import re
import secrets
import sys
import time
import warnings
from pathlib import Path

import yaml

from ..errors import UserError
from ..shipped import CONFIG, RUNS, find_recipe, recipe_name, shipped_recipes, smoke_overlays, summary

HELP = """\
usage: snapvideo {verb} -c RECIPE [-c RECIPE ...] [--KEY VALUE ...]

  -c, --config     a recipe: one of those below by its name, a file, or the folder of a run; later ones win
  --KEY VALUE      any setting, over all recipes: --trainer.max_steps 100 --model.backbone.channels 48
  --ckpt_path      {checkpoint}
{options}
settings
  model            backbone, framework, conditioner, sampler, guidance, optimizer, scheduler, label_dropout
  data             where videos and images come from
  ema, sampling, checkpoint    averaged weights, samples on the way, checkpoints
  trainer          Lightning's Trainer: max_steps, accelerator, devices, precision, ...
  seed_everything

  snapvideo {verb} --model.backbone.help FIT     the settings of a class
  snapvideo {verb} -c demo --print_config        a recipe with all that it leaves to defaults
  snapvideo {verb} --help-all                    all settings, some hundred lines

recipes; overlays that change one thing in them: snapvideo recipe ls
{recipes}"""

FIT = """\
  --smoke          a twin of the recipe for a CPU and seconds: tiny, 20 steps, generated data
  --name NAME      the run goes to RUNS/RECIPE/TIME-NAME
  --runs RUNS      the folder of all runs (runs)
"""


def run(verb: str, argv: list[str]) -> None:
    """Run one of the four verbs."""
    if "-h" in argv or "--help" in argv:
        print(_help(verb))
        return
    options, settings = _parser().parse_known_args(argv)
    if verb != "fit" and (options.smoke or options.name or options.runs):
        raise UserError(f"--smoke, --name and --runs belong to fit, not to {verb}")
    recipes = [find_recipe(name) for name in options.config]
    for recipe in recipes:
        _check(recipe)
    files = [f"--config={file}" for file in (*recipes, *(smoke_overlays(recipes) if options.smoke else []))]
    args = [*files, *("--help" if word == "--help-all" else word for word in settings)]

    _quieten()
    sys.path.append(os.getcwd())  # where a user's own classes are
    from ..training import Training, find_checkpoint

    command = ["snapvideo", verb, *argv]
    if verb == "fit":
        if options.name is not None and not re.fullmatch(r"[\w.+=-]+", options.name):
            raise UserError(f"--name {options.name!r}: letters, digits and . _ - + = make a name of a folder")
        label = options.name or ("smoke" if options.smoke else secrets.token_hex(2))
        name = recipe_name(recipes[0]) if recipes else "none"
        folder = (options.runs or RUNS) / name / f"{time.strftime('%Y-%m-%d_%H%M%S')}-{label}"
        checkpoint = find_checkpoint(options.ckpt_path) if options.ckpt_path else None
        Training(args, folder, command).fit(checkpoint)
        return
    runs = [file.parent for file in recipes if file.name == CONFIG]
    if not (options.ckpt_path or runs):
        raise UserError(f"{verb} needs weights: -c RUN, or --ckpt_path with a run folder or a checkpoint")
    Training(args, None, command).evaluate(verb, find_checkpoint(options.ckpt_path or runs[0]))


def _parser() -> argparse.ArgumentParser:
    """What is no setting of a recipe."""
    parser = argparse.ArgumentParser(prog="snapvideo", add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", default=[], metavar="RECIPE")
    parser.add_argument("--ckpt_path", metavar="RUN")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--name")
    parser.add_argument("--runs", type=Path)
    return parser


def _help(verb: str) -> str:
    fit = verb == "fit"
    return HELP.format(
        verb=verb,
        checkpoint=f"a run folder or checkpoint {'to go on from' if fit else 'with the weights; default: of -c RUN'}",
        options=FIT if fit else "",
        recipes="\n".join(f"  {name:27}{summary(file, 80)}" for name, file in shipped_recipes(overlays=False).items()),
    )


def _check(recipe: Path) -> None:
    """Refuse what is not YAML here, where its name is known."""
    try:
        content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{recipe} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{recipe} is not a recipe: it must hold settings, as in `trainer: {{max_steps: 100}}`")


def _quieten() -> None:
    """Leave out what Lightning says in every run and users can do nothing about."""
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning 2.6 with torch 2.13
    rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    rank_zero.addFilter(lambda record: "Tip: For seamless" not in record.getMessage())
