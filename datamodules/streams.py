"""Shards that can only be read from beginning to end, by WebDataset: http(s), and commands behind ``pipe:``.

Their promises are weaker than those of files: each pass goes through the shards in another order that depends on the
seed, but samples are mixed only within a hundred; a resumed run begins a new pass; what is lost in a damaged header is
not noticed. Each sample is still read by one rank and worker alone, and ranks take as many steps.
"""

from __future__ import annotations

import io
import itertools
import posixpath
import random
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import webdataset
from braceexpand import braceexpand
from torch.utils.data import IterableDataset, get_worker_info

from ..components.interfaces import Condition, VideoBatch
from .clips import Loader, Reader, join_clips
from .decode import Clip
from .samples import SUFFIXES, Modality, NothingUsable, Sample, Unusable, count_reasons, index_tree
from .trees import Tree

SCHEMES = ("pipe:", "http://", "https://")

_EMPTY_PASSES = 5  # in a row, until a source counts as one without samples
_SHUFFLED = 100  # samples that are in memory to be drawn from, in each worker


def is_stream(path: str | Path) -> bool:
    """Whether a source can only be read from beginning to end."""
    return str(path).startswith(SCHEMES)


class Memory(Tree):
    """Files in memory: one sample of a stream.

    Args:
        url: Where it is from.
        files: Content by name.
    """

    def __init__(self, url: str, files: Mapping[str, bytes]) -> None:
        self.path = Path(url)
        self.url = url
        self.files = files

    def folders(self) -> Iterator[tuple[str, Set[str]]]:
        """See `Tree`."""
        names: dict[str, set[str]] = {}
        for file in self.files:
            folder, name = posixpath.split(file)
            names.setdefault(f"{folder}/" if folder else "", set()).add(name)
        yield from names.items()

    def open(self, name: str) -> BinaryIO:
        """See `Tree`."""
        try:
            return io.BytesIO(self.files[name])
        except KeyError:
            raise FileNotFoundError(2, "no such file in the sample", name) from None

    def size(self, name: str) -> int:
        """See `Tree`."""
        return len(self.files[name])

    def locate(self, name: str) -> str:
        """See `Tree`."""
        return f"{self.url}: {name}"


class StreamedClips(IterableDataset[list[VideoBatch]]):
    """Endless batches of one rank from streams: one `VideoBatch` per modality, videos first.

    Args:
        urls: Of each modality, the streams of each source, as they were given.
        weights: Of each modality, the shares of the sources.
        batch_sizes: Of each modality, clips per batch.
        reader: Reads a sample.
        seed: The run's.
        rank: Which rank, from 0.
        world: How many ranks.
        start: The step that an iteration begins with: from another, it draws other orders.
    """

    def __init__(
        self,
        urls: Mapping[Modality, Sequence[str]],
        weights: Mapping[Modality, Sequence[float]],
        batch_sizes: Mapping[Modality, int],
        reader: Reader,
        seed: int,
        rank: int,
        world: int,
        start: int,
    ) -> None:
        self.urls, self.weights, self.batch_sizes = urls, weights, batch_sizes
        self.reader, self.seed = reader, seed
        self.rank, self.world, self.start = rank, world, start

    def __iter__(self) -> Iterator[list[VideoBatch]]:
        """Batches without end.

        Raises:
            NothingUsable: Five passes in a row through a source brought no sample that can be used.
        """
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        consumer, consumers = self.rank * workers + worker, self.world * workers
        skipped: list[tuple[str, str]] = []
        clips = {m: self._clips(m, consumer, consumers, skipped) for m in SUFFIXES if m in self.urls}
        while True:
            parts = []
            for modality, stream in clips.items():
                usable = list(itertools.islice(stream, self.batch_sizes[modality]))
                parts.append(join_clips(usable, skipped, self.reader.shape.num_frames))
                skipped.clear()
            yield parts

    def _clips(
        self, modality: Modality, consumer: int, consumers: int, skipped: list[tuple[str, str]]
    ) -> Iterator[tuple[Sample, Clip, Condition | None]]:
        """Samples with their clips, of all sources by their weights."""
        number = list(SUFFIXES).index(modality)
        key = [self.seed, self.start, number]
        sources = [
            self._source(url, modality, [*key, i], consumer, consumers, skipped)
            for i, url in enumerate(self.urls[modality])
        ]
        shares = np.array(self.weights[modality]) / sum(self.weights[modality])
        generator = np.random.default_rng([*key, len(sources), consumer])
        while True:
            yield next(sources[generator.choice(len(sources), p=shares)])

    def _source(
        self,
        url: str,
        modality: Modality,
        key: list[int],
        consumer: int,
        consumers: int,
        skipped: list[tuple[str, str]],
    ) -> Iterator[tuple[Sample, Clip, Condition | None]]:
        """Samples with their clips, of one source, pass by pass."""
        shards = list(braceexpand(url))
        enough = len(shards) >= consumers  # whole shards for each; else each takes every so many samples of all
        empty = 0
        for number in itertools.count():
            generator = np.random.default_rng([*key, number, consumer])
            found, seen, turn = 0, len(skipped), itertools.count()
            order = np.random.default_rng([*key, number]).permutation(shards).tolist()
            for tree in _records(order[consumer::consumers] if enough else order, str([*key, number]), skipped):
                index = index_tree(tree, modality)
                skipped += index.skipped
                for sample in index.samples:
                    if not enough and next(turn) % consumers != consumer:
                        continue
                    try:
                        yield sample, *self.reader(sample, modality, generator)
                        found += 1
                    except Unusable as error:
                        skipped.append((sample.place, str(error)))
            empty = 0 if found else empty + 1  # another pass may bring other shards
            if empty == _EMPTY_PASSES:
                raise NothingUsable(f"{modality}s: no sample of {url} can be used ({_why(skipped[seen:], consumers)})")


class StreamLoader(Loader):
    """Tells the clips, whenever an iteration begins, at which step.

    Args:
        clips: The clips.
        step: Tells the step.
        options: Of the DataLoader.
    """

    def __init__(self, clips: StreamedClips, step: Callable[[], int], **options: Any) -> None:  # torch's
        super().__init__(clips, batch_size=None, **options)
        self.clips, self.step = clips, step

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # as in Loader
        self.clips.start = self.step()
        return super().__iter__()


def _why(skipped: Sequence[tuple[str, str]], consumers: int) -> str:
    if not skipped:
        return f"there are none, or less than ranks times workers, {consumers}"
    return f"{count_reasons(reason for _, reason in skipped)}; for example {': '.join(skipped[0])}"


def _records(shards: list[str], seed: str, skipped: list[tuple[str, str]]) -> Iterator[Memory]:
    """The samples of shards."""

    def note(error: Exception) -> bool:
        url = next((arg for arg in error.args if isinstance(arg, str) and is_stream(arg)), "a stream")
        what = textwrap.shorten(str(error.args[0] if error.args else error), 200)
        reason = "duplicate" if "duplicate file name" in what else "broken stream"
        skipped.append((url, f"{reason}: {type(error).__name__}: {what}"))
        return True

    pipeline = webdataset.DataPipeline(
        webdataset.SimpleShardList(shards),
        webdataset.tarfile_to_samples(handler=note),
        webdataset.shuffle(_SHUFFLED, rng=random.Random(seed)),
    )
    for record in pipeline:
        name = record["__key__"]
        files = {f"{name}.{suffix}": data for suffix, data in record.items() if not suffix.startswith("__")}
        yield Memory(record["__url__"], files)
