"""Conditioners: labels of a video in, conditioning tokens out."""

from .byte_text import ByteText
from .compose import Conditioners
from .low_resolution import LowResolution
from .scalars import FrameRate, Resolution
from .text import Text

__all__ = ["ByteText", "Conditioners", "FrameRate", "LowResolution", "Resolution", "Text"]
