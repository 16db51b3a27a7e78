"""What a video of moving shapes shows, measured by fixed rules: nothing is learned."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import torch
from einops import rearrange, reduce
from torch import Tensor
from torch.nn import functional as F

from .shape_captions import BACKGROUNDS, COLOURS, SHAPES
from .shape_motion import NO_MOTION, SeenMotion, Track, read_direction, read_motion

RADII = {"small": 0.14, "medium": 0.18, "large": 0.22}
"""Radius of the circle that has the area of a thing of each size, in heights of the frame."""

_HALF_SIDE = {"circle": 1.0, "square": math.sqrt(math.pi) / 2, "triangle": math.sqrt(math.pi / 2)}
_LEAST_AREA = 0.01
_LEAST_AREA_OF_A_FRAME = 0.005
_MARGIN = 4


@dataclass(frozen=True)
class SeenThing:
    """What a video shows of one thing.

    Args:
        colour: One of `COLOURS`.
        shape: One of `SHAPES`, or "none" where none fits.
        size: "small", "medium" or "large", by its mean radius; "none" where it is seldom there.
        direction: "left", "right", "up" or "down" of a steady motion, else "none".
        motion: How it moves; None where the frame rate is not known.
    """

    colour: str
    shape: str
    size: str
    direction: str
    motion: SeenMotion | None = None


@dataclass(frozen=True)
class SeenScene:
    """What a video shows.

    Args:
        things: The largest thing of each colour, from the largest to the smallest; none in a video of noise or of
            nothing.
        count: How many things there are in most frames, also of the same colour.
        background: One of `BACKGROUNDS`, or "none" where none is near.
        compact: Share of the foreground that lies in one piece per colour, mean of the frames, 0 to 1.
        consistency: Share of the frames that show the same colours, shapes and number of things, 0 to 1.
    """

    things: tuple[SeenThing, ...]
    count: int
    background: str
    compact: float
    consistency: float


@dataclass(frozen=True)
class _Piece:
    """The largest piece of a colour in each frame.

    Args:
        mask: Its pixels ``[T, H, W]``.
        count: Pieces of the colour in each frame that are no much smaller ``[T]``.
    """

    mask: Tensor
    count: Tensor


@torch.no_grad()
def read_scene(video: Tensor, fps: float | None = None) -> SeenScene:
    """Measure what a video shows. Deterministic; made for 24 to 128 pixels, mild blur and mild noise.

    The background is the median of the border. The foreground is what differs from it by more than half of the largest
    differences. A pixel's hue assigns it to a colour, and the largest piece of each colour, unless a speck, is a thing.

    Args:
        video: uint8 ``[C, T, H, W]``.
        fps: Frames per second; None: motions are not read.
    """
    frames = rearrange(video.cpu().float(), "c t h w -> t c h w")
    ground, background = _background(frames)
    distance = reduce((frames - ground[:, None, None]).abs(), "t c h w -> t h w", "max")
    # The smallest of all things covers more than 2% of a square frame.
    num_frames, height, width = distance.shape
    heights = num_frames * height * min(height, width)
    peak = distance.flatten().topk(max(1, heights // 100)).values.mean()
    foreground = distance > max(0.5 * float(peak), 40.0)
    nothing = SeenScene((), 0, background, 0.0, 0.0)
    if not 0 < foreground.float().mean() < 0.6:
        return nothing

    masks = {name: foreground & mask for name, mask in _by_hue(frames).items()}
    pieces = {name: _largest_piece(mask) for name, mask in masks.items() if _area(mask) > _LEAST_AREA}
    least = max([_LEAST_AREA] + [0.1 * _area(piece.mask) for piece in pieces.values()])
    # Specks of noise make no thing: most of a colour lies in one piece.
    names = [name for name in pieces if _area(pieces[name].mask) > max(least, 0.35 * _area(masks[name]))]
    if not names:
        return nothing
    names.sort(key=lambda name: _area(pieces[name].mask), reverse=True)
    things, shapes = zip(*(_read_thing(name, distance, pieces[name].mask, fps) for name in names), strict=True)
    whole = reduce(foreground.float(), "t h w -> t", "sum")
    in_pieces = sum((reduce(pieces[name].mask.float(), "t h w -> t", "sum") for name in names), torch.zeros_like(whole))
    count = sum((pieces[name].count for name in names), torch.zeros(num_frames, dtype=torch.long))
    # What each frame shows, and how often the most common of it is shown.
    shown = Counter(zip(count.tolist(), *shapes, strict=True))
    return SeenScene(
        things,
        int(count.median()),
        background,
        float((in_pieces / whole.clamp(min=1)).mean()),
        max(shown.values()) / num_frames,
    )


def _background(frames: Tensor) -> tuple[Tensor, str]:
    """The colour ``[C]`` of most of the border of frames ``[T, C, H, W]``, and its name."""
    border = torch.cat([frames[..., 0, :], frames[..., -1, :], frames[..., 0], frames[..., -1]], dim=-1)
    ground = rearrange(border, "t c n -> (t n) c").median(dim=0).values
    name = min(BACKGROUNDS, key=lambda name: float((ground - BACKGROUNDS[name]).abs().max()))
    return ground, name if (ground - BACKGROUNDS[name]).abs().max() <= 60 else "none"


def _area(mask: Tensor) -> float:
    """Area in squares of the smaller side, mean of the frames, of a mask ``[T, H, W]``."""
    height, width = mask.shape[1:]
    return float(mask.float().mean()) * max(height, width) / min(height, width)


def _by_hue(frames: Tensor) -> dict[str, Tensor]:
    """Which pixels ``[T, H, W]`` of frames ``[T, C, H, W]`` have the hue of each colour; dull ones have none."""
    low, high = frames.amin(dim=1, keepdim=True), frames.amax(dim=1, keepdim=True)
    # Stretched to full contrast, each of the six hues is a corner of the colour cube.
    corner = ((frames - low) / (high - low).clamp(min=1) > 0.5).to(torch.uint8)
    code = corner[:, 0] + 2 * corner[:, 1] + 4 * corner[:, 2]
    vivid = (high - low)[:, 0] > 60
    return {name: vivid & (code == red + 2 * green + 4 * blue) for name, (red, green, blue) in COLOURS.items()}


def _box(mask: Tensor, margin: int = 0) -> tuple[slice, slice]:
    """Rows and columns of a mask ``[T, H, W]`` that is not empty, with a margin inside of the frame."""
    rows, columns = (mask.any(dim=0).any(dim=dim).nonzero()[:, 0] for dim in (1, 0))
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin),
    )


def _largest_piece(mask: Tensor) -> _Piece:
    """The largest connected component (8 neighbours) of each frame of a mask ``[T, H, W]``."""
    if not mask.any():
        return _Piece(mask, torch.zeros(len(mask), dtype=torch.long))
    box = (slice(None), *_box(mask))
    part = mask[box]
    number = rearrange(torch.arange(1, part[0].numel() + 1), "(h w) -> 1 h w", h=part.shape[1])
    labels, previous = number * part, torch.zeros((), dtype=torch.long)
    # The largest number in a component spreads over it: a pixel takes the largest around it, then that pixel's own.
    while not torch.equal(labels, previous):
        previous = labels
        flat = rearrange(_largest_around(labels) * part, "t h w -> t (h w)")
        labels = F.pad(flat, (1, 0)).gather(1, flat).view_as(labels)
    flat = rearrange(labels, "t h w -> t (h w)")
    sizes = torch.zeros(len(mask), part[0].numel() + 1).scatter_add_(1, flat, torch.ones(flat.shape))
    sizes[:, 0] = 0
    largest = sizes.max(dim=1, keepdim=True)
    least = (0.25 * largest.values).clamp(min=_LEAST_AREA_OF_A_FRAME * min(mask.shape[1:]) ** 2)
    piece = torch.zeros_like(mask)
    piece[box] = part & (labels == largest.indices[..., None])
    return _Piece(piece, (sizes > least).sum(dim=1))


def _largest_around(values: Tensor) -> Tensor:
    """The largest of each pixel and its 8 neighbours, values ``[T, H, W]`` of 0 or more."""
    padded = F.pad(values, (1, 1, 1, 1))
    rows = torch.maximum(torch.maximum(padded[..., :-2], padded[..., 1:-1]), padded[..., 2:])
    return torch.maximum(torch.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _read_thing(colour: str, distance: Tensor, piece: Tensor, fps: float | None) -> tuple[SeenThing, tuple[str, ...]]:
    """What one thing is and does, and its shape in each frame.

    Args:
        colour: Its colour.
        distance: Difference from the background ``[T, H, W]``.
        piece: Its pixels ``[T, H, W]``.
        fps: Frames per second, if known.
    """
    num_frames, whole_height = piece.shape[:2]
    rows, columns = _box(piece, _MARGIN)
    present = piece.flatten(1).any(dim=1)
    distance, piece = distance[present, rows, columns], piece[present, rows, columns]
    # Soft edges: how much of each pixel the thing covers, as seen by how far its colour is from the background.
    soft = (distance / distance[piece].quantile(0.75)).clamp(0, 1) * _largest_around(piece.float())
    soft = soft * (soft > 0.15)
    area = reduce(soft, "t h w -> t", "sum")
    height, width = soft.shape[1:]
    x = (soft * (torch.arange(width) + 0.5)).sum(dim=(1, 2)) / area
    y = (soft * (torch.arange(height) + 0.5)[:, None]).sum(dim=(1, 2)) / area
    radius = (area / math.pi).sqrt()
    overlap = overlaps(soft, torch.stack([template(shape, x, y, radius, height, width) for shape in SHAPES]))
    at = present.cumsum(0) - 1
    each = [SHAPES[i] for i in overlap.amax(dim=0).argmax(dim=0).tolist()]
    by_frame = tuple(each[i] if there else "none" for i, there in zip(at.tolist(), present.tolist(), strict=True))
    if present.float().mean() < 0.7:
        return SeenThing(colour, "none", "none", "none", None if fps is None else NO_MOTION), by_frame

    fit = overlap.mean(dim=-1).amax(dim=0)
    shape = SHAPES[int(fit.argmax())] if fit.max() >= 0.6 else "none"
    if shape == "triangle":
        y = y - radius * _HALF_SIDE[shape] / 3  # the middle of its box, which stays when it grows
    frame = present.nonzero()[:, 0]
    track = Track(frame, (x + columns.start) / whole_height, (y + rows.start) / whole_height, radius / whole_height)
    mean = float(track.radius.mean())
    size = min(RADII, key=lambda name: abs(RADII[name] - mean))
    motion = None if fps is None else read_motion(track, fps)
    return SeenThing(colour, shape, size, read_direction(track, num_frames), motion), by_frame


def template(shape: str, x: Tensor, y: Tensor, radius: Tensor, height: int, width: int) -> Tensor:
    """Coverage of the pixels ``[T, H, W]`` by a shape with its centre of mass at x, y and the area of a circle."""
    dx = rearrange(torch.arange(width, device=x.device) + 0.5, "w -> 1 1 w") - rearrange(x, "t -> t 1 1")
    dy = rearrange(torch.arange(height, device=x.device) + 0.5, "h -> 1 h 1") - rearrange(y, "t -> t 1 1")
    half = rearrange(radius * _HALF_SIDE[shape], "t -> t 1 1")
    if shape == "circle":
        return (half - torch.hypot(dx, dy) + 0.5).clamp(0, 1)
    if shape == "square":
        return (half - dx.abs() + 0.5).clamp(0, 1) * (half - dy.abs() + 0.5).clamp(0, 1)
    dy = dy + half / 3  # from the middle of its box: the centre of mass lies a sixth of the height below
    slanted = (dy + half - 2 * dx.abs()) / math.sqrt(5)
    return (slanted + 0.5).clamp(0, 1) * (half - dy + 0.5).clamp(0, 1)


def overlaps(mask: Tensor, templates: Tensor) -> Tensor:
    """Intersection over union of soft masks ``[T, H, W]`` and templates ``[N, T, H, W]``, more and more blurred.

    Returns:
        ``[blur, N, T]``, 0 to 1.
    """
    found = []
    for _ in range(4):
        union = torch.maximum(mask, templates).sum(dim=(-2, -1))
        found.append(torch.minimum(mask, templates).sum(dim=(-2, -1)) / union.clamp(min=1e-6))
        for dim in (-2, -1):  # 1 2 1, a Gaussian of 0.7 pixels; frames wrap, but things keep off the border
            templates = (templates.roll(1, dim) + 2 * templates + templates.roll(-1, dim)) / 4
    return torch.stack(found)
