"""PyAV, as the kit reads videos, beside torchcodec: the same frames of the same files, one thread each, in turn.

    python docs/benchmarks/decoders.py CLIPS --rounds 5

CLIPS is a folder of videos. It needs torchcodec (CPU build) and FFmpeg on the system. Both decode 16 frames of the same
times and fit them to the size, torchcodec by transforms of its decoder. Times are medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor
from torchcodec.decoders import VideoDecoder
from torchcodec.transforms import CenterCrop, Resize

from snapvideo.components.interfaces import VideoShape
from snapvideo.datamodules.decode import decode_video, draw_times, extent_of, open_stream
from snapvideo.datamodules.samples import SUFFIXES

FPS = (24.0, 12.0, 8.0, 4.0)
SIZES = ((36, 64), (288, 512))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = sorted(file for file in options.clips.rglob("*") if file.suffix.lower() in SUFFIXES["video"])
    print(f"{'file':36}{'size':>9}{'PyAV ms':>9}{'exact':>8}{'approx.':>8}   mean difference of pixels, 0..255")
    for size in SIZES:
        shape = VideoShape(16, *size)
        ratios: dict[str, list[float]] = {"exact": [], "approximate": []}
        for file in files:
            try:
                line = compare(file, shape, options.rounds, ratios)
            except (RuntimeError, ValueError, IndexError) as error:
                line = f"torchcodec: {str(error).splitlines()[0][:80]}"
            print(f"{file.name:36}{shape.height:>4}x{shape.width:<4} {line}", flush=True)
        medians = {name: statistics.median(values) for name, values in ratios.items()}
        print(f"median of PyAV's time over torchcodec's at {shape.height}x{shape.width}: {medians}")


def compare(file: Path, shape: VideoShape, rounds: int, ratios: dict[str, list[float]]) -> str:
    """Time all on one file, add the ratios, and say what came out."""
    times = times_of(file, shape)
    readers: dict[str, Callable[[], Tensor]] = {"PyAV": partial(by_pyav, file, shape)}
    for mode in ("exact", "approximate"):
        readers[mode] = partial(by_torchcodec, file, shape, times, mode)
    seen: dict[str, list[float]] = {name: [] for name in readers}
    frames = {name: read() for name, read in readers.items()}  # and a warm-up
    for _ in range(rounds):
        for name, read in readers.items():
            begin = time.perf_counter()
            read()
            seen[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in seen.items()}
    for name, values in ratios.items():
        values.append(medians["PyAV"] / medians[name])
    difference = (frames["PyAV"].float() - frames["exact"].float()).abs().mean()
    faster = "".join(f"{medians['PyAV'] / medians[name]:8.2f}" for name in ratios)
    return f"{1e3 * medians['PyAV']:8.1f}{faster}   {difference:.1f}"


def times_of(file: Path, shape: VideoShape) -> list[float]:
    """When the frames are that `by_pyav` reads."""
    with av.open(str(file)) as container:
        extent = extent_of(container, open_stream(container))
    rate, offset = draw_times(extent, shape.num_frames, FPS, np.random.default_rng(0))
    latest = extent.duration - 2e-3
    return [extent.start + min(offset + k / rate, latest) for k in range(shape.num_frames)]


def by_pyav(file: Path, shape: VideoShape) -> Tensor:
    """Frames ``[T, C, H, W]`` by the kit."""
    with file.open("rb") as opened:
        return decode_video(opened, shape, FPS, np.random.default_rng(0)).video.transpose(0, 1)


def by_torchcodec(file: Path, shape: VideoShape, times: list[float], mode: str) -> Tensor:
    """Frames ``[T, C, H, W]`` by torchcodec: resized until they cover the size, and cut at the centre."""
    with file.open("rb") as opened:
        facts = VideoDecoder(opened, seek_mode=mode).metadata
        scale = max(shape.height / facts.height, shape.width / facts.width)
        size = max(shape.height, round(scale * facts.height)), max(shape.width, round(scale * facts.width))
        opened.seek(0)
        fit = [Resize(size), CenterCrop((shape.height, shape.width))]
        return VideoDecoder(opened, seek_mode=mode, transforms=fit).get_frames_played_at(times).data


if __name__ == "__main__":
    main()
