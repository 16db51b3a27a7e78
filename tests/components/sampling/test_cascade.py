"""Cascades of small models."""

import pytest
import torch

from snapvideo.components import (
    EDM,
    Cascade,
    ClassifierFree,
    Conditioners,
    Euler,
    FrameRate,
    GivenFrames,
    LongVideo,
    LowResolution,
    UNet,
    VideoDiffusion,
)
from snapvideo.components.interfaces import Prompt, VideoShape

SMALL, MIDDLE, LARGE = VideoShape(4, 4, 6), VideoShape(4, 8, 12), VideoShape(4, 16, 24)
CLIP = LongVideo(duration=0.5, rates=[8.0])


def model(shape: VideoShape, low: VideoShape | None = None, max_level: float = 1.0) -> VideoDiffusion:
    """A small model with random weights, also where they would start at zero."""
    torch.manual_seed(0)
    parts = [FrameRate(16)] + ([LowResolution(16, low.height, low.width, max_level)] if low else [])
    backbone = UNet(
        shape, 8, (1, 2), 1, [1], head_dim=8, dim_condition=16, dropout=0.0, condition_channels=3 if low else 0
    )
    for weight in backbone.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    optimizer = scheduler = lambda *_: None  # nothing is trained
    return VideoDiffusion(
        backbone, EDM(), Conditioners(parts), Euler(3), ClassifierFree(1.0), optimizer, scheduler
    ).eval()


@pytest.fixture(scope="module")
def stages():
    return model(SMALL), model(MIDDLE, SMALL), model(LARGE, MIDDLE)


def prompt(number: int, fps: float = 8.0) -> Prompt:
    return Prompt(["a"] * number, torch.full((number,), fps), torch.full((number, 2), 24.0))


def test_one_stage_is_the_model(stages):
    (video,) = Cascade(stages[:1]).sample(prompt(2), [3, 4], CLIP)
    assert torch.equal(video, stages[0].sample(prompt(2), [3, 4]))


def test_each_stage_enlarges_the_one_before(stages, monkeypatch):
    """At level 0 it is given the very video; at a level, that video and noise of that level."""
    seen, own = [], VideoDiffusion.sample

    def sample(self, prompt, *rest, **named):
        seen.append(prompt.low_res)
        return own(self, prompt, *rest, **named)

    monkeypatch.setattr(VideoDiffusion, "sample", sample)
    videos = Cascade(stages, [0.0, 0.6]).sample(prompt(2), [0, 1], CLIP)
    assert [tuple(video.shape[2:]) for video in videos] == [tuple(stage.shape)[1:] for stage in stages]
    assert seen[0] is None and torch.equal(seen[1].video, videos[0])
    noise = (seen[2].video - 0.8 * videos[1]) / 0.6
    assert noise.mean().abs() < 0.1 and noise.std() == pytest.approx(1.0, abs=0.1)
    assert seen[1].level.tolist() == [0.0, 0.0] and seen[2].level.tolist() == pytest.approx([0.6, 0.6])


def test_a_video_depends_on_its_seed_alone(stages):
    cascade = Cascade(stages[:2], [0.3])
    together = cascade.sample(prompt(3), [5, 6, 7], CLIP)
    alone = cascade.sample(prompt(1), [6], CLIP)
    for one, all_ in zip(alone, together, strict=True):
        torch.testing.assert_close(one[0], all_[1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together[1][0], together[1][1], atol=0.1)


def test_long_videos_are_enlarged_window_by_window(stages):
    evaluations = []
    cascade, plan = Cascade(stages[:2], [0.1]), LongVideo(duration=1.25, rates=[4.0, 8.0])
    first, second = cascade.sample(prompt(1), [0], plan, on_evaluation=lambda: evaluations.append(0))
    assert first.shape == (1, 3, 10, 4, 6) and second.shape == (1, 3, 10, 8, 12)
    assert len(evaluations) == 3 * sum(cascade.num_windows(plan))
    assert cascade.num_windows(plan)[1] == 3  # of 4 frames, one of them shared


def test_given_frames_come_out_in_each_stage(stages):
    cascade = Cascade(stages[:2], [0.1])
    given = [GivenFrames(torch.rand(1, 3, 1, *tuple(stage.shape)[2:]), [0]) for stage in stages[:2]]
    for video, frame in zip(cascade.sample(prompt(1), [0], CLIP, given), given, strict=True):
        torch.testing.assert_close(video[:, :, :1], frame.frames, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda a, b, c: Cascade([a, b]), "2 stages take 1 noise levels, .* given: 0"),
        (lambda a, b, c: Cascade([b]), "stage 1 enlarges videos"),
        (lambda a, b, c: Cascade([a, a], [0.1]), "stage 2: it makes videos of texts alone"),
        (lambda a, b, c: Cascade([a, b, b], [0.1, 0.1]), "stage 3: it enlarges videos of 4x6 pixels, not of 8x12"),
        (lambda a, b, c: Cascade([a, b], [1.5]), "stage 2: noise of level 1.5 is not what it was trained on, 0 to 1"),
        (lambda a, b, c: Cascade([a, model(MIDDLE, SMALL, 0.5)], [0.6]), "stage 2: .* 0 to 0.5"),
        (
            lambda a, b, c: Cascade([a, model(VideoShape(2, 8, 12), SMALL)], [0.1]),
            "stage 2 makes 2 frames, and the one before 4",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message, stages):
    with pytest.raises(ValueError, match=message):
        make(*stages)
