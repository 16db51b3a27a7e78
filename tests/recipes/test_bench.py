"""``snapvideo bench`` on small networks: what it says, not how fast they are."""

import json

import pytest
from PIL import Image

from snapvideo.recipes import bench
from snapvideo.recipes.shipped import SMOKE_BACKBONES, SMOKE_TEXT

from .conftest import call


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(bench.PRODUCT_SIZE, "cpu", 128)  # where a CPU emulates bf16, a large product takes minutes
    for name, kind in (("fit", "FIT"), ("unet", "UNet")):
        text = SMOKE_BACKBONES[kind].read_text() + "      dim_condition: 32\n"
        text += "  conditioner:" + SMOKE_TEXT.read_text().partition("  conditioner:")[2]
        (tmp_path / f"{name}.yaml").write_text(
            text + "  framework: EDM\n  sampler: Heun\n  guidance: ClassifierFree\n  optimizer: torch.optim.Adam\n"
            "  scheduler:\n    class_path: WarmupCosine\n    init_args: {warmup_steps: 1, max_steps: 2}\n"
            "data: {class_path: Shapes}\n"
        )
    (tmp_path / "own.yaml").write_text(
        (tmp_path / "fit.yaml").read_text().partition("  conditioner:")[0].partition("  backbone:")[0]
        + "  backbone: own.Fixed\n  conditioner:"
        + (tmp_path / "fit.yaml").read_text().partition("  conditioner:")[2]
    )
    (tmp_path / "own.py").write_text(
        "from snapvideo.components.interfaces import Backbone, VideoShape\n\n\n"
        "class Fixed(Backbone):\n    shape, dim_condition = VideoShape(4, 16, 16), 32\n\n"
        "    def forward(self, x, c_noise, condition, state=None):\n        return x, None\n"
    )
    return tmp_path


@pytest.fixture
def without_peaks(monkeypatch):
    """Peaks are measured in processes of their own, which take seconds to start."""
    monkeypatch.setattr(bench, "_peaks", lambda *_: dict.fromkeys(bench.KINDS))


def test_peak_memory_is_that_of_a_process_of_its_own(recipes):
    result = call("bench", "unet.yaml", "--rounds", 1, "--json", "figures.json")
    assert result.code == 0, result.err
    (figure,) = json.loads((recipes / "figures.json").read_text())
    for kind in ("train", "inference"):
        assert 4 * figure["parameters"] < figure[f"{kind}_peak_memory"] < 1e9


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_recipes_side_by_side(recipes, without_peaks, dtype):
    words = ["--rounds", 2, "--batch", 2, "--dtype", dtype, "--json", "out/figures.json"]
    result = call("bench", "fit.yaml", "unet.yaml", *words)
    assert result.code == 0, result.err
    figures = json.loads((recipes / "out/figures.json").read_text())
    assert [figure["recipe"] for figure in figures] == ["fit.yaml", "unet.yaml"]
    for figure in figures:
        assert figure["dtype"] == dtype
        assert figure["batch"] == 2
        for kind in ("train", "inference"):
            assert figure[f"{kind}_low"] <= figure[f"{kind}_ms_per_video"] <= figure[f"{kind}_high"]
            assert figure[f"{kind}_fraction"] > 0
            assert figure[f"{kind}_tflops"] > 0
        assert figure["flops_train"] > 2.5 * figure["flops_forward"]
    last = result.out.splitlines()[-1].split()
    assert float(last[-1]) == pytest.approx(
        figures[1]["inference_ms_per_video"] / figures[0]["inference_ms_per_video"], abs=0.01
    )


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "batch_size"), [("fit_s", 1), ("fit_s", 4), ("fit_b", 2)])
def test_the_memory_of_a_plan_is_that_of_a_step(recipe, batch_size, tmp_path):
    """Weights, gradients and activations; the plan's optimizer and averages take no part in a bench."""
    words = ["--batch", batch_size, "--rounds", 1, "--json", tmp_path / "figures.json", "--device", "cpu"]
    result = call("bench", recipe, *words)
    assert result.code == 0, result.err
    (figures,) = json.loads((tmp_path / "figures.json").read_text())
    words = ["--json", "--batch-size", batch_size, "--trainer.precision", "32-true"]
    plan = json.loads(call("recipe", "check", recipe, *words).out)
    planned = (
        plan["weights"] + plan["gradients"] + plan["activations"] + (batch_size - 1) * plan["activations_per_clip"]
    )
    assert planned == pytest.approx(figures["train_peak_memory"], rel=0.15)


def test_a_size_of_ones_own_and_a_picture(recipes, without_peaks):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[eval]'")
    result = call(
        "bench",
        "fit.yaml",
        "fit.yaml+overlays/ddpm",
        "--rounds",
        1,
        "--frames",
        8,
        "--plot",
        "bars.png",
    )
    assert result.code == 0, result.err
    assert Image.open(recipes / "bars.png").size[0] > 400


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("nothing", "nothing"),
        ("fit.yaml --batch 0", "'0'"),
        ("fit.yaml --height 3", "backbone"),
        ("fit.yaml --device tpu", "tpu"),
        ("own.yaml --height 8", "own.yaml has no setting `shape`"),
        ("fit.yaml fit.yaml", "fit.yaml is named twice"),
        ("fit.yaml --json /proc/nothing/x.json", "/proc/nothing/x.json"),
    ],
)
def test_mistakes(words, expected, recipes):
    result = call("bench", *words.split())
    assert result.code == 2
    assert expected in result.err
