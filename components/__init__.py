"""Backbones, diffusion frameworks, conditioning, sampling and the module that joins them."""

from .backbones import FIT, UNet
from .callbacks import EMA, PostHocEMA, SampleGrid
from .conditioning import ByteText, Conditioners, FrameRate, Resolution, Text
from .frameworks import DDPM, EDM, FlowMatching
from .optimizers import LAMB, WarmupCosine
from .sampling import (
    DDIM,
    Ancestral,
    Churn,
    ClassifierFree,
    CosineLevels,
    DPMSolver,
    Euler,
    GivenFrames,
    Heun,
    LinearLevels,
    LongVideo,
    Oscillating,
    Reconstruction,
    RhoLevels,
    Threshold,
)
from .video_diffusion import VideoDiffusion

__all__ = [
    "DDIM",
    "DDPM",
    "EDM",
    "EMA",
    "FIT",
    "LAMB",
    "Ancestral",
    "ByteText",
    "Churn",
    "ClassifierFree",
    "Conditioners",
    "CosineLevels",
    "DPMSolver",
    "Euler",
    "FlowMatching",
    "FrameRate",
    "GivenFrames",
    "Heun",
    "LinearLevels",
    "LongVideo",
    "Oscillating",
    "PostHocEMA",
    "Reconstruction",
    "Resolution",
    "RhoLevels",
    "SampleGrid",
    "Text",
    "Threshold",
    "UNet",
    "VideoDiffusion",
    "WarmupCosine",
]
