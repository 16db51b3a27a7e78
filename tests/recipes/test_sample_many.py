"""``snapvideo sample`` of many prompts: on several processes, after a kill, and in folders that are not empty."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from snapvideo.components.interfaces import VideoShape
from snapvideo.components.media import read_mp4, shrink, to_uint8
from snapvideo.recipes.filling import fill, make_trainer
from snapvideo.recipes.generation import Maker, Missing
from snapvideo.recipes.lock import only_sampling
from snapvideo.recipes.requests import Request, Wish, requests_of
from snapvideo.recipes.videos import VideoFolder

from .conftest import call

CLI = [sys.executable, "-m", "snapvideo.recipes.cli"]
WORDS = ["sample", "runs/demo", "--steps", "2", "-n", "3", "--batch-size", "2", "--device", "cpu"]
FIXED = [*WORDS, "--precision", "32-true"]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Three prompts, nine videos, five batches of two: no batch is of one prompt, and the last is not whole."""
    lines = [
        {"prompt": "a red circle moves left", "name": "one"},
        {"prompt": "b", "seed": 7, "fps": 4},
        {"prompt": "c"},
    ]
    file = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


@pytest.fixture(scope="module")
def whole(trained, prompts, tmp_path_factory):
    """The videos of one process that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    with contextlib.chdir(trained[0]):
        result = call(*FIXED, "--prompts", prompts, "-o", folder)
    assert result.code == 0, result.err
    return folder


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1"}


def run(words):
    return subprocess.run([*map(str, words)], env=environment(), capture_output=True, text=True, timeout=300)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "meta.jsonl").read_text().splitlines()]


def assert_same(folder, other):
    """The same files; pixels are compared in the GIFs, which are written the same way every time."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in other.iterdir())
    assert lines_of(folder) == lines_of(other)
    clips = [path for path in folder.glob("*.gif") if path.name != "grid.gif"]
    assert len(clips) == 9
    for path in clips:
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def cut(whole, folder, keep):
    """A copy of a whole folder as a kill leaves it: some videos with records beside them, and rests."""
    folder.mkdir()
    for number, line in enumerate(lines_of(whole)):
        name = line["file"].removesuffix(".mp4")
        if number in keep:
            (folder / f"{name}.json").write_text(json.dumps(line))
            (folder / f"{name}.gif").write_bytes((whole / f"{name}.gif").read_bytes())
        (folder / f"{name}.mp4").write_bytes((whole / f"{name}.mp4").read_bytes())
    (folder / "meta.jsonl").write_text("")
    (folder / ".one_s2.mp4.1234.partial").write_bytes(b"half a vid")
    return folder


def test_the_files_of_a_prompt_are_as_its_line_says(whole):
    lines = lines_of(whole)
    assert [line["file"] for line in lines[:4]] == ["one_s0.mp4", "one_s1.mp4", "one_s2.mp4", "p01_s7_b.mp4"]
    assert [(line["seed"], line["fps"]) for line in lines[2:5]] == [(2, 8.0), (7, 4.0), (8, 4.0)]
    assert {path.suffix for path in whole.iterdir()} == {".mp4", ".gif", ".png", ".jsonl"}
    assert Image.open(whole / "p01_s7_b.gif").info["duration"] == 250
    assert {"weights", "checkpoint", "run", "settings", "versions", "precision"} <= lines[0].keys()


def test_the_sheet_shows_the_videos(whole):
    """They are read from their files: of a small video, what the codec loses is averaged away."""
    sheet = np.asarray(Image.open(whole / "contact_sheet.png")).astype(int)
    video = shrink(read_mp4(whole / "one_s0.mp4"), 16, 16)
    first = sheet[2:66, 2:66].reshape(16, 4, 16, 4, 3)
    assert (first == first[:, :1, :, :1]).all()  # pixels of the model's own size
    assert np.abs(first[:, 0, :, 0] - video[:, 0].permute(1, 2, 0).numpy()).max() == 0
    gif = np.asarray(Image.open(whole / "one_s0.gif").convert("RGB"))[::16, ::16]
    assert np.abs(first[:, 0, :, 0] - gif).mean() < 4


def test_what_is_missing_in_a_batch_is_made_and_the_rest_stays(work, whole, prompts, tmp_path):
    """Two batches lack one video each: they are made again as they were, so that nothing differs by rounding."""
    folder = cut(whole, tmp_path / "out", keep=(0, 3))
    kept = [folder / "one_s0.mp4", folder / "p01_s7_b.mp4"]
    before = [path.stat().st_mtime_ns for path in kept]
    result = call(*FIXED, "--prompts", prompts, "-o", folder)
    assert result.code == 0 and "2 were there already" in result.out, result.err
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert_same(folder, whole)


