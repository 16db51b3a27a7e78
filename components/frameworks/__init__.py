"""Diffusion frameworks."""

from .edm import EDM

__all__ = ["EDM"]
