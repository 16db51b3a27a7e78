"""Files into pixels: videos by PyAV, images by Pillow, both fitted to one size.

Fitted means "cover": the short side is scaled to the size wanted and the centre is cut out. Shrinking averages over
areas, so nothing aliases; enlarging is bicubic.
"""

from __future__ import annotations

import io
import math
import time
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import av
import numpy as np
import torch
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from einops import rearrange
from PIL import Image
from torch import Tensor

from ..components.interfaces import VideoShape
from .samples import Unusable

_TOLERANCE = 1.0e-3  # seconds; Matroska rounds the times of frames to milliseconds
_FULL_CHROMA = Interpolation.FULL_CHR_H_INT  # without it whites come out as 253 and colours two levels dark

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = (5, 6, 7, 8)  # the sides change places


@dataclass
class Clip:
    """The pixels of one file.

    Args:
        video: uint8 ``[C, T, H, W]``; T = 1 for an image.
        fps: Frames per second; infinite for an image.
        resolution: Height and width of the upright original in pixels.
    """

    video: Tensor
    fps: float
    resolution: tuple[float, float]


class Timed(io.RawIOBase):
    """A file whose reading ends with an error when the time is over: whatever decodes it then ends too.

    Args:
        file: The file.
        seconds: How long it may be read, from now on.
    """

    def __init__(self, file: BinaryIO, seconds: float) -> None:
        super().__init__()
        self.file = file
        self.seconds = seconds
        self.seek, self.tell = file.seek, file.tell  # type: ignore[method-assign]
        self.name = getattr(file, "name", "")
        self._end = time.monotonic() + seconds

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001  # collections.abc.Buffer is of Python 3.12
        """Read on.

        Raises:
            Unusable: "too slow".
        """
        if time.monotonic() > self._end:
            raise Unusable("too slow", f"not decoded within {self.seconds:g} s")
        data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def decode_image(file: BinaryIO, shape: VideoShape) -> Clip:
    """Read an image upright (EXIF) as RGB; transparent parts show white, 16 bits of grey become 8.

    Args:
        file: The file.
        shape: The size wanted; its number of frames plays no role.

    Raises:
        Unusable: "corrupt", or "too large" for more pixels than Pillow takes (``PIL.Image.MAX_IMAGE_PIXELS``).
    """
    with open_image(file) as image:
        return _fit_image(image, shape)


