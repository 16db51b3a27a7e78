"""Samples kept for validation."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Sequence

from .census import Looks
from .samples import Index, Modality, Sample


def hold_out(
    indices: Sequence[Index],
    modality: Modality,
    holdout: int,
    looks: Callable[[Sequence[Sample]], Looks],
) -> tuple[list[list[Sample]], list[Sample]]:
    """Samples to train on of each source, and those to validate on: by hash, so that a new file changes little.

    Args:
        indices: The samples of each source.
        modality: What they are.
        holdout: How many are held out.
        looks: Looks at samples: those that cannot be used are not held out.

    Raises:
        ValueError: There are too few.
    """
    everything = [sample for index in indices for sample in index.samples]
    everything.sort(key=lambda sample: hashlib.sha256(os.fsencode(sample.key)).digest())
    seen = looks(everything)
    usable = (everything[i] for i in range(len(everything)) if "reason" not in seen[i])
    held = list(itertools.islice(usable, holdout))
    known = set(map(id, held))
    kept = [[sample for sample in index.samples if id(sample) not in known] for index in indices]
    for index, samples in zip(indices, kept, strict=True):
        if samples and len(held) < holdout:
            raise ValueError(f"holdout is {holdout}, but only {len(held)} {modality}s can be used: set it lower")
        if index.samples and not samples:
            found = f"{index.samples[0].tree.path} has {len(index.samples)} {modality}s"
            fix = "it must be less, so that some are left to train on"
            raise ValueError(f"holdout is {holdout}, but {found}: {fix}")
    return kept, held
