import copy
import json

import pytest
import torch

from snapvideo.components import VideoDiffusion, load
from snapvideo.components.building import build
from snapvideo.components.weights import WEIGHTS, write_weights

PART = "snapvideo.components."
SECTION = {
    "class_path": f"{PART}VideoDiffusion",
    "init_args": {
        "backbone": {
            "class_path": f"{PART}UNet",
            "init_args": {
                "shape": {"num_frames": 2, "height": 8, "width": 8, "channels": 3},
                "channels": 8,
                "multipliers": [1],
                "num_blocks": 1,
                "attention_levels": [],
                "head_dim": 8,
                "dim_condition": 16,
            },
        },
        "framework": {"class_path": f"{PART}EDM"},
        "conditioner": {
            "class_path": f"{PART}Conditioners",
            "init_args": {"parts": [{"class_path": f"{PART}FrameRate", "init_args": {"dim": 16}}]},
        },
        "sampler": {"class_path": f"{PART}Heun", "init_args": {"num_steps": 2}},
        "guidance": {"class_path": f"{PART}ClassifierFree"},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-08}},
        "scheduler": {
            "class_path": f"{PART}WarmupCosine",
            "init_args": {"warmup_steps": 1, "max_steps": 2},
        },
    },
}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = build(VideoDiffusion, SECTION)
    write_weights(model.state_dict(), tmp_path / WEIGHTS)
    (tmp_path / "config.json").write_text(json.dumps({"model": SECTION}))
    return tmp_path


def test_a_folder_of_two_files_is_a_model(folder):
    torch.manual_seed(0)
    expected, found = build(VideoDiffusion, SECTION).state_dict(), load(folder).state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_section_stays_as_it_is_when_it_is_built():
    section = copy.deepcopy(SECTION)
    build(VideoDiffusion, section)
    assert section == SECTION


def other_weights(folder):
    write_weights({"weight": torch.zeros(3)}, folder / WEIGHTS)


def cut_weights(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])


def without_weights(folder):
    (folder / WEIGHTS).unlink()


def with_config(folder, text):
    (folder / "config.json").write_text(text)


def of_another_version(folder):
    section = copy.deepcopy(SECTION)
    section["init_args"]["sampler"]["init_args"]["unheard_of"] = 1
    with_config(folder, json.dumps({"model": section}))


def refused(folder):
    section = copy.deepcopy(SECTION)
    section["init_args"]["sampler"]["init_args"]["num_steps"] = 0
    with_config(folder, json.dumps({"model": section}))


@pytest.mark.parametrize(
    ("spoil", "fragment"),
    [
        (other_weights, "weights of another model"),
        (cut_weights, "no checkpoint that can be read"),
        (without_weights, "snapvideo export RUN DIR"),
        (lambda folder: with_config(folder, "{"), "is not JSON"),
        (lambda folder: with_config(folder, "[]"), "no section `model`"),
        (of_another_version, "unheard_of"),
        (refused, "model.sampler: Heun: num_steps=0"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_is_no_model_is_told(folder, spoil, fragment):
    spoil(folder)
    with pytest.raises(ValueError, match=r"config\.json|model") as told:
        load(folder)
    assert fragment in str(told.value)


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "user/name"])
def test_what_is_nowhere_is_told(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=source):
        load(source)
