"""What training draws does not depend on how the samples are shared out over ranks."""

import math

import pytest
import torch
from torch.testing import assert_close

from snapvideo.components.draws import Draws, KeyDraws, seed_of

SHAPE = (3, 2, 4, 4)


def ranks(seed: int, num_videos: int, num_images: int, world: int) -> list[Draws]:
    """The draws of all ranks, of the same whole batch for every `world`."""
    return [Draws(seed, num_videos // world, num_images // world, rank, world) for rank in range(world)]


def gather(parts: list[torch.Tensor], num_videos: int) -> torch.Tensor:
    """Values of all ranks in the order of one process: all videos, then all images."""
    size = num_videos // len(parts)
    return torch.cat([part[:size] for part in parts] + [part[size:] for part in parts])


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize(("num_videos", "num_images"), [(8, 4), (8, 0), (0, 8)])
def test_ranks_draw_together_what_one_process_draws(world, num_videos, num_images):
    (one,), parts = ranks(7, num_videos, num_images, 1), ranks(7, num_videos, num_images, world)
    for draw in (
        Draws.uniform,
        Draws.stratified,
        lambda draws: draws.choose(0.7)[0],
        lambda draws: draws.noise(SHAPE),
        Draws.uniform,
    ):
        assert torch.equal(gather([draw(part) for part in parts], num_videos), draw(one))


def test_other_seeds_draw_others_and_no_two_samples_share_noise():
    noise = torch.cat([draws.noise(SHAPE) for seed in (0, 10**19) for draws in ranks(seed, 8, 4, 2)])
    assert len(noise.flatten(1).unique(dim=0)) == len(noise)
    assert not torch.equal(Draws(0, 4).uniform(), Draws(1, 4).uniform())


def test_streams_are_apart_and_the_same_on_any_number_of_ranks():
    (one,), parts = ranks(7, 8, 4, 1), ranks(7, 8, 4, 4)
    assert torch.equal(gather([part.noise(SHAPE, 1) for part in parts], 8), one.noise(SHAPE, 1))
    noise = torch.cat([one.noise(SHAPE, stream) for stream in range(3)])
    assert len(noise.flatten(1).unique(dim=0)) == 36


def test_every_place_has_a_seed_of_its_own():
    places = [(), (7,), (7, 0), (7, 1), (7, 1, 0), (7, 0, 1), (0, 7, 1), (-1,), (2**32,), (0, 1)]
    assert len({seed_of(*place) for place in places}) == len(places)
    assert seed_of(7, 1) == seed_of(7, 1) and 0 <= seed_of(7, 1) < 2**64


def test_draws_of_keys_are_those_of_each_key():
    keys = [f"videos/{i}.mp4" for i in range(500)]
    draws = KeyDraws(keys)
    assert torch.equal(KeyDraws(keys[3:5]).uniform(), draws.uniform()[3:5])
    assert torch.equal(KeyDraws(keys[3:5]).noise(SHAPE, 1), draws.noise(SHAPE, 1)[3:5])
    noise = torch.cat([draws.noise(SHAPE), draws.noise(SHAPE, 1)]).flatten(1)
    assert len(noise.unique(dim=0)) == 1000
    assert_close(noise.var(), torch.tensor(1.0), rtol=0, atol=0.02)
    quartiles = torch.tensor([0.25, 0.5, 0.75])
    assert_close(draws.uniform().quantile(quartiles), quartiles, rtol=0, atol=0.08)


def test_noise_is_standard_normal():
    noise = Draws(2**64 - 1, 30, 30).noise((3, 4, 16, 16)).flatten(1)  # 60 x 3072 numbers; 4 standard errors
    assert_close(noise.mean(), torch.tensor(0.0), rtol=0, atol=0.01)
    assert_close(noise.var(), torch.tensor(1.0), rtol=0, atol=0.013)
    assert (torch.corrcoef(noise) - torch.eye(60)).abs().max() < 5 / math.sqrt(3072)


def test_stratified_numbers_cover_the_range_and_each_is_uniform():
    for seed in range(5):
        together = torch.cat([draws.stratified() for draws in ranks(seed, 6, 4, 2)])
        assert (together * 10).long().sort().values.tolist() == list(range(10))
    third = torch.stack([Draws(seed, 4, 1).stratified()[2] for seed in range(1000)])
    assert_close(third.quantile(torch.tensor([0.25, 0.5, 0.75])), torch.tensor([0.25, 0.5, 0.75]), rtol=0, atol=0.06)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.7, 0.9, 1.0])
def test_ranks_choose_as_many_but_for_rounding_and_their_rows_are_as_many(share):
    chosen = []
    for seed in range(300):
        parts = [draws.choose(share) for draws in ranks(seed, 12, 8, 2)]
        for own, rows in parts:
            assert set(own.nonzero().flatten().tolist()) <= set(rows.tolist())
            assert len(rows) == len(rows.unique()) == min(10, math.ceil(6 * share) + math.ceil(4 * share))
            assert math.floor(6 * share) <= own[:6].sum() <= math.ceil(6 * share)
        chosen.append(gather([own for own, _ in parts], 12))
        assert math.floor(20 * share) <= chosen[-1].sum() <= math.ceil(20 * share)
    often = torch.stack(chosen).float().mean(0)
    assert_close(often, torch.full((20,), share), rtol=0, atol=0.12)  # 4 standard errors of 300 draws