@contextmanager
def open_image(file: BinaryIO) -> Iterator[Image.Image]:
    """An image whose header was read.

    Raises:
        Unusable: "corrupt" or "too large", also for what goes wrong while it is open.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                yield image
    except Unusable:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Unusable("too large", str(error)) from error
    except Exception as error:  # on damaged files the readers of Pillow raise errors of any kind
        raise Unusable("corrupt", str(error)) from error


def _fit_image(image: Image.Image, shape: VideoShape) -> Clip:
    stored, resolution = image.size, image_size(image)
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    turned = orientation in _TURNED
    width, height = (shape.height, shape.width) if turned else (shape.width, shape.height)
    scale = max(width / stored[0], height / stored[1])
    # A JPEG can be decoded at a half, a quarter or an eighth of its size, here at twice the size wanted or more.
    drafted = image.draft(None, (math.ceil(2 * scale * stored[0]), math.ceil(2 * scale * stored[1])))
    right, bottom = drafted[1][2:] if drafted else stored
    columns, rows = min(right, bottom * width / height), min(bottom, right * height / width)
    centre = ((right - columns) / 2, (bottom - rows) / 2, (right + columns) / 2, (bottom + rows) / 2)
    method = Image.Resampling.HAMMING if scale < 1 else Image.Resampling.BICUBIC
    fitted = _to_rgb(image).resize((width, height), method, box=centre)
    if orientation in _UPRIGHT:
        fitted = fitted.transpose(_UPRIGHT[orientation])
    video = rearrange(torch.from_numpy(np.array(fitted)), "h w c -> c 1 h w")
    return Clip(video, math.inf, resolution)


def image_size(image: Image.Image) -> tuple[float, float]:
    """Height and width of an image in pixels, upright."""
    width, height = map(float, image.size)
    return (width, height) if image.getexif().get(_EXIF_ORIENTATION, 1) in _TURNED else (height, width)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which `convert` would clip to 8
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def decode_video(
    file: BinaryIO, shape: VideoShape, fps: Sequence[float], generator: np.random.Generator | None
) -> Clip:
    """Read a random part of a video at a random frame rate.

    The rate is drawn from those of `fps` that the length and the native rate of the video allow, then the start from
    what that leaves. The frame at a time is the one on show then: the last that begins at or before it.

    Args:
        file: The file; its first video stream is read.
        shape: The size wanted.
        fps: Candidate frame rates in frames per second.
        generator: Source of both draws; None: the beginning, at the first rate that fits.

    Raises:
        Unusable: "corrupt", "no video stream", "unknown codec", "too large", "too short" (for every candidate), or
            "frame rate too low" (its native rate is below every candidate).
    """
    try:
        with av.open(file, "r", metadata_errors="ignore") as container:
            stream = open_stream(container)
            extent = extent_of(container, stream)
            fit = _Fit(shape, stream)
            for _ in range(2):  # again if the video turns out shorter than the file says
                rate, offset = draw_times(extent, shape.num_frames, fps, generator)
                latest = extent.duration - 2 * _TOLERANCE  # so that a time at the very end shows the last frame
                times = [extent.start + min(offset + k / rate, latest) for k in range(shape.num_frames)]
                frames, end = _frames_at(container, stream, extent, times, fit)
                if len(frames) == shape.num_frames:
                    video = rearrange(torch.from_numpy(np.stack(frames)), "t h w c -> c t h w")
                    return Clip(video, rate, fit.resolution)
                extent = extent._replace(duration=end - extent.start)
    except Unusable:
        raise
    except Exception as error:  # headers may say anything: sides of 0, times beyond all numbers
        raise Unusable("corrupt", getattr(error, "strerror", None) or str(error)) from error
    raise Unusable("corrupt", "each reading ends at another time")


class Extent(NamedTuple):
    """When a video begins and how long it lasts in seconds, and its mean number of frames per second."""

    start: float
    duration: float
    rate: float


def open_stream(container: InputContainer) -> VideoStream:
    """The first stream of moving pictures.

    Raises:
        Unusable: "no video stream", "unknown codec" or "too large".
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise Unusable("no video stream")
    stream = streams[0]
    if stream.codec_context is None:
        raise Unusable("unknown codec")
    pixels = stream.codec_context.width * stream.codec_context.height
    if Image.MAX_IMAGE_PIXELS and pixels > Image.MAX_IMAGE_PIXELS:
        raise Unusable("too large", f"{pixels} pixels per frame")
    stream.thread_type = "NONE"  # a worker is one thread: more would only wait for each other
    stream.codec_context.thread_count = 1
    return stream


def _tick(stream: VideoStream) -> float:
    """The unit of the stream's times in seconds."""
    return float(stream.time_base or 1)


def extent_of(container: InputContainer, stream: VideoStream) -> Extent:
    """When a video begins, how long it lasts: what the file says; where it says nothing, what its packets say.

    Raises:
        Unusable: "corrupt", no packet has a time.
    """
    tick = _tick(stream)
    start = (stream.start_time or 0) * tick
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    if stream.duration and rate:
        return Extent(start, stream.duration * tick, rate)
    if container.duration and rate:
        end = ((container.start_time or 0) + container.duration) / av.time_base
        return Extent(start, end - start, rate)
    stamps = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
    if not stamps:
        raise Unusable("corrupt", "no frame has a time")
    span = (max(stamps) - min(stamps)) * tick
    rate = rate or ((len(stamps) - 1) / span if span else 1.0)
    return Extent(min(stamps) * tick, span + 1 / rate, rate)


def draw_times(
    extent: Extent, num_frames: int, fps: Sequence[float], generator: np.random.Generator | None
) -> tuple[float, float]:
    """A frame rate, and the offset of the first frame in seconds.

    Raises:
        Unusable: "frame rate too low" or "too short" for every rate.
    """
    fitting = fitting_rates(extent, num_frames, fps)
    if generator is None:
        return fitting[0], 0.0
    rate = fitting[generator.integers(len(fitting))]
    return rate, generator.uniform(0.0, extent.duration - (num_frames - 1) / rate)


