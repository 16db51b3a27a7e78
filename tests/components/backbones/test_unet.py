"""The U-Net against its published sizes, ADM's wiring and the properties of its layers."""

import pytest
import torch
from einops import rearrange
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from snapvideo.components import UNet
from snapvideo.components.backbones.unet import Stage
from snapvideo.components.interfaces import Condition, VideoShape

SHAPE = VideoShape(num_frames=4, height=10, width=16)  # rows are padded to 12


def small_unet(**settings) -> UNet:
    """A U-Net whose branches that start at zero have weights."""
    torch.manual_seed(0)
    defaults = {
        "channels": 8,
        "multipliers": (1, 2, 2),
        "num_blocks": 1,
        "attention_levels": (1, 2),
        "head_dim": 8,
        "dim_condition": 12,
    }
    unet = UNet(SHAPE, **(defaults | settings)).eval()
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return unet


def condition(batch_size: int = 1, dim: int = 12, length: int = 5) -> Condition:
    return Condition(torch.randn(batch_size, length, dim), torch.ones(batch_size, length, dtype=torch.bool))


def change(unet: UNet, x: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
    """Where the prediction changes ``[T, H, W]`` when `x` becomes `moved`."""
    tokens = condition()
    c_noise = torch.zeros(1)
    return (unet(moved, c_noise, tokens)[0] - unet(x, c_noise, tokens)[0]).abs().amax((0, 1))


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


PAPER = {"85M": {}, "284M": {"channels": 192, "multipliers": (1, 2, 3, 4)}}


@pytest.mark.parametrize(("name", "published"), [("85M", 85e6), ("284M", 284e6)])
def test_parameters_of_the_papers_sizes(name, published):
    """With the projection of 1024-wide text, within 1% (paper, Table 7)."""
    with torch.device("meta"):
        unet = UNet(VideoShape(16, 36, 64), **PAPER[name])
        count = parameters(unet, nn.Linear(1024, 768))
    assert count == pytest.approx(published, rel=0.01)


def test_its_blocks_make_the_published_adm():
    """ADM-64 has some 296M parameters and 104 G multiplications: no attention over frames, no conditioning."""
    with torch.device("meta"):
        adm = UNet(VideoShape(1, 64, 64), channels=192, multipliers=(1, 2, 3, 4), num_blocks=3)
        for stage in adm.modules():
            if isinstance(stage, Stage):
                stage.attentions = stage.attentions[:1]
        nothing = Condition(torch.empty(1, 0, 768), torch.empty(1, 0, dtype=torch.bool))
        with FlopCounterMode(display=False) as counter:
            adm(torch.empty(1, 3, 1, 64, 64), torch.empty(1), nothing)
    count = sum(p.numel() for name, p in adm.named_parameters() if "condition_to_kv" not in name)
    assert count == pytest.approx(296e6, rel=0.01)
    flops = counter.get_flop_counts()["Global"].items()
    layers = sum(flop for operation, flop in flops if "attention" not in str(operation) and "bmm" not in str(operation))
    assert layers / 2 == pytest.approx(104e9, rel=0.01)


@pytest.mark.parametrize(("name", "tflop"), [("85M", 0.688), ("284M", 1.835)])
def test_forward_flops_of_the_papers_sizes(name, tflop):
    """Within 3% of a count made independently of this code."""
    with torch.device("meta"):
        unet = UNet(VideoShape(16, 36, 64), **PAPER[name])
        tokens = Condition(torch.empty(1, 131, 768), torch.ones(1, 131, dtype=torch.bool))
        with FlopCounterMode(display=False) as counter:
            unet(torch.empty(1, 3, 16, 36, 64), torch.empty(1), tokens)
    assert counter.get_total_flops() / 1e12 == pytest.approx(tflop, rel=0.03)


@pytest.mark.parametrize("mean_video", [False, True])
def test_starts_at_zero(mean_video):
    torch.manual_seed(0)
    sizes = {"channels": 8, "multipliers": (1, 2), "attention_levels": (1,), "head_dim": 8, "dim_condition": 12}
    unet = UNet(SHAPE, **sizes, mean_video=mean_video)
    assert not unet(torch.randn(2, *SHAPE), torch.zeros(2), condition(2))[0].any()


def test_the_first_multiplier_may_be_any():
    unet, x = small_unet(multipliers=(2, 3), attention_levels=(1,)), torch.randn(1, *SHAPE)
    assert unet(x, torch.zeros(1), condition())[0].shape == x.shape


def test_a_video_without_conditioning_tokens_is_finite():
    unet = small_unet(pool_condition=True, mean_video=True)
    x, tokens = torch.randn(2, *SHAPE), condition(2)
    tokens.mask[0] = False
    assert unet(x, torch.zeros(2), tokens)[0].isfinite().all()


@pytest.mark.parametrize(("stem_frames", "expected"), [(1, [2]), (3, [1, 2, 3])])
def test_frames_meet_in_attention_and_in_a_stem_of_several(stem_frames, expected):
    x = torch.randn(1, *SHAPE)
    moved = x.clone()
    moved[:, :, 2] += 1.0
    assert (change(small_unet(), x, moved) > 0).any((1, 2)).all()
    alone = small_unet(stem_frames=stem_frames)
    for module in alone.modules():
        if getattr(module, "positions", None) is not None:  # attention over frames
            nn.init.zeros_(module.to_out.weight)
    changed = (change(alone, x, moved) > 0).any((1, 2))
    assert changed.nonzero().flatten().tolist() == expected


def test_order_of_frames_matters():
    unet, x, tokens = small_unet(), torch.randn(1, *SHAPE), condition()
    forward, backward = unet(x, torch.zeros(1), tokens)[0], unet(x.flip(2), torch.zeros(1), tokens)[0]
    assert not torch.allclose(forward, backward.flip(2), atol=1e-4)


def test_a_patch_of_all_frames_makes_them_channels():
    unet = small_unet(patch=(4, 1, 1))
    assert unet.stem.weight.shape == (8, 12, 1, 3, 3)
    x = torch.randn(1, *SHAPE)
    moved = x.clone()
    moved[:, :, 2] += 1.0
    assert (change(unet, x, moved) > 0).any((1, 2)).all()


def test_patches_keep_their_place():
    """With the identity in place of the network, patches go in and come out where they were."""
    unet = small_unet(patch=(2, 2, 2))
    x = torch.arange(3 * 4 * 10 * 16.0).view(1, 3, 4, 10, 16)
    patches = unet._to_patches(x)
    assert patches.shape == (1, 24, 2, 8, 8)  # 10 rows are padded to 16: patches of 2 that are halved twice
    assert torch.equal(unet._to_video(rearrange(patches, "b c t h w -> (b t) c h w"), x), x)


@pytest.mark.parametrize("settings", [{}, {"pool_condition": True}, {"mean_video": True}], ids=str)
def test_masked_conditioning_tokens_have_no_effect(settings):
    unet, x, tokens = small_unet(**settings), torch.randn(2, *SHAPE), condition(2)
    tokens.mask[:, 3:] = False
    changed = Condition(tokens.tokens.clone(), tokens.mask)
    changed.tokens[:, 3:] = 9.0
    shorter = Condition(tokens.tokens[:, :3], tokens.mask[:, :3])
    out = unet(x, torch.zeros(2), tokens)[0]
    torch.testing.assert_close(unet(x, torch.zeros(2), changed)[0], out)
    torch.testing.assert_close(unet(x, torch.zeros(2), shorter)[0], out)


def test_pooled_conditioning_tells_each_frame_something_of_its_own():
    """What a caption changes is not the same in all frames: how a thing moves can be said to them at once."""
    unet, one, other = small_unet(pool_condition=True), condition(), condition()
    other.tokens.neg_()
    change = (unet._level(torch.zeros(1), one, 4) - unet._level(torch.zeros(1), other, 4)).detach()
    assert len(change) == SHAPE.num_frames
    assert torch.pdist(change).min() > 0.1 * change.norm(dim=-1).mean()


def test_mean_video_is_coarse_and_the_same_at_every_noise_level():
    """What it adds is known from the conditioning alone, and its rows and columns are those of the last level."""
    torch.manual_seed(0)
    with_it, tokens = small_unet(mean_video=True, patch=(2, 1, 1)), condition(2)
    assert with_it.mean_video is not None
    assert with_it.mean_video.grid == (2, 3, 4)  # 2 patches of frames; 10 x 16 padded to 12 x 16, then halved twice
    without = small_unet(patch=(2, 1, 1))
    without.load_state_dict(with_it.state_dict(), strict=False)

    def added(c_noise: float) -> torch.Tensor:
        x, levels = torch.randn(2, *SHAPE), torch.full((2,), c_noise)
        return with_it(x, levels, tokens)[0] - without(x, levels, tokens)[0]

    low, high = added(-1.0), added(1.0)
    torch.testing.assert_close(low, high, atol=1e-4, rtol=1e-4)
    assert low.std(0).mean() > 0.01  # another for each caption
    assert low.diff(dim=2).abs().mean() > 0.01  # and for each frame
    assert low.diff(dim=3).abs().mean() < 0.5 * low.std()


def test_noise_level_matters():
    unet, x, tokens = small_unet(), torch.randn(1, *SHAPE), condition()
    assert not torch.allclose(unet(x, torch.zeros(1), tokens)[0], unet(x, torch.ones(1), tokens)[0], atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": (3, 1, 1)}, r"patch=\[3, 1, 1\]: 3 frames don't divide the video's 4; \[1, 2, 4\] fit"),
        ({"patch": (1, 2)}, r"patch=\[1, 2\] must be three sizes of at least 1"),
        ({"patch": (0, 1, 1)}, r"patch=\[0, 1, 1\] must be three sizes of at least 1"),
        ({"stem_frames": -1}, r"stem_frames=-1 must be odd and at least 1"),
        ({"stem_frames": 2}, r"stem_frames=2 must be odd"),
        ({"multipliers": ()}, r"multipliers=\[\] must be one or more"),
        ({"multipliers": (0, 1)}, r"multipliers=\[0, 1\] must be"),
        ({"num_blocks": 0}, r"num_blocks=0 must be at least 1"),
        ({"head_dim": 0}, r"head_dim=0 must be at least 1"),
        ({"channels": 6}, r"channels=6 must be a multiple of 4"),
        ({"attention_levels": (1, 3)}, r"attention_levels=\[1, 3\]: with 3 multipliers, levels are \[0, 1, 2\]"),
        ({"head_dim": 5}, r"head_dim=5 does not divide the 16 channels of a level; \[1, 2, 4, 8, 16\] fit"),
    ],
)
def test_bad_sizes_name_what_would_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        small_unet(**settings)


