"""Layers that backbones and conditioners share."""

from .attention import Attention, FeedForward
from .blocks import blocks, compile_blocks
from .embeddings import FourierFeatures, ScalarToken
from .patching import PatchGrid

__all__ = ["Attention", "FeedForward", "FourierFeatures", "PatchGrid", "ScalarToken", "blocks", "compile_blocks"]
