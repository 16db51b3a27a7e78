"""Training on several devices, as a user starts it: two processes on one CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .conftest import call

ONE = ["--trainer.devices=1", "--trainer.strategy=auto", "--data.video_batch_size=4", "--data.image_batch_size=4"]
TWO = ["--trainer.devices=2", "--data.video_batch_size=2", "--data.image_batch_size=2"]
DDP = ["-c", "overlays/ddp", *TWO]
FSDP2 = ["-c", "overlays/fsdp2", *TWO, "--trainer.strategy.data_parallel_size=2"]
DEVICES = {"one": ONE, "ddp": DDP, "fsdp2": FSDP2}
"""A whole batch of 4 videos and 4 images, on one device or shared out over two."""

EXACT = [
    *("--trainer.accelerator=cpu", "--data.holdout=0", "--sampling=null", "--ema=null"),
    *("--model.backbone.dropout=0", "--model.scheduler.warmup_steps=0", "--model.scheduler.max_steps=100"),
    *("--trainer.gradient_clip_val=1.0", "--trainer.val_check_interval=null"),
]
"""Dropout is drawn by each rank for itself; without a warm-up the first steps are not too small to tell."""


ROUNDING = "--model.optimizer.eps=1e-6"
"""Adam divides a gradient by its size: where that is no more than rounding, it would make whole steps of it."""

ACCUMULATE = "--trainer.accumulate_grad_batches=2"


def run(*words: object, **environment: str) -> subprocess.CompletedProcess:
    words = [sys.executable, *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(words, capture_output=True, text=True, timeout=300, env=environment)


def snapvideo(*words: object) -> subprocess.CompletedProcess:
    return run("-m", "snapvideo.recipes.cli", *words)


def train(runs: Path, recipe: str, devices: str, steps: int, *words: object) -> Path:
    """The checkpoint of a training."""
    start = ["-c", recipe, "--smoke", *EXACT] if recipe else []
    words = [
        "fit",
        *start,
        *words,
        *DEVICES[devices],
        f"--trainer.max_steps={steps}",
        "--runs",
        runs,
        "--name",
        devices,
    ]
    if devices == "one":  # no second process is needed
        result = call(*words)
        assert result.code == 0, result.err
    else:
        result = snapvideo(*words)
        assert result.returncode == 0, result.stderr
    (run,) = runs.glob(f"*/*-{devices}")
    return run / "checkpoints/last.ckpt"


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def assert_same(one: Path, other: Path) -> None:
    mine, theirs = weights(one), weights(other)
    assert set(mine) == set(theirs)
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("recipe", "devices", "words"),
    [
        ("demo", "ddp", [ROUNDING]),
        pytest.param("demo", "fsdp2", [ROUNDING], marks=pytest.mark.slow),
        pytest.param("folders", "ddp", ["--model.optimizer=LAMB", ACCUMULATE], marks=pytest.mark.slow),
        pytest.param("folders", "fsdp2", ["--model.optimizer=LAMB", ACCUMULATE], marks=pytest.mark.slow),
        pytest.param("folders", "fsdp2", ["--model.optimizer=LAMB", "--model.compile=true"], marks=pytest.mark.slow),
    ],
)
def test_two_processes_reach_the_weights_of_one(recipe, devices, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*words, "--checkpoint.every_n_steps=1", "--checkpoint.keep=0"]
    one, two = (train(tmp_path / "runs", recipe, name, 3, *words) for name in ("one", devices))
    assert_same(one, two)
    before = weights(one.with_name("step=00000001.ckpt"))
    moved = max((value - before[name]).abs().max() for name, value in weights(one).items())
    assert moved > 1e-3  # steps are a hundred times as large as what they may differ by


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Trainings of two steps on each kind of devices, and of four on one that nothing interrupted."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        whole = train(folder / "whole", "folders", "one", 4)
        yield whole, {devices: train(folder / "runs", "folders", devices, 2) for devices in DEVICES}


@pytest.mark.slow
@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("before", DEVICES)
def test_a_checkpoint_goes_on_on_any_devices(before, devices, begun, tmp_path):
    whole, checkpoints = begun
    assert_same(train(tmp_path, "", devices, 4, "--resume", checkpoints[before]), whole)


@pytest.mark.slow
@pytest.mark.parametrize("devices", DEVICES)
def test_a_checkpoint_of_any_devices_samples_and_validates(devices, begun, tmp_path):
    checkpoint = begun[1][devices]
    folder = checkpoint.parent.parent
    sampled = call("sample", folder, "a red circle moves left", "--steps", "2", "-n", "1", "-o", tmp_path / "out")
    assert sampled.code == 0, sampled.err
    assert json.loads((tmp_path / "out/meta.jsonl").read_text())["prompt"] == "a red circle moves left"
    plain = ["--trainer.strategy=auto", "--trainer.devices=1"]
    validated = call("validate", "-c", folder, "--data.holdout", "4", *plain)
    assert validated.code == 0, validated.err
    assert "val/loss" in validated.out


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["demo", "folders"])
@pytest.mark.parametrize("devices", ["ddp", "fsdp2"])
def test_two_processes_validate_and_show_samples(recipe, devices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word for word in DEVICES[devices] if "batch_size" not in word]
    result = snapvideo("fit", "-c", recipe, "--smoke", *words, "--trainer.accelerator=cpu")
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "runs" / recipe).glob("2*")
    assert (folder / "checkpoints/last.ckpt").exists() and len(list(folder.glob("samples/step=*"))) == 2
    assert "val/loss" in (folder / "metrics.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(1, 2), (2, 1)])
def test_validation_is_the_same_on_any_number_of_devices(counts, begun, tmp_path):
    """4 held-out samples of each kind, in batches of 2 and of 1."""
    losses = []
    for count, size in zip(counts, (2, 1), strict=True):
        strategy = ["--trainer.strategy", "ddp" if count > 1 else "auto", "--trainer.devices", count]
        sizes = ["--data.video_batch_size", size, "--data.image_batch_size", size, "--data.holdout", 4]
        words = [*strategy, *sizes, "--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "1.0"]
        result = snapvideo("validate", "-c", begun[1]["one"].parent.parent, *words)
        assert result.returncode == 0, result.stderr
        rows = [line.split() for line in result.stdout.replace("│", " ").splitlines() if "val/loss" in line]
        losses.append({row[0]: float(row[1]) for row in rows})
    assert len(losses[0]) == 18  # of all, of videos and of images, each in all and of five bands
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_torchrun_makes_one_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["fit", "-c", "demo", "-c", "overlays/ddp", "--smoke", "--trainer.devices=2", "--trainer.accelerator=cpu"]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "snapvideo.recipes.cli"]
    result = run(*command, *words)
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "runs/demo").glob("2*")
    assert (folder / "checkpoints/last.ckpt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "runs"]
    resumed = run(*command, "fit", "--resume", folder, "--trainer.max_steps=22")
    assert resumed.returncode == 0, resumed.stderr
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 22
    assert list((tmp_path / "runs/demo").glob("2*")) == [folder]


@pytest.mark.slow
def test_data_that_does_not_look_at_the_rank_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alike.py").write_text(
        "from snapvideo.datamodules.shapes_data import Shapes\n\n\n"
        "class Alike(Shapes):\n"
        '    """The same for all."""\n\n'
        "    def _place(self):\n"
        "        return 0, 1\n"
    )
    words = [*EXACT, *DDP, "--trainer.max_steps=2", "--data=alike.Alike", "--data.num_videos=50"]
    result = snapvideo("fit", "-c", "demo", "--smoke", *words)
    assert result.returncode == 2
    assert "ranks 0 and 1 begin with the same samples" in result.stderr
    assert not list(tmp_path.glob("runs/demo/*/checkpoints/*"))


@pytest.mark.slow
def test_a_training_goes_on_on_other_devices(tmp_path, monkeypatch):
    """From two processes that share the weights to one, and back: with its averages."""
    monkeypatch.chdir(tmp_path)
    spread = ["-c", "overlays/fsdp2", "--trainer.devices", "2", "--trainer.strategy.data_parallel_size", "2"]
    first = ["-c", "demo", "--smoke", "--trainer.accelerator", "cpu", "--trainer.val_check_interval", "2"]
    first += ["--sampling", "null", "--post_hoc_ema.every_n_steps", "2"]
    resume = ["--resume", "runs/demo"]
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
