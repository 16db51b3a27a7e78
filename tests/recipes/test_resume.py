"""A training that was killed goes on as if nothing had been."""

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from snapvideo.components import VideoDiffusion
from snapvideo.recipes.errors import UserError
from snapvideo.recipes.lock import only_training
from snapvideo.recipes.shipped import find_recipe, run_name
from snapvideo.recipes.training import Training

from .conftest import call, rows, same

STEPS = 40
MAPS = Path("/proc/self/maps")


def words(root, runs, workers):
    shards = str(root / "shards/*.tar")
    data = ["--data", "JointData", "--data.videos", shards, "--data.images", shards, "--data.fps", "[8.0]"]
    data += ["--data.video_batch_size=2", "--data.image_batch_size=1", f"--data.num_workers={workers}"]
    often = ["--checkpoint.every_n_steps=3", f"--trainer.max_steps={STEPS}", "--sampling", "null"]
    return ["fit", "-c", "demo", "--smoke", *data, *often, "--trainer.max_time", "null", "--runs", str(runs)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of shards: 11 videos and 7 images, so that passes end within steps."""
    root = tmp_path_factory.mktemp("resume")
    call("data", "synth", root / "shapes", "--videos", 11, "--images", 7, "--size", 32, "--workers", 1)
    packed = call("data", "pack", root / "shapes", root / "shards", "--shard-size", 0.01, "--workers", 1)
    assert packed.code == 0, packed.err
    return root


@pytest.fixture(scope="module")
def whole(root):
    """The checkpoint of a training that nothing interrupted."""
    result = call(*words(root, root / "whole", workers=0))
    assert result.code == 0, result.err
    return checkpoint(root / "whole")


def checkpoint(runs):
    return torch.load(runs / "demo/latest/checkpoints/last.ckpt", weights_only=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_is_bitwise_the_same(root, whole, workers, tmp_path):
    command = [sys.executable, "-m", "snapvideo.recipes.cli", *words(root, tmp_path, workers)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = tmp_path / "demo/latest/checkpoints/last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < checkpoint(tmp_path)["global_step"] < STEPS
    latest = str(tmp_path / "demo/latest")
    resumed = call("fit", "--resume", latest)
    assert resumed.code == 0, resumed.err
    end = checkpoint(tmp_path)
    assert end["global_step"] == STEPS and same(end, whole)


def logged(run, first):
    """What does not depend on the clock, of all rows from a step on, the first of which is 0."""
    kept = ("step", "train/", "val/", "val_raw/")
    numbers = [{name: row[name] for name in row if name.startswith(kept)} for row in rows(run)]
    return [row for row in numbers if int(row["step"]) >= first]


OFTEN = ["--sampling=null", "--checkpoint.every_n_steps=1", "--checkpoint.keep=0", "--trainer.max_time=null"]
OFTEN += ["--trainer.log_every_n_steps=1", "--trainer.max_steps=5", "--name=whole"]


@pytest.mark.parametrize(
    ("window", "more"),
    [
        (2, ["--trainer.val_check_interval=6"]),
        (4, ["--trainer.val_check_interval=8"]),
        pytest.param(
            *(
                2,
                [
                    "--trainer.limit_train_batches=4",
                    "--trainer.check_val_every_n_epoch=1",
                    "--trainer.val_check_interval=4",
                ],
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_from_any_step_of_several_batches_a_run_is_what_it_would_have_been(window, more, tmp_path):
    """Also where an epoch ends with it, and with the validation that was due after it."""
    words = [*OFTEN, f"--trainer.accumulate_grad_batches={window}", *more]
    result = call("fit", "-c", "demo", "--smoke", *words, "--runs", tmp_path)
    assert result.code == 0, result.err
    (whole,) = tmp_path.glob("demo/*-whole")
    end = torch.load(whole / "checkpoints/last.ckpt", weights_only=True)
    assert end["callbacks"]["Record"]["clips"] == 5 * window * 4
    for step in (2, 3):
        result = call("fit", "--resume", whole / f"checkpoints/step={step:08d}.ckpt", "--runs", tmp_path / f"{step}")
        assert result.code == 0, result.err
        resumed = checkpoint(tmp_path / f"{step}")
        assert resumed["global_step"] == 5 and same(resumed, end)
        assert resumed["callbacks"]["Record"]["clips"] == end["callbacks"]["Record"]["clips"]
        due = [row for row in logged(whole, step - 1) if row["step"] == f"{step - 1}" and row["val/loss"]]
        if "limit_train_batches" in more[0]:
            due = []  # of an epoch that has ended
        assert logged(tmp_path / f"{step}/demo/latest", 0) == due + logged(whole, step)


@pytest.fixture
def run(work, tmp_path):
    """A copy of the run of the smoke twin, of 20 steps, to go on with."""
    run = tmp_path / "runs/demo" / (work / "runs/demo/latest").resolve().name
    shutil.copytree((work / "runs/demo/latest").resolve(), run, symlinks=True)
    return run


MORE = ["--trainer.max_steps=24", "--trainer.log_every_n_steps=2", "--trainer.val_check_interval=2"]


def test_a_resumed_run_goes_on_in_its_folder(run):
    before = rows(run)
    (run / "metrics.csv").open("a").write(",,,0.5,,,23,,,,,,,,,,,,\n")  # a step that the checkpoint does not have
    result = call("fit", "--resume", run, *MORE)
    assert result.code == 0, result.err
    assert {folder.name for folder in run.parent.iterdir()} == {run.name, "latest"}
    after = rows(run)
    assert [row["step"] for row in after[: len(before)]] == [row["step"] for row in before]
    assert [row["step"] for row in after if int(row["step"]) >= 20].count("23") == 2  # of training, of validation
    assert checkpoint(run.parents[1])["global_step"] == 24
    (entry,) = json.loads((run / "env.json").read_text())["resumes"]
    assert entry["step"] == 20 and entry["changes"]["trainer.max_steps"] == [20, 24]
    assert json.loads((run / "env.json").read_text())["command"] == "snapvideo fit -c demo --smoke"
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 24


def test_the_ledger_says_what_a_run_goes_on_with(run):
    result = call("fit", "--resume", run, "--trainer.max_steps=21", "--model.optimizer.lr=0.5", *MORE[1:])
    ledger = {" ".join(line.split()) for line in result.out.splitlines()}
    for line in (
        f"resumed from {run}/checkpoints/step=00000020.ckpt",
        "step 20 of 21",
        "learning rate 0.104",  # of 0.5, at 21 of 101 steps of the warm-up
        "EMA 20 updates",
        "data video 40, image 40",
        "randomness a function of seed 0, rank and step",
        "settings that are others now:",
        "model.optimizer.lr 0.001 -> 0.5",
        "trainer.max_steps 20 -> 21",
    ):
        assert line in ledger, result.out


@pytest.mark.parametrize(
    "words",
    [
        ["--model.optimizer.lr=0.5"],
        ["--model.optimizer.lr", "0.5"],
        ["--model.optimizer.init_args.lr=0.5"],
        ["-c", "one.yaml"],
        ["-c", "two.yaml"],
        ["-c", "other.yaml", "-c", "one.yaml"],
        ["-c", "other.yaml", "--model.optimizer.lr=0.5"],
    ],
)
def test_settings_beat_the_checkpoint_in_every_form(words, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text("model: {optimizer: {init_args: {lr: 0.5}}}")
    (tmp_path / "two.yaml").write_text("model: {init_args: {optimizer: {init_args: {lr: 0.5}}}}")
    (tmp_path / "other.yaml").write_text("model: {optimizer: {init_args: {lr: 0.25}}}")
    quick = ["--sampling=null", "--trainer.limit_val_batches=0", "--trainer.max_steps=21"]
    result = call("fit", "--resume", run, *words, *quick)
    assert result.code == 0, result.err
    group = checkpoint(run.parents[1])["optimizer_states"][0]["param_groups"][0]
    assert group["initial_lr"] == 0.5
    assert group["lr"] == pytest.approx(0.5 * (21 + 1) / (100 + 1))  # of the recipe's warm-up


def test_a_schedule_of_torch_keeps_its_place_with_the_rate_of_now(tmp_path):
    schedule = json.dumps({"class_path": "CosineAnnealingWarmRestarts", "init_args": {"T_0": 100}})
    quick = ["--sampling=null", "--trainer.limit_val_batches=0", "--trainer.max_steps=2", "--runs", tmp_path]
    assert call("fit", "-c", "demo", "--smoke", *quick, "--model.scheduler", schedule).code == 0
    words = ["--trainer.max_steps=4", "--model.optimizer.lr=0.5"]
    assert call("fit", "--resume", tmp_path / "demo", *words).code == 0
    (group,) = checkpoint(tmp_path)["optimizer_states"][0]["param_groups"]
    assert group["lr"] == pytest.approx(0.5 * (1 + math.cos(math.pi * 4 / 100)) / 2)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["--model.backbone.channels=32"], "model.backbone.channels  16  ->  32"),
        (["--model.backbone.head_dim=8"], "model.backbone.head_dim  16  ->  8"),  # all weights would fit
        (["--model.conditioner", "ByteText", "--model.conditioner.dim=32"], "model.conditioner.width"),
    ],
)
def test_another_network_is_refused_with_the_key(words, key, run):
    before = (run / "config.yaml").read_text()
    result = call("fit", "--resume", run, "--trainer.max_steps=22", *words)
    assert result.code == 2
    assert "is of another network" in result.err and key in result.err and "--init_from" in result.err
    assert (run / "config.yaml").read_text() == before


ONE_CYCLE = {"class_path": "OneCycleLR", "init_args": {"max_lr": 1, "total_steps": 99}}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model.optimizer.amsgrad=true"], "'max_exp_avg_sq'"),
        (["--model.optimizer=SGD", "--model.optimizer.lr=0.1"], "model.optimizer  torch.optim.AdamW  ->"),
        (
            ["--model.scheduler", '{"class_path": "OneCycleLR", "init_args": {"max_lr": 1, "total_steps": 99}}'],
            "OneCycle",
        ),
    ],
)
def test_what_has_no_state_in_the_checkpoint_is_refused_and_not_recorded(words, named, run):
    before = (run / "config.yaml").read_text()
    quick = ["--sampling=null", "--trainer.limit_val_batches=0", "--trainer.max_steps=22"]
    result = call("fit", "--resume", run, *words, *quick)
    assert result.code == 2, result.err
    assert named in result.err and "--init_from" in result.err and "Traceback" not in result.err
    assert (run / "config.yaml").read_text() == before
    assert call("fit", "--resume", run, *quick).code == 0


def test_without_its_average_a_training_goes_on_from_the_training_weights(run, monkeypatch):
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    begun = []

    def keep(self, *_):
        begun.append({name: tensor.clone() for name, tensor in self.state_dict().items()})

    monkeypatch.setattr(VideoDiffusion, "on_train_batch_start", keep)
    quick = ["--sampling=null", "--trainer.limit_val_batches=0", "--trainer.max_steps=21"]
    result = call("fit", "--resume", run, "--ema=null", *quick)
    assert result.code == 0, result.err
    assert "EMA none from here on" in {" ".join(line.split()) for line in result.out.splitlines()}
    for name, tensor in checkpoint["current_model_state"].items():
        assert torch.equal(begun[0][name], tensor), name
    assert any(not torch.equal(checkpoint["state_dict"][name], tensor) for name, tensor in begun[0].items())


@pytest.mark.parametrize("missing", ["global_step", "optimizer_states"])
def test_a_checkpoint_of_weights_alone_is_refused(missing, run):
    file = run / "checkpoints/step=00000010.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    del checkpoint[missing]
    torch.save(checkpoint, file)
    result = call("fit", "--resume", file)
    assert result.code == 2 and str(file) in result.err and "--init_from" in result.err


def test_how_it_is_trained_may_change(run):
    quick = ["--sampling=null", "--trainer.limit_val_batches=0", "--trainer.max_steps=21"]
    result = call("fit", "--resume", run, "--model.backbone.dropout=0.1", *quick)
    assert result.code == 0, result.err
    assert "model.backbone.dropout" in result.out


def test_a_checkpoint_begins_a_new_run(run, tmp_path):
    first = run / "checkpoints/step=00000010.ckpt"
    result = call("fit", "--resume", first, "--runs", tmp_path / "forks", "--name", "fork")
    assert result.code == 0, result.err
    fork = tmp_path / "forks/demo/latest"
    assert fork.resolve().name.endswith("-fork")
    # from step 10 on it is the run that it comes from
    ours, theirs = (torch.load(f / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for f in (fork, run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert min(int(row["step"]) for row in rows(fork)) >= 10


def test_latest_is_the_latest_run_of_the_recipe_or_of_all(run, monkeypatch):
    monkeypatch.chdir(run.parents[2])
    call("fit", "--resume", run, "--trainer.max_steps=21", "--sampling=null", "--trainer.limit_val_batches=0")
    for words in (
        ["--resume", "latest"],
        *(["--resume", "latest", "-c", of] for of in ("runs/demo/latest", "overlays/bf16")),
    ):
        result = call("fit", *words)
        assert result.code == 0, result.err
        assert "nothing is left to train" in result.out and str(run.resolve()) in result.out


def test_the_last_lines_name_the_run_that_was_trained(run):
    """Another may have begun after it."""

    def last_lines():
        result = call("fit", "--resume", run)
        assert result.code == 0, result.err
        return result.out

    assert f"sample: snapvideo sample {run} " in last_lines()
    (run.parent / "latest").symlink_to(run.name)
    assert f"sample: snapvideo sample {run.parent}/latest " in last_lines()


def test_overlays_name_no_run():
    overlay, demo = find_recipe("overlays/bf16"), find_recipe("demo")
    assert run_name([overlay, demo]) == run_name([demo, overlay]) == "demo" and run_name([overlay]) is None


@pytest.mark.skipif(not MAPS.exists(), reason="the system does not tell what is mapped (/proc/self/maps)")
@pytest.mark.parametrize("option", ["--resume", "--init_from"])
def test_a_checkpoint_is_let_go_of_before_training(option, run, tmp_path, monkeypatch):
    """Once it is removed, its place on the disk is free."""
    first, seen = run / "checkpoints/step=00000010.ckpt", []
    monkeypatch.setattr(VideoDiffusion, "on_train_batch_end", lambda *_: seen.append(str(first) in MAPS.read_text()))
    quick = ["--sampling=null", "--trainer.limit_val_batches=0", "--trainer.max_steps=11", "--runs", tmp_path / "new"]
    assert call("fit", "-c", run, option, first, *quick).code == 0
    assert seen and not any(seen)


def test_weights_alone_begin_a_new_run(run, tmp_path):
    words = ["--trainer.max_steps=1", "--model.optimizer.lr=0.0", "--runs", tmp_path / "new", "--sampling=null"]
    result = call("fit", "-c", run, "--init_from", run, *words, "--trainer.limit_val_batches=0", "--ema=null")
    assert result.code == 0, result.err
    begun = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    end = checkpoint(tmp_path / "new")
    assert end["global_step"] == 1
    assert end["callbacks"]["Record"]["clips"] == 4
    for name, tensor in begun["state_dict"].items():  # the averaged ones
        assert torch.equal(end["state_dict"][name], tensor), name


def test_what_could_not_be_made_to_fit_is_said(run, tmp_path):
    few = ["--trainer.max_steps=1", "--sampling=null", "--trainer.limit_val_batches=0", "--ema=null"]
    words = ["fit", "-c", run, *few, "--runs", tmp_path / "new", "--init_from"]
    shutil.copy(run / "checkpoints/last.ckpt", tmp_path / "alone.ckpt")
    result = call(*words, tmp_path / "alone.ckpt")
    assert result.code == 0 and "its config is not beside it: weights that belong to places" in result.out, result.err
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["init_args"]["backbone"]["init_args"]["num_blocks"] = 2
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    result = call(*words, tmp_path / "alone.ckpt")
    assert result.code == 0 and f"the config in {tmp_path} is of another network: weights" in result.out, result.err
    assert "of another network" not in call(*words, run).out


def test_weights_that_do_not_fit_are_refused(run, tmp_path):
    words = ["--runs", tmp_path / "new", "--init_from", run, "--model.backbone.channels=32"]
    result = call("fit", "-c", run, *words)
    assert result.code == 2
    assert "another model" in result.err and "backbone." in result.err
    assert not list((tmp_path / "new").glob("**/*"))


def test_resuming_shows_a_wrong_key_on_one_screen(run):
    result = call("fit", "--resume", run, "--model.backbone.chanels=3")
    assert result.code == 2
    assert "chanels" in result.err and "Did you mean" in result.err and result.err.count("\n") < 25


def test_who_asks_whether_a_run_is_trained_keeps_nobody_from_it(tmp_path):
    """As the report does, for a moment, while a training begins."""
    script = "import fcntl, sys, time; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_SH)"
    script += "; print(flush=True); time.sleep({})"
    for seconds, refused in ((0.05, False), (60, True)):
        (tmp_path / ".training").touch()
        asks = [sys.executable, "-c", script.format(seconds), tmp_path / ".training"]
        with subprocess.Popen(asks, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            with pytest.raises(UserError) if refused else contextlib.nullcontext(), only_training(tmp_path):
                pass
            process.kill()


def test_a_run_is_trained_by_one_process_at_a_time(run):
    with only_training(run):
        result = call("fit", "--resume", run, "--trainer.max_steps=22")
        assert result.code == 2
        assert "is being trained by another process" in result.err
    assert call("fit", "--resume", run).code == 0


@pytest.mark.parametrize("runs_still", [True, False])
def test_what_another_process_does_meanwhile_is_told(runs_still, run, monkeypatch):
    """It trains the run, and removes the checkpoint that was chosen."""
    chosen = run / "checkpoints/step=00000020.ckpt"
    build = Training.__init__

    def later(self, *words):
        chosen.rename(chosen.with_name("step=00000021.ckpt"))
        build(self, *words)

    monkeypatch.setattr(Training, "__init__", later)
    with only_training(run) if runs_still else contextlib.nullcontext():
        result = call("fit", "--resume", run, "--trainer.max_steps=22")
    assert result.code == 2
    assert ("is being trained by another process" if runs_still else f"has gone on from {chosen.name}") in result.err
