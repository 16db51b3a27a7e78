import pytest

from snapvideo.recipes.errors import UserError
from snapvideo.recipes.serving.request import MAX_GUIDANCE, MAX_SEED, Limits, Request

GOOD = {"prompt": " a red circle ", "seed": 3.0, "steps": 4, "guidance": 2, "fps": 8}


def test_fields_become_a_request():
    assert vars(Limits().request(**GOOD)) == vars(Request("a red circle", 3, 4, 2.0, 8.0))
    assert Limits().request(**GOOD | {"guidance": None}).guidance is None


def test_no_seed_is_a_random_one():
    seeds = {Limits().request(**GOOD | {"seed": None}).seed for _ in range(20)}
    assert len(seeds) == 20 and all(0 <= seed <= MAX_SEED for seed in seeds)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("prompt", "", "empty"),
        ("prompt", " \n", "empty"),
        ("prompt", None, "empty"),
        ("prompt", ["a"], "empty"),
        ("prompt", "x" * 501, "501 characters"),
        ("prompt", "a\ud83d", "surrogate"),
        ("seed", -1, "Seed is -1"),
        ("seed", 2.5, "whole"),
        ("seed", MAX_SEED + 1, "Seed is"),
        ("seed", "7", "no number"),
        ("steps", 0, "1 to 250"),
        ("steps", 251, "1 to 250"),
        ("steps", 1e300, "1 to 250"),
        ("steps", 1.5, "whole"),
        ("steps", None, "no number"),
        ("steps", True, "1 to 250"),
        ("guidance", -0.1, "Guidance is -0.1"),
        ("guidance", MAX_GUIDANCE + 1, "0 to 30"),
        ("guidance", float("nan"), "Guidance is nan"),
        ("fps", 0, "Frame rate is 0"),
        ("fps", float("inf"), "Frame rate is inf"),
        ("fps", {}, "no number"),
    ],
)
def test_what_cannot_be_used_is_said(field, value, words):
    with pytest.raises(UserError, match=words):
        Limits().request(**GOOD | {field: value})


def test_limits_are_the_operators():
    with pytest.raises(UserError, match="it may have 5"):
        Limits(max_prompt=5).request(**GOOD)
    with pytest.raises(UserError, match="1 to 3"):
        Limits(max_steps=3).request(**GOOD)
    with pytest.raises(UserError, match="--max-waiting 0: it must be at least 1"):
        Limits(max_waiting=0)
