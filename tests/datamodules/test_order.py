from itertools import islice

import pytest
from torch.utils.data import DataLoader

from snapvideo.datamodules.order import Draw, SharedOut, TrainOrder, clip_generator, index_at, validation_batches

SAMPLES = {"video": 37, "image": 11}


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_each_pass_shows_each_sample_once(epoch):
    shown = [index_at(3, "video", 37, position) for position in range(37 * epoch, 37 * (epoch + 1))]
    assert sorted(shown) == list(range(37))
    assert shown != list(range(37))


def test_passes_modalities_and_seeds_differ():
    def order(seed, modality, epoch):
        return tuple(index_at(seed, modality, 37, position) for position in range(37 * epoch, 37 * (epoch + 1)))

    keys = [(seed, modality, epoch) for seed in (0, 1) for modality in ("video", "image") for epoch in (0, 1)]
    assert len({order(*key) for key in keys}) == len(keys)


def test_order_is_pinned():
    """A run resumed with another release must see the same order."""
    assert [index_at(0, "video", 10, position) for position in range(10)] == [4, 9, 8, 7, 5, 3, 0, 1, 2, 6]
    assert clip_generator(0, Draw("video", 0, 5), 0).random() == pytest.approx(0.8016182361110885)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_what_one_rank_would_see(world):
    whole = TrainOrder(SAMPLES, {"video": 8, "image": 4}, seed=5)
    sizes = {"video": 8 // world, "image": 4 // world}
    ranks = [TrainOrder(SAMPLES, sizes, seed=5, rank=rank, world=world) for rank in range(world)]
    for step in (0, 1, 10):
        shares = [rank.batch(step) for rank in ranks]
        for share in shares:
            assert [draw.modality for draw in share] == ["video"] * sizes["video"] + ["image"] * sizes["image"]
        together = [draw for share in shares for draw in share]
        assert set(together) == set(whole.batch(step)) and len(together) == 12


def test_positions_run_on_without_gap():
    order = TrainOrder(SAMPLES, {"video": 3}, seed=0)
    draws = [draw for batch in islice(order, 20) for draw in batch]
    assert [draw.position for draw in draws] == list(range(60))


def test_start_is_where_it_would_have_been():
    step = 0
    order = TrainOrder(SAMPLES, {"video": 3, "image": 2}, seed=0, start=lambda: step)
    whole = list(islice(order, 12))
    step = 7
    assert list(islice(order, 5)) == whole[7:]


def test_draws_within_a_place_are_its_own():
    draws = [Draw("video", 0, 0), Draw("video", 0, 1), Draw("image", 0, 0)]
    values = [clip_generator(seed, draw, attempt).random() for seed in (0, 1) for draw in draws for attempt in (0, 1)]
    assert len(set(values)) == len(values)
    assert clip_generator(0, Draw("video", 3, 1), 0).random() == clip_generator(0, draws[1], 0).random()


def test_validation_shows_each_sample_once_in_order():
    batches = validation_batches({"video": 5, "image": 3}, {"video": 2, "image": 2})
    flat = [draw for batch in batches for draw in batch]
    assert [draw.index for draw in flat if draw.modality == "video"] == [0, 1, 2, 3, 4]
    assert [draw.index for draw in flat if draw.modality == "image"] == [0, 1, 2]
    assert [len(batch) for batch in batches] == [4, 3, 1]


@pytest.mark.parametrize("number", [1, 4, 5, 7])
def test_validation_ranks_are_even_and_cover_everything(number):
    ranks = [validation_batches({"video": number}, {"video": 2}, rank, world=3) for rank in range(3)]
    assert len({tuple(len(batch) for batch in rank) for rank in ranks}) == 1
    shown = [draw.index for rank in ranks for batch in rank for draw in batch]
    assert set(shown) == set(range(number)) and len(shown) < number + 3
    assert all(draw.position == draw.index for rank in ranks for batch in rank for draw in batch)


def test_endless_order_makes_a_loader_without_length():
    endless = DataLoader([], sampler=SharedOut(TrainOrder(SAMPLES, {"video": 1}, seed=0)), batch_size=None)
    with pytest.raises(TypeError, match="no len"):
        len(endless)
    sized = DataLoader([], sampler=SharedOut(validation_batches({"video": 5}, {"video": 2})), batch_size=None)
    assert len(sized) == 3
