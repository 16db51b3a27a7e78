"""Videos and images from folders and shards, in joint batches."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from lightning.pytorch import LightningDataModule

from ..components.interfaces import VideoBatch, VideoShape
from .buckets import (
    Bucket,
    BucketClips,
    BucketOrder,
    Shapes,
    check_buckets,
    describe_samples,
    fill,
    mix_buckets,
    sort_samples,
    with_samples,
    without_steps,
)
from .census import Count, Looks, take_census
from .clips import Clips, Loader, Reader, blank_clips
from .embeddings import common_manifest
from .headers import Header, headers_of
from .holdout import hold_out
from .order import Origin, SharedOut, Stream, TrainOrder, validation_batches
from .samples import Index, Modality, Sample, count_reasons, left_out
from .sources import Source, as_sources, index_source
from .streams import StreamedClips, StreamLoader, is_stream

logger = logging.getLogger(__name__)

_LOOKED_AT = 256  # files of a modality whose headers are read before training

Found: TypeAlias = tuple[dict[Modality, list[Index]], dict[Sample, Header | str]]


class JointData(LightningDataModule):
    """Captioned videos and images from folders and tar files, always so many of each in a batch.

    The order of the data is a function of the seed (``seed_everything``) and the step alone: it does not depend on the
    number of workers, 2 ranks with batches of 4 see together what 1 rank with batches of 8 sees, and a run resumed at
    step s sees what it would have seen; on another number of ranks it goes on where it was. Train with ``max_steps``:
    the training data has no end and no length.

    Args:
        shape: Size of one video; a video is read at this size, an image at this height and width.
        videos: Videos with captions: a folder, searched at any depth, a tar file, several by a pattern
            (``shards/*.tar``) or a list in braces (``shards/{000..099}.tar``); or several such sources, with weights.
            ~ and environment variables are replaced. Or streams, http(s) or ``pipe:`` and a command, which promise
            less (page "Data").
        images: Images with captions, likewise.
        video_batch_size: Videos per batch and device; 0 without `videos`.
        image_batch_size: Images per batch and device; 0 without `images`.
        fps: Frame rates, in frames per second, of which each video is read at a random one that its length and its
            native rate allow.
        holdout: Samples of each modality kept for validation, chosen by their names; 0 for no validation.
        num_workers: Processes that read files beside the training; 0 reads in the training process.
        embeddings: Read what a text encoder made of each caption (``snapvideo data embed``), for a conditioner that
            takes it (`Text`); files without are skipped.
        image_steps: Share of the steps that hold images alone, the others videos alone: 0.5 takes turns. None: each
            step holds both.
        seconds_per_file: How long one file may take to decode; a slower one is skipped.
        most_unusable: Share of the files of a modality that may be unusable, as far as the headers of 256 tell before
            training; more is an error.
        buckets: Sizes of batches beside the model's own shape, for videos and images of other aspect ratios and for
            shorter videos. Each step is of one size; each file goes where its aspect ratio is nearest.

    Attributes:
        skipped: Path and reason of each file that could not be used so far.
        census: What there is to train on, by modality, once `setup` has looked.
        manifest: How the embeddings were made, once `setup` has looked; None without.
    """

    def __init__(
        self,
        shape: VideoShape,
        videos: Sequence[Source] | str | Path | None = None,  # a dump takes the first that fits: Path is last
        images: Sequence[Source] | str | Path | None = None,
        video_batch_size: int = 0,
        image_batch_size: int = 0,
        fps: Sequence[float] = (24.0, 12.0, 8.0, 4.0),
        holdout: int = 0,
        num_workers: int = 0,
        embeddings: bool = False,
        image_steps: float | None = None,
        seconds_per_file: float = 60.0,
        most_unusable: float = 0.5,
        buckets: Sequence[VideoShape] = (),
    ) -> None:
        super().__init__()
        if shape.channels != 3:
            raise ValueError(f"shape.channels is {shape.channels}: files are read as RGB, so it must be 3")
        if videos is None and images is None:
            raise ValueError("videos and images are both missing: name a folder or shards for at least one of them")
        for modality, source, size in (("video", videos, video_batch_size), ("image", images, image_batch_size)):
            if (source is None) != (size == 0) or size < 0:
                fix = "give a source and a batch size of 1 or more, or neither"
                raise ValueError(f"{modality}s is {source} and {modality}_batch_size is {size}: {fix}")
        if not fps or not all(0 < rate < math.inf for rate in fps):
            raise ValueError(f"fps is {list(fps)}: give at least one frame rate, all finite and above 0")
        if image_steps is not None and not (videos and images and 0 < image_steps < 1):
            raise ValueError(f"image_steps is {image_steps}: it must be between 0 and 1, with both videos and images")
        if not seconds_per_file > 0:
            raise ValueError(f"seconds_per_file is {seconds_per_file}: it must be above 0")
        if not 0 <= most_unusable <= 1:
            raise ValueError(f"most_unusable is {most_unusable}: it must be between 0 and 1")
        for name, value, none in (("holdout", holdout, "no validation"), ("num_workers", num_workers, "none beside")):
            if value < 0:
                raise ValueError(f"{name} is {value}: it must be 0 ({none}) or more")
        check_buckets([shape, *buckets])
        self.shape = shape
        self.buckets = buckets
        self.fps = fps
        self.holdout = holdout
        self.num_workers = num_workers
        self.embeddings = embeddings
        self.image_steps = image_steps
        self.seconds_per_file = seconds_per_file
        self.most_unusable = most_unusable
        self.skipped: dict[str, str] = {}
        self.census: dict[Modality, Count] = {}
        self.manifest: dict[str, str] | None = None
        sizes: dict[Modality, int] = {"video": video_batch_size, "image": image_batch_size}
        named: dict[Modality, str | Path | Sequence[Source] | None] = {"video": videos, "image": images}
        self._sources = {modality: as_sources(of, modality) for modality, of in named.items() if of is not None}
        paths = [source.path for of in self._sources.values() for source in of]
        self._streamed = any(map(is_stream, paths))
        settings = {"holdout": holdout, "image_steps": image_steps, "embeddings": embeddings, "buckets": buckets}
        if self._streamed and (given := [name for name, value in settings.items() if value]):
            raise ValueError(f"{given[0]} is {settings[given[0]]}: streams (http, pipe:) don't offer this; use files")
        if self._streamed and not all(map(is_stream, paths)):
            raise ValueError(f"videos and images are {paths}: all must be streams (http, pipe:), or none")
        self._batch_sizes = {modality: sizes[modality] for modality in self._sources}
        self._shapes: Shapes = dict(enumerate([shape, *buckets]))
        self._found: Found | None = None
        self._kept: dict[Modality, list[list[Sample]]] = {}  # to train on, of each source
        self._train: list[Bucket] = []
        self._validation: dict[int, dict[Modality, list[Sample]]] = {}  # of each bucket
        self._resumed: tuple[int, Mapping[str, int]] = 0, {}  # the step, and the positions of the streams

    def prepare_data(self) -> None:
        """Where there are buckets, read the headers of all files, once per machine, and keep them beside the files.

        Raises:
            ValueError: A source is missing.
            NothingUsable: It holds no sample.
        """
        if self.buckets and not self._streamed:
            self._find()

    def setup(self, stage: str) -> None:
        """List the samples, once, and look at the headers of some, or of all where there are buckets.

        Raises:
            ValueError: A source is missing or holds too few samples for `holdout`.
            NothingUsable: It holds no sample, or more than `most_unusable` of its files cannot be used.
        """
        if self._train or self._streamed:
            return
        listed, headers = self._find()
        self._found = None
        if self.embeddings:
            self.manifest = common_manifest([s for of in listed.values() for index in of for s in index.samples])
        shapes, homes = self._shapes, dict[Sample, int]()
        for modality, indices in listed.items():
            if self.buckets:
                found = [sort_samples(index, headers, modality, shapes, self.fps) for index in indices]
                indices = [index for index, _ in found]
                homes |= {sample: home for _, of_index in found for sample, home in of_index.items()}
            self._report(indices, modality)
            looks = partial(
                Looks, modality=modality, reader=self._reader(), decode=False, shapes=shapes, headers=headers
            )
            together = Index([s for index in indices for s in index.samples], [s for i in indices for s in i.skipped])
            weighted = len(indices) > 1 and self._sources[modality][0].weight is not None
            for index in [*(indices if weighted else ()), together]:  # where one gives nothing, no other stands in
                self.census[modality] = take_census(looks(index.samples), index.skipped, limit=_LOOKED_AT)
                self.census[modality].judge(modality, self.most_unusable)
            self._kept[modality], held = hold_out(indices, modality, self.holdout, looks)
            for sample in held:
                self._validation.setdefault(homes.get(sample, 0), {}).setdefault(modality, []).append(sample)
            shapes = with_samples(shapes, self._kept[modality], homes)  # images keep to the buckets of videos
        weights = {name: [source.weight for source in sources] for name, sources in self._sources.items()}
        self._train = fill(self._shapes, self._kept, weights, homes)
        if self._place()[0] == 0 and (empty := without_steps(self._shapes, self._train)):
            logger.warning("%s", empty)

    def train_dataloader(self) -> Loader:
        """Endless batches from the trainer's step on.

        Raises:
            ValueError: Steps are of a number of batches that changes, or batches repeat: where a run is is not known.
        """
        schedule = getattr(self.trainer, "accumulation_scheduler", None)
        if schedule is not None and len(schedule.scheduling) > 1:
            raise ValueError("GradientAccumulationScheduler: use trainer.accumulate_grad_batches, the same throughout")
        if getattr(self.trainer, "overfit_batches", 0):
            raise ValueError(
                "trainer.overfit_batches: the order of batches is fixed; name a folder of few samples instead"
            )
        if self._streamed:
            return self._streaming_loader()
        self._agree()
        order = self._order()
        spare = {name: list(itertools.chain(*of)) for name, of in self._kept.items()} if self.buckets else {}
        clips = {}
        for bucket, turns in zip(self._train, order.orders, strict=True):
            samples = {name: list(itertools.chain(*sources)) for name, sources in bucket.samples.items()}
            clips[bucket.number] = Clips(samples, turns.streams, self._reader(bucket.number), _seed(), spare)
        return self._loader(clips, SharedOut(order))

    def val_dataloader(self) -> Loader | list[Loader]:
        """The held-out samples in the same batches with the same draws whatever the seed; none if `holdout` is 0."""
        if not self.holdout:
            return []
        batches, clips, spare = [], {}, dict[Modality, list[Sample]]()
        for samples in self._validation.values() if self.buckets else ():
            for modality, held in samples.items():
                spare.setdefault(modality, []).extend(held)
        for bucket, samples in sorted(self._validation.items()):
            sizes = {modality: len(held) for modality, held in samples.items()}
            batches += validation_batches(sizes, self._batch_sizes, *self._place(), bucket)
            streams = {modality: Stream(modality, 0, (size,)) for modality, size in sizes.items()}
            clips[bucket] = Clips(samples, streams, self._reader(bucket), 0, spare)
        return self._loader(clips, SharedOut(batches))

    def test_dataloader(self) -> Loader | list[Loader]:
        """The samples of `val_dataloader`."""
        return self.val_dataloader()

    def predict_dataloader(self) -> Loader | list[Loader]:
        """The samples of `val_dataloader`."""
        return self.val_dataloader()

    def largest_batch(self, training: bool = True) -> list[VideoBatch]:
        """A batch of black clips as large as any of training, or of validation: what memory must suffice for."""
        sizes = self._batch_sizes if training else {m: min(n, self.holdout) for m, n in self._batch_sizes.items()}
        if training and self.image_steps is not None:  # a step has one of the two
            sizes = dict([max(sizes.items(), key=lambda item: item[1])])
        numbers = [bucket.number for bucket in self._train] if training else list(self._validation)
        shape = max((self._shapes[number] for number in numbers or (0,)), key=math.prod)
        samples = {modality: itertools.chain(*self._kept.get(modality, ())) for modality in sizes}
        return [blank_clips(m, size, shape, self.manifest, samples[m]) for m, size in sizes.items()]

    def on_after_batch_transfer(self, batch: list[VideoBatch], dataloader_idx: int) -> VideoBatch:
        """Join videos and images on the device, and name the files that could not be used."""
        joint = VideoBatch.join(batch, batch[0].num_frames)
        for path, reason in joint.skipped:
            if path not in self.skipped:
                self.skipped[path] = reason
                logger.warning("skipped %s: %s", path, reason)
        return joint

    def teardown(self, stage: str) -> None:
        """Say how many files could not be used."""
        if self.skipped and stage == "fit":
            logger.warning("%d files could not be used: %s", len(self.skipped), count_reasons(self.skipped.values()))

    def state_dict(self) -> dict[str, Any]:
        """How far the streams have come, for a resume on another number of ranks, and of what samples."""
        if not self._train:
            return {}
        order, step = self._order(), self._step()
        return {
            "step": self.trainer.global_step if self.trainer else 0,
            "positions": order.positions(step),
            "settings": self._settings(),
            "samples": {name: [count.samples, count.keys] for name, count in self.census.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the run had come to, and say if the samples are not what they were."""
        if not state_dict:
            return
        window = self.trainer.accumulate_grad_batches if self.trainer else 1
        self._resumed = state_dict["step"] * window, state_dict["positions"]
        for name, value in self._settings().items():
            if (before := state_dict["settings"].get(name, [])) != value:
                logger.warning("data: %s is %s, not %s as at the checkpoint: the order is another", name, value, before)
        for name, count in self.census.items():
            number, keys = state_dict["samples"].get(name, (0, ""))
            if keys != count.keys:
                what = f"{count.samples} samples, {number} before" if number != count.samples else "other names"
                logger.warning(
                    "%ss: the data changed since the checkpoint (%s): from here on the order is another", name, what
                )

    def describe(self) -> dict[str, Any]:
        """The census with what becomes of it: sources with their shares, clips per step, steps per pass."""
        if self._streamed:
            return {}
        _, world = self._place()
        window = self.trainer.accumulate_grad_batches if self.trainer else 1
        order, described = self._order(), dict[str, Any]()
        for modality, sources in self._sources.items():
            per_step = self._batch_sizes[modality] * world * window * order.orders[0].share_of_steps(modality)
            paths, kept = [str(source.path) for source in sources], self._kept[modality]
            described[modality] = (
                self.census[modality].as_dict()
                | describe_samples(self._train, order.mix, self._shapes, modality, paths, kept, per_step)
                | {"held_out": sum(len(of.get(modality, ())) for of in self._validation.values()), "per_step": per_step}
            )
        return described

    def _report(self, indices: Sequence[Index], modality: Modality) -> None:
        """Name the files that are no samples."""
        skipped = [skip for index in indices for skip in index.skipped]
        self.skipped |= dict(skipped)
        if skipped and self._place()[0] == 0:
            logger.warning("%s", left_out(skipped, modality, sum(len(index.samples) for index in indices)))

    def _find(self) -> Found:
        """The samples of each source, and where there are buckets, their headers."""
        if self._found is None:
            listed = {
                modality: [index_source(Path(source.path), modality) for source in sources]
                for modality, sources in self._sources.items()
            }
            shown, workers = self._place()[0] == 0, self.num_workers
            headers = headers_of(listed, self.seconds_per_file, workers, shown) if self.buckets else {}
            self._found = listed, headers
        return self._found

    def _agree(self) -> None:
        """See that all ranks have found the same samples.

        Raises:
            ValueError: They have not: a disk was slow, or files came while they looked.
        """
        streams = [sources for bucket in self._train for sources in bucket.samples.values()]
        keys = [[[sample.key for sample in source] for source in sources] for sources in streams]
        mine = hashlib.sha256(repr(keys).encode()).hexdigest()
        if self.trainer and self.trainer.strategy.broadcast(mine) != mine:
            raise ValueError(f"rank {self.trainer.global_rank} has found other samples than rank 0: start again")

    def _settings(self) -> dict[str, Any]:
        """What the order depends on, beside the samples."""
        weights = {name: [source.weight for source in sources] for name, sources in self._sources.items()}
        buckets = [str(shape) for shape in self._shapes.values()] if self.buckets else []
        return {"seed": _seed(), "holdout": self.holdout, "weights": weights, "buckets": buckets}

    def _order(self) -> BucketOrder:
        rank, world = self._place()
        step, positions = self._resumed
        mix, orders = mix_buckets(self._train, next(iter(self._sources)), _seed()), []
        for bucket, turns in zip(self._train, mix.before(step), strict=True):
            streams = {modality: bucket.stream(modality, _seed()) for modality in self._sources}
            origin = Origin(turns, {modality: positions.get(bucket.name(modality), 0) for modality in streams})
            orders.append(TrainOrder(streams, self._batch_sizes, rank, world, int, self.image_steps, origin))
        return BucketOrder(mix, self._train, orders, self._step)

    def _loader(self, clips: Mapping[int, Clips], order: SharedOut) -> Loader:
        return Loader(
            BucketClips(clips),
            sampler=order,
            batch_size=None,  # the order yields whole batches
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # or the loader would draw from the model's stream of random numbers
        )

    def _streaming_loader(self) -> Loader:
        urls = {modality: [str(source.path) for source in sources] for modality, sources in self._sources.items()}
        weights = {m: [source.weight or 1.0 for source in sources] for m, sources in self._sources.items()}
        rank, world = self._place()
        clips = StreamedClips(urls, weights, self._batch_sizes, self._reader(), _seed(), rank, world, self._step())
        return StreamLoader(
            clips,
            self._step,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # as in `_loader`
        )

    def _reader(self, bucket: int = 0) -> Reader:
        return Reader(self._shapes[bucket], self.fps, self.manifest, self.seconds_per_file)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _step(self) -> int:
        """Batches that each rank has had so far."""
        return self.trainer.global_step * self.trainer.accumulate_grad_batches if self.trainer else 0


def _seed() -> int:
    return int(os.environ.get("PL_GLOBAL_SEED", 0))  # where Lightning's seed_everything leaves it
