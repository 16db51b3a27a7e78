"""Captioned files into tar files of about one size, for training by WebDataset's rules or at random.

What goes where is planned from the list of files alone, so that each shard can be written by any process, on any
machine, and again after a stop.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import posixpath
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from webdataset import TarWriter

from .headers import Header, read_header, remember
from .samples import SUFFIXES, Modality, NothingUsable, Sample, Unusable
from .sources import index_source
from .tars import Tar
from .whole_file import whole_file

INDEX = "index.json"
"""Sums up the shards of a folder; it is there when the folder is complete."""

_MARKER = ".plan.json"  # says whose shards a folder holds, from the beginning on

_BESIDE = (".json", ".safetensors")  # what travels with a media file, beside its caption
_COMPANION_LIMIT = 1 << 28  # bytes of such a file


@dataclass
class Item:
    """A sample on its way into a shard.

    Args:
        sample: Where it is.
        modality: What it is.
        key: Its name in the shard, without suffix; no two samples share one, and it has no dot.
        size: Bytes of its media file.
    """

    sample: Sample
    modality: Modality
    key: str
    size: int


@dataclass
class Plan:
    """Which samples go into which shard.

    Args:
        shards: The items of each shard.
        skipped: ``(place, reason)`` of the files that go into none.
        hash: Of all that decides what the shards hold.
    """

    shards: list[list[Item]]
    skipped: list[tuple[str, str]]
    hash: str = field(default="")

    def name(self, number: int) -> str:
        """The file name of a shard."""
        return f"shard-{number:0{max(6, len(str(len(self.shards))))}}.tar"


def make_plan(source: Path, shard_size: int, seed: int = 0) -> Plan:
    """Share out the samples of a source, in random order, so that shards are about equal in bytes.

    Args:
        source: As in `Source`, or a ``.csv`` or ``.jsonl`` list of paths and captions.
        shard_size: Bytes per shard, about.
        seed: Of the order.

    Raises:
        NothingUsable: There are no samples.
        ValueError: There is nothing of this name.
    """
    items: list[Item] = []
    skipped: list[tuple[str, str]] = []
    nothing: list[NothingUsable] = []
    taken: set[str] = set()
    for modality in SUFFIXES:
        try:
            index = index_source(source, modality)
        except NothingUsable as error:
            nothing.append(error)
            skipped += error.skipped
            continue
        skipped += index.skipped
        for sample in index.samples:
            try:
                size = sample.tree.size(sample.key)
            except OSError as error:
                skipped.append((sample.place, f"cannot be opened: {error.strerror}"))
                continue
            items.append(Item(sample, modality, _unique(sample.key, taken), size))
    if not items:
        raise nothing[0]
    ends = np.cumsum([item.size + 1 for item in items])  # 1: empty files count, too
    number = max(1, round(ends[-1] / shard_size))
    shards: list[list[Item]] = [[] for _ in range(number)]
    order = np.random.default_rng(seed).permutation(len(items))
    end = 0
    for index_ in order:
        item = items[index_]
        middle = end + (item.size + 1) / 2
        shards[min(number - 1, int(middle * number / ends[-1]))].append(item)
        end += item.size + 1
    text = json.dumps([[[item.key, item.size, item.sample.caption] for item in shard] for shard in shards])
    return Plan([s for s in shards if s], sorted(set(skipped)), hashlib.sha256(text.encode()).hexdigest()[:16])


def _unique(key: str, taken: set[str]) -> str:
    """A name for a sample that is not taken, safe, and without dots: WebDataset ends a name at the first."""
    parts = [part for part in posixpath.splitext(key)[0].split("/") if part not in ("", ".", "..")]
    stem = "/".join(part.replace(".", "_") for part in parts)
    suffix = posixpath.splitext(key)[1].lstrip(".").lower()
    numbered = (f"{stem}_{suffix}_{number}" for number in itertools.count(2))
    candidates = itertools.chain([stem, f"{stem}_{suffix}"], numbered)
    name = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(name)
    return name


def write_shards(plan: Plan, out: Path, part: int = 0, parts: int = 1, workers: int | None = None) -> dict[str, Any]:
    """Write the shards of a plan, or one part of them, each at once; those that are there are left as they are.

    Beside ``shard-000000.tar`` lies ``shard-000000.json``: what each sample is and where it came from. When all are
    there, `INDEX` sums them up.

    Args:
        plan: What goes where.
        out: Folder to write.
        part: Which of the parts, from 0: the shards whose number leaves this remainder.
        parts: In how many parts the shards are written, on as many machines.
        workers: Processes; all available cores if None.

    Returns:
        The summary of the shards of all parts that are there.

    Raises:
        ValueError: The folder holds shards of another plan, or something else.
        NothingUsable: All are written, and no file could be used.
    """
    _begin(out, plan)
    mine = [number for number in range(part, len(plan.shards), parts) if not _is_written(out, plan, number)]
    total = sum(len(plan.shards[number]) for number in range(part, len(plan.shards), parts))
    left = sum(len(plan.shards[number]) for number in mine)
    workers = max(1, min((os.cpu_count() or 1) if workers is None else workers, len(mine)))
    with tqdm(desc=f"writing {out}", total=total, initial=total - left, unit=" files", disable=None) as progress:
        if workers == 1:
            _share(plan, out)
            for count in map(_write_shard, mine):
                progress.update(count)
        else:
            context = get_context("spawn")  # a fork may take along a lock that a thread of ours holds, and wait forever
            with ProcessPoolExecutor(workers, context, _share, (plan, out)) as pool:
                for count in pool.map(_write_shard, mine):
                    progress.update(count)
    return _summarize(out, plan)


_shared: dict[str, Any] = {}


def _share(plan: Plan, out: Path) -> None:
    """Give a process the plan once, not with each shard."""
    _shared.update(plan=plan, out=out)


def _begin(out: Path, plan: Plan) -> None:
    """Mark the folder as that of a plan, or check that it is."""
    marker = out / _MARKER
    if marker.exists():
        if _read_json(marker).get("plan") != plan.hash:
            raise ValueError(f"{out} is of other files or another shard size: choose a new folder or empty this one")
        return
    names = [path.name for path in out.iterdir()] if out.exists() else []
    foreign = [name for name in names if not name.startswith(f".{_MARKER}.")]  # that one began here and was killed
    if foreign:
        raise ValueError(f"{out} holds {min(foreign)}, which is not of this packing: choose a new folder")
    out.mkdir(parents=True, exist_ok=True)
    _write_json(marker, {"plan": plan.hash, "shards": len(plan.shards)})


def _is_written(out: Path, plan: Plan, number: int) -> bool:
    path = out / plan.name(number)
    return path.exists() and path.with_suffix(".json").exists()


def _write_shard(number: int) -> int:
    """Write a shard; how many files were tried."""
    plan, out = _shared["plan"], _shared["out"]
    path = out / plan.name(number)
    for stale in out.glob(f".*{path.stem}.*.tmp"):  # of the shard, its index, the headers in it and its description
        stale.unlink(missing_ok=True)
    samples, skipped, headers = [], [], dict[str, Header]()
    with (
        whole_file(path) as temporary,
        temporary.open("wb") as file,
        TarWriter(file, encoder=False, mtime=0.0, user="", group="") as tar,
    ):
        for item in plan.shards[number]:
            try:
                facts = read_header(item.sample, item.modality, upright=True)
                tar.write(dict(_members(item)))
            except Unusable as error:
                skipped.append([item.sample.place, str(error)])
                continue
            about = {"key": item.key, "source": item.sample.place, "modality": item.modality, "bytes": item.size}
            samples.append(about | facts)
            headers[f"{item.key}{posixpath.splitext(item.sample.key)[1].lower()}"] = facts
    tar = Tar(path)  # writes its index
    remember(tar, {name: (tar.stamp(name), header) for name, header in headers.items()})
    content = {"plan": plan.hash, "bytes": path.stat().st_size, "samples": samples, "skipped": skipped}
    _write_json(path.with_suffix(".json"), content)
    return len(plan.shards[number])


def _members(item: Item) -> Iterator[tuple[str, Any]]:
    """What a sample is in a shard, by suffix."""
    tree, stem = item.sample.tree, posixpath.splitext(item.sample.key)[0]
    yield "__key__", item.key
    yield "txt", item.sample.caption.encode()
    for name in (item.sample.key, *(stem + suffix for suffix in _BESIDE)):
        try:
            with tree.open(name) as file:
                data = file.read() if name == item.sample.key else file.read(_COMPANION_LIMIT)
        except FileNotFoundError:
            if name == item.sample.key:
                raise Unusable("cannot be opened", "it is gone") from None
            continue
        except OSError as error:
            raise Unusable("cannot be opened", error.strerror or str(error)) from error
        yield posixpath.splitext(name)[1].lstrip(".").lower(), data


def _summarize(out: Path, plan: Plan) -> dict[str, Any]:
    """What the shards hold; written once all are there."""
    shards, skipped = [], Counter(reason.split(":")[0] for _, reason in plan.skipped)
    counts: Counter[str] = Counter()
    for number in range(len(plan.shards)):
        if _is_written(out, plan, number):
            about = _read_json((out / plan.name(number)).with_suffix(".json"))
            shards.append({"name": plan.name(number), "samples": len(about["samples"]), "bytes": about["bytes"]})
            counts.update(sample["modality"] for sample in about["samples"])
            skipped.update(reason.split(":")[0] for _, reason in about["skipped"])
    summary = {
        "plan": plan.hash,
        "complete": len(shards) == len(plan.shards),
        "videos": counts["video"],
        "images": counts["image"],
        "bytes": sum(shard["bytes"] for shard in shards),
        "skipped": dict(skipped.most_common()),
        "shards": shards,
    }
    if summary["complete"] and not counts:
        raise NothingUsable(f"no file can be packed: {dict(skipped.most_common())}; {out} holds empty shards")
    if summary["complete"]:
        _write_json(out / INDEX, summary)
    return summary


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes())
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1))
