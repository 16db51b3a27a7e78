"""Checkpoints are whole or not there, whatever happens while one is written."""

import json
import signal
import subprocess
import sys

import pytest
import torch

from snapvideo.recipes.checkpoints import Checkpoint, WholeCheckpoints
from snapvideo.recipes.run import newest_checkpoint

from .conftest import call

QUICK = ["--sampling=null", "--trainer.limit_val_batches=0", "--trainer.enable_model_summary=false"]


def names(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.mark.parametrize(("keep", "expected"), [(1, [12]), (2, [10, 12]), (0, [5, 10, 12])])
def test_the_newest_are_kept(keep, expected, tmp_path):
    words = ["--checkpoint.every_n_steps=5", f"--checkpoint.keep={keep}", "--trainer.max_steps=12", "--runs", tmp_path]
    assert call("fit", "-c", "demo", "--smoke", *QUICK, *words).code == 0
    run = tmp_path / "demo/latest"
    assert names(run) == ["last.ckpt", *(f"step={step:08d}.ckpt" for step in expected)]
    assert (run / "checkpoints/last.ckpt").readlink().name == "step=00000012.ckpt"


@pytest.mark.parametrize("setting", [{"every_n_steps": 0}, {"keep": -1}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} is {next(iter(setting.values()))}"):
        Checkpoint(**setting)


def test_no_frozen_encoder_is_in_a_checkpoint(encoders, tmp_path):
    text = {"class_path": "Text", "init_args": {"dim": 32, "encoder": str(encoders["t5"])}}
    words = ["--model.conditioner", json.dumps(text), "--model.backbone.dim_condition=32", "--trainer.max_steps=1"]
    result = call("fit", "-c", "demo", "--smoke", *QUICK, *words, "--runs", tmp_path)
    assert result.code == 0, result.err
    checkpoint = torch.load(tmp_path / "demo/latest/checkpoints/last.ckpt", weights_only=True)
    conditioner = [name for name in checkpoint["state_dict"] if name.startswith("conditioner.")]
    assert conditioner and not any("encoder" in name for name in conditioner)


def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path):
    """The process is killed half-way through writing the checkpoint of step 10."""
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal, sys, torch\n"
        "from snapvideo.recipes.cli import main\n"
        "save = torch.save\n"
        "def half(checkpoint, file):\n"
        "    if checkpoint['global_step'] == 10:\n"
        "        file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "    save(checkpoint, file)\n"
        "torch.save = half\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["fit", "-c", "demo", "--smoke", *QUICK, "--checkpoint.every_n_steps=5", "--checkpoint.keep=1"]
    killed = subprocess.run([sys.executable, script, *words], cwd=tmp_path, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    run = (tmp_path / "runs/demo/latest").resolve()
    assert newest_checkpoint(run).name == "step=00000005.ckpt"
    resumed = call("fit", "--resume", run, "--trainer.max_steps=12")
    assert resumed.code == 0, resumed.err
    assert names(run) == ["last.ckpt", "step=00000012.ckpt"]  # the half file is gone, too


def test_a_full_disk_leaves_the_checkpoint_before_and_training_goes_on(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small disk of its own (mount -t tmpfs) needs rights that this process does not have")
    words = ["fit", "-c", "demo", "--smoke", *QUICK, "--checkpoint.every_n_steps=5", "--runs", str(disk)]
    words += ["--data.root", str(tmp_path / "data")]
    script = tmp_path / "full.py"
    script.write_text(
        "import shutil, sys\n"
        "from snapvideo.recipes import checkpoints, cli\n"
        "save = checkpoints.WholeCheckpoints.save_checkpoint\n"
        "def full(self, checkpoint, path, storage_options=None):\n"
        "    filler = path.parents[2] / 'filler'\n"
        "    if checkpoint['global_step'] == 10:\n"
        "        filler.write_bytes(bytes(shutil.disk_usage(filler.parent).free - (1 << 20)))\n"
        "    save(self, checkpoint, path, storage_options)\n"
        "    filler.unlink(missing_ok=True)\n"
        "checkpoints.WholeCheckpoints.save_checkpoint = full\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    try:
        command = [sys.executable, script, *words, "--trainer.max_steps=15"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        assert "step 10 cannot be saved ([Errno 28] No space left on device" in result.stderr
        run = disk / "demo/latest"
        assert names(run) == ["last.ckpt", "step=00000005.ckpt", "step=00000015.ckpt"]
        assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 15
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_last_checkpoint_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    def full(self, checkpoint, path, storage_options=None):
        self.failure = OSError(28, "No space left on device")

    monkeypatch.setattr(WholeCheckpoints, "save_checkpoint", full)
    result = call("fit", "-c", "demo", "--smoke", *QUICK, "--trainer.max_steps=1", "--runs", tmp_path)
    assert result.code == 1
    assert "No space left on device" in result.err


def test_the_checkpoint_of_a_requeued_job_is_the_newest(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/step=00000012.ckpt", "checkpoints/step=00000008.ckpt"):
        (tmp_path / name).touch()
    assert newest_checkpoint(tmp_path).name == "step=00000012.ckpt"
    for version in (2, 10):
        (tmp_path / f"hpc_ckpt_{version}.ckpt").touch()
    assert newest_checkpoint(tmp_path).name == "hpc_ckpt_10.ckpt"


def test_a_training_that_fails_within_the_optimizer_saves_nothing(tmp_path, monkeypatch):
    """Some weights may be those of the next step then."""
    step = torch.optim.AdamW.step
    calls = []

    def fails(self, closure=None):
        calls.append(self)
        loss = step(self, closure)
        return 1 / 0 if len(calls) == 8 else loss

    monkeypatch.setattr(torch.optim.AdamW, "step", fails)
    words = ["--checkpoint.every_n_steps=5", "--runs", tmp_path]
    assert call("fit", "-c", "demo", "--smoke", *QUICK, *words).code == 1
    assert names(tmp_path / "demo/latest") == ["last.ckpt", "step=00000005.ckpt"]
