from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from snapvideo.datamodules.shapes import (
    BACKGROUNDS,
    COLOURS,
    DURATION,
    HELD_OUT,
    RADII,
    SHAPES,
    SPEEDS,
    Scene,
    Thing,
    caption,
    draw_scene,
    ground_truth,
    holds_out,
    render,
)

STILL = Thing("red", "circle", "medium", "stays", "none", "normal", 0.5, 0.5)


def draw(number, is_image=False, seed=0):
    return [draw_scene(np.random.default_rng([seed, i]), is_image) for i in range(number)]


def coverage(frames, thing, background):
    """Share of the thing in each pixel, of frames that hold it alone, from the channel where it stands out most."""
    ground, colour = (np.array(rgb, float) for rgb in (BACKGROUNDS[background], COLOURS[thing.colour]))
    channel = int(np.abs(colour - ground).argmax())
    return (frames[..., channel] - ground[channel]) / (colour - ground)[channel]


def centres(alpha):
    """Centres of mass x, y ``[T]`` in sides of the frame."""
    size = alpha.shape[-1]
    places = (np.arange(size) + 0.5) / size
    mass = alpha.sum((1, 2))
    return (alpha.sum(1) * places).sum(1) / mass, (alpha.sum(2) * places).sum(1) / mass


def test_same_seed_gives_same_scene_and_pixels():
    (first,), (second,) = draw(1), draw(1)
    assert first == second
    assert np.array_equal(render(first, 4, 24), render(second, 4, 24))


