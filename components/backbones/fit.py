"""FIT: the far-reaching interleaved transformer of Snap Video (paper, 3.4 and Table 8; Chen & Li 2023, FIT).

Patch tokens hold the video, in groups; a few latent tokens hold the joint computation. In each block the latents read
the conditioning and the patches, talk to each other, and write back to the patches. Patches never attend to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..draws import Draws
from ..interfaces import Backbone, Condition, State, VideoShape
from ..layers.attention import Attention, FeedForward, KeysValues, layer_norm, xavier_linear
from ..layers.condition_video import join_videos
from ..layers.embeddings import ScalarToken
from ..layers.patching import PatchGrid, Size3
from ..layers.tables import LatentInit, PatchPositions, widen


class LatentLayer(nn.Module):
    """Self attention over all latents, then a feed-forward: the only place with dropout (Table 8).

    Args:
        dim: Width of the latents.
        head_dim: Channels per head.
        dropout: Dropout in the feed-forward.
        qk_norm: Normalise queries and keys.
    """

    def __init__(self, dim: int, head_dim: int, dropout: float, qk_norm: bool) -> None:
        super().__init__()
        self.attention = Attention(dim, head_dim, qk_norm=qk_norm)
        self.feed_forward = FeedForward(dim, dropout)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents ``[B, L, D]`` in and out."""
        latents = latents + self.attention(latents)
        return latents + self.feed_forward(latents)


class CrossLayer(nn.Module):
    """One kind of token reads another: cross attention, then a feed-forward.

    Args:
        dim: Width of the tokens that read.
        dim_context: Width of the tokens that are read.
        head_dim: Channels per head; the inner width is the smaller of the two widths.
        qk_norm: Normalise queries and keys.
        chunk: Tokens that go through the feed-forward at a time, again in the backward pass; 0: all.
    """

    def __init__(self, dim: int, dim_context: int, head_dim: int, qk_norm: bool, chunk: int = 0) -> None:
        super().__init__()
        self.chunk = chunk
        self.activation_checkpointing = chunk > 0
        self.attention = Attention(dim, head_dim, dim_context, qk_norm=qk_norm)
        self.feed_forward = FeedForward(dim)

    def forward(
        self, tokens: Tensor, context: Tensor, mask: Tensor | None = None, known: KeysValues | None = None
    ) -> Tensor:
        """Tokens ``[B, N, D]`` that read ``[B, S, D']`` where `mask` ``[B, S]`` allows it; see `Attention.forward`."""
        tokens = tokens + self.attention(tokens, context, mask, known)
        if not self.chunk:
            return tokens + self.feed_forward(tokens)
        parts = tokens.flatten(0, 1).split(self.chunk)
        return torch.cat([self._feed_forward(part) for part in parts]).view_as(tokens)

    def _feed_forward(self, part: Tensor) -> Tensor:
        """Some of the tokens ``[N, D]``, with the feed-forward added."""
        if self.activation_checkpointing and torch.is_grad_enabled():
            update: Tensor = checkpoint(self.feed_forward, part, use_reentrant=False)
            return part + update
        return part + self.feed_forward(part)


@dataclass
class KnownCondition(Condition):
    """Conditioning tokens with the keys and values that the blocks make of them.

    Args:
        known: For each block, what its conditioning read makes of the tokens.
    """

    known: list[KeysValues] = field(default_factory=list)


