"""Sources of captioned videos and images, as Lightning data modules."""

from .folders import JointFolders
from .shapes import Scene, Thing, draw_scene
from .shapes_data import Shapes
from .synth import write_shapes

__all__ = ["JointFolders", "Scene", "Shapes", "Thing", "draw_scene", "write_shapes"]