def test_defaults_are_half_of_all_and_pairs_are_rare():
    scenes = draw(1500)
    things = [scene.things[0] for scene in scenes if len(scene.things) == 1]
    assert np.mean([scene.background == "black" for scene in scenes]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([thing.size == "medium" for thing in things]) == pytest.approx(0.5, abs=0.05)
    moves = [thing for thing in things if thing.motion == "moves"]
    assert len(moves) / len(things) == pytest.approx(0.7, abs=0.05)
    assert np.mean([thing.speed == "normal" for thing in moves]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([thing.from_to for thing in moves]) == pytest.approx(0.1, abs=0.03)
    assert 1 - len(things) / len(scenes) == pytest.approx(0.15, abs=0.03)


@pytest.mark.parametrize("name", ["colour", "shape", "size", "motion", "direction", "speed"])
def test_everything_occurs(name):
    values = {getattr(thing, name) for scene in draw(500) for thing in scene.things}
    expected = {
        "colour": set(COLOURS),
        "shape": set(SHAPES),
        "size": set(RADII),
        "motion": {"moves", "bounces", "grows", "shrinks", "stays"},
        "direction": {"left", "right", "up", "down", "vertical", "horizontal", "none"},
        "speed": set(SPEEDS),
    }
    assert values == expected[name]


@pytest.mark.parametrize(
    ("changes", "background", "expected"),
    [
        ({}, "black", "a red circle stays still"),
        ({"size": "small"}, "white", "a small red circle stays still on a white background"),
        ({"motion": "moves", "direction": "left"}, "black", "a red circle moves left"),
        (
            {"motion": "moves", "direction": "right", "from_to": True, "size": "large", "speed": "fast"},
            "gray",
            "a large red circle moves left to right, fast, on a gray background",
        ),
        ({"motion": "moves", "direction": "up", "from_to": True}, "black", "a red circle moves bottom to top"),
        (
            {"motion": "bounces", "direction": "vertical", "speed": "slow"},
            "black",
            "a red circle bounces up and down, slow",
        ),
        ({"motion": "grows"}, "black", "a red circle grows"),
        ({"motion": "none"}, "gray", "a red circle on a gray background"),
    ],
)
def test_caption(changes, background, expected):
    assert caption(Scene((replace(STILL, **changes),), background)) == expected


def test_caption_of_two_things():
    left = replace(STILL, motion="moves", direction="left", speed="slow")
    up = replace(STILL, colour="blue", shape="square", motion="moves", direction="up")
    assert caption(Scene((left, up), "white")) == (
        "a red circle moves left, slow, and a blue square moves up on a white background"
    )
    assert caption(Scene((up, left), "black")) == "a blue square moves up and a red circle moves left, slow"


def test_captions_of_images_have_no_motion():
    for scene in draw(200, is_image=True):
        assert not {"moves", "stays", "grows", "shrinks", "bounces", "slow", "fast"} & set(caption(scene).split())


def test_ground_truth_is_json_and_complete():
    for scene in draw(50):
        truth = json.loads(json.dumps(ground_truth(scene)))
        assert truth["count"] == len(truth["things"]) == len(scene.things)
        assert truth["caption"] == caption(scene)
        for thing, seen in zip(scene.things, truth["things"], strict=True):
            assert all(getattr(thing, name) == value for name, value in seen.items())


def test_things_stay_inside_for_the_whole_scene():
    for scene in draw(100):
        frames = render(scene, 24, 64)
        border = np.concatenate([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], axis=1)
        assert (border == BACKGROUNDS[scene.background]).all(), caption(scene)


def test_wide_frames_are_used_to_their_sides():
    scenes = [draw_scene(np.random.default_rng([0, i]), aspect=2.0) for i in range(100)]
    seen = np.zeros(128, bool)
    for scene in scenes:
        frames = render(scene, 12, 64, width=128)
        assert frames.shape == (12, 64, 128, 3)
        border = np.concatenate([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], axis=1)
        assert (border == BACKGROUNDS[scene.background]).all(), caption(scene)
        seen |= (frames != frames[0, 0, 0]).any((0, 1, 3))
    assert seen[3:-3].all()
    assert render(scenes[0], 3, 36, width=72).shape == (3, 36, 72, 3)


def test_a_wide_frame_has_the_same_things_as_a_square_one_around_it():
    for thing in (replace(STILL, shape=shape, motion="moves", direction="up") for shape in SHAPES):
        wide = render(Scene((replace(thing, x=1.0),), "gray"), 4, 64, width=128)
        assert np.array_equal(wide[:, :, 32:96], render(Scene((thing,), "gray"), 4, 64))


def test_two_things_never_touch():
    pairs = [scene for scene in draw(400) if len(scene.things) == 2][:30]
    for scene in pairs:
        first, second = (
            coverage(render(Scene((thing,), scene.background), 16, 48), thing, scene.background) > 0.01
            for thing in scene.things
        )
        assert not (first & second).any()
        assert scene.things[0].colour != scene.things[1].colour


@pytest.mark.parametrize("size", RADII)
@pytest.mark.parametrize("shape", SHAPES)
def test_all_shapes_of_a_size_have_the_same_area(shape, size):
    thing = replace(STILL, shape=shape, size=size, colour="cyan")
    alpha = coverage(render(Scene((thing,), "gray"), 1, 128), thing, "gray")
    assert alpha.mean() == pytest.approx(np.pi * RADII[size] ** 2, rel=0.01)


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize(
    ("direction", "vector"), [("left", (-1, 0)), ("right", (1, 0)), ("up", (0, -1)), ("down", (0, 1))]
)
def test_moves_have_the_velocity_of_their_words(direction, vector, speed):
    thing = replace(STILL, shape="triangle", motion="moves", direction=direction, speed=speed)
    for num_frames in (8, 16):  # places are a function of time, so that any frame rate will do
        x, y = centres(coverage(render(Scene((thing,), "white"), num_frames, 64), thing, "white"))
        seconds = DURATION / num_frames
        assert np.diff(x) / seconds == pytest.approx(vector[0] * SPEEDS[speed], abs=0.02)
        assert np.diff(y) / seconds == pytest.approx(vector[1] * SPEEDS[speed], abs=0.02)


def test_every_second_frame_is_the_video_at_half_the_rate():
    for scene in draw(20):
        assert np.array_equal(render(scene, 16, 32)[::2], render(scene, 8, 32))


def test_growth_and_bounces():
    grows, bounces = replace(STILL, motion="grows"), replace(STILL, motion="bounces", direction="vertical")
    areas = coverage(render(Scene((grows,), "black"), 8, 64), grows, "black").sum((1, 2))
    assert (np.diff(areas) > 0).all()
    shrinks = render(Scene((replace(grows, motion="shrinks"),), "black"), 8, 64)
    assert (np.diff(coverage(shrinks, grows, "black").sum((1, 2))) < 0).all()
    x, y = centres(coverage(render(Scene((bounces,), "black"), 32, 64), bounces, "black"))
    assert np.ptp(x) < 0.002
    assert np.ptp(y) == pytest.approx(0.25, abs=0.01)
    assert {-1.0, 1.0} <= set(np.sign(np.diff(y)))


@pytest.mark.parametrize("duration", [0.0, -1.0, DURATION + 0.1])
def test_a_scene_ends(duration):
    with pytest.raises(ValueError, match="duration"):
        render(Scene((STILL,), "black"), 8, 32, duration)


def test_scenes_of_old_seeds_stay():
    """Data sets that were drawn before can be drawn again: raise the version of the manifest where this changes."""
    digest = hashlib.sha256()
    for seed in range(200):
        scene = draw_scene(np.random.default_rng([5, seed]), seed % 4 == 0, (1.0, 16 / 9)[seed % 2])
        places = [[round(value, 9) for value in (thing.x, thing.y, thing.phase)] for thing in scene.things]
        digest.update(json.dumps([ground_truth(scene), places]).encode())
    assert digest.hexdigest() == "6b527012a01a162458342bb26be69f520d35090785f911e7bf7ca163a40b164e"


def test_held_out_combinations_are_those_of_the_rule():
    """Each colour, shape and direction is seen, with most of the others."""
    colours = {pair for pair in HELD_OUT if pair[0] in COLOURS}
    directions = HELD_OUT - colours
    assert {shape for _, shape in colours} <= set(SHAPES) and {shape for shape, _ in directions} <= set(SHAPES)
    seen = [draw_scene(np.random.default_rng([7, i]), held_out=False) for i in range(1500)]
    things = [thing for scene in seen for thing in scene.things]
    assert {(thing.colour, thing.shape) for thing in things} == {(c, s) for c in COLOURS for s in SHAPES} - colours
    ways = {(thing.shape, thing.direction) for thing in things if thing.motion == "moves"}
    assert ways == {(s, way) for s in SHAPES for way in ("left", "right", "up", "down")} - directions
    for scene in (draw_scene(np.random.default_rng([7, i]), held_out=True) for i in range(200)):
        assert any(
            (thing.colour, thing.shape) in colours or (thing.shape, thing.direction) in directions
            for thing in scene.things
        )


@pytest.mark.parametrize("is_image", [False, True])
def test_scenes_that_hold_nothing_out_are_the_same(is_image):
    for i in range(100):
        scene = draw_scene(np.random.default_rng(i), is_image)
        again = draw_scene(np.random.default_rng(i), is_image, held_out=False)
        assert (again == scene) == (not holds_out(scene))
        assert again == draw_scene(np.random.default_rng(i), is_image, held_out=False)
        assert holds_out(draw_scene(np.random.default_rng(i), is_image, held_out=True))
