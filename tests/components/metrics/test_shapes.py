from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from snapvideo.components.interfaces import VideoShape
from snapvideo.components.metrics import ShapeAccuracy
from snapvideo.components.metrics.shape_captions import COLOURS
from snapvideo.datamodules.decode import decode_video
from snapvideo.datamodules.shapes import Scene, Thing, caption, draw_scene, render
from snapvideo.datamodules.synth import write_shapes

MOVES = Thing("red", "circle", "medium", "moves", "left", "normal", 0.5, 0.5)
ALL = (
    *("colour", "shape", "size", "count", "direction", "motion", "speed"),
    *("background", "compact", "consistency", "all", "joint"),
)


def filmed(*things: Thing, background: str = "black", size: int = 32) -> torch.Tensor:
    """A video ``[C, T, H, W]`` as the renderer draws it."""
    return torch.from_numpy(render(Scene(things, background), 8, size)).permute(3, 0, 1, 2).contiguous()


def scores(video: torch.Tensor, *captions: str) -> dict[str, float]:
    metric = ShapeAccuracy()
    metric.update(video.expand(len(captions), *video.shape), captions, torch.full((len(captions),), 8.0))
    return {name: float(value) for name, value in metric.compute().items()}


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
        metric.update((soften(video, i) if is_soft else video)[None], [text], torch.tensor([8.0]))
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
    captions = [f"a {name} circle moves left on a gray background" for name in COLOURS]
    metric.update(videos.to(torch.uint8), captions * 2, torch.full((12,), 8.0))
    result = {name: float(value) for name, value in metric.compute().items()}
    assert result == dict.fromkeys(ALL, 0.0)


def test_a_still_thing_does_not_move():
    video = filmed(replace(MOVES, motion="stays", direction="none"))
    assert scores(video, *(f"a red circle moves {way}" for way in ("left", "right", "up", "down"))) == {
        **dict.fromkeys(ALL, 1.0),
        **dict.fromkeys(("direction", "motion", "speed", "all", "joint"), 0.0),
    }


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a blue circle moves left", {"colour"}),
        ("a magenta circle moves left", {"colour"}),
        ("a red square moves left", {"shape"}),
        ("a red triangle moves left", {"shape"}),
        ("a large red circle moves left", {"size"}),
        ("a small red circle moves left", {"size"}),
        ("a red circle moves right", {"direction"}),
        ("a red circle moves up", {"direction"}),
        ("a red circle moves left, slow", {"speed"}),
        ("a red circle moves left, fast", {"speed"}),
        ("a red circle bounces left and right", {"motion", "speed"}),
        ("a red circle grows", {"motion"}),
        ("a red circle stays still", {"motion"}),
        ("a red circle moves left on a white background", {"background"}),
        ("a yellow square moves left", {"colour", "shape"}),
        ("a red circle moves left and a blue circle moves left", {"colour", "count"}),
    ],
)
def test_what_is_wrong_is_told_apart(text, wrong):
    """`all` does not know of sizes, motions, speeds and numbers."""
    result = scores(filmed(MOVES), text)
    both = {"joint"} | ({"all"} if wrong & {"colour", "shape", "direction", "background"} else set())
    half = {name: 0.5 for name in ("shape", "size", "direction", "motion", "speed")} if "count" in wrong else {}
    expected = {name: 1.0 for name in ALL} | half | dict.fromkeys(wrong | both, 0.0)
    assert {name: value for name, value in result.items() if not np.isnan(value)} == {
        name: value for name, value in expected.items() if not np.isnan(result[name])
    }
    applies = {"grows": {"size", "direction", "speed"}, "stays": {"direction", "speed"}, "bounces": {"direction"}}
    missing = next((names for word, names in applies.items() if word in text), set())
    assert {name for name, value in result.items() if np.isnan(value)} == missing


def test_a_second_thing_is_one_too_many():
    video = filmed(replace(MOVES, y=0.25), replace(MOVES, colour="blue", y=0.75))
    result = scores(video, "a red circle moves left")
    assert (result["colour"], result["count"], result["joint"]) == (0, 0, 0)
    twins = scores(filmed(replace(MOVES, y=0.25), replace(MOVES, y=0.75)), "a red circle moves left")
    assert (twins["colour"], twins["count"]) == (1, 0)
    assert (twins["compact"], twins["all"], twins["joint"]) == (pytest.approx(0.5, abs=0.01), 0, 0)


