import contextlib
import json
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub import constants as hub_constants
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from snapvideo.components import exported, load
from snapvideo.components.weights import WEIGHTS
from snapvideo.recipes import run as runs
from snapvideo.recipes import shipped
from snapvideo.recipes.generation import Generation
from snapvideo.recipes.requests import Request
from snapvideo.recipes.run import find_run, load_model
from snapvideo.recipes.stages import Stages

from ..hub import Hub, Repo
from .conftest import call

PROMPT = "a red circle moves left"
FILES = {"README.md", "config.json", "model.safetensors", "record.json"}


def videos_of(model):
    asked = [Request(PROMPT, 0, 8.0, "one"), Request("a blue square", 1, 8.0, "other")]
    return Generation(Stages([model])).predict_step(asked, 0)["videos"]


@pytest.fixture(scope="module")
def out(trained, tmp_path_factory):
    """The run, exported."""
    folder = tmp_path_factory.mktemp("export") / "tiny"
    with contextlib.chdir(trained[0]):
        result = call("export", "runs/demo/latest", folder, "--samples", 3, "--license", "apache-2.0")
    assert result.code == 0, result.err
    assert "exported:" in result.out and f"sample {folder}" in result.out
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub, and a user who is logged in there."""
    server = Hub()
    for name, value in {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(hub_constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    yield server
    server.close()
    assert server.unknown == []


@pytest.fixture
def pushed(hub, out):
    """The exported model, on the Hub."""
    files = {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()}
    hub.repos["user/tiny"] = Repo(files=files)
    return hub.repos["user/tiny"]


def test_names_are_the_same_on_both_sides():
    assert exported.CONFIG == shipped.EXPORTED_CONFIG


def test_an_exported_model_is_the_run(work, out):
    assert {file.name for file in out.iterdir()} == FILES | {"samples"}
    own, back = load_model("runs/demo"), load(out)
    assert not back.training
    checkpoint = torch.load("runs/demo/latest/checkpoints/last.ckpt", weights_only=True)
    for name, tensor in load_file(out / WEIGHTS).items():  # the averaged weights, which are not those in training
        assert tensor.dtype == checkpoint["state_dict"][name].dtype
        assert torch.equal(tensor, checkpoint["state_dict"][name])
    assert torch.equal(videos_of(own), videos_of(back))
    assert torch.equal(videos_of(own), videos_of(load_model(out)))


def test_nothing_is_unpickled(out, monkeypatch, tmp_path):
    def never(*_args, **_settings):
        raise AssertionError("a pickle was read")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, never)
    load(out)
    result = call("sample", out, PROMPT, "-n", 1, "--steps", 1, "-o", tmp_path / "samples")
    assert result.code == 0, result.err


def test_nothing_of_the_machine_is_exported(work, out):
    text = "".join(file.read_text() for file in out.iterdir() if file.suffix in (".json", ".md"))
    for private in (str(work), str(Path.home()), "snapvideo fit", "data/smoke"):
        assert private not in text
    assert set(json.loads((out / "config.json").read_text())) == {"model", "sampling"}


def test_the_config_is_strict_json(out):
    """Readers other than Python's, the Hub's among them, know no Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    config = json.loads((out / "config.json").read_text(), parse_constant=refuse)
    assert config["model"]["init_args"]["guidance"]["init_args"]["high"] == ".inf"
    assert load(out).guidance.high == float("inf")


def test_the_record_says_how_it_was_trained(work, out):
    record = json.loads((out / "record.json").read_text())
    assert (record["steps"], record["clips"]) == (20, 80)
    assert record["data"]["video"] == {"samples": 24, "held_out": 2} and record["fps"] == [4, 8]
    assert record["half_life"] == 100 and record["device"] == "1 x cpu" and record["seconds"] >= 0
    assert record["versions"]["torch"] == torch.__version__


def test_the_card_is_one(work, out):
    card = ModelCard.load(out / "README.md")
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
    assert all(Image.open(out / image).n_frames == 4 for image in images)
    (sheet,) = re.findall(r"\]\((samples/\S+png)\)", card.text)
    assert Image.open(out / sheet).size[1] > 3 * 64


def test_the_samples_of_the_card_are_those_of_the_model(work, out, tmp_path):
    words = ["--prompts", tmp_path / "prompts.txt", "-n", 1, "-o", tmp_path / "samples"]
    (tmp_path / "prompts.txt").write_text(PROMPT)
    assert call("sample", out, *words).code == 0
    (gif,) = (tmp_path / "samples").glob("p00*.gif")
    assert gif.read_bytes() == (out / "samples/00.gif").read_bytes()


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


