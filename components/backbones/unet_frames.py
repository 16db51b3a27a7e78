"""Weights of a U-Net for more places in time, made from those of one that has fewer."""

from __future__ import annotations

import torch
from einops import rearrange, reduce
from torch import Tensor


def fit_places(weight: Tensor, before: int, after: int) -> Tensor:
    """Rows for each place in time ``[(T D), ...]`` for another number of places: each takes those of where it lies.

    Args:
        weight: The rows, of `before` places.
        before: Places that there are.
        after: Places that there shall be.
    """
    places = torch.arange(after, device=weight.device) * before // after
    return rearrange(rearrange(weight, "(t d) ... -> t d ...", t=before)[places], "t d ... -> (t d) ...")


def split_stem(weight: Tensor, parts: int, channels: int) -> Tensor:
    """A first convolution over patches of fewer frames ``[D, C, K, 3, 3]``.

    The frames of an old patch get the same: what it gave to that patch, averaged over where in it they are.
    What lies further off than the new one sees goes to its ends, so that a still video gives what it gave.

    Args:
        weight: The old one ``[D, parts C, K, 3, 3]``.
        parts: New patches in an old one.
        channels: Channels of the video and of what is seen beside it.
    """
    reach = weight.shape[2] // 2
    taps = rearrange(weight, "d (c p n) k y x -> (k p) d (c n) y x", c=channels, p=parts)
    split = taps.new_zeros(weight.shape[2], *taps.shape[1:])
    for place in range(parts):
        offsets = torch.arange(len(taps), device=taps.device) - parts * reach - place
        split.index_add_(0, offsets.clamp(-reach, reach) + reach, taps / parts)
    return rearrange(split, "k d c y x -> d c k y x")


def split_head(weight: Tensor, parts: int, channels: int) -> Tensor:
    """Rows of a last convolution ``[(C N), ...]`` for patches of fewer frames: the mean of those of an old patch."""
    return reduce(weight, "(c p n) ... -> (c n) ...", "mean", c=channels, p=parts)
