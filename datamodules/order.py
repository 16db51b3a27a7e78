"""The order of the data: a pure function of the seed and of the position in one global stream.

Each modality is an endless stream of positions. Pass ``e`` over its n samples is a permutation drawn from (seed,
modality, e), so position p shows sample ``permutation_e[p mod n]`` with ``e = p div n``. At each step the ranks
together take the next positions, each its own share. Nothing depends on workers, and a run that resumes at a step sees
what it would have seen; on another number of ranks it goes on at the position where it was.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import DistributedSampler

from .samples import SUFFIXES, Modality

_MODALITIES = tuple(SUFFIXES)
_ORDER, _CLIP, _MIX, _BUCKETS = range(4)  # what the draws are for
BLOCK = 1000  # turns over which shares are exact


@dataclass(frozen=True, slots=True)
class Draw:
    """One place in a batch.

    Args:
        modality: Which stream.
        index: Which sample of the stream's source.
        position: Where in the stream: what further random draws for it are seeded by.
        bucket: Which bucket the stream is of; 0: that of the model's own shape.
    """

    modality: Modality
    index: int
    position: int
    bucket: int = 0


def clip_generator(seed: int, draw: Draw, attempt: int) -> np.random.Generator:
    """Source of the draws within one place: which substitute, which part of a video.

    Args:
        seed: The run's.
        draw: The place.
        attempt: 0 for the sample itself, k for the k-th substitute.
    """
    return _generator((seed, _MODALITIES.index(draw.modality), _CLIP), draw.position, attempt, draw.bucket)


def _generator(key: tuple[int, int, int], number: int, attempt: int, bucket: int) -> np.random.Generator:
    """Source of draws; `key` is the run's seed, the number of the modality, and what they are for."""
    return np.random.default_rng([*key, number, attempt, *([bucket] if bucket else [])])


class Mix:
    """Whose turn it is, of several: in blocks of 1000 turns each has its share, in an order drawn anew for each block.

    Args:
        weights: Shares, of any sum; each has at least one turn in a block.
        key: What the order is drawn from.
        bucket: Likewise.
        first: Who have the first turns of all, one each.
    """

    def __init__(
        self, weights: Sequence[float], key: tuple[int, int, int], bucket: int = 0, first: Sequence[int] = ()
    ) -> None:
        self.shares = _apportion(weights)
        self._key, self._bucket, self._first = key, bucket, first
        self._mixed: tuple[int, np.ndarray] = (-1, np.empty(0))  # the block at hand

    @classmethod
    def of_buckets(cls, weights: Sequence[float], seed: int, first: Sequence[int]) -> Mix:
        """Which bucket has a step; the arguments are those of `Mix`, and the run's seed."""
        return cls(weights, (seed, 0, _BUCKETS), first=first)

    def turn(self, position: int) -> tuple[int, int]:
        """Whose turn a position is, and how many that one had before."""
        if len(self.shares) == 1:
            return 0, position
        block, offset = divmod(position, BLOCK)
        mixed = self._block(block)
        who = int(mixed[offset])
        return who, block * self.shares[who] + int((mixed[:offset] == who).sum())

    def before(self, position: int) -> list[int]:
        """How many turns each has before a position."""
        if len(self.shares) == 1:
            return [position]
        block, offset = divmod(position, BLOCK)
        counts = np.bincount(self._block(block)[:offset], minlength=len(self.shares))
        return [block * share + int(count) for share, count in zip(self.shares, counts, strict=True)]

    def _block(self, number: int) -> np.ndarray:
        if self._mixed[0] != number:
            turns = np.repeat(np.arange(len(self.shares)), self.shares)
            mixed = _generator(self._key, number, 0, self._bucket).permutation(turns)
            if number == 0 and self._first:
                at = [int(np.flatnonzero(mixed == who)[0]) for who in self._first]
                mixed = np.concatenate([mixed[at], np.delete(mixed, at)])
            self._mixed = number, mixed
        return self._mixed[1]


def _apportion(weights: Sequence[float]) -> list[int]:
    """How many turns of a block each has: its share, at least 1, the largest remainders rounded up."""
    exact = [BLOCK * weight / sum(weights) for weight in weights]
    shares = [max(1, math.floor(share)) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda who: shares[who] - exact[who])
    for who in by_remainder[: max(0, BLOCK - sum(shares))]:
        shares[who] += 1
    while sum(shares) > BLOCK:  # by the least, which have more than their share
        shares[max(range(len(shares)), key=shares.__getitem__)] -= 1
    return shares


