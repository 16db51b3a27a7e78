"""The pages on parts of one's own: their code runs as a reader would run it, in an empty folder."""

import re
import shlex
from pathlib import Path

import pytest

from .recipes.conftest import call

PAGES = sorted(path for path in Path(__file__).parents[1].glob("docs/extend/*.md") if path.stem != "index")
BLOCK = re.compile(r"^```(python|yaml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_works(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = []
    for language, code in BLOCK.findall(page.read_text()):
        if language == "console":
            commands += [shlex.split(line.removeprefix("$ snapvideo ")) for line in code.splitlines()]
        else:
            (tmp_path / code.split("\n", 1)[0].removeprefix("# ")).write_text(code)
    assert commands
    for words in commands:
        result = call(*words)
        assert result.code == 0, (words, result.err)
        assert result.out
    if page.stem != "callback":  # whose known classes, Lightning's among them, fill screens
        assert f"my_{page.stem}." in call("fit", "-c", f"my_{page.stem}.yaml", "--model.help").out
    assert f"class_path: my_{page.stem}." in (tmp_path / "runs/demo/latest/config.yaml").read_text()
    if page.stem == "callback":
        lines = (tmp_path / "runs/demo/latest/ledger.txt").read_text().splitlines()
        assert [line.split()[0] for line in lines] == ["5", "10", "15", "20"]
        assert "train/loss" in lines[0]


MISUSE = {
    "no_base.py": "class Own:\n    def __init__(self, shape: int = 3): pass\n",
    "shape.py": """
from snapvideo.components.interfaces import Backbone, VideoShape
import torch
class Own(Backbone):
    def __init__(self, shape: VideoShape, dim_condition: int = 128):
        super().__init__()
        self.shape, self.dim_condition, self.w = shape, dim_condition, torch.nn.Parameter(torch.ones(()))
    def forward(self, x, c_noise, condition, state=None):
        return {}
""",
}
MISUSE["width.py"] = MISUSE["shape.py"].replace("shape: VideoShape,", "shape: VideoShape, width: int,")
SHAPE = "{num_frames: 8, height: 24, width: 24}"


@pytest.mark.parametrize(
    ("source", "returned", "arguments", "expected"),
    [
        ("no_base.py", "", f"shape: {SHAPE}", ["model.backbone:", "mine.Own", "Backbone"]),
        ("width.py", "(self.w * x, None)", f"shape: {SHAPE}", ["model.backbone", "width"]),
        (
            "shape.py",
            "(self.w * x[:, :1], None)",
            f"shape: {SHAPE}",
            ["Own.forward", "[4, 1, 8, 24, 24]", "[4, 3, 8, 24, 24]"],
        ),
        ("shape.py", "self.w * x", f"shape: {SHAPE}", ["Own.forward", "(prediction, state)"]),
        (
            "shape.py",
            "(self.w * x, None)",
            f"shape: {SHAPE}, dim_condition: 7",
            ["conditioner.dim=128", "dim_condition=7"],
        ),
    ],
)
def test_misuse_is_told_on_one_screen(source, returned, arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = f"mine_{abs(hash((source, returned, arguments)))}"  # modules stay imported
    (tmp_path / f"{name}.py").write_text(MISUSE[source].replace("{}", returned))
    (tmp_path / "own.yaml").write_text(f"model: {{backbone: {{class_path: {name}.Own, init_args: {{{arguments}}}}}}}")
    result = call("fit", "-c", "demo", "-c", "own.yaml", "--smoke")
    assert result.code == 2, result.err
    for part in expected:
        assert part.replace("mine", name) in result.err
    assert len(result.err.splitlines()) < 30
    assert "Traceback" not in result.err
