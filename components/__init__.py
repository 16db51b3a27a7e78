"""Backbones, diffusion frameworks, conditioning, sampling and the module that joins them."""

from .backbones import FIT
from .callbacks import EMA, SampleGrid
from .frameworks import EDM
from .optimizers import LAMB, WarmupCosine
from .sampling import ClassifierFree, Heun
from .video_diffusion import VideoDiffusion

__all__ = ["EDM", "EMA", "FIT", "LAMB", "ClassifierFree", "Heun", "SampleGrid", "VideoDiffusion", "WarmupCosine"]
