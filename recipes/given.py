"""Frames that a video is given: its first, its first and last, or a clip that it goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import torch
from torch import Tensor

from ..components.interfaces import VideoShape
from ..datamodules.decode import decode_image, decode_video, extent_of, open_stream
from ..datamodules.samples import Unusable
from .errors import UserError


@dataclass(frozen=True)
class Given:
    """Files with the frames that are known.

    Args:
        option: The option that names them, for messages.
        files: Images, one for each place; or one clip.
        places: Where they are in the video; negative ones count from its end.
        fps: Frame rate at which a clip is read; None: the files are images.
    """

    option: str
    files: Sequence[Path]
    places: Sequence[int]
    fps: float | None = None

    def read(self, shape: VideoShape) -> Tensor:
        """The frames ``[C, K, H, W]`` in [-1, 1]: scaled to cover the size, the centre cut out.

        Raises:
            UserError: A file cannot be read.
        """
        frames = []
        for path in self.files:
            try:
                with path.open("rb") as file:
                    if self.fps is None:
                        frames.append(decode_image(file, shape).video)
                    else:
                        clip = VideoShape(len(self.places), shape.height, shape.width)
                        frames.append(decode_video(file, clip, [self.fps], None).video)
            except OSError as error:
                raise UserError(f"{self.option} {path}: {error.strerror}") from error
            except Unusable as error:
                raise UserError(f"{self.option} {path}: {error}") from error
        return torch.cat(frames, dim=1).float().div(127.5).sub(1)


def given_clip(option: str, path: Path, fps: float) -> Given:
    """A clip that a video goes on from: all of its frames at a frame rate.

    Raises:
        UserError: It cannot be read, or holds no frame at that rate.
    """
    try:
        with path.open("rb") as file, av.open(file, "r") as container:
            extent = extent_of(container, open_stream(container))
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror or error}") from error
    except (Unusable, av.FFmpegError) as error:
        raise UserError(f"{option} {path}: {error}") from error
    count = int(extent.duration * fps + 1e-3)
    if count < 1:
        raise UserError(f"{option} {path}: it is too short for a frame at {fps:g} fps")
    return Given(option, [path], range(count), fps)
