"""Ranks that would all learn the same: found before the first step."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ..components import VideoDiffusion
from ..components.interfaces import VideoBatch, VideoShape
from ..datamodules.buckets import BucketClips
from ..datamodules.samples import Modality
from .errors import UserError

CHANCE = 1e-6
"""Ranks are taken to hold the same samples by mistake where they would by chance less often than this."""


@dataclass(frozen=True)
class FirstBatch:
    """What a rank begins with.

    Args:
        keys: Of its samples.
        places: How many of each modality there are.
        noise: A hash of the noise of each sample.
    """

    keys: Sequence[str]
    places: Mapping[Modality, int]
    noise: Sequence[str]


class DistinctRanks(Callback):
    """Stops a training whose ranks begin with the same samples or the same noise, or with batches of other sizes.

    No two samples can have the same noise. Two ranks may rightly have the same samples, where there are so few that
    they come round within a batch: what may be chance is let pass.
    """

    def __init__(self) -> None:
        self._compared = False

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: VideoBatch, batch_idx: int
    ) -> None:
        """Compare the first batches of all ranks.

        Raises:
            UserError: See `complaint`.
        """
        if self._compared or trainer.world_size == 1:
            return
        self._compared = True
        assert isinstance(pl_module, VideoDiffusion)
        noise = pl_module.draws(batch, batch_idx).noise(batch.video.shape[1:]).cpu()
        hashes = [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in noise]
        places: dict[Modality, int] = {"video": len(batch) - batch.num_images, "image": batch.num_images}
        everyones: list[FirstBatch] = [FirstBatch(batch.keys, places, hashes)] * trainer.world_size
        torch.distributed.all_gather_object(everyones, everyones[0])
        dataset = getattr(trainer.train_dataloader, "dataset", None)
        if problem := complaint(everyones, sizes_of(dataset, batch.shape)):
            raise UserError(problem)


def complaint(batches: Sequence[FirstBatch], sizes: Mapping[Modality, int] | int | None) -> str | None:
    """What is wrong with the first batches of the ranks; None: nothing.

    Args:
        batches: Of each rank.
        sizes: How many samples there are of each modality, or of both; None: unknown, at least those that are seen.
    """
    for rank, batch in enumerate(batches):
        if batch.places != batches[0].places:
            return (
                f"rank {rank} begins with {_count(batch)}, rank 0 with {_count(batches[0])}: every rank must have as "
                "many videos and as many images at each step"
            )
    pairs = list(itertools.combinations(range(len(batches)), 2))
    for one, other in pairs:
        if set(batches[one].noise) & set(batches[other].noise):
            return (
                f"ranks {one} and {other} begin with the same noise: they would not draw independently. The model's "
                "`draws` must depend on the rank"
            )
    if sizes is None:
        sizes = len({key for batch in batches for key in batch.keys})
    if len(pairs) * chance(batches[0].places, sizes) > CHANCE:
        return None
    for one, other in pairs:
        if batches[one].keys == batches[other].keys:
            return (
                f"ranks {one} and {other} begin with the same samples ({', '.join(batches[one].keys[:3])}, ...): each "
                "device would repeat what another does. The data must be shared out by trainer.global_rank and "
                "trainer.world_size, as JointData does"
            )
    return None


def chance(places: Mapping[Modality, int], sizes: Mapping[Modality, int] | int) -> float:
    """The probability that two ranks' lists of samples are equal, if both go through all of them in random orders.

    Args:
        places: Of each modality in a list.
        sizes: Samples of each modality, or of both together.
    """
    if isinstance(sizes, int):
        return _chance(sum(places.values()), sizes)
    return math.prod(_chance(count, sizes[modality]) for modality, count in places.items() if count)


def _chance(places: int, size: int) -> float:
    return math.prod(1 / (size - place % size) for place in range(places))


def sizes_of(dataset: object, shape: VideoShape) -> Mapping[Modality, int] | int | None:
    """How many samples a batch was taken from: those of its bucket, where the data has buckets.

    Args:
        dataset: The training data.
        shape: Of the videos of the batch.
    """
    if isinstance(dataset, BucketClips):
        clips = next(clips for clips in dataset.clips.values() if clips.reader.shape == shape)
        return {modality: len(samples) for modality, samples in clips.samples.items()}
    return len(dataset) if isinstance(dataset, Sized) else None


def _count(batch: FirstBatch) -> str:
    return " and ".join(f"{count} {modality}s" for modality, count in batch.places.items())
