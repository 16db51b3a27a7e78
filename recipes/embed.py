"""What a text encoder says of each caption, written beside the samples, on as many devices as there are."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader
from webdataset import TarWriter

from ..components.conditioning.text import Pretrained, Text
from ..components.media import write_bytes
from ..datamodules.embeddings import CAPTION, MANIFEST, caption_hash, embedding_name, read_manifest
from ..datamodules.order import SharedOut
from ..datamodules.samples import SUFFIXES, NothingUsable, Sample, Unusable
from ..datamodules.sources import index_source
from ..datamodules.tars import Tar, companion
from .errors import UserError


def manifest_of(pretrained: Pretrained, max_length: int) -> dict[str, str]:
    """How an encoder makes embeddings; its weights are not read.

    Args:
        pretrained: The encoder.
        max_length: Tokens per caption at most.

    Raises:
        ValueError: There is no such encoder.
    """
    config, tokenizer = pretrained.config, pretrained.tokenizer
    values = (
        pretrained.name,
        _revision(pretrained.name),
        f"{type(tokenizer).__name__} of {len(tokenizer)}",
        max_length,
        str(pretrained.dtype).removeprefix("torch."),
        config.hidden_size,
    )
    return dict(zip(MANIFEST, map(str, values), strict=True))


def _revision(name: str) -> str:
    """The commit of an encoder on the hub; of a folder, a hash of its config and the beginnings of its weights."""
    from transformers.utils.hub import cached_file

    path = Path(cached_file(name, "config.json") or name)
    if commit := re.search(r"/snapshots/([0-9a-f]{40})/", path.as_posix()):
        return commit[1]
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("transformers_version", None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for weights in sorted([*path.parent.glob("*.safetensors"), *path.parent.glob("*.bin")]):
        with weights.open("rb") as file:
            digest.update(f"{weights.name} {weights.stat().st_size}".encode() + file.read(1 << 20))
    return digest.hexdigest()[:16]


def samples_to_embed(source: Path, manifest: dict[str, str]) -> tuple[list[Sample], int]:
    """The samples of a source that have no embedding of this kind, one per caption file, and how many have one.

    A tar counts as a whole.

    Raises:
        NothingUsable: There are no samples.
        ValueError: There is nothing of this name, or two samples of one name have different captions.
    """
    unique: dict[tuple[str, str], Sample] = {}
    nothing = []
    for modality in SUFFIXES:
        try:
            for sample in index_source(source, modality).samples:
                first = unique.setdefault((str(sample.tree.path), embedding_name(sample)), sample)
                if first.caption != sample.caption:
                    raise ValueError(
                        f"{first.place} and {sample.place} would share {embedding_name(sample)}, but have different "
                        "captions: give the files names of their own"
                    )
        except NothingUsable as error:
            nothing.append(error)
    if not unique:
        raise nothing[0]
    missing = [sample for sample in unique.values() if not _is_there(sample, manifest)]
    tars = {sample.tree.path for sample in missing if isinstance(sample.tree, Tar)}
    wanted = [sample for sample in unique.values() if sample.tree.path in tars]
    wanted += [sample for sample in missing if not isinstance(sample.tree, Tar)]
    return wanted, len(unique) - len(wanted)


def _is_there(sample: Sample, manifest: dict[str, str]) -> bool:
    with suppress(Unusable):
        return read_manifest(sample) == manifest | {CAPTION: caption_hash(sample.caption)}
    return False


def batches_of(samples: Sequence[Sample], batch_size: int, rank: int, world: int) -> list[list[int]]:
    """The batches of one rank, each of one tree; a tar is one rank's alone. In each, captions are of similar length."""
    by_tree: dict[Path, list[int]] = {}
    for index, sample in enumerate(samples):
        by_tree.setdefault(sample.tree.path, []).append(index)
    batches = []
    for number, indices in enumerate(by_tree.values()):
        indices.sort(key=lambda index: len(samples[index].caption))
        of_tree = [indices[first : first + batch_size] for first in range(0, len(indices), batch_size)]
        if isinstance(samples[indices[0]].tree, Tar):
            batches += of_tree if number % world == rank else []
        else:
            batches += of_tree[rank::world]
    return batches


