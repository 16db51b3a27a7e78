"""What metrics see in videos, kept on disk video by video, so that a kill loses one batch at most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..components.media import write_bytes
from ..components.metrics.video_metric import VideoMetric
from .errors import UserError

Rows = Mapping[str, Tensor]
"""For each metric, by its key, what it sees in some videos ``[N, ...]``."""


def keyed(metrics: Sequence[VideoMetric]) -> dict[str, VideoMetric]:
    """Metrics by keys that tell two of a class apart."""
    return {f"{number}-{type(metric).__name__}": metric for number, metric in enumerate(metrics)}


def observe(
    metrics: Mapping[str, VideoMetric], videos: Tensor, texts: Sequence[str], fps: Sequence[float]
) -> dict[str, Tensor]:
    """What each metric sees in a batch.

    Args:
        metrics: By their keys.
        videos: uint8 ``[B, C, T, H, W]``, on the device that is to do the work.
        texts: What is asked for, or said of them.
        fps: Frames per second of each.

    Raises:
        ValueError: A metric does not give a row for each.
    """
    rates = torch.tensor(fps, device=videos.device)
    found = {key: metric.observe(videos, texts, rates).cpu() for key, metric in metrics.items()}
    for key, rows in found.items():
        if len(rows) != len(videos):
            raise ValueError(f"{key}: observe() gives {len(rows)} rows of {len(videos)} videos")
    return found


class RowFolder:
    """Rows of videos, a file for each.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def has(self, name: str) -> bool:
        """Whether the rows of a video are there."""
        return self._file(name).is_file()

    def write(self, names: Sequence[str], rows: Rows) -> None:
        """Write those of some videos."""
        for place, name in enumerate(names):
            own = {key: part[place].contiguous() for key, part in rows.items()}
            write_bytes(self._file(name), safetensors.torch.save(own))

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The rows of videos.

        Raises:
            UserError: Rows of one are not there, or damaged.
        """
        found: list[dict[str, Tensor]] = []
        for name in names:
            try:
                found.append(safetensors.torch.load_file(self._file(name)))
            except (OSError, SafetensorError) as error:
                raise UserError(f"{self._file(name)} cannot be read: {error}; begin anew in another folder") from error
        try:
            return {key: torch.stack([own[key] for own in found]) for key in (found[0] if found else {})}
        except (RuntimeError, KeyError) as error:
            raise UserError(f"rows in {self.path} are not all alike: {error}") from error

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"
