"""Frame rate and original resolution: one conditioning token each (paper, 3.4)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ..interfaces import Condition, Conditioner, Prompt
from ..layers import ScalarToken

REFERENCE_FPS = 24.0
REFERENCE_PIXELS = 256.0


class FrameRate(Conditioner):
    """One token of the time between two frames, ``24 / fps``: 1 at 24 fps, and exactly 0 for images.

    The interval rather than the rate, so that images, whose frame rate is infinite (paper, 3.3), need no special case.

    Args:
        dim: Width of the token.
        hidden: Width of the hidden layer; None: four times `dim`.
    """

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.token = ScalarToken(dim, hidden or 4 * dim)

    def forward(self, prompt: Prompt, drop: Tensor) -> Condition:
        """Tokens ``[B, 1, D]``; `drop` is ignored.

        Raises:
            ValueError: A frame rate is zero, negative or not a number.
        """
        fps = prompt.fps.float()
        if not (fps > 0).all():  # also catches NaN
            raise ValueError(f"fps {fps.tolist()} must be above 0 frames per second; inf for images")
        return one_token(self.token(rearrange(REFERENCE_FPS / fps, "b -> b 1")))


class Resolution(Conditioner):
    """One token of the size that the original had before it was resized: log2 of height and width over 256 pixels.

    Args:
        dim: Width of the token.
        hidden: Width of the hidden layer; None: four times `dim`.
    """

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.token = ScalarToken(dim, hidden or 4 * dim, num_scalars=2)

    def forward(self, prompt: Prompt, drop: Tensor) -> Condition:
        """Tokens ``[B, 1, D]``; `drop` is ignored.

        Raises:
            ValueError: A height or width is zero, negative, infinite or not a number.
        """
        pixels = prompt.resolution.float()
        if not ((pixels > 0) & pixels.isfinite()).all():
            raise ValueError(f"resolution {pixels.tolist()} must be heights and widths in pixels, finite and above 0")
        return one_token(self.token(torch.log2(pixels / REFERENCE_PIXELS)))


def one_token(token: Tensor) -> Condition:
    """A token ``[B, D]`` as a condition of one token each."""
    return Condition(rearrange(token, "b d -> b 1 d"), token.new_ones(token.shape[0], 1, dtype=torch.bool))
