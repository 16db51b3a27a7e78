"""Batches of several sizes: each sample goes to the bucket whose aspect ratio is nearest and whose frames it has.

A step has one bucket, the same on all ranks. Which, is a function of the seed and the step, in shares that are those of
the samples. Within a bucket all is as without: its turns are the steps of a `TrainOrder` of its own samples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from ..components.interfaces import VideoBatch, VideoShape
from .clips import Clips
from .decode import Extent, fitting_rates
from .headers import Header
from .order import BLOCK, Draw, Mix, Stream, TrainOrder
from .samples import Index, Modality, Sample, Unusable

Shapes = Mapping[int, VideoShape]
"""The sizes of buckets by their numbers; 0 is the model's own."""


def check_buckets(shapes: Sequence[VideoShape]) -> None:
    """Refuse sizes of buckets that don't go together.

    Args:
        shapes: The model's own, and the others.

    Raises:
        ValueError: One has not the channels of the first, or two have one aspect ratio and one number of frames.
    """
    taken: dict[tuple[float, int], VideoShape] = {}
    for shape in shapes:
        if shape.channels != shapes[0].channels:
            raise ValueError(f"buckets: {shape} has {shape.channels} channels: it must have {shapes[0].channels}")
        what = round(_aspect(shape.height, shape.width), 6), shape.num_frames
        if what in taken:
            raise ValueError(
                f"buckets: {taken[what]} and {shape} (T x H x W) have the same aspect ratio and number of frames, by "
                "which samples are told apart: leave one out; the model's own shape is a bucket, too"
            )
        taken[what] = shape


def nearest(header: Header, modality: Modality, shapes: Shapes, fps: Sequence[float]) -> int:
    """The bucket of a sample: of those whose frames it has, the nearest in aspect ratio, then the one of most frames.

    Args:
        header: What its header says, upright.
        modality: What it is; an image has any number of frames.
        shapes: The buckets to choose from.
        fps: Candidate frame rates of videos.

    Raises:
        Unusable: "too short" or "frame rate too low" for all buckets, or "corrupt".
    """
    most = math.inf
    if modality == "video":
        extent = Extent(0.0, header["seconds"], header["fps"])
        lengths = sorted({shape.num_frames for shape in shapes.values()})
        fitting_rates(extent, lengths[0], fps)
        most = max(length for length in lengths if _fits(extent, length, fps))
    fitting = {number: shape for number, shape in shapes.items() if shape.num_frames <= most}
    if len(fitting) == 1:
        return next(iter(fitting))
    if not (header["height"] > 0 and header["width"] > 0):
        raise Unusable("corrupt", f"its size is {header['height']:g}x{header['width']:g}")
    aspect = _aspect(header["height"], header["width"])

    def distance(number: int) -> tuple[float, int, int]:
        shape = fitting[number]
        return round(abs(_aspect(shape.height, shape.width) - aspect), 6), -shape.num_frames, number

    return min(fitting, key=distance)


def _aspect(height: float, width: float) -> float:
    return math.log(height / width)


def _fits(extent: Extent, num_frames: int, fps: Sequence[float]) -> bool:
    try:
        return bool(fitting_rates(extent, num_frames, fps))
    except Unusable:
        return False


def sort_samples(
    index: Index, headers: Mapping[Sample, Header | str], modality: Modality, shapes: Shapes, fps: Sequence[float]
) -> tuple[Index, dict[Sample, int]]:
    """Find the bucket of each sample; what fits none joins the files that are left out.

    Args:
        index: The samples.
        headers: Of each, what its header says, or why it says nothing.
        modality: What they are.
        shapes: The buckets to choose from.
        fps: Candidate frame rates of videos.
    """
    homes: dict[Sample, int] = {}
    samples, skipped = [], list(index.skipped)
    for sample in index.samples:
        header = headers[sample]
        try:
            if isinstance(header, str):
                skipped.append((sample.place, header))
            else:
                homes[sample] = nearest(header, modality, shapes, fps)
                samples.append(sample)
        except Unusable as error:
            skipped.append((sample.place, str(error)))
    return Index(samples, sorted(skipped)), homes


