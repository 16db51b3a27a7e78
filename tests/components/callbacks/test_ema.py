import math

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from snapvideo.components.callbacks import EMA


class Tiny(LightningModule):
    """A linear model with an integer buffer that counts batches."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)
        self.register_buffer("count", torch.tensor(0))
        self.validated, self.fail_in_validation = [], False

    def training_step(self, batch, batch_idx):
        self.count += 1
        return self.layer(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.validated.append(self.layer.weight.detach().clone())
        if self.fail_in_validation and not self.trainer.sanity_checking:
            raise KeyboardInterrupt

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class History(Callback):
    """The training weights after every step."""

    def __init__(self):
        self.weights, self.counts = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights.append(pl_module.layer.weight.detach().clone())
        self.counts.append(int(pl_module.count))


def loader():
    data = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    return DataLoader(data, batch_size=2)


def make_trainer(folder, callbacks, max_steps, **settings):
    return Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=callbacks,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def closed_form(weights, half_life):
    """The average after each update: a weighted sum over all earlier weights."""
    decays = [0.0] + [min(2 ** (-1 / half_life), (1 + t) / (10 + t)) for t in range(1, len(weights))]
    shares = [(1 - decays[i]) * math.prod(decays[i + 1 :]) for i in range(len(weights))]
    assert sum(shares) == pytest.approx(1)
    return sum(share * w.double() for share, w in zip(shares, weights, strict=True)).float()


@pytest.mark.parametrize("half_life", [1.0, 6000.0])
def test_average_is_the_closed_form(tmp_path, half_life):
    model, history = Tiny(), History()
    make_trainer(tmp_path, [EMA(half_life), history], 15).fit(model, loader())
    torch.testing.assert_close(model.layer.weight.detach(), closed_form(history.weights, half_life))


def test_validation_sees_the_average_and_training_goes_on_untouched(tmp_path):
    model, history = Tiny(), History()
    trainer = make_trainer(tmp_path, [EMA(2.0), history], 12, val_check_interval=4, num_sanity_val_steps=0)
    trainer.fit(model, loader(), DataLoader(torch.randn(2, 3), batch_size=2))
    assert len(model.validated) == 3
    for step, seen in zip((4, 8, 12), model.validated, strict=True):
        torch.testing.assert_close(seen, closed_form(history.weights[:step], 2.0))
    plain, plain_history = Tiny(), History()
    make_trainer(tmp_path, [plain_history], 12).fit(plain, loader())
    for a, b in zip(history.weights, plain_history.weights, strict=True):
        assert torch.equal(a, b)


def test_integer_buffers_stay_whole(tmp_path):
    model, history = Tiny(), History()
    trainer = make_trainer(tmp_path, [EMA(), history], 9, val_check_interval=3)
    trainer.fit(model, loader(), DataLoader(torch.randn(2, 3), batch_size=2))
    assert history.counts == list(range(1, 10)) and int(model.count) == 9


def test_resume_is_bit_equal_and_counts_on(tmp_path):
    data = torch.ones(40, 3)  # equal batches: a resumed loader starts again

    def fit(folder, max_steps, ckpt_path=None):
        model, ema = Tiny(), EMA(3.0)
        checkpoint = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = make_trainer(folder, [ema, checkpoint], max_steps)
        trainer.fit(model, DataLoader(data, batch_size=2), ckpt_path=ckpt_path)
        return model

    whole = fit(tmp_path / "a", 10)
    fit(tmp_path / "b", 5)
    resumed = fit(tmp_path / "b", 10, tmp_path / "b" / "step=5.ckpt")
    assert torch.equal(whole.layer.weight, resumed.layer.weight)
    last = [torch.load(tmp_path / name / "step=10.ckpt", weights_only=True) for name in "ab"]
    assert [int(saved["averaging_state"]["n_averaged"]) for saved in last] == [10, 10]
    for part in ("state_dict", "current_model_state"):
        assert torch.equal(last[0][part]["layer.weight"], last[1][part]["layer.weight"])
    assert torch.equal(last[0]["state_dict"]["layer.weight"], whole.layer.weight)
    assert not torch.equal(last[0]["state_dict"]["layer.weight"], last[0]["current_model_state"]["layer.weight"])


def test_context_puts_the_average_in_place_and_the_weights_back(tmp_path):
    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            before = pl_module.layer.weight.detach().clone()
            with pytest.raises(RuntimeError), ema.averaged(pl_module):
                inside.append(pl_module.layer.weight.detach().clone())
                with ema.averaged(pl_module):  # already in place: nothing happens
                    assert torch.equal(inside[-1], pl_module.layer.weight)
                raise RuntimeError
            assert torch.equal(before, pl_module.layer.weight)

    model, history, ema, inside = Tiny(), History(), EMA(2.0), []
    make_trainer(tmp_path, [ema, history, Look()], 6).fit(model, loader())
    for step, seen in enumerate(inside, start=1):
        torch.testing.assert_close(seen, closed_form(history.weights[:step], 2.0))


def test_training_weights_can_be_looked_at_in_validation(tmp_path):
    """Side by side with the average, which is in place; afterwards both are what they were, to the bit."""

    class Both(Callback):
        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            before = pl_module.layer.weight.detach().clone()
            with pytest.raises(RuntimeError), ema.training_weights(pl_module):
                seen.append(pl_module.layer.weight.detach().clone())
                with ema.training_weights(pl_module):  # already in place: nothing happens
                    assert torch.equal(seen[-1], pl_module.layer.weight)
                with ema.averaged(pl_module):
                    assert torch.equal(before, pl_module.layer.weight)
                trainer.save_checkpoint(tmp_path / "inside.ckpt")
                raise RuntimeError
            assert torch.equal(before, pl_module.layer.weight)
            trainer.save_checkpoint(tmp_path / "outside.ckpt")

    model, history, ema, seen = Tiny(), History(), EMA(2.0), []
    trainer = make_trainer(tmp_path, [ema, history, Both()], 12, val_check_interval=4, num_sanity_val_steps=0)
    trainer.fit(model, loader(), DataLoader(torch.randn(2, 3), batch_size=2))
    assert len(seen) == 3
    for step, weights in zip((4, 8, 12), seen, strict=True):
        assert torch.equal(weights, history.weights[step - 1])
    plain, plain_history = Tiny(), History()
    make_trainer(tmp_path, [plain_history], 12).fit(plain, loader())
    assert all(torch.equal(a, b) for a, b in zip(history.weights, plain_history.weights, strict=True))
    for name in ("inside", "outside"):  # what is saved doesn't depend on what is in place
        saved = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        assert torch.equal(saved["current_model_state"]["layer.weight"], seen[-1])
        assert torch.equal(saved["state_dict"]["layer.weight"], model.layer.weight)


def test_tied_weights_stay_tied(tmp_path):
    class Tied(Tiny):
        def __init__(self):
            super().__init__()
            self.again = self.layer

    model, alone = Tied(), Tiny()
    checkpoint = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    make_trainer(tmp_path, [EMA(2.0), checkpoint], 4).fit(model, loader())
    make_trainer(tmp_path, [EMA(2.0)], 4).fit(alone, loader())
    saved = torch.load(tmp_path / "step=4.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(saved["layer.weight"], saved["again.weight"])
    assert torch.equal(saved["again.weight"], model.again.weight) and torch.equal(
        model.layer.weight, alone.layer.weight
    )


def test_context_does_nothing_outside_fit():
    model = Tiny()
    before = model.layer.weight.detach().clone()
    with EMA().averaged(model), EMA().training_weights(model):
        assert torch.equal(before, model.layer.weight)


def test_interruption_of_validation_saves_the_right_weights(tmp_path):
    model, history = Tiny(), History()
    model.fail_in_validation = True
    checkpoint = ModelCheckpoint(tmp_path, filename="interrupted", save_on_exception=True)
    trainer = make_trainer(tmp_path, [EMA(2.0), history, checkpoint], 12, val_check_interval=4)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer.fit(model, loader(), DataLoader(torch.randn(2, 3), batch_size=2))
    saved = torch.load(tmp_path / "interrupted.ckpt", weights_only=True)
    assert torch.equal(saved["current_model_state"]["layer.weight"], history.weights[3])
    torch.testing.assert_close(saved["state_dict"]["layer.weight"], closed_form(history.weights[:4], 2.0))


def test_half_precision_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="bf16-mixed"):
        make_trainer(tmp_path, [EMA()], 2, precision="bf16-true").fit(Tiny(), loader())


@pytest.mark.parametrize("half_life", [0.0, -1.0, math.nan])
def test_half_life_must_be_above_zero(half_life):
    with pytest.raises(ValueError, match="half_life"):
        EMA(half_life)