class FITBlock(nn.Module):
    """Conditioning read, grouped read, latent layers, grouped write (paper, 3.4).

    Args:
        dim_patch: Width of the patch tokens.
        dim_latent: Width of the latent tokens.
        dim_condition: Width of the conditioning tokens.
        num_latent_layers: Latent layers.
        patch_head_dim: Channels per head of the cross attentions.
        latent_head_dim: Channels per head of the latents' self attention.
        dropout: Dropout in the latent layers.
        qk_norm: Normalise queries and keys.
        patch_chunk: Patch tokens that go through a feed-forward at a time; see `CrossLayer`.
    """

    def __init__(
        self,
        dim_patch: int,
        dim_latent: int,
        dim_condition: int,
        num_latent_layers: int,
        patch_head_dim: int,
        latent_head_dim: int,
        dropout: float,
        qk_norm: bool,
        patch_chunk: int,
    ) -> None:
        super().__init__()
        self.read_condition = CrossLayer(dim_latent, dim_condition, patch_head_dim, qk_norm)
        self.read = CrossLayer(dim_latent, dim_patch, patch_head_dim, qk_norm)
        self.latent_layers = nn.ModuleList(
            LatentLayer(dim_latent, latent_head_dim, dropout, qk_norm) for _ in range(num_latent_layers)
        )
        self.write = CrossLayer(dim_patch, dim_latent, patch_head_dim, qk_norm, patch_chunk)

    def forward(
        self,
        patches: Tensor,
        latents: Tensor,
        condition: Tensor,
        mask: Tensor,
        num_groups: int,
        known: KeysValues | None,
    ) -> tuple[Tensor, Tensor]:
        """One block.

        Args:
            patches: ``[(B G), n, D]``.
            latents: ``[B, L, D']``; rows ``g L/G ... (g+1) L/G`` belong to group g.
            condition: Conditioning tokens ``[B, S, D'']``.
            mask: ``[B, S]`` bool, False for padding.
            num_groups: G.
            known: Keys and values of more conditioning tokens, before these; the mask includes them.
        """
        latents = self.read_condition(latents, condition, mask, known)
        latents = rearrange(latents, "b (g m) d -> (b g) m d", g=num_groups)
        latents = self.read(latents, patches)
        latents = rearrange(latents, "(b g) m d -> b (g m) d", g=num_groups)
        for layer in self.latent_layers:
            latents = layer(latents)
        patches = self.write(patches, rearrange(latents, "b (g m) d -> (b g) m d", g=num_groups))
        return patches, latents


