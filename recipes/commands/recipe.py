"""``snapvideo recipe``: the recipes that come with the package, and what training one costs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..differences import differences, table
from ..errors import UserError
from ..shipped import find_recipe, find_recipes, shipped_recipes, summary

if TYPE_CHECKING:
    from ..plan import Plan

CARDS = (24, 48, 80, 141)
"""Memory in GB of the cards that a plan is held against."""

RESERVED = 0.1
"""Share of a card's memory that is not there to plan with: the driver's, the allocator's gaps."""


def run(verb: str, argv: list[str]) -> None:
    """Run ``snapvideo recipe ls|cat|cp|check|diff``."""
    options, settings = _parser().parse_known_args(argv)
    if settings and options.action != "check":
        raise UserError(f"unknown: {' '.join(settings)}; snapvideo recipe {options.action} --help")
    if options.action == "ls":
        for name, file in shipped_recipes().items():
            print(f"{name:27}{summary(file)}")
    elif options.action == "cat":
        sys.stdout.write(find_recipe(options.name).read_text(encoding="utf-8"))
    elif options.action == "cp":
        _copy(options.name, options.file)
    elif options.action == "check":
        _check(options, settings)
    else:
        _diff(options.one, options.other)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="snapvideo recipe", description="The recipes that come with the package.")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("ls", help="list them")
    show = actions.add_parser("cat", help="show one")
    copy = actions.add_parser("cp", help="copy one to a file, to change it")
    for action in (show, copy):
        action.add_argument("name", metavar="NAME")
    copy.add_argument("file", metavar="FILE", type=Path)
    check = actions.add_parser(
        "check",
        help="build the model without data or GPU: parameters, FLOPs, memory",
        epilog="Settings go after the names, as for fit: --model.backbone.num_latents 256",
    )
    check.add_argument("names", metavar="NAME", nargs="+", help="a recipe, and overlays on it")
    check.add_argument("--batch-size", type=int, metavar="N", help="clips per device (the recipe's)")
    check.add_argument("--memory", type=float, metavar="GB", help="memory of a card; default: some usual ones")
    what = "cards that share a model with FSDP2; several numbers: a column for each (8 64)"
    check.add_argument("--devices", type=int, nargs="+", default=[8, 64], metavar="N", help=what)
    check.add_argument("--json", action="store_true", help="print figures for programs, in bytes and FLOPs")
    diff = actions.add_parser("diff", help="the settings in which two recipes differ, defaults included")
    diff.add_argument("one", metavar="NAME", help="as demo, or demo+overlays/ddpm")
    diff.add_argument("other", metavar="NAME")
    return parser


def _copy(name: str, path: Path) -> None:
    text = find_recipe(name).read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} exists already: choose another name") from None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    print(f"train:  snapvideo fit -c {path}")


def _check(options: argparse.Namespace, settings: list[str]) -> None:
    from ..plan import make_plan
    from ..run import build_model

    for name, values in (("--batch-size", [options.batch_size]), ("--devices", options.devices)):
        for value in values:
            if value is not None and value < 1:
                raise UserError(f"{name} {value}: it must be at least 1")
    if options.memory is not None and not 0 < options.memory < float("inf"):
        raise UserError(f"--memory {options.memory}: it must be a number of GB above 0")
    config = settings_of(options.names, settings)
    data = (config.get("data") or {}).get("init_args") or {}
    post_hoc = (config.get("post_hoc_ema") or {}).get("init_args") or {}
    own = data.get("video_batch_size", 0) + data.get("image_batch_size", 0)
    plan = make_plan(
        lambda: build_model(config["model"]),
        options.batch_size or own or 1,
        precision=config["trainer"]["precision"],
        averages=(config.get("ema") is not None) + len(post_hoc.get("stds", ())),
    )
    if options.json:
        about = {"recipe": "+".join(options.names), "precision": config["trainer"]["precision"]}
        shared = {str(devices): plan.peak(plan.batch_size, devices) for devices in options.devices}
        print(json.dumps(about | plan.as_dict() | {"peak_shared": shared}, indent=1))
        return
    cards = CARDS if options.memory is None else (options.memory,)
    print(_report(plan, config["trainer"]["precision"], cards, options.devices))


def _report(plan: Plan, precision: str, cards: tuple[float, ...], devices: Sequence[int]) -> str:
    """The plan for people."""
    memory = {
        "weights": plan.weights,
        "gradients": plan.gradients,
        "optimizer": plan.optimizer,
        "averaged weights": plan.ema,
        "optimizer's step": plan.update,
        f"activations, {plan.batch_size} clips": plan.activations + plan.activations_per_clip * (plan.batch_size - 1),
    }
    shards = (1, *devices)
    columns = ["whole model", *(f"FSDP2, {number} cards" for number in devices)]

    def row(name: str, values: Sequence[object]) -> str:
        return f"  {name:10}" + "".join(f"{value!s:>18}" for value in values)

    lines = [
        f"parameters     {plan.parameters / 1e6:,.1f}M, {plan.parameters_backbone / 1e6:,.1f}M of them in the backbone",
        f"FLOPs per clip {plan.flops_forward / 1e12:,.3f} TFLOP evaluation, {plan.flops_train / 1e12:,.3f} training",
        f"memory         GB per device, {precision}, a frozen text encoder not counted",
        *(f"  {name:24}{size / 1e9:10,.2f}" for name, size in memory.items()),
        f"peak           GB per device, {plan.batch_size} clips",
        row("", columns),
        row("", [f"{plan.peak(plan.batch_size, number) / 1e9:,.2f}" for number in shards]),
        f"largest batch  clips per device, {RESERVED:.0%} of the memory left free",
        row("card", columns),
    ]
    for card in cards:
        room = card * 1e9 * (1 - RESERVED)
        lines.append(row(f"{card:g} GB", [plan.largest_batch(room, number) or "-" for number in shards]))
    return "\n".join(lines)


def _diff(one: str, other: str) -> None:
    """Print the settings that differ, those of the first recipe before those of the second."""
    different = differences(settings_of([one]), settings_of([other]))
    print(table(different) or "no setting differs")


def settings_of(names: Sequence[str], settings: Sequence[str] = ()) -> dict[str, Any]:
    """What recipes and settings come to, with all defaults.

    Args:
        names: Recipes, of which later ones win.
        settings: ``--KEY VALUE`` or ``--KEY=VALUE``.

    Raises:
        UserError: A recipe or a setting is wrong.
    """
    sys.path.append(os.getcwd())  # where a user's own classes are
    from ..training import read_settings

    recipes = [file for name in names for file in find_recipes(name)]
    return read_settings(recipes, settings, ["--trainer.precision=bf16-mixed"])  # a plan is for cards
