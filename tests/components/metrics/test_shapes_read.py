"""What is drawn is read rightly, what is spoilt as spoilt: a small version of docs/benchmarks/shapes_reader.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from snapvideo.components.metrics import ShapeAccuracy
from snapvideo.datamodules.shapes import caption, draw_scene, render


def drawn(number, height, width, num_frames, fps):
    """Clips ``[B, 3, T, H, W]``, captions and frame rates, as drawn."""
    scenes = [draw_scene(np.random.default_rng([21, i]), aspect=width / height) for i in range(number)]
    clips = np.stack([render(scene, num_frames, height, num_frames / fps, width) for scene in scenes])
    return torch.from_numpy(clips).permute(0, 4, 1, 2, 3), [caption(s) for s in scenes], torch.full((number,), fps)


def scores(videos, captions, fps):
    metric = ShapeAccuracy()
    metric.update(videos, captions, fps)
    return {name: float(value) for name, value in metric.compute().items()}


@pytest.mark.parametrize(
    ("number", "height", "width", "num_frames", "fps"),
    [
        (200, 24, 24, 8, 8.0),
        (200, 36, 64, 8, 8.0),
        (200, 36, 64, 8, 16.0),
        (100, 36, 64, 16, 24.0),
        (100, 72, 128, 8, 8.0),
    ],
)
def test_what_is_drawn_is_read(number, height, width, num_frames, fps):
    result = scores(*drawn(number, height, width, num_frames, fps))
    assert min(result.values()) >= 0.99, result


def test_images_are_read_too():
    """Of one frame there is no motion to score, and no caption of an image asks for one."""
    scenes = [draw_scene(np.random.default_rng([21, i]), is_image=True) for i in range(100)]
    images = torch.from_numpy(np.stack([render(scene, 1, 24) for scene in scenes])).permute(0, 4, 1, 2, 3)
    result = scores(images, [caption(scene) for scene in scenes], torch.full((100,), 8.0))
    assert all(np.isnan(result.pop(name)) for name in ("direction", "motion", "speed"))
    assert min(result.values()) >= 0.99, result


@pytest.fixture(scope="module")
def clips():
    return drawn(100, 36, 64, 8, 8.0)


def test_noise_takes_scores_away(clips):
    videos, captions, fps = clips
    noise = torch.randn(videos.shape, generator=torch.Generator().manual_seed(0))
    joint = [
        scores((videos + level * noise).round().clamp(0, 255).to(torch.uint8), captions, fps)["joint"]
        for level in (12, 32, 64)
    ]
    assert joint[0] >= 0.99 and joint[0] > joint[1] > joint[2]


def test_blur_takes_shapes_first(clips):
    videos, captions, fps = clips
    soft = videos.float()
    for _ in range(16):  # 1 2 1 so many times: a Gaussian of 2.8 pixels
        for dim in (3, 4):
            soft = (soft.roll(1, dim) + 2 * soft + soft.roll(-1, dim)) / 4
    result = scores(soft.round().to(torch.uint8), captions, fps)
    assert result["shape"] < 0.9 and result["joint"] < 0.9
    assert min(result[name] for name in ("colour", "direction", "motion", "speed", "background")) >= 0.95


def test_shuffled_frames_take_motion_away_and_nothing_else(clips):
    videos, captions, fps = clips
    generator = torch.Generator().manual_seed(0)
    result = scores(torch.stack([video[:, torch.randperm(8, generator=generator)] for video in videos]), captions, fps)
    assert max(result[name] for name in ("direction", "motion", "speed")) < 0.25
    assert min(result[name] for name in ("colour", "shape", "size", "count", "background", "consistency")) >= 0.99


def test_backwards_directions_are_wrong_and_speeds_are_right(clips):
    videos, captions, fps = clips
    result = scores(videos.flip(2), captions, fps)
    turned = [word for text in captions for word in ("grows", "shrinks") if word in text]
    assert result["direction"] == 0 and result["speed"] >= 0.99
    assert result["motion"] == pytest.approx(1 - len(turned) / len(captions), abs=0.02)
    assert min(result[name] for name in ("colour", "shape", "size", "background")) >= 0.99


def test_captions_of_others_are_right_by_chance(clips):
    videos, captions, fps = clips
    result = scores(videos, captions[1:] + captions[:1], fps)
    # One colour of six, one shape of three; of those that move, one direction of four.
    assert result["colour"] == pytest.approx(1 / 6, abs=0.12)
    assert result["shape"] == pytest.approx(1 / 3, abs=0.15)
    assert result["direction"] < 0.3
    assert result["joint"] < 0.03
