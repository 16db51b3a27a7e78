"""What a deep network is made of."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The members of a network's lists of modules, down to those that are no lists themselves: its repeated parts."""
    for child in network.children():
        if isinstance(network, nn.ModuleList) and not isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from blocks(child)
