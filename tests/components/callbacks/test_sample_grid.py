import io
import json

import av
import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader

from snapvideo.components.callbacks import EMA, SampleGrid
from snapvideo.components.interfaces import VideoShape

FILES = ["contact_sheet.png", "grid.gif", "grid.mp4", "meta.jsonl"]


class Tiny(LightningModule):
    """A model that trains and cannot sample."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        nn.init.ones_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean() + 0 * torch.rand(1).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Fake(Tiny):
    """Samples noise that moves to the right, drawn from each video's seed; remembers what it was asked."""

    shape = VideoShape(num_frames=6, height=16, width=24)

    def __init__(self):
        super().__init__()
        self.asked, self.weights, self.autocast = [], [], []

    def sample(self, prompt, seeds):
        assert len(prompt) == len(seeds) and not torch.is_grad_enabled()
        self.asked.append((prompt, list(seeds)))
        self.weights.append(self.layer.weight.detach().clone())
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        channels, num_frames, height, width = self.shape
        noise = [torch.rand(channels, height, width, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        stills = torch.stack(noise).mul(2).sub(1)
        return torch.stack([stills.roll(t, dims=-1) for t in range(num_frames)], dim=2)


def fit(folder, callbacks, max_steps=5, ckpt_path=None, model=None, **settings):
    model = model or Fake()
    settings = {"logger": TensorBoardLogger(folder, name="", version="run"), **settings}
    trainer = Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=callbacks,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(model, DataLoader(torch.ones(64, 3), batch_size=2), ckpt_path=ckpt_path)
    return model, trainer


def steps_in(folder):
    return sorted(path.name for path in (folder / "samples").iterdir())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    prompts = ["a red square", "un carré bleu"]
    model, _ = fit(folder, [SampleGrid(prompts, every_n_steps=2, num_per_prompt=3, seed=7, fps=12, batch_size=4)])
    return folder / "run", model


def test_grids_come_before_the_first_step_and_every_n_steps(run):
    folder, _ = run
    assert steps_in(folder) == ["step=00000000", "step=00000002", "step=00000004"]
    for step in (folder / "samples").iterdir():
        assert sorted(path.name for path in step.iterdir()) == FILES


def test_the_same_prompts_and_seeds_are_asked_each_time(run):
    _, model = run
    assert [seeds for _, seeds in model.asked] == [[7, 8, 9, 7], [8, 9]] * 3, "in chunks of 4"
    prompt = model.asked[0][0]
    assert prompt.captions == ["a red square"] * 3 + ["un carré bleu"]
    assert prompt.fps.tolist() == [12.0] * 4 and prompt.resolution.tolist() == [[16.0, 24.0]] * 4


def test_files_hold_the_videos(run):
    folder = run[0] / "samples" / "step=00000004"
    with av.open(str(folder / "grid.mp4")) as container:
        assert container.streams.video[0].average_rate == 12
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 4 * 6, "played four times"
    height, width = frames[0].shape[:2]
    assert (height, width) == (38 * 7, 80 * 7), "2 rows and 3 columns, enlarged to 256 pixels at least"
    gif = Image.open(folder / "grid.gif")
    assert gif.is_animated and gif.n_frames == 6 and gif.size == (width, height)
    sheet = np.array(Image.open(folder / "contact_sheet.png"))
    assert sheet.shape == (6 * (64 + 2) + 2, 6 * (96 + 2) + 2, 3), "6 videos and 6 frames"
    first = sheet[2 : 2 + 64 : 4, 2 : 2 + 96 : 4]
    noise = torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(7))
    assert np.abs(first - noise.permute(1, 2, 0).numpy() * 255).max() <= 1


def test_meta_says_what_is_where(run):
    lines = (run[0] / "samples" / "step=00000002" / "meta.jsonl").read_text(encoding="utf-8").splitlines()
    meta = [json.loads(line) for line in lines]
    assert [(m["row"], m["column"], m["seed"]) for m in meta] == [
        (row, column, 7 + column) for row in (0, 1) for column in (0, 1, 2)
    ]
    assert meta[3] == {
        "step": 2,
        "row": 1,
        "column": 0,
        "prompt": "un carré bleu",
        "seed": 7,
        "fps": 12,
        "weights": "raw",
    }


def test_tensorboard_gets_a_gif_that_moves(run):
    folder, _ = run
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0}).Reload()
    assert set(events.Tags()["images"]) == {"samples/grid", "samples/contact_sheet"}
    grids = events.Images("samples/grid")
    assert [event.step for event in grids] == [0, 2, 4]
    for event in grids:
        image = Image.open(io.BytesIO(event.encoded_image_string))
        assert image.format == "GIF" and image.n_frames == 6 and image.size == (event.width, event.height)
    sheet = events.Images("samples/contact_sheet")[-1]
    image = Image.open(io.BytesIO(sheet.encoded_image_string))
    assert image.format == "PNG" and image.size == (sheet.width, sheet.height)


