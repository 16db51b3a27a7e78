"""Callbacks of the trainer: averaged weights and sample grids."""

from .ema import EMA
from .sample_grid import SampleGrid

__all__ = ["EMA", "SampleGrid"]