class FIT(Backbone):
    """FIT backbone. The defaults are the paper's FIT 500M (Table 8) but for `shape` (its 16 x 36 x 64).

    Args:
        shape: Size of the videos; what patches and groups don't fill is padded inside, at the bottom and right.
        patch: Pixels per patch: frames, rows, columns.
        group: Patches per group: frames, rows, columns; a group spans all frames.
        num_latents: Latent tokens, a multiple of the number of groups.
        num_blocks: Blocks.
        num_latent_layers: Latent layers per block.
        dim_patch: Width of the patch tokens.
        dim_latent: Width of the latent tokens.
        dim_condition: Width of the conditioning tokens.
        patch_head_dim: Channels per head where patches or conditioning are read or written.
        latent_head_dim: Channels per head among latents.
        dropout: Dropout in the latent layers' feed-forward, 0..1.
        self_conditioning: Probability in training that a sample starts from the latents of a previous pass, 0..1; at 0
            no state is carried while sampling either.
        position: Learned patch positions: a full table, or one for frames and one for rows and columns, summed.
        table_std: Standard deviation of the positions and latents before training (FIT: 0.02). A larger one, against
            patch tokens of unit variance, lets latents and patches tell places apart from the first step.
        qk_norm: Normalise queries and keys per head (not in the paper).
        activation_checkpointing: Recompute each block in the backward pass, to save memory.
        patch_chunk: Patch tokens that go through a feed-forward at a time, again in the backward pass, to save memory
            where there are many (an upsampler's are 147,456 a video); 0: all.
        condition_channels: Channels of the video that it sees beside the noisy one (an upsampler: 3); 0: none.

    Raises:
        ValueError: Sizes that don't divide; the message names those that would.
    """

    def __init__(
        self,
        shape: VideoShape,
        patch: Size3 = (1, 4, 4),
        group: Size3 = (16, 5, 4),
        num_latents: int = 512,
        num_blocks: int = 6,
        num_latent_layers: int = 4,
        dim_patch: int = 768,
        dim_latent: int = 1024,
        dim_condition: int = 768,
        patch_head_dim: int = 48,
        latent_head_dim: int = 64,
        dropout: float = 0.1,
        self_conditioning: float = 0.9,
        position: Literal["full", "factorized"] = "full",
        table_std: float = 0.02,
        qk_norm: bool = False,
        activation_checkpointing: bool = False,
        patch_chunk: int = 0,
        condition_channels: int = 0,
    ) -> None:
        super().__init__()
        if patch_chunk < 0:
            raise ValueError(f"patch_chunk={patch_chunk} must be at least 1, or 0: all patches at once")
        self.shape = shape
        self.dim_condition = dim_condition
        self.condition_channels = condition_channels
        self.self_conditioning = self_conditioning
        self.activation_checkpointing = activation_checkpointing
        self.grid = PatchGrid((shape.num_frames, shape.height, shape.width), patch, group, shape.channels)
        if num_latents % self.grid.num_groups:
            fits = [(num_latents // self.grid.num_groups + i) * self.grid.num_groups for i in (0, 1)]
            raise ValueError(
                f"num_latents={num_latents} is not a multiple of the {self.grid.num_groups} groups; {fits} would fit"
            )

        self.dim_seen = replace(self.grid, channels=shape.channels + condition_channels).patch_dim
        self.stem = nn.Sequential(xavier_linear(self.dim_seen, dim_patch), nn.LayerNorm(dim_patch, eps=1e-6))
        self.positions = PatchPositions(self.grid, dim_patch, position, table_std)
        self.latent_init = LatentInit(self.grid, num_latents, dim_latent, table_std, self_conditioning > 0)
        self.noise_token = ScalarToken(dim_condition, hidden=4 * dim_patch)
        self.blocks = nn.ModuleList(
            FITBlock(
                dim_patch,
                dim_latent,
                dim_condition,
                num_latent_layers,
                patch_head_dim,
                latent_head_dim,
                dropout,
                qk_norm,
                patch_chunk,
            )
            for _ in range(num_blocks)
        )
        self.head = nn.Sequential(layer_norm(dim_patch), xavier_linear(dim_patch, self.grid.patch_dim))

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition, state: State = None) -> tuple[Tensor, State]:
        """See `Backbone.forward`; the state is the latents ``[B, L, D]`` at the end of the evaluation."""
        prediction, latents = self._evaluate(x, c_noise, condition, state, None)
        return prediction, latents if self.self_conditioning > 0 else None

    def fit_weights(self, weights: dict[str, Tensor], source: Backbone) -> dict[str, Tensor]:
        """See `Backbone.fit_weights`.

        The tables follow their places (`PatchPositions.fit`, `LatentInit.fit`); what the stem sees beside the noisy
        video starts at zero (paper, 3.4: the upsampler starts from the first stage).
        """
        if not isinstance(source, FIT):
            return weights
        fitted = dict(weights)
        for name in [name for name in weights if name.startswith("positions.")]:
            del fitted[name]
        tables = [weights[f"positions.tables.{i}"] for i in range(len(source.positions.tables))]
        fitted |= {f"positions.tables.{i}": t for i, t in enumerate(self.positions.fit(tables, source.positions))}
        fitted["latent_init.table"] = self.latent_init.fit(weights["latent_init.table"], source.latent_init)
        if self.grid.patch == source.grid.patch:
            fitted["stem.0.weight"] = widen(weights["stem.0.weight"], self.dim_seen)
        return fitted

    def prepare(self, condition: Condition) -> Condition:
        """See `Backbone.prepare`: all blocks' keys and values of all conditioning tokens but the noise level's."""
        known = []
        for block in self.blocks:
            assert isinstance(block, FITBlock)
            known.append(block.read_condition.attention.keys_values(condition.tokens))
        return KnownCondition(condition.tokens, condition.mask, condition.video, known)

    def train_forward(self, x: Tensor, c_noise: Tensor, condition: Condition, draws: Draws) -> Tensor:
        """The prediction of a second pass that starts from a first one's latents (paper, 3.4).

        The first pass has no gradient and sees only as many samples as may keep its latents. Both passes share `x`,
        `c_noise` and `condition`. Every rank takes both passes, of the same sizes at every step.
        """
        if self.self_conditioning == 0:
            return self(x, c_noise, condition)[0]
        keep, rows = draws.choose(self.self_conditioning)
        with torch.no_grad():
            latents = self(x[rows], c_noise[rows], condition[rows])[1]
        torch.clear_autocast_cache()  # of weights without gradient: before torch 2.10 the second pass got them
        previous = latents.new_zeros(len(x), *latents.shape[1:]).index_copy(0, rows, latents)
        return self._evaluate(x, c_noise, condition, previous, keep)[0]

    def _evaluate(
        self, x: Tensor, c_noise: Tensor, condition: Condition, previous: Tensor | None, keep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        context = rearrange(self.noise_token(rearrange(c_noise, "b -> b 1")), "b d -> b 1 d")
        mask = F.pad(condition.mask, (0, 1), value=True)
        known: Sequence[KeysValues | None] = [None] * len(self.blocks)
        if isinstance(condition, KnownCondition):
            known = condition.known
        else:
            context = torch.cat([condition.tokens, context], dim=1)

        seen = join_videos(x, condition.video, self.condition_channels)
        patches = self.positions(self.stem(self.grid.to_groups(seen)))
        latents = self.latent_init(len(x), previous, keep)
        for block, keys_values in zip(self.blocks, known, strict=True):
            arguments = (patches, latents, context, mask, self.grid.num_groups, keys_values)
            if self.activation_checkpointing and torch.is_grad_enabled():
                patches, latents = checkpoint(block, *arguments, use_reentrant=False)
            else:
                patches, latents = block(*arguments)
        return self.grid.to_video(self.head(patches)), latents