@pytest.mark.parametrize("ema_first", [True, False])
def test_averaged_weights_are_sampled(tmp_path, ema_first):
    callbacks = [EMA(half_life=2.0), SampleGrid(["a"], every_n_steps=4)]
    model, _ = fit(tmp_path, callbacks if ema_first else callbacks[::-1], max_steps=4)
    # After training a module holds the average. A grid drawn before its update sees that of the step before.
    average, _ = fit(tmp_path / "other", [EMA(half_life=2.0)], max_steps=4 if ema_first else 3)
    raw, _ = fit(tmp_path / "raw", [], max_steps=4)
    assert torch.equal(model.weights[0], torch.ones(1, 3)), "the untrained model is its own average"
    assert torch.equal(model.weights[1], average.layer.weight)
    assert not torch.equal(model.weights[1], raw.layer.weight)
    meta = json.loads((tmp_path / "run/samples/step=00000004/meta.jsonl").read_text())
    assert meta["weights"] == "ema"


def test_training_is_the_same_with_and_without(tmp_path):
    states = []
    for callbacks in ([SampleGrid(["a", "b"], every_n_steps=1), EMA(2.0)], [EMA(2.0)]):
        torch.manual_seed(3)
        model, _ = fit(tmp_path, callbacks, max_steps=3)
        states.append((model.layer.weight.detach(), torch.get_rng_state()))
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_resumed_training_does_not_repeat_a_grid(tmp_path):
    _, trainer = fit(tmp_path, [SampleGrid(["a"], every_n_steps=2)], max_steps=2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    model, _ = fit(tmp_path, [SampleGrid(["a"], every_n_steps=2)], 4, ckpt_path=tmp_path / "a.ckpt")
    assert len(model.asked) == 1 and "step=00000004" in steps_in(tmp_path / "run")


def test_accumulated_batches_count_as_one_step(tmp_path):
    model, _ = fit(tmp_path, [SampleGrid(["a"], every_n_steps=1)], max_steps=3, accumulate_grad_batches=4)
    assert len(model.asked) == 4


def test_samples_have_the_precision_of_validation(tmp_path):
    model, _ = fit(tmp_path, [SampleGrid(["a"], every_n_steps=9)], max_steps=1, precision="bf16-mixed")
    assert model.autocast == [True]


def test_it_works_without_a_logger(tmp_path):
    fit(tmp_path, [SampleGrid(["a"] * 5, every_n_steps=9)], max_steps=1, logger=False)
    assert sorted(path.name for path in (tmp_path / "samples/step=00000000").iterdir()) == FILES


def test_a_model_that_cannot_sample_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Tiny: it has no"):
        fit(tmp_path, [SampleGrid(["a"], every_n_steps=1)], model=Tiny())


@pytest.mark.parametrize(
    "setting",
    [{"prompts": []}, {"every_n_steps": 0}, {"num_per_prompt": 0}, {"batch_size": 0}, {"fps": 0.0}, {"fps": np.inf}],
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        SampleGrid(**{"prompts": ["a"], "every_n_steps": 1, **setting})
