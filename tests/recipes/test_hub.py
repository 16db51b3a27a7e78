import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants as hub_constants
from huggingface_hub import hf_hub_download

from snapvideo.components import load
from snapvideo.components.weights import WEIGHTS
from snapvideo.recipes.run import find_run, load_model

from ..hub import Hub, Repo
from .conftest import PROMPT, call, videos_of


def test_push_and_load_from_the_hub(work, hub, exported, tmp_path, monkeypatch):
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


def test_a_model_of_the_hub_is_exported_with_its_record(hub, pushed, tmp_path):
    result = call("export", "user/tiny", tmp_path / "again", "--samples", 0)
    assert result.code == 0, result.err
    assert (tmp_path / "again/record.json").read_bytes() == pushed.files["record.json"]
    del pushed.files["record.json"]  # another commit
    assert call("export", "user/tiny", tmp_path / "without", "--samples", 0).code == 0
    assert json.loads((tmp_path / "without/record.json").read_text()) == {}


def test_a_long_video_is_that_of_the_run(work, hub, pushed, exported, tmp_path):
    """It climbs the frame rates of the training, wherever the model lies."""
    words = [PROMPT, "-n", 1, "--steps", 1, "--duration", 1, "--fps", 8]
    files = []
    for name, run in {"run": "runs/demo/latest", "folder": exported, "hub": "user/tiny"}.items():
        result = call("sample", run, *words, "-o", tmp_path / name)
        assert result.code == 0, result.err
        (line,) = map(json.loads, (tmp_path / name / "meta.jsonl").read_text().splitlines())
        assert line["rates"] == [4.0, 8.0]
        files.append((tmp_path / name / line["file"]).read_bytes())
    assert files[0] == files[1] == files[2]


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


@pytest.mark.parametrize("wrong", [["{exported}"], ["new", "--samples", -1], ["new", "--prompts", "none.txt"]])
def test_a_mistake_makes_no_place_on_the_hub(work, hub, exported, wrong):
    words = [str(word).format(exported=exported) for word in wrong]
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


def test_code_of_others_is_not_run(hub, pushed, exported, tmp_path, monkeypatch):
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
def test_push_and_load_in_a_process_of_its_own(work, exported, tmp_path):
    """The real client, told of the Hub by its environment alone."""
    hub = Hub()
    code = (
        "import sys; from snapvideo.recipes.cli import main\n"
        f"code = main(['export', {str(exported)!r}, 'out', '--samples', '0', '--push', 'user/tiny'])\n"
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
    assert hub.repos["user/tiny"].files["model.safetensors"] == (exported / WEIGHTS).read_bytes()
    assert (tmp_path / "samples/grid.gif").is_file() and hub.unknown == []
