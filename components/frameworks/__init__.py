"""Diffusion frameworks."""

from .ddpm import DDPM
from .edm import EDM
from .flow_matching import FlowMatching

__all__ = ["DDPM", "EDM", "FlowMatching"]
