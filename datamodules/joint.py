"""Videos and images from folders and shards, in joint batches."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from ..components.interfaces import VideoBatch, VideoShape
from .census import Count, Looks, take_census
from .clips import Clips, Loader, Reader, blank_clips
from .embeddings import MANIFEST, read_manifest
from .order import Origin, SharedOut, Stream, TrainOrder, validation_batches
from .samples import SUFFIXES, Index, Modality, NothingUsable, Sample, Unusable, count_reasons
from .sources import Source, index_source
from .streams import StreamedClips, StreamLoader, is_stream

logger = logging.getLogger(__name__)

_MAX_NAMED = 10  # files that the log names before training
_LOOKED_AT = 256  # files of a modality whose headers are read before training


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

    Attributes:
        skipped: Path and reason of each file that could not be used so far.
        census: What there is to train on, by modality, once `setup` has looked.
        manifest: How the embeddings were made, once `setup` has looked; None without.
    """

    def __init__(
        self,
        shape: VideoShape,
        videos: str | Path | Sequence[Source] | None = None,
        images: str | Path | Sequence[Source] | None = None,
        video_batch_size: int = 0,
        image_batch_size: int = 0,
        fps: Sequence[float] = (24.0, 12.0, 8.0, 4.0),
        holdout: int = 0,
        num_workers: int = 0,
        embeddings: bool = False,
        image_steps: float | None = None,
        seconds_per_file: float = 60.0,
        most_unusable: float = 0.5,
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
        self.shape = shape
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
        self._sources: dict[Modality, list[Source]] = {}
        if videos is not None:
            self._sources["video"] = _sources(videos, "video")
        if images is not None:
            self._sources["image"] = _sources(images, "image")
        paths = [source.path for of in self._sources.values() for source in of]
        self._streamed = any(map(is_stream, paths))
        settings = {"holdout": holdout, "image_steps": image_steps, "embeddings": embeddings}
        if self._streamed and (given := [name for name, value in settings.items() if value]):
            raise ValueError(f"{given[0]} is {settings[given[0]]}: streams (http, pipe:) don't offer this; use files")
        if self._streamed and not all(map(is_stream, paths)):
            raise ValueError(f"videos and images are {paths}: all must be streams (http, pipe:), or none")
        self._batch_sizes = {modality: sizes[modality] for modality in self._sources}
        self._origin = Origin(0, dict.fromkeys(SUFFIXES, 0))
        self._train: dict[Modality, list[list[Sample]]] = {}  # of each source
        self._validation: dict[Modality, list[Sample]] = {}

    def setup(self, stage: str) -> None:
        """List the samples, once, and look at the headers of some.

        Raises:
            ValueError: A source is missing or holds too few samples for `holdout`.
            NothingUsable: It holds no sample, or more than `most_unusable` of its files cannot be used.
        """
        if self._train or self._streamed:
            return
        listed = {
            modality: [index_source(Path(source.path), modality) for source in sources]
            for modality, sources in self._sources.items()
        }
        if self.embeddings:
            self.manifest = _manifest([sample for of in listed.values() for index in of for sample in index.samples])
        for modality, indices in listed.items():
            self._report(indices, modality)
            together = Index([s for index in indices for s in index.samples], [s for i in indices for s in i.skipped])
            weighted = len(indices) > 1 and self._sources[modality][0].weight is not None
            for index in [*(indices if weighted else ()), together]:  # where one gives nothing, no other stands in
                looks = Looks(index.samples, modality, self._reader(), decode=False)
                self.census[modality] = take_census(looks, index.skipped, limit=_LOOKED_AT)
                self.census[modality].judge(modality, self.most_unusable)
            self._train[modality], self._validation[modality] = self._split(indices, modality)

    def train_dataloader(self) -> Loader:
        """Endless batches from the trainer's step on.

        Raises:
            ValueError: Steps are of a number of batches that changes: where a run is would not be known.
        """
        schedule = getattr(self.trainer, "accumulation_scheduler", None)
        if schedule is not None and len(schedule.scheduling) > 1:
            raise ValueError("GradientAccumulationScheduler: use trainer.accumulate_grad_batches, the same throughout")
        if self._streamed:
            return self._streaming_loader()
        self._agree()
        order = self._order()
        samples = {modality: list(itertools.chain(*sources)) for modality, sources in self._train.items()}
        return self._loader(samples, order.streams, SharedOut(order), _seed())

    def val_dataloader(self) -> Loader | list[Loader]:
        """The held-out samples in the same batches with the same draws whatever the seed; none if `holdout` is 0."""
        if not self.holdout:
            return []
        sizes = {modality: len(samples) for modality, samples in self._validation.items()}
        batches = validation_batches(sizes, self._batch_sizes, *self._place())
        streams = {modality: Stream(modality, 0, (size,)) for modality, size in sizes.items()}
        return self._loader(self._validation, streams, SharedOut(batches), seed=0)

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
        shape = max([self.shape, *getattr(self, "buckets", ())], key=math.prod)
        samples = {modality: itertools.chain(*self._train.get(modality, ())) for modality in sizes}
        return [blank_clips(m, size, shape, self.manifest, samples[m]) for m, size in sizes.items()]

    def on_after_batch_transfer(self, batch: list[VideoBatch], dataloader_idx: int) -> VideoBatch:
        """Join videos and images on the device, and name the files that could not be used."""
        joint = VideoBatch.join(batch, self.shape.num_frames)
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
            "positions": {name: order.position(name, step) for name in self._sources},
            "settings": self._settings(),
            "samples": {name: [count.samples, count.keys] for name, count in self.census.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the run had come to, and say if the samples are not what they were."""
        if not state_dict:
            return
        window = self.trainer.accumulate_grad_batches if self.trainer else 1
        self._origin = Origin(state_dict["step"] * window, self._origin.positions | state_dict["positions"])
        for name, value in self._settings().items():
            if (before := state_dict["settings"][name]) != value:
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
        for modality, sources in self._train.items():
            sizes, stream = [len(samples) for samples in sources], order.streams[modality]
            shares = [n / 1000 for n in stream.shares] if len(stream.sizes) > 1 else [n / sum(sizes) for n in sizes]
            share_of_steps = order.share_of_steps(modality)
            per_step = self._batch_sizes[modality] * world * window * share_of_steps
            described[modality] = self.census[modality].as_dict() | {
                "sources": [
                    {
                        "path": str(source.path),
                        "samples": size,
                        "share": round(share, 4),
                        "steps_per_pass": round(size / (share * per_step), 1),
                    }
                    for source, size, share in zip(self._sources[modality], sizes, shares, strict=True)
                ],
                "held_out": len(self._validation[modality]),
                "per_step": per_step,
            }
        return described

    def _report(self, indices: Sequence[Index], modality: Modality) -> None:
        """Name the files that are no samples."""
        skipped = [skip for index in indices for skip in index.skipped]
        self.skipped |= dict(skipped)
        rank, _ = self._place()
        if skipped and rank == 0:
            named = "".join(f"\n  {place}: {reason}" for place, reason in skipped[:_MAX_NAMED])
            more = "\n  ..." if len(skipped) > _MAX_NAMED else ""
            total = sum(len(index.samples) for index in indices) + len(skipped)
            counts = f"{modality}s: {len(skipped)} of {total} ({count_reasons(reason for _, reason in skipped)})"
            logger.warning("%s cannot be used and are left out:%s%s", counts, named, more)

    def _split(self, indices: Sequence[Index], modality: Modality) -> tuple[list[list[Sample]], list[Sample]]:
        """Samples to train on of each source, and those to validate on: by hash, so that a new file changes little."""
        everything = [sample for index in indices for sample in index.samples]
        everything.sort(key=lambda sample: hashlib.sha256(os.fsencode(sample.key)).digest())
        looks = Looks(everything, modality, self._reader(), decode=False)
        usable = (everything[i] for i in range(len(everything)) if "reason" not in looks[i])
        held = list(itertools.islice(usable, self.holdout))
        known = set(map(id, held))
        kept = [[sample for sample in index.samples if id(sample) not in known] for index in indices]
        for index, samples in zip(indices, kept, strict=True):
            if samples and len(held) < self.holdout:
                raise ValueError(
                    f"holdout is {self.holdout}, but only {len(held)} {modality}s can be used: set it lower"
                )
            if not samples:
                found = f"{index.samples[0].tree.path} has {len(index.samples)} {modality}s"
                fix = "it must be less, so that some are left to train on"
                raise ValueError(f"holdout is {self.holdout}, but {found}: {fix}")
        return kept, held

    def _agree(self) -> None:
        """See that all ranks have found the same samples.

        Raises:
            ValueError: They have not: a disk was slow, or files came while they looked.
        """
        keys = [[sample.key for sample in source] for sources in self._train.values() for source in sources]
        mine = hashlib.sha256(repr(keys).encode()).hexdigest()
        if self.trainer and self.trainer.strategy.broadcast(mine) != mine:
            raise ValueError(f"rank {self.trainer.global_rank} has found other samples than rank 0: start again")

    def _settings(self) -> dict[str, Any]:
        """What the order depends on, beside the samples."""
        weights = {name: [source.weight for source in sources] for name, sources in self._sources.items()}
        return {"seed": _seed(), "holdout": self.holdout, "weights": weights}

    def _order(self) -> TrainOrder:
        rank, world = self._place()
        streams = {}
        for modality, sources in self._sources.items():
            sizes, weights = [len(samples) for samples in self._train[modality]], [source.weight for source in sources]
            given = [weight for weight in weights if weight is not None]
            streams[modality] = (
                Stream(modality, _seed(), sizes, given) if given else Stream(modality, _seed(), [sum(sizes)])
            )
        return TrainOrder(streams, self._batch_sizes, rank, world, self._step, self.image_steps, self._origin)

    def _loader(
        self,
        samples: Mapping[Modality, Sequence[Sample]],
        streams: Mapping[Modality, Stream],
        order: SharedOut,
        seed: int,
    ) -> Loader:
        return Loader(
            Clips(samples, streams, self._reader(), seed),
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

    def _reader(self) -> Reader:
        return Reader(self.shape, self.fps, self.manifest, self.seconds_per_file)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _step(self) -> int:
        """Batches that each rank has had so far."""
        return self.trainer.global_step * self.trainer.accumulate_grad_batches if self.trainer else 0


def _seed() -> int:
    return int(os.environ.get("PL_GLOBAL_SEED", 0))  # where Lightning's seed_everything leaves it


def _manifest(samples: Sequence[Sample]) -> dict[str, str]:
    """How most embeddings were made, as all must have been."""
    found, problem = Counter[tuple[tuple[str, str], ...]](), ""
    for sample in samples[:_LOOKED_AT]:
        try:
            found[tuple((field, value) for field, value in read_manifest(sample).items() if field in MANIFEST)] += 1
        except Unusable as error:
            problem = problem or f"{sample.place}: {error}"
    if not found:
        tried = min(len(samples), _LOOKED_AT)
        raise NothingUsable(f"embeddings: the first {tried} samples have none; for example {problem}")
    return dict(found.most_common(1)[0][0])


def _sources(given: str | Path | Sequence[Source], modality: Modality) -> list[Source]:
    """The sources that a setting names, all with weights or none."""
    sources = [Source(str(given))] if isinstance(given, str | Path) else list(given)
    weighted = [source.weight for source in sources if source.weight is not None]
    if not sources:
        raise ValueError(f"{modality}s is an empty list: name a folder or shards, or leave it out")
    if len(weighted) not in (0, len(sources)) or not all(0 < weight < math.inf for weight in weighted):
        weights = [source.weight for source in sources]
        raise ValueError(f"{modality}s: the weights are {weights}: give all a finite one above 0, or none")
    return sources
