"""Videos for people to look at: mp4, GIF and PNG, grids and contact sheets.

Everything here speaks uint8; `to_uint8` makes it from a model's floats. Files appear whole or not at all.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
import torch
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from einops import rearrange, reduce, repeat
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

MIN_FPS, MAX_FPS = 0.01, 1000.0
"""Frame rates that files and players can do with."""

GRID_COLUMNS, GRID_VIDEOS = 8, 64
"""The most that one look takes in."""

MAX_SIDE = 16384
"""Pixels; H.264 takes no more."""

GREY = 128
"""Colour between the cells of a grid: it shows against dark videos and bright ones."""


def to_uint8(video: Tensor) -> Tensor:
    """Floats in [-1, 1], clamped, to uint8 in 0..255; any shape, on the CPU."""
    return video.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to("cpu", torch.uint8)


def enlarge(video: Tensor, min_side: int = 256) -> Tensor:
    """Repeat pixels a whole number of times, so that small videos are not blurred by players.

    Args:
        video: ``[..., H, W]``.
        min_side: Pixels of the shorter side afterwards, at least; fewer where the longer one would exceed `MAX_SIDE`.
    """
    size = video.shape[-2:]
    factor = max(1, min(math.ceil(min_side / min(size)), MAX_SIDE // max(size)))
    return repeat(video, "... h w -> ... (h a) (w b)", a=factor, b=factor)


def shrink(video: Tensor, height: int, width: int) -> Tensor:
    """What `enlarge` made larger, and a file made even, at its own size: each pixel the mean of its copies.

    Args:
        video: uint8 ``[..., H', W']``.
        height: Pixels before, H.
        width: Pixels before, W.
    """
    factor = video.shape[-2] // height
    copies = video[..., : factor * height, : factor * width].float()
    return reduce(copies, "... (h a) (w b) -> ... h w", "mean", a=factor, b=factor).round().to(torch.uint8)


def grid(videos: Tensor, columns: int, pad: int = 2) -> Tensor:
    """Videos side by side, row by row, in one video ``[C, T, H', W']``.

    Args:
        videos: uint8 ``[N, C, T, H, W]``.
        columns: Videos per row.
        pad: Pixels of grey around each.
    """
    if columns < 1:
        raise ValueError(f"columns is {columns}: it must be at least 1")
    _check(videos, "N C T H W")
    rows = math.ceil(len(videos) / columns)
    cells = videos.new_full((rows * columns, *videos.shape[1:]), GREY)
    cells[: len(videos)] = videos
    # Each cell has grey to its right and below; the first row and column also above and to the left.
    cells = torch.nn.functional.pad(cells, (0, pad, 0, pad), value=GREY)
    joined = rearrange(cells, "(i j) c t h w -> c t (i h) (j w)", j=columns)
    return torch.nn.functional.pad(joined, (pad, 0, pad, 0), value=GREY)


def grid_columns(num_prompts: int, num_per_prompt: int) -> int:
    """Columns of a grid: a row per prompt where it has several videos, else about a square; `GRID_COLUMNS` at most."""
    columns = num_per_prompt if num_per_prompt > 1 else math.ceil(math.sqrt(num_prompts))
    return min(columns, GRID_COLUMNS)


def contact_sheet(videos: Tensor, columns: int = 8, pad: int = 2) -> Tensor:
    """One image ``[C, H', W']`` with a row for each video and frames, evenly spaced from first to last, as columns.

    Args:
        videos: uint8 ``[N, C, T, H, W]``.
        columns: Frames per row; all frames where the videos have fewer.
        pad: Pixels of grey around each frame.
    """
    _check(videos, "N C T H W")
    num_frames = videos.shape[2]
    times = torch.linspace(0, num_frames - 1, min(columns, num_frames)).round().long()
    frames = rearrange(videos[:, :, times], "n c t h w -> (n t) c 1 h w")
    return grid(frames, len(times), pad)[:, 0]


def encode_png(image: Tensor) -> bytes:
    """The bytes of a PNG file of an image, uint8 ``[C, H, W]``."""
    _check(image, "C H W")
    with BytesIO() as file:
        Image.fromarray(_frames(image[:, None])[0]).save(file, "PNG")
        return file.getvalue()


def encode_gif(video: Tensor | NDArray[np.uint8], fps: float) -> bytes:
    """The bytes of an animated GIF file that loops for ever.

    A GIF counts time in 1/100 s: frames are rounded to it so that the whole lasts as long as it should. Browsers slow
    down frames that are shorter than 2/100 s, so beyond 50 frames per second it plays at 50.

    Args:
        video: uint8, a tensor ``[C, T, H, W]`` or an array ``[T, H, W, 3]``.
        fps: Frames per second.
    """
    _check_fps(fps)
    frames = _frames(video)
    hundredth = Fraction(1, 100)
    ends = [round(100 * t / min(fps, 50)) for t in range(len(frames) + 1)]
    with BytesIO() as file:
        with av.open(file, "w", "gif", {"final_delay": str(ends[-1] - ends[-2])}) as container:
            stream = container.add_stream("gif", 100)
            stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "pal8"
            graph = _common_palette(frames.shape[1], frames.shape[2], hundredth)
            for array, start in zip(frames, ends, strict=False):
                frame = av.VideoFrame.from_ndarray(array, format="rgb24")
                frame.pts, frame.time_base = start, hundredth
                graph.vpush(frame)
            graph.vpush(None)
            for _ in frames:
                container.mux(stream.encode(graph.vpull()))
            container.mux(stream.encode(None))
        return file.getvalue()


def _common_palette(height: int, width: int, time_base: Fraction) -> av.filter.Graph:
    """A filter graph that gives all frames one palette of 256 colours: with one each, still areas flicker."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=time_base)
    split, palette = graph.add("split"), graph.add("palettegen")
    use, sink = graph.add("paletteuse", "dither=none"), graph.add("buffersink")  # dithering flickers too
    source.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(use, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph


def write_mp4(path: str | Path, video: Tensor | NDArray[np.uint8], fps: float, loops: int = 1) -> None:
    """Write a video that browsers play: H.264, yuv420p, BT.709, index in front.

    Odd sizes are made even by repeating the last row or column; nothing is resized.

    Args:
        path: The file; its folders are made.
        video: uint8, a tensor ``[C, T, H, W]`` or an array ``[T, H, W, 3]``.
        fps: Frames per second.
        loops: How many times the frames are played; players stop, and most clips are short.
    """
    _check_fps(fps)
    if loops < 1:
        raise ValueError(f"loops is {loops}: it must be at least 1")
    frames = _frames(video)
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    with whole_file(path) as partial, av.open(str(partial), "w", "mp4", {"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", Fraction(fps).limit_denominator(1001), options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        # Without these tags players guess the matrix from the size, and colours change with it.
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_primaries = ColorPrimaries.BT709
        stream.codec_context.color_trc = ColorTrc.BT709
        stream.codec_context.color_range = ColorRange.MPEG
        for _ in range(loops):
            for array in frames:
                frame = av.VideoFrame.from_ndarray(array, format="rgb24")
                frame = frame.reformat(
                    format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
                )
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_mp4(path: str | Path) -> Tensor:
    """All frames of a video that `write_mp4` wrote, uint8 ``[C, T, H, W]``."""
    with av.open(str(path)) as container:
        frames = [
            frame.reformat(format="rgb24", src_colorspace=Colorspace.ITU709, dst_colorspace=Colorspace.ITU709)
            for frame in container.decode(video=0)
        ]
    return rearrange(torch.from_numpy(np.stack([frame.to_ndarray() for frame in frames])), "t h w c -> c t h w")


def write_grid(folder: str | Path, videos: Tensor, columns: int, fps: float) -> None:
    """Write videos side by side, ``grid.mp4`` (played four times) and ``grid.gif``, and ``contact_sheet.png``.

    Args:
        folder: Where to; it is made.
        videos: uint8 ``[N, C, T, H, W]``.
        columns: Videos per row of the grid.
        fps: Frames per second.
    """
    joined = enlarge(grid(videos, columns))
    write_mp4(Path(folder, "grid.mp4"), joined, fps, loops=4)
    write_bytes(Path(folder, "grid.gif"), encode_gif(joined, fps))
    write_bytes(Path(folder, "contact_sheet.png"), encode_png(contact_sheet(enlarge(videos, 64))))


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file; its folders are made."""
    with whole_file(path) as partial:
        partial.write_bytes(data)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A name to write to, in the same folder, that becomes `path` at the end, or vanishes when something goes wrong."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _frames(video: Tensor | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames ``[T, H, W, 3]`` of either layout; one channel becomes three."""
    if isinstance(video, Tensor):
        _check(video, "C T H W")
        video = rearrange(video.cpu().numpy(), "c t h w -> t h w c")
    _check(video, "T H W C")
    if video.shape[-1] not in (1, 3):
        raise ValueError(f"a video has {video.shape[-1]} channels: only 1 (grey) and 3 (red, green, blue) can be shown")
    return np.ascontiguousarray(np.broadcast_to(video, (*video.shape[:-1], 3)))


def _check(array: Tensor | NDArray[Any], axes: str) -> None:
    """Refuse what is not uint8 or not of these axes, or empty."""
    if array.dtype not in (torch.uint8, np.uint8):
        raise ValueError(f"pixels are {array.dtype}: they must be uint8, which to_uint8 makes of floats in [-1, 1]")
    if array.ndim != len(axes.split()) or 0 in array.shape:
        raise ValueError(
            f"pixels have the shape {list(array.shape)}: it must be [{axes.replace(' ', ', ')}], not empty"
        )


def _check_fps(fps: float) -> None:
    if not MIN_FPS <= fps <= MAX_FPS:
        raise ValueError(f"fps is {fps}: a video file needs {MIN_FPS} to {MAX_FPS} (for one image: encode_png)")
