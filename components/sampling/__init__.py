"""Samplers, noise levels and guidance."""

from .guidance import ClassifierFree, Oscillating, Threshold
from .levels import CosineLevels, LinearLevels, RhoLevels
from .solvers import DDIM, Ancestral, Churn, DPMSolver, Euler, Heun

__all__ = [
    "DDIM",
    "Ancestral",
    "Churn",
    "ClassifierFree",
    "CosineLevels",
    "DPMSolver",
    "Euler",
    "Heun",
    "LinearLevels",
    "Oscillating",
    "RhoLevels",
    "Threshold",
]
