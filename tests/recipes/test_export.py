import json
import pickle
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from snapvideo.components import load
from snapvideo.components.exported import CONFIG
from snapvideo.components.weights import WEIGHTS
from snapvideo.recipes import run as runs
from snapvideo.recipes import shipped
from snapvideo.recipes.run import load_model

from .conftest import PROMPT, call, videos_of

FILES = {"README.md", "config.json", "model.safetensors", "record.json"}


def test_names_are_the_same_on_both_sides():
    assert CONFIG == shipped.EXPORTED_CONFIG


def test_an_exported_model_is_the_run(work, exported):
    assert {file.name for file in exported.iterdir()} == FILES | {"samples"}
    own, back = load_model("runs/demo"), load(exported)
    assert not back.training
    checkpoint = torch.load("runs/demo/latest/checkpoints/last.ckpt", weights_only=True)
    for name, tensor in load_file(exported / WEIGHTS).items():  # the averaged weights, which are not those in training
        assert tensor.dtype == checkpoint["state_dict"][name].dtype
        assert torch.equal(tensor, checkpoint["state_dict"][name])
    assert torch.equal(videos_of(own), videos_of(back))
    assert torch.equal(videos_of(own), videos_of(load_model(exported)))


def test_nothing_is_unpickled(exported, monkeypatch, tmp_path):
    def never(*_args, **_settings):
        raise AssertionError("a pickle was read")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, never)
    load(exported)
    result = call("sample", exported, PROMPT, "-n", 1, "--steps", 1, "-o", tmp_path / "samples")
    assert result.code == 0, result.err


def test_nothing_of_the_machine_is_exported(work, exported):
    text = "".join(file.read_text() for file in exported.iterdir() if file.suffix in (".json", ".md"))
    for private in (str(work), str(Path.home()), "snapvideo fit", "data/smoke"):
        assert private not in text
    assert set(json.loads((exported / "config.json").read_text())) == {"model", "sampling"}


