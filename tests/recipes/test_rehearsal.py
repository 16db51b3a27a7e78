"""The rehearsal before the first step: it leaves nothing behind, and finds what memory is too small for."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from snapvideo.components import VideoDiffusion
from snapvideo.recipes.rehearsal import Rehearsal

from .conftest import call

PARTS = '''
import random
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback
from snapvideo.components import EDM, FIT, UNet
from snapvideo.components.interfaces import VideoShape


class Generators(Callback):
    """Writes all global random states as the first step finds them."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not Path("generators.pt").exists():
            torch.save([torch.get_rng_state(), random.getstate(), np.random.get_state()], "generators.pt")


class Counting(UNet):
    """A U-Net that counts its forward passes in a buffer, and draws from generators of all kinds."""

    def __init__(self, shape: VideoShape, dim_condition: int = 128) -> None:
        super().__init__(shape, patch=(2, 2, 2), channels=16, multipliers=[1], num_blocks=1, attention_levels=[],
                         dim_condition=dim_condition, head_dim=16, dropout=0.1)
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(3), persistent=False)

    def forward(self, x, c_noise, condition, state=None):
        if self.training:
            self.seen += 1
            self.mean = self.mean.lerp(x.detach().mean((0, 2, 3, 4)), 0.1)
        prediction, state = super().forward(x, c_noise, condition, state)
        return prediction + self.mean.sum() * (torch.rand(()) + random.random() + np.random.rand()), state


class Hungry(EDM):
    """EDM that finds no memory in one kind of work, from a batch on, on one rank or all."""

    def __init__(self, work: str, batch: int = -1, rank: int = -1, real: bool = False) -> None:
        super().__init__(sigma_in=1.0, sigma_data=0.25)
        self.work, self.batch, self.rank, self.real, self.measured = work, batch, rank, real, False

    def take(self, work: str) -> None:
        loop = self.trainer.fit_loop
        if work != self.work or loop.batch_idx < self.batch or self.rank not in (-1, self.trainer.global_rank):
            return
        if self.real:
            torch.empty(1 << 50)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of ...")

    def loss(self, predict, x, sigma, noise):
        self.take("training" if self.training else "validation")
        self.measured = True
        losses = super().loss(predict, x, sigma, noise)
        self.measured = False
        return losses

    def denoise(self, predict, y, sigma):
        if not self.measured:
            self.take("sampling")
        return super().denoise(predict, y, sigma)
