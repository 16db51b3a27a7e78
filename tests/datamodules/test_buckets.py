"""The rule that finds a sample's bucket, and the order of steps of several buckets."""

import dataclasses
import math
from itertools import islice

import numpy as np
import pytest

from snapvideo.components.interfaces import VideoShape
from snapvideo.datamodules.buckets import (
    Bucket,
    BucketOrder,
    check_buckets,
    fill,
    mix_buckets,
    nearest,
    plan_buckets,
    sort_samples,
)
from snapvideo.datamodules.order import Origin, TrainOrder
from snapvideo.datamodules.samples import Index, Sample, Unusable
from snapvideo.datamodules.streams import Memory

SHAPES = {
    0: VideoShape(8, 36, 64),
    1: VideoShape(4, 36, 64),
    2: VideoShape(4, 64, 36),
    3: VideoShape(8, 48, 48),
}
FPS = [10.0, 5.0]
TREE = Memory("nowhere", {})


def header(height, width, seconds=100.0, fps=25.0) -> dict[str, float]:
    return {"height": float(height), "width": float(width), "seconds": float(seconds), "fps": float(fps)}


@pytest.mark.parametrize(
    ("facts", "bucket"),
    [
        (header(1080, 1920), 0),
        (header(1080, 1920, seconds=0.5), 1),  # 4 frames at 10 per second need 0.3 s, 8 need 0.7 s
        (header(1080, 1920, seconds=0.7), 0),
        (header(1920, 1080), 2),
        (header(1920, 1080, seconds=0.5), 2),
        (header(500, 500), 3),
        (header(500, 500, seconds=0.5), 1),  # as far from 36:64 as from 64:36: the first
        (header(1080, 1920, seconds=1.0, fps=5.0), 1),  # 8 frames at 5 per second need 1.4 s
    ],
)
def test_nearest_among_those_whose_frames_it_has(facts, bucket):
    assert nearest(facts, "video", SHAPES, FPS) == bucket