def test_the_config_is_strict_json(exported):
    """Readers other than Python's, the Hub's among them, know no Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    config = json.loads((exported / "config.json").read_text(), parse_constant=refuse)
    assert config["model"]["init_args"]["guidance"]["init_args"]["high"] == ".inf"
    assert load(exported).guidance.high == float("inf")


def test_the_record_says_how_it_was_trained(work, exported):
    record = json.loads((exported / "record.json").read_text())
    assert (record["steps"], record["clips"]) == (20, 80)
    assert record["data"]["video"] == {"samples": 24, "held_out": 2} and record["fps"] == [4, 8]
    assert record["half_life"] == 100 and record["device"] == "1 x cpu" and record["seconds"] >= 0
    assert record["versions"]["torch"] == torch.__version__


def test_the_card_is_one(work, exported):
    card = ModelCard.load(exported / "README.md")
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == (
        "apache-2.0",
        "snapvideo",
        "text-to-video",
    )
    assert "snapvideo" not in card.data.tags  # the library is named already
    for figure in ("4 frames of 16x16", "| steps | 20 |", "80 videos and images", "24 in the data", "100 steps"):
        assert figure in card.text
    images = re.findall(r"!\[\]\((.+?)\)", card.text)
    assert images == [f"samples/0{i}.gif" for i in range(3)]
    assert all(Image.open(exported / image).n_frames == 4 for image in images)
    (sheet,) = re.findall(r"\]\((samples/\S+png)\)", card.text)
    assert Image.open(exported / sheet).size[1] > 3 * 64


def test_the_samples_of_the_card_are_those_of_the_model(work, exported, tmp_path):
    words = ["--prompts", tmp_path / "prompts.txt", "-n", 1, "-o", tmp_path / "samples"]
    (tmp_path / "prompts.txt").write_text(PROMPT)
    assert call("sample", exported, *words).code == 0
    (gif,) = (tmp_path / "samples").glob("p00*.gif")
    assert gif.read_bytes() == (exported / "samples/00.gif").read_bytes()


def test_the_card_of_an_upsampler_shows_a_cascade(upsampler, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--model.backbone.shape.height=8", "--model.backbone.shape.width=8", "--ema=null", "--sampling=null"]
    few = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--data.holdout=0"]
    assert call("fit", "-c", "demo", "--smoke", *few, *small).code == 0
    result = call("export", upsampler, "up")
    assert result.code == 0, result.err
    assert "sample:   snapvideo sample BASE_RUN up " in result.out
    card = (tmp_path / "up/README.md").read_text()
    assert ModelCard(card).data.pipeline_tag == "video-to-video"
    assert "An upsampler of text-to-video diffusion: 4 frames of 16x16" in card and "videos of 8x8 pixels" in card
    for command in re.findall(r"^\$ snapvideo (.*)$", card, re.MULTILINE):
        result = call(*shlex.split(command.replace("BASE_RUN", "runs/demo/latest")), "-n", 1, "--steps", 1)
        assert result.code == 0, (command, result.err)
    assert call("export", "runs/demo/latest", "base", "--samples", 0).code == 0
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(code.replace("BASE_RUN", "base"), {})
    assert (tmp_path / "video.mp4").stat().st_size > 0
    result = call("export", upsampler, "other", "--samples", 2)
    assert result.code == 2 and "--samples 2: an upsampler makes none without a first stage" in result.err


def test_the_code_on_the_card_works(work, exported, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    assert f'load("{exported.name}")' in code
    exec(code.replace(f'load("{exported.name}")', f'load("{exported}")'), {})
    assert (tmp_path / "video.mp4").stat().st_size > 0


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2**-11), ("bfloat16", 2**-8), ("int8", 1 / 250)])
def test_smaller_weights(work, tmp_path, dtype, error):
    result = call("export", "runs/demo", tmp_path / "small", "--dtype", dtype, "--samples", 0)
    assert result.code == 0, result.err
    assert {file.name for file in (tmp_path / "small").iterdir()} == FILES
    assert "![" not in (tmp_path / "small/README.md").read_text()
    with safe_open(tmp_path / "small" / WEIGHTS, "pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}
    assert kinds == {"float16": {"F16"}, "bfloat16": {"BF16"}, "int8": {"F16", "F32", "I8"}}[dtype]
    own, small = load_model("runs/demo").state_dict(), load(tmp_path / "small").state_dict()
    assert list(own) == list(small)
    for name, tensor in own.items():
        assert (tensor - small[name]).abs().max() <= tensor.abs().max() * error + 1e-7, name


def test_an_average_of_ones_choice_and_prompts_of_ones_own(work, tmp_path):
    state = load_model("runs/demo").state_dict()
    name = next(name for name, tensor in state.items() if tensor.is_floating_point())
    state[name] = state[name] + 1
    runs.weights.write_weights(state, tmp_path / "average.safetensors")
    (tmp_path / "prompts.txt").write_text("a | pipe\nanother\n")
    words = ["--checkpoint", tmp_path / "average.safetensors", "--prompts", tmp_path / "prompts.txt"]
    result = call("export", "runs/demo", tmp_path / "out", *words)
    assert result.code == 0, result.err
    assert torch.equal(load(tmp_path / "out").state_dict()[name], state[name])
    card = (tmp_path / "out/README.md").read_text()
    assert "| a \\| pipe (0) | another (0) | a \\| pipe (1) | another (1) |" in card
    assert "license" not in card
    assert "device" in card and not any(row in card for row in ("| steps |", "| clips seen |", "| time |", "half-life"))


def test_the_record_is_that_of_the_checkpoint(work, tmp_path):
    checkpoint = torch.load("runs/demo/latest/checkpoints/last.ckpt", weights_only=True)
    checkpoint["global_step"] = 7
    checkpoint["callbacks"]["Record"]["clips"] = 28
    torch.save(checkpoint, tmp_path / "step=7.ckpt")
    words = ["--checkpoint", tmp_path / "step=7.ckpt", "--samples", 0]
    assert call("export", "runs/demo", tmp_path / "out", *words).code == 0
    record = json.loads((tmp_path / "out/record.json").read_text())
    assert (record["steps"], record["clips"]) == (7, 28)


def test_an_exported_model_can_be_exported(work, exported, tmp_path):
    result = call("export", exported, tmp_path / "again", "--samples", 0)
    assert result.code == 0, result.err
    for name in ("config.json", "record.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (exported / name).read_bytes()


@pytest.mark.parametrize("record", ["{", "[]", '{"fps": 8}', '{"fps": [0]}', '{"fps": ["8"]}'])
def test_a_record_that_is_none_is_told(exported, tmp_path, record):
    shutil.copytree(exported, tmp_path / "model")
    (tmp_path / "model/record.json").write_text(record)
    result = call("sample", tmp_path / "model", PROMPT, "--duration", 1, "-o", tmp_path / "samples")
    assert result.code == 2 and "record.json" in result.err and "Traceback" not in result.err


def test_whatever_takes_a_run_takes_it(work, exported, tmp_path):
    recipe = yaml.safe_load((work / "runs/demo/latest/config.yaml").read_text())
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({name: recipe[name] for name in ("data", "trainer")}))
    result = call("validate", "-c", exported, "-c", tmp_path / "data.yaml")
    assert result.code == 0, result.err
    own = call("validate", "-c", "runs/demo/latest")
    (loss,) = set(re.findall(r"val/loss\s+│?\s*([\d.]+)", result.out)) or [""]
    assert loss and loss in own.out
    one_step = ["--trainer.max_steps", 1, "--trainer.limit_val_batches", 0, "--sampling", "null"]
    result = call("fit", "-c", "demo", "--smoke", "--init_from", exported, *one_step, "--runs", tmp_path / "runs")
    assert result.code == 0, result.err
    result = call("fit", "-c", exported, "-c", tmp_path / "data.yaml", *one_step, "--runs", tmp_path / "runs")
    assert result.code == 0, result.err
    assert (tmp_path / "runs/tiny/latest").is_dir()


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ("report {exported}", "its training is not here"),
        ("fit --resume {exported}", "--init_from takes those"),
        ("ema {exported} --std 0.1", "no snapshots"),
        ("export runs/dmo new", "Did you mean 'runs/demo/latest'?"),
        ("export runs/demo {exported}", "not an empty folder"),
        ("export runs/demo new --samples -1", "--samples -1"),
        ("export runs/demo new --device warp", "--device warp"),
        ("export runs/demo new --checkpoint none.ckpt", "none.ckpt"),
        ("export runs/demo new --prompts none.txt", "none.txt"),
        ("export runs/demo new --private", "--push"),
        ("export runs/demo new --push tiny", "USER/NAME"),
        ("export runs/demo runs/demo/latest/config.yaml", "not an empty folder"),
        ("export runs/demo runs/demo/latest/config.yaml/x", "cannot be written"),
    ],
)
def test_mistakes(work, exported, words, fragment):
    result = call(*words.format(exported=exported).split())
    assert result.code == 2, result.err
    assert fragment in result.err and "Traceback" not in result.err
    assert not Path("new").exists() and not list(Path.cwd().glob(".new*"))


def test_a_run_without_prompts_needs_some(work, tmp_path):
    run = tmp_path / "run"
    shutil.copytree((work / "runs/demo/latest").resolve(), run, symlinks=True)
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"sampling": None, "ema": None}))
    result = call("export", run, tmp_path / "out")
    assert result.code == 2 and "--prompts FILE" in result.err
    assert call("export", run, tmp_path / "out", "--samples", 0).code == 0
    assert "averaged" not in (tmp_path / "out/README.md").read_text()


def test_a_frozen_encoder_is_a_reference(work, exported, encoders, tmp_path):
    """Its weights are not in the file; where its folder is of this machine, card and screen say so."""
    text = ["--model.conditioner", "Text", "--model.conditioner.encoder", encoders["t5"], "--model.conditioner.dim", 32]
    one_step = ["--trainer.max_steps", 1, "--trainer.limit_val_batches", 0, "--sampling", "null"]
    assert call("fit", "-c", "demo", "--smoke", *text, *one_step, "--runs", tmp_path / "runs").code == 0
    result = call("export", tmp_path / "runs/demo", tmp_path / "out", "--samples", 0)
    assert result.code == 0, result.err
    assert f"note:     its text encoder is a folder of this machine, {encoders['t5']}" in result.out
    card = (tmp_path / "out/README.md").read_text()
    assert "which is frozen and not among these weights" in card and "must name another copy" in card
    assert sum(name.startswith("conditioner") for name in load_file(tmp_path / "out" / WEIGHTS)) <= 4
    assert torch.equal(
        videos_of(load_model(tmp_path / "runs/demo", num_steps=1, device="cpu")),
        videos_of(load_model(tmp_path / "out", num_steps=1, device="cpu")),
    )


def test_parts_of_ones_own_are_named_on_the_card(work, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_sampler.py").write_text("from snapvideo.components import Heun\nclass Own(Heun): pass\n")
    run = tmp_path / "run"
    shutil.copytree((work / "runs/demo/latest").resolve(), run, symlinks=True)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("snapvideo.components.Heun", "own_sampler.Own"))
    result = call("export", run, tmp_path / "out", "--samples", 0)
    assert result.code == 0, result.err
    card = (tmp_path / "out/README.md").read_text()
    assert "`own_sampler.Own`, too, which is not of snapvideo" in card and "--trust" in card
    assert type(load(tmp_path / "out").sampler).__name__ == "Own"  # a folder of this machine
