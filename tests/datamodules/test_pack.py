"""Packing: every sample in one shard, under one key, as WebDataset reads it, also after a stop."""

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import webdataset

from snapvideo.components.interfaces import VideoShape
from snapvideo.datamodules import JointData
from snapvideo.datamodules.clips import Reader
from snapvideo.datamodules.pack import INDEX, make_plan, write_shards
from snapvideo.datamodules.samples import NothingUsable
from snapvideo.datamodules.sources import index_source


def pack(source, out, size=6000, **options):
    return write_shards(make_plan(source, size), out, workers=1, **options)


def members(out):
    """Content of each member of the shards, by name."""
    urls = [str(path) for path in sorted(out.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    found = {}
    for sample in samples:
        for suffix, data in sample.items():
            if not suffix.startswith("__"):
                name = f"{sample['__key__']}.{suffix}"
                assert name not in found
                found[name] = data
    return found


def hashes(out):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.glob("shard-*"))}


def test_webdataset_reads_what_was_packed(files, tmp_path):
    (files / "videos/0.safetensors").write_bytes(b"tokens")
    summary = pack(files, tmp_path / "out")
    (files / "videos/0.safetensors").unlink()
    assert summary["complete"] and summary["videos"] == 8 and summary["images"] == 5 and summary["skipped"] == {}
    expected = {}
    for path in [*files.glob("videos/*.mp4"), *files.glob("images/*.png")]:
        stem = path.relative_to(files).with_suffix("").as_posix()
        expected[f"{stem}{path.suffix}"] = path.read_bytes()
        expected[f"{stem}.txt"] = json.loads(path.with_suffix(".json").read_text())["caption"].encode()
        expected[f"{stem}.json"] = path.with_suffix(".json").read_bytes()
    expected["videos/0.safetensors"] = b"tokens"
    assert members(tmp_path / "out") == expected


def test_shards_and_folders_give_the_same_batches(files, tmp_path):
    pack(files, tmp_path / "out")

    def shown(source):
        data = JointData(VideoShape(4, 8, 8), source, source, 3, 2, fps=[10.0, 5.0], holdout=1)
        data.setup("fit")
        loader = data.train_dataloader()
        parts = [part for parts in itertools.islice(loader, 4) for part in parts]
        return [(p.keys, p.captions, p.fps.tolist(), p.resolution.tolist(), p.video.tolist()) for p in parts]

    assert shown(tmp_path / "out/*.tar") == shown(files)


def test_shards_are_of_about_the_same_size(media, tmp_path):
    sizes = np.random.default_rng(0).integers(100, 3000, 200)
    for i, size in enumerate(sizes):
        media.broken(f"in/{i}.mp4", bytes(size), caption="x")
    plan = make_plan(media.folder / "in", 20_000)
    totals = [sum(item.size for item in shard) for shard in plan.shards]
    assert len(totals) == round(sizes.sum() / 20_000)
    assert max(totals) - min(totals) <= 2 * sizes.max()
    assert sorted(item.key for shard in plan.shards for item in shard) == sorted(str(i) for i in range(200))


def test_no_two_samples_share_a_key(media, tmp_path):
    names = ["a.mp4", "a.webm", "a.jpg", "my.b.mp4", "my_b.mp4", "my.b.jpg", "d/a.mp4", "d.e/a.mp4"]
    for name in names:
        if name.endswith(".jpg"):
            media.image(f"in/{name}", caption=name)
        else:
            media.video(f"in/{name}", codec="libvpx" if name.endswith("webm") else "libx264", options={}, caption=name)
    pack(media.folder / "in", tmp_path / "out")
    found = members(tmp_path / "out")
    captions = [data.decode() for name, data in found.items() if name.endswith(".txt")]
    assert len(captions) == 8
    assert all(name.count(".") == 1 for name in found)


def test_what_cannot_be_used_is_left_out_with_its_reason(media, tmp_path):
    for i in range(4):
        media.video(f"in/{i}.mp4")
    media.broken("in/empty.mp4")
    media.video("in/silent.mp4", caption=None)
    summary = pack(media.folder / "in", tmp_path / "out")
    assert summary["videos"] == 4 and summary["skipped"] == {"no caption": 1, "corrupt": 1}
    assert {name for name in members(tmp_path / "out") if name.endswith("mp4")} == {f"{i}.mp4" for i in range(4)}


def test_parts_make_the_whole(files, tmp_path):
    whole = pack(files, tmp_path / "whole")
    assert len(whole["shards"]) > 3
    first = pack(files, tmp_path / "parts", part=1, parts=2)
    assert not first["complete"] and not (tmp_path / "parts" / INDEX).exists()
    assert pack(files, tmp_path / "parts", part=0, parts=2) == whole
    assert hashes(tmp_path / "parts") == hashes(tmp_path / "whole")


def test_what_is_there_is_left_as_it_is(files, tmp_path):
    pack(files, tmp_path / "out")
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("shard-*")}
    victim = tmp_path / "out/shard-000001.json"
    victim.unlink()
    pack(files, tmp_path / "out")
    changed = {p.name for p in (tmp_path / "out").glob("shard-*") if p.stat().st_mtime_ns != times[p.name]}
    assert changed == {"shard-000001.json", "shard-000001.tar"}


