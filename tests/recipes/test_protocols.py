"""Every shipped protocol at toy size: networks that tests make, copies of the data sets in small."""

import contextlib

import pytest
import yaml

from snapvideo.recipes.protocol import load_protocol
from snapvideo.recipes.protocols import shipped_protocols
from snapvideo.recipes.results import read_result

from ..components.metrics.conftest import clip_folder, scripts  # noqa: F401  # fixtures
from ..datamodules.evaluation.conftest import msr_vtt, ucf101, write_video  # noqa: F401  # fixtures
from .conftest import FEW, call

OURS = {"shapes", "shapes_unseen"}
"""Protocols that need nothing of others."""
NUMBERS = {"FID": "fid", "FVD": "fvd", "CLIPSIM": "clipsim", "InceptionScore": "inception_score"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run of one step that makes 16 frames of 36x64."""
    folder = tmp_path_factory.mktemp("model")
    sizes = {"num_frames": 16, "height": 36, "width": 64}
    size = [f"--model.backbone.shape.{name}={value}" for name, value in sizes.items()]
    with contextlib.chdir(folder):
        result = call("fit", "-c", "demo", "--smoke", *FEW, *size, "--data.fps=[16]", "--data.num_workers=0")
    assert result.code == 0, result.err
    return folder / "runs/demo/latest"


@pytest.fixture
def toy(scripts, clip_folder, ucf101, msr_vtt, tmp_path):  # noqa: F811
    """Settings of each protocol for the networks and data at hand."""
    for number in range(5):
        write_video(tmp_path / f"own/{number}.mp4", 30 * number)
        (tmp_path / f"own/{number}.txt").write_text(f"clip {number}")
    return {
        "ablation": ["--clips.videos", tmp_path / "own"],
        "ucf101": ["--clips.root", ucf101],
        "msrvtt": ["--clips.annotation", msr_vtt / "data.json", "--clips.videos", msr_vtt / "videos"],
        "shapes": ["--clips.num_real", "4"],
        "shapes_unseen": ["--clips.num_real", "4"],
    }


def with_networks(name, scripts, clip_folder, folder):  # noqa: F811
    """A protocol with the stand-ins in place of the published networks."""
    files = {"Inception": scripts["inception"], "I3D": scripts["i3d"], "C3D": scripts["c3d"], "CLIP": clip_folder}
    content = yaml.safe_load(shipped_protocols()[name].read_text())
    for metric in content["metrics"]:
        if network := metric.get("init_args", {}).get("network"):
            key = "name" if network["class_path"] == "CLIP" else "file"
            network["init_args"][key] = str(files[network["class_path"]])
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder / f"{name}.yaml"


@pytest.mark.parametrize("name", sorted(shipped_protocols()))
def test_a_protocol_at_toy_size(name, model, toy, scripts, clip_folder, tmp_path):  # noqa: F811
    file = with_networks(name, scripts, clip_folder, tmp_path)
    few = ["--num", 3, "--fps", 16 if name in OURS else 12, "--draws", 2, "--steps", 1, "--batch-size", 2]
    result = call("eval", model, file, *few, *toy[name], "-o", tmp_path / "out")
    assert result.code == 0, result.err
    found = read_result(tmp_path / "out/result.json")
    wanted = [metric["class_path"] for metric in yaml.safe_load(file.read_text())["metrics"]]
    for metric in wanted:
        if metric in NUMBERS:
            (score,) = [score for key, score in found.scores.items() if key.endswith(NUMBERS[metric])]
            assert score.value == score.value and score.real == score.real
    assert all("sha256" in str(metric) for metric in found.record["metrics"] if metric["name"] in NUMBERS)
    assert found.record["resolution"] == ([240, 320] if name == "ucf101" else None)


@pytest.mark.parametrize("name", sorted(set(shipped_protocols()) - OURS))
def test_what_is_not_there_is_told_before_the_work(name, model, toy, tmp_path, monkeypatch):
    """The networks; and before them, what the protocol is of."""
    monkeypatch.chdir(tmp_path)
    result = call("eval", model, name, "--num", 3, *toy[name])
    assert result.code == 2, result.err
    assert "network " in result.err and "Traceback" not in result.err
    result = call("eval", model, name, "--num", 3)
    assert result.code == 2 and "data/" in result.err and "Traceback" not in result.err


@pytest.mark.parametrize("name", sorted(shipped_protocols()))
def test_a_shipped_protocol_is_read(name):
    protocol = load_protocol(shipped_protocols()[name], ["--seed=3"])
    assert protocol.seed == 3 and protocol.num >= 512
