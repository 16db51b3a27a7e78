"""Ranks that begin with the same are stopped; those that rightly do are not."""

import itertools

import pytest

from snapvideo.components.interfaces import VideoShape
from snapvideo.datamodules import JointData
from snapvideo.recipes.distinct import FirstBatch, chance, complaint, sizes_of

from ..datamodules.conftest import Media

NUMBERS = itertools.count()


def first(*keys: str, images: int = 0, noise: list[str] | None = None) -> FirstBatch:
    noise = noise or [f"noise {next(NUMBERS)}" for _ in keys]
    return FirstBatch(keys, {"video": len(keys) - images, "image": images}, noise)


def test_different_ranks_pass():
    assert complaint([first(*"abcdefgh"), first(*"ijklmnop")], 1000) is None
    assert complaint([first(*"abcdefgh"), first(*"hgfedcba")], {"video": 8, "image": 0}) is None


@pytest.mark.parametrize("sizes", [1000, {"video": 1000, "image": 10}, None])
def test_the_same_samples_are_named(sizes):
    batches = [first(*"abcdefgh", images=1), first(*"ijklmnop", images=1), first(*"abcdefgh", images=1)]
    assert "ranks 0 and 2 begin with the same samples (a, b, c, ...)" in complaint(batches, sizes)


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [
        (["a"], 1),  # to learn one clip by heart
        (["a"], 1000),
        (["a", "a", "a", "a", "a", "a", "a", "a"], {"video": 1}),
        (["a", "b", "a", "b", "b", "a", "a", "b"], {"video": 2}),
    ],
)
def test_what_may_be_chance_is_let_pass(batch, sizes):
    assert complaint([first(*batch), first(*batch)], sizes) is None


def test_chance_is_the_share_of_equal_lists():
    """Of 4 samples, 3 in a list: lists of a pass; and 3 of 2, which begin a second pass."""
    lists = list(itertools.permutations(range(4), 3))
    assert chance({"video": 3, "image": 0}, {"video": 4}) == pytest.approx(1 / len(lists))
    lists = list(itertools.product(itertools.permutations(range(2)), range(2)))
    assert chance({"video": 2, "image": 1}, 2) == pytest.approx(1 / len(lists))


def test_shared_noise_is_named_also_of_one_sample():
    batches = [first("a", "b"), first("c", "d", noise=["x", "y"]), first("e", "f", noise=["y", "z"])]
    assert "ranks 1 and 2 begin with the same noise" in complaint(batches, 1000)


def test_batches_of_other_sizes_are_named():
    problem = complaint([first(*"ab"), first(*"cd", images=1)], 1000)
    assert "rank 1 begins with 1 videos and 1 images, rank 0 with 2 videos and 0 images" in problem


def test_samples_are_counted_in_the_bucket_of_the_batch(tmp_path):
    """Two ranks that begin with the only video of a bucket are right, however many there are in others."""
    media = Media(tmp_path)
    for i in range(9):
        media.video(f"{i}.mp4", times=[0.0, 0.05, 0.1], size=(16, 16) if i else (48, 16))
    small, tall = VideoShape(2, 8, 8), VideoShape(2, 24, 8)
    data = JointData(small, tmp_path, video_batch_size=1, fps=[10.0], buckets=[tall])
    data.setup("fit")
    dataset = data.train_dataloader().dataset
    assert sizes_of(dataset, small) == {"video": 8} and sizes_of(dataset, tall) == {"video": 1}
    batches = [FirstBatch(["0.mp4"], {"video": 1}, [noise]) for noise in "ab"]
    assert complaint(batches, sizes_of(dataset, tall)) is None
    assert sizes_of(range(5), small) == 5 and sizes_of(iter([]), small) is None
