import pytest
import torch

from snapvideo.components.conditioning import ByteText, Conditioners, FrameRate, Resolution
from snapvideo.components.interfaces import Prompt


def test_tokens_are_side_by_side_and_only_text_is_dropped():
    parts = [ByteText(16, width=32), FrameRate(16), Resolution(16)]
    labels = Prompt(["a b", "c"], torch.tensor([24.0, 30.0]), torch.tensor([[64, 64], [36, 64]]))
    drop = torch.tensor([False, True])
    whole = Conditioners(parts)(labels, drop)
    for name in ("tokens", "mask"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(p(labels, drop), name) for p in parts], dim=1))
    assert whole.mask.tolist() == [[True, True, True, True, True], [True, False, False, True, True]]


def test_conditioners_nest():
    nested = Conditioners([Conditioners([FrameRate(8)]), Resolution(8)])
    assert nested.dim == 8
    assert {key.split(".token")[0] for key in nested.state_dict()} == {"parts.0.parts.0", "parts.1"}


def test_differing_widths_are_named():
    with pytest.raises(ValueError, match="FrameRate 8, Resolution 16"):
        Conditioners([FrameRate(8), Resolution(16)])


def test_no_parts_is_an_error():
    with pytest.raises(ValueError, match="none"):
        Conditioners([])
