"""How learned tables start from those of another model."""

import pytest
import torch
from einops import rearrange

from snapvideo.components.layers.patching import PatchGrid
from snapvideo.components.layers.tables import LatentInit, PatchPositions, widen

COARSE = PatchGrid((4, 36, 64), (1, 4, 4), (4, 5, 4))  # 9 rows of patches are filled, 10 are there; 2 x 4 groups
FINE = PatchGrid((4, 288, 512), (1, 4, 4), (4, 18, 16))  # 72 x 128 patches, 4 x 8 groups


def latents(grid, number=64):
    return LatentInit(grid, number, 3, 1.0, self_conditioning=False)


def test_latents_go_to_the_quarters_of_their_group():
    """Each latent says which group it is of: in the finer grid it must lie in that group's part of the frame."""
    coarse, fine = latents(COARSE), latents(FINE)
    group = torch.arange(8).repeat_interleave(8)
    rank = torch.arange(8).repeat(8)
    table = torch.stack([group, rank, torch.zeros(64, dtype=torch.long)], dim=1).float()
    fitted = rearrange(fine.fit(table, coarse), "(h w m) d -> h w m d", h=4, w=8)
    for i in range(4):
        for j in range(8):
            assert (fitted[i, j, :, 0] == (i // 2) * 4 + j // 2).all()
            quarter = 2 * (i % 2) + j % 2
            assert fitted[i, j, :, 1].tolist() == [2 * quarter, 2 * quarter + 1]


@pytest.mark.parametrize("grid", [COARSE, PatchGrid((4, 40, 64), (1, 4, 4), (4, 10, 8))])
def test_latents_of_groups_that_are_no_parts_stay(grid):
    table = torch.randn(64, 3)
    assert torch.equal(latents(grid).fit(table, latents(COARSE)), table)


@pytest.mark.parametrize("position", ["full", "factorized"])
def test_positions_are_stretched_over_what_is_filled(position):
    """A table that is linear in the place in the frame stays so, but near the border; padding is not stretched."""
    coarse = PatchPositions(COARSE, 2, "full", 1.0)
    fine = PatchPositions(FINE, 2, position, 1.0)
    t, h, w = (torch.arange(n) for n in COARSE.patches)
    table = torch.zeros(*COARSE.patches, 2)
    table[..., 0] = t[:, None, None] + (h[None, :, None] + 0.5) / 9
    table[..., 1] = (w + 0.5) / 16
    table[:, 9:] = 1000.0  # padding
    fitted = fine.sum(fine.fit([table], coarse))
    places = (torch.arange(72) + 0.5) / 72
    inner = slice(4, 68)
    torch.testing.assert_close(fitted[:, inner, 5, 0], (t[:, None] + places[None]).float()[:, inner])
    torch.testing.assert_close(fitted[2, 3, 4:124, 1], ((torch.arange(128) + 0.5) / 128)[4:124])
    assert [tuple(table.shape) for table in fine.fit([table], coarse)] == [tuple(table.shape) for table in fine.tables]


def test_positions_of_the_same_grid_stay_but_for_padding():
    for position in ("full", "factorized"):
        table = PatchPositions(COARSE, 5, position, 1.0)
        before, after = table.sum(table.tables), table.sum(table.fit(list(table.tables), table))
        torch.testing.assert_close(after[:, :9], before[:, :9])


def test_wider_weights_do_not_see_what_is_new():
    layer, x = torch.nn.Linear(5, 3, bias=False), torch.randn(2, 9)
    torch.testing.assert_close(x @ widen(layer.weight, 9).T, layer(x[:, :5]))
    assert widen(torch.ones(2, 5, 1, 3), 7).shape == (2, 7, 1, 3)
    assert torch.equal(widen(layer.weight, 3), layer.weight)
