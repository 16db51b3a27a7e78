"""Sources of captioned videos and images, as Lightning data modules."""

from .joint import JointData
from .shapes import Scene, Thing, draw_scene
from .shapes_data import Shapes
from .sources import Source
from .synth import write_shapes

__all__ = ["JointData", "Scene", "Shapes", "Source", "Thing", "draw_scene", "write_shapes"]
