from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from snapvideo.components.metrics import shape_reader as reader
from snapvideo.components.metrics.shape_motion import SeenMotion
from snapvideo.components.metrics.shape_reader import SeenScene, SeenThing, read_scene
from snapvideo.datamodules.shapes import Scene, Thing, render

MOVES = Thing("red", "circle", "medium", "moves", "left", "normal", 0.5, 0.5)


def filmed(*things: Thing, background: str = "black", size: int = 32) -> torch.Tensor:
    """A video ``[C, T, H, W]`` as the renderer draws it."""
    return torch.from_numpy(render(Scene(things, background), 8, size)).permute(3, 0, 1, 2).contiguous()


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_rendered_video_is_read_exactly(size):
    circle = replace(MOVES, y=0.25)
    square = Thing("blue", "square", "large", "moves", "right", "slow", 0.5, 0.7)
    slow, normal = SeenMotion("moves", "none", "slow"), SeenMotion("moves", "none", "normal")
    assert read_scene(filmed(circle, square, background="gray", size=size), 8.0) == SeenScene(
        (
            SeenThing("blue", "square", "large", "right", slow),
            SeenThing("red", "circle", "medium", "left", normal),
        ),
        count=2,
        background="gray",
        compact=1.0,
        consistency=1.0,
    )


def test_growth_is_no_motion_even_of_a_triangle_whose_centre_of_mass_sinks():
    thing = replace(MOVES, shape="triangle", size="large", motion="grows", direction="none")
    grows = SeenMotion("grows", "none", "none")
    assert read_scene(filmed(thing, size=64), 8.0).things == (SeenThing("red", "triangle", "large", "none", grows),)
    assert read_scene(filmed(thing, size=64)).things == (SeenThing("red", "triangle", "large", "none", None),)


def test_lengths_are_in_heights_of_wide_frames():
    """A motion that is a little more along x than along y is one along neither, on frames of any width."""
    for width in (32, 64):
        video = torch.zeros(3, 8, 32, width, dtype=torch.uint8)
        for i in range(8):
            video[0, i, 4 + i : 14 + i, 4 + i + i // 4 : 14 + i + i // 4] = 255
        assert read_scene(video).things[0].direction == "none"


def test_compactness_falls_with_specks():
    video = filmed(replace(MOVES, motion="stays", direction="none"), size=32)
    pixels = int((video[0, 0] > 127).sum())
    video[0, :, :8:2, :8:2] = 255  # 16 specks, each a piece of its own
    assert read_scene(video).compact == pytest.approx(pixels / (pixels + 16), abs=0.01)


def components(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """Connected components by flood fill."""
    left, found = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    while left:
        todo, seen = [left.pop()], set()
        while todo:
            y, x = todo.pop()
            seen.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo += near
        found.append(seen)
    return found


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.45, 0.9])
def test_largest_piece_is_that_of_a_flood_fill(share):
    masks = torch.from_numpy(np.random.default_rng(0).random((6, 20, 24)) < share)
    for mask, piece in zip(masks, reader._largest_piece(masks).mask, strict=True):
        pieces = components(mask.numpy())
        ours = {(int(y), int(x)) for y, x in piece.nonzero()}
        assert len(ours) == max(map(len, pieces), default=0)
        assert ours in pieces or not pieces


def test_a_long_winding_path_is_one_piece():
    mask = torch.zeros(2, 21, 21, dtype=torch.bool)
    mask[:, ::2] = True  # lanes
    mask[:, 1::4, -1] = True  # joined at their right ends
    mask[:, 3::4, 0] = True  # and their left ends in turn
    assert torch.equal(reader._largest_piece(mask).mask, mask)
