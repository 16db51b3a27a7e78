"""The recipes that come with the package, and what a name on the command line stands for."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from .errors import UserError, did_you_mean

HERE = Path(__file__).parent
OVERLAYS = "overlays"
SMOKE = HERE / OVERLAYS / "smoke.yaml"
SMOKE_UNET = HERE / OVERLAYS / "smoke_unet.yaml"
CONFIG = "config.yaml"
ENVIRONMENT = "env.json"
LATEST = "latest"
RUNS = Path("runs")


def shipped_recipes() -> dict[str, Path]:
    """Name and file of each recipe: ``demo``, ``overlays/smoke``."""
    files = sorted(HERE.glob("*.yaml")) + sorted((HERE / OVERLAYS).glob("*.yaml"))
    return {file.relative_to(HERE).with_suffix("").as_posix(): file for file in files}


def find_recipe(name: str) -> Path:
    """The file that `name` stands for: an existing file, the config of a run folder, or a shipped recipe.

    Raises:
        UserError: There is none.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    for folder in (path, path / LATEST):
        if (folder / CONFIG).is_file():
            return folder / CONFIG
    recipes = shipped_recipes()
    shipped = recipes.get(name.removesuffix(".yaml"))
    if shipped is None:
        raise UserError(
            f"-c {name}: no such file, run folder or shipped recipe.{did_you_mean(name, recipes)}\n"
            f"shipped recipes: {', '.join(recipes)}"
        )
    return shipped


def smoke_overlays(recipes: Sequence[Path]) -> list[Path]:
    """What makes the twin of these recipes for a CPU and seconds: a tiny FIT, or a tiny U-Net where they name one."""
    backbone = ""
    for recipe in recipes:
        with suppress(KeyError, TypeError):
            named = yaml.safe_load(recipe.read_text(encoding="utf-8"))["model"]["backbone"]
            backbone = named if isinstance(named, str) else named["class_path"]
    return [SMOKE, SMOKE_UNET] if str(backbone).rpartition(".")[2] == "UNet" else [SMOKE]


def recipe_name(file: Path) -> str:
    """What runs of a recipe are called: its stem; for the config of a run, the folder that holds the run."""
    run = file.resolve().parent
    return run.parent.name if file.name == CONFIG and (run / ENVIRONMENT).exists() else file.stem


def summary(file: Path) -> str:
    """The first line of a recipe's header: what it is."""
    first = file.read_text(encoding="utf-8").split("\n", 1)[0]
    return textwrap.shorten(first.lstrip("# "), 96, placeholder=" ...") if first.startswith("#") else ""
