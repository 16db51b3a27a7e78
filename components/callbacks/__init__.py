"""Callbacks of the trainer: averaged weights, sample grids, peak memory, steps that are skipped."""

from .bad_steps import SkipBadSteps
from .ema import EMA
from .peak_memory import PeakMemory
from .post_hoc_ema import PostHocEMA
from .sample_grid import SampleGrid

__all__ = ["EMA", "PeakMemory", "PostHocEMA", "SampleGrid", "SkipBadSteps"]
