"""The low-resolution video of an upsampler."""

from dataclasses import replace

import pytest
import torch

from snapvideo.components import Conditioners, FrameRate, LowResolution
from snapvideo.components.draws import Draws, KeyDraws
from snapvideo.components.interfaces import LowRes, VideoBatch


def batch(size: int = 4, height: int = 16, width: int = 24, num_frames: int = 2) -> VideoBatch:
    video = torch.rand(size, 3, num_frames, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    keys = [f"key {i}" for i in range(size)]
    return VideoBatch(["a"] * size, torch.full((size,), 8.0), torch.full((size, 2), 64.0), video=video, keys=keys)


def level_zero(size: int) -> Draws:
    draws = Draws(0, size)
    draws.uniform = lambda: torch.zeros(size)
    return draws


def test_clean_is_the_mean_of_what_a_pixel_covers():
    seen = LowResolution(8, 4, 6).see(batch(), level_zero(4)).low_res
    blocks = batch().video.reshape(4, 3, 2, 4, 4, 6, 4)
    torch.testing.assert_close(seen.video, blocks.mean(dim=(4, 6)))
    assert (seen.level == 0).all()


def test_noise_keeps_the_variance_and_has_its_level():
    clean, noise = torch.randn(2000, 1, 1, 8, 8), torch.randn(2000, 1, 1, 8, 8)
    for level in (0.0, 0.3, 0.8, 1.0):
        low_res = LowRes.corrupt(clean, torch.full((2000,), level), noise)
        assert low_res.video.std() == pytest.approx(1.0, abs=0.01)
        correlation = (low_res.video * clean).mean()
        assert correlation == pytest.approx((1 - level**2) ** 0.5, abs=0.01)


def test_levels_are_uniform_up_to_the_highest():
    levels = torch.cat(
        [LowResolution(8, 4, 6, max_level=0.6).see(batch(8), Draws(i, 8)).low_res.level for i in range(250)]
    )
    quantiles = torch.quantile(levels, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(quantiles, torch.tensor([0.0, 0.15, 0.3, 0.45, 0.6]), atol=0.02, rtol=0)


@pytest.mark.parametrize("draws", [Draws(5, 4), KeyDraws([f"key {i}" for i in range(4)])])
def test_its_noise_is_not_that_of_diffusion(draws):
    same = batch(height=4, width=6)
    conditioner = LowResolution(8, 4, 6)
    low_res = conditioner.see(replace(same, video=torch.zeros_like(same.video)), draws).low_res
    noise = low_res.video / low_res.level.view(-1, 1, 1, 1, 1)
    diffusion = draws.noise(same.video.shape[1:])
    assert torch.corrcoef(torch.stack([noise.flatten(), diffusion.flatten()]))[0, 1].abs() < 0.1


def test_draws_of_a_key_do_not_depend_on_the_batch():
    conditioner, whole = LowResolution(8, 4, 6), batch()
    together = conditioner.see(whole, KeyDraws(whole.keys)).low_res
    one = VideoBatch(["a"], whole.fps[:1], whole.resolution[:1], video=whole.video[2:3], keys=whole.keys[2:3])
    alone = conditioner.see(one, KeyDraws(one.keys)).low_res
    torch.testing.assert_close(alone.video[0], together.video[2])
    assert alone.level[0] == together.level[2]


def test_gives_a_token_and_the_video_beside_those_of_others():
    conditioner = Conditioners([FrameRate(8), LowResolution(8, 4, 6)])
    assert conditioner.video_channels == 3
    seen = conditioner.see(batch(), Draws(0, 4))
    for drop in (torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)):
        condition = conditioner(seen, drop)
        assert condition.tokens.shape == (4, 2, 8) and condition.mask.all()
        assert torch.equal(condition.video, seen.low_res.video)


def test_levels_have_tokens_of_their_own():
    conditioner, low = LowResolution(8, 4, 6), torch.zeros(3, 3, 2, 4, 6)
    prompt = replace(batch(3), low_res=LowRes(low, torch.tensor([0.0, 0.2, 0.2])))
    tokens = conditioner(prompt, torch.zeros(3, dtype=torch.bool)).tokens
    assert not torch.allclose(tokens[0], tokens[1]) and torch.equal(tokens[1], tokens[2])


def test_what_cannot_be_enlarged_is_refused():
    conditioner, drop = LowResolution(8, 4, 6), torch.zeros(4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"was given none.*BASE_RUN UPSAMPLER_RUN"):
        conditioner(batch(), drop)
    wrong = replace(batch(), low_res=LowRes(torch.zeros(4, 3, 2, 6, 4), torch.zeros(4)))
    with pytest.raises(ValueError, match=r"has \[6, 4\] pixels, LowResolution takes \[4, 6\]"):
        conditioner(wrong, drop)
    with pytest.raises(ValueError, match=r"height=4, width=6 must not exceed the videos' \[2, 24\]"):
        conditioner.see(batch(height=2), Draws(0, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"height": 0}, "height=0"), ({"max_level": 0.0}, "max_level=0.0"), ({"max_level": 1.5}, "max_level=1.5")],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LowResolution(**({"dim": 8, "height": 4, "width": 6} | settings))
