"""Metrics of generated videos."""

from .shapes import ShapeAccuracy

__all__ = ["ShapeAccuracy"]
