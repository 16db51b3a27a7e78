"""What training and validation draw at random: a sample gets the same whatever rank holds it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def seed_of(*place: int) -> int:
    """A seed of its own, 0 to 2^64 - 1, for a place that numbers name, such as (seed, step)."""
    entropy = [number % 2**64 for number in place]
    # its length, too: SeedSequence takes (7, 1) and (7, 1, 0) for the same
    return int(np.random.SeedSequence([len(place), *entropy]).generate_state(1, np.uint64)[0])


class Draws:
    """The random draws of one training step, for the samples of one rank.

    All ranks draw for the batch of all ranks together, and each keeps what is its own. So a sample gets the same on two
    ranks of 4 as on one of 8, and no two samples share their noise. The whole batch has the order that it has in one
    process: the videos of all ranks, rank by rank, then the images. Every rank must hold as many of each.

    Noise is drawn on the device, all else on the host, so that nothing has to wait for the device.

    Args:
        seed: Of the step, the same on all ranks, 0 to 2^64 - 1.
        num_videos: Videos of this rank; they come before its images.
        num_images: Images of this rank.
        rank: Which rank, from 0.
        world: How many ranks.
        device: Where the draws are wanted.

    Attributes:
        places: Where this rank's samples stand in the whole batch.
        total: Samples in the whole batch.
    """

    def __init__(
        self,
        seed: int,
        num_videos: int,
        num_images: int = 0,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        videos, images = rank * num_videos, world * num_videos + rank * num_images
        self.places = [*range(videos, videos + num_videos), *range(images, images + num_images)]
        self.total = world * (num_videos + num_images)
        self._sizes = (num_videos, num_images)
        self._device = torch.device(device)
        self._seed = seed
        self._generator = torch.Generator("cpu").manual_seed(seed)

    def uniform(self) -> Tensor:
        """A number in 0..1 for each sample ``[B]``."""
        return self._own(self._uniform(self.total))

    def stratified(self) -> Tensor:
        """A number in 0..1 for each sample ``[B]``, where the N samples of all ranks cover the range evenly.

        There is one in each of N equal parts, in random order; each by itself is uniform.
        """
        order = torch.randperm(self.total, generator=self._generator, device="cpu")
        return self._own((order + self._uniform(self.total)) / self.total)

    def choose(self, share: float) -> tuple[Tensor, Tensor]:
        """Choose each sample with probability `share`, as many on each rank but for rounding.

        Of any n places in a row, n times `share` are chosen, rounded up or down (systematic sampling).

        Returns:
            Which samples are chosen ``[B]``, bool, and the rows ``[M]`` of these and maybe others. M, about B times
            `share`, is the same on all ranks in all steps.
        """
        places = torch.arange(self.total, dtype=torch.float64, device="cpu")
        chosen = self._own((self._uniform(1) + share * places) % 1 < share)
        most = sum(math.ceil(share * size) for size in self._sizes)
        return chosen, chosen.argsort(descending=True, stable=True)[:most]

    def noise(self, shape: Sequence[int], stream: int = 0) -> Tensor:
        """Standard normal noise ``[B, *shape]``, each sample's from a seed of its own; another stream, other noise."""
        noise = torch.empty(len(self.places), *shape, device=self._device)
        generator = torch.Generator(self._device)
        first = self._seed + 1 + stream * self.total  # not 2^32 apart: on a CPU, seeds have 32 bits
        for row, place in zip(noise, self.places, strict=True):
            row.normal_(generator=generator.manual_seed((first + place) % 2**64))
        return noise

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self._generator, dtype=torch.float64, device="cpu")

    def _own(self, values: Tensor) -> Tensor:
        """This rank's of the values of all samples, on the device; in float32, since not every device has float64."""
        own = values[torch.tensor(self.places, device="cpu")]
        return (own if own.dtype == torch.bool else own.float()).to(self._device, non_blocking=True)


class KeyDraws:
    """The random draws of validation: those of a sample depend on its key alone, not on batches, ranks or steps.

    Args:
        keys: Of the samples, B.
        device: Where the draws are wanted.
    """

    def __init__(self, keys: Sequence[str], device: torch.device | str = "cpu") -> None:
        self._keys, self._device = keys, device

    def uniform(self) -> Tensor:
        """A number in 0..1 for each sample ``[B]``."""
        return torch.cat([torch.rand(1, generator=self._generator(key, 1)) for key in self._keys]).to(self._device)

    def noise(self, shape: Sequence[int], stream: int = 0) -> Tensor:
        """Standard normal noise ``[B, *shape]``; another stream is other noise."""
        rows = [torch.randn(*shape, generator=self._generator(key, 2 * stream)) for key in self._keys]
        return torch.stack(rows).to(self._device)

    @staticmethod
    def _generator(key: str, stream: int) -> torch.Generator:
        digest = hashlib.sha256(key.encode(errors="surrogatepass")).digest()
        return torch.Generator().manual_seed((int.from_bytes(digest[:8]) + stream) % 2**64)
