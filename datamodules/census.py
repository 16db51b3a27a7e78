"""What there is to train on: how many files can be used, why the others cannot, and what the usable ones are like."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from .buckets import Shapes, nearest
from .clips import Reader
from .embeddings import read_embedding
from .headers import Header, look_at, read_header
from .samples import Modality, NothingUsable, Sample, Unusable

_QUANTILES = {"least": 0.0, "10%": 0.1, "median": 0.5, "90%": 0.9, "most": 1.0}


@dataclass
class Count:
    """The census of one modality.

    Args:
        files: How many media files there are.
        samples: How many of them have a caption and can be reached.
        keys: Hash of the names of the samples.
        looked_at: How many samples were looked at.
        usable: How many of those can be used.
        share_unusable: Share of all files that cannot be used, as far as what was looked at tells.
        unusable: How many files cannot be used, by reason, the most frequent first.
        examples: Of each reason, the first file and what is wrong with it.
        bad: ``place: reason`` of all files that cannot be used.
        spread: Of what is usable, quantiles of frames per second, seconds, height and width in pixels, and characters
            of the caption.
        buckets: How many of the usable are nearest to each bucket, by its number.
    """

    files: int
    samples: int
    keys: str
    looked_at: int
    usable: int
    share_unusable: float
    unusable: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    spread: dict[str, dict[str, float]] = field(default_factory=dict)
    buckets: dict[int, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the list of all files that cannot be used."""
        return {name: value for name, value in asdict(self).items() if name not in ("bad", "buckets")}

    def judge(self, modality: Modality, most_unusable: float) -> None:
        """Refuse data of which too little can be used.

        Args:
            modality: Which, for the message.
            most_unusable: The share of the files that may be unusable.

        Raises:
            NothingUsable: More are, or all.
        """
        if self.files and (not self.usable or self.share_unusable > most_unusable):
            counts = ", ".join(f"{number} {code}" for code, number in self.unusable.items())
            seen = f"{self.share_unusable:.0%} of {self.files} files cannot be used ({counts})"
            raise NothingUsable(f"{modality}s: {seen}; for example {next(iter(self.examples.values()))}")


class Looks(Dataset[dict[str, Any]]):
    """Looks at samples: ``looks[i]`` tells what sample i is like, or the ``reason`` why it cannot be used.

    Args:
        samples: The samples.
        modality: What they are.
        reader: How they would be read.
        decode: Decode as training does, once; False reads headers alone, in a tenth of the time.
        shapes: Buckets, of which each sample is read at the size of its own; None: all are of the reader's size.
        headers: What is known of samples already.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        modality: Modality,
        reader: Reader,
        decode: bool,
        shapes: Shapes | None = None,
        headers: Mapping[Sample, Header | str] | None = None,
    ) -> None:
        self.samples = samples
        self.modality = modality
        self.reader = reader
        self.decode = decode
        self.shapes = shapes or {0: reader.shape}
        self.headers = headers or {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample, generator = self.samples[index], np.random.default_rng(index)
        try:
            facts = self.headers.get(sample)
            if not isinstance(facts, dict):
                facts = read_header(sample, self.modality, self.reader.seconds, upright=len(self.shapes) > 1)
            if self.reader.manifest and not self.decode:
                read_embedding(sample, self.reader.manifest)
            bucket = nearest(facts, self.modality, self.shapes, self.reader.fps)
            if self.decode:
                replace(self.reader, shape=self.shapes[bucket])(sample, self.modality, generator)
        except Unusable as error:
            return {"place": sample.place, "reason": str(error)}
        return facts | {"caption": float(len(sample.caption)), "bucket": bucket}


def take_census(
    looks: Looks, skipped: Sequence[tuple[str, str]], num_workers: int = 0, limit: int = 0, title: str | None = None
) -> Count:
    """Look at samples, and count.

    Args:
        looks: The samples.
        skipped: ``(place, reason)`` of the files that are none.
        num_workers: Processes that look.
        limit: How many samples are looked at, drawn at random but always the same; 0: all.
        title: What a progress bar is called; None: there is none.
    """
    number = len(looks)
    chosen: Sequence[int] = range(number)
    if 0 < limit < number:
        chosen = sorted(np.random.default_rng(0).choice(number, limit, replace=False).tolist())
    found = list(look_at(looks, chosen, num_workers, title))
    bad = [(each["place"], each["reason"]) for each in found if "reason" in each]
    usable = [each for each in found if "reason" not in each]
    buckets = Counter(each.pop("bucket") for each in usable)
    share = (len(skipped) + number * len(bad) / max(1, len(chosen))) / max(1, number + len(skipped))
    by_reason: dict[str, list[str]] = {}
    for place, reason in [*skipped, *bad]:
        by_reason.setdefault(reason.split(":")[0], []).append(f"{place}: {reason}")
    ordered = sorted(by_reason, key=lambda code: -len(by_reason[code]))
    return Count(
        files=number + len(skipped),
        samples=number,
        keys=_hash(looks.samples),
        looked_at=len(chosen),
        usable=len(usable),
        share_unusable=round(share, 4),
        unusable={code: len(by_reason[code]) for code in ordered},
        examples={code: by_reason[code][0] for code in ordered},
        bad=[line for code in ordered for line in by_reason[code]],
        spread={name: _spread([each[name] for each in usable]) for name in (usable[0] if usable else ())},
        buckets=dict(sorted(buckets.items())),
    )


def _hash(samples: Sequence[Sample]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(os.fsencode(sample.key) + b"\n")
    return digest.hexdigest()[:16]


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {name: round(float(np.quantile(values, share)), 3) for name, share in _QUANTILES.items()}
