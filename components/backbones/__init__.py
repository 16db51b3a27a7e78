"""Backbones."""

from .fit import FIT
from .unet import UNet

__all__ = ["FIT", "UNet"]
