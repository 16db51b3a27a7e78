"""What a deep network is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

VARIANTS = 16
"""Variants of a block that are compiled at most: training and sampling, first and second pass, sizes of batches."""


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The members of a network's lists of modules, down to those that are no lists themselves: its repeated parts."""
    for child in network.children():
        if isinstance(network, nn.ModuleList) and not isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from blocks(child)


def compile_blocks(parts: Sequence[nn.Module]) -> None:
    """Compile modules in place, each by itself: equal ones are compiled once, and names of weights stay.

    A compiled module is one for its whole process: the compiler's limit of variants is raised, which counts all modules
    of a class as one.
    """
    if not parts:
        return
    from torch._dynamo import config  # here: it takes seconds

    config.recompile_limit = max(config.recompile_limit, VARIANTS * len(parts))
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, config.recompile_limit)
    for part in parts:
        part.compile()
