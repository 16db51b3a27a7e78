"""Videos and images from folders, in joint batches."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from ..components.interfaces import Condition, VideoBatch, VideoShape
from .decode import Clip, decode_image, decode_video
from .order import Draw, SharedOut, TrainOrder, clip_generator, validation_batches
from .samples import SUFFIXES, Index, Modality, NothingUsable, Sample, Unusable, count_reasons, index_folder

logger = logging.getLogger(__name__)

_MAX_ATTEMPTS = 100  # files tried for one place in a batch
_MAX_NAMED = 10  # files without caption that the log names


class FolderClips(Dataset[list[VideoBatch]]):
    """Decodes places of a batch: ``clips[draws]`` is one `VideoBatch` per modality, videos first.

    A file that cannot be used is replaced by another one, drawn from the place alone, and named in
    ``VideoBatch.skipped``.

    Args:
        sources: The samples of each modality.
        shape: The size of a video; images have its height and width, and T = 1.
        fps: Candidate frame rates of videos in frames per second.
        seed: Seed of the draws within each place.
        embeddings: Width of the text embeddings beside the files; None: they are not read.
    """

    def __init__(
        self,
        sources: Mapping[Modality, Index],
        shape: VideoShape,
        fps: Sequence[float],
        seed: int,
        embeddings: int | None,
    ) -> None:
        self.sources = sources
        self.shape = shape
        self.fps = fps
        self.seed = seed
        self.embeddings = embeddings

    def __len__(self) -> int:
        return sum(len(source.samples) for source in self.sources.values())

    def __getitem__(self, draws: list[Draw]) -> list[VideoBatch]:
        """Decode.

        Raises:
            NothingUsable: So many files in a row cannot be used that there is no point in going on.
        """
        by_modality = {modality: [draw for draw in draws if draw.modality == modality] for modality in SUFFIXES}
        return [self._batch(places) for places in by_modality.values() if places]

    def _batch(self, draws: list[Draw]) -> VideoBatch:
        skipped: list[tuple[str, str]] = []
        usable = [self._usable(draw, skipped) for draw in draws]
        return VideoBatch(
            captions=[sample.caption for sample, _, _ in usable],
            fps=torch.tensor([clip.fps for _, clip, _ in usable], dtype=torch.float32),
            resolution=torch.tensor([clip.resolution for _, clip, _ in usable], dtype=torch.float32),
            video=torch.stack([clip.video for _, clip, _ in usable]),
            keys=[sample.key for sample, _, _ in usable],
            skipped=skipped,
            embeddings=Condition.stack([e for _, _, e in usable if e is not None]) if self.embeddings else None,
        )

    def _usable(self, draw: Draw, skipped: list[tuple[str, str]]) -> tuple[Sample, Clip, Condition | None]:
        """The sample at one place, or the first substitute that can be used."""
        source = self.sources[draw.modality]
        failed: dict[int, str] = {}
        for attempt in range(_MAX_ATTEMPTS):
            generator = clip_generator(self.seed, draw, attempt)
            index = draw.index if attempt == 0 else int(generator.integers(len(source.samples)))
            if index in failed:
                continue
            sample = source.samples[index]
            path = source.folder / sample.key
            try:
                embedding = read_embedding(path, self.embeddings) if self.embeddings else None
                if draw.modality == "image":
                    return sample, decode_image(path, self.shape), embedding
                return sample, decode_video(path, self.shape, self.fps, generator), embedding
            except Unusable as error:
                failed[index] = str(error)
                skipped.append((str(path), str(error)))
        index, reason = next(iter(failed.items()))
        raise NothingUsable(
            f"{draw.modality}s: none of {len(failed)} files tried one after another in {source.folder} can be used"
            f" ({count_reasons(failed.values())}); for example {source.samples[index].key}: {reason}"
        )


class JointFolders(LightningDataModule):
    """Captioned videos and images from two folders, always so many of each in a batch.

    The order of the data is a function of the seed (``seed_everything``) and the step alone: it does not depend on the
    number of workers, 2 ranks with batches of 4 see together what 1 rank with batches of 8 sees, and a run resumed at
    step s sees what it would have seen. Train with ``max_steps``: the training data has no end and no length.

    Args:
        shape: Size of one video; a video is read at this size, an image at this height and width.
        videos: Folder of videos with captions, searched at any depth; ~ and environment variables are replaced.
        images: Folder of images with captions, likewise.
        video_batch_size: Videos per batch and device; 0 without `videos`.
        image_batch_size: Images per batch and device; 0 without `images`.
        fps: Frame rates, in frames per second, of which each video is read at a random one that its length and its
            native rate allow.
        holdout: Samples of each folder kept for validation, chosen by their names; 0 for no validation.
        num_workers: Processes that read files beside the training; 0 reads in the training process.
        embeddings: Width D of what a text encoder made of each caption, floats ``[S, D]`` in ``clip.npy`` beside
            ``clip.mp4``, for a conditioner that takes them (`Text`); files without are skipped. None: there are none.

    Attributes:
        skipped: Path and reason of each file that could not be used so far.
    """

    def __init__(
        self,
        shape: VideoShape,
        videos: Path | None = None,
        images: Path | None = None,
        video_batch_size: int = 0,
        image_batch_size: int = 0,
        fps: Sequence[float] = (24.0, 12.0, 8.0, 4.0),
        holdout: int = 0,
        num_workers: int = 0,
        embeddings: int | None = None,
    ) -> None:
        super().__init__()
        if shape.channels != 3:
            raise ValueError(f"shape.channels is {shape.channels}: files are read as RGB, so it must be 3")
        if videos is None and images is None:
            raise ValueError("videos and images are both missing: name a folder for at least one of them")
        for modality, folder, size in (("video", videos, video_batch_size), ("image", images, image_batch_size)):
            if (folder is None) != (size == 0) or size < 0:
                fix = "give a folder and a batch size of 1 or more, or neither"
                raise ValueError(f"{modality}s is {folder} and {modality}_batch_size is {size}: {fix}")
        if not fps or not all(0 < rate < math.inf for rate in fps):
            raise ValueError(f"fps is {list(fps)}: give at least one frame rate, all finite and above 0")
        if embeddings is not None and embeddings < 1:
            raise ValueError(f"embeddings is {embeddings}: it must be null (there are none) or their width")
        for name, value, none in (("holdout", holdout, "no validation"), ("num_workers", num_workers, "none beside")):
            if value < 0:
                raise ValueError(f"{name} is {value}: it must be 0 ({none}) or more")
        self.shape = shape
        self.fps = fps
        self.holdout = holdout
        self.num_workers = num_workers
        self.embeddings = embeddings
        self.skipped: dict[str, str] = {}
        folders: dict[Modality, Path | None] = {"video": videos, "image": images}
        sizes: dict[Modality, int] = {"video": video_batch_size, "image": image_batch_size}
        self._folders = {modality: _expand(folder) for modality, folder in folders.items() if folder is not None}
        self._batch_sizes = {modality: sizes[modality] for modality in self._folders}
        self._train: dict[Modality, Index] = {}
        self._validation: dict[Modality, Index] = {}

    def setup(self, stage: str) -> None:
        """List the samples, once.

        Raises:
            ValueError: A folder is missing or holds too few samples for `holdout`; `NothingUsable` if it holds none.
        """
        if self._train:
            return
        for modality, folder in self._folders.items():
            index = index_folder(folder, modality)
            self._report(index, modality)
            self._train[modality], self._validation[modality] = _split(index, modality, self.holdout)

    def train_dataloader(self) -> DataLoader[list[VideoBatch]]:
        """Endless batches from the trainer's step on."""
        rank, world = self._place()
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))  # where Lightning's seed_everything leaves it
        order = TrainOrder(_sizes(self._train), self._batch_sizes, seed, rank, world, start=self._step)
        return self._loader(self._train, SharedOut(order), seed)

    def val_dataloader(self) -> DataLoader[list[VideoBatch]] | list[DataLoader[list[VideoBatch]]]:
        """The held-out samples in the same batches with the same draws whatever the seed; none if `holdout` is 0."""
        if not self.holdout:
            return []
        batches = validation_batches(_sizes(self._validation), self._batch_sizes, *self._place())
        return self._loader(self._validation, SharedOut(batches), seed=0)

    def test_dataloader(self) -> DataLoader[list[VideoBatch]] | list[DataLoader[list[VideoBatch]]]:
        """The samples of `val_dataloader`."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[list[VideoBatch]] | list[DataLoader[list[VideoBatch]]]:
        """The samples of `val_dataloader`."""
        return self.val_dataloader()

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

    def _report(self, index: Index, modality: Modality) -> None:
        """Name the files without a caption."""
        self.skipped |= {str(index.folder / key): reason for key, reason in index.skipped}
        rank, _ = self._place()
        if index.skipped and rank == 0:
            named = "".join(f"\n  {key}: {reason}" for key, reason in index.skipped[:_MAX_NAMED])
            more = "\n  ..." if len(index.skipped) > _MAX_NAMED else ""
            counts = f"{len(index.skipped)} of {len(index.samples) + len(index.skipped)} {modality}s in {index.folder}"
            logger.warning("%s have no usable caption and are left out:%s%s", counts, named, more)

    def _loader(self, sources: Mapping[Modality, Index], order: SharedOut, seed: int) -> DataLoader[list[VideoBatch]]:
        return DataLoader(
            FolderClips(sources, self.shape, self.fps, seed, self.embeddings),
            sampler=order,
            batch_size=None,  # the order yields whole batches
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # or the loader would draw from the model's stream of random numbers
        )

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _step(self) -> int:
        """Batches that each rank has had so far."""
        return self.trainer.global_step * self.trainer.accumulate_grad_batches if self.trainer else 0


def read_embedding(media: Path, width: int) -> Condition:
    """What a text encoder made of the caption of a media file: floats ``[S, D]`` in the ``.npy`` file beside it.

    Args:
        media: The media file.
        width: D.

    Raises:
        Unusable: There is no such file, or it holds something else.
    """
    path = media.with_suffix(".npy")
    try:
        array = np.load(path)
    except FileNotFoundError as error:
        raise Unusable("no embedding", f"there is no {path.name}") from error
    except (OSError, ValueError, EOFError) as error:
        raise Unusable("bad embedding", f"{path.name}: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.size == 0 or array.dtype.kind != "f":
        raise Unusable("bad embedding", f"{path.name} does not hold floats [S, D]")
    if array.shape[1] != width:
        raise Unusable("bad embedding", f"{path.name} is {array.shape[1]} wide, not {width}")
    tokens = torch.from_numpy(array.astype(array.dtype.newbyteorder("="))).unsqueeze(0)
    return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))


def _expand(folder: Path) -> Path:
    return Path(os.path.expandvars(folder)).expanduser()


def _sizes(sources: Mapping[Modality, Index]) -> dict[Modality, int]:
    return {modality: len(source.samples) for modality, source in sources.items()}


def _split(index: Index, modality: Modality, holdout: int) -> tuple[Index, Index]:
    """Samples to train on and to validate on: those with the smallest hashes, so that new files change little."""
    if holdout >= len(index.samples):
        found = f"{index.folder} has {len(index.samples)} {modality}s"
        raise ValueError(f"holdout is {holdout}, but {found}: it must be less, so that some are left to train on")
    by_hash = sorted(index.samples, key=lambda sample: hashlib.sha256(os.fsencode(sample.key)).digest())
    kept = sorted(by_hash[holdout:], key=lambda sample: sample.key)
    return Index(index.folder, kept, []), Index(index.folder, by_hash[:holdout], [])
