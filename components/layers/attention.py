"""Attention and feed-forward layers, pre-norm and residual-free: a block adds what they return."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

NORM_EPS = 1e-6

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of an attention layer, each ``[B, heads, S, head_dim]``."""


def xavier_linear(dim_in: int, dim_out: int, bias: bool = True, fused: int = 1) -> nn.Linear:
    """A Linear with xavier-uniform weights and zero bias; each of `fused` equal slices as a layer of its own."""
    linear = nn.Linear(dim_in, dim_out, bias=bias)
    for weight in linear.weight.data.chunk(fused):
        nn.init.xavier_uniform_(weight)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


def layer_norm(dim: int) -> nn.LayerNorm:
    """LayerNorm with a gain and no bias."""
    return nn.LayerNorm(dim, eps=NORM_EPS, bias=False)


class Attention(nn.Module):
    """Multi-head attention ``softmax(q k / sqrt(head_dim)) v``, with its own pre-norms and no biases.

    Args:
        dim: Width of the queries and of the output.
        head_dim: Channels per head; must divide the inner width.
        dim_context: Width of what is attended to; None: self-attention.
        inner: Width of queries, keys and values, all heads together; None: the smaller of the two widths.
        qk_norm: Normalise queries and keys per head.

    Raises:
        ValueError: `head_dim` does not divide the inner width.
    """

    def __init__(
        self, dim: int, head_dim: int, dim_context: int | None = None, inner: int | None = None, qk_norm: bool = False
    ) -> None:
        super().__init__()
        inner = inner or min(dim, dim_context or dim)
        if inner % head_dim:
            fits = [d for d in range(1, inner + 1) if inner % d == 0]
            raise ValueError(f"head_dim={head_dim} does not divide the attention width {inner}; {fits} fit")
        self.head_dim = head_dim
        self.norm = layer_norm(dim)
        if dim_context is None:
            self.to_qkv = xavier_linear(dim, 3 * inner, bias=False, fused=3)
        else:
            self.norm_context = layer_norm(dim_context)
            self.to_q = xavier_linear(dim, inner, bias=False)
            self.to_kv = xavier_linear(dim_context, 2 * inner, bias=False, fused=2)
        self.to_out = xavier_linear(inner, dim, bias=False)
        self.norm_q = layer_norm(head_dim) if qk_norm else nn.Identity()
        self.norm_k = layer_norm(head_dim) if qk_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        known: KeysValues | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            x: Queries ``[B, N, D]``.
            context: What to attend to ``[B, S, D']``; None: `x` itself.
            mask: ``[B, S]`` bool, False where a token must not be attended to.
            known: Keys and values that come before those of the context; the mask includes them.
        """
        x = self.norm(x)
        if context is None:
            q, k, v = (self._heads(t) for t in self.to_qkv(x).chunk(3, dim=-1))
            k = self.norm_k(k)
        else:
            q = self._heads(self.to_q(x))
            k, v = self.keys_values(context)
        if known is not None:
            k, v = torch.cat([known[0], k], dim=2), torch.cat([known[1], v], dim=2)
        attend = None if mask is None else rearrange(mask, "b s -> b 1 1 s")
        out = F.scaled_dot_product_attention(self.norm_q(q), k, v, attn_mask=attend)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))

    def keys_values(self, context: Tensor) -> KeysValues:
        """What does not depend on the queries: keys and values of a context ``[B, S, D']``."""
        k, v = (self._heads(t) for t in self.to_kv(self.norm_context(context)).chunk(2, dim=-1))
        return self.norm_k(k), v

    def _heads(self, t: Tensor) -> Tensor:
        return rearrange(t, "b n (h d) -> b h n d", d=self.head_dim)


class FeedForward(nn.Sequential):
    """``LN -> Linear(d, 4d) -> GELU -> dropout -> Linear(4d, d)``.

    Args:
        dim: Width d.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(self, dim: int, dropout: float = 0.0) -> None:
        super().__init__(
            layer_norm(dim), xavier_linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), xavier_linear(4 * dim, dim)
        )
