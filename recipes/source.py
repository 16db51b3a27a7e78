"""A run as it is sampled: its weights, its model's settings, and what the record of a video says of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..components import VideoDiffusion
from ..components.interfaces import Guidance, Sampler
from .run import build_model, build_part, fingerprint, load_weights, versions
from .sampling import sampling_settings


@dataclass(frozen=True)
class Source:
    """One model to sample.

    Args:
        run: The run folder.
        weights: The file of weights.
        section: The section ``model`` of its config, with the settings of the sampling.
    """

    run: Path
    weights: Path
    section: dict[str, Any]

    def build(self) -> VideoDiffusion:
        """The model without weights in memory, to see what it is.

        Raises:
            UserError: A setting is wrong.
        """
        with torch.device("meta"):
            return build_model(self.section)

    def load(self) -> VideoDiffusion:
        """The trained model, on the CPU.

        Raises:
            UserError: See `load_weights`.
        """
        return load_weights(self.section, self.weights)

    def record(self) -> dict[str, Any]:
        """What the record of a video says of it."""
        settings = sampling_settings(self.section)
        sampler = build_part(Sampler, settings["sampler"])  # type: ignore[type-abstract]
        guidance = build_part(Guidance, settings["guidance"])  # type: ignore[type-abstract]
        return {
            "sampler": type(sampler).__name__,
            "steps": sampler.num_steps,
            "guidance": getattr(guidance, "scale", None),
            "settings": settings,
            "run": f"{self.run.parent.name}/{self.run.name}",
            "checkpoint": self.weights.name,
            "weights": fingerprint(self.weights),
            "versions": versions(),
        }


def record_of(sources: list[Source], levels: list[float]) -> dict[str, Any]:
    """What the record of a video says of a cascade: of the last stage as of one model, and of those before it."""
    *before, last = [source.record() for source in sources]
    stages = [{name: value for name, value in stage.items() if name != "versions"} for stage in before]
    return last | ({"stages": stages, "aug_level": levels} if stages else {})
