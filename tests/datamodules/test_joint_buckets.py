"""Batches of several sizes from real files: wide, tall, short, turned, and with pixels that are not square."""

import logging
import os
import shutil
from collections import Counter
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from snapvideo.components.interfaces import VideoShape
from snapvideo.datamodules import JointData, Source, headers
from snapvideo.datamodules.clips import Reader
from snapvideo.datamodules.headers import read_header, read_headers
from snapvideo.datamodules.order import Stream, TrainOrder
from snapvideo.datamodules.pack import make_plan, write_shards
from snapvideo.datamodules.samples import NothingUsable
from snapvideo.datamodules.sources import index_source

from .test_joint import batches, fingerprint, fit, packed

WIDE, TALL, SHORT = VideoShape(4, 8, 16), VideoShape(4, 16, 8), VideoShape(2, 8, 16)
BRIEF = tuple(np.arange(5) / 20)  # 0.25 s: 2 frames at 10 per second, not 4

HOMES = {
    **{f"wide{i}.mp4": WIDE for i in range(5)},
    **{f"brief{i}.mp4": SHORT for i in range(2)},
    "tall.mp4": TALL,
    "turned.mp4": TALL,  # stored wide, shown tall
    "squeezed.mp4": WIDE,  # stored square, with pixels twice as wide as high
    "tall_brief.mp4": SHORT,  # too short for the tall bucket
}


