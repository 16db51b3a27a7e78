"""Samples into batches: what a worker of the loader does."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch.utils.data import DataLoader, Dataset

from ..components.interfaces import Condition, VideoBatch, VideoShape
from .decode import Clip, Timed, decode_image, decode_video
from .embeddings import read_embedding
from .order import Draw, Stream, clip_generator
from .samples import SUFFIXES, Modality, NothingUsable, Sample, Unusable, count_reasons

_MAX_ATTEMPTS = 100  # files tried for one place in a batch


@dataclass(frozen=True)
class Reader:
    """Reads a sample.

    Args:
        shape: The size of a video; images have its height and width, and T = 1.
        fps: Candidate frame rates of videos in frames per second.
        manifest: How the text embeddings beside the files were made; None: they are not read.
        seconds: How long one file may take.
    """

    shape: VideoShape
    fps: Sequence[float]
    manifest: Mapping[str, str] | None
    seconds: float

    def __call__(
        self, sample: Sample, modality: Modality, generator: np.random.Generator
    ) -> tuple[Clip, Condition | None]:
        """Pixels, and the embedding of the caption.

        Args:
            sample: Which.
            modality: What it is.
            generator: Source of what is drawn within a video.

        Raises:
            Unusable: It cannot be used.
        """
        embedding = read_embedding(sample, self.manifest) if self.manifest else None
        try:
            file = sample.tree.open(sample.key)
        except OSError as error:
            raise Unusable("cannot be opened", error.strerror or str(error)) from error
        with file:
            timed = io.BufferedReader(Timed(file, self.seconds), buffer_size=1 << 15)
            if modality == "image":
                return decode_image(timed, self.shape), embedding
            return decode_video(timed, self.shape, self.fps, generator), embedding


class Clips(Dataset[list[VideoBatch]]):
    """Decodes places of a batch: ``clips[draws]`` is one `VideoBatch` per modality, videos first.

    A file that cannot be used is replaced by another one of its source, drawn from the place alone, and named in
    ``VideoBatch.skipped``.

    Args:
        samples: The samples of each modality.
        streams: Which of them are of one source.
        reader: Reads a sample.
        seed: Seed of the draws within each place.
        spare: Samples of each modality that stand in where none of a source can be used.
    """

    def __init__(
        self,
        samples: Mapping[Modality, Sequence[Sample]],
        streams: Mapping[Modality, Stream],
        reader: Reader,
        seed: int,
        spare: Mapping[Modality, Sequence[Sample]] | None = None,
    ) -> None:
        self.samples = samples
        self.streams = streams
        self.reader = reader
        self.seed = seed
        self.spare = spare or {}

    def __len__(self) -> int:
        return sum(len(samples) for samples in self.samples.values())

    def __getitem__(self, draws: list[Draw]) -> list[VideoBatch]:
        """Decode.

        Raises:
            NothingUsable: So many files in a row cannot be used that there is no point in going on.
        """
        by_modality = {modality: [draw for draw in draws if draw.modality == modality] for modality in SUFFIXES}
        return [self._batch(places) for places in by_modality.values() if places]

    def _batch(self, draws: list[Draw]) -> VideoBatch:
        skipped: list[tuple[str, str]] = []
        return join_clips([self._usable(draw, skipped) for draw in draws], skipped, self.reader.shape.num_frames)

    def _usable(self, draw: Draw, skipped: list[tuple[str, str]]) -> tuple[Sample, Clip, Condition | None]:
        """The sample at one place, or the first substitute that can be used."""
        samples, alike = self.samples[draw.modality], self.streams[draw.modality].alike(draw.index)
        spare = self.spare.get(draw.modality, ())
        failed: dict[Sample, str] = {}
        for attempt in range(_MAX_ATTEMPTS):
            generator = clip_generator(self.seed, draw, attempt)
            if attempt == 0:
                sample = samples[draw.index]
            elif spare and len(failed) >= len(alike):
                sample = spare[int(generator.integers(len(spare)))]
            else:
                sample = samples[alike[int(generator.integers(len(alike)))]]
            if sample in failed:
                continue
            try:
                return sample, *self.reader(sample, draw.modality, generator)
            except Unusable as error:
                if len(failed) < len(alike):  # a spare one may only be too short for the others' size
                    skipped.append((sample.place, str(error)))
                failed[sample] = str(error)
        sample, reason = next(iter(failed.items()))
        raise NothingUsable(
            f"{draw.modality}s: none of {len(failed)} files tried one after another can be used"
            f" ({count_reasons(failed.values())}); for example {sample.place}: {reason}"
        )


def join_clips(
    usable: Sequence[tuple[Sample, Clip, Condition | None]], skipped: Sequence[tuple[str, str]], num_frames: int
) -> VideoBatch:
    """A batch of clips of one modality.

    Args:
        usable: Samples, their pixels, and maybe embeddings of their captions: all or none.
        skipped: ``(place, reason)`` of the files that could not be used meanwhile.
        num_frames: T on the device.
    """
    # In memory as decoded, with colours last: turning that around would take time here.
    pixels = torch.stack([rearrange(clip.video, "c t h w -> t h w c") for _, clip, _ in usable])
    embeddings = [embedding for _, _, embedding in usable if embedding is not None]
    return VideoBatch(
        captions=[sample.caption for sample, _, _ in usable],
        fps=torch.tensor([clip.fps for _, clip, _ in usable], dtype=torch.float32),
        resolution=torch.tensor([clip.resolution for _, clip, _ in usable], dtype=torch.float32),
        video=rearrange(pixels, "b t h w c -> b c t h w"),
        keys=[sample.key for sample, _, _ in usable],
        skipped=list(skipped),
        num_frames=num_frames,
        embeddings=Condition.stack(embeddings) if embeddings else None,
    )


def blank_clips(
    modality: Modality, count: int, shape: VideoShape, manifest: Mapping[str, str] | None, samples: Iterable[Sample]
) -> VideoBatch:
    """A batch of black clips, as `join_clips` makes them, with captions and embeddings as long as any.

    Args:
        modality: Of which.
        count: Clips.
        shape: The size of a video.
        manifest: How embeddings are made; None: there are none.
        samples: Where to look for the longest caption; without any, as from a stream, it has some hundred words.
    """
    image = modality == "image"
    pixels = torch.zeros(count, 1 if image else shape.num_frames, shape.height, shape.width, 3, dtype=torch.uint8)
    embeddings = None
    if manifest is not None:
        tokens = torch.zeros(count, int(manifest["max_length"]), int(manifest["width"]))
        embeddings = Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))
    return VideoBatch(
        captions=[max((sample.caption for sample in samples), key=len, default="word " * 128)] * count,
        fps=torch.full((count,), torch.inf if image else 8.0),
        resolution=torch.tensor([[shape.height, shape.width]], dtype=torch.float32).repeat(count, 1),
        video=rearrange(pixels, "b t h w c -> b c t h w"),
        keys=[f"blank {modality}"] * count,
        num_frames=shape.num_frames,
        embeddings=embeddings,
    )


def obey_parent_alone(worker: int) -> None:
    """Let no signal disturb this worker of a loader but the end that the process it works for tells it (SIGTERM).

    A terminal (Ctrl-C) and SLURM signal all processes of a job. The one that trains decides what comes of it, and may
    need batches for that. Also, a forked worker has its handlers, which would save a checkpoint here.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None and hasattr(signal, "sigwaitinfo"):  # macOS does not tell who sends
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_for, args=(parent.pid,), daemon=True).start()


def _end_for(sender: int | None) -> None:
    """End this process when it gets a SIGTERM of one process; those of others are blocked."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != sender:
        pass
    os._exit(0)


class Loader(DataLoader[list[VideoBatch]]):
    """A loader that knows how long it was waited for.

    Attributes:
        waited: Seconds so far, the start of its workers included.
    """

    waited = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # an iterator of torch's own has no more to offer
        self.worker_init_fn = obey_parent_alone  # Lightning's seeds what nothing is drawn from
        batches = super().__iter__()
        while True:
            begin = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.monotonic() - begin
            yield batch
