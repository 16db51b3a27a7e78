"""A model that was exported, by its folder or from the Hugging Face Hub."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from .building import ParsingError, build
from .hub import HUB_ID, fetch, fetch_if_there
from .trust import refuse_foreign
from .video_diffusion import VideoDiffusion
from .weights import WEIGHTS, check_weights, read_weights

CONFIG = "config.json"
RECORD = "record.json"
"""How it was trained; a model need not have one."""


def load(source: str | Path, trust: bool = False) -> VideoDiffusion:
    """A model that ``snapvideo export`` wrote, in evaluation mode, on the CPU. Of its own files none is unpickled.

    Args:
        source: Its folder, or its name on the Hugging Face Hub, ``USER/NAME``.
        trust: Build whatever classes a config from the Hub names. Otherwise they must be of snapvideo or optimizers of
            torch. A folder of this machine is trusted.

    Raises:
        ValueError: There is no such model, it cannot be fetched, or its parts don't fit each other.
    """
    folder = Path(os.path.expanduser(source))
    if not folder.exists() and HUB_ID.fullmatch(str(source)):
        folder = fetch_model(str(source), trust)
    if not all((folder / file).is_file() for file in (CONFIG, WEIGHTS)):
        raise ValueError(
            f"{source} is no exported model, with {CONFIG} and {WEIGHTS}: `snapvideo export RUN DIR` makes one of a run"
        )
    try:
        model = build(VideoDiffusion, read_config(folder / CONFIG)["model"])
    except ParsingError as error:
        raise ValueError(f"{folder / CONFIG} is not of this version of snapvideo: {error}") from error
    weights = read_weights(folder / WEIGHTS)
    check_weights(model, weights, folder / WEIGHTS)
    model.load_state_dict(weights)
    return model.eval()


def fetch_model(name: str, trust: bool = False) -> Path:
    """The folder of a model of the Hugging Face Hub, with its record.

    Its weights are fetched when its config is seen to be good.

    Args:
        name: ``USER/NAME``.
        trust: See `load`.

    Raises:
        ValueError: It cannot be fetched, is no model of this kit, or is not trusted.
    """
    config = fetch(name, CONFIG)
    section = read_config(config)["model"]
    if not trust:
        try:
            refuse_foreign(section)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    commit = config.parent.name
    fetch_if_there(name, RECORD, commit)
    return fetch(name, WEIGHTS, commit).parent


def read_config(file: Path) -> dict[str, Any]:
    """The config of a run, YAML, or of an exported model, JSON.

    Raises:
        ValueError: It is not a config of a model.
    """
    try:
        text = file.read_text(encoding="utf-8")
        # Not as YAML, where 1e-08 would be a text.
        config = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not {file.suffix[1:].upper()}: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise ValueError(f"{file} is not the config of a run: it has no section `model`")
    return config