'''
MEASURED = ("perf/", "data_wait")
CLOCKS = (".callbacks.Record.", ".callbacks.Timer.")
FIT = ["-c", "overlays/demo_fit", "--model.backbone.dropout=0.1", "--model.backbone.self_conditioning=0.9"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, the current one, with the parts of these tests."""
    (tmp_path / "parts.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("parts", None)
    return tmp_path


def leaves(tree, place=""):
    """(place, value) of all that is in a checkpoint."""
    if isinstance(tree, dict | list | tuple):
        for name, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(part, f"{place}.{name}")
    else:
        yield place, tree


def end_of(runs):
    """A training's checkpoint and metrics, without what depends on the clock, and the random states at its start."""
    run = Path(runs, "demo/latest")
    checkpoint = dict(leaves(torch.load(run / "checkpoints/last.ckpt", weights_only=True)))
    checkpoint = {place: value for place, value in checkpoint.items() if not place.startswith(CLOCKS)}
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    metrics = [{name: value for name, value in row.items() if not name.startswith(MEASURED)} for row in rows]
    generators = dict(leaves(torch.load("generators.pt", weights_only=False)))
    Path("generators.pt").unlink()
    return checkpoint | {str(i): row for i, row in enumerate(metrics)} | generators


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


@pytest.mark.parametrize("backbone", [["--model.backbone=parts.Counting"], FIT], ids=["buffers", "fit"])
def test_a_rehearsed_training_is_bitwise_one_that_was_not(folder, backbone, monkeypatch):
    """From the start and from a checkpoint on, with validation and samples on the way."""
    words = ["fit", "-c", "demo", *backbone[:2], "--smoke", *backbone[2:]]
    if backbone is FIT:
        words += ["--model.backbone.shape={num_frames: 4, height: 16, width: 16}"]
    words += [
        "--trainer.val_check_interval=2",
        "--trainer.log_every_n_steps=1",
        "--trainer.callbacks+=parts.Generators",
    ]
    calls, rehearse = [], Rehearsal.on_train_start

    def train(runs, rehearsed):
        def on_train_start(self, *arguments):
            calls.append(runs)
            if rehearsed:
                rehearse(self, *arguments)

        monkeypatch.setattr(Rehearsal, "on_train_start", on_train_start)
        ends = []
        for steps, start in (3, [*words, "--runs", runs]), (5, ["fit", "--resume", f"{runs}/demo"]):
            result = call(*start, f"--trainer.max_steps={steps}")
            assert result.code == 0, result.err
            ends.append(end_of(runs))
        return ends

    for plain, rehearsed in zip(train("plain", False), train("rehearsed", True), strict=True):
        assert plain.keys() == rehearsed.keys()
        assert [place for place in plain if not equal(plain[place], rehearsed[place])] == []
    assert calls == ["plain"] * 2 + ["rehearsed"] * 2


def hungry(work, *words, **settings):
    framework = json.dumps({"class_path": "parts.Hungry", "init_args": {"work": work, **settings}})
    return ["fit", "-c", "demo", "--smoke", "--model.framework", framework, *words]


KNOBS = {
    "training": "--data.video_batch_size 1 --data.image_batch_size 1 --trainer.accumulate_grad_batches 2",
    "validation": "--trainer.limit_val_batches 0",
    "sampling": "--sampling.batch_size 2",
}
NAMES = {"training": "the training step", "validation": "validation", "sampling": "sampling"}


@pytest.mark.parametrize("work", ["training", "validation", "sampling"])
def test_too_little_memory_is_found_before_the_first_step(folder, work):
    words = ["--sampling.num_per_prompt=4"]
    result = call(*hungry(work, *words))
    assert result.code == 2
    assert f"out of memory in {NAMES[work]}, on 4 clips of 4x16x16" in result.err
    assert "in the rehearsal" in result.err and "Tried to allocate 2.00 GiB" in result.err and " GB: " in result.err
    knobs = [line.strip() for line in result.err.splitlines() if line.startswith("  --")]
    assert 1 <= len(knobs) <= 3 and any(knob.startswith(KNOBS[work]) for knob in knobs)
    assert "Traceback" not in result.err and len(result.err.splitlines()) < 20
    assert not Path("runs").exists() or not list(Path("runs").glob("**/*"))
    assert "Traceback" in call(*hungry(work, *words), "--debug").err


def test_what_a_knob_says_can_be_set(folder):
    result = call(*hungry("training"))
    (line,) = [line for line in result.err.splitlines() if "video_batch_size" in line]
    result = call("fit", "-c", "demo", "--smoke", "--sampling=null", *line.split())
    assert result.code == 0, result.err


def test_too_little_memory_later_is_told_alike(folder):
    """A real refusal of the allocator, in the third step; what was trained so far is kept."""
    result = call(*hungry("training", "--sampling=null", batch=2, real=True))
    assert result.code == 2
    assert "out of memory in the training step, on 4 clips of 4x16x16" in result.err
    assert "rehearsal" not in result.err and "allocate memory" in result.err
    assert torch.load("runs/demo/latest/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


def test_validation_of_the_training_weights_is_validation(folder, monkeypatch):
    losses, calls = VideoDiffusion._losses_by_band, []

    def third(self, batch):
        calls.append(batch)
        if len(calls) == 3:  # after that of the rehearsal and that of the average
            raise torch.OutOfMemoryError("CUDA out of memory")
        return losses(self, batch)

    monkeypatch.setattr(VideoDiffusion, "_losses_by_band", third)
    quick = ["--sampling=null", "--trainer.max_steps=1", "--trainer.val_check_interval=1"]
    result = call("fit", "-c", "demo", "--smoke", *quick)
    assert result.code == 2 and "out of memory in validation, on 4 clips" in result.err, result.err


def test_a_resumed_training_is_rehearsed_too(work, folder):
    run = shutil.copytree((work / "runs/demo/latest").resolve(), folder / "runs/demo/run")
    checkpoints = {path: path.stat().st_mtime_ns for path in run.glob("checkpoints/*")}
    result = call("fit", "--resume", run, *hungry("sampling")[4:], "--trainer.max_steps=22")
    assert result.code == 2 and "out of memory in sampling" in result.err and "in the rehearsal" in result.err
    assert checkpoints == {path: path.stat().st_mtime_ns for path in run.glob("checkpoints/*")}


def test_too_little_memory_in_another_verb_is_told_alike(work, folder):
    run = (work / "runs/demo/latest").resolve()
    result = call("test", "-c", run, *hungry("sampling")[4:])
    assert result.code == 2, result.err
    assert "out of memory in sampling, on 4 clips of 4x16x16" in result.err and "rehearsal" not in result.err
    assert KNOBS["training"] in result.err and "--sampling" not in result.err


def test_the_largest_batch_is_what_the_loader_gives(folder):
    """Shapes and types of the made-up batch are those of a real one, whether steps are mixed or take turns."""
    from snapvideo.components.interfaces import VideoShape
    from snapvideo.datamodules import JointData, Shapes

    shape = VideoShape(4, 16, 16)
    data = Shapes(shape, folder / "shapes", 6, 6, 16, video_batch_size=3, image_batch_size=2, holdout=1)
    data.prepare_data()
    data.setup("fit")
    for real, made in zip(next(iter(data.train_dataloader())), data.largest_batch(), strict=True):
        for name in ("video", "fps", "resolution"):
            one, other = getattr(real, name), getattr(made, name)
            assert one.shape == other.shape and one.stride() == other.stride() and one.dtype == other.dtype, name
        assert list(real.is_image) == list(made.is_image)
        assert len(made.captions[0]) >= max(map(len, real.captions))
    assert [len(batch) for batch in data.largest_batch(training=False)] == [1, 1]
    turns = JointData(shape, folder / "shapes/videos", folder / "shapes/images", 3, 2, image_steps=0.5)
    assert [len(batch) for batch in turns.largest_batch()] == [3]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [-1, 0, 1])
def test_one_process_speaks_for_all(folder, rank):
    ranks = ["-c", "overlays/ddp", "--trainer.accelerator=cpu", "--trainer.devices=2", "--sampling=null"]
    command = [sys.executable, "-m", "snapvideo.recipes.cli", *hungry("training", *ranks, batch=1, rank=rank)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert result.stderr.count("out of memory in the training step") == 1
    assert ("rank 1: out of memory" in result.stderr) == (rank == 1)
    assert result.returncode == 2 if rank < 1 else result.returncode != 0  # the first process fails for want of it
