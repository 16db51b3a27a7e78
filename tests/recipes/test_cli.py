import contextlib
import io
import os
import subprocess
import sys
import tempfile

import pytest

from snapvideo.recipes.cli import main

from .conftest import call

QUICK = """
import sys
from snapvideo.recipes.cli import main
for words in ("--help", "--version", "fit --help", "sample --help", "sweep --help", "study --help", "recipe ls", "fti"):
    main(words.split())
heavy = {"torch", "lightning", "jsonargparse", "numpy", "transformers"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""


def test_help_imports_nothing_heavy():
    result = subprocess.run([sys.executable, "-c", QUICK], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for word in ("fit", "sample", "snapvideo 0.", "--smoke", "demo", "Did you mean 'fit'?"):
        assert word in result.stdout + result.stderr


@pytest.mark.parametrize("verb", ["", "fit", "validate", "sample", "sweep", "study", "ema", "data", "recipe"])
def test_help_fits_a_screen(verb):
    result = call(*verb.split(), "--help")
    assert result.code == 0
    lines = result.out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120


FILES = {
    "section.yaml": "modle: {backbone: FIT}",
    "key.yaml": "model: {backbone: {class_path: FIT, init_args: {dim_ptch: 3}}}",
    "class.yaml": "model: {backbone: FITT}",
    "part.yaml": "model: {conditioner: {class_path: Conditioners, init_args: {parts: [{class_path: ByteTxt}]}}}",
    "shape.yaml": "data: {class_path: Shapes, init_args: {shape: {num_frames: 3, height: 8, width: 8}}}",
    "type.yaml": "sampling: {prompts: a red circle}",
    "broken.yaml": "model: [1",
    "list.yaml": "[1, 2]",
    "scalar.yaml": "max_bad_step: 3",
}

WRONG = [
    ("fti", ["'fti'", "Did you mean 'fit'?"]),
    ("fit", ["no model, data", "-c demo"]),
    ("fit -c demmo", ["demmo", "Did you mean 'demo'?", "folders"]),
    ("fit -c demo -c section.yaml", ["'modle'", "Did you mean 'model'?", "trainer"]),
    ("fit -c demo -c key.yaml", ["model.backbone:", "'dim_ptch'", "Did you mean 'dim_patch'?", "num_latents"]),
    ("fit -c demo -c class.yaml", ["model.backbone:", "'FITT'", "Did you mean 'FIT'?"]),
    ("fit -c demo -c part.yaml", ["model.conditioner.parts:", "'ByteTxt'", "Did you mean 'ByteText'?"]),
    ("fit -c demo -c shape.yaml", ["data:", "model.backbone.shape"]),
    ("fit -c demo -c type.yaml", ["sampling.prompts:", "'a red circle'", "list"]),
    ("fit -c demo -c broken.yaml", ["broken.yaml", "line 1"]),
    ("fit -c demo -c list.yaml", ["list.yaml"]),
    ("fit -c demo -c scalar.yaml", ["'max_bad_step'", "Did you mean 'max_bad_steps'?"]),
    ("fit -c demo --modle.dim 3", ["'modle'", "Did you mean 'model'?"]),
    ("fit -c demo --model.backbon.channels 3", ["model:", "'backbon'", "Did you mean 'backbone'?"]),
    ("fit -c folders --model.backbone.dim_ptch 3", ["model.backbone:", "'dim_ptch'", "Did you mean 'dim_patch'?"]),
    ("fit -c folders --model.backbone.dim_patch wide", ["model.backbone.dim_patch:", "'wide'", "int"]),
    ("fit -c folders --model.backbone.position near", ["model.backbone.position:", "'near'", "'full', 'factorized'"]),
    ("fit -c demo --model.backbone EDM", ["model.backbone:", "'EDM'", "FIT"]),
    ("fit -c demo --model.backbone my.Own", ["model.backbone:", "my.Own"]),
    ("fit -c demo --model.optimizer Adan", ["model.optimizer:", "'Adan'", "AdamW", "LAMB"]),
    ("fit -c demo --model.optimizer.lr fast", ["model.optimizer.lr:", "'fast'", "float"]),
    ("fit -c demo --trainer.max_step 3", ["trainer:", "'max_step'", "Did you mean 'max_steps'?"]),
    ("fit -c demo --trainer.precision bf15", ["trainer.precision:", "'bf15'", "bf16-mixed"]),
    ("fit -c demo --trainer.accelerator warp", ["trainer:", "warp"]),
    ("fit -c demo --ema.halflife 3", ["ema:", "'halflife'", "Did you mean 'half_life'?"]),
    ("fit -c demo --post_hoc_ema.every_n_step 3", ["post_hoc_ema:", "'every_n_step'", "Did you mean 'every_n_steps'?"]),
    ("fit -c demo --post_hoc_ema PostHocEMA", ["post_hoc_ema", "every_n_steps"]),
    (
        "fit -c demo --post_hoc_ema.every_n_steps 5 --post_hoc_ema.stds [0.1,0.4]",
        ["post_hoc_ema: PostHocEMA:", "std is 0.4"],
    ),
    ("fit -c demo --data Shape", ["data:", "'Shape'", "Did you mean 'Shapes'?"]),
    ("fit -c demo --data.shape.height 8", ["data:", "model.backbone.shape"]),
    ("fit -c demo --data.holdout -1", ["data: Shapes:", "holdout is -1"]),
    ("fit -c folders --model.backbone.num_latents 33", ["model.backbone: FIT:", "num_latents=33"]),
    ("fit -c demo --model.backbone.head_dim 33", ["model.backbone: UNet:", "head_dim=33"]),
    ("fit -c demo --model.backbone.dim_condition 96", ["model: VideoDiffusion:", "conditioner.dim"]),
    ("fit -c demo --trainer.precision bf16-true", ["trainer.precision=bf16-true", "bf16-mixed"]),
    (
        "fit -c demo --trainer.limit_train_batches 3 --trainer.accumulate_grad_batches 2",
        ["limit_train_batches=3", "accumulate_grad_batches=2"],
    ),
    ("fit -c demo --model.backbone.head_dim null", ["model.backbone: UNet:", "head_dim is null", "int"]),
    ("fit -c demo --data.fps null", ["data: Shapes:", "fps is null"]),
    ("fit -c demo --name a/b", ["--name 'a/b'"]),
    ("fit -c demo --data.fps [.nan]", ["data: Shapes:", "fps is [nan]"]),
    ("fit -c demo --data.num_workers -1", ["data: Shapes:", "num_workers is -1"]),
    ("fit -c demo --model.framework.sigma_max .inf", ["model.framework: EDM:", "sigma_max=inf"]),
    ("fit -c demo --model.backbone.num_blocks 0", ["model.backbone: UNet:", "num_blocks=0"]),
    ("fit -c demo loose", ["'loose'"]),
    ("fit --resume nowhere", ["nowhere"]),
    ("fit -c demo --init_from nowhere", ["nowhere"]),
    ("fit -c demo --ckpt_path runs/demo", ["--resume RUN", "--init_from RUN"]),
    ("fit --resume latest --name a", ["--name"]),
    ("fit --resume latest --smoke", ["--smoke"]),
    ("fit --resume latest", ["there is no run in runs"]),
    ("fit -c folders", ["data: JointData:", "videos and images"]),
    ("validate -c demo", ["--ckpt_path"]),
    ("validate -c demo --smoke", ["--smoke", "fit"]),
    ("sample nowhere x", ["nowhere"]),
    ("sample ~nobody-of-this-name/run x", ["~nobody-of-this-name/run"]),
    ("fit -c ~nobody-of-this-name/own.yaml", ["~nobody-of-this-name/own.yaml"]),
    ("data synth key.yaml", ["key.yaml"]),
    ("recipe cp demo nowhere/x.yaml", ["nowhere/x.yaml"]),
    ("data sinth out", ["'sinth'", "synth"]),
]


@pytest.mark.parametrize(("words", "fragments"), WRONG, ids=[words for words, _ in WRONG])
def test_a_mistake_is_named_on_one_screen(words, fragments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    result = call(*words.split())
    assert result.code == 2
    message = result.err[result.err.index("error: ") :]
    for fragment in fragments:
        assert fragment in message
    assert len(message.splitlines()) <= 9
    assert "Traceback" not in result.err
    assert not list(tmp_path.glob("runs/**/*"))


@pytest.mark.parametrize("option", ["--resume", "--init_from", "--name"])
def test_an_empty_option_is_refused(option, tmp_path, monkeypatch):
    """As that of a variable that is not set."""
    monkeypatch.chdir(tmp_path)
    result = call("fit", "-c", "demo", "--smoke", option, "")
    assert result.code == 2 and f"{option} is empty" in result.err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("buffered", ["", "1"])
def test_output_that_nobody_reads_is_no_fault(buffered):
    command = [sys.executable, "-m", "snapvideo.recipes.cli", "recipe", "ls"]
    environment = os.environ | {"PYTHONUNBUFFERED": buffered}
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(writer)
    assert result.returncode == 141 and not result.stderr


def test_another_closed_pipe_is_a_fault(monkeypatch):
    from snapvideo.recipes.commands import recipe

    monkeypatch.setattr(recipe, "shipped_recipes", lambda: os.write(writer, b"to a process that has ended"))
    reader, writer = os.pipe()
    os.close(reader)
    out = io.TextIOWrapper(tempfile.TemporaryFile())
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()) as err:
        assert main(["recipe", "ls"]) == 1
    os.close(writer)
    assert "BrokenPipeError" in err.getvalue()


def test_debug_shows_the_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("fit", "-c", "nothing", "--debug")
    assert result.code == 2
    assert "Traceback" in result.err and "error: -c nothing" in result.err


def test_unusable_data_has_its_own_code_and_leaves_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    small = ["--model.backbone.num_blocks", 1, "--trainer.enable_model_summary", "false"]
    result = call("fit", "-c", "folders", "--data.videos", "empty", "--data.image_batch_size", 0, *small)
    assert result.code == 3, result.err
    assert "empty" in result.err and "Traceback" not in result.err
    assert not list(tmp_path.glob("runs/**/*"))


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    from snapvideo.recipes.commands import recipe

    def fail(*_):
        raise ZeroDivisionError("of our own making")

    monkeypatch.setattr(recipe, "shipped_recipes", fail)
    result = call("recipe", "ls")
    assert result.code == 1
    assert "Traceback" in result.err


def test_recipe_copies_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("recipe", "cp", "demo", "my.yaml").code == 0
    assert (tmp_path / "my.yaml").read_text() == call("recipe", "cat", "demo").out
    again = call("recipe", "cp", "demo", "my.yaml")
    assert again.code == 2 and "my.yaml exists" in again.err


def test_data_synth(tmp_path):
    out = tmp_path / "shapes"
    words = ["data", "synth", out, "--videos", 2, "--images", 1, "--size", 16, "--workers", 1]
    assert call(*words).code == 0
    assert len(list(out.glob("videos/*.mp4"))) == 2 and len(list(out.glob("images/*.jpg"))) == 1
    other = call(*words, "--seed", 1)
    assert other.code == 2 and "seed" in other.err
    assert call(*words[:2], tmp_path / "less", *words[3:], "--hold-out-combinations").code == 0
    assert '"hold_out_combinations": true' in (tmp_path / "less/shapes.json").read_text()
