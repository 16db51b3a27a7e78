"""Writes moving shapes as a folder of videos, images and captions."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from .shapes import DURATION, VERSION, draw_scene, ground_truth, render
from .whole_file import whole_file

MANIFEST = "shapes.json"
"""Says how a folder was made; it is there when the folder is complete."""

_PARTIAL = "shapes.partial.json"
_CHUNK = 32


@dataclass(frozen=True)
class _Settings:
    num_videos: int
    num_images: int
    size: int
    fps: int
    duration: float
    seed: int
    width: int | None = None
    version: int = VERSION
    hold_out_combinations: bool = False

    def __post_init__(self) -> None:
        for name, least in (("num_videos", 0), ("num_images", 0), ("size", 2), ("fps", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least {least}")
        for name in ("size", "width"):
            if (getattr(self, name) or 0) % 2:
                side = getattr(self, name)
                raise ValueError(f"{name} is {side}: h264 stores even sides only; take {side + 1}")
        if self.width is not None and self.width < self.size:
            raise ValueError(f"width is {self.width}: it must be at least the height, {self.size}")
        if not 0 < self.duration <= DURATION:
            raise ValueError(f"duration is {self.duration} s: it must be more than 0 and at most {DURATION} s")
        if self.num_frames < 1 or abs(self.num_frames - self.duration * self.fps) > 1e-6:
            raise ValueError(
                f"duration {self.duration} s at {self.fps} fps is {self.duration * self.fps:g} frames: "
                "choose a whole number of them, at least 1"
            )

    @property
    def aspect(self) -> float:
        return (self.width or self.size) / self.size

    @property
    def num_frames(self) -> int:
        return round(self.duration * self.fps)

    def as_dict(self) -> dict[str, object]:
        """As in the manifest; what folders had no choice of when they were made is told where it is chosen."""
        values = asdict(self)
        if not self.hold_out_combinations:
            del values["hold_out_combinations"]
        return values


def write_shapes(
    out: Path,
    num_videos: int,
    num_images: int,
    size: int = 64,
    fps: int = 16,
    duration: float = DURATION,
    seed: int = 0,
    workers: int | None = None,
    width: int | None = None,
    hold_out_combinations: bool = False,
) -> None:
    """Write ``videos/000000.mp4`` and ``images/000000.jpg`` and so on, each with its caption and ground truth.

    Item i depends on the seed and i alone. A run that was stopped is taken up where it ended, a complete folder is left
    as it is. A media file appears last of its item and at once, and ``shapes.json`` last of all.

    Args:
        out: Folder to write; new, empty, or begun with the same settings.
        num_videos: Videos: ``.mp4`` with ``.txt`` (caption) and ``.json`` (ground truth).
        num_images: Images: ``.jpg`` with the same two.
        size: Side of the square frames in pixels, even; with `width`, rows alone.
        fps: Frames per second.
        duration: Seconds per video, at most `DURATION`; a whole number of frames.
        seed: Another seed gives other scenes.
        workers: Processes; all available cores if None.
        width: Columns of pixels, even and at least `size`; None: square frames.
        hold_out_combinations: Whether scenes with the combinations of `shapes.HELD_OUT` are drawn again until they have
            none. Other scenes are the same with and without.

    Raises:
        ValueError: A setting is out of range, or the folder holds something else.
    """
    settings = _Settings(
        num_videos, num_images, size, fps, duration, seed, width, hold_out_combinations=hold_out_combinations
    )
    if _begin(out, settings):
        return
    for name in ("videos", "images"):
        (out / name).mkdir(exist_ok=True)
    jobs = [(out / "videos", start, min(start + _CHUNK, num_videos)) for start in range(0, num_videos, _CHUNK)]
    jobs += [(out / "images", start, min(start + _CHUNK, num_images)) for start in range(0, num_images, _CHUNK)]
    write = partial(_write_chunk, settings)
    workers = min((os.cpu_count() or 1) if workers is None else workers, len(jobs))
    with tqdm(desc=f"writing {out}", total=num_videos + num_images, unit=" items", disable=None) as progress:
        if workers > 1:
            with ProcessPoolExecutor(workers) as pool:
                for count in pool.map(write, jobs):
                    progress.update(count)
        else:
            for count in map(write, jobs):
                progress.update(count)
    with suppress(FileNotFoundError):  # another process that wrote the same has done it
        os.replace(out / _PARTIAL, out / MANIFEST)


def _begin(out: Path, settings: _Settings) -> bool:
    """Make the folder or check that it was begun with the same settings; whether it is complete."""
    wanted = settings.as_dict()
    for name in (MANIFEST, _PARTIAL):
        if (out / name).exists():
            found = json.loads((out / name).read_text())
            keys = dict.fromkeys([*wanted, *found])
            changed = [
                f"{key} {found.get(key)}, not {wanted.get(key)}" for key in keys if found.get(key) != wanted.get(key)
            ]
            if changed:
                raise ValueError(
                    f"{out} holds shapes of {'; '.join(changed)}: choose another folder or delete this one"
                )
            return name == MANIFEST
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no {MANIFEST}: choose a new folder")
    out.mkdir(parents=True, exist_ok=True)
    with whole_file(out / _PARTIAL) as path:
        path.write_text(json.dumps(wanted, indent=1) + "\n")
    return False


def _write_chunk(settings: _Settings, job: tuple[Path, int, int]) -> int:
    """Write what is missing of the items from start to stop of a folder; how many items that is."""
    folder, start, stop = job
    for index in range(start, stop):
        _write_item(settings, folder, index)
    return stop - start


def _write_item(settings: _Settings, folder: Path, index: int) -> None:
    is_image = folder.name == "images"
    media = folder / f"{index:06d}{'.jpg' if is_image else '.mp4'}"
    if media.exists():
        return
    rng = np.random.default_rng([settings.seed, is_image, index])
    scene = draw_scene(rng, is_image, settings.aspect, held_out=False if settings.hold_out_combinations else None)
    truth = ground_truth(scene)
    media.with_suffix(".txt").write_text(f"{truth['caption']}\n")
    media.with_suffix(".json").write_text(json.dumps(truth) + "\n")
    if is_image:
        image = Image.fromarray(render(scene, 1, settings.size, width=settings.width)[0])
        with whole_file(media) as path:
            image.save(path, format="JPEG", quality=92, subsampling=0)
    else:
        frames = render(scene, settings.num_frames, settings.size, settings.duration, settings.width)
        with whole_file(media) as path:
            _encode(path, frames, settings.fps)


def _encode(path: Path, frames: NDArray[np.uint8], fps: int) -> None:
    """Write frames ``[T, H, W, 3]`` as h264, quick to decode."""
    options = {"crf": "12", "preset": "ultrafast", "coder": "cabac"}  # CABAC: opens 2 ms sooner
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