def test_a_killed_command_goes_on_on_two_processes(work, whole, prompts, tmp_path):
    folder = tmp_path / "out"
    words = [*CLI, *FIXED, "--prompts", prompts, "-o", folder]
    process = subprocess.Popen([*map(str, words)], env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*.json"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()
    made = [path.with_suffix(".mp4") for path in folder.glob("*.json")]
    assert 3 <= len(made) < 9 and not (folder / "grid.gif").exists()
    before = [path.stat().st_mtime_ns for path in made]
    result = run([*words, "--devices", 2])
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("videos: ") == 1 and f"{len(made)} were there already" in result.stdout
    assert [path.stat().st_mtime_ns for path in made] == before
    assert_same(folder, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_ended_says_how_to_go_on(work, prompts, tmp_path, monkeypatch, number):
    folder = tmp_path / "out"
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    write = VideoFolder.write

    def interrupted(self: VideoFolder, request: Request, stages: dict[str, torch.Tensor]) -> None:
        if request.name == "p01_s7_b":
            signal.raise_signal(number)
        write(self, request, stages)

    monkeypatch.setattr(VideoFolder, "write", interrupted)
    result = call(*FIXED, "--prompts", prompts, "-o", folder)
    assert result.code not in (0, 2)
    assert "(3 of 9); the same command makes the others" in result.out
    assert len(lines_of(folder)) == 3 and not list(folder.glob("*.json"))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["--steps", "3"], "steps 2, and this command has 3"),
        (["--guidance", "5"], "guidance"),
        (["--model.sampler", "DDIM"], "sampler 'Heun'"),
        (["--fps", "6"], "fps 8.0, and this command has 6.0"),
        (["--seed", "1"], "one_s0.mp4 is of the prompt"),
        (["-n", "2"], "one_s2.mp4 is of the prompt"),
        (["--precision", "bf16-mixed"], "precision '32-true'"),
        (["--checkpoint", "COPY"], "checkpoint"),
    ],
)
def test_other_settings_are_refused_by_name(work, whole, prompts, tmp_path, words, key):
    if "COPY" in words:
        words[1] = str(tmp_path / "x.ckpt")
        (tmp_path / "x.ckpt").write_bytes((work / "runs/demo/latest/checkpoints/last.ckpt").read_bytes())
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    result = call(*FIXED, "--prompts", prompts, "-o", whole, *words)
    assert result.code == 2 and key in result.err, result.err
    assert result.out == ""
    assert {path: path.stat().st_mtime_ns for path in whole.iterdir()} == before


def test_other_weights_of_the_same_name_are_refused(work, tmp_path):
    words = ["sample", "runs/demo", "a", "-n", 1, "--steps", 1, "-o", tmp_path / "out"]
    file = tmp_path / "x.ckpt"
    checkpoint = torch.load(work / "runs/demo/latest/checkpoints/last.ckpt", weights_only=True)
    for scale in (1.0, 1.001):
        weights = {name: tensor * scale for name, tensor in checkpoint["state_dict"].items()}
        torch.save({"state_dict": weights}, file)
        result = call(*words, "--checkpoint", file)
    assert result.code == 2 and "weights" in result.err


def test_more_prompts_and_smaller_batches_go_on(work, tmp_path):
    (tmp_path / "p.txt").write_text("a red circle\n")
    words = ["sample", "runs/demo", "--prompts", tmp_path / "p.txt", "--steps", 1, "-o", tmp_path / "out"]
    assert call(*words, "-n", 1).code == 0
    (tmp_path / "p.txt").write_text("a red circle\na blue square\n")
    result = call(*words, "-n", 2, "--batch-size", 1)
    assert result.code == 0, result.err
    assert "1 were there already" in result.out
    made = [(line["seed"], line["batch_size"]) for line in lines_of(tmp_path / "out")]
    assert made == [(0, 8), (1, 1), (0, 1), (1, 1)]


def test_a_video_that_is_removed_comes_back(work, whole, prompts, tmp_path):
    folder = cut(whole, tmp_path / "out", keep=range(9))
    (folder / "one_s1.mp4").unlink()
    result = call(*FIXED, "--prompts", prompts, "-o", folder)
    assert result.code == 0 and "8 were there already" in result.out, result.err
    assert_same(folder, whole)


