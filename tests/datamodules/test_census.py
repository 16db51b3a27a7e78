import json

import pytest

from snapvideo.components.interfaces import VideoShape
from snapvideo.datamodules import JointData
from snapvideo.datamodules.census import Looks, take_census
from snapvideo.datamodules.clips import Reader
from snapvideo.datamodules.samples import NothingUsable
from snapvideo.datamodules.sources import index_source

SHAPE = VideoShape(num_frames=4, height=8, width=8)
READER = Reader(SHAPE, fps=[10.0], manifest=None, seconds=60.0)


@pytest.fixture
def mixed(media):
    """Videos of which five can be used and four cannot, and where they are."""
    for i in range(4):
        media.video(f"{i}.mp4", size=(16, 16 + 8 * i), caption="x" * (10 + i))
    media.video("silent.mp4", caption=None)
    media.video("short.mp4", times=[0.0, 0.05])
    media.broken("empty.mp4")
    whole = (media.folder / "0.mp4").read_bytes()
    start, end = whole.index(b"mdat") + 4, whole.index(b"moov") - 4
    media.broken("cut.mp4", whole[:start] + bytes(end - start) + whole[end:])  # all headers, no pixels
    media.video("a/deep.mp4", size=(40, 16), caption="y")
    return media.folder


def census(folder, decode=True, **options):
    index = index_source(folder, "video")
    return take_census(Looks(index.samples, "video", READER, decode), index.skipped, **options)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_counts_and_reasons(mixed, num_workers):
    count = census(mixed, num_workers=num_workers)
    assert (count.files, count.samples, count.looked_at, count.usable) == (9, 8, 8, 5)
    assert count.unusable == {"corrupt": 2, "no caption": 1, "too short": 1}
    assert count.share_unusable == pytest.approx(4 / 9, abs=1e-4)
    assert "short.mp4: too short: " in count.examples["too short"]
    assert count.spread["height"]["least"] == 16 and count.spread["height"]["most"] == 40
    assert count.spread["seconds"]["median"] == pytest.approx(2.0, abs=0.06)
    assert count.spread["fps"]["median"] == pytest.approx(20.0, abs=0.6)
    assert count.spread["caption"] == {"least": 1, "10%": pytest.approx(4.6), "median": 11, "90%": 12.6, "most": 13}


def test_headers_alone_miss_what_only_decoding_finds(mixed):
    assert census(mixed, decode=False).unusable == {"no caption": 1, "too short": 1, "corrupt": 1}


def test_a_limit_estimates_the_share(mixed):
    count = census(mixed, limit=4)
    assert count.looked_at == 4 and count.files == 9
    bad = 4 - count.usable
    assert count.share_unusable == pytest.approx((1 + 8 * bad / 4) / 9, abs=1e-4)
    assert census(mixed, limit=4) == count


def test_too_little_that_can_be_used_is_an_error_with_the_reasons(mixed):
    count = census(mixed)
    count.judge("video", 0.5)
    with pytest.raises(
        NothingUsable, match=r"videos: 44% of 9 files .* \(2 corrupt, 1 .*, 1 .*\); for example .*corrupt"
    ):
        count.judge("video", 0.4)


def test_training_does_not_begin_on_too_little(media):
    media.video("good.mp4")
    for i in range(3):
        media.broken(f"{i}.mp4")
    arguments = {"shape": SHAPE, "videos": media.folder, "video_batch_size": 1, "fps": [10.0]}
    with pytest.raises(NothingUsable, match=r"75% of 4 files cannot be used \(3 corrupt\)"):
        JointData(**arguments).setup("fit")
    JointData(**arguments, most_unusable=0.8).setup("fit")


def test_names_make_the_hash(mixed, media):
    before = census(mixed)
    assert census(mixed).keys == before.keys
    media.image("b.png")
    assert census(mixed).keys == before.keys
    media.broken("more.mp4")
    assert census(mixed).keys != before.keys


def test_what_becomes_of_the_files(files):
    data = JointData(SHAPE, files / "videos", files / "images", 3, 2, fps=[10.0], holdout=2)
    data.setup("fit")
    described = json.loads(json.dumps(data.describe()))
    assert [described[name]["samples"] for name in ("video", "image")] == [8, 5]
    assert [described[name]["per_step"] for name in ("video", "image")] == [3, 2]
    [source] = described["video"]["sources"]
    assert source == {"path": str(files / "videos"), "samples": 6, "share": 1.0, "steps_per_pass": 2.0}
    turns = JointData(SHAPE, files / "videos", files / "images", 3, 2, fps=[10.0], image_steps=0.25)
    turns.setup("fit")
    assert turns.describe()["image"]["sources"][0]["steps_per_pass"] == 10.0
