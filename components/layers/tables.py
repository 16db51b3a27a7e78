"""Learned tables: the positions of patches and the latents; and how they start from those of another model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from .attention import FeedForward, layer_norm
from .patching import PatchGrid


def widen(weight: Tensor, width: int) -> Tensor:
    """A weight ``[D, C, ...]`` with columns of zeros after its own, so that it sees `width` of them; never fewer."""
    return torch.cat([weight, weight.new_zeros(len(weight), max(0, width - weight.shape[1]), *weight.shape[2:])], dim=1)


class LatentInit(nn.Module):
    """The latents that a pass starts from: a learned table, plus what the previous pass left (paper, 3.4).

    ``z0 = table + keep * LN0(u + FF(u))``, u the previous latents without gradient. LN0's gain starts at 0, so that
    training starts as if there was no previous pass; `keep` comes after LN0, so that without one it is the table.

    Args:
        grid: How patches are laid out: each group has as many of the latents.
        num_latents: Latents, L.
        dim: Their width.
        std: Standard deviation of the table before training.
        self_conditioning: Whether there can be a previous pass; without, it is the table alone.
    """

    def __init__(self, grid: PatchGrid, num_latents: int, dim: int, std: float, self_conditioning: bool) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.empty(num_latents, dim))
        nn.init.normal_(self.table, std=std)
        self.self_conditioning = self_conditioning
        if self_conditioning:
            self.feed_forward = FeedForward(dim)
            self.norm = layer_norm(dim)
            nn.init.zeros_(self.norm.weight)

    def forward(self, batch_size: int, previous: Tensor | None, keep: Tensor | None) -> Tensor:
        """Latents ``[B, L, D]``.

        Args:
            batch_size: B.
            previous: Latents at the end of the previous pass ``[B, L, D]``, or None.
            keep: Which samples use them ``[B]`` bool; None: all.
        """
        latents = repeat(self.table, "l d -> b l d", b=batch_size)
        if previous is None or not self.self_conditioning:
            return latents
        previous = previous.detach()
        update = self.norm(previous + self.feed_forward(previous))
        return latents + (update if keep is None else torch.where(rearrange(keep, "b -> b 1 1"), update, 0.0))

    def fit(self, table: Tensor, source: LatentInit) -> Tensor:
        """The table ``[L, D]`` of other latents, whose groups this one divides: the parts get its latents in shares.

        Where the groups are not whole parts of the other's, or latents are more or fewer, it is returned as it is.
        """
        parts = [fine // coarse for fine, coarse in zip(self.grid.grid, source.grid.grid, strict=True)]
        groups = [part * coarse for part, coarse in zip(parts, source.grid.grid, strict=True)]
        if tuple(groups) != self.grid.grid or len(table) != len(self.table):
            return table
        axes = dict(zip(("t", "h", "w", "i", "j", "k"), (*source.grid.grid, *parts), strict=True))
        return rearrange(table, "(t h w i j k m) d -> (t i h j w k m) d", **axes)


class PatchPositions(nn.Module):
    """Adds learned positions to patch tokens.

    Args:
        grid: How patches are laid out.
        dim: Width of the tokens.
        position: ``full``: a row per patch; ``factorized``: a row per frame and a row per place in the frame, summed.
        std: Standard deviation of the tables before training.
    """

    def __init__(self, grid: PatchGrid, dim: int, position: Literal["full", "factorized"], std: float) -> None:
        super().__init__()
        self.grid = grid
        frames, rows, columns = grid.patches
        sizes = [(frames, rows, columns)] if position == "full" else [(frames, 1, 1), (1, rows, columns)]
        self.tables = nn.ParameterList(nn.init.normal_(torch.empty(*size, dim), std=std) for size in sizes)

    def forward(self, patches: Tensor) -> Tensor:
        """Tokens ``[(B G), n, D]`` in and out."""
        table = self.grid.group_table(self.sum(self.tables))
        return (patches.unflatten(0, (-1, len(table))) + table).flatten(0, 1)

    def fit(self, tables: Sequence[Tensor], source: PatchPositions) -> list[Tensor]:
        """The positions of another grid, stretched to this one; padding gets those of its neighbours.

        Args:
            tables: Those of `source`.
            source: The other grid's.
        """
        table = rearrange(source.sum(tables), "t h w d -> 1 d t h w")
        t, h, w = source.grid.filled
        table = F.interpolate(table[..., :t, :h, :w], self.grid.filled, mode="trilinear")
        table = F.pad(
            table, [n for i in (2, 1, 0) for n in (0, self.grid.patches[i] - self.grid.filled[i])], "replicate"
        )
        table = rearrange(table, "1 d t h w -> t h w d")
        if len(self.tables) == 1:
            return [table]
        frames, places = table.mean((1, 2), keepdim=True), table.mean(0, keepdim=True)
        return [frames - table.mean((0, 1, 2)), places]  # of all sums of two, the nearest to the table

    def sum(self, tables: Iterable[Tensor]) -> Tensor:
        """The positions of all patches ``[T, H, W, D]`` of its tables."""
        return torch.stack([t.expand(*self.grid.patches, -1) for t in tables]).sum(0)
