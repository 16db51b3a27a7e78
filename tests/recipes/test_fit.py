import csv
import json
import re
import shlex

import pytest
import torch
import yaml

from snapvideo.components import VideoDiffusion
from snapvideo.recipes.progress import Lines
from snapvideo.recipes.shipped import SMOKE_BACKBONES, SMOKE_TEXT, shipped_recipes, smoke_overlays, summary
from snapvideo.recipes.training import Training

from .conftest import call

RECIPES = [name for name in shipped_recipes() if not name.startswith("overlays/")]


def config_of(*words):
    """The config that the words of a command lead to."""
    result = call("fit", *words, "--print_config")
    assert result.code == 0, result.err
    return yaml.safe_load(result.out)


def checkpoint_of(run):
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def test_a_run_folder_is_complete(work):
    run = work / "runs/demo/latest"
    assert run.is_symlink() and not run.readlink().is_absolute()
    assert run.resolve().name.endswith("-smoke")
    names = {path.relative_to(run).as_posix() for path in run.rglob("*")}
    for name in ("config.yaml", "env.json", "metrics.csv", "checkpoints/last.ckpt", "samples/step=00000020/grid.mp4"):
        assert name in names
    assert any(name.startswith("tb/events") for name in names)
    environment = json.loads((run / "env.json").read_text())
    assert environment["command"] == "snapvideo fit -c demo --smoke"
    assert environment["versions"]["torch"] == torch.__version__
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert {"step", "train/loss", "val/loss"} <= set(rows[0])
    checkpoint = checkpoint_of(run)
    assert checkpoint["global_step"] == 20
    assert checkpoint["callbacks"]["Record"]["clips"] == 20 * 4


def test_fit_says_how_to_go_on(work, trained):
    lines = dict(line.split(":", 1) for line in trained[1].out.splitlines() if line.startswith(("run:", "sample:")))
    assert (work / lines["run"].strip()).is_dir()
    words = shlex.split(lines["sample"])
    assert words == ["snapvideo", "sample", "runs/demo/latest", "a red circle moves left"]


def test_the_saved_config_reads_back_as_itself(work):
    saved = (work / "runs/demo/latest/config.yaml").read_text()
    assert yaml.safe_load(saved) == config_of("-c", "runs/demo/latest")
    assert yaml.safe_load(saved)["trainer"]["precision"] == "32-true"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-c demo", "demo"),
        ("-c demo -c a.yaml", "a"),
        ("-c demo -c a.yaml -c b.yaml", "b"),
        ("-c demo -c a.yaml --smoke", "smoke"),
        ("-c demo --smoke --sampling.every_n_steps 7", 7),
        ("--sampling.every_n_steps=7 -c demo", 7),
        ("--sampling.every_n_steps=7 --smoke --config demo --config=a.yaml", 7),
    ],
)
def test_precedence(words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipes = {name: yaml.safe_load(shipped_recipes()[name].read_text()) for name in ("demo", "overlays/smoke")}
    demo, smoke = (recipe["sampling"]["every_n_steps"] for recipe in recipes.values())
    values = {"demo": demo, "a": 11, "b": 12, "smoke": smoke}
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text(f"sampling: {{every_n_steps: {values[name]}}}")
    config = config_of(*words.split())
    assert config["sampling"]["init_args"]["every_n_steps"] == values.get(expected, expected)
    assert config["sampling"]["init_args"]["fps"] == 8.0  # what nobody overrides stays


def test_another_class_drops_the_arguments_of_the_first():
    data = config_of("-c", "demo", "--data", "JointData", "--data.videos", "clips")["data"]
    assert data["class_path"].endswith("JointData")
    assert not {"root", "num_videos", "shape"} & set(data["init_args"])


def test_a_file_goes_before_a_shipped_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text("trainer: {max_steps: 3}")
    assert config_of("-c", "folders", "-c", "demo")["trainer"]["max_steps"] == 3


def test_several_sources_read_back_as_themselves(tmp_path):
    sources = [{"path": "clips/a", "weight": 3.0}, {"path": "shards/*.tar", "weight": 1.0}]
    first = config_of("-c", "folders", "--data.videos", json.dumps(sources), "--data.images", "photos")
    assert first["data"]["init_args"]["videos"] == sources and first["data"]["init_args"]["images"] == "photos"
    (tmp_path / "saved.yaml").write_text(yaml.safe_dump(first))
    assert config_of("-c", tmp_path / "saved.yaml") == first


def test_data_takes_the_shape_of_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    smoke = shipped_recipes()
    words = [f"--config={smoke['demo']}", f"--config={smoke['overlays/smoke']}", "--model.backbone.shape.num_frames=8"]
    training = Training(words, None, ["snapvideo", "fit"])
    assert training.datamodule.shape == training.model.shape
    assert training.model.shape.num_frames == 8


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_twin_of_seconds(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--data.num_videos=4", "--data.num_images=4"]
    result = call("fit", "-c", name, "--smoke", *few)
    assert result.code == 0, result.err
    assert checkpoint_of(tmp_path / f"runs/{name}/latest")["global_step"] == 1


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["model: {backbone: {class_path: UNet}}"], "UNet"),
        (["model: {init_args: {backbone: {class_path: UNet}}}"], "UNet"),  # the config of a run
        (["model: {backbone: snapvideo.components.UNet}", "trainer: {max_steps: 3}"], "UNet"),
        (["model: {backbone: UNet}", "model: {backbone: FIT}"], "FIT"),
        (["model: {backbone: UNet}", "model: {backbone: {init_args: {channels: 8}}, conditioner: null}"], "UNet"),
        (["model: {label_dropout: 0.2, backbone: UNet}"], "UNet"),
        (["model: {backbone: UNet}", "model: [1]", "model: {init_args: null}", "a: [1"], "UNet"),
        (["trainer: {max_steps: 3}"], "FIT"),
        (["model: {backbone: FIT}", "model: {backbone: {class_path: mine.Own}}"], None),
    ],
)
def test_the_twin_has_the_backbone_that_the_last_recipe_names(texts, kind, tmp_path):
    recipes = [tmp_path / f"{i}.yaml" for i in range(len(texts))]
    for recipe, text in zip(recipes, texts, strict=True):
        recipe.write_text(text)
    assert smoke_overlays(recipes)[1:] == ([SMOKE_BACKBONES[kind], SMOKE_TEXT] if kind else [])


