import json

import av
import numpy as np
import pytest
import torch
from PIL import Image

from snapvideo.components.media import contact_sheet, enlarge
from snapvideo.recipes import run as runs
from snapvideo.recipes.generate import generate, num_evaluations
from snapvideo.recipes.run import load_model, pack_run

from .conftest import call

PROMPT = "a red circle moves left"


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


def test_sample_never_overwrites(work, tmp_path):
    words = ["sample", "runs/demo", PROMPT, "-n", 1, "--steps", 1, "-o", tmp_path / "out"]
    for _ in range(2):
        assert call(*words).code == 0
    assert len(list((tmp_path / "out").rglob("meta.jsonl"))) == 2


def test_samples_of_a_run_go_to_the_run(work):
    before = set(work.glob("runs/demo/latest/samples/*"))
    assert call("sample", "runs/demo", PROMPT, "-n", 1, "--steps", 1).code == 0
    (new,) = set(work.glob("runs/demo/latest/samples/*")) - before
    assert (new / "grid.gif").is_file()


def test_a_video_depends_on_its_own_prompt_and_seed_alone(work):
    model = load_model("runs/demo", num_steps=3)
    captions = ["a green triangle", PROMPT, "two longer captions make the batch wider than one"]
    together = generate(model, captions, [5, 6, 7], precision="32-true")
    one_by_one = generate(model, captions, [5, 6, 7], batch_size=1, precision="32-true")
    alone = generate(model, [PROMPT], [6], precision="32-true")
    assert (together.int() - one_by_one.int()).abs().max() <= 1  # rounding; sums differ with the size of the batch
    assert torch.equal(alone[0], one_by_one[1])
    assert (generate(model, [PROMPT], [7], precision="32-true").int() - alone.int()).abs().max() > 1


def test_sampling_repeats_the_samples_of_the_training(work):
    """The weights of the checkpoint are those that the last grid of the training showed."""
    sheet = work / "runs/demo/latest/samples/step=00000020/contact_sheet.png"
    videos = generate(load_model("runs/demo"), [PROMPT], [0], fps=8.0, precision="32-true")
    expected = contact_sheet(enlarge(videos, 64)).permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(Image.open(sheet)).astype(int) - expected.astype(int)).max() <= 1


def test_evaluations_are_counted(work):
    assert num_evaluations(load_model("runs/demo", num_steps=5)) == 2 * 5 - 1  # Heun's


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ("sample runs/demo", "say what to show"),
        ("sample runs/demo x -n 0", "-n 0"),
        ("sample runs/demo x --fps 0", "--fps"),
        ("sample runs/demo x --seed -1", "--seed -1"),
        ("sample runs/demo x --steps 0", "num_steps=0"),
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
def packed(work, tmp_path, monkeypatch):
    """The run as a model that is shipped under the name tiny."""
    monkeypatch.setattr(runs, "PRETRAINED", tmp_path / "pretrained")
    pack_run("runs/demo", tmp_path / "pretrained/tiny")
    return tmp_path / "pretrained/tiny"


def test_a_packed_run_is_the_run(work, packed):
    assert {path.name for path in packed.iterdir()} == {"config.yaml", "model.safetensors", "record.json"}
    record = json.loads((packed / "record.json").read_text())
    assert (record["steps"], record["clips"]) == (20, 80)
    assert record["command"] == "snapvideo fit -c demo --smoke" and record["seconds"] >= 0
    own, shipped = load_model("runs/demo").state_dict(), load_model("tiny").state_dict()
    assert list(own) == list(shipped)
    assert all(torch.equal(own[name].half().float(), shipped[name]) for name in own)
    assert str(work) not in "".join(file.read_text() for file in packed.glob("*.[jy]*"))


def test_large_kernels_are_packed_in_a_byte_a_value():
    kernel = (
        torch.randn(64, 128, 3, 3, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-4, 0, 64)[:, None, None, None]
    )
    kernel[3] = 0.0
    packed = runs.compress({"large": kernel, "small": kernel[:4, :4]})
    assert packed["large"].dtype == torch.int8 and packed["small"].dtype == torch.float16
    back = runs.expand(packed)
    assert list(back) == ["large", "small"]
    step = kernel.abs().amax((1, 2, 3), keepdim=True) / 127
    assert ((back["large"] - kernel).abs() <= 0.501 * step).all()


def test_a_shipped_model_samples_into_the_current_folder(packed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("sample", "tiny", PROMPT, "-n", 1, "--steps", 1)
    assert result.code == 0, result.err
    assert len(list(tmp_path.glob("samples/*/grid.gif"))) == 1


def test_a_run_without_weights_says_so(work, tmp_path):
    (tmp_path / "config.yaml").write_text((work / "runs/demo/latest/config.yaml").read_text())
    result = call("sample", tmp_path, "x")
    assert result.code == 2 and "no weights yet" in result.err