def test_a_folder_of_other_files_is_left_alone(work, tmp_path):
    (tmp_path / "one_s0.mp4").write_text("a film")
    samples = work / "runs/demo/latest/samples/step=00000020"
    for folder in (tmp_path, samples):
        before = {path: path.read_bytes() for path in folder.iterdir()}
        result = call("sample", "runs/demo", "a", "-o", folder)
        assert result.code == 2 and "it holds other files" in result.err
        assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_one_command_at_a_time(work, tmp_path):
    with only_sampling(tmp_path / "out"):
        result = call("sample", "runs/demo", "a", "-n", 1, "--steps", 1, "-o", tmp_path / "out")
    assert result.code == 2 and "being filled by another process" in result.err
    assert call("sample", "runs/demo", "a", "-n", 1, "--steps", 1, "-o", tmp_path / "out").code == 0


def test_a_failure_without_a_video_leaves_nothing(work, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("snapvideo.components.video_diffusion.VideoDiffusion.sample", fail)
    result = call("sample", "runs/demo", "a", "-o", tmp_path / "out")
    assert result.code == 2 and "set --batch-size below 8" in result.err
    assert not (tmp_path / "out").exists()


class Halves(Maker):
    """Two stages: a black video, and one of its prompt's frame rate and seed, of twice the size."""

    def __init__(self) -> None:
        super().__init__()
        self.shape, self.num_evaluations = VideoShape(2, 32, 48), 1

    def forward(self, prompt, seeds, on_evaluation):
        on_evaluation()
        assert prompt.resolution.tolist() == [[32, 48]] * len(prompt)
        value = prompt.fps.mul(0.1) - torch.tensor(seeds) * 0.1
        return {
            "base": torch.full((len(prompt), 3, 2, 16, 24), -1.0),
            "upsampled": value[:, None, None, None, None].expand(-1, 3, 2, 32, 48),
        }


def test_stages_are_kept_apart(tmp_path):
    requests = requests_of([Wish("a"), Wish("b", fps=2.0)], 2, 0, 8.0)
    missing = Missing(VideoFolder(requests, {"run": "none"}, tmp_path / "out", tmp_path), 3)
    fill(make_trainer(missing, "cpu", "32-true"), Halves(), missing, 2)
    names = [f"{request.name}.mp4" for request in requests]
    assert sorted(path.name for path in (tmp_path / "out/base").glob("*.mp4")) == sorted(names)
    for name, request in zip(names, requests, strict=True):
        assert read_mp4(tmp_path / "out/base" / name).max() < 3
        seen = shrink(read_mp4(tmp_path / "out" / name), 32, 48).float()
        wanted = to_uint8(torch.tensor(request.fps * 0.1 - request.seed * 0.1)).float()
        assert (seen - wanted).abs().max() <= 3
    assert [line["file"] for line in lines_of(tmp_path / "out")] == names


@pytest.mark.parametrize(
    ("variables", "words", "fragment"),
    [
        ({"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2"}, [], "torchrun has started 2"),
        ({"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "1"}, ["--devices", 2], "torchrun has started 1"),
        ({"SLURM_STEP_NUM_TASKS": "16"}, ["--devices", 8], "srun has started 16"),
        ({}, ["--devices", 0], "--devices 0"),
        ({}, ["--device", "cuda:1", "--devices", 2], "--device cuda:1 is one device"),
    ],
)
def test_processes_that_do_not_know_of_each_other_are_refused(work, monkeypatch, variables, words, fragment):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = call("sample", "runs/demo", "a", *words)
    assert result.code == 2 and fragment in result.err


def test_a_wrong_prompt_is_told_before_torch_is_there(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": 1}\n')
    code = (
        "import sys; from snapvideo.recipes.cli import main\n"
        "code = main(['sample', 'demo', '--prompts', sys.argv[1]]); sys.exit(9 if 'torch' in sys.modules else code)"
    )
    result = run([sys.executable, "-c", code, tmp_path / "p.jsonl"])
    assert result.returncode == 2 and "line 2: prompt is 1" in result.stderr


@pytest.mark.slow
def test_torchrun_starts_the_processes(work, whole, prompts, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *CLI[1:]]
    words = [*launch, *FIXED, "--prompts", prompts, "-o", tmp_path / "out", "--devices", 2]
    result = run(words)
    assert result.returncode == 0, result.stderr
    assert_same(tmp_path / "out", whole)
    other = run([*words, "--steps", 5])
    assert other.returncode != 0 and "steps 2, and this command has 5" in other.stderr
