from torch import nn

from snapvideo.components.layers import blocks


def test_blocks_are_the_members_of_lists():
    first = nn.Sequential(nn.Linear(2, 2), nn.ModuleList([nn.ReLU(), nn.ReLU()]))
    second, third = nn.Linear(2, 2), nn.Linear(2, 2)
    nested = nn.ModuleList([nn.ModuleList([second])])
    network = nn.Sequential(nn.Linear(2, 2), nn.ModuleList([first]), nested, nn.Sequential(nn.ModuleList([third])))
    assert list(blocks(network)) == [first, second, third]
