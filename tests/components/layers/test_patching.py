"""Patches, groups and back."""

import torch

from snapvideo.components.layers import PatchGrid


def test_grouping_is_undone_exactly():
    for size, patch, group in [
        ((4, 12, 16), (1, 4, 4), (4, 3, 2)),
        ((6, 10, 14), (2, 2, 7), (3, 5, 1)),
        ((16, 36, 64), (1, 4, 4), (16, 5, 4)),
    ]:
        grid = PatchGrid(size, patch, group)
        video = torch.randn(2, 3, *size)
        assert torch.equal(grid.to_video(grid.to_groups(video)), video)


def test_groups_are_boxes_in_row_major_order():
    grid = PatchGrid((2, 4, 6), (1, 1, 1), (2, 2, 3), channels=1)
    t, h, w = torch.meshgrid(torch.arange(2), torch.arange(4), torch.arange(6), indexing="ij")
    groups = grid.to_groups((100 * t + 10 * h + w)[None, None].float())[..., 0]
    assert groups.shape == (4, 12)
    assert groups[1].tolist() == [3, 4, 5, 13, 14, 15, 103, 104, 105, 113, 114, 115]  # rows 0-1, columns 3-5
    table = grid.group_table((100 * t + 10 * h + w)[..., None].float())[..., 0]
    assert torch.equal(table, groups)


def test_padding_is_below_and_right():
    grid = PatchGrid((1, 3, 3), (1, 2, 2), (1, 2, 2), channels=1)
    tokens = grid.to_groups(torch.ones(1, 1, 1, 3, 3))
    assert tokens[0].tolist() == [[1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]
