"""The order of the data: a pure function of the seed and of the position in one global stream.

Each modality is an endless stream of positions. Pass ``e`` over its n samples is a permutation drawn from (seed,
modality, e), so position p shows sample ``permutation_e[p mod n]`` with ``e = p div n``. At step s the ranks together
take the next positions, each its own share. Nothing depends on workers, and a run that resumes at step s sees what it
would have seen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch.utils.data import DistributedSampler

from .samples import SUFFIXES, Modality

_MODALITIES = tuple(SUFFIXES)
_ORDER, _CLIP = range(2)  # what the draws are for


@dataclass(frozen=True, slots=True)
class Draw:
    """One place in a batch.

    Args:
        modality: Which stream.
        index: Which sample of the stream's source.
        position: Where in the stream: what further random draws for it are seeded by.
    """

    modality: Modality
    index: int
    position: int


def clip_generator(seed: int, draw: Draw, attempt: int) -> np.random.Generator:
    """Source of the draws within one place: which substitute, which part of a video.

    Args:
        seed: The run's.
        draw: The place.
        attempt: 0 for the sample itself, k for the k-th substitute.
    """
    return _generator(seed, draw.modality, _CLIP, draw.position, attempt)


def index_at(seed: int, modality: Modality, num_samples: int, position: int) -> int:
    """Which of `num_samples` samples stands at `position` of the stream."""
    epoch, offset = divmod(position, num_samples)
    return int(_permutation(seed, modality, num_samples, epoch)[offset])


@lru_cache(maxsize=4)
def _permutation(seed: int, modality: Modality, num_samples: int, epoch: int) -> np.ndarray:
    return _generator(seed, modality, _ORDER, epoch, 0).permutation(num_samples)


def _generator(seed: int, modality: Modality, purpose: int, number: int, attempt: int) -> np.random.Generator:
    return np.random.default_rng([seed, _MODALITIES.index(modality), purpose, number, attempt])


@dataclass(frozen=True)
class TrainOrder:
    """The endless batches of one rank. All ranks hold as many of each modality at every step.

    Args:
        num_samples: Samples of each modality.
        batch_sizes: Places of each modality in the batch of one rank.
        seed: The run's.
        rank: Which rank, from 0.
        world: How many ranks.
        start: Tells the step to begin with; asked whenever an iteration begins.
    """

    num_samples: Mapping[Modality, int]
    batch_sizes: Mapping[Modality, int]
    seed: int
    rank: int = 0
    world: int = 1
    start: Callable[[], int] = int

    def batch(self, step: int) -> list[Draw]:
        """This rank's share of step `step`."""
        draws = []
        for modality, size in self.batch_sizes.items():
            first = (step * self.world + self.rank) * size
            for position in range(first, first + size):
                index = index_at(self.seed, modality, self.num_samples[modality], position)
                draws.append(Draw(modality, index, position))
        return draws

    def __iter__(self) -> Iterator[list[Draw]]:
        """The batches from step `start` on, without end."""
        return map(self.batch, itertools.count(self.start()))


def validation_batches(
    num_samples: Mapping[Modality, int], batch_sizes: Mapping[Modality, int], rank: int = 0, world: int = 1
) -> list[list[Draw]]:
    """The batches in which one rank sees its share of the samples, always the same.

    Every sample is seen once; where the samples don't divide by `world`, the first ones are seen again, since all ranks
    must take as many steps. A modality with fewer samples is missing from the last batches.

    Args:
        num_samples: Samples of each modality.
        batch_sizes: Places of each modality in the batch of one rank.
        rank: Which rank, from 0.
        world: How many ranks.
    """
    shares: list[list[list[Draw]]] = []
    for modality, size in batch_sizes.items():
        number = num_samples[modality]
        indices = [(rank + world * turn) % number for turn in range(math.ceil(number / world))]
        draws = [Draw(modality, index, position=index) for index in indices]
        shares.append([draws[first : first + size] for first in range(0, len(draws), size)])
    return [list(itertools.chain(*batches)) for batches in itertools.zip_longest(*shares, fillvalue=[])]


class SharedOut(DistributedSampler[list[Draw]]):
    """Batches that are one rank's share already: the Trainer leaves a DistributedSampler as it is.

    Args:
        batches: The batches; what has no length makes a DataLoader without one.
    """

    def __init__(self, batches: Iterable[list[Draw]]) -> None:
        self.batches = batches  # not super().__init__: nothing is left to share out

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]