class Embedder(LightningModule):
    """Encodes batches of captions and writes what comes of them; a ``shard.embeddings.tar`` appears when it is whole.

    Args:
        pretrained: The encoder.
        manifest: How it makes embeddings.
        samples: Whose captions.
        batch_size: Captions per batch.
    """

    def __init__(
        self, pretrained: Pretrained, manifest: dict[str, str], samples: Sequence[Sample], batch_size: int
    ) -> None:
        super().__init__()
        self.pretrained = pretrained
        self.manifest = manifest
        self.samples = samples
        self.batch_size = batch_size
        self._tar: tuple[Path, TarWriter] | None = None
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a rank may have nothing left to do

    def predict_dataloader(self) -> DataLoader[list[int]]:
        """This rank's batches, as numbers of samples."""
        batches = batches_of(self.samples, self.batch_size, self.trainer.global_rank, self.trainer.world_size)
        order = SharedOut(range(len(batches)))
        return DataLoader(batches, sampler=order, batch_size=None)  # type: ignore[arg-type]  # a list is a data set

    def predict_step(self, batch: list[int], batch_index: int) -> None:
        """Encode and write."""
        samples = [self.samples[index] for index in batch]
        ids, mask = self.pretrained.tokenize([sample.caption for sample in samples], self.device)
        hidden = self.pretrained.encode(ids, mask).to(torch.bfloat16).cpu()
        for sample, tokens, number in zip(samples, hidden, mask.sum(1).tolist(), strict=True):
            self._write(sample, tokens[:number])

    def on_predict_end(self) -> None:
        """Finish the last tar."""
        self._finish()

    def _write(self, sample: Sample, tokens: Tensor) -> None:
        data = save({"tokens": tokens.contiguous()}, self.manifest | {CAPTION: caption_hash(sample.caption)})
        name = embedding_name(sample)
        if not isinstance(sample.tree, Tar):
            write_bytes(sample.tree.path / name, data)
            return
        path = companion(sample.tree.path)
        if self._tar is None or self._tar[0] != path:
            self._finish()
            file = _temporary(path).open("wb")
            self._tar = path, TarWriter(file, encoder=False, mtime=0.0, user="", group="")
        key, suffix = os.path.splitext(name)
        self._tar[1].write({"__key__": key, suffix[1:]: data})

    def _finish(self) -> None:
        """Give the tar its name."""
        if self._tar is not None:
            path, tar = self._tar
            tar.close()
            tar.stream.close()
            os.replace(_temporary(path), path)
            self._tar = None


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def embed(source: Path, encoder: str, max_length: int, batch_size: int, devices: int, dtype: torch.dtype) -> None:
    """Write the embeddings of all captions of a source that are not there yet.

    Args:
        source: As in `Source`.
        encoder: Hugging Face id or local folder.
        max_length: Tokens per caption at most.
        batch_size: Captions per batch and device.
        devices: How many.
        dtype: Precision of the encoder.
    """
    pretrained = Pretrained(encoder, max_length, dtype)
    manifest = manifest_of(pretrained, max_length)
    samples, there = samples_to_embed(source, manifest)
    tokens = sum(min(max_length, math.ceil(len(sample.caption) / 4) + 1) for sample in samples)
    size = 2 * tokens * int(manifest["width"]) / 1e6
    plan = f"{len(samples)} captions to embed, about {size:,.0f} MB; {there} are embedded already"
    rank_zero_only(print)(plan, flush=True)
    if samples:
        strategy = "ddp" if devices > 1 else "auto"
        trainer = Trainer(devices=devices, strategy=strategy, logger=False, enable_checkpointing=False)
        trainer.predict(Embedder(pretrained, manifest, samples, batch_size), return_predictions=False)


class SameEncoder(Callback):
    """Refuses embeddings that another encoder made than the one that the model samples with."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare.

        Raises:
            UserError: A field differs.
        """
        manifest = getattr(getattr(trainer, "datamodule", None), "manifest", None)
        if not manifest:
            return
        parts = [part for part in pl_module.modules() if isinstance(part, Text)]
        if not parts:
            raise UserError("data.embeddings: no conditioner takes them; use Text, or set data.embeddings=false")
        for part in parts:
            wanted = {"encoder": part.pretrained.name, "max_length": str(part.max_length)}
            for field, value in wanted.items():
                if manifest[field] != value:
                    raise UserError(
                        f"data.embeddings: their {field} is {manifest[field]}, the conditioner's is {value}; set the "
                        "conditioner's to theirs, or write others with snapvideo data embed"
                    )