@dataclass(frozen=True)
class Bucket:
    """Training samples that are shown at one size.

    Args:
        number: Which, 0 the one of the model's own shape.
        shape: The size of its videos; images have its height and width, and are repeated to its frames.
        samples: Of each modality and source.
        weights: Of each modality, how much each source counts here; None: each sample counts the same.
    """

    number: int
    shape: VideoShape
    samples: Mapping[Modality, Sequence[Sequence[Sample]]]
    weights: Mapping[Modality, Sequence[float] | None]

    def name(self, modality: Modality) -> str:
        """A name of its stream that does not depend on the other buckets."""
        return modality if self.number == 0 else f"{modality} {self.shape}"

    def size(self, modality: Modality) -> int:
        """How many samples it has."""
        return sum(map(len, self.samples[modality]))

    def weight(self, modality: Modality) -> float:
        """How much it counts beside others, by its samples and the weights of their sources."""
        weights = self.weights[modality]
        return self.size(modality) if weights is None else sum(weights)

    def stream(self, modality: Modality, seed: int) -> Stream:
        """The order of its samples."""
        weights = self.weights[modality]
        if weights is None:
            return Stream(modality, seed, [self.size(modality)], bucket=self.number)
        filled = self._filled(modality)
        sizes = [len(self.samples[modality][source]) for source in filled]
        return Stream(modality, seed, sizes, [weights[source] for source in filled], self.number)

    def shares(self, modality: Modality) -> list[float]:
        """The share of each source in what it shows."""
        sizes = [len(samples) for samples in self.samples[modality]]
        if self.weights[modality] is None:
            return [size / sum(sizes) for size in sizes]
        shown = dict(zip(self._filled(modality), self.stream(modality, 0).mix.shares, strict=True))
        return [shown.get(source, 0) / BLOCK for source in range(len(sizes))]

    def _filled(self, modality: Modality) -> list[int]:
        return [source for source, samples in enumerate(self.samples[modality]) if samples]


def fill(
    shapes: Shapes,
    samples: Mapping[Modality, Sequence[Sequence[Sample]]],
    weights: Mapping[Modality, Sequence[float | None]],
    homes: Mapping[Sample, int],
) -> list[Bucket]:
    """The buckets that have steps: those with videos; where there are images alone, those with images.

    Beside its videos a bucket shows images of its aspect ratio; if there are none, all images.

    Args:
        shapes: The buckets to choose from.
        samples: Of each modality and source.
        weights: Of each modality, those of the sources, or None for all.
        homes: The bucket of each sample; 0 for what is missing.
    """
    ruling, *others = samples
    at_home = {modality: _at_home(sources, homes) for modality, sources in samples.items()}
    shapes = {number: shape for number, shape in shapes.items() if number in at_home[ruling]}
    buckets = []
    for number, shape in shapes.items():
        shown: dict[Modality, Sequence[Sequence[Sample]]] = {ruling: at_home[ruling][number]}
        for modality in others:
            shown[modality] = at_home[modality].get(home_of_images(shape, shapes), samples[modality])
        of_sources: dict[Modality, Sequence[float] | None] = {}
        for modality, sources in shown.items():
            triples = zip(weights[modality], sources, samples[modality], strict=True)
            here = [given * (len(of) / len(whole)) for given, of, whole in triples if given is not None]
            of_sources[modality] = here or None
        buckets.append(Bucket(number, shape, shown, of_sources))
    return buckets


def home_of_images(shape: VideoShape, shapes: Shapes) -> int:
    """The bucket of images of a bucket's aspect ratio: another one, where that has more frames."""
    return nearest({"height": float(shape.height), "width": float(shape.width)}, "image", shapes, ())


def with_samples(shapes: Shapes, samples: Sequence[Sequence[Sample]], homes: Mapping[Sample, int]) -> Shapes:
    """The buckets that are the home of a sample."""
    filled = {homes.get(sample, 0) for source in samples for sample in source}
    return {number: shape for number, shape in shapes.items() if number in filled}


def _at_home(
    sources: Sequence[Sequence[Sample]], homes: Mapping[Sample, int]
) -> Mapping[int, Sequence[Sequence[Sample]]]:
    """The samples of each bucket that is the home of one, by source."""
    found: dict[int, list[list[Sample]]] = {}
    for place, source in enumerate(sources):
        for sample in source:
            found.setdefault(homes.get(sample, 0), [[] for _ in sources])[place].append(sample)
    return found


def without_steps(shapes: Shapes, buckets: Sequence[Bucket]) -> str:
    """A message that names the buckets without steps; empty: there are none."""
    filled = {bucket.number for bucket in buckets}
    empty = ", ".join(str(shape) for number, shape in shapes.items() if number not in filled)
    kind = next(iter(buckets[0].samples))
    return f"buckets without steps: {empty} (T x H x W); no {kind} is nearest to them" if empty else ""


def mix_buckets(buckets: Sequence[Bucket], modality: Modality, seed: int) -> Mix:
    """Which bucket has a step; the first steps of all show each once, the largest first: what is too large shows soon.

    Args:
        buckets: The buckets.
        modality: Whose samples count.
        seed: The run's.
    """
    by_size = sorted(range(len(buckets)), key=lambda i: -math.prod(buckets[i].shape))
    return Mix.of_buckets([bucket.weight(modality) for bucket in buckets], seed, by_size)


