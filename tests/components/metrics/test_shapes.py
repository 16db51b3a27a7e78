from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from snapvideo.components.interfaces import VideoShape
from snapvideo.components.metrics import ShapeAccuracy
from snapvideo.components.metrics import shapes as reader
from snapvideo.components.metrics.shapes import AskedScene, AskedThing, SeenScene, SeenThing, parse_caption, read_scene
from snapvideo.datamodules import shapes
from snapvideo.datamodules.decode import decode_video
from snapvideo.datamodules.shapes import Scene, Thing, draw_scene, ground_truth, render
from snapvideo.datamodules.synth import write_shapes

MOVES = Thing("red", "circle", "medium", "moves", "left", "normal", 0.5, 0.5)
ALL = ("colour", "shape", "direction", "background", "compact", "all")


def filmed(*things: Thing, background: str = "black", size: int = 32) -> torch.Tensor:
    """A video ``[C, T, H, W]`` as the renderer draws it."""
    return torch.from_numpy(render(Scene(things, background), 8, size)).permute(3, 0, 1, 2).contiguous()


def scores(video: torch.Tensor, *captions: str) -> dict[str, float]:
    metric = ShapeAccuracy()
    metric.update(video.expand(len(captions), *video.shape), captions)
    return {name: float(value) for name, value in metric.compute().items()}


# What is asked


def test_the_reader_knows_the_words_of_the_data():
    assert set(reader.COLOURS) == set(shapes.COLOURS)
    assert reader.SHAPES == shapes.SHAPES
    assert {name: (level,) * 3 for name, level in reader.BACKGROUNDS.items()} == shapes.BACKGROUNDS


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


# What is seen


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_rendered_video_is_read_exactly(size):
    circle = replace(MOVES, y=0.25)
    square = Thing("blue", "square", "large", "moves", "right", "slow", 0.5, 0.7)
    assert read_scene(filmed(circle, square, background="gray", size=size)) == SeenScene(
        (SeenThing("blue", "square", "right"), SeenThing("red", "circle", "left")), "gray", 1.0
    )


def test_growth_is_no_motion_even_of_a_triangle_whose_centre_of_mass_sinks():
    thing = replace(MOVES, shape="triangle", size="large", motion="grows", direction="none")
    assert read_scene(filmed(thing, size=64)).things == (SeenThing("red", "triangle", "none"),)


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
    for mask, piece in zip(masks, reader._largest_piece(masks), strict=True):
        pieces = components(mask.numpy())
        ours = {(int(y), int(x)) for y, x in piece.nonzero()}
        assert len(ours) == max(map(len, pieces), default=0)
        assert ours in pieces or not pieces


def test_a_long_winding_path_is_one_piece():
    mask = torch.zeros(2, 21, 21, dtype=torch.bool)
    mask[:, ::2] = True  # lanes
    mask[:, 1::4, -1] = True  # joined at their right ends
    mask[:, 3::4, 0] = True  # and their left ends in turn
    assert torch.equal(reader._largest_piece(mask), mask)


# How it is scored


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """200 written videos, each with its caption."""
    out = tmp_path_factory.mktemp("shapes")
    write_shapes(out, num_videos=200, num_images=0, workers=2)
    paths = sorted((out / "videos").glob("*.mp4"))
    return [(path, path.with_suffix(".txt").read_text().strip()) for path in paths]


def soften(video: torch.Tensor, seed: int) -> torch.Tensor:
    """Blur of about 0.7 pixels and noise of 12 levels, like a small model's."""
    soft = video.float()
    for dim in (2, 3):
        soft = (soft.roll(1, dim) + 2 * soft + soft.roll(-1, dim)) / 4
    noise = torch.randn(soft.shape, generator=torch.Generator().manual_seed(seed))
    return (soft + 12 * noise).round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(("size", "is_soft"), [(24, False), (32, False), (32, True)])
def test_real_files_score_full_marks(scenes, size, is_soft):
    metric = ShapeAccuracy()
    for i, (path, text) in enumerate(scenes):
        video = decode_video(path, VideoShape(8, size, size), (8.0,), np.random.default_rng(i)).video
        metric.update((soften(video, i) if is_soft else video)[None], [text])
    result = metric.compute()
    assert set(result) == set(ALL)
    assert min(result.values()) >= 0.99, result


