"""Measures a model by a protocol: its videos and real clips become rows, and these become scores."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from ..components.interfaces import VideoShape
from ..components.media import to_uint8
from ..components.metrics.video_metric import VideoMetric
from ..datamodules.evaluation import RealClip
from ..datamodules.evaluation.evaluation_set import digest
from ..datamodules.samples import Unusable, count_reasons
from .errors import UserError
from .protocol import Protocol
from .requests import Request
from .rows import RowFolder, Rows, keyed, observe
from .scores import Score, scores_of, values_of

LEAST = 4
"""Real clips: two, and two others to compare them with."""


class ObserveVideos(Callback):
    """Lets metrics see the videos of a batch as they are made: before they are written, and a codec changes them.

    Args:
        metrics: By their keys.
        rows: Where to keep what they see.
    """

    def __init__(self, metrics: Mapping[str, VideoMetric], rows: RowFolder) -> None:
        self.metrics, self.rows = metrics, rows
        self.seconds, self.count = 0.0, 0

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Mapping[str, Tensor],
        batch: list[Request],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the rows of a batch; its videos are written after it, so that none is there without its rows."""
        *_, videos = outputs.values()
        start = time.perf_counter()
        pixels = to_uint8(videos).to(videos.device)
        texts, rates = [request.prompt for request in batch], [request.fps for request in batch]
        self.rows.write([request.name for request in batch], observe(self.metrics, pixels, texts, rates))
        self.seconds += time.perf_counter() - start
        self.count += len(batch)


class Evaluation:
    """One model, measured.

    Args:
        protocol: How.
        shape: Size of the model's videos.
        requests: What it makes.
        out: Where rows go.

    Raises:
        UserError: There are not enough real clips.
    """

    def __init__(self, protocol: Protocol, shape: VideoShape, requests: list[Request], out: Path) -> None:
        self.protocol, self.shape, self.requests = protocol, shape, requests
        self.metrics = keyed(protocol.metrics)
        for metric in protocol.metrics:
            metric.distributed_available_fn = lambda: False  # the first process scores alone: it has the rows of all
        self.made, self.real = RowFolder(out / "made"), RowFolder(out / "real")
        try:
            self.clips = protocol.clips.real(shape, protocol.fps)
        except ValueError as error:
            raise UserError(f"clips: {error}") from error
        self.places = {digest([name]): place for place, name in enumerate(self.clips.names)}
        if len(self.places) < LEAST:
            raise UserError(f"clips: {len(self.places)} real clips, and {LEAST} are needed")
        self.unusable: list[Unusable] = []

    def rehearse(self, device: torch.device) -> None:
        """Let the metrics score two black videos, before any are made, and read a real clip.

        Raises:
            UserError: A metric cannot score such videos or prompts, its network is not there, two metrics give a
                score of the same name, or a real clip cannot be read.
        """
        try:
            self.clips[0]
        except ValueError as error:
            raise UserError(f"clips: {error}") from error
        black = torch.zeros(2, *self.shape, dtype=torch.uint8, device=device)
        texts = [request.prompt for request in self.requests[:2]]
        owners: dict[str, str] = {}
        for key, metric in self.metrics.items():
            try:
                rows = observe({key: metric}, black, texts, [self.protocol.fps] * 2)[key]
                metric.reset()
                for real in (False, True) if metric.uses_real else (False,):
                    metric.add(rows, real=real)
                names = list(values_of(metric))
            except Exception as error:  # whatever a class of the user's own does not like
                raise UserError(f"metrics: {type(metric).__name__}: {error}") from error
            for name in names:
                if (other := owners.setdefault(name, key)) != key:
                    raise UserError(f"metrics: {other} and {key} both give a score {name!r}: leave one out")

    def observe_real(self, rank: int, world_size: int, device: torch.device, batch_size: int, num_workers: int) -> None:
        """Let the metrics see this process's share of the real clips, but for those of which rows are there.

        Raises:
            UserError: A file is there and cannot be read.
        """
        own = [name for name in list(self.places)[rank::world_size] if not self.real.has(name)]
        share = Subset(self.clips, [self.places[name] for name in own])
        names = iter(own)
        with tqdm(total=len(own), desc="real clips", unit="clip", disable=rank != 0 or not own) as bar:
            try:
                for clips in DataLoader(share, batch_size, num_workers=num_workers, collate_fn=list):
                    self._observe_clips(list(islice(names, len(clips))), clips, device)
                    bar.update(len(clips))
            except ValueError as error:
                raise UserError(f"clips: {error}") from error
        if self.unusable:
            print(f"real clips left out: {count_reasons(map(str, self.unusable))}")

    def _observe_clips(self, names: list[str], clips: list[RealClip | Unusable], device: torch.device) -> None:
        self.unusable += [clip for clip in clips if isinstance(clip, Unusable)]
        there = {name: clip for name, clip in zip(names, clips, strict=True) if isinstance(clip, RealClip)}
        if there:
            videos = torch.stack([clip.video for clip in there.values()]).to(device)
            texts = [clip.text for clip in there.values()]
            self.real.write(list(there), observe(self.metrics, videos, texts, [self.protocol.fps] * len(there)))

    def scores(self) -> tuple[dict[str, Score], int]:
        """The scores, and of how many real clips.

        Raises:
            UserError: Rows cannot be read, or fewer than four real clips can be used.
        """
        made: Rows = self.made.read(request.name for request in self.requests)
        usable = list(filter(self.real.has, self.places))
        if len(usable) < LEAST:
            raise UserError(f"clips: of {len(self.places)} real clips {len(usable)} can be used, {LEAST} are needed")
        return scores_of(self.metrics, made, self.real.read(usable), self.protocol.draws), len(usable)
