"""Scores videos of moving shapes against their captions: what was asked is parsed, what is seen is measured."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, reduce
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

COLOURS = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "magenta": (1, 0, 1),
    "cyan": (0, 1, 1),
}
BACKGROUNDS = {"black": 0, "gray": 128, "white": 255}
SHAPES = ("circle", "square", "triangle")

_THING = re.compile(rf"\b(?:(small|medium|large) )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})s?\b")
_GROUND = re.compile(r"\b(black|gr[ae]y|white) background\b")
_FROM_TO = re.compile(r"\b(?:left|right|top|bottom) to (?:the )?(left|right|top|bottom)\b")
_TOWARDS = re.compile(r"\b(left|right|up|down)(?:wards?)?\b")
_UPRIGHT = {"top": "up", "bottom": "down"}
_SPEEDS = {"slow": "slow", "slowly": "slow", "fast": "fast", "quickly": "fast"}

_HALF_SIDE = {"circle": 1.0, "square": math.sqrt(math.pi) / 2, "triangle": math.sqrt(math.pi / 2)}


@dataclass(frozen=True)
class AskedThing:
    """What a caption says of one thing.

    Args:
        colour: One of `COLOURS`.
        shape: One of `SHAPES`.
        size: "small", "medium" or "large".
        motion: "moves", "bounces", "grows", "shrinks", "stays", or "none" where nothing is said.
        direction: "left", "right", "up" or "down" of moves, "vertical" or "horizontal" of bounces, else "none".
        speed: "slow", "normal" or "fast".
    """

    colour: str
    shape: str
    size: str
    motion: str
    direction: str
    speed: str


@dataclass(frozen=True)
class AskedScene:
    """What a caption says.

    Args:
        things: In the order of the caption, one at least.
        background: One of `BACKGROUNDS`; black where nothing is said.
    """

    things: tuple[AskedThing, ...]
    background: str


@dataclass(frozen=True)
class SeenThing:
    """What a video shows of one thing.

    Args:
        colour: One of `COLOURS`.
        shape: One of `SHAPES`, or "none" where none fits.
        direction: "left", "right", "up" or "down" of a steady motion, else "none".
    """

    colour: str
    shape: str
    direction: str


@dataclass(frozen=True)
class SeenScene:
    """What a video shows.

    Args:
        things: From the largest to the smallest; none in a video of noise or of nothing.
        background: One of `BACKGROUNDS`, or "none" where none is near.
        compact: Share of the foreground that lies in one piece per thing, mean of the frames, 0 to 1.
    """

    things: tuple[SeenThing, ...]
    background: str
    compact: float


def parse_caption(caption: str) -> AskedScene:
    """Read a caption such as "a large red circle moves left to right, fast, on a white background".

    What is not said is medium, normal and black. The words between two things belong to the first of them.

    Raises:
        ValueError: The caption names no coloured shape.
    """
    words = re.sub(r"[^a-z]+", " ", caption.lower())
    ground = _GROUND.search(words)
    background = ground[1].replace("grey", "gray") if ground else "black"
    found = list(_THING.finditer(words))
    if not found:
        raise ValueError(
            f"the caption {caption!r} names no coloured shape: write one of {', '.join(COLOURS)} "
            f"before one of {', '.join(SHAPES)}"
        )
    ends = [thing.start() for thing in found[1:]] + [len(words)]
    return AskedScene(
        tuple(_parse_thing(thing, words[thing.end() : end]) for thing, end in zip(found, ends, strict=True)), background
    )


def _parse_thing(thing: re.Match[str], predicate: str) -> AskedThing:
    motion, direction = "none", "none"
    for stem, name in (("mov", "moves"), ("bounc", "bounces"), ("gr[eo]w", "grows"), ("shr[iau]nk", "shrinks")):
        if re.search(rf"\b{stem}", predicate):
            motion = name
    if motion == "none" and re.search(r"\b(still|stays)\b", predicate):
        motion = "stays"
    if motion == "bounces":
        direction = "vertical" if re.search(r"\b(up|down)\b", predicate) else "horizontal"
    elif motion == "moves":
        towards = _FROM_TO.search(predicate) or _TOWARDS.search(predicate)
        direction = _UPRIGHT.get(towards[1], towards[1]) if towards else "none"
    speeds = [_SPEEDS[word] for word in predicate.split() if word in _SPEEDS]
    return AskedThing(thing[2], thing[3], thing[1] or "medium", motion, direction, speeds[0] if speeds else "normal")


@torch.no_grad()
def read_scene(video: Tensor) -> SeenScene:
    """Measure what a video shows. Deterministic; made for 24 to 64 pixels, mild blur and mild noise.

    The background is the median of the border. The foreground is what differs from it by more than half of the largest
    differences. A pixel's hue assigns it to a colour, and the largest piece of each colour, unless a speck, is a thing.

    Args:
        video: uint8 ``[C, T, H, W]``.
    """
    frames = rearrange(video.cpu().float(), "c t h w -> t c h w")
    border = torch.cat([frames[..., 0, :], frames[..., -1, :], frames[..., 0], frames[..., -1]], dim=-1)
    ground = rearrange(border, "t c n -> (t n) c").median(dim=0).values
    background = min(BACKGROUNDS, key=lambda name: float((ground - BACKGROUNDS[name]).abs().max()))
    if (ground - BACKGROUNDS[background]).abs().max() > 60:
        background = "none"

    distance = reduce((frames - ground[:, None, None]).abs(), "t c h w -> t h w", "max")
    # The smallest of all things covers more than 2% of the frame.
    peak = distance.flatten().topk(max(1, distance.numel() // 100)).values.mean()
    foreground = distance > max(0.5 * float(peak), 40.0)
    share = foreground.float().mean()
    if not 0 < share < 0.6:
        return SeenScene((), background, 0.0)

    masks = {name: foreground & mask for name, mask in _by_hue(frames).items()}
    pieces = {name: _largest_piece(mask) for name, mask in masks.items() if _area(mask) > 0.01}
    least = max([0.01] + [0.1 * _area(piece) for piece in pieces.values()])
    # Specks of noise make no thing: most of a colour lies in one piece.
    names = [name for name in pieces if _area(pieces[name]) > max(least, 0.35 * _area(masks[name]))]
    names.sort(key=lambda name: _area(pieces[name]), reverse=True)
    things = tuple(SeenThing(name, *_shape_and_direction(distance, pieces[name])) for name in names)
    whole = reduce(foreground.float(), "t h w -> t", "sum")
    in_pieces = sum((reduce(pieces[name].float(), "t h w -> t", "sum") for name in names), torch.zeros_like(whole))
    return SeenScene(things, background, float((in_pieces / whole.clamp(min=1)).mean()))


def _area(mask: Tensor) -> float:
    """Share of the frame, mean of the frames, of a mask ``[T, H, W]``."""
    return float(mask.float().mean())


def _by_hue(frames: Tensor) -> dict[str, Tensor]:
    """Which pixels ``[T, H, W]`` of frames ``[T, C, H, W]`` have the hue of each colour; dull ones have none."""
    low, high = frames.amin(dim=1, keepdim=True), frames.amax(dim=1, keepdim=True)
    # Stretched to full contrast, each of the six hues is a corner of the colour cube.
    corner = ((frames - low) / (high - low).clamp(min=1) > 0.5).to(torch.uint8)
    code = corner[:, 0] + 2 * corner[:, 1] + 4 * corner[:, 2]
    vivid = (high - low)[:, 0] > 60
    return {name: vivid & (code == red + 2 * green + 4 * blue) for name, (red, green, blue) in COLOURS.items()}


def _largest_piece(mask: Tensor) -> Tensor:
    """The largest connected component (8 neighbours) of each frame of a mask ``[T, H, W]``."""
    number = rearrange(torch.arange(1, mask[0].numel() + 1), "(h w) -> 1 h w", h=mask.shape[1])
    labels, previous = number * mask, torch.zeros((), dtype=torch.long)
    # The largest number in a component spreads over it: a pixel takes the largest around it, then that pixel's own.
    while not torch.equal(labels, previous):
        previous = labels
        flat = rearrange(_largest_around(labels) * mask, "t h w -> t (h w)")
        labels = F.pad(flat, (1, 0)).gather(1, flat).view_as(labels)
    flat = rearrange(labels, "t h w -> t (h w)")
    sizes = torch.zeros(len(mask), mask[0].numel() + 1).scatter_add_(1, flat, torch.ones(flat.shape))
    sizes[:, 0] = 0
    return mask & (labels == sizes.argmax(dim=1)[:, None, None])


def _largest_around(values: Tensor) -> Tensor:
    """The largest of each pixel and its 8 neighbours, values ``[T, H, W]`` of 0 or more."""
    padded = F.pad(values, (1, 1, 1, 1))
    rows = torch.maximum(torch.maximum(padded[..., :-2], padded[..., 1:-1]), padded[..., 2:])
    return torch.maximum(torch.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _shape_and_direction(distance: Tensor, piece: Tensor) -> tuple[str, str]:
    """What one thing is and where it goes.

    Args:
        distance: Difference from the background ``[T, H, W]``.
        piece: Its pixels ``[T, H, W]``.
    """
    present = piece.flatten(1).any(dim=1)
    if present.float().mean() < 0.7:
        return "none", "none"
    distance, piece = distance[present], piece[present]
    times = present.nonzero()[:, 0].float()
    # Soft edges: how much of each pixel the thing covers, as seen by how far its colour is from the background.
    around = _largest_around(piece.float())
    soft = (distance / distance[piece].quantile(0.75)).clamp(0, 1) * around
    soft = soft * (soft > 0.15)
    area = reduce(soft, "t h w -> t", "sum")
    height, width = soft.shape[1:]
    x = (soft * (torch.arange(width) + 0.5)).sum(dim=(1, 2)) / area
    y = (soft * (torch.arange(height) + 0.5)[:, None]).sum(dim=(1, 2)) / area
    radius = (area / math.pi).sqrt()
    overlap = {shape: _best_overlap(soft, _template(shape, x, y, radius, height, width)) for shape in SHAPES}
    shape = max(SHAPES, key=lambda name: overlap[name])
    if overlap[shape] < 0.6:
        shape = "none"
    if shape == "triangle":
        y = y - radius * _HALF_SIDE[shape] / 3  # the middle of its box, which stays when it grows
    return shape, _direction(times / max(1, len(present) - 1), x / width, y / height)


def _template(shape: str, x: Tensor, y: Tensor, radius: Tensor, height: int, width: int) -> Tensor:
    """Coverage of the pixels ``[T, H, W]`` by a shape with its centre of mass at x, y and the area of a circle."""
    dx = rearrange(torch.arange(width) + 0.5, "w -> 1 1 w") - rearrange(x, "t -> t 1 1")
    dy = rearrange(torch.arange(height) + 0.5, "h -> 1 h 1") - rearrange(y, "t -> t 1 1")
    half = rearrange(radius * _HALF_SIDE[shape], "t -> t 1 1")
    if shape == "circle":
        return (half - torch.hypot(dx, dy) + 0.5).clamp(0, 1)
    if shape == "square":
        return (half - dx.abs() + 0.5).clamp(0, 1) * (half - dy.abs() + 0.5).clamp(0, 1)
    dy = dy + half / 3  # from the middle of its box: the centre of mass lies a sixth of the height below
    slanted = (dy + half - 2 * dx.abs()) / math.sqrt(5)
    return (slanted + 0.5).clamp(0, 1) * (half - dy + 0.5).clamp(0, 1)


def _best_overlap(mask: Tensor, template: Tensor) -> float:
    """Intersection over union of soft masks ``[T, H, W]``, mean of the frames, at the best blur of the template."""
    best = 0.0
    for _ in range(4):
        union = torch.maximum(mask, template).sum(dim=(1, 2))
        best = max(best, float((torch.minimum(mask, template).sum(dim=(1, 2)) / union).mean()))
        for dim in (1, 2):  # 1 2 1, a Gaussian of 0.7 pixels; frames wrap, but things keep off the border
            template = (template.roll(1, dim) + 2 * template + template.roll(-1, dim)) / 4
    return best


def _direction(t: Tensor, x: Tensor, y: Tensor) -> str:
    """Direction of a steady motion along an axis, from places in sides of the frame at times 0 to 1, each ``[T]``."""
    slopes, steady = [], []
    for place in (x, y):
        dt, dp = t - t.mean(), place - place.mean()
        slope = (dt * dp).sum() / (dt * dt).sum().clamp(min=1e-6)
        slopes.append(float(slope))
        steady.append(float(1 - (dp - slope * dt).square().sum() / dp.square().sum().clamp(min=1e-6)))
    main = 0 if abs(slopes[0]) > abs(slopes[1]) else 1
    if abs(slopes[main]) < 0.03 or abs(slopes[main]) < 1.5 * abs(slopes[1 - main]) or steady[main] < 0.7:
        return "none"
    return (("left", "right"), ("up", "down"))[main][slopes[main] > 0]


class ShapeAccuracy(Metric):
    """How often videos of moving shapes show what their captions ask for.

    `compute` gives the shares, 0 to 1, of the videos that have the right

    * ``colour``: the set of colours is the one that was asked for;
    * ``shape``: of captions with one thing, of the largest thing seen;
    * ``direction``: of captions with one thing that moves, of the largest thing seen;
    * ``background``: and something in front of it;
    * ``all``: all of these that apply, and a compactness of at least 0.9;

    and ``compact``, the mean share of the foreground that lies in one piece per thing. A share of no videos is NaN.
    """

    full_state_update = False
    higher_is_better = True

    names = ("colour", "shape", "direction", "background", "compact", "all")

    right: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("right", torch.zeros(len(self.names)), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(len(self.names)), dist_reduce_fx="sum")

    def update(self, videos: Tensor, captions: Sequence[str]) -> None:
        """Read and score videos.

        Args:
            videos: uint8 ``[B, C, T, H, W]``.
            captions: B texts.

        Raises:
            ValueError: The videos are not uint8 RGB, there is not one caption for each, or a caption names no shape.
        """
        if videos.dtype != torch.uint8 or videos.ndim != 5 or videos.shape[1] != 3:
            raise ValueError(f"videos are {videos.dtype} {list(videos.shape)}: give uint8 [B, 3, T, H, W]")
        if len(videos) != len(captions):
            raise ValueError(f"{len(captions)} captions for {len(videos)} videos: give one for each")
        for video, caption in zip(videos, captions, strict=True):
            for i, score in enumerate(_scores(parse_caption(caption), read_scene(video))):
                if score is not None:
                    self.right[i] += score
                    self.count[i] += 1

    def compute(self) -> dict[str, Tensor]:
        """Each share by its name."""
        return dict(zip(self.names, self.right / self.count, strict=True))


def _scores(asked: AskedScene, seen: SeenScene) -> tuple[float | None, ...]:
    """Scores in the order of `ShapeAccuracy.names`; None where the caption asks for nothing that can be scored."""
    nothing = SeenThing("none", "none", "none")
    wanted, main = asked.things[0], seen.things[0] if seen.things else nothing
    one = len(asked.things) == 1
    colour = {thing.colour for thing in asked.things} == {thing.colour for thing in seen.things}
    shape = wanted.shape == main.shape if one else None
    direction = wanted.direction == main.direction if one and wanted.motion == "moves" else None
    background = asked.background == seen.background and main is not nothing
    everything = colour and background and shape is not False and direction is not False and seen.compact >= 0.9
    return colour, shape, direction, background, seen.compact, everything