def test_the_code_on_the_card_works(work, out, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    assert f'load("{out.name}")' in code
    exec(code.replace(f'load("{out.name}")', f'load("{out}")'), {})
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


def test_an_exported_model_can_be_exported(work, out, tmp_path):
    result = call("export", out, tmp_path / "again", "--samples", 0)
    assert result.code == 0, result.err
    for name in ("config.json", "record.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_a_model_of_the_hub_is_exported_with_its_record(hub, pushed, tmp_path):
    result = call("export", "user/tiny", tmp_path / "again", "--samples", 0)
    assert result.code == 0, result.err
    assert (tmp_path / "again/record.json").read_bytes() == pushed.files["record.json"]
    del pushed.files["record.json"]  # another commit
    assert call("export", "user/tiny", tmp_path / "without", "--samples", 0).code == 0
    assert json.loads((tmp_path / "without/record.json").read_text()) == {}


def test_a_long_video_is_that_of_the_run(work, hub, pushed, out, tmp_path):
    """It climbs the frame rates of the training, wherever the model lies."""
    words = [PROMPT, "-n", 1, "--steps", 1, "--duration", 1, "--fps", 8]
    files = []
    for name, run in {"run": "runs/demo/latest", "folder": out, "hub": "user/tiny"}.items():
        result = call("sample", run, *words, "-o", tmp_path / name)
        assert result.code == 0, result.err
        (line,) = map(json.loads, (tmp_path / name / "meta.jsonl").read_text().splitlines())
        assert line["rates"] == [4.0, 8.0]
        files.append((tmp_path / name / line["file"]).read_bytes())
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("record", ["{", "[]", '{"fps": 8}', '{"fps": [0]}', '{"fps": ["8"]}'])
def test_a_record_that_is_none_is_told(out, tmp_path, record):
    shutil.copytree(out, tmp_path / "model")
    (tmp_path / "model/record.json").write_text(record)
    result = call("sample", tmp_path / "model", PROMPT, "--duration", 1, "-o", tmp_path / "samples")
    assert result.code == 2 and "record.json" in result.err and "Traceback" not in result.err


def test_whatever_takes_a_run_takes_it(work, out, tmp_path):
    recipe = yaml.safe_load((work / "runs/demo/latest/config.yaml").read_text())
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({name: recipe[name] for name in ("data", "trainer")}))
    result = call("validate", "-c", out, "-c", tmp_path / "data.yaml")
    assert result.code == 0, result.err
    own = call("validate", "-c", "runs/demo/latest")
    (loss,) = set(re.findall(r"val/loss\s+│?\s*([\d.]+)", result.out)) or [""]
    assert loss and loss in own.out
    one_step = ["--trainer.max_steps", 1, "--trainer.limit_val_batches", 0, "--sampling", "null"]
    result = call("fit", "-c", "demo", "--smoke", "--init_from", out, *one_step, "--runs", tmp_path / "runs")
    assert result.code == 0, result.err
    result = call("fit", "-c", out, "-c", tmp_path / "data.yaml", *one_step, "--runs", tmp_path / "runs")
    assert result.code == 0, result.err
    assert (tmp_path / "runs/tiny/latest").is_dir()


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ("report {out}", "its training is not here"),
        ("fit --resume {out}", "--init_from takes those"),
        ("ema {out} --std 0.1", "no snapshots"),
        ("export runs/dmo new", "Did you mean 'runs/demo/latest'?"),
        ("export runs/demo {out}", "not an empty folder"),
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
def test_mistakes(work, out, words, fragment):
    result = call(*words.format(out=out).split())
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


def test_a_frozen_encoder_is_a_reference(work, out, encoders, tmp_path):
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


def test_push_and_load_from_the_hub(work, hub, out, tmp_path, monkeypatch):
    words = ["--samples", 1, "--push", "user/tiny", "--private"]
    result = call("export", "runs/demo", tmp_path / "out", *words)
    assert result.code == 0, result.err
    assert f"pushed:   {hub.url}/user/tiny" in result.out
    repo = hub.repos["user/tiny"]
    assert repo.private
    there = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert set(repo.files) == there and "model.safetensors" in repo.large
    assert 'load("user/tiny")' in repo.files["README.md"].decode()

    own = videos_of(load_model("runs/demo"))
    assert torch.equal(own, videos_of(load("user/tiny")))
    fetched = {name for name in repo.files if f"GET /user/tiny/resolve/{repo.commit}/{name}" in hub.asked}
    assert fetched <= {"config.json", "record.json", "model.safetensors"}  # and no card or samples
    result = call("sample", "user/tiny", PROMPT, "-n", 1, "--steps", 1)
    assert result.code == 0, result.err
    assert list((work / "samples").glob("*/grid.gif"))  # not in the cache of the Hub

    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)  # what was fetched is there
    assert torch.equal(own, videos_of(load("user/tiny")))


