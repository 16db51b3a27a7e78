"""``snapvideo fit|validate|test|predict``: what Lightning's Trainer does, by a recipe."""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shlex
import sys
import time
from pathlib import Path

import yaml

from ..errors import UserError
from ..quiet import quieten
from ..shipped import CONFIG, RUNS, find_config, find_recipe, run_name, shipped_recipes, smoke_overlays, summary

HELP = """\
usage: snapvideo {verb} -c RECIPE [-c RECIPE ...] [--KEY VALUE ...]

  -c, --config     a recipe: one of those below by its name, a file, or the folder of a run; later ones win
  --KEY VALUE      any setting, over all recipes: --trainer.max_steps 100 --model.backbone.channels 48
{options}
settings
  model            backbone, framework, conditioner, sampler, guidance, optimizer, scheduler, label_dropout
  data             where videos and images come from
  ema, post_hoc_ema            averaged weights, of a length chosen now or after training
  sampling, checkpoint         samples on the way, checkpoints
  trainer          Lightning's Trainer: max_steps, accelerator, devices, precision, ...
  seed_everything

  snapvideo {verb} --model.backbone.help FIT     the settings of a class
  snapvideo {verb} -c demo --print_config        a recipe with all that it leaves to defaults
  snapvideo {verb} --help-all                    all settings, some hundred lines

recipes; overlays that change one thing in them: snapvideo recipe ls
{recipes}"""

FIT = """\
  --resume RUN     go on with a run, in its folder: weights, averages, optimizer, place in the data; -c and settings
                   win over its recipe. latest: the latest run. A checkpoint: a new run goes on from there
  --init_from RUN  a new run, with the weights of another run, model or file to begin with, and nothing else of it
  --smoke          a twin of the recipe for a CPU and seconds: tiny, 20 steps, generated data
  --name NAME      the run goes to RUNS/RECIPE/TIME-NAME
  --runs RUNS      the folder of all runs (runs)
"""


OTHERS = """\
  --ckpt_path RUN  a run folder or checkpoint with the weights; default: of -c RUN
"""


def run(verb: str, argv: list[str]) -> None:
    """Run one of the four verbs."""
    if "-h" in argv or "--help" in argv:
        print(_help(verb))
        return
    options, settings = _parser().parse_known_args(argv)
    _refuse(verb, options)
    recipes = [find_recipe(name) for name in options.config]
    for recipe in recipes:
        _check(recipe)

    quieten()
    sys.path.append(os.getcwd())  # where a user's own classes are
    command = ["snapvideo", verb, *argv]
    overlays = smoke_overlays(recipes) if options.smoke else []
    words = ["--help" if word == "--help-all" else word for word in settings]
    if verb == "fit":
        _fit(options, recipes, overlays, words, command)
        return
    from ..training import Training, find_checkpoint

    runs = [file.parent for file in recipes if file == find_config(file.parent)]
    if not (options.ckpt_path or runs):
        raise UserError(f"{verb} needs weights: -c RUN, or --ckpt_path with a run folder or a checkpoint")
    args = [*(f"--config={file}" for file in recipes), *words]
    Training(args, None, command).evaluate(verb, find_checkpoint(options.ckpt_path or runs[0]))


def _fit(
    options: argparse.Namespace, recipes: list[Path], overlays: list[Path], words: list[str], command: list[str]
) -> None:
    """Train: in a new run folder, or in that of the run that goes on."""
    from ..resume import find_resumption, requeued
    from ..run import find_run, find_weights
    from ..training import Training

    runs = options.runs or RUNS
    resumption = requeued(shlex.join(command), runs)
    if resumption is None and options.resume:
        resumption = find_resumption(options.resume, recipes, runs)
    before = [resumption.run / CONFIG] if resumption and resumption.run else []
    args = [*(f"--config={file}" for file in (*before, *recipes, *overlays)), *words]
    if resumption and resumption.run and resumption.in_place:
        Training(args, resumption.run, command, resumption).fit()
        return
    label = options.name or ("smoke" if options.smoke else secrets.token_hex(2))
    folder = runs / (run_name([*before, *recipes]) or "none") / f"{time.strftime('%Y-%m-%d_%H%M%S')}-{label}"
    init_from = None
    if options.init_from:
        file = Path(options.init_from)
        init_from = file if file.is_file() else find_weights(find_run(file))
    Training(args, folder, command, resumption).fit(init_from)


def _refuse(verb: str, options: argparse.Namespace) -> None:
    """Refuse options that do not belong together, and empty ones: of a variable that is not set, say."""
    for name, value in vars(options).items():
        if value == "":
            raise UserError(f"--{name} is empty: give it a value, or leave it out")
    own = {"smoke", "name", "runs", "resume", "init_from"}
    given = [name for name, value in vars(options).items() if value and name in own]
    if verb != "fit" and given:
        raise UserError(f"--{given[0]} belongs to fit, not to {verb}")
    if verb == "fit" and options.ckpt_path:
        raise UserError("fit has no --ckpt_path: --resume RUN goes on with a run, --init_from RUN takes its weights")
    if options.resume and not Path(options.resume).is_file() and options.name:
        raise UserError("--name is of a new run, and --resume RUN goes on in the folder of its own")
    for other in ("init_from", "smoke"):
        if options.resume and other in given:
            raise UserError(f"--resume and --{other} exclude each other")
    if options.name is not None and not re.fullmatch(r"[\w.+=-]+", options.name):
        raise UserError(f"--name {options.name!r}: letters, digits and . _ - + = make a name of a folder")


def _parser() -> argparse.ArgumentParser:
    """What is no setting of a recipe."""
    parser = argparse.ArgumentParser(prog="snapvideo", add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", default=[], metavar="RECIPE")
    parser.add_argument("--ckpt_path", metavar="RUN")
    parser.add_argument("--resume", metavar="RUN")
    parser.add_argument("--init_from", metavar="RUN")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--name")
    parser.add_argument("--runs", type=Path)
    return parser


def _help(verb: str) -> str:
    return HELP.format(
        verb=verb,
        options=(FIT if verb == "fit" else OTHERS).rstrip(),
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
