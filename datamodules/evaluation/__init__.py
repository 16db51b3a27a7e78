"""What models are measured on: prompts, and real clips to compare with."""

from .evaluation_set import EvaluationSet, RealClip, RealClips
from .folder import FolderSet
from .msr_vtt import MsrVtt
from .shapes_set import ShapesSet
from .ucf101 import Ucf101

__all__ = ["EvaluationSet", "FolderSet", "MsrVtt", "RealClip", "RealClips", "ShapesSet", "Ucf101"]
