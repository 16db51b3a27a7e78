"""Makes the videos that are asked for: the model behind the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...components.interfaces import Guidance, Prompt, Sampler, VideoShape
from ...components.media import to_uint8
from ..run import (
    build_part,
    find_run,
    find_weights,
    load_model,
    machine_precision,
    model_section,
    usual_fps,
)
from ..sampling import with_sampling
from ..shipped import PRETRAINED
from ..source import Source
from ..stages import Stages, num_evaluations
from .first_frame import begin_with
from .jobs import Report
from .request import Request


class VideoMaker:
    """A trained model that makes one video at a time, each with settings of its own.

    The weights are loaded once; sampler and guidance are built anew for each video.

    Args:
        run: A run folder, a folder of runs (its latest is taken), or the name of a shipped model.
        checkpoint: Weights; None: the run's own, its newest.
        device: Where to sample; ``auto``: the fastest there is.
        precision: ``32-true``, ``bf16-mixed``, or ``auto``: as the device computes best.
        settings: Others than those of the run's config, as ``--model.sampler=DDIM``.

    Raises:
        UserError: There is no such run, it cannot be sampled with these settings, or it is an upsampler.
    """

    def __init__(
        self,
        run: str | Path,
        checkpoint: Path | None = None,
        device: str = "auto",
        precision: str = "auto",
        settings: Sequence[str] = (),
    ) -> None:
        self.folder = find_run(run)
        self.weights = checkpoint or find_weights(self.folder)
        self._model = load_model(self.folder, self.weights, device=device, settings=settings)
        Stages([self._model])  # refuses what does not make videos of texts alone
        self._section = model_section(self.folder, settings=settings)
        kind = self._model.device.type
        self._precision = machine_precision(kind) if precision == "auto" else precision
        self.steps = self._model.sampler.num_steps
        self.guidance: float | None = getattr(self._model.guidance, "scale", None)
        self.fps = usual_fps(self.folder)

    @property
    def shape(self) -> VideoShape:
        """The size of its videos."""
        return self._model.shape

    @property
    def name(self) -> str:
        """What people call the model."""
        shipped = self.folder.parent == PRETRAINED
        return self.folder.name if shipped else f"{self.folder.parent.name}/{self.folder.name}"

    def make(self, request: Request, report: Report) -> tuple[Tensor, dict[str, Any]]:
        """A video, uint8 ``[C, T, H, W]``, and its record.

        Raises:
            UserError: Sampler or guidance refuse a setting.
        """
        section = with_sampling(self._section, request.steps, request.guidance)
        parts = section["init_args"]
        self._model.sampler = build_part(Sampler, parts["sampler"])  # type: ignore[type-abstract]
        self._model.guidance = build_part(Guidance, parts["guidance"])  # type: ignore[type-abstract]
        total, done = num_evaluations(self._model), 0
        report(0, total)

        def count() -> None:
            nonlocal done
            done += 1
            report(done, total)

        frame = request.first_frame
        steer = None if frame is None else begin_with(frame, self.shape)
        size = torch.tensor([[self.shape.height, self.shape.width]], dtype=torch.float32)
        prompt = Prompt([request.prompt], torch.tensor([request.fps]), size)
        with torch.autocast(self._model.device.type, torch.bfloat16, enabled=self._precision == "bf16-mixed"):
            (video,) = to_uint8(self._model.sample(prompt, [request.seed], count, steer))
        return video, {"fps": request.fps} | Source(self.folder, self.weights, section).record()
