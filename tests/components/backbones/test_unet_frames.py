"""A U-Net that starts from the weights of one with fewer places in time."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat

from snapvideo.components import UNet
from snapvideo.components.backbones.unet_frames import fit_places, split_head, split_stem
from snapvideo.components.interfaces import VideoShape

from .test_unet import condition

SIZES = {"channels": 8, "multipliers": (1, 2), "num_blocks": 1, "attention_levels": (1,), "head_dim": 8}
SIZES |= {"dim_condition": 12, "dropout": 0.0, "pool_condition": True}


def stirred(num_frames: int, frames_of_a_patch: int, **settings: object) -> UNet:
    """A small U-Net whose weights are no zeros but for those behind attention."""
    torch.manual_seed(num_frames)
    unet = UNet(VideoShape(num_frames, 8, 8), patch=(frames_of_a_patch, 2, 2), **(SIZES | settings)).eval()
    for name, weight in unet.named_parameters():
        torch.nn.init.zeros_(weight) if "to_out" in name else torch.nn.init.normal_(weight, std=0.2)
    return unet


def started(unet: UNet, source: UNet) -> UNet:
    unet.load_state_dict(unet.fit_weights(source.state_dict(), source))
    return unet


def test_of_a_still_video_each_frame_is_what_its_patch_was_in_the_mean():
    source, unet = stirred(8, 2), stirred(8, 1)
    x = repeat(torch.randn(2, 3, 8, 8), "b c h w -> b c t h w", t=8)
    given, level = condition(2), torch.zeros(2)
    before, other = source(x, level, given)[0], unet(x, level, given)[0]
    after = started(unet, source)(x, level, given)[0]
    mean = repeat(reduce(before, "b c (t p) h w -> b c t h w", "mean", p=2), "b c t h w -> b c (t p) h w", p=2)
    torch.testing.assert_close(after, mean, rtol=1e-4, atol=1e-5)
    assert (after - after[:, :, :1]).abs().max() > 0.01  # the caption still tells each place something else
    assert (other - mean).abs().max() > 0.01


@pytest.mark.parametrize("parts", [2, 4])
def test_a_stem_that_is_split_gives_a_still_video_what_it_gave(parts):
    old = torch.randn(5, 3 * parts * 4, 3, 3, 3)
    new = split_stem(old, parts, channels=3)
    assert new.shape == (5, 12, 3, 3, 3)
    still = repeat(torch.randn(1, 3, 4, 6, 6), "b c n h w -> b c t n h w", t=6 * parts)
    before = F.conv3d(rearrange(still, "b c (t p) n h w -> b (c p n) t h w", p=parts), old)
    after = F.conv3d(rearrange(still, "b c t n h w -> b (c n) t h w"), new)
    torch.testing.assert_close(after, before[:, :, :1].expand_as(after), rtol=1e-4, atol=1e-4)


def test_a_stem_keeps_where_in_time_a_frame_is():
    """What sees the last frame of a patch alone sees, of smaller patches, its own and the one after."""
    old = torch.zeros(1, 2, 3, 1, 1)
    old[0, 1, 1] = 1.0  # of two frames the second, of the patch in the middle
    assert split_stem(old, 2, channels=1).flatten().tolist() == [0.0, 0.5, 0.5]


def test_parts_of_one_change_nothing():
    weight = torch.randn(4, 12, 3, 3, 3)
    assert torch.equal(split_stem(weight, 1, channels=3), weight)
    assert torch.equal(split_head(weight, 1, channels=2), weight)
    assert torch.equal(fit_places(weight, 2, 2), weight)


def test_more_frames_take_what_belongs_to_where_they_lie():
    assert fit_places(torch.arange(8.0), 4, 6).tolist() == [0, 1, 0, 1, 2, 3, 4, 5, 4, 5, 6, 7]
    source, unet = stirred(4, 1), stirred(8, 1)
    fitted = unet.fit_weights(source.state_dict(), source)
    assert all(fitted[name].shape == weight.shape for name, weight in unet.state_dict().items())


def test_patches_that_cannot_be_split_are_left_alone():
    source = stirred(8, 2)
    weights = source.state_dict()
    assert stirred(8, 4).fit_weights(weights, source) == weights
    assert UNet(VideoShape(8, 8, 8), patch=(2, 1, 1), **SIZES).fit_weights(weights, source) == weights
