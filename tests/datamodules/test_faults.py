"""Bad files of every kind: each gets its reason, is survived, and leaves its neighbours alone."""

import io
import itertools
import os
import random
import shutil
import tarfile
import time
import zlib
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import av
import numpy as np
import pytest

from snapvideo.components.interfaces import VideoShape
from snapvideo.datamodules import JointData, decode
from snapvideo.datamodules.clips import Clips, Reader
from snapvideo.datamodules.headers import read_header
from snapvideo.datamodules.order import Draw, Stream
from snapvideo.datamodules.samples import NothingUsable, Unusable
from snapvideo.datamodules.sources import index_source

SHAPE = VideoShape(num_frames=4, height=8, width=8)
READER = Reader(SHAPE, fps=[10.0], manifest=None, seconds=20.0)


def silent_video(media, name):
    path = media.path(name, "sound")
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        for start in range(0, 48000, 1024):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.rate, sound.pts = 48000, start
            container.mux(stream.encode(sound))
        container.mux(stream.encode(None))


def bomb(side):
    """A PNG of a few kilobytes and `side` x `side` black pixels."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    pixels = zlib.compress(bytes(side * (1 + side // 8)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def lying_video(media, name):
    """A video whose header says that it lasts 100 times as long."""
    path = media.video(name)
    data = bytearray(path.read_bytes())
    for box in (b"mvhd", b"tkhd", b"mdhd"):
        at = data.index(box) + {b"mvhd": 20, b"tkhd": 24, b"mdhd": 20}[box]
        data[at : at + 4] = (100 * int.from_bytes(data[at : at + 4], "big")).to_bytes(4, "big")
    path.write_bytes(data)


def squeezed(media, name):
    """A video whose header says that its pixels are hardly as wide as a line."""
    path = media.video(name, aspect=Fraction(2))
    data = path.read_bytes()
    at = data.index(b"pasp") + 4
    path.write_bytes(data[:at] + (1).to_bytes(4, "big") + (32767).to_bytes(4, "big") + data[at + 8 :])


@pytest.fixture
def faulty(media):
    """Files with their faults: name -> reason, None for those that can be used."""
    for i in range(3):
        media.video(f"good{i}.mp4")
        media.image(f"good{i}.jpg")
    whole = media.video("whole.mp4").read_bytes()
    media.broken("truncated.mp4", whole[: len(whole) // 2])
    media.broken("zero.mp4")
    media.broken("zero.jpg")
    media.broken("text.mp4", b"this is no video\n" * 100)
    media.broken("picture.mp4", (media.folder / "good0.jpg").read_bytes())
    media.broken("video.jpg", whole)
    media.broken("matroska.mp4", media.video("right.mkv").read_bytes())
    silent_video(media, "sound.mp4")
    media.video("one.mp4", times=[0.0])
    media.video("silent.mp4", caption=None)
    media.video("latin.mp4", caption=None).with_suffix(".txt").write_bytes("Straße".encode("latin-1"))
    media.video("long.mp4", caption=None).with_suffix(".txt").write_text("word " * 20_000)
    media.broken("bomb.png", bomb(20_000))
    media.broken("bomblet.png", bomb(10_000))
    squeezed(media, "squeezed.mp4")
    lying_video(media, "lying.mp4")
    good = dict.fromkeys([f"good{i}.{end}" for i in range(3) for end in ("mp4", "jpg")])
    return good | {
        "whole.mp4": None,
        "right.mkv": None,
        "matroska.mp4": None,  # the content counts, not the name
        "lying.mp4": None,  # read at the length that it turns out to have
        "truncated.mp4": "corrupt",
        "zero.mp4": "corrupt",
        "zero.jpg": "corrupt",
        "text.mp4": "corrupt",
        "picture.mp4": "too short",
        "video.jpg": "corrupt",
        "sound.mp4": "no video stream",
        "one.mp4": "too short",
        "silent.mp4": "no caption",
        "latin.mp4": "bad caption",
        "long.mp4": "caption too long",
        "bomb.png": "too large",
        "bomblet.png": "too large",
        "squeezed.mp4": None,  # pixels 32767 times as high as wide
    }


def reasons(source) -> dict[str, str | None]:
    """The reason of each file of a source, None if it can be used."""
    found = {}
    for modality in ("video", "image"):
        index = index_source(source, modality)
        found |= {place.rpartition("/")[2]: reason.split(":")[0] for place, reason in index.skipped}
        for sample in index.samples:
            try:
                READER(sample, modality, np.random.default_rng(0))
                found[sample.key.rpartition("/")[2]] = None
            except Unusable as error:
                found[sample.key] = str(error).split(":")[0]
    return found


def test_headers_alone_give_the_same_reasons(faulty, media):
    """But for what only decoding finds."""
    for modality in ("video", "image"):
        for sample in index_source(media.folder, modality).samples:
            try:
                read_header(sample, modality)
            except Unusable as error:
                assert str(error).split(":")[0] == faulty[sample.key]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_each_fault_has_its_reason(faulty, media, tmp_path_factory, kind):
    source = media.folder
    if kind == "tar":
        source = tmp_path_factory.mktemp("tars") / "all.tar"
        with tarfile.open(source, "w") as tar:
            tar.add(media.folder, arcname=".")
    assert reasons(source) == faulty


def test_training_goes_on_with_the_good_ones(faulty, media):
    good = {name for name, reason in faulty.items() if reason is None}
    data = JointData(
        SHAPE, media.folder, media.folder, 4, 2, fps=[10.0], num_workers=2, most_unusable=0.9, seconds_per_file=20.0
    )
    data.setup("fit")
    loader = iter(data.train_dataloader())
    batches = [data.on_after_batch_transfer(next(loader), 0) for _ in range(8)]
    assert {key for batch in batches for key in batch.keys} == good
    named = {place.rpartition("/")[2]: reason.split(":")[0] for place, reason in data.skipped.items()}
    assert named == {name: reason for name, reason in faulty.items() if reason}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A video of each container and an image of each kind, by name."""
    from .conftest import Media

    media = Media(tmp_path_factory.mktemp("originals"))
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    paths = [media.video(f"a.{end}", frame=picture) for end in ("mp4", "mkv", "avi")]
    paths.append(media.video("a.webm", codec="libvpx-vp9", options={}, frame=picture, times=np.arange(10) / 20))
    paths += [media.image(f"b.{end}", (60, 80), 90) for end in ("jpg", "png", "webp")]
    return {path.name: path.read_bytes() for path in paths}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The data with bytes changed, cut off, cut out or put in twice."""
    bad = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        start, size = rng.randrange(max(1, len(bad))), rng.choice([1, 4, 64, 2000])
        match rng.randrange(4):
            case 0:
                bad[start : start + size] = rng.randbytes(min(size, len(bad) - start))
            case 1:
                del bad[start:]
            case 2:
                del bad[start : start + size]
            case _:
                bad[start:start] = bad[start : start + size]
    return bytes(bad)


CODES = {"corrupt", "too short", "no video stream", "unknown codec", "too large", "frame rate too low", "too slow"}


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.webm", "b.jpg", "b.png", "b.webp"])
def test_random_damage_to_a_file_is_survived(originals, tmp_path, name):
    """50 each: what can still be read gives a clip, all else a reason."""
    rng = random.Random(name)
    modality = "video" if name.startswith("a") else "image"
    (tmp_path / name).with_suffix(".txt").write_text("a caption")
    for _ in range(50):
        (tmp_path / name).write_bytes(damaged(originals[name], rng))
        [sample] = index_source(tmp_path, modality).samples
        begin = time.monotonic()
        try:
            clip, _ = READER(sample, modality, np.random.default_rng(0))
            assert clip.video.shape == (3, 4 if modality == "video" else 1, 8, 8)
        except Unusable as error:
            assert str(error).split(":")[0] in CODES
        assert time.monotonic() - begin < 30


def test_random_damage_to_a_tar_is_survived(originals, tmp_path):
    """50 tars: each member that is listed gives a clip or a reason."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, data in originals.items():
            for member, content in ((name, data), (name.rpartition(".")[0] + ".txt", b"a caption")):
                info = tarfile.TarInfo(member.replace(".", f"_{name[-3:]}.", 1))
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    rng = random.Random(0)
    path = tmp_path / "a.tar"
    for _ in range(50):
        path.write_bytes(damaged(whole.getvalue(), rng))
        try:
            samples = index_source(path, "video").samples
        except NothingUsable:
            continue
        for sample in samples:
            try:
                clip, _ = READER(sample, "video", np.random.default_rng(0))
                assert clip.video.shape == (3, 4, 8, 8)
            except Unusable as error:
                assert str(error).split(":")[0] in CODES


