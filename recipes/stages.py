"""What makes the videos of a command: one model or a cascade, of the models' length or longer, with frames given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..components import Cascade, GivenFrames, LongVideo, VideoDiffusion
from ..components.interfaces import Prompt
from .errors import UserError
from .generation import Maker
from .given import Given

LAST = "videos"
"""The name of the last stage."""


class Stages(Maker):
    """Models in a row, the first of which makes videos of texts.

    Args:
        models: At least one; those after the first enlarge (`Cascade`).
        levels: Noise level for each but the first.
        plan: Length and frame rates; None: as long as the models' own videos, at the frame rates of the prompts.
        given: Frames that are known; they need a plan.

    Raises:
        UserError: The models do not fit each other, a level is none that was trained, or the plan is impossible.
    """

    def __init__(
        self,
        models: Sequence[VideoDiffusion],
        levels: Sequence[float] = (),
        plan: LongVideo | None = None,
        given: Given | None = None,
    ) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.plan, self.given = plan, given
        try:
            self.cascade = Cascade(models, levels)
            places = [place % plan.num_frames for place in given.places] if plan and given else []
            windows = self.cascade.num_windows(plan, places)
        except ValueError as error:
            raise UserError(str(error)) from error
        self.shape = self.cascade.shape
        self.num_evaluations = sum(count * num_evaluations(m) for count, m in zip(windows, models, strict=True))

    def forward(self, prompt: Prompt, seeds: Sequence[int], on_evaluation: Callable[[], object]) -> dict[str, Tensor]:
        """See `Maker.forward`; stages are ``stage1``, ``stage2``, ..., and the last ``videos``."""
        given = None
        if self.given is not None:
            shapes = [stage.shape for stage in self.cascade.stages]
            frames = [self.given.read(shape).expand(len(prompt), -1, -1, -1, -1) for shape in shapes]
            given = [GivenFrames(each, self.given.places) for each in frames]
        videos = self.cascade.sample(prompt, seeds, self.plan, given, on_evaluation)
        names = [f"stage{number}" for number in range(1, len(videos))] + [LAST]
        return dict(zip(names, videos, strict=True))


def num_evaluations(model: VideoDiffusion) -> int:
    """How often the sampler of a model evaluates the denoiser: found by a sample of one pixel."""
    evaluated = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        evaluated.append(sigma)
        return torch.zeros_like(x)

    model.sampler(denoise, lambda: torch.zeros(1, 1, 1, 1, 1), model.sampling_levels())
    return len(evaluated)
