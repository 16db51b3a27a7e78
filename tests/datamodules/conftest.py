"""Real files for the tests of the data: what a frame shows tells which frame it is."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

STEP = 4  # grey levels from frame to frame
H264 = {"crf": "1", "x264-params": "keyint=8:scenecut=0:bframes=3:b-adapt=0"}


class Media:
    """Writes small videos and images into one folder. Frame i of a video is grey of level ``STEP * i``."""

    def __init__(self, folder: Path):
        self.folder = folder

    def video(
        self,
        name: str,
        times: Sequence[float] = tuple(np.arange(40) / 20),
        size: tuple[int, int] = (32, 48),
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        options: dict[str, str] = H264,
        tick: Fraction = Fraction(1, 1000),
        rotation: int = 0,
        aspect: Fraction = Fraction(1),
        audio: float = 0.0,
        frame: np.ndarray | None = None,
        caption: str | None = "grey",
    ) -> Path:
        """A video of `size` (height, width) with frames at `times` (all: `frame`) and `audio` seconds of silence."""
        path = self.path(name, caption)
        with av.open(path, "w") as container:
            stream = container.add_stream(codec, rate=20, options=options)
            stream.height, stream.width = size
            stream.pix_fmt = pix_fmt
            stream.codec_context.thread_count = 1
            stream.codec_context.time_base = tick
            stream.codec_context.sample_aspect_ratio = aspect
            if rotation:
                stream.set_display_rotation(rotation)
            if audio:
                sound = container.add_stream("libopus", rate=48000, layout="mono")
                for start in range(0, int(audio * 48000), 960):
                    samples = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), format="s16", layout="mono")
                    samples.rate, samples.pts = 48000, start
                    container.mux(sound.encode(samples))
                container.mux(sound.encode(None))
            for i, time in enumerate(times):
                pixels = np.full((*size, 3), STEP * i, np.uint8) if frame is None else frame
                picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
                picture.pts, picture.time_base = round(time / tick), tick
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        return path

    def image(self, name: str, size: tuple[int, int] = (40, 60), level: int = 0, caption: str | None = "grey") -> Path:
        path = self.path(name, caption)
        Image.new("RGB", size[::-1], (level,) * 3).save(path)
        return path

    def broken(self, name: str, content: bytes = b"", caption: str | None = "broken") -> Path:
        path = self.path(name, caption)
        path.write_bytes(content)
        return path

    def path(self, name: str, caption: str | None) -> Path:
        """Where a file belongs; its caption is written beside it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if caption is not None:
            path.with_suffix(".json").write_text(json.dumps({"caption": caption}))
        return path


@pytest.fixture
def media(tmp_path) -> Media:
    return Media(tmp_path)


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """A folder of eight videos and one of five images."""
    media = Media(tmp_path_factory.mktemp("files"))
    for i in range(8):
        media.video(f"videos/{i}.mp4", size=(16, 16 + 2 * i), caption=f"video {i}")
    for i in range(5):
        media.image(f"images/{i}.png", size=(20 + i, 30), level=10 * i, caption=f"image {i}")
    return media.folder
