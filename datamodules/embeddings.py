"""Text embeddings beside the samples: ``clip.safetensors`` beside ``clip.mp4``, or in ``shard.embeddings.tar``.

A file holds ``tokens``, what a text encoder says of the caption, ``[S, D]`` without padding, and in its metadata how
they were made: the manifest, and a hash of the caption.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from ..components.interfaces import Condition
from .samples import NothingUsable, Sample, Unusable

SUFFIX = ".safetensors"
CAPTION = "caption"
_LONGEST_HEADER = 1 << 20  # bytes
_LOOKED_AT = 256  # samples that tell how all were made
MANIFEST = ("encoder", "revision", "tokenizer", "max_length", "dtype", "width")
"""Fields that say how embeddings were made; all embeddings of a training agree in them."""


def embedding_name(sample: Sample) -> str:
    """The file that holds the embedding of a sample, in its tree."""
    return posixpath.splitext(sample.key)[0] + SUFFIX


def caption_hash(caption: str) -> str:
    """Changes when the caption does."""
    return hashlib.sha256(caption.encode()).hexdigest()[:16]


def read_manifest(sample: Sample) -> dict[str, str]:
    """How the embedding of a sample was made, and the hash of its caption.

    Raises:
        Unusable: "no embedding" or "bad embedding".
    """
    return _metadata(_read(sample, header=True))


def common_manifest(samples: Sequence[Sample]) -> dict[str, str]:
    """How the embeddings of most samples were made, as those of all must have been.

    Raises:
        NothingUsable: The first have none.
    """
    found, problem = Counter[tuple[tuple[str, str], ...]](), ""
    for sample in samples[:_LOOKED_AT]:
        try:
            found[tuple((field, value) for field, value in read_manifest(sample).items() if field in MANIFEST)] += 1
        except Unusable as error:
            problem = problem or f"{sample.place}: {error}"
    if not found:
        tried = min(len(samples), _LOOKED_AT)
        raise NothingUsable(f"embeddings: the first {tried} samples have none; for example {problem}")
    return dict(found.most_common(1)[0][0])


def read_embedding(sample: Sample, manifest: Mapping[str, str]) -> Condition:
    """The embedding of a sample.

    Args:
        sample: Which.
        manifest: How it must have been made.

    Raises:
        Unusable: "no embedding", "bad embedding", or "other embedding": of another caption, or made in another way.
    """
    data = _read(sample)
    metadata = _metadata(data)
    for field in MANIFEST:
        if metadata.get(field) != manifest[field]:
            raise Unusable("other embedding", f"{field} is {metadata.get(field)}, not {manifest[field]}")
    if metadata.get(CAPTION) != caption_hash(sample.caption):
        raise Unusable("other embedding", "the caption has changed since")
    try:
        tokens = load(data)["tokens"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise Unusable("bad embedding", str(error)) from error
    if (
        tokens.ndim != 2
        or not len(tokens)
        or str(tokens.shape[1]) != manifest["width"]
        or not tokens.is_floating_point()
    ):
        raise Unusable("bad embedding", f"tokens are {list(tokens.shape)} of {tokens.dtype}, not floats [S, D]")
    return Condition(tokens.unsqueeze(0), torch.ones(1, len(tokens), dtype=torch.bool))


def _read(sample: Sample, header: bool = False) -> bytes:
    """The file, or its header alone."""
    name = embedding_name(sample)
    try:
        with sample.tree.open(name) as file:
            if not header:
                return file.read()
            length = file.read(8)
            return length + file.read(min(int.from_bytes(length, "little"), _LONGEST_HEADER))
    except FileNotFoundError as error:
        raise Unusable("no embedding", f"there is no {posixpath.basename(name)}") from error
    except OSError as error:
        raise Unusable("bad embedding", f"{posixpath.basename(name)}: {error.strerror}") from error


def _metadata(data: bytes) -> dict[str, str]:
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = {str(key): str(value) for key, value in header["__metadata__"].items()}
        return {field: metadata[field] for field in (*MANIFEST, CAPTION)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unusable("bad embedding", "it does not say how it was made; write it by snapvideo data embed") from error
