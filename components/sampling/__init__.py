"""Samplers, noise levels and guidance."""

from .guidance import ClassifierFree, Oscillating, Threshold
from .levels import CosineLevels, LinearLevels, RhoLevels
from .long import GivenFrames, LongVideo
from .reconstruction import Reconstruction
from .solvers import DDIM, Ancestral, Churn, DPMSolver, Euler, Heun

__all__ = [
    "DDIM",
    "Ancestral",
    "Churn",
    "ClassifierFree",
    "CosineLevels",
    "DPMSolver",
    "Euler",
    "GivenFrames",
    "Heun",
    "LinearLevels",
    "LongVideo",
    "Oscillating",
    "Reconstruction",
    "RhoLevels",
    "Threshold",
]
