"""A training on clips of several aspect ratios and lengths, as a user runs it."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
import yaml

from snapvideo.components import VideoDiffusion

from ..datamodules.conftest import Media
from .conftest import call

BUCKETS = "[{num_frames: 4, height: 24, width: 12}, {num_frames: 2, height: 16, width: 16}]"  # beside 4x16x16


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Six square videos of which two are too short for 4 frames, two portrait, one of them by its flag, and images."""
    media = Media(tmp_path_factory.mktemp("mixed"))
    for i in range(6):
        times = np.arange(40 if i < 4 else 5) / 20
        media.video(f"videos/square{i}.mp4", times, size=(32, 34), caption=f"square {i}")
    media.video("videos/tall.mp4", size=(64, 32), caption="tall")
    media.video("videos/turned.mp4", size=(32, 64), rotation=-90, caption="turned")
    for i, size in enumerate([(32, 32), (30, 32), (64, 30)]):
        media.image(f"images/{i}.png", size=size, level=40 * i)
    return media.folder


def words(root, *more) -> list:
    data = ["--data", "JointData", "--data.videos", root / "videos", "--data.images", root / "images"]
    data += ["--data.video_batch_size=2", "--data.image_batch_size=1", "--data.fps=[10.0]", "--data.holdout=1"]
    few = ["--trainer.max_steps=8", "--trainer.val_check_interval=3", "--trainer.limit_val_batches=1.0"]
    return ["fit", "-c", "demo", "--smoke", *data, "--data.buckets", BUCKETS, *few, "--sampling", "null", *more]


def checkpoint(runs):
    return torch.load(runs / "demo/latest/checkpoints/last.ckpt", weights_only=True)


def test_training_sees_all_sizes_and_resumes_to_the_bit(root, tmp_path, monkeypatch):
    shapes = []
    for name in ("training_step", "validation_step"):
        step = getattr(VideoDiffusion, name)

        def noted(self, batch, index, step=step):
            if not batch.keys[0].startswith("blank"):  # a rehearsal
                shapes.append((step.__name__, str(batch.shape)))
            return step(self, batch, index)

        monkeypatch.setattr(VideoDiffusion, name, noted)
    whole = call(*words(root, "--runs", tmp_path / "whole"))
    assert whole.code == 0, whole.err
    trained = [shape for name, shape in shapes if name == "training_step"]
    assert trained[:3] == ["4x24x12", "4x16x16", "2x16x16"] and len(trained) == 8
    assert Counter(name for name, _ in shapes)["validation_step"] >= 2

    census = json.loads((tmp_path / "whole/demo/latest/census.json").read_text())
    counts = {name: about["samples"] for name, about in census["video"]["buckets"].items()}
    assert set(counts) == {"4x16x16", "4x24x12", "2x16x16"} and sum(counts.values()) == 7
    config = yaml.safe_load((tmp_path / "whole/demo/latest/config.yaml").read_text())
    assert [shape["height"] for shape in config["data"]["init_args"]["buckets"]] == [24, 16]

    seen, parts = trained.copy(), tmp_path / "parts"
    shapes.clear()
    assert call(*words(root, "--runs", parts, "--trainer.max_steps=3")).code == 0
    resumed = call("fit", "--resume", parts / "demo/latest", "--trainer.max_steps=8")
    assert resumed.code == 0, resumed.err
    assert [shape for name, shape in shapes if name == "training_step"] == seen
    ends = [checkpoint(runs)["state_dict"] for runs in (tmp_path / "whole", parts)]
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name]), name


def test_a_backbone_of_one_size_refuses_before_anything_is_read(root, tmp_path):
    result = call(*words(root, "-c", "overlays/demo_fit", "--runs", tmp_path))
    assert result.code == 2 and not list(tmp_path.iterdir())
    assert "data: JointData: buckets: FIT takes videos of 4x16x16 (T x H x W) alone, not of 4x24x12" in result.err
    assert "leave 4x24x12 out, or use UNet, which takes other sizes" in result.err


def test_a_bucket_of_too_many_frames_is_refused(root, tmp_path):
    result = call(*words(root, "--data.buckets", "[{num_frames: 6, height: 16, width: 16}]", "--runs", tmp_path))
    assert result.code == 2 and "UNet takes videos of [2, 4] frames and 3 channels, not of 6 and 3" in result.err


def test_check_shows_the_buckets_of_a_recipe(root, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        f"data: {{class_path: JointData, init_args: {{buckets: {BUCKETS}, fps: [8.0]}}}}"
    )
    shape = "model: {backbone: {init_args: {shape: {num_frames: 4, height: 16, width: 16}}}}"
    (tmp_path / "shape.yaml").write_text(shape)
    recipe = "+".join(["folders", str(tmp_path / "mine.yaml"), str(tmp_path / "shape.yaml")])
    result = call("data", "check", root, "--recipe", recipe, "--workers", 0, "--json", tmp_path / "census.json")
    assert result.code == 0, result.err
    lines = [line.split() for line in result.out.splitlines()]
    assert ["4x16x16", "4", "50.0%", "1"] in lines  # videos: 8 per step
    assert ["4x24x12", "2", "25.0%", "1"] in lines and ["4x24x12", "1", "25.0%", "0.5"] in lines
    figures = json.loads((tmp_path / "census.json").read_text())
    assert figures["image"]["buckets"]["2x16x16"] == {"samples": 2, "share_of_steps": 0.25, "steps_per_pass": 1.0}
