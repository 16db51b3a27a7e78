from __future__ import annotations

import numpy as np
import pytest

from snapvideo.components.metrics import shape_captions as reader
from snapvideo.components.metrics import shape_motion, shape_reader
from snapvideo.components.metrics.shape_captions import AskedScene, AskedThing, parse_caption
from snapvideo.datamodules import shapes
from snapvideo.datamodules.shapes import draw_scene, ground_truth


def test_the_reader_knows_the_words_of_the_data():
    assert set(reader.COLOURS) == set(shapes.COLOURS)
    assert reader.SHAPES == shapes.SHAPES
    assert {name: (level,) * 3 for name, level in reader.BACKGROUNDS.items()} == shapes.BACKGROUNDS
    assert shape_reader.RADII == shapes.RADII
    assert (shape_motion.SPEEDS, shape_motion.PERIODS) == (shapes.SPEEDS, shapes.PERIODS)


@pytest.mark.parametrize("is_image", [False, True])
def test_captions_give_back_the_ground_truth(is_image):
    for seed in range(1000):
        truth = ground_truth(draw_scene(np.random.default_rng(seed), is_image))
        asked = parse_caption(truth["caption"])
        assert [vars(thing) for thing in asked.things] == truth["things"], truth["caption"]
        assert (asked.background, len(asked.things)) == (truth["background"], truth["count"])


@pytest.mark.parametrize(
    ("text", "motion", "direction", "speed"),
    [
        ("A red circle moving to the left.", "moves", "left", "normal"),
        ("a red circle moves from left to right quickly", "moves", "right", "fast"),
        ("a red circle that moves from the left to the right", "moves", "right", "normal"),
        ("Red circle moves upwards, slowly", "moves", "up", "slow"),
        ("a red circle moves top to bottom on a black background", "moves", "down", "normal"),
        ("a red circle is growing", "grows", "none", "normal"),
        ("a red circle bouncing up and down", "bounces", "vertical", "normal"),
        ("a red circle stays still", "stays", "none", "normal"),
        ("a red circle", "none", "none", "normal"),
    ],
)
def test_free_prompts(text, motion, direction, speed):
    assert parse_caption(text) == AskedScene(
        (AskedThing("red", "circle", "medium", motion, direction, speed),), "black"
    )


def test_both_spellings_of_gray():
    assert parse_caption("a red circle on a grey background") == parse_caption("a red circle on a gray background")


@pytest.mark.parametrize("text", ["", "a dog runs", "a red ball moves left", "a circle moves left"])
def test_captions_without_a_coloured_shape_are_refused(text):
    with pytest.raises(ValueError, match="names no coloured shape"):
        parse_caption(text)
