"""Trainings in which some losses or gradients are not finite, as users start them."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .conftest import call

PARTS = '''
import torch
from lightning.pytorch import Callback
from snapvideo.components import EDM, EMA


class Poisoned(EDM):
    """EDM that spoils some batches, counted from 0, on one rank or all."""

    def __init__(self, batches: list[int], kind: str = "loss", rank: int = -1) -> None:
        super().__init__(sigma_in=1.0, sigma_data=0.25)
        self.batches, self.kind, self.rank = batches, kind, rank

    def loss(self, predict, x, sigma, noise):
        losses = super().loss(predict, x, sigma, noise)
        here = self.training and self.rank in (-1, self.trainer.global_rank)
        if not here or self.trainer.fit_loop.batch_idx not in self.batches:
            return losses
        if self.kind == "gradient":  # of an infinite gradient alone
            losses.register_hook(lambda gradient: gradient * torch.inf)
        elif self.kind == "loss":
            losses = losses * torch.tensor([torch.nan, *[1.0] * (len(losses) - 1)])
        elif self.kind == "loss alone":  # its gradient is finite
            losses = losses + torch.inf
        return losses


class States(Callback):
    """Writes before every batch, counted from 0, all that training changes, and the keys of the batch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        average = {}
        for ema in (callback for callback in trainer.callbacks if isinstance(callback, EMA)):
            with ema.averaged(pl_module):
                average = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}
        state = {
            "weights": pl_module.state_dict(),
            "average": average,
            "optimizer": trainer.optimizers[0].state_dict()["state"],
            "schedule": trainer.lr_scheduler_configs[0].scheduler.last_epoch,
            "step": trainer.global_step,
            "keys": batch.keys,
        }
        torch.save(state, f"state-{trainer.global_rank}-{batch_idx}.pt")
