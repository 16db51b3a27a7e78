"""``snapvideo eval`` and ``compare``, with a model of a few steps."""

import importlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from snapvideo.components.metrics import ShapeAccuracy
from snapvideo.components.metrics.video_metric import VideoMetric
from snapvideo.recipes.results import read_result
from snapvideo.recipes.scores import real_scores, scores_of

from .conftest import call

RUN = "runs/demo/latest"
FEW = ["--num", 6, "--clips.num_real", 10, "--steps", 1, "--device", "cpu", "--precision", "32-true", "--batch-size", 4]


class MeanLevel(VideoMetric):
    """Mean of all pixels, and how far it is from that of real clips."""

    uses_real = True
    higher_is_better = False

    def __init__(self):
        super().__init__()
        for name in ("made", "of_real"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def observe(self, videos, captions, fps=None):
        return videos.float().mean((1, 2, 3, 4))

    def add(self, rows, real=False):
        (self.of_real if real else self.made).append(rows)

    def compute(self):
        level = torch.cat(self.made).mean()
        return {"level": level, "off": (level - torch.cat(self.of_real).mean()).abs()}

    def record(self):
        return {}


@pytest.fixture
def work(trained, tmp_path, monkeypatch):
    """A folder with a run of its own."""
    run = tmp_path / "runs/demo/one"
    shutil.copytree((trained[0] / RUN).resolve(), run, symlinks=True, ignore=shutil.ignore_patterns("samples", "eval"))
    (run.parent / "latest").symlink_to("one")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(work):
    return sorted((work / RUN / "eval").glob("*/result.json"))


def test_scores_are_those_of_the_videos(work):
    result = call("eval", RUN, "shapes", *FEW, "--name", "mine")
    assert result.code == 0, result.err
    assert "| mine " in result.out and "colour (higher is better)" in result.out
    assert "| sampling, seconds per 1000 " in result.out
    (file,) = results(work)
    written = read_result(file)
    assert written.name == "mine" and written.protocol == "shapes"
    videos = sorted((file.parent / "videos").glob("*.mp4"))
    assert len([video for video in videos if video.stem.isdigit()]) == 6
    assert (file.parent / "videos/contact_sheet.png").is_file() and not list((file.parent / "videos").glob("0*.gif"))
    for name, score in ((name, score) for name, score in written.scores.items() if name != "shape_fd"):
        assert math.isnan(score.value) or 0 <= score.value <= 1, name
        assert math.isnan(score.real) or score.real > 0.6, name  # ten clips, as they are drawn
    assert written.record["videos"] == 6 and written.record["real"] == 10
    assert written.model["weights"] and written.model["versions"]["torch"] == torch.__version__
    assert set(written.cost) == {"sampling", "metrics", "real clips"} and min(written.cost.values()) > 0


def test_an_evaluation_goes_on_and_is_the_same(work):
    """After a kill in the midst, with batches of another size."""
    assert call("eval", RUN, "shapes", *FEW).code == 0
    (file,) = results(work)
    before = json.loads(file.read_text())
    stamps = {path: path.stat().st_mtime_ns for path in file.parent.rglob("rows/*/*/*")}
    removed = [file, *file.parent.glob("videos/000003.*"), *file.parent.glob("rows/*/made/000004.safetensors")]
    removed += [*file.parent.glob("videos/000004.*"), next(file.parent.glob("rows/*/real/*"))]
    lines = (file.parent / "videos/meta.jsonl").read_text().splitlines(keepends=True)
    (file.parent / "videos/meta.jsonl").write_text("".join(lines[:3] + lines[5:]))
    for path in removed:
        path.unlink()
    result = call("eval", RUN, "shapes", *FEW[:-1], 3)
    assert result.code == 0, result.err
    after = json.loads(file.read_text())
    assert after["scores"] == before["scores"] and after["record"] == before["record"]
    assert after["cost"] == {}, "what a part of it took is not known"
    assert call("eval", RUN, "shapes", *FEW).code == 0
    again = json.loads(file.read_text())
    assert all(again[part] == after[part] for part in ("scores", "record", "cost"))
    same = [path for path, stamp in stamps.items() if path.stat().st_mtime_ns == stamp]
    assert len(same) >= len(stamps) - 4


def test_other_settings_go_elsewhere(work):
    assert call("eval", RUN, "shapes", *FEW).code == 0
    assert call("eval", RUN, "shapes", *FEW, "--guidance", 1).code == 0
    assert len(results(work)) == 2
    one, other = map(read_result, results(work))
    assert one.record == other.record and one.model != other.model
    result = call("compare", *(file.parent for file in results(work)))
    assert result.code == 0, result.err
    assert result.out.count("one") == 2 and "real clips" in result.out


def test_numbers_of_other_protocols_are_not_compared(work):
    assert call("eval", RUN, "shapes", *FEW).code == 0
    assert call("eval", RUN, "shapes", *FEW, "--seed", 1, "--fps", 4).code == 0
    result = call("compare", *(file.parent for file in results(work)))
    assert result.code == 2
    assert "not measured in the same way" in result.err and "fps: " in result.err and "seed: " in result.err
    assert "videos: " not in result.err
    newest = call("compare", RUN)
    assert newest.code == 0 and "colour" in newest.out
    result = call("compare", RUN, "--protocol", "ucf101")
    assert result.code == 2 and "no result of ucf101" in result.err and "shapes" in result.err


def test_a_protocol_and_a_metric_of_ones_own(work, monkeypatch):
    monkeypatch.syspath_prepend(work)
    (work / "own_metric.py").write_text(
        "from snapvideo.components.metrics import VideoMetric\nfrom torch import Tensor\nimport torch\n"
        + textwrap.dedent(__import__("inspect").getsource(MeanLevel))
    )
    (work / "own.yaml").write_text(
        "num: 4\nfps: 8.0\nclips: {class_path: ShapesSet, init_args: {num_real: 6}}\n"
        "metrics: [{class_path: own_metric.MeanLevel}]\ndraws: 5\n"
    )
    result = call("eval", RUN, "own.yaml", "--steps", 1)
    assert result.code == 0, result.err
    (file,) = results(work)
    scores = read_result(file).scores
    assert scores["level"].deviation > 0 and not scores["off"].higher_is_better
    assert "off (lower is better)" in result.out


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["shapes"], "a run and a protocol are needed"),
        ([RUN, "shape"], "Did you mean 'shapes'?"),
        ([RUN, "shapes", "--num", "1"], "num is 1: it must be 2 to"),
        ([RUN, "shapes", "--draw", "3"], "Did you mean 'draws'?"),
        ([RUN, "shapes", "--clips.nu_real", "3"], "Did you mean 'num_real'?"),
        ([RUN, "shapes", "--fps", "4", "--num_frames", "9"], "of 9 frames, and the model makes 4"),
        ([RUN, "shapes", "--size", "[8, 8]"], "of 8x8 pixels, and the model makes 16x16"),
        ([RUN, "shapes", "--clips", "Ucf101", "--clips.root", "nowhere"], "root nowhere has no videos of UCF-101"),
        ([RUN, "shapes", "--clips", "FolderSet", "--clips.videos", "nowhere"], "nowhere"),
        ([RUN, "shapes", "--batch-size", "0"], "--batch-size 0"),
        ([RUN, "shapes", "--fps", "2"], "clips: fps is 2: scenes last 1 s, and 4 frames need 4"),
        ([RUN, "runs/demo/one/config.yaml"], "there is no setting 'model'"),
        (["runs/dmo", "shapes"], "runs/dmo"),
        ([RUN, "broken.yaml"], "broken.yaml"),
        ([RUN, "shapes", "--model.backbone", "FIT"], "training has fixed it"),
    ],
)
def test_mistakes_of_an_evaluation(work, words, fragment):
    (work / "broken.yaml").write_text("num: [")
    result = call("eval", *words)
    assert result.code == 2, result.err
    assert fragment in result.err and "Traceback" not in result.err
    assert len(result.err.splitlines()) < 12
    assert not list((work / RUN).glob("eval/*/videos/*"))


