"""The sample contract: what in a folder or a tar file is a sample, and why a file is none.

A sample is a media file with a caption. Its caption is, in this order,

1. the text of ``clip.txt`` beside ``clip.mp4``;
2. the string ``caption`` in ``clip.json`` beside it;
3. the string ``caption`` in the line of a ``metadata.jsonl`` whose ``file_name`` is the path of the clip, seen from the
   folder of that ``metadata.jsonl`` (the Hugging Face convention).

Trees are searched at any depth; what begins with a dot is ignored.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .trees import Tree

Modality: TypeAlias = Literal["video", "image"]

SUFFIXES: dict[Modality, frozenset[str]] = {
    "video": frozenset({".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif"}),
    "image": frozenset({".jpg", ".jpeg", ".png", ".webp"}),
}
"""File names of each modality, in the order in which a batch holds the modalities. An animated image that is found as
an image shows its first frame."""

METADATA = "metadata.jsonl"

_LONGEST = 10_000  # characters of a caption; a thousand words say more than a clip shows
_MAX_NAMED = 10  # files that a message names
_LARGEST = 1 << 20  # bytes of a caption file; more is something else


class Unusable(Exception):
    """A file cannot be a sample.

    Args:
        reason: A code of few words, the same for all files with this fault: "too short".
        detail: What was seen and what is needed.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)


class NothingUsable(ValueError):
    """A source holds no file that can be used; the message counts the files by reason.

    Args:
        message: What to say.
        skipped: ``(place, reason)`` of its files.
    """

    def __init__(self, message: str, skipped: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.skipped = skipped


def count_reasons(reasons: Iterable[str]) -> str:
    """How often each reason code occurs, for people: "7 too short, 2 corrupt"."""
    counts = Counter(reason.split(":")[0] for reason in reasons)
    return ", ".join(f"{number} {code}" for code, number in counts.most_common())


def left_out(skipped: Sequence[tuple[str, str]], modality: Modality, others: int) -> str:
    """A message that counts files which are left out, and names some.

    Args:
        skipped: ``(place, reason)`` of them.
        modality: What they are.
        others: How many are not left out.
    """
    named = "".join(f"\n  {place}: {reason}" for place, reason in skipped[:_MAX_NAMED])
    more = "\n  ..." if len(skipped) > _MAX_NAMED else ""
    counts = f"{len(skipped)} of {others + len(skipped)} ({count_reasons(reason for _, reason in skipped)})"
    return f"{modality}s: {counts} cannot be used and are left out:{named}{more}"


@dataclass(frozen=True, slots=True)
class Sample:
    """A captioned file.

    Args:
        tree: What it is in.
        key: Its path there, with forward slashes: the name of the sample everywhere.
        caption: Its caption, not empty.
    """

    tree: Tree
    key: str
    caption: str

    @property
    def place(self) -> str:
        """Where the file is, for people."""
        return self.tree.locate(self.key)


@dataclass(frozen=True)
class Index:
    """The samples of one modality in a source.

    Args:
        samples: Those with a caption, sorted by key.
        skipped: ``(place, reason)`` of the media files that are none, sorted.
    """

    samples: list[Sample]
    skipped: list[tuple[str, str]]


def index_tree(tree: Tree, modality: Modality) -> Index:
    """List the samples of a tree. Captions are read, media files are not opened.

    Args:
        tree: Where to search.
        modality: Which kind of media.

    Raises:
        ValueError: A line of a ``metadata.jsonl`` cannot be read, or a folder cannot be listed.
    """
    samples: list[Sample] = []
    skipped = [(tree.locate(name), reason) for name, reason in tree.lost]
    listed: dict[str, str] = {}
    for prefix, names in tree.folders():
        if METADATA in names:
            listed |= {os.path.normpath(prefix + name): text for name, text in _read_metadata(tree, prefix + METADATA)}
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in SUFFIXES[modality]:
                continue
            key = prefix + name
            try:
                text = _caption(tree, prefix, stem, names, listed.get(os.path.normpath(key), ""))
                samples.append(Sample(tree, key, text))
            except Unusable as error:
                skipped.append((tree.locate(key), str(error)))
    return Index(sorted(samples, key=lambda sample: sample.key), sorted(skipped))


def _caption(tree: Tree, prefix: str, stem: str, names: Set[str], listed: str) -> str:
    """The caption of one media file; `listed` is the one that a metadata.jsonl gives it, or empty."""
    text = listed
    if f"{stem}.txt" in names:
        text = _read(tree, f"{prefix}{stem}.txt")
    elif f"{stem}.json" in names:
        try:
            fields = json.loads(_read(tree, f"{prefix}{stem}.json"))
        except (ValueError, RecursionError) as error:
            raise Unusable("bad caption", f"{stem}.json is not JSON: {error}") from error
        text = _caption_field(fields) or listed
    return check_caption(text, f"no text in {stem}.txt, `caption` in {stem}.json or line in {METADATA}")


def check_caption(text: str, missing: str = "it is empty") -> str:
    """A caption without the space around it.

    Args:
        text: As it was found.
        missing: What to say if there is none.

    Raises:
        Unusable: "no caption", "bad caption" or "caption too long".
    """
    text = text.strip()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable("bad caption", f"it holds half a character: {error}") from error
    if not text:
        raise Unusable("no caption", missing)
    if len(text) > _LONGEST:
        raise Unusable("caption too long", f"{len(text)} characters; {_LONGEST} at most")
    return text


def _read(tree: Tree, name: str) -> str:
    try:
        with tree.open(name) as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise Unusable("bad caption", f"{os.path.basename(name)} cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise Unusable("caption too long", f"{os.path.basename(name)} is larger than {_LARGEST} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unusable("bad caption", f"{os.path.basename(name)} is not UTF-8: {error}") from error


def _caption_field(fields: object) -> str:
    caption = fields.get("caption") if isinstance(fields, dict) else None
    return caption if isinstance(caption, str) else ""


def _read_metadata(tree: Tree, name: str) -> Iterator[tuple[str, str]]:
    """``(file_name, caption)`` of the lines."""
    path = tree.locate(name)
    try:
        with tree.open(name) as file:
            lines = file.read().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            yield str(fields["file_name"]), _caption_field(fields)
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            example = '{"file_name": "a.mp4", "caption": "A dog."}'
            raise ValueError(f"{path}, line {number}: {error!r}; a line looks like {example}") from error
