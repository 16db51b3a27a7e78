"""``snapvideo sweep``: one setting at several values, with models of one step; its videos are those of ``sample``."""

import json
import math
import textwrap

import pytest
import torch

from snapvideo.components.media import read_mp4
from snapvideo.components.metrics import ShapeAccuracy
from snapvideo.recipes.requests import Request
from snapvideo.recipes.sweep import best_of, make_metric, score, table

from .conftest import call

BASE, UP = "runs/demo/latest", "runs/shapes_upsampler/latest"
FIXED = ["--device", "cpu", "--precision", "32-true"]
PROMPTS = ["a red circle moves left", "a blue square on a white background"]

OWN = """
from torchmetrics import Metric

class Brightness(Metric):
    higher_is_better = {higher}

    def __init__(self):
        super().__init__()
        self.add_state("values", [], dist_reduce_fx="cat")

    def update(self, videos, captions):
        assert len(videos) == len(captions) and videos.ndim == 5
        self.values.append(videos.float().mean((1, 2, 3, 4)))

    def compute(self):
        return {{"bright": torch.cat(self.values).mean(), "nothing": float("nan")}}

class Number(Brightness):
    def compute(self):
        return torch.tensor(1.0)

import torch
"""


@pytest.fixture
def work(cascade, tmp_path, monkeypatch):
    """A folder with the runs of a cascade and prompts; own metrics go there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(cascade / "runs")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    return tmp_path


def sweep(*words):
    return call("sweep", *words, "--prompts", "prompts.txt", *FIXED)


def result_of(folder):
    return json.loads((folder / "sweep.json").read_text())


def videos_of(folder):
    return {path.name: read_mp4(path) for path in sorted(folder.rglob("*.mp4")) if path.name != "grid.mp4"}


def test_each_value_gives_what_sample_gives(work):
    result = sweep(BASE, UP, "--aug-level", "0,0.30", "--steps", "3:2", "-o", "out")
    assert result.code == 0, result.err
    assert sorted(path.name for path in (work / "out").iterdir()) == ["aug-level_0", "aug-level_0.3", "sweep.json"]
    words = ["--prompts", "prompts.txt", "-n", "1", "--steps", "3,2", "--aug-level", "0.3", *FIXED]
    assert call("sample", BASE, UP, *words, "-o", "alone").code == 0
    alone, there = work / "alone", work / "out" / "aug-level_0.3"
    assert (alone / "meta.jsonl").read_bytes() == (there / "meta.jsonl").read_bytes()
    assert sorted(path.name for path in alone.rglob("*")) == sorted(path.name for path in there.rglob("*"))
    for name, video in videos_of(alone).items():
        assert torch.equal(video, videos_of(there)[name])
    assert not torch.equal(*(read_mp4(work / "out" / f"aug-level_{a}" / name) for a in ("0", "0.3")))
    assert result.out.splitlines()[2].split()[:2] == ["aug-level", "colour"]


@pytest.mark.parametrize(("option", "values"), [("--steps", ["1", "3"]), ("--guidance", ["0", "6"])])
def test_models_are_loaded_once_and_sample_as_they_would_alone(option, values, work):
    """Also the second value, with the sampler or the guidance in a model that has sampled already."""
    steps = [] if option == "--steps" else ["--steps", "2"]
    assert sweep(BASE, option, ",".join(values), *steps, "-o", "out").code == 0
    words = ["--prompts", "prompts.txt", "-n", "1", option, values[1], *steps, *FIXED]
    assert call("sample", BASE, *words, "-o", "alone").code == 0
    there = work / "out" / f"{option[2:]}_{values[1]}"
    assert (work / "alone" / "meta.jsonl").read_bytes() == (there / "meta.jsonl").read_bytes()
    for name, video in videos_of(work / "alone").items():
        assert torch.equal(video, videos_of(there)[name])


def test_the_same_command_makes_what_is_missing(work):
    words = [BASE, "--steps", "1,2", "-n", "2", "-o", "out"]
    first = sweep(*words)
    assert first.code == 0, first.err
    before = result_of(work / "out")
    assert [point["value"] for point in before["points"]] == ["1", "2"] and before["videos"] == 4
    gone, *kept = sorted((work / "out" / "steps_2").glob("p*.mp4"))
    frames = read_mp4(gone)
    times = {path: path.stat().st_mtime_ns for path in [*kept, *(work / "out" / "steps_1").glob("p*.mp4")]}
    gone.unlink()
    (work / "out" / "sweep.json").unlink()
    again = sweep(*words)
    assert again.code == 0 and again.out == first.out
    assert result_of(work / "out") == before and torch.equal(read_mp4(gone), frames)
    assert times == {path: path.stat().st_mtime_ns for path in times}
    more = sweep(BASE, "--steps", "1,2,3", "-n", "2", "-o", "out")
    assert more.code == 0 and result_of(work / "out")["points"][:2] == before["points"]
    refused = sweep(BASE, "--steps", "1,2", "-n", "2", "--guidance", "3", "-o", "out")
    assert refused.code == 2 and "guidance" in refused.err and "steps_1" in refused.err


def test_a_sweep_that_is_ended_says_how_to_go_on(work, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("snapvideo.recipes.videos.VideoFolder.write_overview", interrupted)
        result = sweep(BASE, "--steps", "1,2")
    assert result.code == 130
    where = result.out.rpartition("-o ")[2].split()[0]
    assert "/sweeps/" in where and "makes the rest" in result.out
    result = sweep(BASE, "--steps", "1,2", "-o", where)
    assert result.code == 0, result.err


def test_scores_are_those_of_the_files(work):
    """Against the metric by hand; a score of no video is null, and not the best."""
    assert sweep(BASE, "--guidance", "1,3", "--steps", "2", "--by", "compact", "-o", "out").code == 0
    result = result_of(work / "out")
    compact = {}
    for point in result["points"]:
        metric, folder = ShapeAccuracy(), work / "out" / f"guidance_{point['value']}"
        for line in map(json.loads, (folder / "meta.jsonl").read_text().splitlines()):
            large = read_mp4(folder / line["file"])
            size = large.shape[2] // 8
            small = large.float().unflatten(2, (8, size)).unflatten(4, (8, size)).mean((3, 5)).round()
            metric.update(small.to(torch.uint8)[None], [line["prompt"]], torch.tensor([line["fps"]]))
        for name, value in metric.compute().items():
            assert point["scores"][name] == (None if value.isnan() else pytest.approx(float(value)))
        compact[point["value"]] = point["scores"]["compact"]
    assert result["by"] == "compact"
    assert result["best"] == [value for value, number in compact.items() if number == max(compact.values())]


@pytest.mark.parametrize("higher", [True, False])
def test_a_metric_of_ones_own(higher, work, monkeypatch):
    name = f"own_{higher}".lower()
    (work / f"{name}.py").write_text(textwrap.dedent(OWN.format(higher=higher)))
    monkeypatch.syspath_prepend(str(work))
    result = sweep(BASE, "--guidance", "0,8", "--steps", "2", "--metric", f"{name}.Brightness", "-o", "out")
    assert result.code == 0, result.err
    found = result_of(work / "out")
    scores = {point["value"]: point["scores"] for point in found["points"]}
    assert found["by"] == "bright" and scores["0"]["nothing"] is None and "nan" in result.out
    best = (max if higher else min)(scores, key=lambda value: scores[value]["bright"])
    assert found["best"] == [best]
    rows = [line for line in result.out.splitlines() if line.endswith(" *")]
    assert len(rows) == 1 and rows[0].split()[0] == best
    result = sweep(BASE, "--guidance", "0,8", "--metric", f"{name}.Number", "-o", "no")
    assert result.code == 2 and "it must be scores by their names" in result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([BASE], "nothing is swept; give one of --aug-level, --guidance, --steps several values"),
        ([BASE, "--steps", "1,2", "--guidance", "1,2"], "--guidance and --steps have several values"),
        ([BASE, "--aug-level", "0,0.1"], "--aug-level is of runs that enlarge"),
        ([BASE, "--steps", "1,two"], "--steps two: give a number"),
        ([BASE, "--steps", "1,,2"], "--steps : give a number"),
        ([BASE, "--guidance", "1,2,1.0"], "--guidance 1,2,1.0: 1 is there twice"),
        ([BASE, UP, "--guidance", "1:1,2:1:1"], "--guidance 2:1:1: 3 numbers; 2 or one for all"),
        ([BASE, UP, "--aug-level", "0,0.7"], "stage 2: noise of level 0.7 is not"),
        ([BASE, BASE, "--aug-level", "0,0.1"], "stage 2: it makes videos of texts alone"),
        ([BASE, "--steps", "1,0"], "num_steps=0"),
        ([BASE, "--steps", "1,2", "--by", "al"], "--by al: it is none of the scores. Did you mean 'all'?"),
        ([BASE, "--steps", "1,2", "--metric", "ShapeAcuracy"], "Did you mean 'ShapeAccuracy'?"),
        (
            [BASE, "--steps", "1,2", "--metric", "snapvideo.components.metrics.ShapeFrechet"],
            "it compares with real videos",
        ),
        ([BASE, "--steps", "1,2", "--metric", "nowhere.Own"], "No module named 'nowhere'"),
        ([BASE, "--steps", "1,2", "--metric", "torchmetrics.MeanMetric"], "MeanMetric cannot score videos"),
        ([BASE, "--steps", "1,2", "-n", "0"], "-n 0: it must be at least 1"),
        (["nowhere", "--steps", "1,2"], "nowhere: no such run folder"),
    ],
)
def test_what_cannot_be_is_said_at_once(words, message, work):
    result = sweep(*words, "-o", "out")
    assert result.code == 2 and message in result.err, result.err
    assert not (work / "out").exists()


def test_prompts_that_cannot_be_scored_are_told_before_any_is_sampled(work):
    result = call("sweep", BASE, "--steps", "1,2", "-o", "out", *FIXED)
    assert result.code == 2 and "--prompts FILE" in result.err
    (work / "prompts.txt").write_text("a red circle\na dog\n")
    result = sweep(BASE, "--steps", "1,2", "-o", "out")
    assert result.code == 2 and "'a dog' names no coloured shape" in result.err
    assert not (work / "out").exists()


def test_a_folder_of_something_else_is_left_alone(work):
    (work / "out" / "steps_1").mkdir(parents=True)
    (work / "out" / "steps_1" / "mine.txt").write_text("x")
    result = sweep(BASE, "--steps", "1,2", "-o", "out")
    assert result.code == 2 and "out/steps_1: it holds other files" in result.err
    result = sweep(BASE, "--guidance", "1,2", "-o", "out")
    assert result.code == 2 and "it holds steps_1, which is not of a sweep of --guidance" in result.err


def test_the_best_and_the_table():
    nan = math.nan
    points = {"0": {"all": 0.5, "b": nan}, "0.05": {"all": 0.75, "b": nan}, "0.1": {"all": 0.75, "b": 1.0}}
    assert best_of(points, "all", True) == ["0.05", "0.1"] == best_of(points, "all", None)
    assert best_of(points, "all", False) == ["0"]
    assert best_of(points, "b", True) == ["0.1"] and best_of({"1": {"b": nan}}, "b", True) == []
    header, *rows = table("aug-level", points, ["0.05"]).splitlines()
    assert [row.endswith(" *") for row in rows] == [False, True, False]
    assert {len(row.removesuffix(" *")) for row in rows} == {len(header)}


def test_batches_do_not_change_scores():
    generator = torch.Generator().manual_seed(0)
    videos = torch.randint(0, 256, (5, 3, 4, 12, 12), generator=generator).to(torch.uint8)
    requests = [Request("a red circle moves left", seed, 8.0, str(seed)) for seed in range(5)]
    metric = make_metric("ShapeAccuracy")
    one, two = (score(metric, requests, lambda request: videos[request.seed], size) for size in (5, 2))
    assert one == pytest.approx(two, nan_ok=True)
    assert not math.isnan(one["speed"])