@pytest.mark.parametrize("conditioner", ["mine.Own", "{class_path: Conditioners, init_args: {parts: [mine.Own]}}"])
def test_the_twin_keeps_a_conditioner_of_the_users_own(conditioner, tmp_path):
    recipe = tmp_path / "own.yaml"
    recipe.write_text(f"model: {{backbone: UNet, conditioner: {conditioner}}}")
    assert smoke_overlays([recipe])[1:] == [SMOKE_BACKBONES["UNet"]]


def test_the_demo_trains_in_bf16(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    precision = ["--trainer.precision", "bf16-mixed"]
    few = ["--trainer.max_steps=2", "--trainer.limit_val_batches=0", "--data.num_videos=4", "--data.num_images=4"]
    result = call("fit", "-c", "demo", "--smoke", *precision, *few)
    assert result.code == 0, result.err
    assert checkpoint_of(tmp_path / "runs/demo/latest")["global_step"] == 2


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_says_what_it_is_and_how_to_run_it(name):
    file = shipped_recipes()[name]
    header = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert summary(file)
    assert any("Run:" in line and "snapvideo fit -c" in line for line in header)


def test_resume_goes_on_where_it_ended_with_the_settings_of_now(work, tmp_path):
    checkpoint = work / "runs/demo/latest/checkpoints/last.ckpt"
    changed = ["--model.optimizer.lr=0.5", "--model.optimizer.weight_decay=0.3", "--trainer.max_steps=22"]
    result = call("fit", "--resume", checkpoint, "--runs", tmp_path, *changed)
    assert result.code == 0, result.err
    checkpoint = checkpoint_of(tmp_path / "demo/latest")
    assert checkpoint["global_step"] == 22
    assert checkpoint["callbacks"]["Record"]["clips"] == 22 * 4
    group = checkpoint["optimizer_states"][0]["param_groups"][0]
    assert group["weight_decay"] == 0.3
    warm = (22 + 1) / (100 + 1)  # of the recipe's warm-up
    assert group["lr"] == pytest.approx(0.5 * warm)


def test_a_finished_run_is_not_begun_again(work, trained, tmp_path):
    assert "resume:" not in trained[1].out
    latest = (work / "runs/demo/latest").resolve()
    result = call("fit", "--resume", "runs/demo/latest")
    assert result.code == 0, result.err
    assert "nothing is left to train" in result.out and "max_steps=20" in result.out
    assert (work / "runs/demo/latest").resolve() == latest
    assert len(list(work.glob("runs/demo/*"))) == 2  # the run and `latest`


def test_a_run_that_stopped_early_says_how_to_resume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(
        "fit",
        "-c",
        "demo",
        "--smoke",
        "--runs",
        "others",
        "--trainer.max_time",
        "00:00:00:01",
        "--trainer.max_steps",
        4000,
    )
    assert result.code == 0, result.err
    line = next(line for line in result.out.splitlines() if line.startswith("resume:"))
    words = shlex.split(line.removeprefix("resume: snapvideo"))
    step = checkpoint_of(tmp_path / "others/demo/latest")["global_step"]
    assert call(*words, "--trainer.max_steps", step + 2, "--trainer.limit_val_batches=0").code == 0
    assert checkpoint_of(tmp_path / "others/demo/latest")["global_step"] == step + 2


def test_a_step_that_was_interrupted_between_its_batches_begins_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = [
        "--sampling=null",
        "--trainer.limit_val_batches=0",
        "--trainer.max_steps=3",
        "--trainer.enable_model_summary=false",
    ]
    common = ["fit", "-c", "demo", "--smoke", *quick, "--trainer.accumulate_grad_batches=2", "--runs"]
    assert call(*common, "through").code == 0
    step = VideoDiffusion.training_step
    monkeypatch.setattr(VideoDiffusion, "training_step", lambda self, b, i: step(self, b, i) if i < 3 else 1 / 0)
    assert call(*common, "parts").code == 1
    monkeypatch.setattr(VideoDiffusion, "training_step", step)
    result = call("fit", "--resume", "parts/demo")
    assert result.code == 0, result.err
    through, parts = checkpoint_of(tmp_path / "through/demo/latest"), checkpoint_of(tmp_path / "parts/demo/latest")
    for name, tensor in through["current_model_state"].items():
        assert torch.equal(tensor, parts["current_model_state"][name]), name


def test_a_run_whose_first_step_fails_is_not_the_latest(work, monkeypatch):
    latest = (work / "runs/demo/latest").resolve()
    monkeypatch.setattr(VideoDiffusion, "training_step", lambda *_: 1 / 0)
    assert call("fit", "-c", "demo", "--smoke", "--name", "broken").code == 1
    assert (work / "runs/demo/latest").resolve() == latest


def test_stopping_and_resuming_changes_nothing(work, tmp_path):
    """4 steps, then 2 more from the checkpoint, are 6 steps to the bit: weights, average and optimizer."""
    quick = ["--sampling=null", "--trainer.limit_val_batches=0", "--trainer.enable_model_summary=false"]
    common = ["fit", "-c", "demo", "--smoke", *quick, "--checkpoint.every_n_steps=3", "--runs"]
    for words in (
        [*common, tmp_path / "through", "--trainer.max_steps=6"],
        [*common, tmp_path / "parts", "--trainer.max_steps=4"],
        ["fit", "--resume", tmp_path / "parts/demo", "--trainer.max_steps=6"],
    ):
        result = call(*words)
        assert result.code == 0, result.err
    through, parts = checkpoint_of(tmp_path / "through/demo/latest"), checkpoint_of(tmp_path / "parts/demo/latest")
    for part in ("state_dict", "current_model_state"):
        for name, tensor in through[part].items():
            assert torch.equal(tensor, parts[part][name]), f"{part} {name}"
    moments = zip(*(c["optimizer_states"][0]["state"].values() for c in (through, parts)), strict=True)
    assert all(torch.equal(a["exp_avg_sq"], b["exp_avg_sq"]) for a, b in moments)


def test_other_verbs_take_a_run(work):
    result = call("validate", "-c", "runs/demo")
    assert result.code == 0, result.err
    assert "val/loss/band_0" in result.out
    assert call("test", "-c", "demo", "--ckpt_path", "runs/demo/latest", "-c", "runs/demo").code == 0


def test_where_there_is_no_terminal_lines_say_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(Lines, "every", 0.0)
    quick = ["--sampling=null", "--trainer.limit_val_batches=0", "--trainer.max_steps=3", "--runs", tmp_path]
    result = call("fit", "-c", "demo", "--smoke", *quick)
    assert result.code == 0, result.err
    lines = [line for line in result.out.splitlines() if line.startswith("step ")]
    assert [line.split(",")[0] for line in lines] == ["step 1 of 3", "step 2 of 3", "step 3 of 3"]
    assert re.fullmatch(r"step 2 of 3, loss [\d.]+, [\d.]+ clips/s, .* left", lines[1])
    assert lines[2].endswith(", 0 s left")
