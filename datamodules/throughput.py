"""How fast videos are read, beside a bare loop of PyAV that decodes and resizes the same frames."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import Interpolation, VideoReformatter

from .clips import Clips, Loader, Reader
from .decode import draw_times, extent_of, open_stream
from .order import Draw, SharedOut, Stream, TrainOrder, clip_generator
from .samples import Sample

BATCH = 4
"""Clips per batch of the loader."""


@dataclass
class Throughput:
    """Medians over rounds in which both sides take turns.

    Args:
        height: Of a clip, in pixels.
        width: Of a clip, in pixels.
        workers: Processes on each side; 0: the calling process alone.
        loader: Clips per second of the loader.
        bare: Clips per second of the bare loop.
        fractions: Loader to bare, of each round.
    """

    height: int
    width: int
    workers: int
    loader: float
    bare: float
    fractions: list[float]

    @property
    def fraction(self) -> float:
        """Loader to bare."""
        return statistics.median(self.fractions)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"fraction": self.fraction}


def measure(samples: Sequence[Sample], reader: Reader, workers: int, clips: int, rounds: int) -> Throughput:
    """Read clips by the loader and by the bare loop, in turn.

    Args:
        samples: Videos, all usable.
        reader: How they are read.
        workers: Processes on each side.
        clips: Clips per process and round.
        rounds: How often.
    """
    loader, bare = [], []
    for number in range(rounds):
        stream = Stream("video", number, [len(samples)])
        loader.append(_loader_rate(samples, stream, reader, workers, clips))
        processes = max(1, workers)
        start, stop = _ahead(workers) * BATCH, (_ahead(workers) + clips * processes // BATCH) * BATCH
        jobs = [range(start + turn, stop, processes) for turn in range(processes)]  # what the loader is timed with
        draws = [[Draw("video", stream.index(position), position) for position in job] for job in jobs]
        if workers:
            with ProcessPoolExecutor(workers) as pool:
                list(pool.map(_nothing, range(workers)))  # the processes are there
                rates = list(pool.map(_bare_rate, *zip(*[(samples, reader, d) for d in draws], strict=True)))
            bare.append(sum(rates))
        else:
            bare.append(_bare_rate(samples, reader, draws[0]))
    return Throughput(
        reader.shape.height,
        reader.shape.width,
        workers,
        statistics.median(loader),
        statistics.median(bare),
        [ours / theirs for ours, theirs in zip(loader, bare, strict=True)],
    )


def _loader_rate(samples: Sequence[Sample], stream: Stream, reader: Reader, workers: int, clips: int) -> float:
    """Clips per second, once the workers have begun."""
    order = TrainOrder({"video": stream}, {"video": BATCH})
    loader = Loader(
        Clips({"video": samples}, {"video": stream}, reader, seed=0),
        sampler=SharedOut(order),
        batch_size=None,
        num_workers=workers,
        generator=torch.Generator(),
    )
    batches = iter(loader)
    for _ in range(_ahead(workers)):
        next(batches)
    begin = time.monotonic()
    number = clips * max(1, workers) // BATCH
    for _ in itertools.islice(batches, number):
        pass
    return number * BATCH / (time.monotonic() - begin)


def _ahead(workers: int) -> int:
    """Batches to wait for before the clock starts: from then on each that is taken makes the workers begin another."""
    return 2 * workers + 1


def _nothing(_: int) -> None:
    """What a process does to be there."""


def _bare_rate(samples: Sequence[Sample], reader: Reader, draws: Sequence[Draw]) -> float:
    begin = time.monotonic()
    for draw in draws:
        generator = clip_generator(0, draw, 0)
        frames = list(_bare_frames(samples[draw.index], reader, generator))
        np.stack(frames)
    return len(draws) / (time.monotonic() - begin)


def _bare_frames(sample: Sample, reader: Reader, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """The frames of a clip, resized by the filters of `decode`, without regard for anything that may be wrong."""
    shape = reader.shape
    with sample.tree.open(sample.key) as file, av.open(file, "r") as container:
        stream = open_stream(container)
        extent = extent_of(container, stream)
        rate, offset = draw_times(extent, shape.num_frames, reader.fps, generator)
        times = [extent.start + offset + k / rate for k in range(shape.num_frames)]
        container.seek(round(times[0] / float(stream.time_base or 1)), stream=stream)
        scale = max(shape.height / stream.height, shape.width / stream.width)  # it covers the size wanted
        width, height = max(shape.width, round(scale * stream.width)), max(shape.height, round(scale * stream.height))
        method = (Interpolation.AREA if scale < 1 else Interpolation.BICUBIC) | Interpolation.FULL_CHR_H_INT
        number, reformatter = 0, VideoReformatter()
        for frame in container.decode(stream):
            end = (frame.time or 0.0) + 1 / extent.rate
            count = sum(time < end for time in times[number:])
            if count:
                scaled = reformatter.reformat(frame, width, height, "rgb24", interpolation=method, threads=1)
                yield from [scaled.to_ndarray()] * count
                number += count
            if number == len(times):
                return
