import json
import shutil

import av
import numpy as np
import pytest
import torch
from PIL import Image

from snapvideo.components.media import contact_sheet, enlarge, to_uint8
from snapvideo.recipes import run as runs
from snapvideo.recipes.generation import Generation
from snapvideo.recipes.requests import Request, batches_of
from snapvideo.recipes.run import load_model
from snapvideo.recipes.stages import Stages, num_evaluations

from .conftest import call

PROMPT = "a red circle moves left"


def videos_of(model, captions, seeds, batch_size=8):
    """As the command makes them, before they are written: floats in [-1, 1]."""
    requests = [Request(*each, 8.0, "") for each in zip(captions, seeds, strict=True)]
    generation = Generation(Stages([model]))
    made = [generation.predict_step(batch, 0) for batch in batches_of(requests, batch_size)]
    return torch.cat([videos for stages in made for videos in stages.values()])


def num_frames(file):
    with av.open(str(file)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_sample_writes_what_people_and_programs_read(work, tmp_path):
    (tmp_path / "prompts.txt").write_text("a blue square\n\n")
    words = ["--prompts", tmp_path / "prompts.txt", "-n", 2, "--steps", 2, "--guidance", 1.5, "--seed", 3]
    result = call("sample", "runs/demo/latest", PROMPT, *words, "-o", tmp_path / "out", "--fps", 4)
    assert result.code == 0, result.err
    assert str(tmp_path / "out") in result.out
    lines = [json.loads(line) for line in (tmp_path / "out/meta.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == [
        "p00_s3_a-red-circle-moves-left.mp4",
        "p00_s4_a-red-circle-moves-left.mp4",
        "p01_s3_a-blue-square.mp4",
        "p01_s4_a-blue-square.mp4",
    ]
    for line in lines:
        assert num_frames(tmp_path / "out" / line["file"]) == 4
        assert Image.open((tmp_path / "out" / line["file"]).with_suffix(".gif")).n_frames == 4
        assert (line["steps"], line["guidance"], line["fps"]) == (2, 1.5, 4.0)
    assert lines[0]["run"].startswith("demo/") and lines[0]["prompt"] == PROMPT
    for name in ("grid.mp4", "grid.gif", "contact_sheet.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0


def test_many_videos_of_a_prompt_fit_a_grid(work, tmp_path):
    (tmp_path / "prompts.txt").write_text("\ufeffa blue square\n\n", encoding="utf-8")
    result = call(
        "sample", "runs/demo", "--prompts", tmp_path / "prompts.txt", "--steps", 1, "-n", 66, "-o", tmp_path / "out"
    )
    assert result.code == 0, result.err
    assert "the first 64" in result.out
    lines = [json.loads(line) for line in (tmp_path / "out/meta.jsonl").read_text().splitlines()]
    assert len(lines) == 66
    assert lines[-1]["prompt"] == "a blue square"
    assert Image.open(tmp_path / "out/grid.gif").size == ((16 + 2) * 8 * 2 + 4, (16 + 2) * 8 * 2 + 4)


def test_prompts_may_follow_options(work, tmp_path):
    assert call("sample", "runs/demo", "-n", 1, "a", "--steps", 1, "b", "-o", tmp_path / "out").code == 0
    assert len((tmp_path / "out/meta.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04cut"])
@pytest.mark.parametrize("name", ["x.ckpt", "x.safetensors"])
def test_a_damaged_checkpoint_is_named(work, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    result = call("sample", "runs/demo", "x", "--checkpoint", tmp_path / name)
    assert result.code == 2, result.err
    assert name in result.err and "Traceback" not in result.err


@pytest.mark.parametrize("content", ["", "[1]", "a: [1", "trainer: {}"])
def test_a_damaged_config_is_named(work, tmp_path, content):
    shutil.copytree((work / "runs/demo/latest").resolve(), tmp_path / "run")
    (tmp_path / "run/config.yaml").write_text(content)
    result = call("sample", tmp_path / "run", "x")
    assert result.code == 2, result.err
    assert "config.yaml" in result.err and "Traceback" not in result.err


def test_weights_are_found_where_a_run_was_killed_before_it_linked_them(work, tmp_path):
    shutil.copytree((work / "runs/demo/latest").resolve(), tmp_path / "run", symlinks=True)
    checkpoints = tmp_path / "run/checkpoints"
    (checkpoints / "step=00000020.ckpt").rename(checkpoints / "step=00000021.ckpt")
    assert not (checkpoints / "last.ckpt").is_file()
    assert runs.find_weights(tmp_path / "run").name == "step=00000021.ckpt"


def test_sample_never_overwrites(work, tmp_path):
    words = ["sample", "runs/demo", PROMPT, "-n", 1, "--steps", 1, "-o", tmp_path / "out"]
    assert call(*words).code == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.name != "meta.jsonl"}
    again = call(*words)
    assert again.code == 0 and "1 were there already" in again.out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_samples_of_a_run_go_to_the_run(work):
    before = set(work.glob("runs/demo/latest/samples/*"))
    assert call("sample", "runs/demo", PROMPT, "-n", 1, "--steps", 1).code == 0
    (new,) = set(work.glob("runs/demo/latest/samples/*")) - before
    assert (new / "grid.gif").is_file()


def test_a_video_depends_on_its_own_prompt_and_seed_alone(work):
    model = load_model("runs/demo", num_steps=3)
    captions = ["a green triangle", PROMPT, "two longer captions make the batch wider than one"]
    together = videos_of(model, captions, [5, 6, 7])
    one_by_one = videos_of(model, captions, [5, 6, 7], batch_size=1)
    alone = videos_of(model, [PROMPT], [6])
    assert (together - one_by_one).abs().max() <= 1e-4  # rounding; sums differ with the size of the batch
    assert torch.equal(alone[0], one_by_one[1])
    assert (videos_of(model, [PROMPT], [7]) - alone).abs().max() > 0.1


def test_sampling_repeats_the_samples_of_the_training(work):
    """The weights of the checkpoint are those that the last grid of the training showed."""
    sheet = work / "runs/demo/latest/samples/step=00000020/contact_sheet.png"
    videos = to_uint8(videos_of(load_model("runs/demo"), [PROMPT], [0]))
    expected = contact_sheet(enlarge(videos, 64)).permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(Image.open(sheet)).astype(int) - expected.astype(int)).max() <= 1


def test_sampler_and_guidance_of_ones_own(work, tmp_path):
    """Parts that sampling alone needs are swapped on the command line, also around others."""
    words = ["--model.sampler", "DDIM", "--model.sampler.eta=0.5", "--model.levels", "LinearLevels", "--steps", 3]
    words += ["--model.guidance", "Threshold", "--model.guidance.guidance", "ClassifierFree", "--guidance", 3]
    result = call("sample", "runs/demo", *words, PROMPT, "-n", 1, "-o", tmp_path / "out")
    assert result.code == 0, result.err
    (line,) = [json.loads(line) for line in (tmp_path / "out/meta.jsonl").read_text().splitlines()]
    assert (line["sampler"], line["steps"], line["guidance"], line["prompt"]) == ("DDIM", 3, 3.0, PROMPT)
    settings = line["settings"]
    assert settings["sampler"]["init_args"] == {"num_steps": 3, "eta": 0.5}
    assert settings["levels"]["class_path"].endswith("LinearLevels")
    assert settings["guidance"]["init_args"]["guidance"]["init_args"]["scale"] == 3.0


def test_evaluations_are_counted(work):
    assert num_evaluations(load_model("runs/demo", num_steps=5)) == 2 * 5 - 1  # Heun's


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ("sample runs/demo", "say what to show"),
        ("sample runs/demo x -n 0", "-n 0"),
        ("sample runs/demo x --fps 0", "--fps"),
        ("sample runs/demo x --fps 0.0001", "0.01"),
        ("sample runs/demo x --seed 18446744073709551615", "--seed"),
        ("sample runs/demo x --steps 1 -o runs/demo/latest/config.yaml", "config.yaml"),
        ("sample runs/demo a\udcffb", "not UTF-8"),
        ("sample runs/demo x --seed -1", "--seed -1"),
        ("sample runs/demo x --steps 0", "num_steps=0"),
        ("sample runs/demo x --model.sampler Hun", "Did you mean 'Heun'?"),
        ("sample runs/demo x --model.sampler.eta 1", "eta"),
        ("sample runs/demo x --model.backbone FIT", "--model.backbone: training has fixed it"),
        ("sample runs/demo x --prompts none.txt", "none.txt"),
        ("sample runs/demo x --device warp", "--device warp"),
        ("sample runs/demo x --checkpoint none.ckpt", "none.ckpt"),
        ("sample runs/dmo x", "Did you mean 'runs/demo/latest'?"),
    ],
)
def test_mistakes(work, words, fragment):
    result = call(*words.split())
    assert result.code == 2, result.err
    assert fragment in result.err and "Traceback" not in result.err


@pytest.fixture
def shipped(work, tmp_path, monkeypatch):
    """The run as a model that is shipped under the name tiny."""
    monkeypatch.setattr(runs, "PRETRAINED", tmp_path / "pretrained")
    assert call("export", "runs/demo", tmp_path / "pretrained/tiny", "--dtype", "int8", "--samples", 0).code == 0


def test_a_shipped_model_samples_into_the_current_folder(shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("sample", "tiny", PROMPT, "-n", 1, "--steps", 1)
    assert result.code == 0, result.err
    assert len(list(tmp_path.glob("samples/*/grid.gif"))) == 1


def test_a_run_without_weights_says_so(work, tmp_path):
    (tmp_path / "config.yaml").write_text((work / "runs/demo/latest/config.yaml").read_text())
    result = call("sample", tmp_path, "x")
    assert result.code == 2 and "no weights yet" in result.err