def test_a_second_push_replaces_the_first(work, hub, tmp_path):
    for name in ("one", "two"):
        words = ["--samples", 0, "--push", "user/tiny", "--dtype", "float16" if name == "two" else "float32"]
        assert call("export", "runs/demo", tmp_path / name, *words).code == 0
    repo = hub.repos["user/tiny"]
    assert repo.files["model.safetensors"] == (tmp_path / "two/model.safetensors").read_bytes()
    assert not repo.private


@pytest.mark.parametrize(
    ("token", "name", "fragment"),
    [
        (None, "user/tiny", "without a token"),
        ("hf_unknown", "user/tiny", "no right to"),
        ("hf_other", "user/tiny", "no right to"),
        ("hf_writer", "user/ti--ny", "Cannot have -- or .."),
    ],
)
def test_who_may_not_push_is_told_before_the_work(work, hub, monkeypatch, tmp_path, token, name, fragment):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    result = call("export", "runs/demo", tmp_path / "out", "--push", name)
    assert result.code == 2, result.err
    assert fragment in result.err and "Traceback" not in result.err
    assert not (tmp_path / "out").exists() and not hub.repos


@pytest.mark.parametrize("wrong", [["{out}"], ["new", "--samples", -1], ["new", "--prompts", "none.txt"]])
def test_a_mistake_makes_no_place_on_the_hub(work, hub, out, wrong):
    words = [str(word).format(out=out) for word in wrong]
    assert call("export", "runs/demo", *words, "--push", "user/tiny").code == 2
    assert hub.asked == []


def test_a_push_that_fails_on_the_way_leaves_the_folder(work, hub, monkeypatch, tmp_path):
    call("export", "runs/demo", tmp_path / "one", "--samples", 0, "--push", "user/tiny")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    result = call("export", "runs/demo", tmp_path / "two", "--samples", 0, "--push", "user/tiny")
    assert result.code == 2 and "no right to" in result.err
    assert f"hf upload user/tiny {tmp_path / 'two'}" in result.err
    assert (tmp_path / "two/README.md").is_file()


@pytest.mark.parametrize(
    "verb", ["sample user/none x", "export user/none new", "fit -c demo --smoke --init_from user/none"]
)
def test_what_is_not_on_the_hub_is_told(work, hub, verb):
    result = call(*verb.split())
    assert result.code == 2, result.err
    assert "user/none cannot be fetched from the Hub: there is no such model, or it is private" in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_model_of_others_alone_is_not_seen(hub, pushed, monkeypatch):
    pushed.private = True
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(ValueError, match="or it is private"):
        load("user/tiny")


def test_another_kind_of_model_is_told_before_its_weights_are_fetched(hub):
    hub.repos["user/bert"] = Repo(files={"config.json": b'{"model_type": "bert"}', "model.safetensors": b"..."})
    hub.repos["user/none"] = Repo(files={"README.md": b"nothing"})
    with pytest.raises(ValueError, match="has no section `model`"):
        load("user/bert")
    with pytest.raises(ValueError, match="has no such file"):
        load("user/none")
    assert not any("model.safetensors" in asked for asked in hub.asked)


def test_no_network_and_offline_are_told(work, hub, monkeypatch):
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    result = call("sample", "user/tiny", "x")
    assert result.code == 2 and "HF_HUB_OFFLINE is set" in result.err
    result = call("export", "runs/demo", "new", "--push", "user/tiny")
    assert result.code == 2 and "HF_HUB_OFFLINE is set" in result.err
    assert hub.asked == []


def test_a_name_in_a_folder_that_is_there_is_not_looked_for_on_the_hub(work, hub):
    assert call("sample", "runs/dmo", "x").code == 2
    assert hub.asked == []


EVIL = """
from pathlib import Path
from snapvideo.components import Heun
Path("imported").touch()
class Evil(Heun):
    def __init__(self, num_steps: int = 1):
        Path("built").touch()
        super().__init__(num_steps)
"""


def evil_config(pushed):
    sys.modules.pop("evil_sampler", None)  # of another test
    config = json.loads(pushed.files["config.json"])
    config["model"]["init_args"]["sampler"] = {"class_path": "evil_sampler.Evil", "init_args": {"num_steps": 1}}
    return config


