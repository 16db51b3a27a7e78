"""``snapvideo data``, as a user runs it."""

import json
import shutil

import pytest

from .conftest import call


@pytest.fixture
def root(shapes, tmp_path):
    """Six videos and four images, of which a video is empty, one has no caption, and no image has one."""
    root = shutil.copytree(shapes, tmp_path / "shapes")
    (root / "videos/000000.mp4").write_bytes(b"")
    for path in (root / "videos/000001.txt", root / "videos/000001.json", *root.glob("images/*.[tj][xs]*")):
        path.unlink()
    return root


def test_check_counts_and_names(root, tmp_path):
    result = call("data", "check", root, "--workers", 0, "--json", tmp_path / "census.json")
    assert result.code == 3 and "images: 100% of 4 files cannot be used (4 no caption)" in result.err
    assert "videos: 6 files, 4 usable, 33.3% not" in result.out
    assert "1 corrupt: " in result.out and "000000.mp4: corrupt" in result.out and "4 no caption: " in result.out
    figures = json.loads((tmp_path / "census.json").read_text())
    assert figures["video"]["unusable"] == {"no caption": 1, "corrupt": 1}
    assert figures["video"]["spread"]["fps"]["median"] == 16 and figures["num_frames"] == 8


def test_check_fails_beyond_the_share_that_is_allowed(root):
    assert call("data", "check", root / "videos", "--workers", 0).code == 0
    strict = call("data", "check", root / "videos", "--workers", 0, "--quick", "--most-unusable", 0.1)
    assert strict.code == 3 and "33% of 6 files cannot be used" in strict.err


def test_check_of_nothing(tmp_path):
    assert call("data", "check", tmp_path).code == 3
    missing = call("data", "check", tmp_path / "nowhere")
    assert missing.code == 2 and "is neither a folder nor a tar file" in missing.err


def test_pack_and_train_as_it_says(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packed = call("data", "pack", "shapes", "shards", "--shard-size", 0.01, "--workers", 1)
    assert packed.code == 0 and "4 videos and 0 images in" in packed.out, packed.err
    assert "left out: 5 no caption, 1 corrupt" in packed.out
    [line] = [line for line in packed.out.splitlines() if line.startswith("train:")]
    assert "--data.videos 'shards/*.tar' --data.image_batch_size 0" in line
    words = ["--smoke", "--data", "JointData", "--data.videos", "shards/*.tar", "--data.video_batch_size=2"]
    words += ["--data.image_batch_size=0", "--data.fps=[8]"]
    trained = call("fit", "-c", "folders", *words, "--trainer.max_steps=1", "--trainer.limit_val_batches=0")
    assert trained.code == 0, trained.err
    census = json.loads((tmp_path / "runs/folders/latest/census.json").read_text())
    assert census["video"]["samples"] == 4 and census["video"]["sources"][0]["path"] == "shards/*.tar"


@pytest.mark.parametrize("part", ["0/2", "3/2", "x", "1"])
def test_error_of_a_part(shapes, tmp_path, part):
    result = call("data", "pack", shapes, tmp_path / "shards", "--part", part)
    assert result.code == 2 and f"--part {part}: give one of N parts" in result.err


def test_bench_times_both_sides(shapes, tmp_path):
    words = ["--size", "16x16", "--workers", 0, "--clips", 8, "--rounds", 1, "--json", tmp_path / "bench.json"]
    result = call("data", "bench", shapes / "videos", *words)
    assert result.code == 0, result.err
    [row] = json.loads((tmp_path / "bench.json").read_text())
    assert row["loader"] > 0 and row["bare"] > 0 and row["fraction"] == pytest.approx(row["loader"] / row["bare"])
    assert call("data", "bench", shapes / "videos", "--size", "16").code == 2
    assert call("data", "bench", shapes / "videos", "--rounds", 0).code == 2


def test_the_wait_for_data_is_recorded(work):
    header, *rows = (work / "runs/demo/latest/metrics.csv").read_text().splitlines()
    column = header.split(",").index("data_wait")
    shares = [float(row.split(",")[column]) for row in rows if row.split(",")[column]]
    assert shares and all(0 <= share < 1 for share in shares)
