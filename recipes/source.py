"""A run as it is sampled: its weights, its model's settings, and what the record of a video says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..components import VideoDiffusion
from ..components.interfaces import Guidance, Sampler
from .run import build_model, build_part, find_weights, fingerprint, load_weights, model_section, versions
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

    def sampler(self) -> Sampler:
        """Its sampler, anew.

        Raises:
            UserError: A setting is wrong.
        """
        sampler: Sampler = build_part(Sampler, self.section["init_args"]["sampler"])  # type: ignore[type-abstract]
        return sampler

    def guidance(self) -> Guidance:
        """Its guidance, anew.

        Raises:
            UserError: A setting is wrong.
        """
        guidance: Guidance = build_part(Guidance, self.section["init_args"]["guidance"])  # type: ignore[type-abstract]
        return guidance

    def record(self) -> dict[str, Any]:
        """What the record of a video says of it."""
        sampler = self.sampler()
        return {
            "sampler": type(sampler).__name__,
            "steps": sampler.num_steps,
            "guidance": getattr(self.guidance(), "scale", None),
            "settings": sampling_settings(self.section),
            "run": f"{self.run.parent.name}/{self.run.name}",
            "checkpoint": self.weights.name,
            "weights": fingerprint(self.weights),
            "versions": versions(),
        }


def sources_of(
    runs: Sequence[Path],
    steps: Sequence[int] | None,
    guidance: Sequence[float] | None,
    settings: Sequence[str] = (),
    checkpoint: Path | None = None,
) -> list[Source]:
    """Runs as they are sampled.

    Args:
        runs: Their folders.
        steps: Steps of the sampler of each; None: those of their configs.
        guidance: Scale of the guidance of each; None: those of their configs.
        settings: Others than those of their configs, as ``--model.sampler=DDIM``.
        checkpoint: The weights; None: the newest of each.

    Raises:
        UserError: A setting is wrong, or there are no weights.
    """
    unchanged = [None] * len(runs)
    return [
        Source(folder, checkpoint or find_weights(folder), model_section(folder, count, scale, settings))
        for folder, count, scale in zip(runs, steps or unchanged, guidance or unchanged, strict=True)
    ]


def record_of(sources: list[Source], levels: list[float]) -> dict[str, Any]:
    """What the record of a video says of a cascade: of the last stage as of one model, and of those before it."""
    *before, last = [source.record() for source in sources]
    stages = [{name: value for name, value in stage.items() if name != "versions"} for stage in before]
    return last | ({"stages": stages, "aug_level": levels} if stages else {})
