"""Pictures of samples, as ``data:`` addresses, made small enough for a page that holds several."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageSequence

from .folder import Samples

STILLS = 8
"""Steps of which a page shows samples."""

STILL_BYTES, ANIMATION_BYTES = 150_000, 1_200_000
FORMATS = ("PNG", "GIF", "WEBP", "JPEG")


@dataclass(frozen=True)
class Picture:
    """A picture for a page.

    Args:
        address: ``data:``, with all of it.
        width: Pixels.
        height: Pixels.
        reduced: Whether the file has more pixels.
    """

    address: str
    width: int
    height: int
    reduced: bool


def spread(samples: Sequence[Samples]) -> list[Samples]:
    """Some of them: first, last and evenly between."""
    if len(samples) <= STILLS:
        return list(samples)
    return [samples[round(i * (len(samples) - 1) / (STILLS - 1))] for i in range(STILLS)]


def still(samples: Samples) -> Picture | None:
    """Their contact sheet; None: it is not there, or no picture."""
    return _read(samples.folder / "contact_sheet.png", _still)


def animation(samples: Samples) -> Picture | None:
    """Their grid, moving; None: it is not there, or no picture."""
    return _read(samples.folder / "grid.gif", _animation)


def _read(path: Path, make: Callable[[Path, int, int], Picture]) -> Picture | None:
    try:
        found = path.stat()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return make(path, found.st_mtime_ns, found.st_size)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):  # what Pillow makes of bad files
        return None


@lru_cache(maxsize=64)  # a training makes the page again and again
def _still(path: Path, mtime: int, size: int) -> Picture:
    with Image.open(path, formats=FORMATS) as image:
        image.load()
        if size <= STILL_BYTES:
            return _whole(path, image)
        return _smaller([image.convert("RGB")], [0], 1024, STILL_BYTES)


@lru_cache(maxsize=2)
def _animation(path: Path, mtime: int, size: int) -> Picture:
    with Image.open(path, formats=FORMATS) as image:
        image.load()
        if size <= ANIMATION_BYTES:
            return _whole(path, image)
        frames, times = [], []
        for frame in ImageSequence.Iterator(image):
            frames.append(frame.convert("RGB"))
            times.append(int(frame.info.get("duration", 125)))
            frames[-1].thumbnail((1024, 1024))
        return _smaller(frames, times, 768, ANIMATION_BYTES)


def _whole(path: Path, image: Image.Image) -> Picture:
    return Picture(_address(path.read_bytes(), f"image/{(image.format or '').lower()}"), *image.size, reduced=False)


def _smaller(frames: Sequence[Image.Image], times: Sequence[int], side: int, most: int) -> Picture:
    """WebP of frames with at most `side` pixels a side, or fewer, until it has at most so many bytes."""
    while True:
        small = [frame.copy() for frame in frames]
        for frame in small:
            frame.thumbnail((side, side))
        with BytesIO() as file:
            moving = {"save_all": True, "append_images": small[1:], "duration": list(times), "loop": 0}
            small[0].save(file, "WEBP", quality=80, **(moving if len(small) > 1 else {}))
            data = file.getvalue()
        if len(data) <= most or side <= 64:
            return Picture(_address(data, "image/webp"), *small[0].size, reduced=True)
        side = side * 3 // 4


def _address(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
