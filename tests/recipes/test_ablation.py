"""``snapvideo sweep ABLATION``: trainings and evaluations, with models of one step; most in this process, for speed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree

import pytest
import yaml

from snapvideo.recipes.ablation import jobs_of, read_ablation
from snapvideo.recipes.ablation_results import read_outcome
from snapvideo.recipes.ablations import shipped_ablations
from snapvideo.recipes.commands import ablate
from snapvideo.recipes.errors import UserError
from snapvideo.recipes.lock import only_training
from snapvideo.recipes.protocols import find_protocol
from snapvideo.recipes.results import read_result

from .conftest import call

HELD = "held-out combinations"
OWN = {
    "recipes": ["demo", "overlays/smoke", "overlays/smoke_unet"],
    "protocol": "shapes",
    "evaluation": {"num": 2, "clips.num_real": 4, "steps": 1, "draws": 0},
    "settings": {
        "trainer.max_steps": 1,
        "trainer.limit_val_batches": 0,
        "trainer.accumulate_grad_batches": 1,
        "data.holdout": 0,
        "model.scheduler.warmup_steps": 0,
        "model.scheduler.max_steps": 2,
        "sampling": None,
        "ema": None,
    },
    "seeds": [0, 1],
    "scores": ["colour", "shape_fd"],
    "variants": [{"name": "k 1"}, {"name": "k 4", "settings": {"model.framework.sigma_in": 4.0}}],
}


@pytest.fixture
def work(trained, tmp_path, monkeypatch):
    """A folder with an ablation, own.yaml, and data to train on; commands run in this process."""
    calls = []

    def call_here(words, log, children):
        calls.append(words)
        result = call(*words)
        log.write_text(result.out + result.err)
        return result.code

    monkeypatch.setattr(ablate, "_call", call_here)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(trained[0] / "data")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(OWN))
    return tmp_path, calls


def test_variants_are_trained_measured_and_put_side_by_side(work):
    folder, calls = work
    result = call("sweep", "own.yaml", "--seeds", 0, 1)
    assert result.code == 0, result.err
    assert [words[0] for words in calls] == ["fit", "eval"] * 4
    table = (folder / "ablations/own/table.md").read_text()
    assert table in result.out + "\n" and "| k 1 " in table and "| k 4 " in table
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if "|" in line}
    assert rows["steps"].count(" 1 ") == 2 and rows["clips"].count(" 4 ") == 2 and rows["seeds"].count(" 2 ") == 2
    record = json.loads((folder / "ablations/own/ablation.json").read_text())
    assert set(record["variants"]) == {"k 1", "k 4"} and record["environment"]["record"]["videos"] == 2
    assert read_outcome(folder / "ablations/own/ablation.json").table() + "\n" == table and "±: " in table
    scores = [
        read_result(file).scores["shape_fd"].value for file in folder.glob("ablations/own/runs/*/2*/eval/*/result.json")
    ]
    assert len(set(scores)) == 4, "of four models"
    written = [one["scores"]["shape_fd"]["value"] for own in record["variants"].values() for one in own]
    assert sorted(written) == sorted(scores)
    plot = ElementTree.parse(folder / "ablations/own/plot.svg")
    assert len(plot.findall(".//{*}circle")) == 8, "two scores of two variants with two seeds"
    texts = {text.text for text in plot.findall(".//{*}text")}
    assert {"k 1", "k 4", "colour (higher is better)", "shape_fd (lower is better)"} <= texts

    calls.clear()
    assert call("sweep", "own.yaml").code == 0
    assert calls == [], "nothing is done again"
    assert (folder / "ablations/own/table.md").read_text() == table


def test_what_was_killed_goes_on(work):
    folder, calls = work
    assert call("sweep", "own.yaml", "--seeds", 0).code == 0
    runs = sorted((folder / "ablations/own/runs").glob("*/*-s0-*"))
    assert len(runs) == 2
    progress = json.loads((runs[0] / "progress.json").read_text())
    (runs[0] / "progress.json").write_text(json.dumps(progress | {"state": "training"}))
    shutil.rmtree(runs[0] / "eval")
    shutil.rmtree(runs[1])
    calls.clear()
    result = call("sweep", "own.yaml", "--seeds", 0)
    assert result.code == 0, result.err
    assert sorted(words[:2] for words in calls if words[0] == "fit") == [["fit", "--resume"], ["fit", "-c"]]


def test_what_is_measured_can_be_looked_at_meanwhile(work, monkeypatch):
    folder, _ = work
    do, seen = ablate._do, []

    def stop_at_the_second(*arguments):
        if seen:
            raise KeyboardInterrupt
        seen.append(do(*arguments))
        return seen[0]

    monkeypatch.setattr(ablate, "_do", stop_at_the_second)
    assert call("sweep", "own.yaml", "--seeds", 0).code != 0
    record = json.loads((folder / "ablations/own/ablation.json").read_text())
    assert [len(own) for own in record["variants"].values()] == [1, 0]


def test_what_changes_is_done_anew(work):
    """A recipe that the ablation names, the protocol: whatever numbers depend on."""
    folder, calls = work
    (folder / "k.yaml").write_text("model: {framework: {init_args: {sigma_in: 2.0}}}")
    (folder / "own.yaml").write_text(
        yaml.safe_dump(OWN | {"recipes": [*OWN["recipes"], "k.yaml"], "variants": [{"name": "a"}], "seeds": [0]})
    )
    assert call("sweep", "own.yaml").code == 0
    table = (folder / "ablations/own/table.md").read_text()
    (folder / "k.yaml").write_text("model: {framework: {init_args: {sigma_in: 4.0}}}")
    calls.clear()
    assert call("sweep", "own.yaml").code == 0
    assert [words[0] for words in calls] == ["fit", "eval"]
    assert (folder / "ablations/own/table.md").read_text() != table
    (folder / "own.yaml").write_text((folder / "own.yaml").read_text().replace("shapes", "shapes_unseen"))
    calls.clear()
    assert call("sweep", "own.yaml").code == 0
    assert [words[0] for words in calls] == ["eval"]
    assert read_outcome(folder / "ablations/own/ablation.json").environment["record"]["set"]["scenes"] == HELD


def test_variants_that_are_measured_in_different_ways_are_refused(work):
    folder, _ = work
    other = {"name": "b", "evaluation": {"num": 3}}
    own = {"model": "demo", "protocol": "shapes", "evaluation": OWN["evaluation"], "variants": [{"name": "a"}, other]}
    (folder / "own.yaml").write_text(yaml.safe_dump(own))
    result = call("sweep", "own.yaml")
    assert result.code == 2 and "not measured in the same way" in result.err and "videos: 2  |  3" in result.err


def test_a_training_that_fails_leaves_the_others(work):
    folder, _ = work
    broken = OWN["variants"][1] | {"settings": {"model.scheduler.warmup_steps": 9}}
    (folder / "own.yaml").write_text(yaml.safe_dump(OWN | {"variants": [broken, OWN["variants"][0]], "seeds": [0]}))
    result = call("sweep", "own.yaml")
    assert result.code == 2
    assert "k 4, seed 0: training ended with code 2: " in result.err and "the same command goes on" in result.err
    (log,) = folder.glob("ablations/own/logs/k-4*")
    assert "warmup_steps is 9" in log.read_text()
    assert "| k 1 " in result.out


def test_a_trained_model_is_measured_in_several_ways(work):
    folder, calls = work
    own = {
        "model": "demo",
        "protocol": "shapes",
        "evaluation": {"num": 2, "clips.num_real": 4, "draws": 0},
        "variants": [{"name": str(steps), "evaluation": {"steps": steps}} for steps in (1, 2)],
    }
    (folder / "own.yaml").write_text(yaml.safe_dump(own))
    result = call("sweep", "own.yaml")
    assert result.code == 0, result.err
    assert [words[0] for words in calls] == ["eval"] * 2 and "steps" not in result.out
    assert (folder / "ablations/own/plot.svg").is_file()


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"variants": []}, "variants are []"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, "all of different names"),
        ({"seeds": []}, "seeds are []"),
        ({"seeds": [-1]}, "seeds are [-1]"),
        ({"evaluation": {"nume": 4}}, "Did you mean 'num'?"),
        ({"variants": None}, "no variants: write it there"),
        ({"protocol": "shape"}, "Did you mean 'shapes'?"),
        ({"protocl": "shapes"}, "Did you mean 'protocol'?"),
        ({"model": "demo"}, "is not trained again"),
        ({"recipes": []}, "recipes is empty"),
        ({"recipes": ["dmo"]}, "Did you mean 'demo'?"),
        ({"variants": [{"name": "b", "settings": {"model.framework.sigma_inn": 2.0}}]}, "variant 'b': model.framework"),
        (
            {"variants": [{"name": "b", "settings": {"model.framework.sigma_in": "wide"}}]},
            "variant 'b': model.framework",
        ),
    ],
)
def test_mistakes_are_told_before_the_first_training(work, changes, fragment):
    folder, calls = work
    (folder / "own.yaml").write_text(yaml.safe_dump(OWN | changes))
    result = call("sweep", "own.yaml")
    assert result.code == 2 and fragment in result.err and "Traceback" not in result.err, result.err
    assert calls == [] and not (folder / "ablations").exists()


@pytest.mark.parametrize("name", sorted(shipped_ablations()))
def test_a_shipped_ablation_is_right(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ablation = read_ablation(shipped_ablations()[name])
    jobs = jobs_of(ablation, find_protocol(ablation.protocol))
    assert len({job.result for job in jobs}) == len(jobs) == len(ablation.variants) * len(ablation.seeds)
    monkeypatch.setattr(ablate, "_do", lambda *_: "not now")
    result = call("sweep", name)
    assert "not now" in result.err, result.err


def test_a_missing_file_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("sweep", "none.yaml")
    assert result.code == 2 and "none.yaml cannot be read" in result.err


@pytest.mark.slow
def test_a_sweep_that_is_ended_ends_its_training(trained, tmp_path):
    """The real command; the training saves its state, and the same command goes on from there."""
    (tmp_path / "data").symlink_to(trained[0] / "data")
    long = OWN["settings"] | {"trainer.max_steps": 100_000, "model.scheduler.max_steps": 200_000}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(OWN | {"settings": long, "seeds": [0]}))
    command = [sys.executable, "-m", "snapvideo.recipes.cli", "sweep", "own.yaml"]
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not (runs := list(tmp_path.glob("ablations/own/runs/*/2*/checkpoints/step=*"))):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    progress = json.loads((runs[0].parents[1] / "progress.json").read_text())
    assert progress["state"] != "finished" and progress["step"] < 100_000
    assert not only_training_by_another(runs[0].parents[1])


def only_training_by_another(run):
    """Whether somebody trains there."""
    try:
        with only_training(run):
            return False
    except UserError:
        return True
