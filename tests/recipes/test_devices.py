"""Training on several devices, as a user starts it: two processes on one CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


@pytest.mark.slow
def test_a_training_goes_on_on_other_devices(tmp_path, monkeypatch):
    """From two processes that share the weights to one, and back: with its averages."""
    monkeypatch.chdir(tmp_path)
    spread = ["-c", "overlays/fsdp2", "--trainer.devices", "2", "--trainer.strategy.data_parallel_size", "2"]
    first = ["-c", "demo", "--smoke", "--trainer.accelerator", "cpu", "--trainer.val_check_interval", "2"]
    first += ["--sampling", "null", "--post_hoc_ema.every_n_steps", "2"]
    resume = ["--resume", "latest"]
    alone = ["--trainer.devices", "1", "--trainer.strategy", "auto"]
    for steps, words in ((4, [*first, *spread]), (6, [*resume, *alone]), (8, [*resume, *spread])):
        result = snapvideo("fit", *words, "--trainer.max_steps", str(steps))
        assert result.returncode == 0, result.stderr
        saved = torch.load("runs/demo/latest/checkpoints/last.ckpt", weights_only=True)
        assert saved["global_step"] == saved["averaging_state"]["n_averaged"] == steps
        parts = [saved[part] for part in ("state_dict", "current_model_state", "post_hoc_ema.std=0.05")]
        shapes = [{name: tensor.shape for name, tensor in part.items()} for part in parts]
        assert shapes[0] == shapes[1] == shapes[2]
        assert any(not torch.equal(parts[0][name], parts[1][name]) for name in parts[0])
        assert sorted(Path("runs/demo/latest/averages/snapshots").glob(f"*{steps}.safetensors"))
