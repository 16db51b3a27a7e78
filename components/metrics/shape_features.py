"""A fixed description of videos of moving shapes by a few numbers, without a network."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from .shape_captions import COLOURS, SHAPES
from .shape_reader import overlaps, template

FEATURES = {
    **{f"background_{name}": 0.42 for name in ("red", "green", "blue")},
    **{f"foreground_{name}": 0.45 for name in ("red", "green", "blue")},
    **{f"share_{name}": 0.36 for name in COLOURS},
    "area": 0.045,
    "area_change": 0.05,
    **{f"x_{i}": 0.2 for i in range(4)},
    **{f"y_{i}": 0.15 for i in range(4)},
    "spread_x": 0.06,
    "spread_y": 0.04,
    **{f"overlap_{name}": 0.25 for name in SHAPES},
    "step": 0.008,
    "step_spread": 0.003,
    "jerk": 0.014,
    "contrast": 0.2,
    "sharpness": 0.02,
    "soft_edge": 0.75,
    "grain": 0.01,
}
"""Unit of each feature: about its standard deviation in drawn clips; of ``grain``, which these lack, 2.5 levels."""

_GRAIN = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6 * math.sqrt(math.pi / 2)


@torch.no_grad()
def shape_features(videos: Tensor) -> Tensor:
    """Numbers in the order of `FEATURES`, each divided by its unit ``[B, F]``.

    All that differs from the background is taken as one thing, softly: nothing is decided, so that videos that are
    nearly alike have features that are nearly alike. Where the thing is, is told by means of 3x3 pixels.

    * ``background``: median of the border; ``foreground``: mean colour of the thing, 0 to 1; ``share``: its pixels
      that have the hue of each colour.
    * ``area``: mean of the frames, in squared heights of the frame; ``area_change``: last frame less the first.
    * ``x``, ``y``: centre in the first frame, after one and two thirds and in the last, from the middle of the frame;
      ``spread``: standard deviation of the thing's pixels, in heights.
    * ``overlap``: intersection over union with a circle, a square and a triangle of the same centre and area, mean of
      the same four frames.
    * ``step``: mean absolute difference of neighbouring frames, values 0 to 1; ``step_spread``: standard deviation of
      its mean over pixels; ``jerk``: mean absolute second difference.
    * ``contrast``: mean of the largest differences from the background; ``sharpness``: mean of the steepest steps from
      mean to mean, in contrasts; ``soft_edge``: pixels between background and thing, in heights.
    * ``grain``: standard deviation of noise (Immerkaer 1996), values 0 to 1; edges add a little.

    Args:
        videos: uint8 RGB ``[B, 3, T, H, W]``.
    """
    frames = videos.float() / 255
    border = torch.cat([frames[..., 0, :], frames[..., -1, :], frames[..., 0], frames[..., -1]], dim=-1)
    ground = rearrange(border, "b c t n -> b c (t n)").median(dim=-1).values
    # Means of 3x3 pixels, so that mild noise makes no things and no edges.
    differences = rearrange(frames - ground[..., None, None, None], "b c t h w -> (b t) c h w")
    smooth = F.avg_pool2d(differences, 3, stride=1, padding=1, count_include_pad=False)
    distance = reduce(smooth.abs(), "(b t) c h w -> b t h w", "max", b=len(videos))
    largest = max(1, distance[0].numel() // 100)
    contrast = distance.flatten(1).topk(largest).values.mean(dim=1)
    relative = distance / contrast.clamp(min=0.15)[:, None, None, None]
    thing = ((relative - 0.25) / 0.5).clamp(0, 1)

    found = [ground, _colours(frames, thing), *_places(thing), *_changes(frames)]
    steps = [relative.diff(dim=dim).abs().flatten(1) for dim in (-2, -1)]
    edge = torch.cat(steps, dim=1).topk(largest).values.mean(dim=1)
    soft = ((relative > 0.2) & (relative < 0.8)).float().mean(dim=(1, 2, 3)) * frames.shape[-1]
    grain = F.conv2d(rearrange(frames, "b c t h w -> (b c t) 1 h w"), _GRAIN.to(frames)[None, None]).abs()
    found += [contrast[:, None], edge[:, None], soft[:, None]]
    found += [reduce(grain, "(b n) 1 h w -> b 1", "mean", b=len(videos))]
    return torch.cat(found, dim=1) / torch.tensor(list(FEATURES.values()), device=videos.device)


def _colours(frames: Tensor, thing: Tensor) -> Tensor:
    """Mean colour of the thing, and the shares of its pixels that have each hue ``[B, 9]``."""
    total = thing.sum(dim=(1, 2, 3)).clamp(min=1)[:, None]
    mean = (frames * thing[:, None]).sum(dim=(2, 3, 4)) / total
    low, high = frames.amin(dim=1, keepdim=True), frames.amax(dim=1, keepdim=True)
    corners = torch.tensor(list(COLOURS.values()), device=frames.device).float()
    # How near each pixel, stretched to full contrast, is to the corner of each hue in the colour cube: 1 to 0.
    stretched = rearrange((frames - low) / (high - low).clamp(min=0.25), "b c t h w -> b t h w c")
    shares = []
    for corner in corners:
        near = (1 - 2 * (stretched - corner).abs().amax(dim=-1)).clamp(0, 1)
        shares.append((near * thing).sum(dim=(1, 2, 3)))
    return torch.cat([mean, torch.stack(shares, dim=1) / total], dim=1)


def _places(thing: Tensor) -> list[Tensor]:
    """Area and its change, path, spread and overlaps of a soft mask ``[B, T, H, W]``, each ``[B, ...]``."""
    batch, num_frames, height, width = thing.shape
    pixels = thing.sum(dim=(2, 3))
    total = pixels.clamp(min=1)
    dx = (torch.arange(width, device=thing.device) + 0.5 - width / 2) / height
    dy = (torch.arange(height, device=thing.device) + 0.5 - height / 2) / height
    columns, rows = thing.sum(dim=2), thing.sum(dim=3)
    x, y = (columns * dx).sum(dim=2) / total, (rows * dy).sum(dim=2) / total
    spread_x = ((columns * (dx - x[..., None]).square()).sum(dim=2) / total).sqrt()
    spread_y = ((rows * (dy - y[..., None]).square()).sum(dim=2) / total).sqrt()
    area = pixels / height**2
    at = torch.linspace(0, num_frames - 1, 4).round().long()

    centre = ((x[:, at] * height + width / 2).flatten(), (y[:, at] * height + height / 2).flatten())
    radius = (pixels[:, at].flatten() / math.pi).sqrt()
    templates = torch.stack([template(shape, *centre, radius, height, width) for shape in SHAPES])
    overlap = overlaps(rearrange(thing[:, at], "b t h w -> (b t) h w"), templates)
    best = reduce(overlap, "blur n (b t) -> blur b n", "mean", b=batch).amax(dim=0)
    return [
        torch.stack([area.mean(dim=1), area[:, -1] - area[:, 0]], dim=1),
        x[:, at],
        y[:, at],
        torch.stack([spread_x.mean(dim=1), spread_y.mean(dim=1)], dim=1),
        best,
    ]


def _changes(frames: Tensor) -> list[Tensor]:
    """How much frames differ, how much that varies, and how much the change changes, each ``[B, 1]``."""
    if frames.shape[2] < 3:
        zero = frames.new_zeros(len(frames), 1)
        return [zero, zero, zero]
    step = reduce(frames.diff(dim=2).abs(), "b c t h w -> b t", "mean")
    jerk = reduce(frames.diff(n=2, dim=2).abs(), "b c t h w -> b 1", "mean")
    return [step.mean(dim=1, keepdim=True), step.std(dim=1, keepdim=True), jerk]
