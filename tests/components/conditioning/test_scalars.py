import pytest
import torch

from snapvideo.components.conditioning import FrameRate, Resolution
from snapvideo.components.interfaces import Prompt


def prompt(fps=(24.0,), resolution=((256, 256),)):
    return Prompt(captions=[""] * len(fps), fps=torch.tensor(fps), resolution=torch.tensor(resolution))


def seen_by_mlp(conditioner, labels):
    """What reaches the Fourier features of the token."""
    seen = []
    conditioner.token.features.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    condition = conditioner(labels, torch.zeros(len(labels), dtype=torch.bool))
    assert condition.mask.dtype == torch.bool and condition.mask.shape == condition.tokens.shape[:2] == (len(labels), 1)
    return seen[0]


def test_frame_interval_is_one_at_24_fps_and_exactly_zero_for_images():
    labels = prompt((24.0, 12.0, 48.0, float("inf")), [[1, 1]] * 4)
    assert seen_by_mlp(FrameRate(8), labels).tolist() == [[1.0], [2.0], [0.5], [0.0]]


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_resolution_is_log2_over_256(dtype):
    labels = prompt((24.0, 24.0), torch.tensor([[256, 512], [64, 1024]], dtype=dtype).tolist())
    labels.resolution = labels.resolution.to(dtype)
    torch.testing.assert_close(seen_by_mlp(Resolution(8), labels), torch.tensor([[0.0, 1.0], [-2.0, 2.0]]))


@pytest.mark.parametrize("kind", [FrameRate, Resolution])
@pytest.mark.parametrize("dim, hidden", [(768, None), (16, 24)])
def test_parameters_equal_the_closed_form(kind, dim, hidden):
    h = hidden or 4 * dim
    assert sum(p.numel() for p in kind(dim, hidden).parameters()) == 257 * h + (h + 1) * dim


@pytest.mark.parametrize("kind", [FrameRate, Resolution])
def test_labels_are_never_dropped(kind):
    conditioner, labels = kind(8), prompt((24.0, 30.0), ((256, 256), (100, 200)))
    kept, dropped = (conditioner(labels, torch.tensor([drop, drop])) for drop in (False, True))
    assert torch.equal(kept.tokens, dropped.tokens) and dropped.mask.all()
    assert not torch.equal(kept.tokens[0], kept.tokens[1])


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("-inf")])
def test_impossible_labels_are_errors(bad):
    drop = torch.tensor([False, False])
    with pytest.raises(ValueError, match="fps"):
        FrameRate(8)(prompt((24.0, bad), ((256, 256), (256, 256))), drop)
    with pytest.raises(ValueError, match="resolution"):
        Resolution(8)(prompt((24.0, 24.0), ((256.0, 256.0), (256.0, bad))), drop)