def test_metrics_that_cannot_score_are_told_before_the_work(work):
    (work / "prompts.yaml").write_text(
        "num: 2\nfps: 8.0\nclips: {class_path: FolderSet, init_args: {videos: clips}}\n"
        "metrics: [{class_path: ShapeAccuracy}]\n"
    )
    from snapvideo.components.media import write_mp4

    for number in range(4):
        write_mp4(work / f"clips/{number}.mp4", np.zeros((8, 16, 16, 3), np.uint8), 8)
        (work / f"clips/{number}.txt").write_text("a dog")
    result = call("eval", RUN, "prompts.yaml", "--steps", 1)
    assert result.code == 2 and "metrics: ShapeAccuracy: " in result.err and "'a dog'" in result.err
    (work / "twice.yaml").write_text(
        "num: 2\nfps: 8.0\nclips: {class_path: ShapesSet}\n"
        "metrics: [{class_path: ShapeAccuracy}, {class_path: ShapeAccuracy}]\n"
    )
    result = call("eval", RUN, "twice.yaml")
    assert result.code == 2 and "both give a score" in result.err


def test_rows_are_of_one_record(work):
    """Also where the videos were removed, and nothing else tells that it was another set."""
    assert call("eval", RUN, "shapes", *FEW, "-o", "out").code == 0
    shutil.rmtree(work / "out/videos")
    assert call("eval", RUN, "shapes", *FEW, "--clips.seed", 1, "-o", "out").code == 0
    assert call("eval", RUN, "shapes", *FEW, "--clips.seed", 1, "-o", "fresh").code == 0
    mixed, fresh = (json.loads((work / name / "result.json").read_text())["scores"] for name in ("out", "fresh"))
    assert mixed == fresh


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ("def observe(self, videos, captions, fps=None): raise KeyError('red')", "metrics: Own: 'red'"),
        ("def observe(self, videos, captions, fps=None): return torch.zeros(1)", "observe() gives 1 rows of 2 videos"),
        ("def observe(self, videos, captions, fps=None): return [0, 0]", "metrics: Own: "),
        ("def compute(self): return {}", "it must be numbers by their names"),
        ("def compute(self): return {'a': torch.zeros(3)}", "it must be numbers by their names"),
        ("def compute(self): return torch.zeros(())", "it must be numbers by their names"),
    ],
)
def test_a_metric_of_ones_own_that_is_wrong_is_told_at_once(work, monkeypatch, change, fragment):
    monkeypatch.syspath_prepend(work)
    sys.modules.pop("wrong_metric", None)
    text = "import torch\nfrom snapvideo.components.metrics import ShapeAccuracy\nclass Own(ShapeAccuracy):\n    "
    (work / "wrong_metric.py").write_text(text + change + "\n")
    (work / "own.yaml").write_text(
        "num: 4\nfps: 8.0\nclips: {class_path: ShapesSet, init_args: {num_real: 6}}\n"
        "metrics: [{class_path: wrong_metric.Own}]\n"
    )
    result = call("eval", RUN, "own.yaml", "--steps", 1)
    assert result.code == 2, result.err
    assert fragment in result.err and not list((work / RUN).glob("eval/*/videos/*"))