def test_nearest_is_nearest():
    """Against a search that knows nothing of the code: no bucket that fits is nearer, or as near with more frames."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        facts = header(*rng.integers(10, 2000, 2), rng.uniform(0.6, 2), rng.uniform(5, 30))
        found = nearest(facts, "video", SHAPES, FPS)

        def off(number, facts=facts):
            shape = SHAPES[number]
            return abs(math.log2(shape.height * facts["width"] / (shape.width * facts["height"])))

        for number, shape in SHAPES.items():
            rates = [rate for rate in FPS if rate <= 1.01 * facts["fps"]]
            fits = any((shape.num_frames - 1) / rate <= facts["seconds"] for rate in rates)
            assert fits or found != number
            if fits:
                assert off(found) <= off(number) + 1e-5
                assert off(found) < off(number) - 1e-5 or SHAPES[found].num_frames >= shape.num_frames


def test_too_short_for_all_names_the_shortest():
    with pytest.raises(Unusable, match=r"too short: 0.20 s .*; 4 frames need 0.30 s at 10"):
        nearest(header(36, 64, seconds=0.2), "video", SHAPES, FPS)
    with pytest.raises(Unusable, match="frame rate too low"):
        nearest(header(36, 64, fps=3.0), "video", SHAPES, FPS)
    with pytest.raises(Unusable, match="corrupt: its size is 0x64"):
        nearest(header(0, 64), "video", SHAPES, FPS)


def test_an_image_has_any_number_of_frames():
    assert nearest({"height": 90.0, "width": 160.0}, "image", SHAPES, FPS) == 0
    assert nearest({"height": 160.0, "width": 90.0}, "image", SHAPES, FPS) == 2


def test_errors_of_buckets():
    with pytest.raises(ValueError, match=r"8x36x64 and 8x72x128 .* have the same aspect ratio and number of frames"):
        check_buckets([VideoShape(8, 36, 64), VideoShape(4, 36, 64), VideoShape(8, 72, 128)])
    with pytest.raises(ValueError, match="4x36x64 and 4x36x64"):
        check_buckets([SHAPES[0], SHAPES[1], SHAPES[1]])
    with pytest.raises(ValueError, match="buckets: 4x36x64 has 1 channels: it must have 3"):
        check_buckets([VideoShape(8, 36, 64), VideoShape(4, 36, 64, channels=1)])
    check_buckets(list(SHAPES.values()))


def sample(key) -> Sample:
    return Sample(TREE, key, "a caption")


def test_every_sample_is_in_one_bucket_or_named():
    rng = np.random.default_rng(1)
    headers = {
        sample(f"{i}.mp4"): header(*rng.integers(10, 2000, 2), rng.uniform(0.1, 2), rng.uniform(3, 30))
        for i in range(300)
    } | {sample(f"bad{i}.mp4"): "corrupt: no frame has a time" for i in range(5)}
    index, homes = sort_samples(Index(list(headers), [("silent.mp4", "no caption")]), headers, "video", SHAPES, FPS)
    assert set(index.samples) == set(homes) and 100 < len(homes) < 300
    assert len(index.samples) + len(index.skipped) == 306
    assert {place for place, _ in index.skipped} == {s.place for s in headers if s not in homes} | {"silent.mp4"}
    buckets = fill(SHAPES, {"video": [index.samples[:40], index.samples[40:]]}, {"video": [None, None]}, homes)
    shown = [s for bucket in buckets for source in bucket.samples["video"] for s in source]
    assert sorted(s.key for s in shown) == sorted(s.key for s in homes)


def test_what_a_list_names_twice_counts_twice():
    twice = [sample("a.mp4"), sample("b.mp4"), sample("a.mp4")]
    index, homes = sort_samples(Index(twice, []), {s: header(36, 64) for s in twice}, "video", SHAPES, FPS)
    assert index.samples == twice
    [bucket] = fill(SHAPES, {"video": [index.samples]}, {"video": [None]}, homes)
    assert bucket.size("video") == 3


def test_images_go_with_their_aspect_ratio_or_to_all():
    videos = {sample("a.mp4"): 0, sample("b.mp4"): 1, sample("c.mp4"): 2}
    images = {sample("x.png"): 0, sample("y.png"): 0}
    samples = {"video": [list(videos)], "image": [list(images)]}
    buckets = fill(SHAPES, samples, {"video": [None], "image": [None]}, videos | images)
    assert [bucket.number for bucket in buckets] == [0, 1, 2]  # nothing is nearest to 3
    wide = [list(images)]
    assert [bucket.samples["image"] for bucket in buckets] == [wide, wide, wide]  # 2: none, so all
    tall = {sample("z.png"): 2}
    samples["image"] = [[*images, *tall]]
    buckets = fill(SHAPES, samples, {"video": [None], "image": [None]}, videos | images | tall)
    assert [bucket.samples["image"] for bucket in buckets] == [wide, wide, [list(tall)]]


def test_weighted_sources_keep_their_shares_over_all_buckets():
    """The share of a source, and of each of its samples, is what it would be without buckets."""
    few, many = ([sample(f"{name}{i}.mp4") for i in range(number)] for name, number in (("f", 10), ("m", 100)))
    homes = {s: 0 if int(s.key[1:-4]) % 10 < 3 else 2 for s in few[:5] + many} | dict.fromkeys(few[5:], 1)
    buckets = fill(SHAPES, {"video": [few, many]}, {"video": [3.0, 1.0]}, homes)
    mix = mix_buckets(buckets, "video", seed=0)
    orders = [TrainOrder({"video": bucket.stream("video", 0)}, {"video": 4}) for bucket in buckets]
    shown = {s.key: 0 for s in homes}
    for draws in islice(BucketOrder(mix, buckets, orders), 10_000):
        bucket = next(bucket for bucket in buckets if bucket.number == draws[0].bucket)
        everything = [s for source in bucket.samples["video"] for s in source]
        for draw in draws:
            shown[everything[draw.index].key] += 1
    of_few, of_many = ([n for key, n in shown.items() if key[0] == name] for name in "fm")
    assert sum(of_few) / 40_000 == pytest.approx(0.75, abs=0.01)
    assert max(of_few) / min(of_few) < 1.05 and max(of_many) / min(of_many) < 1.2


SIZES = {0: (37, 11), 1: (3, 11), 2: (8, 5)}


def make_buckets() -> list[Bucket]:
    return [
        Bucket(
            number,
            SHAPES[number],
            {"video": [[sample(f"{number}-{i}.mp4") for i in range(videos)]], "image": [[sample("x.png")] * images]},
            {"video": None, "image": None},
        )
        for number, (videos, images) in SIZES.items()
    ]


def order(rank=0, world=1, sizes=None, resumed=(0, {}), **options) -> BucketOrder:
    """As the data module makes it; `resumed` is a step, and positions by the names of streams."""
    buckets = make_buckets()
    mix, orders = mix_buckets(buckets, "video", 0), []
    for bucket, turns in zip(buckets, mix.before(resumed[0]), strict=True):
        streams = {modality: bucket.stream(modality, 0) for modality in ("video", "image")}
        origin = Origin(turns, {m: resumed[1].get(bucket.name(m), 0) for m in streams})
        orders.append(TrainOrder(streams, sizes or {"video": 2, "image": 1}, rank, world, origin=origin, **options))
    return BucketOrder(mix, buckets, orders)


def test_buckets_have_their_shares_and_the_largest_comes_first():
    buckets = [{draw.bucket for draw in batch} for batch in islice(order(), 2000)]
    assert all(len(of_batch) == 1 for of_batch in buckets)
    turns = [of_batch.pop() for of_batch in buckets]
    assert turns[:3] == [0, 1, 2]
    total = sum(videos for videos, _ in SIZES.values())
    for number, (videos, _) in SIZES.items():
        for block in (turns[:1000], turns[1000:]):
            assert block.count(number) == pytest.approx(1000 * videos / total, abs=1)


@pytest.mark.parametrize("image_steps", [None, 0.3])
def test_ranks_agree_on_the_bucket_and_share_no_position(image_steps):
    ranks = [order(rank, 4, image_steps=image_steps) for rank in range(4)]
    taken = set()
    for step in range(300):
        batches = [rank.batch(step) for rank in ranks]
        kinds = {tuple((draw.modality, draw.bucket) for draw in batch) for batch in batches}
        assert len(kinds) == 1 and len({bucket for _, bucket in kinds.pop()}) == 1
        positions = [(draw.modality, draw.bucket, draw.position) for batch in batches for draw in batch]
        assert len(set(positions)) == len(positions) and not taken & set(positions)
        taken |= set(positions)
    streams = {key: sorted(p for *of, p in taken if tuple(of) == key) for key in {(m, b) for m, b, _ in taken}}
    assert all(positions == list(range(len(positions))) for positions in streams.values())


def test_each_pass_of_a_bucket_shows_each_sample_once():
    """Also where a bucket is smaller than a batch, 3 samples in batches of 8: no batch is short."""
    shown = {number: [] for number in SIZES}
    for batch in islice(order(sizes={"video": 8, "image": 1}), 600):
        assert len(batch) == 9
        for draw in batch:
            if draw.modality == "video":
                shown[draw.bucket].append(draw.index)
    for number, (videos, _) in SIZES.items():
        assert len(shown[number]) >= 3 * videos
        for start in range(0, len(shown[number]) - videos + 1, videos):
            assert sorted(shown[number][start : start + videos]) == list(range(videos))


def test_start_is_where_it_would_have_been():
    whole = list(islice(order(), 1200))
    later = dataclasses.replace(order(), start=lambda: 990)
    assert list(islice(later, 210)) == whole[990:]


def test_other_numbers_of_ranks_go_on_in_each_bucket():
    """Two ranks, then one, then four: in each bucket nothing is seen twice within a pass, and nothing is left out."""
    step, resumed, shown = 0, (0, {}), {number: [] for number in SIZES}
    for world, steps in ((2, 41), (1, 30), (4, 50)):
        ranks = [order(rank, world, resumed=resumed) for rank in range(world)]
        for s in range(step, step + steps):
            for draw in (draw for rank in ranks for draw in rank.batch(s) if draw.modality == "video"):
                shown[draw.bucket].append((draw.position, draw.index))
        step += steps
        resumed = step, ranks[0].positions(step)
    for number, (videos, _) in SIZES.items():
        positions, indices = zip(*shown[number], strict=True)
        assert positions == tuple(range(len(positions)))
        for start in range(0, len(indices) - videos + 1, videos):
            assert sorted(indices[start : start + videos]) == list(range(videos))


def test_buckets_draw_other_orders():
    streams = [
        Bucket(n, SHAPES[0], {"video": [[sample("a")] * 50]}, {"video": None}).stream("video", 0) for n in (0, 1)
    ]
    one, other = ([stream.index(p) for p in range(50)] for stream in streams)
    assert one != other and sorted(one) == sorted(other)


def test_plan_of_counts():
    """6 of 8 videos are wide: 3 of 4 steps, and the wide images alone go there; a bucket of nothing has no steps."""
    counts = {"video": {0: 6, 2: 2}, "image": {0: 30}}
    plan = plan_buckets(SHAPES, counts, {"video": 2.0, "image": 1.0})
    assert plan["video"]["8x36x64"] == {"samples": 6, "share_of_steps": 0.75, "steps_per_pass": 4.0}
    assert plan["video"]["4x64x36"] == {"samples": 2, "share_of_steps": 0.25, "steps_per_pass": 4.0}
    assert plan["image"]["4x64x36"] == {"samples": 30, "share_of_steps": 0.25, "steps_per_pass": 120.0}
    assert plan["video"]["8x48x48"] == {"samples": 0, "share_of_steps": 0.0, "steps_per_pass": 0.0}
