"""Averages made after a training, as a user makes them."""

import contextlib
import re
import shlex
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from .conftest import call


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A folder in which the demo was trained for 20 steps, with snapshots of three lengths; and one of them apart."""
    folder = tmp_path_factory.mktemp("averaged")
    with contextlib.chdir(folder):
        words = [
            "--post_hoc_ema.every_n_steps",
            1,
            "--post_hoc_ema.stds",
            "[0.05,0.07,0.1]",
            "--sampling.every_n_steps",
            99,
        ]
        result = call("fit", "-c", "demo", "--smoke", *words)
    assert result.code == 0, result.err
    apart = folder / "apart"
    apart.mkdir()
    for file in folder.glob("runs/demo/2*/averages/snapshots/std=0.070*"):
        shutil.move(file, apart)
    assert len(list(apart.iterdir())) == 20
    return folder


@pytest.fixture
def here(averaged, monkeypatch):
    monkeypatch.chdir(averaged)
    return averaged


def test_a_rebuilt_average_is_the_one_that_was_tracked(here):
    """Of a real training: 20 snapshots of two lengths give the weights of a third."""
    result = call("ema", "runs/demo/latest", "--std", 0.07, 0.1)
    assert result.code == 0, result.err
    rebuilt = load_file(here / "runs/demo/latest/averages/std=0.070-step=00000020.safetensors")
    tracked = load_file(here / "apart/std=0.070-step=00000020.safetensors")
    nearest = load_file(here / "runs/demo/latest/averages/snapshots/std=0.050-step=00000020.safetensors")
    assert rebuilt.keys() == tracked.keys()

    def distance(one, other):
        return sum((one[name].double() - other[name].double()).square().sum() for name in one).sqrt()

    assert distance(rebuilt, tracked) < distance(nearest, tracked) / 50
    again = load_file(here / "runs/demo/latest/averages/std=0.100-step=00000020.safetensors")
    torch.testing.assert_close(
        again, load_file(here / "runs/demo/latest/averages/snapshots/std=0.100-step=00000020.safetensors")
    )


def test_the_command_that_it_prints_samples_with_it(here, tmp_path):
    result = call("ema", "runs/demo", "--std", 0.06, "--step", 12, "-o", tmp_path / "mine.safetensors")
    assert result.code == 0, result.err
    assert "std 0.06 at step 12" in result.out and "24 snapshots" in result.out
    command = shlex.split(result.out.splitlines()[-1].removeprefix("sample:  "))
    file = str(tmp_path / "mine.safetensors")
    assert command == ["snapvideo", "sample", "runs/demo", "a red circle moves left", "--checkpoint", file]
    sampled = call(*command[1:], "--steps", 1, "-n", 1, "-o", tmp_path / "out")
    assert sampled.code == 0, sampled.err
    assert '"checkpoint": "mine.safetensors"' in (tmp_path / "out/meta.jsonl").read_text()


def test_the_loss_of_a_file_is_that_of_its_weights(here, tmp_path):
    file = tmp_path / "weights.safetensors"
    weights = torch.load("runs/demo/latest/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    save_file({name: weight.contiguous() for name, weight in weights.items()}, file)
    losses = []
    for words in (["--ckpt_path", file], ["--ckpt_path", "runs/demo"]):
        result = call("validate", "-c", "runs/demo", *words)
        assert result.code == 0, result.err
        losses.append(re.search(r"val/loss +│ +(\S+)", result.out).group(1))
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        ("runs/demo/latst --std 0.1", ["runs/demo/latst", "Did you mean 'runs/demo/latest'?"]),
        ("demo --std 0.1", ["no snapshots", "--post_hoc_ema.every_n_steps"]),
        ("runs/demo --std 0.5", ["--std 0.5", "above 0 and below 0.289"]),
        ("runs/demo --std 0.05 0", ["--std 0.0", "above 0"]),
        ("runs/demo --std 0.01", ["--std 0.01", "10% are allowed"]),
        ("runs/demo --std 0.1 --step 25", ["--step 25", "Did you mean 20?", "1, 2, 3, 4, 5, ..., 16"]),
        ("runs/demo --std 0.05 0.1 -o x.safetensors", ["one file, for 2 averages"]),
        ("runs/demo --std 0.05 -o x.ckpt", ["x.ckpt", ".safetensors"]),
        ("runs/demo --std 0.05 -o /dev/null/x.safetensors", ["/dev/null/x.safetensors cannot be written"]),
        ("runs/demo", ["--std"]),
        ("runs/demo --std wide", ["--std", "'wide'"]),
    ],
)
def test_a_mistake_is_named(here, words, fragments):
    before = sorted((here / "runs/demo/latest/averages").iterdir())
    result = call("ema", *words.split())
    assert result.code == 2
    message = result.err[result.err.index("error: ") :]
    assert all(fragment in message for fragment in fragments), message
    assert len(message.splitlines()) <= 3
    assert sorted((here / "runs/demo/latest/averages").iterdir()) == before


def test_what_snapshots_can_give_is_told(here):
    """The lengths that the message names work, and those just beyond do not."""
    shortest, longest = map(
        float, re.search(r"give (\S+) to (\S+);", call("ema", "runs/demo", "--std", 0.01).err).groups()
    )
    for std, code in ((shortest, 0), (longest, 0), (shortest - 0.005, 2), (longest + 0.005, 2)):
        assert call("ema", "runs/demo", "--std", std).code == code


def test_a_broken_snapshot_is_named(here, tmp_path):
    shutil.copytree(here / "runs/demo/latest/", tmp_path / "run")
    file = tmp_path / "run/averages/snapshots/std=0.050-step=00000007.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    result = call("ema", tmp_path / "run", "--std", 0.1)
    assert result.code == 2
    assert f"{file.name} is no snapshot" in result.err


def test_averages_that_began_at_a_resume_are_told_and_not_mixed_with_older_ones(here, tmp_path):
    """At step 21, after a stretch without."""
    run = shutil.copytree(here / "runs/demo/latest/", tmp_path / "run")
    quick = ["--sampling=null", "--trainer.limit_val_batches=0"]
    for steps, words in ((21, ["--post_hoc_ema=null"]), (33, ["--post_hoc_ema.every_n_steps=1"])):
        assert call("fit", "--resume", run, *quick, f"--trainer.max_steps={steps}", *words).code == 0
    result = call("ema", run, "--std", 0.07)
    assert result.code == 0, result.err
    assert "from 24 snapshots" in result.out and "began at step 21" in result.out  # not of the 40 before, too
    before = call("ema", run, "--std", 0.07, "--step", 20)
    assert "from 40 snapshots" in before.out and "began at step" not in before.out
