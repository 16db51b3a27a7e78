"""The learned null of text conditioners: what label dropout and guidance put in place of a caption."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from ..interfaces import Condition


class NullToken(nn.Module):
    """One learned token that stands for "no caption" (classifier-free guidance; label dropout, paper Table 8).

    Args:
        dim: Width of the token.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token = nn.Parameter(0.02 * torch.randn(dim))

    def forward(self, text: Condition, drop: Tensor) -> Condition:
        """Text tokens ``[B, S, D]`` where `drop` ``[B]`` is False; elsewhere the null token alone, the rest masked.

        A dropped sample holds the null token at every position, masked or not: nothing of its text is left.
        """
        drop = rearrange(drop, "b -> b 1")
        first = torch.arange(text.mask.shape[1], device=text.mask.device) == 0
        null = self.token.to(text.tokens.dtype)
        return Condition(
            tokens=torch.where(rearrange(drop, "b s -> b s 1"), null, text.tokens),
            mask=torch.where(drop, first, text.mask),
        )
