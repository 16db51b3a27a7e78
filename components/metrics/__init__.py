"""Metrics of generated videos."""

from .clipsim import CLIPSIM
from .frechet import FID, FVD, FrechetDistance, frechet_distance
from .inception_score import InceptionScore
from .network import Classifier, FeatureNetwork, ImageNetwork, VideoNetwork
from .pretrained import CLIP, VideoMAE
from .shape_frechet import ShapeFeatures, ShapeFrechet
from .shapes import ShapeAccuracy
from .torchscript import C3D, I3D, Inception
from .video_metric import VideoMetric

__all__ = [
    "C3D",
    "CLIP",
    "CLIPSIM",
    "FID",
    "FVD",
    "I3D",
    "Classifier",
    "FeatureNetwork",
    "FrechetDistance",
    "ImageNetwork",
    "Inception",
    "InceptionScore",
    "ShapeAccuracy",
    "ShapeFeatures",
    "ShapeFrechet",
    "VideoMAE",
    "VideoMetric",
    "VideoNetwork",
    "frechet_distance",
]
