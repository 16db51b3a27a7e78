"""``snapvideo fit|validate|test|predict``: Lightning's command line over our parts."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..shipped import CONFIG, LATEST, SMOKE, find_recipe, recipe_name, shipped_recipes, summary

HELP = """\
usage: snapvideo {verb} -c RECIPE [-c RECIPE ...] [--KEY VALUE ...]

  -c, --config    a recipe: a shipped one by name, a file, or the folder of a run; later ones win, and --KEY over all
  --KEY VALUE     any setting: --model.backbone.dim_patch 48, --model.framework EDM, --trainer.max_steps 100
  --ckpt_path     {ckpt_path}
{options}
settings
  model           backbone, framework, conditioner, sampler, guidance, optimizer, scheduler
  data            where videos and images come from
  ema, sampling, checkpoint   averaged weights, samples on the way, checkpoints
  trainer         Lightning's Trainer: max_steps, accelerator, devices, precision, ...
  seed_everything

  snapvideo {verb} --model.backbone.help FIT     settings of a class
  snapvideo {verb} -c demo --print_config        a recipe with all its settings
  snapvideo {verb} --help-all                    every setting, some hundred lines

shipped recipes
{recipes}"""

FIT_OPTIONS = """\
  --smoke         a twin of the recipe for seconds on a CPU: tiny, 20 steps, generated data
  --name NAME     the run goes to RUNS/RECIPE/TIME-NAME
  --runs RUNS     folder of all runs; default: runs
"""


def run(verb: str, argv: list[str]) -> None:
    """Run one of Lightning's verbs."""
    if {"-h", "--help"} & set(argv):
        print(_help(verb))
        return
    ours, settings = _parser().parse_known_args(argv)
    if verb != "fit" and (ours.smoke or ours.name or ours.runs != Path("runs")):
        raise UserError(f"--smoke, --name and --runs go with fit, not with {verb}")
    recipes = [find_recipe(name) for name in ours.config]
    settings = ["--help" if word == "--help-all" else word for word in settings]
    files = [f"--config={file}" for file in [*recipes, *([SMOKE] if ours.smoke else [])]]

    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    sys.path.append(os.getcwd())  # where a user's own classes are
    from ..training import Training

    if verb == "fit":
        label = ours.name or ("smoke" if ours.smoke else secrets.token_hex(2))
        name = recipe_name(recipes[0]) if recipes else "none"
        folder = ours.runs / name / f"{time.strftime('%Y-%m-%d_%H%M%S')}-{label}"
        training = Training([*files, *settings], folder, command=["snapvideo", verb, *argv])
        training.fit(None)


def _parser() -> argparse.ArgumentParser:
    """What is not a setting of the recipe."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--ckpt_path")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--name")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    return parser

def _help(verb: str) -> str:
    recipes = "\n".join(f"  {name:16}{summary(file)}" for name, file in shipped_recipes().items())
    return HELP.format(verb=verb, options=FIT_OPTIONS if verb == "fit" else "", recipes=recipes, ckpt_path="x")
