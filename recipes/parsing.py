"""Parsers of recipes: jsonargparse with our classes known by their short names, and errors that fit a screen."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser

from .. import components, datamodules
from ..components.interfaces import VideoShape
from .errors import UserError, message


class Parser(LightningArgumentParser):
    """A parser that raises `UserError` where others print their usage and exit."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what was found to be wrong."""
        if not self.exit_on_error:  # a parser within a parser, which adds the place to the message
            super().error(message, ex)
        raise UserError(message) from ex


def known_classes() -> None:
    """Import all our modules: a class is known by its short name as soon as its module is imported."""
    for package in (components, datamodules):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


class Builder:
    """Builds the classes that a config names.

    The data gets the shape of the model's videos, which the config does not repeat, and an error in a constructor names
    the place of its class in the config.

    Args:
        config: A parsed config.
    """

    def __init__(self, config: Namespace) -> None:
        self.config = config
        self.shape: VideoShape | None = None
        self.error: UserError | None = None

    def build(self, parser: ArgumentParser) -> Namespace:
        """The config with instances in place of classes.

        Raises:
            UserError: A constructor refused its arguments.
        """
        try:
            return parser.instantiate(self.config, instantiators=[(self._instantiate, object, True)])
        except Exception as error:
            raise self.error or error from error

    def _instantiate(self, kind: type, *args: Any, **kwargs: Any) -> Any:
        if issubclass(kind, LightningDataModule) and "shape" in inspect.signature(kind).parameters:
            kwargs["shape"] = self.shape
        try:
            instance = kind(*args, **kwargs)
        except ValueError as error:
            self.error = UserError(f"{kind.__name__}: {message(error)}")
            raise
        self.shape = getattr(instance, "shape", self.shape)
        return instance
