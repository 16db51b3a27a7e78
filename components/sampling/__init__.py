"""Samplers and guidance."""

from .guidance import ClassifierFree
from .solvers import Heun

__all__ = ["ClassifierFree", "Heun"]
