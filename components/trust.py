"""What a config from elsewhere may name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import yaml

from .building import ParsingError, parse
from .video_diffusion import VideoDiffusion

TRUSTED = ("snapvideo.components", "torch.optim")
"""Packages whose classes a config may name, whoever wrote it. All of torch would be too much: it can load pickles."""


def refuse_foreign(section: dict[str, Any]) -> None:
    """Refuse a config of a model that names anything else than classes of `TRUSTED`: building it would run code.

    Args:
        section: The section ``model``; it is looked at as it is, and as it is understood.

    Raises:
        ValueError: It names others, or it is not a section of a model.
    """
    _refuse(foreign_names(section))
    try:
        parser, config = parse(VideoDiffusion, section)
    except ParsingError as error:
        raise ValueError(f"its config is not of a model of this version of snapvideo: {error}") from error
    _refuse(foreign_names(yaml.safe_load(parser.dump(config, skip_unset=False))))


def foreign_names(section: dict[str, Any]) -> list[str]:
    """What a section of a config names, or may name, besides classes of `TRUSTED`."""
    return sorted({name for name in _names(section) if not _is_trusted(name)})


def _refuse(names: list[str]) -> None:
    if names:
        raise ValueError(
            f"its config names {', '.join(names)}, which is neither of snapvideo nor an optimizer of torch: to build "
            "it would run code of others. If you trust whoever wrote it: `snapvideo sample` and `serve` take --trust, "
            "Python's load trust=True; for all else fetch it, `hf download USER/NAME --local-dir DIR`, and name DIR"
        )


def _names(node: object, key: str = "") -> Iterator[str]:
    """All texts that may stand for a class or function."""
    if isinstance(node, dict):
        for name, part in node.items():
            yield from _names(part, str(name))
    elif isinstance(node, list | tuple):
        for part in node:
            yield from _names(part)
    elif isinstance(node, str) and (key == "class_path" or _may_be_code(node)):
        yield node


def _may_be_code(text: str) -> bool:
    """Whether a parser may take a text for the path of something to import, or for a whole config."""
    return ":" in text or ("." in text and all(map(str.isidentifier, text.split("."))))


def _is_trusted(path: str) -> bool:
    """Whether this is the path of a class that is defined in one of the packages, and not merely imported there."""
    module, _, name = path.rpartition(".")
    if not module:
        return True  # a short name: of a class that is imported already, and of the kind that is wanted
    if not f"{module}.".startswith(tuple(f"{package}." for package in TRUSTED)):
        return False
    try:
        import_module(module)
    except ImportError:
        return False
    found = getattr(sys.modules[module], name, None)
    return isinstance(found, type) and f"{found.__module__}.".startswith(tuple(f"{package}." for package in TRUSTED))
