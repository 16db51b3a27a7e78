"""The sample contract: what in a folder is a sample, and why a file is none.

A sample is a media file with a caption. Its caption is, in this order,

1. the text of ``clip.txt`` beside ``clip.mp4``;
2. the string ``caption`` in ``clip.json`` beside it;
3. the string ``caption`` in the line of a ``metadata.jsonl`` whose ``file_name`` is the path of the clip, seen from the
   folder of that ``metadata.jsonl`` (the Hugging Face convention).

Folders are searched at any depth; what begins with a dot is ignored.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Modality: TypeAlias = Literal["video", "image"]

SUFFIXES: dict[Modality, frozenset[str]] = {
    "video": frozenset({".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif"}),
    "image": frozenset({".jpg", ".jpeg", ".png", ".webp"}),
}
"""File names of each modality, in the order in which a batch holds the modalities. An animated image that is found as
an image shows its first frame."""

METADATA = "metadata.jsonl"


class Unusable(Exception):
    """A file cannot be a sample.

    Args:
        reason: A code of few words, the same for all files with this fault: "too short".
        detail: What was seen and what is needed.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)


class NothingUsable(ValueError):
    """A source holds no file that can be used; the message counts the files by reason."""


def count_reasons(reasons: Iterable[str]) -> str:
    """How often each reason code occurs, for people: "7 too short, 2 corrupt"."""
    counts = Counter(reason.split(":")[0] for reason in reasons)
    return ", ".join(f"{number} {code}" for code, number in counts.most_common())


@dataclass(frozen=True, slots=True)
class Sample:
    """A captioned file.

    Args:
        key: Its path inside the folder, with forward slashes: the name of the sample everywhere.
        caption: Its caption, not empty.
    """

    key: str
    caption: str


@dataclass(frozen=True)
class Index:
    """The samples of one modality in a folder.

    Args:
        folder: Where they are.
        samples: Those with a caption, sorted by key.
        skipped: ``(key, reason)`` of the media files without a usable caption, sorted by key.
    """

    folder: Path
    samples: list[Sample]
    skipped: list[tuple[str, str]]


def index_folder(folder: Path, modality: Modality) -> Index:
    """List the samples of a folder. Captions are read, media files are not opened.

    Args:
        folder: Where to search.
        modality: Which kind of media.

    Raises:
        ValueError: `folder` is no folder, or a line of a ``metadata.jsonl`` cannot be read.
        NothingUsable: It holds no media file of this kind, or none with a caption.
    """
    if not folder.is_dir():
        raise ValueError(f"{modality}s: {folder} is not a folder; give one that holds {modality} files and captions")
    samples: list[Sample] = []
    skipped: list[tuple[str, str]] = []
    listed: dict[str, str] = {}
    for directory, names in _walk(folder):
        prefix = "" if directory == folder else directory.relative_to(folder).as_posix() + "/"
        if METADATA in names:
            listed |= {os.path.normpath(prefix + name): text for name, text in _read_metadata(directory / METADATA)}
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in SUFFIXES[modality]:
                continue
            key = prefix + name
            try:
                samples.append(Sample(key, _caption(directory, stem, names, listed.get(os.path.normpath(key), ""))))
            except Unusable as error:
                skipped.append((key, str(error)))
    samples.sort(key=lambda sample: sample.key)
    skipped.sort()
    if not samples:
        raise NothingUsable(_why_nothing(folder, modality, skipped))
    return Index(folder, samples, skipped)


def _walk(folder: Path) -> Iterator[tuple[Path, set[str]]]:
    """Every folder with the names of its files, parents first; links are followed, each real folder is seen once."""
    seen = set()

    def refuse(error: OSError) -> None:
        raise ValueError(f"{error.filename} cannot be listed: {error.strerror}") from error

    for directory, children, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(directory)
        if real in seen:
            children.clear()
            continue
        seen.add(real)
        children[:] = [child for child in sorted(children) if not child.startswith(".")]
        yield Path(directory), {name for name in names if not name.startswith(".")}


def _caption(directory: Path, stem: str, names: set[str], listed: str) -> str:
    """The caption of one media file; `listed` is the one that a metadata.jsonl gives it, or empty."""
    text = listed
    if f"{stem}.txt" in names:
        text = _read(directory / f"{stem}.txt")
    elif f"{stem}.json" in names:
        path = directory / f"{stem}.json"
        try:
            fields = json.loads(_read(path))
        except (json.JSONDecodeError, RecursionError) as error:
            raise Unusable("bad caption", f"{path.name} is not JSON: {error}") from error
        text = _caption_field(fields) or listed
    text = text.strip()
    if not text:
        raise Unusable("no caption", f"no text in {stem}.txt, `caption` in {stem}.json or line in {METADATA}")
    return text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unusable("bad caption", f"{path.name} is not UTF-8: {error}") from error
    except OSError as error:
        raise Unusable("bad caption", f"{path.name} cannot be read: {error.strerror}") from error


def _caption_field(fields: object) -> str:
    caption = fields.get("caption") if isinstance(fields, dict) else None
    return caption if isinstance(caption, str) else ""


def _read_metadata(path: Path) -> Iterator[tuple[str, str]]:
    """``(file_name, caption)`` of the lines."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            yield str(fields["file_name"]), _caption_field(fields)
        except (json.JSONDecodeError, RecursionError, KeyError, TypeError) as error:
            example = '{"file_name": "a.mp4", "caption": "A dog."}'
            raise ValueError(f"{path}, line {number}: {error!r}; a line looks like {example}") from error


def _why_nothing(folder: Path, modality: Modality, skipped: list[tuple[str, str]]) -> str:
    if not skipped:
        return f"{modality}s: {folder} holds no {modality} file ({' '.join(sorted(SUFFIXES[modality]))})"
    key, reason = skipped[0]
    counts = count_reasons(reason for _, reason in skipped)
    return f"{modality}s: no file in {folder} can be used ({counts}); for example {key}: {reason}"