def fitting_rates(extent: Extent, num_frames: int, fps: Sequence[float]) -> list[float]:
    """The frame rates at which a video has so many frames.

    Raises:
        Unusable: "frame rate too low" or "too short" for every rate.
    """
    native = [rate for rate in fps if rate <= 1.01 * extent.rate]  # 24 frames per second fit 23.976
    if not native:
        raise Unusable("frame rate too low", f"{extent.rate:.2f} frames per second; {min(fps):g} or more are needed")
    fitting = [rate for rate in native if (num_frames - 1) / rate <= extent.duration]
    if not fitting:
        needed = f"{num_frames} frames need {(num_frames - 1) / max(native):.2f} s at {max(native):g}"
        raise Unusable("too short", f"{extent.duration:.2f} s at {extent.rate:.2f} frames per second; {needed}")
    return fitting


def video_size(container: InputContainer, stream: VideoStream, extent: Extent) -> tuple[float, float]:
    """Height and width of a video in pixels, upright, with square pixels: its first frame tells, which is decoded."""
    fit = _Fit(VideoShape(1, 1, 1), stream)
    container.seek(round(extent.start / _tick(stream)), stream=stream)  # its packets may have been read through
    fit.measure(next(container.decode(stream)))
    return fit.resolution


class _Fit:
    """Frames into pixels ``[H, W, C]`` of the size wanted, upright, with square pixels.

    Attributes:
        resolution: Height and width of the upright original, once a frame has been fitted.
    """

    def __init__(self, shape: VideoShape, stream: VideoStream) -> None:
        self.shape = shape
        aspect = float(stream.sample_aspect_ratio or 1)
        self.aspect = aspect if abs(aspect - 1) > 0.01 else 1.0  # 1280/1281 is a rounding error of some encoder
        self.reformatter = VideoReformatter()  # one for all frames: making one costs more than using it
        self.measured = (0, 0)

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        if frame.is_corrupt:
            raise Unusable("corrupt", f"a damaged frame at {frame.time:.2f} s")
        if self.measured != (frame.height, frame.width):
            self.measure(frame)
        rgb = self.reformatter.reformat(
            frame, self.columns, self.rows, "rgb24", interpolation=self.method, threads=1
        ).to_ndarray()[self.centre]
        return np.rot90(rgb, self.turns) if self.turns else rgb

    def measure(self, frame: VideoFrame) -> None:
        """How to fit this frame, and all of its size."""
        self.measured = frame.height, frame.width
        self.turns = round(frame.rotation / 90) % 4  # anticlockwise, to be upright
        wanted = self.shape.height, self.shape.width
        height, width = wanted[::-1] if self.turns % 2 else wanted
        stored = float(frame.height), float(max(1, round(frame.width * self.aspect)))
        self.resolution = stored[::-1] if self.turns % 2 else stored
        scale = max(height / stored[0], width / stored[1])
        self.rows, self.columns = max(height, round(scale * stored[0])), max(width, round(scale * stored[1]))
        self.method = (Interpolation.AREA if scale < 1 else Interpolation.BICUBIC) | _FULL_CHROMA
        top, left = (self.rows - height) // 2, (self.columns - width) // 2
        self.centre = slice(top, top + height), slice(left, left + width)


def _frames_at(
    container: InputContainer, stream: VideoStream, extent: Extent, times: Sequence[float], fit: _Fit
) -> tuple[list[np.ndarray], float]:
    """The frames on show at rising `times`, fewer if the video ends before, and until when frames were seen."""
    frames: list[np.ndarray] = []
    end = extent.start
    for frame, end in _decode_from(container, stream, extent, times[0]):
        count = bisect_left(times, end - _TOLERANCE) - len(frames)
        if count > 0:
            frames += [fit(frame)] * count
        if len(frames) == len(times):
            break
    return frames, end


def _decode_from(
    container: InputContainer, stream: VideoStream, extent: Extent, time: float
) -> Iterator[tuple[VideoFrame, float]]:
    """The frames from the keyframe before `time` on, each with the time when it goes off show."""
    lead = 0.0
    while True:
        target = max(extent.start, time - lead)
        container.seek(round(target / _tick(stream)), stream=stream)
        decoded = (frame for frame in container.decode(stream) if frame.time is not None)
        shown = next(decoded, None)
        if target == extent.start or (shown is not None and shown.time <= time + _TOLERANCE):
            break
        lead = 4 * lead + 1.0  # where keyframes are indexed by decoding time, or badly: seek further back
    if shown is None:
        raise Unusable("corrupt", "no frame can be decoded")
    for frame in decoded:
        yield shown, frame.time
        shown = frame
    yield shown, shown.time + (shown.duration * _tick(stream) or 1 / extent.rate)
