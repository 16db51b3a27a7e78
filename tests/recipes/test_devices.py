"""Training on several devices, as a user starts it: two processes on one CPU."""

import json
import os
import subprocess
import sys

import pytest

from .conftest import call


def snapvideo(*words):
    command = [sys.executable, "-m", "snapvideo.recipes.cli", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["demo", "folders"])
@pytest.mark.parametrize(
    ("overlay", "settings"),
    [
        ("ddp", ["--trainer.devices", "2"]),
        ("fsdp2", ["--trainer.devices", "2", "--trainer.strategy.data_parallel_size", "2"]),
    ],
)
def test_two_processes_train_one_model(recipe, overlay, settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["fit", "-c", recipe, "-c", f"overlays/{overlay}", "--smoke", "--trainer.accelerator", "cpu", *settings]
    result = snapvideo(*words)
    assert result.returncode == 0, result.stderr
    (run,) = (tmp_path / "runs" / recipe).glob("2*")
    checkpoints = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert "last.ckpt" in checkpoints
    sampled = call("sample", run, "a red circle moves left", "--steps", "2", "-n", "1", "-o", tmp_path / "out")
    assert sampled.code == 0, sampled.err
    assert json.loads((tmp_path / "out/meta.jsonl").read_text())["prompt"] == "a red circle moves left"


def test_averages_of_spread_weights_are_refused():
    result = call("fit", "-c", "demo", "-c", "overlays/fsdp2", "--smoke", "--ema.half_life", "10")
    assert result.code == 2
    assert "--ema null" in result.err