def test_code_of_others_is_not_run(hub, pushed, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_sampler.py").write_text(EVIL)
    pushed.files["config.json"] = json.dumps(evil_config(pushed)).encode()
    result = call("sample", "user/tiny", "x", "-n", 1)
    assert result.code == 2, result.err
    assert "evil_sampler.Evil" in result.err and "--trust" in result.err and "Traceback" not in result.err
    for words in (
        "export user/tiny new",
        "fit -c demo --smoke --init_from user/tiny",
        "report user/tiny",
        "ema user/tiny --std 0.1",
    ):
        result = call(*words.split())
        assert result.code == 2 and "evil_sampler.Evil" in result.err and "--local-dir" in result.err, words
    assert not (tmp_path / "imported").exists()
    assert not any("safetensors" in asked for asked in hub.asked)
    with pytest.raises(ValueError, match=r"evil_sampler\.Evil"):
        load("user/tiny")
    result = call("sample", "user/tiny", "x", "-n", 1, "--trust")
    assert result.code == 0, result.err
    assert (tmp_path / "built").exists()
    assert find_run("user/tiny", trust=True).name == pushed.commit


def test_no_config_but_the_one_that_was_looked_at_is_built(hub, pushed, tmp_path, monkeypatch):
    """Also where all files of the model are here, as ``hf download`` leaves them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_sampler.py").write_text(EVIL)
    pushed.files["config.yaml"] = yaml.safe_dump(evil_config(pushed)).encode()
    for file in pushed.files:
        hf_hub_download("user/tiny", file)
    result = call("sample", "user/tiny", "x", "-n", 1, "--steps", 1)
    assert result.code == 0, result.err
    assert not (tmp_path / "imported").exists()


def test_code_of_others_is_served_if_it_is_trusted(hub, pushed, tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="no Gradio: CONTRIBUTING.md says how to have it")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_sampler.py").write_text(EVIL)
    pushed.files["config.json"] = json.dumps(evil_config(pushed)).encode()
    result = call("serve", "user/tiny")
    assert result.code == 2 and "evil_sampler.Evil" in result.err and not (tmp_path / "built").exists()
    result = call("serve", "user/tiny", "--trust", "-o", ".")
    assert result.code == 2 and "holds other files" in result.err  # the model is there, and no page
    assert (tmp_path / "built").exists()


def test_weights_alone_are_taken_of_what_is_not_trusted(work, hub, pushed, tmp_path, monkeypatch):
    """``validate --ckpt_path`` builds the model of its own recipe."""
    (tmp_path / "evil_sampler.py").write_text(EVIL.replace('"imported"', repr(str(tmp_path / "imported"))))
    monkeypatch.syspath_prepend(tmp_path)
    pushed.files["config.json"] = json.dumps(evil_config(pushed)).encode()
    result = call("validate", "-c", "runs/demo/latest", "--ckpt_path", "user/tiny")
    assert result.code == 0, result.err
    assert not (tmp_path / "imported").exists()


def test_the_page_works(trained, hub, tmp_path, monkeypatch):
    """Its commands and its code, as a reader would run them, at the size of the run at hand."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained[0] / "runs", tmp_path / "runs", symlinks=True)
    page = (Path(__file__).parents[2] / "docs/share.md").read_text().replace("USER/NAME", "user/name")
    commands = re.findall(r"^\$ snapvideo (.*)$", page, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["export", "sample", "fit", "export", "sample"]
    for command in commands:
        small = ["--smoke", "--trainer.max_steps", 1, "--trainer.limit_val_batches", 0]
        result = call(*shlex.split(command), *(small if command.startswith("fit") else []))
        assert result.code == 0, (command, result.err)
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, {})
    assert (tmp_path / "video.mp4").stat().st_size > 0
    assert set(hub.repos) == {"user/name"}


@pytest.mark.slow
def test_push_and_load_in_a_process_of_its_own(work, out, tmp_path):
    """The real client, told of the Hub by its environment alone."""
    hub = Hub()
    code = (
        "import sys; from snapvideo.recipes.cli import main\n"
        f"code = main(['export', {str(out)!r}, 'out', '--samples', '0', '--push', 'user/tiny'])\n"
        "sys.exit(code or main(['sample', 'user/tiny', 'x', '-n', '1', '--steps', '1', '-o', 'samples']))"
    )
    env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_writer", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env | {"PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    hub.close()
    assert done.returncode == 0, done.stderr
    assert hub.repos["user/tiny"].files["model.safetensors"] == (out / WEIGHTS).read_bytes()
    assert (tmp_path / "samples/grid.gif").is_file() and hub.unknown == []
