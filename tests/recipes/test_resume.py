"""A training that was killed goes on as if nothing had been."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from .conftest import call

STEPS = 40


def words(root, runs, workers):
    shards = str(root / "shards/*.tar")
    data = ["--data", "JointData", "--data.videos", shards, "--data.images", shards, "--data.fps", "[8.0]"]
    data += ["--data.video_batch_size=2", "--data.image_batch_size=1", f"--data.num_workers={workers}"]
    often = ["--checkpoint.every_n_steps=3", f"--trainer.max_steps={STEPS}", "--sampling", "null"]
    return ["fit", "-c", "demo", "--smoke", *data, *often, "--trainer.max_time", "null", "--runs", str(runs)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of shards: 11 videos and 7 images, so that passes end within steps."""
    root = tmp_path_factory.mktemp("resume")
    call("data", "synth", root / "shapes", "--videos", 11, "--images", 7, "--size", 32, "--workers", 1)
    packed = call("data", "pack", root / "shapes", root / "shards", "--shard-size", 0.01, "--workers", 1)
    assert packed.code == 0, packed.err
    return root


@pytest.fixture(scope="module")
def whole(root):
    """The checkpoint of a training that nothing interrupted."""
    result = call(*words(root, root / "whole", workers=0))
    assert result.code == 0, result.err
    return checkpoint(root / "whole")


def checkpoint(runs):
    return torch.load(runs / "demo/latest/checkpoints/last.ckpt", weights_only=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_is_bitwise_the_same(root, whole, workers, tmp_path):
    command = [sys.executable, "-m", "snapvideo.recipes.cli", *words(root, tmp_path, workers)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = tmp_path / "demo/latest/checkpoints/last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < checkpoint(tmp_path)["global_step"] < STEPS
    latest = str(tmp_path / "demo/latest")
    resumed = call("fit", "-c", latest, "--ckpt_path", latest, "--runs", tmp_path)
    assert resumed.code == 0, resumed.err
    end = checkpoint(tmp_path)
    assert end["global_step"] == STEPS
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(end[part][name], value) for name, value in whole[part].items())
    ours, theirs = (each["optimizer_states"][0]["state"] for each in (end, whole))
    assert all(torch.equal(ours[i][name], theirs[i][name]) for i in theirs for name in theirs[i])
