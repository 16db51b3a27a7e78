"""Cascades, longer videos and given frames on the command line, with models of one step."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from snapvideo.components.media import read_mp4, write_mp4
from snapvideo.recipes.run import find_weights, read_weights

from .conftest import FEW, call

PROMPT = "a red circle moves left"
BASE, UP = "runs/demo/latest", "runs/shapes_upsampler/latest"


@pytest.fixture
def work(cascade, monkeypatch):
    monkeypatch.chdir(cascade)
    return cascade


def sample(out, *words):
    result = call("sample", *words, "--steps", "2", "--device", "cpu", "--precision", "32-true", "-o", out)
    assert result.code == 0, result.err
    return [json.loads(line) for line in (out / "meta.jsonl").read_text().splitlines()]


def test_an_upsampler_starts_from_the_first_stage(work):
    text = (work / "started.txt").read_text()
    first, second = (read_weights(find_weights(work / run)) for run in (BASE, UP))
    assert f"of {len(second)} weights" in text and "fitted:" in text and "backbone.stem" in text
    assert "new:" in text and "conditioner.parts.2" in text
    name = next(n for n in first if n.startswith("backbone.down.0") and first[n].dim() == 4)
    assert torch.allclose(first[name], second[name], atol=0.01)  # a step of learning apart
    assert second["backbone.stem.weight"].shape[1] == 2 * first["backbone.stem.weight"].shape[1]


def test_a_large_upsampler_starts_from_its_first_stage(tmp_path, monkeypatch):
    """FIT, full positions to factorized ones, as in the paper's pair; and a U-Net's weights are refused."""
    monkeypatch.chdir(tmp_path)
    size = ["--model.backbone.shape.height=8", "--model.backbone.shape.width=8"]
    assert call("fit", "-c", "fit_s", "--smoke", *FEW, *size).code == 0
    result = call("fit", "-c", "snap_video_3.9b_upsampler", "--smoke", "--init_from", "runs/fit_s/latest", *FEW)
    assert result.code == 0, result.err
    lines = {line.split(":")[0].strip(): line for line in result.out.splitlines() if line.startswith("  ")}
    for part in ("backbone.positions.tables", "backbone.stem.0"):
        assert part in lines["fitted"]
    assert "backbone" not in lines["new"] and "backbone" not in lines.get("unused", "")
    result = call("fit", "-c", "demo", "--smoke", "--init_from", "runs/fit_s/latest", *FEW, "--runs", "others")
    assert result.code == 2 and "it is of another model: 0%" in result.err


def test_a_cascade_saves_its_stages_apart(work, tmp_path):
    lines = sample(tmp_path, BASE, UP, PROMPT, "a blue square", "-n", "1", "--aug-level", "0.2")
    assert [line["prompt"] for line in lines] == [PROMPT, "a blue square"]
    assert lines[0]["aug_level"] == [0.2] and lines[0]["stages"][0]["run"].startswith("demo/")
    assert lines[0]["run"].startswith("shapes_upsampler/")
    large, small = (read_mp4(path / lines[0]["file"]) for path in (tmp_path, tmp_path / "stage1"))
    assert large.shape[1] == small.shape[1] == 4
    alone = sample(tmp_path / "alone", BASE, PROMPT, "-n", "1")
    assert torch.equal(read_mp4(tmp_path / "alone" / alone[0]["file"]), small), "the first stage is as it is alone"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([UP, PROMPT], "stage 1 enlarges videos"),
        ([BASE, BASE, PROMPT], "stage 2: it makes videos of texts alone"),
        ([BASE, UP, UP, PROMPT], "stage 3: it enlarges videos of 8x8 pixels, not of 16x16"),
        (["demo", UP, PROMPT], "stage 2: it enlarges videos of 8x8 pixels, not of 24x24"),
        ([BASE, UP, PROMPT, "--aug-level", "2"], "stage 2: noise of level 2 is not"),
        ([BASE, UP, PROMPT, "--aug-level", "0.1,0.1"], "--aug-level 0.1,0.1: 2 numbers; 1"),
        ([BASE, UP, PROMPT, "--aug-level", "much"], "--aug-level much: give a number"),
        ([BASE, UP, PROMPT, "--checkpoint", "x.ckpt"], "--checkpoint is of one run"),
        ([BASE, PROMPT, "--duration", "0"], "duration=0"),
        ([BASE, PROMPT, "--duration", "2", "--rates", "3,8"], "8 is no whole multiple of 3"),
        ([BASE, PROMPT, "--rates", "4,8", "--fps", "4"], "--rates 4,8 ends with 8, and --fps is 4"),
        ([BASE, PROMPT, "--first-frame", "nowhere.png"], "--first-frame nowhere.png: No such file"),
        ([BASE, PROMPT, "--extend", "broken.mp4"], "--extend broken.mp4: "),
        ([BASE, PROMPT, "--first-frame", "started.txt"], "--first-frame started.txt: corrupt"),
        ([BASE, "runs/typo/latest", PROMPT], "runs/typo/latest is no run"),
        ([BASE, PROMPT, "--aug-level", "0.1"], "--aug-level 0.1 is of upsamplers"),
        ([BASE, PROMPT, "--rates", "1000000"], "--rates 1000000: 1e+06 must be 0.01 to 1000"),
        ([BASE, PROMPT, "--duration", "1e7"], "--duration 1e+07: at 8 fps that is more than 100000 frames"),
        ([BASE, PROMPT, "--duration", "0.1", "--between", "a.png", "a.png"], "--between gives two"),
        ([BASE, "~nosuchuser is cool", PROMPT, "--steps", "0"], "num_steps=0"),
        ([BASE, PROMPT, "--overlap", "2"], "--overlap is of longer videos"),
        ([BASE, PROMPT, "--duration", "1", "--fps", "16"], "16 fps: stage 1 was trained at 2 to 8 fps"),
        ([BASE, UP, PROMPT, "--duration", "4", "--fps", "2"], "2 fps: stage 2 was trained at 4 to 8 fps"),
        ([BASE, PROMPT, "--extend", "nowhere.mp4"], "--extend nowhere.mp4: No such file"),
    ],
)
def test_what_cannot_be_is_said_at_once(words, message, work, tmp_path):
    result = call("sample", *words, "-o", tmp_path / "out", "--device", "cpu")
    assert result.code == 2 and message in result.err
    assert not (tmp_path / "out").exists()


def test_long_videos_climb_the_rates_that_were_trained(work, tmp_path):
    (line,) = sample(tmp_path, BASE, UP, PROMPT, "-n", "1", "--duration", "2", "--fps", "8")
    assert line["rates"] == [2.0, 4.0, 8.0] and line["duration"] == 2.0 and line["fps"] == 8.0
    for folder in (tmp_path, tmp_path / "stage1"):
        assert read_mp4(folder / line["file"]).shape[1] == 16


def test_given_frames_are_in_the_video(work, tmp_path):
    colours = {"red": (220, 20, 20), "blue": (20, 20, 220)}
    for name, colour in colours.items():
        Image.fromarray(np.full((16, 16, 3), colour, np.uint8)).save(tmp_path / f"{name}.png")

    def frame(out, line, place):
        return read_mp4(out / line["file"])[:, place].float().mean((1, 2))

    def near(found, name):
        return (found - torch.tensor(colours[name])).abs().max() < 6

    (line,) = sample(tmp_path / "a", BASE, UP, PROMPT, "-n", "1", "--first-frame", tmp_path / "red.png")
    assert list(line["given"]["--first-frame"]) == ["red.png"]
    assert near(frame(tmp_path / "a", line, 0), "red")
    images = [tmp_path / "red.png", tmp_path / "blue.png"]
    (line,) = sample(tmp_path / "b", BASE, PROMPT, "-n", "1", "--between", *images)
    assert near(frame(tmp_path / "b", line, 0), "red") and near(frame(tmp_path / "b", line, -1), "blue")


def test_a_clip_is_gone_on_from(work, tmp_path):
    shades = torch.arange(40, 240, 40, dtype=torch.uint8).view(1, -1, 1, 1).expand(3, -1, 16, 16)
    write_mp4(tmp_path / "clip.mp4", shades, 8.0)
    (line,) = sample(tmp_path / "out", BASE, PROMPT, "-n", "1", "--extend", tmp_path / "clip.mp4", "--fps", "8")
    video = read_mp4(tmp_path / "out" / line["file"]).float()
    assert video.shape[1] == 5 + 4 - 2  # half a window is known
    torch.testing.assert_close(video[:, :5].mean((2, 3)), shades.float().mean((2, 3)), atol=4, rtol=0)
    words = ["sample", BASE, PROMPT, "--extend", tmp_path / "clip.mp4", "--fps", "8", "--duration", "0.5"]
    result = call(*words, "-o", tmp_path / "no")
    assert result.code == 2 and "is as long as that already" in result.err