def describe_samples(
    buckets: Sequence[Bucket],
    mix: Mix,
    shapes: Shapes,
    modality: Modality,
    paths: Sequence[str],
    samples: Sequence[Sequence[Sample]],
    per_step: float,
) -> dict[str, Any]:
    """What becomes of the sources, and of the buckets where there are several; those without steps are named, too.

    Args:
        buckets: Those that have steps.
        mix: Which has a step.
        shapes: All.
        modality: Of which samples.
        paths: Of the sources.
        samples: Of the sources.
        per_step: Samples at each step, on average.
    """
    of_steps = {bucket.number: n / sum(mix.shares) for bucket, n in zip(buckets, mix.shares, strict=True)}
    shares = [[of_steps[bucket.number] * share for share in bucket.shares(modality)] for bucket in buckets]
    described: dict[str, Any] = {
        "sources": [
            {
                "path": path,
                "samples": len(of_source),
                "share": round(sum(parts), 4),
                "steps_per_pass": _per_pass(len(of_source), sum(parts), per_step),
            }
            for path, of_source, *parts in zip(paths, samples, *shares, strict=True)
        ]
    }
    if len(shapes) > 1:
        sizes = {bucket.number: bucket.size(modality) for bucket in buckets}
        described["buckets"] = describe_buckets(shapes, sizes, of_steps, per_step)
    return described


def describe_buckets(
    shapes: Shapes, sizes: Mapping[int, int], of_steps: Mapping[int, float], per_step: float
) -> dict[str, dict[str, float]]:
    """What becomes of each bucket, by its size.

    Args:
        shapes: All buckets.
        sizes: How many samples each has.
        of_steps: Share of the steps that each has.
        per_step: Samples at each step, on average.
    """
    return {
        str(shape): {
            "samples": sizes.get(number, 0),
            "share_of_steps": round(of_steps.get(number, 0.0), 4),
            "steps_per_pass": _per_pass(sizes.get(number, 0), of_steps.get(number, 0.0), per_step),
        }
        for number, shape in shapes.items()
    }


def plan_buckets(
    shapes: Shapes, counts: Mapping[Modality, Mapping[int, int]], per_step: Mapping[Modality, float]
) -> dict[Modality, dict[str, dict[str, float]]]:
    """What would become of the buckets of one source, from its counts alone.

    Args:
        shapes: All buckets.
        counts: Of each modality, how many samples are nearest to each bucket.
        per_step: Of each modality, samples at each step, on average.
    """
    ruling, *others = counts
    filled = {number: shapes[number] for number in counts[ruling]}
    mix = Mix.of_buckets(list(counts[ruling].values()), 0, ())
    of_steps = {number: turns / sum(mix.shares) for number, turns in zip(filled, mix.shares, strict=True)}
    sizes = {ruling: counts[ruling]}
    for modality in others:
        found, everything = counts[modality], sum(counts[modality].values())
        sizes[modality] = {
            number: found.get(home_of_images(shape, filled), 0) or everything for number, shape in filled.items()
        }
    return {modality: describe_buckets(shapes, sizes[modality], of_steps, per_step[modality]) for modality in counts}


def _per_pass(samples: int, share: float, per_step: float) -> float:
    return round(samples / (share * per_step), 1) if samples else 0.0


@dataclass(frozen=True)
class BucketOrder:
    """The endless batches of one rank, each of one bucket. All ranks have the same bucket at every step.

    Args:
        mix: Which bucket has a step.
        buckets: The buckets.
        orders: The batches of each, by its turns.
        start: Tells the step to begin with; asked whenever an iteration begins.
    """

    mix: Mix
    buckets: Sequence[Bucket]
    orders: Sequence[TrainOrder]
    start: Callable[[], int] = int

    def batch(self, step: int) -> list[Draw]:
        """This rank's share of step `step`."""
        bucket, turn = self.mix.turn(step)
        return self.orders[bucket].batch(turn)

    def positions(self, step: int) -> dict[str, int]:
        """The first position of each stream, by name, that all ranks together have not taken before step `step`."""
        each = zip(self.buckets, self.orders, self.mix.before(step), strict=True)
        return {
            bucket.name(modality): order.position(modality, turn)
            for bucket, order, turn in each
            for modality in order.batch_sizes
        }

    def __iter__(self) -> Iterator[list[Draw]]:
        """The batches from step `start` on, without end."""
        return map(self.batch, itertools.count(self.start()))


class BucketClips(Dataset[list[VideoBatch]]):
    """Decodes places of a batch, all of one bucket.

    Args:
        clips: The clips of each bucket, by its number.
    """

    def __init__(self, clips: Mapping[int, Clips]) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return sum(map(len, self.clips.values()))

    def __getitem__(self, draws: list[Draw]) -> list[VideoBatch]:
        """See `Clips`."""
        return self.clips[draws[0].bucket][draws]
