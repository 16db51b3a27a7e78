"""Conditioners: labels of a video in, conditioning tokens out."""

from .byte_text import ByteText
from .compose import Conditioners
from .scalars import FrameRate, Resolution
from .text import Text

__all__ = ["ByteText", "Conditioners", "FrameRate", "Resolution", "Text"]