def test_a_metric_that_was_changed_is_another(work, monkeypatch):
    monkeypatch.syspath_prepend(work)
    (work / "own.yaml").write_text(
        "num: 2\nfps: 8.0\nclips: {class_path: ShapesSet, init_args: {num_real: 4}}\n"
        "metrics: [{class_path: changed_metric.Own}]\ndraws: 0\n"
    )
    for scale in (1, 2):
        sys.modules.pop("changed_metric", None)
        importlib.invalidate_caches()
        (work / "changed_metric.py").write_text(
            "from snapvideo.components.metrics import ShapeAccuracy\nclass Own(ShapeAccuracy):\n"
            f"    def observe(self, *args): return super().observe(*args) * {scale}  # {scale * 'x'}\n"
        )
        assert call("eval", RUN, "own.yaml", "--steps", 1).code == 0
    assert len(results(work)) == 2


def test_deviations_are_those_of_the_mean():
    """The bootstrap's, against the closed form of a mean and the coverage of its interval."""
    metric = {"one": MeanLevel()}
    generator = torch.Generator().manual_seed(0)
    covered = []
    for _ in range(60):
        made = 3 + 2 * torch.randn(50, generator=generator)
        score = scores_of(metric, {"one": made}, {"one": torch.zeros(10)}, draws=60)["level"]
        assert score.value == pytest.approx(float(made.mean()), abs=1e-5)
        assert score.deviation == pytest.approx(float(made.std(correction=0)) / 50**0.5, rel=0.35)
        covered.append(abs(score.value - 3) <= 1.96 * score.deviation)
    assert sum(covered) > 51  # of 60; of 95% fewer come once in 500 times


def test_real_clips_are_compared_with_other_real_clips():
    rows = torch.arange(100.0)
    assert 0 < real_scores(MeanLevel(), rows, 50)["off"] < 25
    halves = {real_scores(MeanLevel(), rows, num)["level"] for num in (50, 80, 1000)}
    assert len(halves) == 1, "never more than half of them, so that as many are left"


def test_a_score_of_nothing_is_no_number(tmp_path):
    metric = {"shapes": ShapeAccuracy()}
    rows = metric["shapes"].observe(torch.zeros(2, 3, 4, 16, 16, dtype=torch.uint8), ["a red circle"] * 2)
    scores = scores_of(metric, {"shapes": rows}, {"shapes": rows}, draws=3)
    assert math.isnan(scores["direction"].value) and scores["colour"].value == 0


@pytest.mark.slow
def test_two_processes_score_the_same(work):
    """The real command; videos and real clips are shared out."""
    for devices, batch in ((1, 4), (2, 4)):
        words = [*FEW[:-1], batch, "--devices", devices, "-o", f"out{devices}"]
        command = [sys.executable, "-m", "snapvideo.recipes.cli", "eval", RUN, "shapes", *words]
        done = subprocess.run(
            [str(word) for word in command],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("result: ") == 1
    one, two = (json.loads((work / f"out{devices}/result.json").read_text()) for devices in (1, 2))
    assert one["scores"] == two["scores"] and one["record"] == two["record"]


def test_the_metric_of_the_page_works():
    page = (Path(__file__).parents[2] / "docs/evaluate/evaluate.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(code, names)
    metric = names["Brightness"]()
    metric.update(torch.full((3, 3, 4, 8, 8), 7, dtype=torch.uint8), ["", "", ""])
    assert metric.compute() == {"brightness": 7.0}
