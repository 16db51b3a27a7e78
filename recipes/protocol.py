"""How models are measured, as a file says it: prompts and real clips, how many, at which rate, and the scores."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from ..components.interfaces import VideoShape
from ..components.metrics.video_metric import VideoMetric
from ..datamodules.evaluation import EvaluationSet
from ..datamodules.evaluation.evaluation_set import digest
from .errors import UserError
from .explain import explain
from .parsing import Builder, Parser, know_our_classes
from .requests import fps_range, in_range


@dataclass(frozen=True)
class Protocol:
    """How models are measured.

    Args:
        clips: Prompts, and real clips.
        metrics: The scores.
        num: Videos to make.
        fps: Frames per second, asked of the model and of the real clips.
        num_frames: Frames that the model must make; None: as many as it makes.
        size: Height and width that it must make; None: those that it makes.
        resolution: Height and width of an original that the model is told; None: those of the videos.
        seed: Seed of the first video; the next have the next.
        draws: Samples of the videos, drawn with replacement, that intervals are made of; 0 for none.

    Raises:
        ValueError: A setting is out of range.
    """

    clips: EvaluationSet
    metrics: list[VideoMetric]
    num: int
    fps: float
    num_frames: int | None = None
    size: tuple[int, int] | None = None
    resolution: tuple[int, int] | None = None
    seed: int = 0
    draws: int = 100

    def __post_init__(self) -> None:
        for name, least, most in (("num", 2, 10**6), ("seed", 0, 2**62), ("draws", 0, 10**5)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be {least} to {most}")
        for name in ("size", "resolution"):
            if getattr(self, name) is not None and min(getattr(self, name)) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: height and width must be at least 1")
        if not in_range(self.fps):
            raise ValueError(f"fps is {self.fps}: it must be {fps_range()}")
        if not self.metrics:
            raise ValueError("metrics is empty: name at least one")

    def check_shape(self, shape: VideoShape) -> None:
        """Refuse a model of other videos.

        Raises:
            UserError: Its number of frames or its size is another.
        """
        if self.num_frames not in (None, shape.num_frames):
            raise UserError(f"the protocol is of {self.num_frames} frames, and the model makes {shape.num_frames}")
        if self.size is not None and tuple(self.size) != (shape.height, shape.width):
            wanted = "x".join(map(str, self.size))
            raise UserError(f"the protocol is of {wanted} pixels, and the model makes {shape.height}x{shape.width}")

    def record(self, shape: VideoShape, prompts: Sequence[str]) -> dict[str, Any]:
        """All that a number depends on besides the model: numbers with equal records can be compared."""
        return {
            "set": self.clips.record(),
            "videos": self.num,
            "prompts": digest(prompts),
            "frames": shape.num_frames,
            "height": shape.height,
            "width": shape.width,
            "fps": self.fps,
            "resolution": list(self.resolution) if self.resolution else None,
            "seed": self.seed,
            "source": "tensors, before any codec",
            "metrics": [
                {"name": type(metric).__name__, **_code(type(metric)), **metric.record()} for metric in self.metrics
            ],
        }


def _code(kind: type) -> dict[str, str]:
    """What tells the code of a user's own metric from what it was before: its file."""
    file = inspect.getsourcefile(kind)
    if kind.__module__.startswith("snapvideo.") or file is None:
        return {}
    return {"code": digest([Path(file).read_text(encoding="utf-8")])}


SECTIONS: dict[str, type | None] = {part.name: None for part in fields(Protocol)} | {
    "clips": EvaluationSet,
    "metrics": VideoMetric,
}
"""The settings of a protocol, and what classes two of them hold."""


def load_protocol(file: Path, settings: Sequence[str]) -> Protocol:
    """A protocol of a file, with settings of the command line over it.

    Args:
        file: YAML.
        settings: ``--num=100``, ``--clips.root=DIR``, ...

    Raises:
        UserError: The file or a setting is wrong.
    """
    know_our_classes()
    parser = Parser(prog="snapvideo eval", exit_on_error=False, allow_abbrev=False)
    parser.add_class_arguments(Protocol)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise UserError(f"{file} is not a protocol: it must hold settings, as in `num: 512`")
        config = parser.parse_args(list(settings), parser.parse_object(content, defaults=False))
        return Protocol(**vars(Builder(Namespace(config)).build(parser)))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    except argparse.ArgumentError as error:
        raise UserError(explain(str(error), SECTIONS, f"write it in {file}")) from error
    except ValueError as error:
        raise UserError(f"{file.name}: {error}") from error
