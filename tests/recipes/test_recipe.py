"""``snapvideo recipe``: plans of the paper's models against its figures, and what recipes differ in."""

import json
from functools import cache

import pytest
import torch

from snapvideo.recipes.plan import Plan
from snapvideo.recipes.run import build_model
from snapvideo.recipes.shipped import find_recipes, shipped_recipes
from snapvideo.recipes.training import read_settings

from .conftest import call


@cache
def plan(*words):
    result = call("recipe", "check", "--json", *words)
    assert result.code == 0, result.err
    return json.loads(result.out)


@pytest.mark.parametrize(
    ("name", "parameters", "forward", "train"),
    [
        ("snap_video_500m", 502_014_512, 0.703, 2.74),
        ("snap_video_3.9b", 3_923_448_880, 6.435, 25.10),
        ("unet_85m", 85e6, 0.688, 2.06),
        ("unet_284m", 284e6, 1.835, 5.50),
    ],
)
def test_the_papers_models_have_the_papers_sizes(name, parameters, forward, train):
    found = plan(name)
    if name.startswith("snap_video"):  # a closed form
        assert found["parameters"] == parameters
    else:
        assert found["parameters"] == pytest.approx(parameters, rel=0.01)
    assert found["parameters_backbone"] == pytest.approx(found["parameters"], rel=0.02)
    assert found["flops_forward"] == pytest.approx(forward * 1e12, rel=0.01)
    assert found["flops_train"] == pytest.approx(train * 1e12, rel=0.01)


def test_the_large_model_on_8_and_64_cards():
    """Of each parameter: 4 bytes of weight, of gradient and of average, 8 of LAMB's means."""
    found, width, latent = plan("snap_video_3.9b"), 1024, 3072
    feed_forward = {dim: 8 * dim**2 + 6 * dim for dim in (width, latent)}
    cross = (
        2 * width * (width + latent) + width + latent
    )  # queries, keys, values and output are as wide as the narrower
    block = 2 * (cross + feed_forward[latent]) + 4 * (4 * latent**2 + latent + feed_forward[latent])
    block += cross + feed_forward[width]
    assert found["largest_block"] == 4 * block
    assert found["outside_blocks"] == 4 * (found["parameters_backbone"] - 6 * block)
    step = found["activations"] + 7 * found["activations_per_clip"]  # 4 videos and 4 images
    for cards in (8, 64):
        expected = 20 * found["parameters"] / cards + step + 4 * 4 * block + 2 * found["outside_blocks"]
        assert found["peak_shared"][str(cards)] == pytest.approx(expected, rel=1e-3)


def test_the_upsamplers_plan():
    found = plan("snap_video_3.9b_upsampler")
    assert found["parameters"] == 3_935_578_160
    assert found["flops_forward"] == pytest.approx(28.5e12, rel=0.01)
    assert found["flops_train"] == pytest.approx(111.2e12, rel=0.01)


@pytest.mark.parametrize("name", [name for name in shipped_recipes(overlays=False) if "video" not in name])
def test_every_recipe_has_a_plan(name):
    found = plan(name)
    assert found["recipe"] == name
    assert found["weights"] >= 4 * found["parameters"]
    assert found["peak"] > found["weights"] + found["gradients"] + found["optimizer"] + found["ema"]


def test_a_plan_follows_overlays_and_settings():
    own = plan("demo")
    assert own["batch_size"] == 8
    assert own["optimizer"] == pytest.approx(2 * own["gradients"], rel=0.01)  # Adam
    assert own["ema"] == own["weights"]
    assert plan("demo", "--ema", "null", "--post_hoc_ema.every_n_steps", "9")["ema"] == 2 * own["weights"]
    assert (
        plan("demo", "--model.backbone.channels", "16", "--model.backbone.head_dim", "16")["parameters"]
        < own["parameters"] / 2
    )
    assert plan("demo", "--batch-size", "3")["batch_size"] == 3
    half, full = (plan("folders", "--trainer.precision", precision) for precision in ("bf16-mixed", "32-true"))
    assert half["activations_per_clip"] < 0.8 * full["activations_per_clip"]
    assert plan("folders")["precision"] == "bf16-mixed"  # whatever machine it is checked on


@pytest.mark.parametrize("words", [["--model.sampler.churn", "null"], ["--model.sampler.init_args.churn=null"]])
def test_a_setting_of_a_class_within_a_class_may_be_null(words):
    assert read_settings(find_recipes("demo"), words)["model"]["init_args"]["sampler"]["init_args"]["churn"] is None


