from itertools import islice

import pytest
from torch.utils.data import DataLoader

from snapvideo.datamodules.order import (
    Draw,
    Mix,
    Origin,
    SharedOut,
    Stream,
    TrainOrder,
    clip_generator,
    validation_batches,
)

SAMPLES = {"video": 37, "image": 11}


def order(sizes, seed=0, samples=SAMPLES, **options) -> TrainOrder:
    streams = {modality: Stream(modality, seed, [number]) for modality, number in samples.items()}
    return TrainOrder(streams, sizes, **options)


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_each_pass_shows_each_sample_once(epoch):
    stream = Stream("video", 3, [37])
    shown = [stream.index(position) for position in range(37 * epoch, 37 * (epoch + 1))]
    assert sorted(shown) == list(range(37))
    assert shown != list(range(37))


def test_passes_modalities_and_seeds_differ():
    def shown(seed, modality, epoch):
        stream = Stream(modality, seed, [37])
        return tuple(stream.index(position) for position in range(37 * epoch, 37 * (epoch + 1)))

    keys = [(seed, modality, epoch) for seed in (0, 1) for modality in ("video", "image") for epoch in (0, 1)]
    assert len({shown(*key) for key in keys}) == len(keys)


def test_order_is_pinned():
    """A run resumed with another release must see the same order."""
    assert [Stream("video", 0, [10]).index(position) for position in range(10)] == [4, 9, 8, 7, 5, 3, 0, 1, 2, 6]
    assert clip_generator(0, Draw("video", 0, 5), 0).random() == pytest.approx(0.8016182361110885)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_what_one_rank_would_see(world):
    whole = order({"video": 8, "image": 4}, seed=5)
    sizes = {"video": 8 // world, "image": 4 // world}
    ranks = [order(sizes, seed=5, rank=rank, world=world) for rank in range(world)]
    for step in (0, 1, 10):
        shares = [rank.batch(step) for rank in ranks]
        for share in shares:
            assert [draw.modality for draw in share] == ["video"] * sizes["video"] + ["image"] * sizes["image"]
        together = [draw for share in shares for draw in share]
        assert set(together) == set(whole.batch(step)) and len(together) == 12


def test_positions_run_on_without_gap():
    draws = [draw for batch in islice(order({"video": 3}), 20) for draw in batch]
    assert [draw.position for draw in draws] == list(range(60))


def test_start_is_where_it_would_have_been():
    step = 0
    batches = order({"video": 3, "image": 2}, start=lambda: step)
    whole = list(islice(batches, 12))
    step = 7
    assert list(islice(batches, 5)) == whole[7:]


def taken(batches) -> list[int]:
    return [draw.position for batch in batches for draw in batch]


def test_other_numbers_of_ranks_go_on_where_the_run_was():
    """Two ranks, then one, then four, mid-epoch: within the passes nothing is seen twice and nothing is left out."""
    positions, step, origin, shown = [], 0, Origin(0, {"video": 0}), []
    for world, steps in ((2, 4), (1, 3), (4, 5)):
        ranks = [order({"video": 3}, rank=rank, world=world, origin=origin) for rank in range(world)]
        draws = [d for s in range(step, step + steps) for rank in ranks for d in rank.batch(s)]
        positions += [draw.position for draw in draws]
        shown += [draw.index for draw in draws]
        step += steps
        origin = Origin(step, {"video": ranks[0].position("video", step)})
    assert positions == list(range(3 * (4 * 2 + 3 * 1 + 5 * 4)))
    assert sorted(shown[:37]) == sorted(shown[37:74]) == list(range(37))


@pytest.mark.parametrize("share", [0.25, 1 / 3, 0.5])
def test_steps_take_turns(share):
    sizes = {"video": 2, "image": 4}
    ranks = [order(sizes, rank=rank, world=2, image_steps=share) for rank in range(2)]
    steps = [[rank.batch(step) for rank in ranks] for step in range(60)]
    kinds = [[{draw.modality for draw in batch} for batch in step] for step in steps]
    assert all(of_ranks[0] == of_ranks[1] and len(of_ranks[0]) == 1 for of_ranks in kinds)
    assert sum(of_ranks[0] == {"image"} for of_ranks in kinds) == round(60 * share)
    for modality in sizes:
        positions = taken([d for d in batch if d.modality == modality] for step in steps for batch in step)
        assert positions == list(range(len(positions)))


def test_weighted_sources_have_their_shares_and_whole_passes():
    stream = Stream("video", 0, [50, 200, 10], [6.0, 3.0, 1.0])
    indices = [stream.index(position) for position in range(2000)]
    by_source = [[i for i in indices if i in stream.alike(first)] for first in (0, 50, 250)]
    assert [len(source) for source in by_source] == [1200, 600, 200]
    for source, first, size in zip(by_source, (0, 50, 250), (50, 200, 10), strict=True):
        for start in range(0, len(source), size):
            assert sorted(source[start : start + size]) == list(range(first, first + size))
    again = Stream("video", 0, [50, 200, 10], [0.6, 0.3, 0.1])
    assert [again.index(position) for position in (1999, 0, 1234)] == [indices[p] for p in (1999, 0, 1234)]
    assert [Stream("video", 1, [50, 200, 10], [6, 3, 1]).index(p) for p in range(20)] != indices[:20]


def test_shares_that_are_no_whole_numbers_are_rounded():
    stream = Stream("video", 0, [1, 1, 1], [1, 1, 1])
    assert sorted(sum(stream.index(p) == source for p in range(1000)) for source in range(3)) == [333, 333, 334]


@pytest.mark.parametrize("weights", [[1.0, 1e-6], [1e-6, 0.3, 1e-6, 0.7], [1.0] * 400 + [1e-9] * 400])
def test_the_smallest_share_has_a_turn_in_each_block(weights):
    mix = Mix(weights, (0, 0, 0))
    assert sum(mix.shares) == 1000 and min(mix.shares) == 1
    turns = [mix.turn(position)[0] for position in range(3000)]
    for block in range(3):
        of_block = turns[1000 * block : 1000 * (block + 1)]
        assert [of_block.count(who) for who in range(len(weights))] == mix.shares


def test_turns_are_counted_and_the_first_are_set():
    mix = Mix([3, 1, 2], (7, 0, 0), first=[2, 0, 1])
    counts = [0, 0, 0]
    for position in range(2100):
        assert mix.before(position) == counts
        who, before = mix.turn(position)
        assert before == counts[who]
        counts[who] += 1
        assert position > 2 or who == [2, 0, 1][position]
    assert [mix.turn(position) for position in (2050, 3, 1500)] == [mix.turn(p) for p in (2050, 3, 1500)]
    assert Mix([5.0], (7, 0, 0)).turn(12345) == (0, 12345) and Mix([5.0], (7, 0, 0)).before(12345) == [12345]


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
    endless = DataLoader([], sampler=SharedOut(order({"video": 1})), batch_size=None)
    with pytest.raises(TypeError, match="no len"):
        len(endless)
    sized = DataLoader([], sampler=SharedOut(validation_batches({"video": 5}, {"video": 2})), batch_size=None)
    assert len(sized) == 3