def test_two_things_are_told_by_their_colours():
    video = filmed(replace(MOVES, y=0.25), replace(MOVES, colour="blue", shape="square", size="small", y=0.75))
    result = scores(video, "a small blue square moves left and a red circle moves left")
    assert result == dict.fromkeys(ALL, 1.0)
    result = scores(video, "a small blue square moves right and a red triangle moves left")
    halves = {"shape": 0.5, "direction": 0.5, "joint": 0.0}
    assert result == {**dict.fromkeys(ALL, 1.0), **halves}  # `all` holds no shapes of two things
    result = scores(video, "a small red circle moves left and a blue square stays still")
    assert (result["shape"], result["size"], result["motion"]) == (1, 0, 0.5)


def test_direction_is_scored_of_moves_only():
    assert np.isnan(scores(filmed(MOVES), "a red circle stays still", "a red circle")["direction"])
    assert scores(filmed(MOVES), "a red circle stays still", "a red circle moves left")["direction"] == 1


def test_what_needs_seconds_is_not_scored_without_the_frame_rate():
    metric = ShapeAccuracy()
    black = torch.zeros(3, 8, 32, 32, dtype=torch.uint8)
    metric.update(torch.stack([filmed(MOVES), black]), ["a red circle moves left, fast"] * 2)
    result = {name: float(value) for name, value in metric.compute().items()}
    assert np.isnan(result.pop("motion")) and np.isnan(result.pop("speed"))
    assert result == dict.fromkeys(result, 0.5)


def test_speed_is_by_the_frame_rate():
    """The same frames, played at half the rate, go half as fast."""
    metric, fast = ShapeAccuracy(), replace(MOVES, speed="normal")
    metric.update(
        filmed(fast)[None].expand(2, 3, 8, 32, 32), ["a red circle moves left, slow"] * 2, torch.tensor([4.0, 8.0])
    )
    assert float(metric.compute()["speed"]) == 0.5


def test_a_thing_that_changes_its_colour_or_shape_is_not_consistent():
    red, blue = filmed(MOVES), filmed(replace(MOVES, colour="blue"))
    square = filmed(replace(MOVES, shape="square"))
    for other in (blue, square):
        video = torch.cat([red[:, :5], other[:, 5:]], dim=1)
        result = scores(video, "a red circle moves left")
        assert result["consistency"] == 5 / 8 and result["joint"] == 0
    both = filmed(replace(MOVES, y=0.25), replace(MOVES, y=0.75))
    lost = torch.cat([both[:, :4], filmed(replace(MOVES, y=0.25))[:, 4:]], dim=1)
    assert scores(lost, "a red circle moves left")["consistency"] == 0.5


def test_shares_are_means_over_all_updates():
    metric, text = ShapeAccuracy(), "a red circle moves left"
    black = torch.zeros(3, 8, 32, 32, dtype=torch.uint8)
    for video in (filmed(MOVES), black, black, filmed(MOVES, background="white")):
        metric.update(video[None], [text], torch.tensor([8.0]))
    assert {name: float(value) for name, value in metric.compute().items()} == {
        **dict.fromkeys(ALL, 0.5),
        "background": 0.25,
        "all": 0.25,
        "joint": 0.25,
    }


def test_rows_do_not_depend_on_the_batch_and_can_be_kept():
    scenes = [draw_scene(np.random.default_rng(i), aspect=16 / 9) for i in range(12)]
    videos = torch.stack([torch.from_numpy(render(scene, 8, 36, 0.5, 64)) for scene in scenes]).permute(0, 4, 1, 2, 3)
    texts, fps = [caption(scene) for scene in scenes], torch.full((12,), 16.0)
    metric, again = ShapeAccuracy(), ShapeAccuracy()
    rows = metric.observe(videos, texts, fps)
    single = [metric.observe(videos[i : i + 1], texts[i : i + 1], fps[i : i + 1]) for i in range(12)]
    assert rows.shape == (12, len(ALL)) and torch.equal(rows.nan_to_num(-1), torch.cat(single).nan_to_num(-1))
    metric.update(videos, texts, fps)
    for row in single:
        again.add(row)
    assert {name: float(x) for name, x in metric.compute().items()} == pytest.approx(
        {name: float(x) for name, x in again.compute().items()}, nan_ok=True
    )


def test_read_only_uint8_videos_with_captions():
    with pytest.raises(ValueError, match="uint8"):
        ShapeAccuracy().update(torch.zeros(1, 3, 8, 32, 32), ["a red circle"])
    video = torch.zeros(1, 3, 8, 32, 32, dtype=torch.uint8)
    with pytest.raises(ValueError, match="2 captions for 1 videos"):
        ShapeAccuracy().update(video, ["a red circle"] * 2)
    with pytest.raises(ValueError, match="2 frame rates for 1 videos"):
        ShapeAccuracy().update(video, ["a red circle"], torch.tensor([8.0, 8.0]))
    with pytest.raises(ValueError, match="not with real videos"):
        ShapeAccuracy().update(video, ["a red circle"], real=True)
