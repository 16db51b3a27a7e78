"""Backbones, diffusion frameworks, conditioning, sampling and the module that joins them."""

from .backbones import FIT, UNet
from .callbacks import EMA, SampleGrid
from .conditioning import ByteText, Conditioners, FrameRate, Resolution, Text
from .frameworks import EDM
from .optimizers import LAMB, WarmupCosine
from .sampling import ClassifierFree, Heun
from .video_diffusion import VideoDiffusion

__all__ = [
    "EDM",
    "EMA",
    "FIT",
    "LAMB",
    "ByteText",
    "ClassifierFree",
    "Conditioners",
    "FrameRate",
    "Heun",
    "Resolution",
    "SampleGrid",
    "Text",
    "UNet",
    "VideoDiffusion",
    "WarmupCosine",
]
