"""Where captioned files are: folders, tar files, patterns and lists of them."""

from __future__ import annotations

import csv
import glob
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from braceexpand import braceexpand

from .order import BLOCK
from .samples import (
    SUFFIXES,
    Index,
    Modality,
    NothingUsable,
    Sample,
    Unusable,
    check_caption,
    count_reasons,
    index_tree,
)
from .tars import Tar, is_companion
from .trees import Folder, Tree


@dataclass(frozen=True)
class Source:
    """One of several places that samples come from.

    Args:
        path: A folder, a tar file, or several by a pattern (``shards/*.tar``) or a list in braces
            (``shards/{000..099}.tar``); or a ``.csv`` or ``.jsonl`` file of ``path`` and ``caption``. ~ and
            environment variables are replaced. Or streams of tars, http(s) or ``pipe:`` and a command, also as lists.
        weight: Its share beside the other sources, of any sum, at least a thousandth of it. None for all: each sample
            counts the same.
    """

    path: str | Path
    weight: float | None = None


def as_sources(given: str | Path | Sequence[Source], modality: Modality) -> list[Source]:
    """The sources that a setting names.

    Args:
        given: The setting.
        modality: Which, for the message.

    Raises:
        ValueError: There are none, some have weights and some not, or a weight is out of range.
    """
    sources = [Source(str(given))] if isinstance(given, str | Path) else list(given)
    weights = [source.weight for source in sources]
    weighted = [weight for weight in weights if weight is not None]
    if not sources:
        raise ValueError(f"{modality}s is an empty list: name a folder or shards, or leave it out")
    if len(weighted) not in (0, len(sources)) or not all(0 < weight < math.inf for weight in weighted):
        raise ValueError(f"{modality}s: the weights are {weights}: give all a finite one above 0, or none")
    if weighted and min(weighted) * BLOCK < sum(weighted):
        raise ValueError(f"{modality}s: the weights are {weights}: each must be at least a thousandth of their sum")
    return sources


def index_source(path: Path, modality: Modality) -> Index:
    """List the samples of a source. Captions are read, media files are not opened.

    Args:
        path: As in `Source`.
        modality: Which kind of media.

    Raises:
        ValueError: There is nothing of this name, or a ``metadata.jsonl`` cannot be read.
        NothingUsable: It holds no media file of this kind, or none with a caption.
    """
    if path.suffix in _READERS:
        indices = [_index_list(Path(os.path.expandvars(os.path.expanduser(path))), modality)]
        missing: list[tuple[str, str]] = []
    else:
        trees, missing = open_trees(path, modality)
        indices = [index_tree(tree, modality) for tree in trees]
    samples = [sample for index in indices for sample in index.samples]
    skipped = missing + [skip for index in indices for skip in index.skipped]
    if not samples:
        raise NothingUsable(_why_nothing(path, modality, skipped), skipped)
    return Index(sorted(samples, key=lambda sample: (sample.key, sample.place)), sorted(skipped))


def open_trees(path: Path, modality: Modality) -> tuple[list[Tree], list[tuple[str, str]]]:
    """The folders and tars of a source, and ``(place, reason)`` of the tars that cannot be read.

    Args:
        path: As in `Source`.
        modality: Which kind of media is looked for.

    Raises:
        ValueError: There is nothing of this name.
    """
    places = _expand(path)
    trees: list[Tree] = []
    missing = []
    for place in places:
        if place.is_dir():
            trees.append(Folder(place))
            continue
        try:
            trees.append(Tar(place))
        except FileNotFoundError as error:
            if len(places) == 1:
                what = f"is neither a folder nor a tar file; give one that holds {modality} files and captions"
                raise ValueError(f"{modality}s: {place} {what}") from error
            missing.append((str(place), "missing shard: there is no such file"))
        except (OSError, ValueError) as error:
            missing.append((str(place), f"bad shard: {error}"))
    return trees, missing


def _expand(path: Path) -> list[Path]:
    """All files and folders that a path names."""
    name = os.path.expandvars(os.path.expanduser(path))
    if os.path.exists(name):
        return [Path(name)]
    try:
        names = list(braceexpand(name))
    except ValueError as error:
        raise ValueError(f"{name}: {error}; a list looks like shards/{{000..099}}.tar") from error
    found: list[str] = []
    for each in names:
        matches = sorted(glob.glob(each, recursive=True)) if glob.has_magic(each) else [each]
        if not matches:
            raise ValueError(f"{each}: no file has a name like this")
        found += matches
    return [path for path in map(Path, dict.fromkeys(found)) if not is_companion(path)]


def _why_nothing(path: Path, modality: Modality, skipped: list[tuple[str, str]]) -> str:
    if skipped:
        place, reason = skipped[0]
        counts = count_reasons(reason for _, reason in skipped)
        return f"{modality}s: no file in {path} can be used ({counts}); for example {place}: {reason}"
    hint = f"; for tars in it, give {path}/*.tar" if path.is_dir() and any(path.glob("*.tar")) else ""
    return f"{modality}s: {path} holds no {modality} file ({' '.join(sorted(SUFFIXES[modality]))}){hint}"


def _index_list(path: Path, modality: Modality) -> Index:
    """The samples that a list names; paths are seen from its folder."""
    tree = Folder(path.parent)
    samples, skipped = [], []
    try:
        for number, row in _READERS[path.suffix](path):
            name, caption = row.get("path"), row.get("caption")
            if not isinstance(name, str):
                raise ValueError(f"{path}, line {number}: no path; a line has path and caption")
            suffix = os.path.splitext(name)[1].lower()
            if suffix not in SUFFIXES[modality]:
                if not any(suffix in of for of in SUFFIXES.values()):
                    skipped.append((tree.locate(name), f"unknown suffix: {suffix or 'there is none'}"))
                continue
            try:
                samples.append(Sample(tree, name, check_caption(caption if isinstance(caption, str) else "")))
            except Unusable as error:
                skipped.append((tree.locate(name), str(error)))
    except OSError as error:
        raise ValueError(f"{modality}s: {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{modality}s: {path}: {error}") from error
    return Index(samples, skipped)


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    csv.field_size_limit(1 << 24)  # so that a long caption is one bad line, not the end of the list
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            yield reader.line_num, dict(row)


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{path}, line {number}: {error}") from error
                yield number, row if isinstance(row, dict) else {}


_READERS = {".csv": _read_csv, ".jsonl": _read_jsonl}
