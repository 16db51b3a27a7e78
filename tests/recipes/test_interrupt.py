"""Signals: a training that is asked to end saves after a whole step, and goes on as if nothing had been."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from snapvideo.components import VideoDiffusion
from snapvideo.components.callbacks.average import Average
from snapvideo.datamodules import JointData
from snapvideo.recipes import interrupt
from snapvideo.recipes.interrupt import EndedAtOnce, HeldSignals
from snapvideo.recipes.rehearsal import Rehearsal

from .conftest import call, rows, same

STEPS = 60
WORDS = ["fit", "-c", "demo", "--smoke", "--sampling", "null", "--trainer.limit_val_batches=0"]
WORDS += [f"--trainer.max_steps={STEPS}", "--trainer.max_time", "null", "--checkpoint.every_n_steps=1000"]


def begin(folder, *words, **environment):
    """A training in a process of its own, once it has done a step."""
    command = [sys.executable, "-m", "snapvideo.recipes.cli", *WORDS, *words]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment
    )
    latest = folder / "runs/demo/latest"
    while not latest.exists() and process.poll() is None:
        time.sleep(0.001)
    return process


def checkpoint(folder, runs="runs"):
    return torch.load(folder / runs / "demo/latest/checkpoints/last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The checkpoint of a training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    result = call(*WORDS, "--runs", folder / "runs")
    assert result.code == 0, result.err
    return checkpoint(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_saves_ends_and_goes_on_bitwise_the_same(number, whole, tmp_path):
    process = begin(tmp_path)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert f"{signal.Signals(number).name}: training ends after this batch" in output
    assert "resume: snapvideo fit --resume runs/demo/latest" in output
    assert 0 < checkpoint(tmp_path)["global_step"] < STEPS
    resumed = call("fit", "--resume", tmp_path / "runs/demo")
    assert resumed.code == 0, resumed.err
    end = checkpoint(tmp_path)
    assert same(end, whole)


GROUP = """
import os, subprocess, sys, threading, time
from snapvideo.components import VideoDiffusion
from snapvideo.datamodules.clips import Clips
from snapvideo.recipes.cli import main

decode = Clips.__getitem__

def slow(self, draws):
    if draws[0].position >= 20:  # from the eleventh batch on
        time.sleep(2)
    return decode(self, draws)

def told(self, outputs, batch, batch_idx):
    if batch_idx == 9:  # the next batch is waited for then
        threading.Timer(0.5, subprocess.run, [["kill", "-" + sys.argv[1], "--", f"-{os.getpid()}"]]).start()

