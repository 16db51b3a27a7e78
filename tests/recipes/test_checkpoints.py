"""Checkpoints are whole or not there, whatever happens while one is written."""

import contextlib
import errno
import json
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from snapvideo.components import VideoDiffusion
from snapvideo.recipes.checkpoints import Checkpoint, WholeCheckpoints
from snapvideo.recipes.errors import UserError
from snapvideo.recipes.run import newest_checkpoint, read_checkpoint

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


@contextlib.contextmanager
def full_after(size):
    """A disk that is full: the system refuses what would make a file larger than so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_checkpoint_before_and_training_goes_on(tmp_path, monkeypatch, caplog):
    """The one of step 10 is as large as the one before, and there is place for half of it."""
    save = WholeCheckpoints.save_checkpoint

    def full(self, checkpoint, path, storage_options=None):
        half = path.with_name("step=00000005.ckpt").stat().st_size // 2 if checkpoint["global_step"] == 10 else -1
        with full_after(half):
            save(self, checkpoint, path)

    monkeypatch.setattr(WholeCheckpoints, "save_checkpoint", full)
    words = ["--checkpoint.every_n_steps=5", "--trainer.max_steps=15", "--runs", tmp_path]
    result = call("fit", "-c", "demo", "--smoke", *QUICK, *words)
    assert result.code == 0, result.err
    assert "step 10 cannot be saved ([Errno 27] File too large)" in caplog.text
    assert names(tmp_path / "demo/latest") == ["last.ckpt", "step=00000005.ckpt", "step=00000015.ckpt"]


def test_wherever_a_disk_is_full_the_file_before_stays(tmp_path):
    """In the head, between and within tensors, at the end: torch tells of it in several ways."""
    checkpoint = {"small": [torch.zeros(100)] * 50, "large": torch.zeros(100_000)}
    writer, file = WholeCheckpoints(), tmp_path / "file"
    writer.save_checkpoint(checkpoint, file)
    whole = file.read_bytes()
    for size in (10, 5000, 9000, 30_000, 200_000, len(whole) - 100, len(whole) - 1):
        with full_after(size):
            writer.save_checkpoint(checkpoint, file)
        assert isinstance(writer.failure, OSError) and writer.failure.errno == errno.EFBIG
        assert list(tmp_path.iterdir()) == [file] and file.read_bytes() == whole
    writer.save_checkpoint(checkpoint, file)
    assert writer.failure is None


def test_what_is_not_of_the_disk_is_an_error(tmp_path, monkeypatch):
    def wrong(*_):
        raise RuntimeError("of the device, say")

    monkeypatch.setattr(torch, "save", wrong)
    with pytest.raises(RuntimeError, match="of the device"):
        WholeCheckpoints().save_checkpoint({}, tmp_path / "file")


@pytest.mark.parametrize("end", [["--trainer.max_steps=6"], ["--trainer.max_steps=-1", "--trainer.max_epochs=3"]])
def test_the_end_of_an_epoch_is_no_time_to_save_but_the_last(end, tmp_path):
    words = ["--trainer.limit_train_batches=2", *end, "--checkpoint.keep=0", "--runs", tmp_path]
    assert call("fit", "-c", "demo", "--smoke", *QUICK, *words).code == 0
    assert names(tmp_path / "demo/latest") == ["last.ckpt", "step=00000006.ckpt"]


def test_what_goes_wrong_in_saving_hides_no_error_that_came_before(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise torch.OutOfMemoryError("no memory for a checkpoint")

    def fails(self, batch, batch_idx):
        if batch_idx == 2:
            raise LookupError("the first error")

    monkeypatch.setattr(WholeCheckpoints, "save_checkpoint", full)
    monkeypatch.setattr(VideoDiffusion, "on_train_batch_start", fails)
    result = call("fit", "-c", "demo", "--smoke", *QUICK, "--runs", tmp_path)
    assert result.code == 1 and "LookupError: the first error" in result.err.splitlines()[-1]
    assert "step 2 cannot be saved (OutOfMemoryError: no memory for a checkpoint)" in caplog.text


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


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-100], lambda data: data[: len(data) // 2]])
def test_a_damaged_checkpoint_is_told_with_the_one_before(damage, work, tmp_path):
    run = shutil.copytree((work / "runs/demo/latest").resolve(), tmp_path / "run", symlinks=True)
    newest, before = (run / f"checkpoints/step={step:08d}.ckpt" for step in (20, 10))
    newest.write_bytes(damage(newest.read_bytes()))
    for file in (newest, run / "checkpoints/last.ckpt"):
        with pytest.raises(UserError) as error:
            read_checkpoint(file)
        assert "damaged or cut short" in str(error.value) and f"the one before it: {before}" in str(error.value)
        assert "mmap" not in str(error.value)


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
