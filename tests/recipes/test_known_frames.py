"""Known frames with the shipped model, on clips whose truth is drawn."""

import numpy as np
import pytest
import torch

from snapvideo.components import GivenFrames, LongVideo, Reconstruction
from snapvideo.components.interfaces import Prompt
from snapvideo.components.media import to_uint8
from snapvideo.datamodules.shapes import Scene, caption, draw_scene, render
from snapvideo.recipes.run import load_model


@pytest.fixture(scope="module")
def model():
    return load_model("demo", num_steps=4, device="cpu")


def moving(count: int) -> list[Scene]:
    drawn = (draw_scene(np.random.default_rng([3, i])) for i in range(100))
    return [scene for scene in drawn if len(scene.things) == 1 and scene.things[0].motion == "moves"][:count]


def labels(scenes: list[Scene]) -> Prompt:
    count = len(scenes)
    return Prompt([caption(scene) for scene in scenes], torch.full((count,), 8.0), torch.full((count, 2), 24.0))


def clips(scenes: list[Scene]) -> torch.Tensor:
    """As drawn ``[B, C, T, H, W]`` in [-1, 1]."""
    video = torch.stack([torch.from_numpy(render(scene, 8, 24)) for scene in scenes])
    return video.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def test_a_first_frame_is_kept_and_says_where_things_are(model):
    scenes = moving(3)
    truth, first = clips(scenes), torch.arange(8) == 0
    blind = model.sample(labels(scenes), range(3), steer=Reconstruction(truth, first, scale=0.0))
    steered = model.sample(labels(scenes), range(3), steer=Reconstruction(truth, first))
    assert torch.equal(to_uint8(steered[:, :, 0]), to_uint8(truth[:, :, 0]))
    errors = [(video - truth)[:, :, 1:].square().mean() for video in (blind, steered)]
    assert errors[1] < errors[0] / 2


def test_a_video_between_two_images(model):
    scenes = moving(1)
    ends = clips(scenes)[:, :, [0, -1]]
    given = GivenFrames(ends, [0, -1])
    video = LongVideo(12 / 8, (8.0,), overlap=2).sample(model, labels(scenes), [0], given)
    assert video.shape == (1, 3, 12, 24, 24)
    assert torch.equal(to_uint8(video[:, :, [0, -1]]), to_uint8(ends))
    assert video.abs().max() <= 1 and not video.requires_grad