'''
QUICK = ["--sampling=null", "--trainer.limit_val_batches=0", "--trainer.enable_model_summary=false"]
STATES = ["--trainer.callbacks+=parts.States"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, the current one, with the parts of these tests."""
    (tmp_path / "parts.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("parts", None)
    return tmp_path


def poisoned(batches, *words, kind="loss", rank=-1):
    """The words of a training that spoils these batches."""
    framework = json.dumps(
        {"class_path": "parts.Poisoned", "init_args": {"batches": batches, "kind": kind, "rank": rank}}
    )
    return ["fit", "-c", "demo", "--smoke", *QUICK, "--model.framework", framework, *words]


def state(batch, rank=0):
    return torch.load(f"state-{rank}-{batch}.pt", weights_only=False)


def same(one, other):
    """Whether two trees of tensors and numbers are bitwise equal."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def bad_steps(runs="runs"):
    (file,) = Path(runs).glob("demo/2*/bad_steps.jsonl")
    return [json.loads(line, parse_constant=pytest.fail) for line in file.read_text().splitlines()]


OPTIMIZERS = {
    "AdamW": ["--trainer.gradient_clip_val=1.0"],
    "LAMB": ["--model.optimizer=LAMB", "--trainer.gradient_clip_val=null"],
}


@pytest.mark.parametrize(("optimizer", "kind"), [("AdamW", "loss"), ("LAMB", "gradient"), ("AdamW", "loss alone")])
def test_a_bad_step_changes_nothing_but_counts(folder, caplog, optimizer, kind):
    words = [*OPTIMIZERS[optimizer], "--trainer.max_steps=5", *STATES]
    result = call(*poisoned([2], *words, kind=kind))
    assert result.code == 0, result.err
    assert caplog.text.count("is skipped") == caplog.text.count("step 3 is skipped") == 1
    before, bad, after = (state(batch) for batch in (2, 3, 4))
    for part in ("weights", "average", "optimizer"):
        assert same(before[part], bad[part]), part
        assert not same(bad[part], after[part]), part
    assert [s["step"] for s in (before, bad, after)] == [s["schedule"] for s in (before, bad, after)] == [2, 3, 4]
    seen = [state(batch)["keys"] for batch in range(5)]
    (line,) = bad_steps()
    assert line["step"] == 3 and line["rank"] == 0 and line["keys"] == seen[2]
    assert len(line["sigma"]) == len(line["losses"]) == 4 and all(sigma > 0 for sigma in line["sigma"])
    assert [isinstance(loss, str) for loss in line["losses"]] == [
        kind == "loss alone" or (kind == "loss" and i == 0) for i in range(4)
    ]
    assert (line["grad_norm"] in ("nan", "inf")) == (kind != "loss alone")
    assert call(*poisoned([], *words)).code == 0
    assert [state(batch)["keys"] for batch in range(5)] == seen  # the order of the data is that of a clean run


def test_a_bad_batch_spoils_its_whole_step_and_no_other(folder):
    """The second of two batches of a step; and what is resumed after it is what was not interrupted."""
    words = ["--trainer.accumulate_grad_batches=2", *STATES]
    assert call(*poisoned([7], *words, "--trainer.max_steps=6")).code == 0
    states = [state(batch) for batch in range(12)]
    for part in ("weights", "average", "optimizer"):
        assert all(same(states[6][part], states[batch][part]) for batch in (7, 8, 9)), part
        assert not same(states[9][part], states[10][part]), part
    (line,) = bad_steps()
    assert line["step"] == 4 and line["keys"] == states[6]["keys"] + states[7]["keys"]
    assert len(line["losses"]) == 8
    parts = ["--runs", "parts"]
    assert call(*poisoned([7], *words, *parts, "--trainer.max_steps=4")).code == 0  # the last step is the bad one
    result = call("fit", "--resume", "parts/demo", "--trainer.max_steps=6")
    assert result.code == 0, result.err
    for part in ("weights", "average", "optimizer"):
        assert same(states[11][part], state(11)[part]), part


def test_too_many_in_a_row_end_training_and_the_last_good_checkpoint_stays(folder):
    words = ["--checkpoint.every_n_steps=2", "--trainer.max_steps=20", "--max_bad_steps=3"]
    result = call(*poisoned([1, *range(4, 20)], *words))
    assert result.code == 4, result.err
    assert "Traceback" not in result.err and "3 steps in a row, 5 to 7" in result.err
    (run,) = Path("runs/demo").glob("2*")
    assert [file.name for file in (run / "checkpoints").iterdir() if not file.is_symlink()] == ["step=00000004.ckpt"]
    assert str(run / "checkpoints/step=00000004.ckpt") in result.err
    assert [line["step"] for line in bad_steps()] == [2, 5, 6, 7]
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    result = call("fit", "--resume", run, "--trainer.max_steps=5", "--model.framework.batches=[]")
    assert result.code == 0, result.err


def test_bad_steps_that_are_not_in_a_row_do_not_end_training(folder):
    result = call(*poisoned([1, 2, 4, 5, 7], "--max_bad_steps=3", "--trainer.max_steps=9"))
    assert result.code == 0, result.err
    assert len(bad_steps()) == 5


def test_the_norm_of_the_gradients_is_logged_before_clipping(folder):
    words = [*QUICK, "--trainer.max_steps=2", "--trainer.log_every_n_steps=1", "--trainer.gradient_clip_val"]
    norms = []
    for clip in (1.0e-3, 1.0e3):
        assert call("fit", "-c", "demo", "--smoke", *words, clip, "--runs", str(clip)).code == 0
        with (folder / f"{clip}/demo/latest/metrics.csv").open() as file:
            norms.append(float(next(csv.DictReader(file))["train/grad_norm"]))
    assert norms[0] == norms[1] > 1e-3


@pytest.mark.parametrize("value", ["0", "many"])
def test_a_wrong_limit_is_refused(value):
    result = call("fit", "-c", "demo", "--smoke", "--max_bad_steps", value)
    assert result.code == 2 and "max_bad_steps" in result.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "overlay", [["ddp"], ["fsdp2", "--trainer.strategy.data_parallel_size=2"]], ids=lambda overlay: overlay[0]
)
@pytest.mark.parametrize("kind", ["loss", "loss alone"])
def test_all_ranks_skip_what_one_must(folder, kind, overlay):
    """Rank 1 alone is spoilt; a loss whose gradient is finite shows nowhere else."""
    ranks = ["-c", f"overlays/{overlay[0]}", "--trainer.accelerator=cpu", "--trainer.devices=2", *overlay[1:]]
    words = poisoned([1, 3, 4], *ranks, *STATES, "--max_bad_steps=2", "--trainer.max_steps=8", kind=kind, rank=1)
    command = [sys.executable, "-m", "snapvideo.recipes.cli", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 4, result.stderr
    assert result.stderr.count("error: training has diverged") == 1
    assert [(line["step"], line["rank"]) for line in bad_steps()] == [(s, r) for s in (2, 4, 5) for r in (0, 1)]
    for line in bad_steps():
        assert any(isinstance(loss, str) for loss in line["losses"]) == (line["rank"] == 1)
    if overlay[0] == "ddp":
        for rank in (0, 1):
            weights = [state(batch, rank)["weights"] for batch in range(5)]
            assert same(weights[1], weights[2]) and same(weights[3], weights[4]) and not same(weights[2], weights[3])
        assert same(state(4, 0)["weights"], state(4, 1)["weights"])