Clips.__getitem__ = slow
VideoDiffusion.on_train_batch_end = told
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_to_all_processes_leaves_workers_at_work(number, tmp_path):
    """As Ctrl-C in a terminal, and SLURM, while training waits for data."""
    (tmp_path / "script.py").write_text(GROUP)
    command = [sys.executable, "script.py", str(int(number)), *WORDS, "--data.num_workers=2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, start_new_session=True)
    assert done.returncode == 128 + number, done.stderr
    assert "exited unexpectedly" not in done.stderr and "Traceback" not in done.stderr
    assert 10 <= checkpoint(tmp_path)["global_step"] < STEPS


def test_in_the_middle_of_a_step_it_goes_on_with_the_step_before(tmp_path, monkeypatch):
    """Of four batches: that of the third step are lost, and are done again; their clips count once."""
    words = [*WORDS, "--trainer.max_steps=5", "--trainer.accumulate_grad_batches=4", "--trainer.log_every_n_steps=1"]
    assert call(*words, "--runs", tmp_path / "whole").code == 0
    begin = VideoDiffusion.on_train_batch_start

    def at_tenth(self, batch, batch_idx):
        begin(self, batch, batch_idx)
        if batch_idx == 9:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(VideoDiffusion, "on_train_batch_start", at_tenth)
        assert call(*words, "--runs", tmp_path / "parts").code == 143
    latest = [tmp_path / name / "demo/latest" for name in ("whole", "parts")]
    assert torch.load(latest[1] / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
    assert call("fit", "--resume", latest[1]).code == 0
    whole, parts = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in latest)
    assert same(parts, whole)
    assert parts["callbacks"]["Record"]["clips"] == whole["callbacks"]["Record"]["clips"]
    losses = [[(row["step"], row["train/loss"]) for row in rows(run)] for run in latest]
    assert losses[0] == losses[1]


def test_a_requeued_slurm_job_goes_on_in_its_run_folder(tmp_path):
    """As SLURM does it: a signal ahead of the end, `scontrol requeue`, an end, and the same command again."""
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho $@ > {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    names = {"JOB_ID": "77", "JOB_NAME": "train", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    slurm = {f"SLURM_{name}": value for name, value in (names | {"NODELIST": "localhost"}).items()}
    path = {"PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    process = begin(tmp_path, **slurm, **path)
    process.send_signal(signal.SIGUSR1)
    while not (tmp_path / "asked").exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    output, _ = process.communicate(timeout=60)
    assert (tmp_path / "asked").read_text().split() == ["requeue", "77"], output
    (run,) = tmp_path.glob("runs/demo/2*")
    assert list(run.glob("hpc_ckpt_*.ckpt"))
    again = begin(tmp_path, **slurm, **path, SLURM_RESTART_COUNT="1")
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    assert "resumed from" in output
    assert list(tmp_path.glob("runs/demo/2*")) == [run]
    assert checkpoint(tmp_path)["global_step"] == STEPS
    assert not list(run.glob("hpc_ckpt_*.ckpt"))
    assert len(json.loads((run / "env.json").read_text())["resumes"]) == 1


class TestRequeued:
    """A job that SLURM starts again, with the same command."""

    @pytest.fixture(autouse=True)
    def job(self, monkeypatch):
        monkeypatch.setenv("SLURM_JOB_ID", "77")

    def start(self, folder, monkeypatch, *words, again=False):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(int(again)))
        result = call(*WORDS, "--trainer.max_steps=2", *words, "--runs", folder)
        assert result.code == 0, result.err
        return result.out

    def runs(self, folder):
        return sorted(folder.glob("demo/2*"))

    def test_without_a_checkpoint_it_begins_anew(self, tmp_path, monkeypatch):
        self.start(tmp_path, monkeypatch, "--name=first")
        (first,) = self.runs(tmp_path)
        shutil.rmtree(first / "checkpoints")
        time.sleep(1)  # or both would have the same name
        self.start(tmp_path, monkeypatch, "--name=first", again=True)
        assert len(self.runs(tmp_path)) == 2 and checkpoint(tmp_path.parent, tmp_path.name)["global_step"] == 2

    def test_other_commands_of_the_job_have_runs_of_their_own(self, tmp_path, monkeypatch):
        self.start(tmp_path, monkeypatch, "--name=one")
        self.start(tmp_path, monkeypatch, "--name=two", again=True)
        assert len(self.runs(tmp_path)) == 2
        assert "nothing is left to train" in self.start(tmp_path, monkeypatch, "--name=one", again=True)

    @pytest.mark.parametrize("resumed", ["latest", "a file"])
    def test_what_it_resumed_at_first_does_not_matter(self, resumed, tmp_path, monkeypatch):
        """It goes on where it came to: neither again from the file, nor in what is the latest run by now."""
        monkeypatch.delenv("SLURM_JOB_ID")
        self.start(tmp_path, monkeypatch)
        (run,) = self.runs(tmp_path)
        monkeypatch.setenv("SLURM_JOB_ID", "77")
        words = ["fit", "--resume", "latest" if resumed == "latest" else run / "checkpoints/step=00000002.ckpt"]
        words += ["--trainer.max_steps=3", "--runs", tmp_path]
        monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
        first = call(*words)
        assert first.code == 0, first.err
        ours = max(self.runs(tmp_path), key=lambda run: run.stat().st_mtime_ns)
        assert len(self.runs(tmp_path)) == (1 if resumed == "latest" else 2)
        monkeypatch.setenv("SLURM_JOB_ID", "78")
        self.start(tmp_path, monkeypatch, "--name=another")
        monkeypatch.setenv("SLURM_JOB_ID", "77")
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        again = call(*words)
        assert again.code == 0 and f"{ours}/checkpoints/step=00000003.ckpt is at step 3" in again.out, again.out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("twice", [False, True])
def test_before_the_first_step_it_ends_with_the_same_codes(number, twice, tmp_path, monkeypatch):
    """In the rehearsal: once, and it ends with it; twice, and it ends at once."""

    def rehearse(*_):
        signal.raise_signal(number)
        if twice:
            signal.raise_signal(number)
            pytest.fail("it goes on")

    monkeypatch.setattr(interrupt, "ONCE", 0.0)
    monkeypatch.setattr(Rehearsal, "on_train_start", rehearse)
    assert call(*WORDS, "--runs", tmp_path).code == 128 + number
    assert not list(tmp_path.glob("demo/*/checkpoints/*"))
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_data_is_listed_it_ends_with_the_same_codes_and_leaves_nothing(number, tmp_path, monkeypatch):
    monkeypatch.setattr(JointData, "setup", lambda *_, **__: signal.raise_signal(number))
    before = signal.getsignal(signal.SIGINT)
    try:
        assert call(*WORDS, "--runs", tmp_path).code == 128 + number
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning leaves it ignored
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_twice_while_the_average_is_put_in_place_saves_nothing(number, tmp_path, monkeypatch):
    """Half of the weights are others then."""
    swap = Average.swap

    def half(self, module):
        swap(self, module)
        signal.raise_signal(number)
        signal.raise_signal(number)
        pytest.fail("it goes on")

    monkeypatch.setattr(interrupt, "ONCE", 0.0)
    monkeypatch.setattr(Average, "swap", half)
    words = [*WORDS, "--trainer.limit_val_batches=1", "--trainer.val_check_interval=3", "--runs", tmp_path]
    assert call(*words).code == 128 + number
    assert not list(tmp_path.glob("demo/latest/checkpoints/*"))
    progress = json.loads((tmp_path / "demo/latest/progress.json").read_text())
    assert (progress["state"], progress["why"]) == ("stopped", "it was told to end at once")


def test_handlers_are_given_back_and_only_a_later_signal_is_a_second_one(monkeypatch):
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        signals = HeldSignals()
        signals.hold()
        monkeypatch.setattr(interrupt, "ONCE", 1e9)
        for _ in range(2):  # as torchrun and the terminal send it to a process
            signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr(interrupt, "ONCE", 0.0)
        with pytest.raises(EndedAtOnce) as end:
            signal.raise_signal(signal.SIGTERM)
        assert end.value.code == 143 and came == []
        signals.release()
        signal.raise_signal(signal.SIGTERM)
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ranks_wait_for_each_other_once_a_batch():
    asked = []
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: asked.append(all) or decision)
    signals = HeldSignals()
    assert not signals.act(SimpleNamespace(strategy=strategy)) and asked == [False]
    signals.hold()
    signal.raise_signal(signal.SIGINT)
    signals.release()
    assert signals.act(SimpleNamespace(strategy=strategy))


def test_the_exit_code_is_that_of_the_signal():
    signals = HeldSignals()
    signals.hold()
    signal.raise_signal(signal.SIGINT)
    signals.release()
    assert signals.interruption().code == 128 + signal.SIGINT
    assert interrupt.STOPPING == (signal.SIGINT, signal.SIGTERM)
