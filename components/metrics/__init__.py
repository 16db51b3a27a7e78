"""Metrics of generated videos."""

from .shape_frechet import ShapeFrechet
from .shapes import ShapeAccuracy

__all__ = ["ShapeAccuracy", "ShapeFrechet"]
