import json
import math

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors import safe_open
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from snapvideo.components.callbacks import EMA, PostHocEMA
from snapvideo.components.power_average import exponent_of

from .test_ema import History, Tiny, loader, make_trainer


def snapshots(folder):
    return sorted((folder / "averages/snapshots").iterdir())


def closed_form(weights, std):
    """Each step's share is the integral of the power function over it."""
    edges = (torch.arange(len(weights) + 1, dtype=torch.float64) / len(weights)) ** (exponent_of(std) + 1)
    return sum(share * each.double() for share, each in zip(edges.diff(), weights, strict=True)).float()


def test_snapshots_are_the_closed_form_and_training_does_not_notice(tmp_path):
    model, history, plain, plain_history = Tiny(), History(), Tiny(), History()
    make_trainer(tmp_path, [PostHocEMA(4), history], 10).fit(model, loader())
    make_trainer(tmp_path / "plain", [plain_history], 10).fit(plain, loader())
    assert all(torch.equal(a, b) for a, b in zip(history.weights, plain_history.weights, strict=True))
    assert torch.equal(model.layer.weight, plain.layer.weight)
    names = [f"std={std}-step=000000{step}.safetensors" for std in ("0.050", "0.100") for step in ("04", "08", "10")]
    assert [file.name for file in snapshots(tmp_path)] == names  # the last step too, and nothing half written
    for file in snapshots(tmp_path):
        with safe_open(file, "pt") as opened:
            about = opened.metadata()
        weights = history.weights[: int(about["step"])]
        state = load_file(file)
        assert state.keys() == model.state_dict().keys()
        torch.testing.assert_close(state["layer.weight"], closed_form(weights, float(about["std"])))
        assert json.loads(about["buffers"]) == ["count"] and int(state["count"]) == len(weights)


@pytest.mark.parametrize("first", [EMA, PostHocEMA])
def test_ema_beside_it_changes_neither(tmp_path, first):
    callbacks = [EMA(2.0), PostHocEMA(3)]
    both = Tiny()
    validation = DataLoader(torch.randn(2, 3), batch_size=2)
    make_trainer(tmp_path / "both", callbacks if first is EMA else callbacks[::-1], 7, val_check_interval=2).fit(
        both, loader(), validation
    )
    alone = Tiny()
    make_trainer(tmp_path / "ema", [EMA(2.0)], 7).fit(alone, loader())
    make_trainer(tmp_path / "post_hoc", [PostHocEMA(3)], 7).fit(Tiny(), loader())
    assert torch.equal(both.layer.weight, alone.layer.weight)
    for one, other in zip(snapshots(tmp_path / "both"), snapshots(tmp_path / "post_hoc"), strict=True):
        assert torch.equal(load_file(one)["layer.weight"], load_file(other)["layer.weight"])


def fit(folder, max_steps, start=None, post_hoc=True, stds=(0.05, 0.10)):
    """Train on equal batches, since a resumed loader starts again; each step has a checkpoint and snapshots."""
    checkpoint = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    callbacks = [EMA(3.0), *([PostHocEMA(1, stds)] if post_hoc else []), History(), checkpoint]
    trainer = make_trainer(folder, callbacks, max_steps, val_check_interval=2)
    data = DataLoader(torch.ones(40, 3), batch_size=2)
    trainer.fit(Tiny(), data, DataLoader(torch.ones(2, 3)), ckpt_path=start)
    return callbacks[-2].weights


def test_a_resumed_training_goes_on_to_the_bit_and_overwrites_what_it_left(tmp_path):
    fit(tmp_path / "whole", 8)
    fit(tmp_path / "parts", 7)
    for file in snapshots(tmp_path / "parts"):
        if int(file.stem[-1]) > 5:
            file.write_bytes(b"of another way")
    (tmp_path / "parts/averages/snapshots/std=0.050-step=00000099.safetensors").write_bytes(b"of another way")
    fit(tmp_path / "parts", 8, tmp_path / "parts/step=5.ckpt")
    whole, parts = snapshots(tmp_path / "whole"), snapshots(tmp_path / "parts")
    assert [file.name for file in whole] == [file.name for file in parts]
    for one, other in zip(map(load_file, whole), map(load_file, parts), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    last = [torch.load(tmp_path / name / "step=8.ckpt", weights_only=True) for name in ("whole", "parts")]
    for part in ("state_dict", "current_model_state", "post_hoc_ema.std=0.05", "post_hoc_ema.std=0.1"):
        assert torch.equal(last[0][part]["layer.weight"], last[1][part]["layer.weight"])


def whole(folder):
    """The last snapshot of a training that had averages from its first step on."""
    fit(folder, 2)
    return snapshots(folder)[-1]


def test_from_a_checkpoint_without_averages_weights_count_as_if_they_had_stood_still(tmp_path):
    before = fit(tmp_path / "a", 5, post_hoc=False)
    after = fit(tmp_path / "b", 8, tmp_path / "a/step=5.ckpt")
    expected = closed_form([before[-1]] * 5 + after, 0.1)
    last = snapshots(tmp_path / "b")[-1]
    torch.testing.assert_close(load_file(last)["layer.weight"], expected)
    fit(tmp_path / "c", 9, tmp_path / "b/step=8.ckpt")
    for file, begun in ((last, "5"), (snapshots(tmp_path / "c")[-1], "5"), (whole(tmp_path / "d"), "0")):
        with safe_open(file, "pt") as opened:
            assert opened.metadata()["begun"] == begun


def test_other_lengths_than_those_of_the_checkpoint_are_refused(tmp_path):
    fit(tmp_path, 3)
    with pytest.raises(ValueError, match=r"stds is \[0.05, 0.2\].*\[0.05, 0.1\]"):
        fit(tmp_path, 4, tmp_path / "step=3.ckpt", stds=(0.05, 0.2))


def test_several_batches_may_make_a_step(tmp_path):
    class Steps(Callback):
        """The training weights after every step of two batches."""

        def __init__(self):
            self.weights = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx % 2:
                self.weights.append(pl_module.layer.weight.detach().clone())

    steps = Steps()
    make_trainer(tmp_path, [PostHocEMA(4), steps], 4, accumulate_grad_batches=2).fit(Tiny(), loader())
    assert len(snapshots(tmp_path)) == 2
    torch.testing.assert_close(load_file(snapshots(tmp_path)[1])["layer.weight"], closed_form(steps.weights, 0.1))


def test_a_snapshot_that_cannot_be_written_does_not_end_training(tmp_path, caplog):
    (tmp_path / "averages").touch()  # where the folder should be
    model = Tiny()
    make_trainer(tmp_path, [PostHocEMA(2, [0.1])], 4).fit(model, loader())
    assert "step 2 has no snapshot of length 0.1" in caplog.text and "step 4" in caplog.text


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"every_n_steps": 0}, "every_n_steps is 0"),
        ({"every_n_steps": 1, "stds": []}, "stds is"),
        ({"every_n_steps": 1, "stds": [0.1, 0.1]}, "stds is"),
        ({"every_n_steps": 1, "stds": [0.1, 0.3]}, "std is 0.3"),
        ({"every_n_steps": 1, "stds": [math.nan]}, "std is nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        PostHocEMA(**settings)
