from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from snapvideo.components.metrics import ShapeFrechet
from snapvideo.components.metrics.shape_features import FEATURES, shape_features
from snapvideo.datamodules.shapes import Scene, Thing, draw_scene, render

STAYS = Thing("red", "square", "medium", "stays", "none", "normal", 0.5, 0.5)


def drawn(first, number, num_frames=8, height=24, width=24):
    scenes = [draw_scene(np.random.default_rng([22, first + i]), aspect=width / height) for i in range(number)]
    clips = np.stack([render(scene, num_frames, height, 1.0, width) for scene in scenes])
    return torch.from_numpy(clips).permute(0, 4, 1, 2, 3)


def features(*things, background="black", size=48):
    video = torch.from_numpy(render(Scene(things, background), 8, size)).permute(3, 0, 1, 2)
    values = shape_features(video[None])[0] * torch.tensor(list(FEATURES.values()))
    return dict(zip(FEATURES, values.tolist(), strict=True))


@pytest.fixture(scope="module")
def clips():
    return drawn(0, 200), drawn(1000, 200)


@pytest.fixture(scope="module")
def real_rows(clips):
    return ShapeFrechet().observe(clips[1], [""] * len(clips[1]))


def distance(videos, real_rows):
    metric = ShapeFrechet()
    metric.update(videos, [""] * len(videos))
    metric.add(real_rows, real=True)
    return float(metric.compute()["shape_fd"])


def test_features_are_what_their_names_say():
    still = features(STAYS, background="gray")
    assert [still[f"background_{c}"] for c in ("red", "green", "blue")] == pytest.approx([128 / 255] * 3, abs=1e-3)
    assert [still[f"foreground_{c}"] for c in ("red", "green", "blue")] == pytest.approx([1, 0, 0], abs=0.06)
    assert still["share_red"] > 0.9 and max(still[f"share_{c}"] for c in ("green", "blue", "cyan")) < 0.05
    assert still["area"] == pytest.approx(np.pi * 0.18**2, rel=0.05)
    assert still["spread_x"] == pytest.approx(0.18 * np.sqrt(np.pi) / np.sqrt(12), rel=0.05)  # of a square's side
    assert still["overlap_square"] > max(still["overlap_circle"], still["overlap_triangle"])
    assert still["step"] == still["jerk"] == 0
    moves = features(replace(STAYS, motion="moves", direction="right"))
    assert moves["x_3"] - moves["x_0"] == pytest.approx(0.3 * 7 / 8, abs=0.01)
    assert moves["y_3"] == pytest.approx(moves["y_0"], abs=0.005)
    grows = features(replace(STAYS, motion="grows"))
    assert grows["area_change"] == pytest.approx(np.pi * 0.18**2 * (1.2625**2 - 0.65**2), rel=0.1)


def test_features_have_about_unit_spread_and_are_finite():
    spread = shape_features(drawn(0, 100, 8, 36, 64)).std(dim=0)
    assert ((spread > 0.25) & (spread < 2.5)).float().mean() > 0.9
    odd = torch.stack([torch.zeros(3, 1, 24, 24), torch.full((3, 1, 24, 24), 255.0), 255 * torch.rand(3, 1, 24, 24)])
    assert shape_features(odd.to(torch.uint8)).isfinite().all()


def test_rows_do_not_depend_on_the_batch():
    videos = drawn(0, 8, 16, 36, 64)
    one, all_rows = (
        [ShapeFrechet().observe(video[None], [""]) for video in videos],
        ShapeFrechet().observe(videos, [""]),
    )
    assert torch.allclose(torch.cat(one), all_rows, atol=1e-4)


def test_the_distance_of_gaussians_that_are_apart_along_axes():
    """Closed form for diagonal covariances: sum of squared differences of means and of standard deviations."""
    generator = torch.Generator().manual_seed(0)
    size = len(FEATURES)
    shift, scale = torch.rand(size, generator=generator).double(), 0.5 + torch.rand(size, generator=generator).double()
    # Rows +-e_i sqrt(n) have covariance 1 to all.
    rows = torch.cat([torch.eye(size), -torch.eye(size)]).double() * (size - 0.5) ** 0.5
    metric = ShapeFrechet()
    metric.add(rows, real=True)
    metric.add(rows * scale + shift)
    expected = shift.square().sum() + (scale - 1).square().sum()
    assert float(metric.compute()["shape_fd"]) == pytest.approx(float(expected), rel=1e-6)


def test_real_against_real_is_near_nothing_and_falls_with_numbers(clips, real_rows):
    ours, real = clips
    few, more = distance(ours[:40], real_rows[:40]), distance(ours, real_rows)
    assert distance(real, real_rows) < 1e-3 < more < few
    assert more < 5


def test_noise_blur_and_shuffling_move_away(clips, real_rows):
    ours, _ = clips
    least = distance(ours, real_rows)
    noise = torch.randn(ours.shape, generator=torch.Generator().manual_seed(0))
    noisy = [distance((ours + level * noise).round().clamp(0, 255).to(torch.uint8), real_rows) for level in (6, 16, 40)]
    assert least < noisy[0] < noisy[1] < noisy[2]
    soft, blurred = ours.float(), []
    for _ in range(3):
        for dim in (3, 4):
            soft = (soft.roll(1, dim) + 2 * soft + soft.roll(-1, dim)) / 4
        blurred.append(distance(soft.round().to(torch.uint8), real_rows))
    assert least < blurred[0] < blurred[1] < blurred[2]
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.stack([video[:, torch.randperm(8, generator=generator)] for video in ours])
    assert distance(shuffled, real_rows) > 2 * least


def test_nothing_is_no_score_and_bad_videos_are_refused():
    metric = ShapeFrechet()
    metric.update(drawn(0, 4), [""] * 4)
    assert metric.compute()["shape_fd"].isnan()
    with pytest.raises(ValueError, match="uint8"):
        metric.update(torch.zeros(1, 3, 8, 24, 24), [""])