@pytest.mark.parametrize("settings", [{}, {"pool_condition": True, "patch": (2, 1, 1)}])
def test_a_shorter_video_is_seen_as_the_first_frames(settings):
    """As by a U-Net of that length with the weights of the first places in time."""
    long = small_unet(**settings)
    short = UNet(VideoShape(2, 6, 20), 8, (1, 2, 2), 1, (1, 2), 8, 12, **settings).eval()
    wanted = {name: len(tensor) for name, tensor in short.state_dict().items()}
    short.load_state_dict({name: tensor[: wanted[name]] for name, tensor in long.state_dict().items()})
    x, c_noise, tokens = torch.randn(3, 3, 2, 6, 20), torch.randn(3), condition(3)
    torch.testing.assert_close(long(x, c_noise, tokens)[0], short(x, c_noise, tokens)[0])


def test_the_mean_video_is_cut_in_time_and_stretched_in_space():
    unet = small_unet(mean_video=True)
    x, tokens = torch.zeros(1, 3, 4, 10, 16), condition()
    whole = unet.mean_video(tokens, x)
    torch.testing.assert_close(unet.mean_video(tokens, x[:, :, :2]), whole[:, :, :2])
    assert unet.mean_video(tokens, torch.zeros(1, 3, 4, 40, 8)).shape == (1, 3, 4, 40, 8)


def test_shapes_that_it_takes():
    unet = small_unet(patch=(2, 2, 2))
    for shape in (VideoShape(2, 7, 90), VideoShape(4, 100, 3)):
        unet.check_shape(shape)
    for shape in (VideoShape(6, 10, 16), VideoShape(3, 10, 16)):
        with pytest.raises(ValueError, match=r"UNet takes videos of \[2, 4\] frames and 3 channels, not of [36] and 3"):
            unet.check_shape(shape)
