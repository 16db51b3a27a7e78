"""Backbones."""

from .fit import FIT

__all__ = ["FIT"]