@pytest.mark.parametrize("background", ["black", "gray", "white"])
@pytest.mark.parametrize("text", ["a red circle moves left", "a blue triangle moves down on a gray background"])
def test_an_empty_video_scores_nothing(text, background):
    video = torch.full((3, 8, 32, 32), dict(black=0, gray=128, white=255)[background], dtype=torch.uint8)
    assert scores(video, text) == dict.fromkeys(ALL, 0.0)


@pytest.mark.parametrize("size", [24, 32, 64])
@pytest.mark.parametrize("kind", ["uniform", "faint", "fair", "strong", "clipped"])
def test_noise_scores_nothing(kind, size):
    generator = torch.Generator().manual_seed(0)
    shape = (12, 3, 8, size, size)
    normal = torch.randn(shape, generator=generator)
    videos = {
        "uniform": torch.rand(shape, generator=generator) * 255,
        "faint": 128 + 20 * normal,
        "fair": 128 + 40 * normal,
        "strong": 128 + 64 * normal,
        "clipped": 300 * normal,
    }[kind].clamp(0, 255)
    metric = ShapeAccuracy()
    captions = [f"a {name} circle moves left on a gray background" for name in reader.COLOURS]
    metric.update(videos.to(torch.uint8), captions * 2)
    result = {name: float(value) for name, value in metric.compute().items()}
    assert result == dict.fromkeys(ALL, 0.0)


def test_a_still_thing_does_not_move():
    video = filmed(replace(MOVES, motion="stays", direction="none"))
    assert scores(video, *(f"a red circle moves {way}" for way in ("left", "right", "up", "down"))) == {
        **dict.fromkeys(ALL, 1.0),
        "direction": 0.0,
        "all": 0.0,
    }


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a blue circle moves left", {"colour"}),
        ("a magenta circle moves left", {"colour"}),
        ("a red square moves left", {"shape"}),
        ("a red triangle moves left", {"shape"}),
        ("a red circle moves right", {"direction"}),
        ("a red circle moves up", {"direction"}),
        ("a red circle moves left on a white background", {"background"}),
        ("a yellow square moves left", {"colour", "shape"}),
        ("a red circle moves left and a blue square moves up", {"colour"}),
    ],
)
def test_what_is_wrong_is_told_apart(text, wrong):
    result = scores(filmed(MOVES), text)
    scored = {name for name in ALL if not np.isnan(result[name])}
    assert {name for name in scored if result[name] == 0} == wrong | {"all"}
    assert all(result[name] == 1 for name in scored - wrong - {"all"})


def test_a_second_thing_is_one_too_many():
    video = filmed(replace(MOVES, y=0.25), replace(MOVES, colour="blue", y=0.75))
    assert scores(video, "a red circle moves left")["colour"] == 0
    twins = scores(filmed(replace(MOVES, y=0.25), replace(MOVES, y=0.75)), "a red circle moves left")
    assert (twins["compact"], twins["all"]) == (pytest.approx(0.5, abs=0.01), 0)


def test_two_things_are_scored_by_their_colours_only():
    video = filmed(replace(MOVES, y=0.25), replace(MOVES, colour="blue", shape="square", y=0.75))
    result = scores(video, "a blue square moves left and a red circle moves left")
    assert np.isnan(result["shape"])
    assert np.isnan(result["direction"])
    assert result["all"] == result["colour"] == 1


def test_direction_is_scored_of_moves_only():
    assert np.isnan(scores(filmed(MOVES), "a red circle stays still", "a red circle")["direction"])
    assert scores(filmed(MOVES), "a red circle stays still", "a red circle moves left")["direction"] == 1


def test_shares_are_means_over_all_updates():
    metric, text = ShapeAccuracy(), "a red circle moves left"
    black = torch.zeros(3, 8, 32, 32, dtype=torch.uint8)
    for video in (filmed(MOVES), black, black, filmed(MOVES, background="white")):
        metric.update(video[None], [text])
    assert {name: float(value) for name, value in metric.compute().items()} == {
        "colour": 0.5,
        "shape": 0.5,
        "direction": 0.5,
        "background": 0.25,
        "compact": 0.5,
        "all": 0.25,
    }


def test_read_only_uint8_videos_with_captions():
    with pytest.raises(ValueError, match="uint8"):
        ShapeAccuracy().update(torch.zeros(1, 3, 8, 32, 32), ["a red circle"])
    with pytest.raises(ValueError, match="2 captions for 1 videos"):
        ShapeAccuracy().update(torch.zeros(1, 3, 8, 32, 32, dtype=torch.uint8), ["a red circle"] * 2)