def test_a_plan_doesnt_count_what_checkpointing_computes_again():
    assert (
        plan("fit_s", "--model.backbone.activation_checkpointing", "true")["flops_train"]
        == plan("fit_s")["flops_train"]
    )


OVERLAYS = [name for name in shipped_recipes() if name.startswith("overlays/") and "smoke" not in name]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_goes_on_its_recipe(overlay):
    """The command of its header is one that `fit` takes; and it makes a model."""
    command = shipped_recipes()[overlay].read_text().split("# Run: ")[1].split("\n")[0].split()
    assert command[:3] == ["snapvideo", "fit", "-c"] and command[5] == overlay
    printed = call(*command[1:], "--print_config")
    assert printed.code == 0, printed.err
    small = "demo" if overlay == "overlays/demo_fit" else "folders"
    with torch.device("meta"):
        build_model(read_settings([*find_recipes(small), *find_recipes(overlay)])["model"])


def test_a_plan_says_what_fits():
    result = call("recipe", "check", "fit_s", "--memory", "10", "--devices", "4", "16")
    assert result.code == 0, result.err
    *_, peaks, _, head, row = (line.split() for line in result.out.splitlines())
    assert head == "card whole model FSDP2, 4 cards FSDP2, 16 cards".split()
    whole, few, many = map(int, row[2:])
    assert 1 < whole < few <= many
    found = plan("fit_s", "--devices", "4", "16")
    expected = [found["peak"], *found["peak_shared"].values()]
    assert [float(peak) for peak in peaks] == pytest.approx([peak / 1e9 for peak in expected], abs=0.005)


@pytest.mark.parametrize("update", [0, 500])
@pytest.mark.parametrize("shards", [1, 4])
def test_the_largest_batch_is_the_largest_that_fits(update, shards):
    """Also where the optimizer's step needs more memory than the activations of some clips."""
    found = Plan(10, 10, 1, 1, 40, 40, 80, 40, update, 5, 2, 30, 25, 1)
    for memory in (100, 300, 800):
        count = found.largest_batch(memory, shards)
        assert found.peak(count + 1, shards) > memory
        assert count == 0 or found.peak(count, shards) <= memory
        assert count > 0 or found.peak(1, shards) > memory


def test_devices_share_averages_too():
    found = Plan(10, 10, 1, 1, 40, 40, 80, 400, 0, 7, 3, 30, 25, 1)
    assert found.peak(1) - found.peak(1, 4) == pytest.approx(560 * 3 / 4 - (4 * 7 + 2 * 3), abs=1)


def test_checkpointing_saves_activations():
    with_it = plan("fit_s", "--model.backbone.activation_checkpointing", "true")
    assert with_it["activations_per_clip"] < 0.6 * plan("fit_s")["activations_per_clip"]


def test_building_a_plan_leaves_nothing_behind():
    plan("demo")
    assert torch.zeros(2).sum() == 0  # a real tensor, on the CPU


def test_diff_shows_what_differs():
    lines = call("recipe", "diff", "unet_85m", "unet_284m").out.splitlines()
    assert [line.split()[0] for line in lines if "backbone" in line] == [
        "model.backbone.channels",
        "model.backbone.multipliers",
    ]
    assert any("128  ->  192" in line for line in lines)
    assert call("recipe", "diff", "demo", "demo").out == "no setting differs\n"
    lines = call("recipe", "diff", "snap_video_500m", "snap_video_500m+overlays/table3_sd0.5_k1").out.splitlines()
    assert [line.split()[0] for line in lines] == ["model.framework.sigma_in", "model.framework.sigma_data"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("check demmo", ["Did you mean 'demo'?"]),
        ("check demo --model.backbone.chanels 3", ["'chanels'", "Did you mean 'channels'?"]),
        ("check demo --batch-size 0", ["--batch-size 0"]),
        ("check demo --devices 8 0", ["--devices 0"]),
        *((f"check demo --memory {memory}", [f"--memory {memory}"]) for memory in ("-5.0", "0.0", "nan", "inf")),
        ("check folders --model.backbone.group [8,3,3]", ["model.backbone", "group"]),
        ("diff demo nothing", ["nothing"]),
        ("ls --all", ["--all"]),
    ],
)
def test_mistakes(words, expected):
    result = call("recipe", *words.split())
    assert result.code == 2
    for part in expected:
        assert part in result.err
