"""Moving shapes to be measured on: scenes that no training has drawn, as captions and as exact clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from einops import rearrange

from ...components.interfaces import VideoShape
from ..shapes import DURATION, VERSION, Scene, caption, draw_scene, render
from .evaluation_set import EvaluationSet, RealClip, RealClips

_OURS = 1_000_000  # beside the seeds of training data, which begin at 0
_REAL = 1  # real clips are of other scenes than prompts


class ShapesSet(EvaluationSet):
    """Captions of moving shapes, and clips of other scenes of the same kind, as they are drawn: no codec in between.

    Args:
        num_real: Real clips.
        seed: Another seed draws other scenes; none are those of training data.
        held_out: Whether all scenes have, or none has, a combination of colour, shape and direction that training can
            leave out (`shapes.HELD_OUT`); None: as they come.
    """

    def __init__(self, num_real: int = 4096, seed: int = 0, held_out: bool | None = None) -> None:
        if num_real < 1:
            raise ValueError(f"num_real is {num_real}: it must be at least 1")
        self.num_real, self.seed, self.held_out = num_real, seed, held_out

    def prompts(self, num: int, shape: VideoShape) -> list[str]:
        """See `EvaluationSet.prompts`: captions."""
        return [caption(self._scene(0, index, shape)) for index in range(num)]

    def real(self, shape: VideoShape, fps: float) -> RealClips:
        """See `EvaluationSet.real`."""
        if shape.num_frames / fps > DURATION:
            least = shape.num_frames / DURATION
            raise ValueError(
                f"fps is {fps:g}: scenes last {DURATION:g} s, and {shape.num_frames} frames need {least:g}"
            )
        return _Drawn([self._scene(_REAL, index, shape) for index in range(self.num_real)], shape, fps)

    def record(self) -> dict[str, Any]:
        """See `EvaluationSet.record`."""
        kinds = {None: "any", True: "held-out combinations", False: "without held-out combinations"}
        about = {"name": "moving shapes", "version": VERSION, "scenes": kinds[self.held_out], "seed": self.seed}
        return about | {"real_clips": self.num_real, "codec": "none, as drawn"}

    def _scene(self, part: int, index: int, shape: VideoShape) -> Scene:
        rng = np.random.default_rng([_OURS + self.seed, part, index])
        return draw_scene(rng, aspect=shape.width / shape.height, held_out=self.held_out)


class _Drawn(RealClips):
    def __init__(self, scenes: list[Scene], shape: VideoShape, fps: float) -> None:
        self.scenes, self.shape, self.duration = scenes, shape, shape.num_frames / fps
        self.names = [str(index) for index in range(len(scenes))]

    def __getitem__(self, index: int) -> RealClip:
        frames = render(self.scenes[index], self.shape.num_frames, self.shape.height, self.duration, self.shape.width)
        return RealClip(rearrange(torch.from_numpy(frames), "t h w c -> c t h w"), caption(self.scenes[index]))
