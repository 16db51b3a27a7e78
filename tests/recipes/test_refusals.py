"""Recipes that keep samples for a validation that never comes: refused just when Lightning would never validate."""

import itertools
import json

import pytest
import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, IterableDataset

from snapvideo.recipes.errors import UserError
from snapvideo.recipes.refusals import refuse_unused_holdout
from snapvideo.recipes.training import TRAINER_DEFAULTS

from .conftest import call


class Endless(IterableDataset):
    def __iter__(self):
        return itertools.repeat(torch.zeros(1))


class Counting(LightningModule):
    """Counts validations."""

    def __init__(self):
        super().__init__()
        self.layer, self.validations = torch.nn.Linear(1, 1), 0

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.validations += 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


CASES = [
    {"max_steps": 8, "val_check_interval": 8},
    {"max_steps": 8, "val_check_interval": 9},
    {"max_steps": 4, "val_check_interval": 8, "accumulate_grad_batches": 2},
    {"max_steps": 4, "val_check_interval": 9, "accumulate_grad_batches": 2},
    {"max_steps": 8},
    {"max_steps": 8, "val_check_interval": 0.5},
    {"max_steps": 8, "val_check_interval": 1},
    {"max_steps": 8, "val_check_interval": 1.0, "check_val_every_n_epoch": 1},
    {"max_steps": 8, "val_check_interval": 4, "check_val_every_n_epoch": 1},
    {"max_steps": 8, "val_check_interval": 4, "check_val_every_n_epoch": 2},
    {"max_steps": 8, "limit_train_batches": 3},
    {"max_steps": 2, "limit_train_batches": 3},
    {"max_steps": 6, "limit_train_batches": 3, "check_val_every_n_epoch": 2},
    {"max_steps": 5, "limit_train_batches": 3, "check_val_every_n_epoch": 2},
    {"max_steps": 8, "limit_train_batches": 4, "val_check_interval": 0.5, "check_val_every_n_epoch": 1},
    {"max_steps": 8, "limit_train_batches": 3, "val_check_interval": 2, "check_val_every_n_epoch": 2},
    {"max_steps": 4, "limit_train_batches": 3, "val_check_interval": 2, "check_val_every_n_epoch": 2},
    {"max_steps": 8, "limit_train_batches": 3, "val_check_interval": 5},
    {"max_steps": 8, "limit_train_batches": 3, "val_check_interval": 5, "check_val_every_n_epoch": 1},
    {"max_steps": 8, "limit_train_batches": 3, "val_check_interval": 5, "max_epochs": 1},
    {"max_steps": -1, "limit_train_batches": 3, "val_check_interval": 5, "max_epochs": 2},
    {"max_steps": 8, "fast_dev_run": True},
    {"max_steps": 8, "fast_dev_run": 2},
]
DEFAULTS = {
    "val_check_interval": None,
    "limit_train_batches": None,
    "limit_val_batches": None,
    "accumulate_grad_batches": 1,
    "max_epochs": None,
    "fast_dev_run": False,
}


def validates(settings, folder):
    """Whether Lightning validates, with training data without an end."""
    model = Counting()
    silent = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    try:
        trainer = Trainer(accelerator="cpu", default_root_dir=folder, **silent, **(TRAINER_DEFAULTS | settings))
        trainer.fit(model, DataLoader(Endless()), DataLoader(torch.zeros(4, 1)))
    except Exception:
        return False
    return model.validations > 0


def refused(settings, holdout=4):
    """What is said against settings; nothing if they are not refused."""
    trainer = Namespace(**(DEFAULTS | TRAINER_DEFAULTS | settings))
    try:
        refuse_unused_holdout(Namespace(trainer=trainer, data=Namespace(init_args=Namespace(holdout=holdout))))
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_what_lightning_never_validates_is_refused_and_nothing_else(settings, tmp_path):
    assert bool(refused(settings)) == (not validates(settings, tmp_path))
    assert not refused(settings, holdout=0)
    assert not refused(settings | {"limit_val_batches": 0})


@pytest.mark.parametrize(
    "settings", [{"max_steps": -1, "val_check_interval": 10**6}, {"val_check_interval": "00:01:00:00"}]
)
def test_an_end_that_is_a_time_is_not_known(settings):
    assert not refused({"max_steps": 8} | settings)


def test_a_user_is_told_both_values_and_what_to_set(work, tmp_path):
    words = ["fit", "-c", "demo", "--smoke", "--sampling=null", "--trainer.max_steps=2", "--runs", tmp_path]
    result = call(*words)
    assert result.code == 2 and not list(tmp_path.iterdir())
    for part in ("data.holdout=2", "trainer.val_check_interval=20", "trainer.max_steps=2"):
        assert part in result.err
    for fix in ("--trainer.val_check_interval 2", "--trainer.limit_val_batches 0"):
        assert fix in result.err
        assert call(*words, *fix.split()).code == 0
    assert call("validate", "-c", "runs/demo", "--trainer.max_steps=2").code == 0


def test_what_a_resumed_run_has_behind_it_counts(work, tmp_path):
    """It validates after batch 20, and has been there."""
    checkpoint = (work / "runs/demo/latest/checkpoints/last.ckpt").resolve()
    result = call("fit", "--resume", checkpoint, "--runs", tmp_path, "--trainer.max_steps=21", "--sampling=null")
    assert result.code == 0, result.err


def test_batches_that_repeat_are_refused(tmp_path):
    result = call("fit", "-c", "demo", "--smoke", "--trainer.overfit_batches=2", "--runs", tmp_path)
    assert result.code == 2 and "trainer.overfit_batches: " in result.err and "few samples" in result.err
    assert not list(tmp_path.iterdir())


def test_checkpoints_that_are_folders_are_refused(tmp_path):
    """What Lightning does if it is told nothing, as the overlay tells it."""
    strategy = {"class_path": "lightning.pytorch.strategies.ModelParallelStrategy"}
    strategy["init_args"] = {"data_parallel_size": 1, "tensor_parallel_size": 1}
    words = ["fit", "-c", "demo", "--smoke", "--sampling=null", "--trainer.limit_val_batches=0", "--runs", tmp_path]
    words += ["--trainer.max_steps=1", "--trainer.devices=1", "--trainer.strategy", json.dumps(strategy)]
    result = call(*words)
    assert result.code == 2 and "save_distributed_checkpoint=True" in result.err and not list(tmp_path.iterdir())
    fix = result.err.split("set it to false: ")[1].split()
    result = call(*words, *fix)
    assert result.code == 0, result.err
