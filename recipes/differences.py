"""Where two configs differ, setting by setting."""

from __future__ import annotations

from typing import Any, NamedTuple


class Difference(NamedTuple):
    """A setting that two configs do not share.

    Args:
        key: As ``model.backbone.num_latents``.
        one: Its value in the first; ``-``: it is not there.
        other: Its value in the second.
    """

    key: str
    one: Any
    other: Any


def differences(one: object, other: object) -> list[Difference]:
    """The settings in which two configs differ, those of the first before those of the second alone."""
    flat, flat_other = dict(_flatten(one)), dict(_flatten(other))
    pairs = {key: (flat.get(key, "-"), flat_other.get(key, "-")) for key in flat | flat_other}
    return [Difference(key, *values) for key, values in pairs.items() if values[0] != values[1]]


def table(found: list[Difference]) -> str:
    """A line for each, for people."""
    width = max((len(difference.key) for difference in found), default=0)
    return "\n".join(f"{key:{width}}  {one}  ->  {other}" for key, one, other in found)


def _flatten(node: object, place: str = "") -> list[tuple[str, object]]:
    """``(model.backbone.num_latents, 512)`` of each setting; of a class, its name."""
    if isinstance(node, dict) and node:
        pairs: list[tuple[str, object]] = []
        for key, value in node.items():
            below = place if key in ("init_args", "class_path") else f"{place}.{key}".lstrip(".")
            pairs += _flatten(value, below)
        return pairs
    if isinstance(node, list) and any(isinstance(value, dict) for value in node):
        return [pair for i, value in enumerate(node) for pair in _flatten(value, f"{place}.{i}")]
    return [(place, node)]
