"""Parsing a config and building what it names, with errors that say where."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from typing import NoReturn

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser

from .. import components, datamodules
from ..components import UNet, VideoDiffusion, building
from ..components.building import Refusal, instantiate
from ..components.interfaces import Backbone, VideoShape
from ..datamodules import JointData
from .errors import UserError


class Parser(building.Parser, LightningArgumentParser):
    """A parser that raises `UserError` where others print their usage and exit."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what was found to be wrong."""
        if not self.exit_on_error:  # a parser within a parser, which adds the place to the message
            super().error(message, ex)
        raise UserError(message) from ex


def know_our_classes() -> None:
    """Import all our modules: a class is known by its short name as soon as its module is imported."""
    for package in (components, datamodules):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


class Builder:
    """Builds the classes that a config names.

    The data gets the shape of the model's videos, which the config says once, for the model. The model must take the
    shapes of all the data's buckets.

    Args:
        config: A parsed config.
    """

    def __init__(self, config: Namespace) -> None:
        self.config = config
        self.model: VideoDiffusion | None = None

    def build(self, parser: ArgumentParser) -> Namespace:
        """The config with instances in place of classes.

        Raises:
            UserError: A constructor refused its arguments; the message names the place in the config.
        """
        try:
            return instantiate(parser, self.config, self._make)
        except Refusal as error:
            raise UserError(str(error)) from error

    def _make(self, kind: type, /, *args: object, **kwargs: object) -> object:
        if issubclass(kind, LightningDataModule) and "shape" in inspect.signature(kind).parameters:
            assert self.model is not None  # a recipe names it before its data
            kwargs["shape"] = self.model.shape
        instance = kind(*args, **kwargs)
        if isinstance(instance, JointData) and self.model is not None:
            _check_buckets(self.model.backbone, instance.buckets)
        if isinstance(instance, VideoDiffusion):
            self.model = instance
        return instance


def _check_buckets(backbone: Backbone, buckets: Sequence[VideoShape]) -> None:
    """Refuse, before anything is read, what the network would refuse when a bucket has its turn."""
    for shape in buckets:
        try:
            backbone.check_shape(shape)
        except ValueError as error:
            other = "" if isinstance(backbone, UNet) else ", or use UNet, which takes other sizes"
            raise ValueError(f"buckets: {error}; leave {shape} out{other}") from error
