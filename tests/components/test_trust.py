import copy
import json
import re

import pytest

from snapvideo.components.trust import foreign_names, refuse_foreign
from snapvideo.recipes.shipped import find_recipe, shipped_recipes
from snapvideo.recipes.training import read_settings

from .test_exported import SECTION

PATHS = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "torch.load",  # unpickles
    "torch.hub.load",  # runs what it fetches
    "torch.nn.Linear",
    "torch.optim.adamw.torch.load",
    "torch.optim.os.system",
    "snapvideo.components.exported.Path",  # imported there, and not of there
    "snapvideo.components.trust.import_module",
    "snapvideo.components.hub.re.compile",
    "snapvideo.components.UNet.forward",
    "snapvideo.recipes.cli.main",
    "snapvideo.components.nothing.Here",
    "snapvideo_components.Heun",
    "lightning.pytorch.Trainer",
]


def changed(place, value):
    section = copy.deepcopy(SECTION)
    *way, last = place
    node = section["init_args"]
    for step in way:
        node = node[step]
    node[last] = value
    return section


PLACES = [("sampler",), ("optimizer",), ("conditioner", "init_args", "parts", 0), ("backbone",), ("scheduler",)]


@pytest.mark.parametrize("path", PATHS)
def test_classes_of_others_are_refused_wherever_they_are_named(path):
    for place in PLACES:
        for value in ({"class_path": path, "init_args": {"command": "true"}}, path, {"class_path": path}):
            with pytest.raises(ValueError, match=re.escape("--trust")) as told:
                refuse_foreign(changed(place, value))
            assert path in str(told.value)


@pytest.mark.parametrize(
    "text",
    ["{class_path: made_up.Here}", "class_path: made_up.Here", '{"class\\u005fpath": "made_up.Here"}', "made.yaml"],
)
def test_a_config_within_a_text_or_a_file_does_not_pass(text, tmp_path, monkeypatch):
    """Not even what it names is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "made_up.py").write_text("open('imported', 'w')")
    (tmp_path / "made.yaml").write_text(json.dumps({"class_path": "made_up.Here"}))
    for place in PLACES:
        with pytest.raises(ValueError, match=re.escape("--trust")):
            refuse_foreign(changed(place, text))
    assert not (tmp_path / "imported").exists()


def test_what_is_ours_passes():
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    scheduler = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1}}
    for section in (SECTION, changed(("optimizer",), optimizer), changed(("scheduler",), scheduler)):
        refuse_foreign(section)
        assert foreign_names(section) == []


@pytest.mark.parametrize("name", [*shipped_recipes(overlays=False)])
def test_every_recipe_passes(name):
    section = read_settings([find_recipe(name)])["model"]
    refuse_foreign(section)
    assert foreign_names(section) == []
