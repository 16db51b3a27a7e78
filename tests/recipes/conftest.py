import contextlib
import csv
import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants as hub_constants
from PIL import Image

from snapvideo.recipes.cli import main
from snapvideo.recipes.generation import Generation
from snapvideo.recipes.requests import Request
from snapvideo.recipes.stages import Stages

from ..components.conditioning.conftest import encoders  # noqa: F401  # a fixture
from ..hub import Hub, Repo

PROMPT = "a red circle moves left"

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
HOW = "CONTRIBUTING.md says how to have it"


@dataclass
class Result:
    code: int
    out: str
    err: str


def call(*words: str | Path) -> Result:
    """The command line in this process; the seed that Lightning leaves in the environment is removed."""
    out, err = io.StringIO(), io.StringIO()
    seed = os.environ.pop("PL_GLOBAL_SEED", None)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(word) for word in words])
    finally:
        os.environ.pop("PL_GLOBAL_SEED", None)
        if seed is not None:
            os.environ["PL_GLOBAL_SEED"] = seed
    return Result(code, out.getvalue(), err.getvalue())


def same(one, other):
    """Whether two checkpoints hold the same weights, average and state of the optimizer, to the bit."""
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(one[part][name], value) for name, value in other[part].items())
    ours, theirs = (each["optimizer_states"][0]["state"] for each in (one, other))
    assert all(torch.equal(ours[i][name], theirs[i][name]) for i in theirs for name in theirs[i])
    return True


def rows(run):
    """Those of the metrics of a run."""
    return list(csv.DictReader((run / "metrics.csv").open()))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """An empty folder in which the demo was trained with --smoke, and what that printed."""
    folder = tmp_path_factory.mktemp("work")
    with contextlib.chdir(folder):
        result = call("fit", "-c", "demo", "--smoke")
    assert result.code == 0, result.err
    return folder, result


FEW = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--ema=null", "--data.holdout=0", "--sampling=null"]
SMALL = ["--model.backbone.shape.height=8", "--model.backbone.shape.width=8", "--data.fps=[2,4,8]"]


@pytest.fixture(scope="session")
def cascade(tmp_path_factory):
    """A folder with runs/demo, 4 frames of 8x8, and runs/shapes_upsampler, from there to 16x16, which starts from it.

    Both are of one step; started.txt is what the second printed, and broken.mp4 no video.
    """
    folder = tmp_path_factory.mktemp("cascade")
    with contextlib.chdir(folder):
        result = call("fit", "-c", "demo", "--smoke", "--name", "base", *FEW, *SMALL)
        assert result.code == 0, result.err
        result = call("fit", "-c", "shapes_upsampler", "--smoke", "--init_from", "runs/demo/latest", *FEW)
        assert result.code == 0, result.err
    (folder / "started.txt").write_text(result.out)
    Image.new("RGB", (16, 16)).save(folder / "a.png")
    (folder / "broken.mp4").write_bytes(b"\0\1\2 no video" * 100)
    return folder


@pytest.fixture(scope="session")
def upsampler(cascade):
    """The run of an upsampler after a step, from 8x8 to 16x16 pixels."""
    return cascade / "runs/shapes_upsampler/latest"


@pytest.fixture
def work(trained, monkeypatch):
    """That folder, as the current one."""
    monkeypatch.chdir(trained[0])
    return trained[0]


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """A folder of six videos and four images of moving shapes; copy it to change it."""
    root = tmp_path_factory.mktemp("shapes") / "shapes"
    assert call("data", "synth", root, "--videos", 6, "--images", 4, "--size", 32, "--workers", 1).code == 0
    return root


def videos_of(model):
    """Two that are sampled from it."""
    asked = [Request(PROMPT, 0, 8.0, "one"), Request("a blue square", 1, 8.0, "other")]
    return Generation(Stages([model])).predict_step(asked, 0)["videos"]


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
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
def pushed(hub, exported):
    """The exported model, on the Hub."""
    files = {str(file.relative_to(exported)): file.read_bytes() for file in exported.rglob("*") if file.is_file()}
    hub.repos["user/tiny"] = Repo(files=files)
    return hub.repos["user/tiny"]


@pytest.fixture(scope="session")
def chromium():
    """A browser without a window; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason=f"no Playwright: {HOW}")
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    with sync_api.sync_playwright() as playwright:
        program = next(filter(None, found), playwright.chromium.executable_path)
        if not Path(program).is_file():
            pytest.skip(f"no Chromium: {HOW}")
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()
