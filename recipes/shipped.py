"""The recipes that come with the package, and what a name on the command line stands for."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from .errors import UserError, did_you_mean

HERE = Path(__file__).parent
PRETRAINED = HERE / "pretrained"
OVERLAYS = "overlays"
SMOKE = HERE / OVERLAYS / "smoke.yaml"
SMOKE_BACKBONES = {"FIT": HERE / OVERLAYS / "smoke_fit.yaml", "UNet": HERE / OVERLAYS / "smoke_unet.yaml"}
SMOKE_TEXT = HERE / OVERLAYS / "smoke_text.yaml"
SMOKE_UPSAMPLER = HERE / OVERLAYS / "smoke_upsampler.yaml"
CONFIG = "config.yaml"
EXPORTED_CONFIG = "config.json"
ENVIRONMENT = "env.json"
CENSUS = "census.json"
LATEST = "latest"
RUNS = Path("runs")


def shipped_recipes(overlays: bool = True) -> dict[str, Path]:
    """Name and file of each recipe, ``demo``, and maybe of what goes on top of one, ``overlays/ddpm``."""
    files = sorted(HERE.glob("*.yaml")) + (sorted((HERE / OVERLAYS).glob("*.yaml")) if overlays else [])
    return {file.relative_to(HERE).with_suffix("").as_posix(): file for file in files}


def find_config(folder: Path) -> Path | None:
    """The config of a run folder, or of an exported model, if there is one.

    That of an exported model comes first: of a model from the Hub it is the one that was found to be safe.
    """
    return next((file for file in (folder / EXPORTED_CONFIG, folder / CONFIG) if file.is_file()), None)


def find_recipe(name: str) -> Path:
    """The file that `name` stands for: an existing file, the config of a run or an exported model, or a shipped recipe.

    Raises:
        UserError: There is none.
    """
    path = Path(os.path.expanduser(name))
    if path.is_file():
        return path
    for folder in (path, path / LATEST):
        if config := find_config(folder):
            return config
    recipes = shipped_recipes()
    shipped = recipes.get(name.removesuffix(".yaml"))
    if shipped is None:
        raise UserError(
            f"-c {name}: no such file, run folder or shipped recipe.{did_you_mean(name, recipes)}\n"
            f"shipped recipes: {', '.join(recipes)}"
        )
    return shipped


def is_run(word: str) -> bool:
    """Whether a word names a run or a model, of this machine or, as ``USER/NAME``, of the Hub; else it is a prompt."""
    try:
        path = Path(os.path.expanduser(word))
        here = any(find_config(folder) for folder in (path, path / LATEST, PRETRAINED / word))
    except OSError:  # a text may be too long for a name of a file
        return False
    return here or re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", word) is not None


def find_recipes(name: str) -> list[Path]:
    """The files that ``demo+overlays/ddpm`` stands for: recipes, of which later ones win.

    Raises:
        UserError: One of them is not there.
    """
    parts = [name] if Path(name).exists() else name.split("+")  # a file or a run folder may have a + in its name
    return [find_recipe(part) for part in parts]


def smoke_overlays(recipes: Sequence[Path]) -> list[Path]:
    """What makes the twin of these recipes for a CPU and seconds.

    A FIT or a U-Net becomes a tiny one, with a tiny conditioner; an upsampler stays one. What is of the user's own is
    left as it is.
    """
    parts: dict[str, object] = {"backbone": "FIT"}
    for recipe in recipes:
        model = _mapping(_read(recipe).get("model"))
        # A part without a class is settings of the class that an earlier recipe names.
        given = _mapping(model.get("init_args", model)).items()
        parts |= {name: part for name, part in given if isinstance(part, str) or "class_path" in _mapping(part)}
    tiny = SMOKE_BACKBONES.get(next(_classes(parts["backbone"]), "FIT").rpartition(".")[2])
    if tiny is None:
        return [SMOKE]
    conditioners = list(_classes(parts.get("conditioner")))
    if any("." in name and not name.startswith("snapvideo.") for name in conditioners):
        return [SMOKE, tiny]
    enlarges = any(name.rpartition(".")[2] == "LowResolution" for name in conditioners)
    return [SMOKE, tiny, SMOKE_UPSAMPLER if enlarges else SMOKE_TEXT]


def _read(recipe: Path) -> dict[str, object]:
    try:
        return _mapping(yaml.safe_load(recipe.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}


def _mapping(node: object) -> dict[str, object]:
    """The node of a recipe, or nothing where it is no mapping: whoever parses the recipe says what is wrong."""
    return node if isinstance(node, dict) else {}


def _classes(part: object) -> Iterator[str]:
    """The names of the classes of a part of a recipe, which may be a name alone, the outermost first."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict):
        if "class_path" in part:
            yield part["class_path"]
        for value in (part.get("init_args") or {}).values():
            if isinstance(value, dict | list):
                yield from _classes(value)
    elif isinstance(part, list):
        for value in part:
            yield from _classes(value)


def recipe_name(file: Path) -> str:
    """What runs of a recipe are called: its stem; for the config of a run, the folder that holds the run.

    For that of an exported model it is the folder of the model.
    """
    run = file.resolve().parent
    if file.name == EXPORTED_CONFIG:
        return run.name
    return run.parent.name if file.name == CONFIG and (run / ENVIRONMENT).exists() else file.stem


def run_name(recipes: Sequence[Path]) -> str | None:
    """What a run of several recipes is called: as those of the first that is no overlay; None: all are."""
    return next((recipe_name(recipe) for recipe in recipes if recipe.parent.name != OVERLAYS), None)


def summary(file: Path, width: int = 96) -> str:
    """The first line of a recipe's header, at most `width` characters of it: what it is."""
    first = file.read_text(encoding="utf-8").split("\n", 1)[0]
    return textwrap.shorten(first.lstrip("# "), width, placeholder=" ...") if first.startswith("#") else ""