@pytest.mark.parametrize("name", ["a.mp4", "a.jpg"])
def test_a_file_that_takes_too_long_is_given_up(media, monkeypatch, name):
    """By a clock that goes on by a second with each reading: what is decoding then ends, whatever it is."""
    path = media.video(name) if name.endswith("mp4") else media.image(name)
    modality = "video" if name.endswith("mp4") else "image"
    [sample] = index_source(path.parent, modality).samples
    clock = itertools.count()
    monkeypatch.setattr(decode, "time", SimpleNamespace(monotonic=partial(next, clock)))
    patient, hurried = (Reader(SHAPE, fps=[10.0], manifest=None, seconds=seconds) for seconds in (1000.0, 1.0))
    patient(sample, modality, np.random.default_rng(0))
    assert next(clock) >= 3  # it read more than once
    began = next(clock)
    with pytest.raises(Unusable, match="too slow: not decoded within 1 s"):
        hurried(sample, modality, np.random.default_rng(0))
    assert next(clock) - began < 20


def memory() -> float:
    """Resident megabytes of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_memory_stays_flat_over_2000_clips(faulty, media):
    """Good files and bad ones."""
    for name in ("bomb.png", "bomblet.png", "long.mp4"):
        (media.folder / name).unlink()
    samples = {m: index_source(media.folder, m).samples for m in ("video", "image")}
    streams = {m: Stream(m, 0, [len(samples[m])]) for m in samples}
    clips = Clips(samples, streams, READER, seed=0)

    def read(start, stop):
        for position in range(start, stop):
            clips[[Draw(m, streams[m].index(position), position) for m in samples]]

    read(0, 200)
    before = memory()
    read(200, 1200)
    assert memory() - before < 20


def test_nothing_is_written_outside_the_target(media, tmp_path):
    """A tar whose members lead out of it, packed: what is there before is there after."""
    from snapvideo.datamodules.pack import make_plan, write_shards

    good = media.video("good.mp4").read_bytes()
    evil = tmp_path / "in/evil.tar"
    evil.parent.mkdir()
    with tarfile.open(evil, "w") as tar:
        for name in ("../../escaped.mp4", "/tmp/escaped.mp4", "fine.mp4"):
            for member, content in ((name, good), (name.replace("mp4", "txt"), b"x")):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    shutil.rmtree(media.folder / "good.json", ignore_errors=True)
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts and "index" not in path.name}
    summary = write_shards(make_plan(evil, 10**6), tmp_path / "out", workers=1)
    after = {path for path in tmp_path.rglob("*") if "out" not in path.parts and "index" not in path.name}
    assert summary["videos"] == 1 and after == before
    assert summary["skipped"] == {"unsafe name": 4}
    [sample] = index_source(tmp_path / "out/*.tar", "video").samples
    READER(sample, "video", np.random.default_rng(0))
