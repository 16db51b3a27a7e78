"""Several conditioners as one."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from ..draws import Draws, KeyDraws
from ..interfaces import Condition, Conditioner, Prompt, VideoBatch, VideoShape
from .text import Text


class Conditioners(Conditioner):
    """The tokens of several conditioners, side by side in the order given.

    Args:
        parts: Conditioners of equal width; at least one.

    Raises:
        ValueError: There are no parts, or their widths differ.
    """

    def __init__(self, parts: list[Conditioner]) -> None:
        super().__init__()
        widths = ", ".join(f"{type(part).__name__} {part.dim}" for part in parts)
        if len({part.dim for part in parts}) != 1:
            raise ValueError(f"parts must be conditioners of one dim, at least one of them; given: {widths or 'none'}")
        self.dim = parts[0].dim
        self.video_channels = sum(part.video_channels for part in parts)
        self.parts = nn.ModuleList(parts)

    def check_low_res(self, shape: VideoShape, level: float) -> None:
        """See `Conditioner.check_low_res`: what its parts say that take one."""
        takers = [part for part in self._conditioners() if part.video_channels]
        for part in takers:
            part.check_low_res(shape, level)
        if not takers:
            super().check_low_res(shape, level)

    def see(self, batch: VideoBatch, draws: Draws | KeyDraws) -> VideoBatch:
        """See `Conditioner.see`: what each part sees."""
        for part in self._conditioners():
            batch = part.see(batch, draws)
        return batch

    def forward(self, prompt: Prompt, drop: Tensor) -> Condition:
        """Tokens ``[B, S, D]`` of all parts, each of which gets `drop` ``[B]``.

        Raises:
            ValueError: The data brings embeddings, which are of one encoder, and there are several.
        """
        encoders = sum(isinstance(part, Text) for part in self.parts)
        if prompt.embeddings is not None and encoders > 1:
            raise ValueError(
                f"the data's embeddings are of one encoder, and there are {encoders} `Text` parts: keep one"
            )
        return Condition.cat([part(prompt, drop) for part in self.parts])

    def _conditioners(self) -> Iterator[Conditioner]:
        for part in self.parts:
            assert isinstance(part, Conditioner)
            yield part
