"""What the header of a file says, and a memory of it beside the files.

The memory is ``.headers.json`` in a folder, ``.NAME.headers.json`` beside a tar file. What it says of a file holds for
as long as size and time of the file, or of its tar, stay the same.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import av
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from .decode import Timed, extent_of, image_size, open_image, open_stream, video_size
from .samples import Index, Modality, Sample, Unusable
from .trees import Tree
from .whole_file import whole_file

Header: TypeAlias = dict[str, float]
"""``height`` and ``width`` in pixels, for videos ``fps`` (the mean) and ``seconds``."""

Remembered: TypeAlias = tuple[list[int], Header]
"""The stamp of a file when its header was read (`Tree.stamp`), and the header."""

_VERSION = 1  # raise it when a header says other things
_PATIENCE = 2.0  # seconds until there is a progress bar


def read_header(sample: Sample, modality: Modality, seconds: float = 60.0, upright: bool = False) -> Header:
    """What the header of a file says.

    Args:
        sample: Which.
        modality: What it is.
        seconds: How long it may take.
        upright: Give height and width as they are shown, upright and with square pixels, not as stored. Of a video, a
            frame must be decoded for it; where none can be, they are as stored.

    Raises:
        Unusable: "corrupt", "cannot be opened", "too large", "too slow", or for videos "no video stream" or "unknown
            codec".
    """
    try:
        file = sample.tree.open(sample.key)
    except OSError as error:
        raise Unusable("cannot be opened", error.strerror or str(error)) from error
    try:
        with file:
            timed = io.BufferedReader(Timed(file, seconds))
            if modality == "image":
                with open_image(timed) as image:
                    height, width = image_size(image) if upright else image.size[::-1]
                    return {"height": float(height), "width": float(width)}
            with av.open(timed, "r", metadata_errors="ignore") as container:
                stream = open_stream(container)
                extent = extent_of(container, stream)
                size = float(stream.height), float(stream.width)
                if upright:
                    with suppress(av.FFmpegError, StopIteration):  # its frames are another matter
                        size = video_size(container, stream, extent)
                return {"height": size[0], "width": size[1], "fps": extent.rate, "seconds": extent.duration}
    except Unusable:
        raise
    except Exception as error:  # headers may say anything
        raise Unusable("corrupt", getattr(error, "strerror", None) or str(error)) from error


def read_headers(
    samples: Sequence[Sample], modality: Modality, seconds: float = 60.0, num_workers: int = 0, title: str | None = None
) -> list[Header | str]:
    """The headers of all samples, upright, each from the memory if it is there; or why one cannot be read.

    Args:
        samples: Which.
        modality: What they are.
        seconds: How long each may take.
        num_workers: Processes that read.
        title: What a progress bar is called, where it takes long; None: there is none.
    """
    memories = {tree: recall(tree) for tree in dict.fromkeys(sample.tree for sample in samples)}
    stamps = [_stamp(sample) for sample in samples]
    missing = []
    for number, (sample, stamp) in enumerate(zip(samples, stamps, strict=True)):
        known = memories[sample.tree].get(sample.key)
        if stamp is None or known is None or known[0] != stamp:
            missing.append(number)
    unusable: dict[int, str] = {}
    fresh = set()
    try:
        headers = look_at(_Headers(samples, modality, seconds), missing, num_workers, title, _PATIENCE)
        for number, header in zip(missing, headers, strict=True):
            if isinstance(header, str):
                unusable[number] = header
            else:
                sample, stamp = samples[number], stamps[number] or []
                memories[sample.tree][sample.key] = stamp, header
                fresh.add(sample.tree)
    finally:  # what was read before an interrupt is not read again
        for tree in fresh:
            remember(tree, memories[tree])
    return [
        unusable[number] if number in unusable else memories[sample.tree][sample.key][1]
        for number, sample in enumerate(samples)
    ]


def headers_of(
    listed: Mapping[Modality, Sequence[Index]], seconds: float, num_workers: int, shown: bool
) -> dict[Sample, Header | str]:
    """The headers of all samples, or why one cannot be read.

    Args:
        listed: Of each modality, the samples of each source.
        seconds: How long each may take.
        num_workers: Processes that read.
        shown: Show how far it is, where it takes long.
    """
    found: dict[Sample, Header | str] = {}
    for modality, indices in listed.items():
        samples = [sample for index in indices for sample in index.samples]
        title = f"headers of {modality}s" if shown else None
        found |= zip(samples, read_headers(samples, modality, seconds, num_workers, title), strict=True)
    return found


def recall(tree: Tree) -> dict[str, Remembered]:
    """What is remembered of the files of a tree, by name."""
    try:
        stored = json.loads(_memory(tree).read_bytes())
        if stored["version"] == _VERSION:
            return {
                name: (list(stamp), {str(what): float(value) for what, value in header.items()})
                for name, (stamp, header) in stored["headers"].items()
            }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # not there, or not ours
    return {}


def remember(tree: Tree, headers: Mapping[str, Remembered]) -> None:
    """Keep headers for the next time; where it cannot be written, nothing is kept."""
    with suppress(OSError), whole_file(_memory(tree)) as temporary:
        temporary.write_text(json.dumps({"version": _VERSION, "headers": headers}))


def look_at(
    dataset: Dataset[Any], which: Sequence[int], num_workers: int, title: str | None, delay: float = 0.0
) -> Iterator[Any]:
    """Items of a data set, in this order.

    Args:
        dataset: The data set.
        which: Numbers of the items.
        num_workers: Processes that look.
        title: What a progress bar is called; None: there is none.
        delay: Seconds until there is one.
    """
    own = torch.Generator()  # or the loader would draw from the model's stream of random numbers
    loader = DataLoader(dataset, sampler=which, batch_size=None, num_workers=num_workers, generator=own)
    disable = True if title is None else None
    yield from tqdm(loader, title, len(which), unit=" files", disable=disable, delay=delay)


class _Headers(Dataset[Header | str]):
    """Headers by the number of the sample, or the reason why there is none."""

    def __init__(self, samples: Sequence[Sample], modality: Modality, seconds: float) -> None:
        self.samples, self.modality, self.seconds = samples, modality, seconds

    def __getitem__(self, index: int) -> Header | str:
        try:
            return read_header(self.samples[index], self.modality, self.seconds, upright=True)
        except Unusable as error:
            return str(error)


def _memory(tree: Tree) -> Path:
    path = tree.path
    return path / ".headers.json" if path.is_dir() else path.with_name(f".{path.name}.headers.json")


def _stamp(sample: Sample) -> list[int] | None:
    try:
        return sample.tree.stamp(sample.key)
    except OSError:  # reading it will say what is wrong
        return None