class Stream:
    """Which sample stands at which position, for one modality and one bucket.

    Weighted sources are mixed in blocks of 1000 positions, of which each has its share, in an order that is drawn
    anew for each block; each source goes through its own samples pass by pass.

    Args:
        modality: Which.
        seed: The run's.
        sizes: Samples of each source; they are numbered on from source to source.
        weights: Shares of the sources, of any sum; at least a thousandth is given. One source needs none.
        bucket: Which bucket; each has another order.
    """

    def __init__(
        self,
        modality: Modality,
        seed: int,
        sizes: Sequence[int],
        weights: Sequence[float] = (1.0,),
        bucket: int = 0,
    ) -> None:
        self.modality = modality
        self.seed = seed
        self.sizes = tuple(sizes)
        self.bucket = bucket
        self.mix = Mix(weights, (seed, _MODALITIES.index(modality), _MIX), bucket)
        self.firsts = (0, *itertools.accumulate(self.sizes))
        self._passes: dict[int, tuple[int, np.ndarray]] = {}  # the one at hand of each source

    def index(self, position: int) -> int:
        """The sample at a position."""
        source, turn = self.mix.turn(position)
        number, offset = divmod(turn, self.sizes[source])
        if self._passes.get(source, (-1,))[0] != number:
            key = self.seed, _MODALITIES.index(self.modality), _ORDER
            self._passes[source] = number, _generator(key, number, source, self.bucket).permutation(self.sizes[source])
        return self.firsts[source] + int(self._passes[source][1][offset])

    def alike(self, index: int) -> range:
        """The samples of the source of a sample."""
        source = next(s for s, first in enumerate(self.firsts[1:]) if index < first)
        return range(self.firsts[source], self.firsts[source + 1])


@dataclass(frozen=True)
class Origin:
    """How far the streams had come at some step.

    Args:
        step: Which.
        positions: Of each modality, the first position that was not taken before.
    """

    step: int
    positions: Mapping[Modality, int]


@dataclass(frozen=True)
class TrainOrder:
    """The endless batches of one rank. All ranks hold as many of each modality at every step.

    Args:
        streams: What is at the positions of each modality.
        batch_sizes: Places of each modality in the batch of one rank.
        rank: Which rank, from 0.
        world: How many ranks.
        start: Tells the step to begin with; asked whenever an iteration begins.
        image_steps: Share of the steps that hold images alone, evenly spread, where the others hold videos alone; None:
            each step holds both.
        origin: Where a resumed run began.
    """

    streams: Mapping[Modality, Stream]
    batch_sizes: Mapping[Modality, int]
    rank: int = 0
    world: int = 1
    start: Callable[[], int] = int
    image_steps: float | None = None
    origin: Origin = Origin(0, {"video": 0, "image": 0})  # it cannot be changed

    def batch(self, step: int) -> list[Draw]:
        """This rank's share of step `step`."""
        draws = []
        for modality, size in self.batch_sizes.items():
            if self._turns(modality, step + 1) > self._turns(modality, step):
                first = self.position(modality, step) + self.rank * size
                stream = self.streams[modality]
                draws += [Draw(modality, stream.index(p), p, stream.bucket) for p in range(first, first + size)]
        return draws

    def position(self, modality: Modality, step: int) -> int:
        """The first position that all ranks together have not taken before step `step`."""
        turns = self._turns(modality, step) - self._turns(modality, self.origin.step)
        return self.origin.positions[modality] + turns * self.world * self.batch_sizes[modality]

    def share_of_steps(self, modality: Modality) -> float:
        """Share of the steps that hold a modality."""
        if self.image_steps is None:
            return 1.0
        return self.image_steps if modality == "image" else 1 - self.image_steps

    def _turns(self, modality: Modality, step: int) -> int:
        """How many of the steps before `step` hold a modality."""
        if self.image_steps is None:
            return step
        images = math.floor(step * self.image_steps + 1e-6)  # a third of 3 steps is 1
        return images if modality == "image" else step - images

    def __iter__(self) -> Iterator[list[Draw]]:
        """The batches from step `start` on, without end."""
        return map(self.batch, itertools.count(self.start()))


def validation_batches(
    num_samples: Mapping[Modality, int],
    batch_sizes: Mapping[Modality, int],
    rank: int = 0,
    world: int = 1,
    bucket: int = 0,
) -> list[list[Draw]]:
    """The batches in which one rank sees its share of the samples, always the same.

    Every sample is seen once; where the samples don't divide by `world`, the first ones are seen again, since all ranks
    must take as many steps. A modality with fewer samples is missing from the last batches.

    Args:
        num_samples: Samples of each modality; none of one that is missing.
        batch_sizes: Places of each modality in the batch of one rank.
        rank: Which rank, from 0.
        world: How many ranks.
        bucket: Which bucket the samples are of.
    """
    shares: list[list[list[Draw]]] = []
    for modality, size in batch_sizes.items():
        number = num_samples.get(modality, 0)
        indices = [(rank + world * turn) % number for turn in range(math.ceil(number / world))]
        draws = [Draw(modality, index, index, bucket) for index in indices]
        shares.append([draws[first : first + size] for first in range(0, len(draws), size)])
    return [list(itertools.chain(*batches)) for batches in itertools.zip_longest(*shares, fillvalue=[])]


class SharedOut(DistributedSampler[Any]):
    """Batches that are one rank's share already: the Trainer leaves a DistributedSampler as it is.

    Args:
        batches: The batches; what has no length makes a DataLoader without one.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches  # not super().__init__: nothing is left to share out

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]
