"""Cascades: a first stage makes videos of texts, each further one enlarges those of the stage before (paper, 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..draws import seed_of
from ..interfaces import LowRes, Prompt, VideoModel, VideoShape
from .long import GivenFrames, LongVideo


class Cascade:
    """Models that make a video one after the other; of one model, it is that model.

    Before a stage enlarges a video, the video gets noise of a fixed level: the stage was trained on noisy ones, and
    mends the more of the mistakes of the stage before, and keeps the less of its details, the higher the level is. The
    paper searches it.

    Args:
        stages: The models, at least one.
        levels: Noise level for each stage but the first, 0 to 1.

    Raises:
        ValueError: Stages do not fit each other, or a level is not one that a stage was trained on; the message names
            the stage.
    """

    def __init__(self, stages: Sequence[VideoModel], levels: Sequence[float] = ()) -> None:
        if len(levels) != len(stages) - 1:
            raise ValueError(
                f"{len(stages)} stages take {len(stages) - 1} noise levels, all but the first; given: {len(levels)}"
            )
        if stages[0].conditioner.video_channels:
            raise ValueError("stage 1 enlarges videos: the first stage must be a model that makes them of texts")
        for number, (before, stage, level) in enumerate(zip(stages, stages[1:], levels, strict=False), start=2):
            try:
                stage.conditioner.check_low_res(before.shape, level)
            except ValueError as error:
                raise ValueError(f"stage {number}: {error}") from error
            if stage.shape.num_frames != before.shape.num_frames:
                frames = f"{stage.shape.num_frames} frames, and the one before {before.shape.num_frames}"
                raise ValueError(f"stage {number} makes {frames}: they must be equal")
        self.stages, self.levels = list(stages), list(levels)

    @property
    def shape(self) -> VideoShape:
        """The size of the last stage's videos."""
        return self.stages[-1].shape

    def sample(
        self,
        prompt: Prompt,
        seeds: Sequence[int],
        plan: LongVideo | None = None,
        given: Sequence[GivenFrames | None] | None = None,
        on_evaluation: Callable[[], object] | None = None,
    ) -> list[Tensor]:
        """Videos ``[B, C, N, H, W]`` in [-1, 1] of each stage.

        Args:
            prompt: Labels of B videos; with a plan, frame rates are those of the plan.
            seeds: A seed per video, on which it depends alone, not on the rest of the batch.
            plan: The length and the frame rates. A stage that enlarges does so at the last rate, window by window.
                None: as long as the models' own, N = T.
            given: With a plan, frames that are known, for each stage in its size; None: none.
            on_evaluation: Called at every evaluation of a denoiser.

        Raises:
            ValueError: As of `LongVideo.sample`.
        """
        videos: list[Tensor] = []
        for number, stage in enumerate(self.stages):
            labels, own = prompt, list(seeds)
            if number:
                labels = replace(prompt, low_res=_with_noise(videos[-1], self.levels[number - 1], seeds, number))
                own = [seed_of(seed, number, 0) for seed in seeds]
            if plan is None:
                videos.append(stage.sample(labels, own, on_evaluation))
                continue
            known = None if given is None else given[number]
            videos.append(self._plan_of(number, plan).sample(stage, labels, own, known, on_evaluation))
        return videos

    def num_windows(self, plan: LongVideo | None, given: Collection[int] = ()) -> list[int]:
        """How many windows each stage samples.

        Args:
            plan: As in `sample`.
            given: Places of frames that are given.

        Raises:
            ValueError: As of `LongVideo.windows`.
        """
        if plan is None:
            return [1] * len(self.stages)
        sizes = [stage.shape.num_frames for stage in self.stages]
        return [len(self._plan_of(number, plan).windows(size, given)) for number, size in enumerate(sizes)]

    @staticmethod
    def _plan_of(number: int, plan: LongVideo) -> LongVideo:
        """The plan of a stage: where it enlarges, all frames are there, at the last rate."""
        return replace(plan, rates=plan.rates[-1:]) if number else plan


def _with_noise(videos: Tensor, level: float, seeds: Sequence[int], number: int) -> LowRes:
    """Videos with noise of their own on them, for stage `number` from 0."""
    generators = [torch.Generator().manual_seed(seed_of(seed, number, 1)) for seed in seeds]
    noise = torch.stack([torch.randn(videos.shape[1:], generator=generator) for generator in generators])
    levels = torch.full((len(seeds),), level, device=videos.device)
    return LowRes.corrupt(videos, levels, noise.to(videos.device))