@pytest.fixture(autouse=True)
def no_seed(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Videos by the names in `HOMES`, and images: three wide, one tall by its EXIF flag."""
    from .conftest import Media

    media = Media(tmp_path_factory.mktemp("mixed"))
    for i in range(5):
        media.video(f"videos/wide{i}.mp4", size=(16, 32 + 2 * i), caption=f"wide {i}")
    for i in range(2):
        media.video(f"videos/brief{i}.mp4", BRIEF, size=(16, 32), caption=f"brief {i}")
    media.video("videos/tall.mp4", size=(32, 16), caption="tall")
    media.video("videos/turned.mp4", size=(16, 32), rotation=90, caption="turned")
    media.video("videos/squeezed.mp4", size=(16, 16), aspect=Fraction(2), caption="squeezed")
    media.video("videos/tall_brief.mp4", BRIEF, size=(32, 16), caption="tall and brief")
    for i in range(3):
        media.image(f"images/wide{i}.png", size=(20, 40 + i), level=10 * i)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(media.path("images/tall.jpg", "red"), exif=exif)
    return media.folder


@pytest.fixture
def root(mixed, media):
    shutil.copytree(mixed, media.folder, dirs_exist_ok=True)
    return media.folder


def data(root, **arguments) -> JointData:
    settings = {
        "shape": WIDE,
        "videos": root / "videos",
        "images": root / "images",
        "video_batch_size": 2,
        "image_batch_size": 1,
        "fps": [10.0],
        "buckets": [TALL, SHORT],
    }
    return JointData(**settings | arguments)


def ready(datamodule) -> JointData:
    datamodule.setup("fit")
    return datamodule


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_batch_has_one_size_and_files_that_belong_there(root, num_workers):
    seen = {}
    for batch in batches(data(root, num_workers=num_workers), 60):
        shape = batch.shape
        for key, image in zip(batch.keys, batch.is_image.tolist(), strict=True):
            if image:
                assert (key == "tall.jpg") == (shape == TALL)
            else:
                assert HOMES[key] == shape
                seen[key] = shape
        assert batch.is_image.tolist() == [False, False, True]
    assert seen == HOMES


def test_the_first_steps_show_each_bucket_and_the_largest_first(root):
    tall = VideoShape(4, 17, 8)
    shapes = [batch.shape for batch in batches(data(root, buckets=[tall, SHORT]), 3)]
    assert shapes == [tall, WIDE, SHORT]


def test_the_largest_batch_is_of_the_largest_bucket_that_has_steps(root):
    tall, unused = VideoShape(4, 17, 8), VideoShape(4, 8, 800)
    datamodule = ready(data(root, buckets=[tall, SHORT, unused], holdout=1))
    largest = datamodule.on_after_batch_transfer(datamodule.largest_batch(), 0)
    assert largest.shape == tall and len(largest) == 3
    validated = [datamodule.on_after_batch_transfer(parts, 0).shape for parts in datamodule.val_dataloader()]
    made = datamodule.on_after_batch_transfer(datamodule.largest_batch(training=False), 0).shape
    assert made == max(validated, key=lambda shape: shape.num_frames * shape.height * shape.width)


def test_images_alone_have_the_frames_of_their_bucket(root):
    for batch in batches(data(root, image_steps=0.5), 24):
        assert batch.is_image.all() or not batch.is_image.any()
        assert batch.shape in (WIDE, TALL, SHORT)
        assert batch.is_image.all() or {HOMES[key] for key in batch.keys} == {batch.shape}
    alone = data(root, videos=None, video_batch_size=0)
    shapes = {batch.shape: batch for batch in batches(alone, 8)}
    assert set(shapes) == {WIDE, TALL}  # those that an image is nearest to, with the most frames
    assert shapes[TALL].keys == ["tall.jpg"] and (shapes[TALL].video[:, :, 0] == shapes[TALL].video[:, :, 3]).all()


def test_without_buckets_the_order_is_that_of_one_stream_for_each_modality(root):
    datamodule = ready(data(root, buckets=[]))
    plain = TrainOrder({"video": Stream("video", 0, [11]), "image": Stream("image", 0, [4])}, {"video": 2, "image": 1})
    order = datamodule.train_dataloader().sampler
    assert list(islice(order, 1100)) == list(islice(plain, 1100))
    assert datamodule.state_dict()["positions"] == {"video": 0, "image": 0}
    assert not (root / "videos/.headers.json").exists()


def test_workers_resume_and_pass_by_bucket(root, tmp_path):
    def fresh(**arguments):
        return data(root, holdout=1, **arguments)

    whole = fit(tmp_path / "whole", fresh(), 12)
    start = fit(tmp_path / "parts", fresh(num_workers=1), 5)
    rest = fit(tmp_path / "parts", fresh(), 12, ckpt_path=tmp_path / "parts/last.ckpt")
    assert start.seen + rest.seen == whole.seen and len(set(whole.seen)) == 12
    assert start.validated + rest.validated == whole.validated


def test_other_batch_sizes_go_on_in_each_bucket(root, tmp_path):
    """What changes with the number of ranks changes with the size of a batch, too; 4 batches may make a step."""
    loader = {"images": None, "image_batch_size": 0}
    options = {"val_check_interval": None, "accumulate_grad_batches": 2}
    parts = [fit(tmp_path, data(root, **loader), 9, **options)]
    last = tmp_path / "last.ckpt"
    parts.append(fit(tmp_path, data(root, **loader, video_batch_size=1), 14, last, **options))
    options["accumulate_grad_batches"] = 1
    parts.append(fit(tmp_path, data(root, **loader, video_batch_size=4), 60, last, **options))
    names = {name: [] for name in HOMES.values()}
    for part, size in zip(parts, (2, 1, 4), strict=True):
        for seen in part.seen:
            for key in seen[:size]:
                names[HOMES[key]].append(key)
    for shape, keys in names.items():
        everything = sorted(key for key, home in HOMES.items() if home == shape)
        assert len(keys) >= 2 * len(everything)
        for start in range(0, len(keys) - len(everything) + 1, len(everything)):
            assert sorted(keys[start : start + len(everything)]) == everything


def test_validation_shows_each_held_sample_once_at_its_size(root):
    datamodule = ready(data(root, holdout=3))
    loader = datamodule.val_dataloader()
    shown = [datamodule.on_after_batch_transfer(parts, 0) for parts in loader]
    keys = Counter(key for batch in shown for key in batch.keys)
    assert len(loader) == len(shown) and len(keys) == 6 and set(keys.values()) == {1}
    for batch in shown:
        assert all(HOMES[key] == batch.shape for key in batch.keys if key in HOMES)
    trained = {key for batch in batches(datamodule, 40) for key in batch.keys}
    assert not trained & set(keys) and len(trained | set(keys)) == len(HOMES) + 4


def test_folders_and_tars_give_the_same_batches(root, tmp_path):
    expected = [fingerprint(batch) for batch in batches(data(root, holdout=1), 10)]
    tars = {name: packed(root / name, tmp_path / f"{name}.tar") for name in ("videos", "images")}
    assert [fingerprint(batch) for batch in batches(data(root, holdout=1, **tars), 10)] == expected


def test_weighted_sources_share_the_buckets(root, media):
    media.video("more/a.mp4", size=(16, 32), caption="more")
    videos = [Source(root / "videos", 1.0), Source(root / "more", 3.0)]
    datamodule = ready(data(root, videos=videos))
    keys = [key for batch in batches(datamodule, 300) for key in batch.keys[:2]]
    assert keys.count("a.mp4") / 600 == pytest.approx(0.75, abs=0.05)
    assert set(keys) == {*HOMES, "a.mp4"}
    sources = datamodule.describe()["video"]["sources"]
    assert [source["share"] for source in sources] == pytest.approx([0.25, 0.75], abs=0.01)


def test_the_census_shows_the_buckets(root):
    datamodule = ready(data(root))
    assert datamodule.describe()["video"]["buckets"] == {
        "4x8x16": {"samples": 6, "share_of_steps": 0.545, "steps_per_pass": 5.5},
        "4x16x8": {"samples": 2, "share_of_steps": 0.182, "steps_per_pass": 5.5},
        "2x8x16": {"samples": 3, "share_of_steps": 0.273, "steps_per_pass": 5.5},
    }
    assert datamodule.describe()["image"]["buckets"]["4x16x8"]["samples"] == 1
    assert "buckets" not in ready(data(root, buckets=[])).describe()["video"]


def test_what_fits_no_bucket_is_named_and_left_out(root, media, caplog):
    media.video("videos/blink.mp4", times=[0.0], caption="a blink")
    media.broken("videos/empty.mp4")
    wide = VideoShape(4, 8, 80)
    with caplog.at_level(logging.WARNING):
        datamodule = ready(data(root, buckets=[TALL, SHORT, wide]))
        shown = {key for batch in batches(datamodule, 40) for key in batch.keys}
    assert "videos: 2 of 13 (1 too short, 1 corrupt) cannot be used and are left out" in caplog.text
    assert "2 frames need 0.10 s at 10" in caplog.text
    assert "buckets without steps: 4x8x80 (T x H x W); no video is nearest to them" in caplog.text
    assert shown >= set(HOMES) and not shown & {"blink.mp4", "empty.mp4"}
    assert datamodule.census["video"].unusable == {"corrupt": 1, "too short": 1}
    with pytest.raises(NothingUsable, match=r"15% of 13 files cannot be used"):
        ready(data(root, most_unusable=0.1))


def test_where_all_of_a_bucket_fail_others_stand_in(root, media):
    """Files that fail after the start do not end the training, also where a bucket has no others."""
    datamodule = ready(data(root))
    for name in ("tall", "turned"):
        media.broken(f"videos/{name}.mp4")
    stand_ins = [key for batch in batches(datamodule, 60) if batch.shape == TALL for key in batch.keys[:2]]
    assert len(stand_ins) > 10 and set(stand_ins) < {key for key in HOMES if HOMES[key].num_frames == 4}
    assert {path.rpartition("/")[2] for path in datamodule.skipped} == {"tall.mp4", "turned.mp4"}


def test_where_all_held_out_of_a_bucket_fail_others_stand_in(root, media):
    datamodule = ready(data(root, holdout=3))
    before = [part.keys for parts in datamodule.val_dataloader() for part in parts if part.video.shape[2] > 1]
    alone = [keys for keys in before if len(keys) == 1][-1]
    media.broken(f"videos/{alone[0]}")
    after = [part.keys for parts in datamodule.val_dataloader() for part in parts if part.video.shape[2] > 1]
    assert [len(keys) for keys in after] == [len(keys) for keys in before]
    assert alone[0] not in {key for keys in after for key in keys}


def test_error_of_streams():
    with pytest.raises(ValueError, match=r"buckets is .*: streams \(http, pipe:\) don't offer this"):
        JointData(WIDE, "http://host/a.tar", video_batch_size=1, buckets=[TALL])


def test_a_resume_says_that_the_buckets_changed(root, tmp_path, caplog):
    fit(tmp_path, data(root), 1)
    fit(tmp_path, data(root, buckets=[TALL]), 2, tmp_path / "last.ckpt")
    assert "data: buckets is ['4x8x16', '4x16x8'], not ['4x8x16', '4x16x8', '2x8x16'] as at" in caplog.text


def refuse(*_, **__):
    raise AssertionError("a header is read")


def test_headers_are_remembered(root, media, monkeypatch):
    first = ready(data(root))
    monkeypatch.setattr(headers, "read_header", refuse)
    again = ready(data(root))
    assert again.describe() == first.describe()
    monkeypatch.undo()
    samples = index_source(root / "videos", "video").samples
    assert sum(sample.key == "tall.mp4" for sample in samples) == 1
    media.video("videos/tall.mp4", size=(16, 32), caption="no longer tall")
    os.utime(root / "videos/tall.mp4", ns=(1, 1))
    found = dict(zip([s.key for s in samples], read_headers(samples, "video"), strict=True))
    assert (found["tall.mp4"]["height"], found["tall.mp4"]["width"]) == (16, 32)
    assert (found["turned.mp4"]["height"], found["turned.mp4"]["width"]) == (32, 16)


def test_a_memory_that_is_damaged_or_cannot_be_written_is_done_without(root, monkeypatch):
    expected = ready(data(root)).describe()
    for text in ("", "[]", '{"version": 1, "headers": {"wide0.mp4": 3}}', '{"version": 1, "headers": [1]}'):
        (root / "videos/.headers.json").write_text(text)
        assert ready(data(root)).describe() == expected

    def fail(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(headers, "whole_file", fail)
    (root / "videos/.headers.json").unlink()
    assert ready(data(root)).describe() == expected
    assert not (root / "videos/.headers.json").exists()


def test_packed_shards_know_their_headers(root, tmp_path, monkeypatch):
    write_shards(make_plan(root / "videos", 20_000), tmp_path / "shards", workers=1)
    monkeypatch.setattr(headers, "read_header", refuse)
    shards = {"videos": tmp_path / "shards/*.tar", "images": None, "image_batch_size": 0}
    keys = {key for batch in batches(data(root, **shards), 40) for key in batch.keys}
    assert keys == set(HOMES)


def test_prepare_data_reads_headers_for_all_processes(root, monkeypatch):
    data(root).prepare_data()
    assert (root / "videos/.headers.json").exists() and (root / "images/.headers.json").exists()
    monkeypatch.setattr(headers, "read_header", refuse)
    ready(data(root))
    monkeypatch.setattr(headers, "read_headers", refuse)
    data(root, buckets=[]).prepare_data()


def test_sizes_as_shown_are_those_that_the_decoder_sees(real_data):
    """Every real file, among them portrait ones with and without a rotation flag."""
    for modality, folder in (("video", "videos"), ("image", "images")):
        samples = index_source(real_data / folder, modality).samples
        reader = Reader(WIDE, fps=[10.0, 5.0], manifest=None, seconds=60.0)
        for sample in samples:
            header = read_header(sample, modality, upright=True)
            clip, _ = reader(sample, modality, np.random.default_rng(0))
            assert (header["height"], header["width"]) == clip.resolution