def test_other_files_or_another_size_are_refused(files, tmp_path):
    pack(files, tmp_path / "out")
    with pytest.raises(ValueError, match="is of other files or another shard size"):
        pack(files, tmp_path / "out", size=3000)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    with pytest.raises(ValueError, match=r"holds mine\.txt, which is not of this packing"):
        pack(files, tmp_path / "full")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/shard-000000.tar").write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"holds shard-000000\.tar, which is not of this packing"):
        pack(files, tmp_path / "theirs")
    assert (tmp_path / "theirs/shard-000000.tar").read_bytes() == b"precious"


def test_a_modality_of_which_nothing_can_be_used_is_counted(media, tmp_path):
    media.video("in/a.mp4")
    for i in range(3):
        media.image(f"in/{i}.jpg", caption=None)
    assert pack(media.folder / "in", tmp_path / "out")["skipped"] == {"no caption": 3}
    media.broken("bad/a.mp4")
    with pytest.raises(NothingUsable, match=r"no file can be packed: \{'corrupt': 1\}"):
        pack(media.folder / "bad", tmp_path / "empty")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_lists_of_paths_and_captions(media, tmp_path, suffix):
    media.video("clips/a.mp4", caption=None)
    media.video("elsewhere/b.mp4", caption=None)
    media.image("clips/c.jpg", caption=None)
    rows = [
        ("b.MPG", "a format that is not read"),
        ("a.mp4", "one, two"),
        ("../elsewhere/b.mp4", "b"),
        ("c.jpg", "c"),
        ("gone.mp4", "d"),
        ("a.mp4", ""),
    ]
    path = media.folder / f"clips/list{suffix}"
    if suffix == ".csv":
        path.write_text("path,caption\n" + "".join(f'{name},"{caption}"\n' for name, caption in rows))
    else:
        path.write_text("".join(json.dumps({"path": name, "caption": text}) + "\n" for name, text in rows))
    summary = pack(path, tmp_path / "out")
    assert summary["skipped"] == {"no caption": 1, "cannot be opened": 1, "unknown suffix": 1}
    found = {name: data for name, data in members(tmp_path / "out").items() if name.endswith(".txt")}
    assert found == {"a.txt": b"one, two", "elsewhere/b.txt": b"b", "c.txt": b"c"}


@pytest.mark.parametrize("content", ["caption\nno path\n", '{"caption": "no path"}\n', "{\n"])
def test_error_of_a_list_names_the_line(media, content):
    path = media.folder / ("list.csv" if content.startswith("caption") else "list.jsonl")
    path.write_text(content)
    with pytest.raises(ValueError, match=r"list\.\w+, line [12]: "):
        make_plan(path, 1000)


def test_killed_and_gone_on_with(media, tmp_path):
    for i in range(60):
        media.broken(f"in/{i}.jpg", media.image("one.jpg", (300, 300)).read_bytes() if i == 0 else b"", caption=str(i))
        if i:
            (media.folder / f"in/{i}.jpg").write_bytes((media.folder / "in/0.jpg").read_bytes())
    source, out = media.folder / "in", tmp_path / "killed"
    pack(source, tmp_path / "whole", size=2000)
    command = [sys.executable, "-m", "snapvideo.recipes.cli", "data", "pack", source, out, "--shard-size", "0.002"]
    process = subprocess.Popen([*command, "--workers", "1"], start_new_session=True, stderr=subprocess.DEVNULL)
    while not list(out.glob("shard-*.tar")) and process.poll() is None:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / INDEX).exists()
    pack(source, out, size=2000)
    assert hashes(out) == hashes(tmp_path / "whole")
    assert not list(out.glob(".*.tmp"))


@pytest.mark.parametrize(
    "name", ["shard-000000.tar", "shard-000000.json", ".shard-000000.tar.index.json", ".shard-000000.tar.headers.json"]
)
def test_what_a_kill_left_half_written_goes(files, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / "..plan.json.0123456789ab.tmp").touch()  # killed as it began
    pack(files, out, size=10**9)
    (out / "shard-000000.json").unlink()
    (out / f".{name}.0123456789ab.tmp").touch()  # killed in the shard
    pack(files, out, size=10**9)
    assert [path.name for path in out.glob(".*.tmp")] == ["..plan.json.0123456789ab.tmp"]
    assert (out / "shard-000000.json").exists()


def test_real_files_of_every_codec_give_the_same_clips(real_data, tmp_path):
    """From shards as from the folder; names with dots are others in shards."""
    assert pack(real_data, tmp_path / "out", size=2_000_000)["skipped"] == {}

    def clips(source, modality):
        reader = Reader(VideoShape(4, 18, 32), fps=[8.0], manifest=None, seconds=60.0)
        samples = index_source(source, modality).samples
        read = [reader(sample, modality, np.random.default_rng(0))[0] for sample in samples]
        pixels = [hashlib.sha256(clip.video.numpy().tobytes()).hexdigest() for clip in read]
        return {(s.caption, *c.resolution, p) for s, c, p in zip(samples, read, pixels, strict=True)}

    for modality, count in (("video", 24), ("image", 30)):
        assert len(clips(real_data, modality)) == count
        assert clips(tmp_path / "out/*.tar", modality) == clips(real_data, modality)
