"""Builds what a config names: a model, or a part of one."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, TypeVar

from jsonargparse import ArgumentParser, Namespace

from .video_diffusion import VideoDiffusion

Part = TypeVar("Part")


class ParsingError(ValueError):
    """A config is not one of the classes that it names; the message is the parser's, which may be long."""


class Refusal(ValueError):
    """A constructor refused its arguments; the message begins with its place in the config."""


class Parser(ArgumentParser):
    """A parser that takes ``null`` for a setting of a class within a class, too.

    jsonargparse reads it, and hands what it has read on to the outer class as text, which is ``None``.
    """

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *others: Any, **settings: Any
    ) -> Namespace:
        """Parse words."""
        if args is not None:
            args = [re.sub(r"^(--[\w.]+)=None$", r"\1=null", word) for word in args]
        return super().parse_args(args, *others, **settings)


def build(kind: type[Part], section: dict[str, Any]) -> Part:
    """What the section of a config names: a `VideoDiffusion`, or a part of one alone.

    Args:
        kind: Its class, or a base of it.
        section: ``class_path`` and ``init_args``.

    Raises:
        ParsingError: The section is wrong.
        Refusal: A constructor refused its arguments.
    """
    parser, config = parse(kind, section)
    return instantiate(parser, config)[section_name(kind)]


def parse(kind: type, section: dict[str, Any]) -> tuple[ArgumentParser, Namespace]:
    """A section of a config as it is understood, and what understood it.

    Args:
        kind: As in `build`.
        section: As in `build`; it stays as it is.

    Raises:
        ParsingError: The section is wrong.
    """
    parser = parser_of(kind)
    try:
        return parser, parser.parse_object({section_name(kind): deepcopy(section)})  # which changes what it is given
    except argparse.ArgumentError as error:
        raise ParsingError(str(error)) from error


def parser_of(kind: type) -> ArgumentParser:
    """A parser of a config that has the section of a class alone; it raises `argparse.ArgumentError`."""
    parser = Parser(exit_on_error=False)
    parser.add_argument(f"--{section_name(kind)}", type=kind)
    return parser


def section_name(kind: type) -> str:
    """What a recipe calls the section of a class: ``model``, ``backbone``."""
    return "model" if issubclass(kind, VideoDiffusion) else kind.__name__.lower()


def _call(kind: type, /, *args: object, **kwargs: object) -> object:
    return kind(*args, **kwargs)


def instantiate(parser: ArgumentParser, config: Namespace, make: Callable[..., object] = _call) -> Namespace:
    """The config with instances in place of classes.

    Args:
        parser: What parsed the config.
        config: The config.
        make: Makes the instance of a class, which is its first argument, of the other arguments.

    Raises:
        Refusal: A constructor refused its arguments.
    """
    refusal: Refusal | None = None

    def placed(kind: type, /, *args: object, **kwargs: object) -> object:
        nonlocal refusal
        try:
            _refuse_null(kind, kwargs)
            return make(kind, *args, **kwargs)
        except ValueError as error:
            place = next(_places(config.as_dict(), kind.__name__), "")
            refusal = Refusal(f"{place}{kind.__name__}: {error}")
            raise

    try:
        return parser.instantiate(config, instantiators=[(placed, object, True)])
    except ValueError as error:  # jsonargparse may wrap what a constructor raised
        if refusal is None:
            raise
        raise refusal from error


def _refuse_null(kind: type, settings: dict[str, object]) -> None:
    """Refuse a null that is no value of its setting: jsonargparse takes it for any."""
    for name, parameter in inspect.signature(kind).parameters.items():
        hint = inspect.formatannotation(parameter.annotation)
        free = parameter.annotation is parameter.empty or any(word in hint for word in ("None", "Optional", "Any"))
        if not free and parameter.default is not None and name in settings and settings[name] is None:
            raise ValueError(f"{name} is null: it must be {hint}")


def _places(node: object, kind: str, place: str = "") -> Iterator[str]:
    """``model.backbone: `` of each class of that name."""
    if isinstance(node, list):
        for part in node:
            yield from _places(part, kind, place)
    elif isinstance(node, dict):
        if str(node.get("class_path")).rpartition(".")[2] == kind:
            yield f"{place}: "
        for key, part in node.items():
            yield from _places(part, kind, place if key == "init_args" else f"{place}.{key}".lstrip("."))
