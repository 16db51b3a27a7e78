"""Captions through a small encoder that is trained with the model: no download, no vocabulary."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from hashlib import shake_256
from itertools import chain
from zlib import crc32

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from ..interfaces import Condition, Conditioner, Prompt
from ..layers import Attention, FeedForward
from .null import NullToken

WORD = re.compile(r"\w{1,16}|[^\w\s]")
"""Words (longer ones in pieces of 16 characters) and single punctuation marks."""

NGRAM_SIZES = (3, 4, 5)
END = ""
"""The empty word, which closes each caption: an empty caption still has a token."""


class ByteText(Conditioner):
    """Captions through a small transformer trained from scratch.

    A word is the mean of the embeddings of its byte n-grams, hashed into one table (Bojanowski et al. 2017, "Enriching
    Word Vectors with Subword Information"): any script can be read, there is no unknown word, and a misspelt word is
    close to the right one. Transformer layers then mix the words. They work on words rather than bytes because words
    differ before the first step, so that some hundred steps are enough to tell attributes apart, and because these
    layers and the backbone's cross attention then pay for some ten words instead of some sixty bytes.

    Half of each token is a code of its word that nothing can train away, random signs drawn from a hash of it. For the
    image comes to need its words one after the other, first those of colour, much later those of motion; an encoder
    that is free to do so first learns to drop all that is not of use yet, and finds it again very slowly.

    Captions are read case-folded and in Unicode's NFKC form.

    Args:
        dim: Width of the tokens, at least 2.
        width: Width of the encoder.
        num_layers: Transformer layers.
        head_dim: Channels per attention head; must divide `width`.
        max_words: Tokens per caption at most: words, punctuation marks and the end; longer captions are cut.
        num_rows: Rows of the n-gram table.
        row_width: Width of the n-gram table.

    Raises:
        ValueError: A size below 1, a `dim` below 2, or `head_dim` does not divide `width`.
    """

    def __init__(
        self,
        dim: int,
        width: int = 128,
        num_layers: int = 2,
        head_dim: int = 32,
        max_words: int = 32,
        num_rows: int = 4096,
        row_width: int = 64,
    ) -> None:
        super().__init__()
        sizes = {"width": width, "head_dim": head_dim, "max_words": max_words, "num_rows": num_rows}
        for name, size in (sizes | {"row_width": row_width}).items():
            if size < 1:
                raise ValueError(f"{name}={size} must be at least 1")
        if dim < 2:
            raise ValueError(f"dim={dim} must be at least 2")
        self.dim = dim
        # Words and positions start distinct and on one scale: with N(0, 0.02) for either, as is usual, learning which
        # attribute belongs to which object took several times as many steps (bag rows are N(0, 1) by default).
        self.ngrams = nn.EmbeddingBag(num_rows, row_width, mode="mean")
        self.embed = nn.Sequential(nn.Linear(row_width, width), nn.LayerNorm(width))
        self.position = nn.Parameter(0.5 * torch.randn(max_words, width))
        self.layers = nn.ModuleList(TransformerLayer(width, head_dim) for _ in range(num_layers))
        self.code_dim = dim // 2
        in_context = dim - self.code_dim
        self.project = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, in_context), nn.LayerNorm(in_context, elementwise_affine=False)
        )
        self.null = NullToken(dim)

    def forward(self, prompt: Prompt, drop: Tensor) -> Condition:
        """Tokens ``[B, S, D]``, S the words of the longest caption and its end; the null token where `drop` ``[B]``."""
        texts = [[*split_words(caption)[: len(self.position) - 1], END] for caption in prompt.captions]
        words, mask = self._embed_words(texts)
        x = words + self.position[: words.shape[1]]
        for layer in self.layers:
            x = layer(x, mask)
        codes = np.zeros((*mask.shape, self.code_dim), np.float32)
        for row, words_of_text in zip(codes, texts, strict=True):
            row[: len(words_of_text)] = [word_code(word, self.code_dim) for word in words_of_text]
        tokens = torch.cat([torch.from_numpy(codes).to(x), self.project(x)], dim=-1)
        return self.null(Condition(tokens, mask), drop)

    def _embed_words(self, texts: list[list[str]]) -> tuple[Tensor, Tensor]:
        """Word embeddings ``[B, S, width]`` of B lists of words, and their mask ``[B, S]``."""
        num_rows = self.ngrams.num_embeddings
        longest = max(len(words) for words in texts)
        bags = [ngram_rows(words[i], num_rows) if i < len(words) else () for words in texts for i in range(longest)]
        sizes = torch.tensor([len(bag) for bag in bags])
        rows = torch.tensor(list(chain.from_iterable(bags)))
        device = self.position.device
        bag_means = self.ngrams(rows.to(device), (sizes.cumsum(0) - sizes).to(device))
        mask = (sizes > 0).to(device)
        batch = len(texts)
        return rearrange(self.embed(bag_means), "(b s) d -> b s d", b=batch), rearrange(mask, "(b s) -> b s", b=batch)


class TransformerLayer(nn.Module):
    """Pre-norm self-attention and feed-forward.

    Args:
        dim: Width.
        head_dim: Channels per attention head.
    """

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.attention = Attention(dim, head_dim)
        self.feed_forward = FeedForward(dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens ``[B, S, D]`` of tokens ``[B, S, D]``; no one attends to those whose `mask` ``[B, S]`` is False."""
        x = x + self.attention(x, mask=mask)
        return x + self.feed_forward(x)


def split_words(caption: str) -> list[str]:
    """The words and punctuation marks of a caption, case-folded."""
    return WORD.findall(unicodedata.normalize("NFKC", caption).casefold())


@lru_cache(maxsize=65536)
def word_code(word: str, length: int) -> NDArray[np.float32]:
    """Random signs ``[length]`` that depend on the word alone."""
    digest = shake_256(word.encode(errors="surrogatepass")).digest(-(-length // 8))
    bits = np.unpackbits(np.frombuffer(digest, np.uint8))[:length]
    return 2.0 * bits.astype(np.float32) - 1.0


@lru_cache(maxsize=65536)
def ngram_rows(word: str, num_rows: int) -> tuple[int, ...]:
    """Table rows of a word's byte n-grams and of the whole word, its two ends marked by ``<`` and ``>``."""
    text = f"<{word}>".encode(errors="surrogatepass")
    ngrams = {text[i : i + size] for size in NGRAM_SIZES for i in range(len(text) - size + 1)}
    return tuple(crc32(ngram) % num_rows for ngram in sorted(ngrams | {text}))
