"""Images that visitors upload: read with care, and made to steer a video that begins with them."""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from ...components import Reconstruction
from ...components.interfaces import VideoShape
from ...datamodules.decode import decode_image, open_image
from ...datamodules.samples import Unusable
from ..errors import UserError

MAX_PIXELS = 50_000_000
"""Pixels of an image, which are decoded in memory: what the cameras of telephones give."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Formats that need no program of others to be read."""


def read_first_frame(path: Path, shape: VideoShape) -> Tensor:
    """An image in the size of a model's videos, uint8 ``[C, H, W]``: scaled, and the centre cut out.

    Args:
        path: An uploaded file, which may hold anything.
        shape: The size of the videos.

    Raises:
        UserError: It is no image of these `FORMATS`, or has more than `MAX_PIXELS` pixels; the message says so.
    """
    wanted = f"it can be {', '.join(FORMATS)} of up to {MAX_PIXELS // 10**6} million pixels"
    try:
        with path.open("rb") as file:
            with open_image(file) as image:
                kind, width, height = image.format, image.width, image.height
            if kind not in FORMATS:
                raise UserError(f"The first frame is {kind}: {wanted}.")
            if width * height > MAX_PIXELS:
                raise UserError(f"The first frame has {width} × {height} pixels: {wanted}.")
            file.seek(0)
            return decode_image(file, shape).video[:, 0]
    except Unusable as error:
        reason = str(error).partition(":")[0]  # the rest names files of this machine
        raise UserError(f"The first frame cannot be used ({reason}): {wanted}.") from error
    except OSError as error:
        raise UserError("The first frame is not here any more: upload it again.") from error


def begin_with(frame: Tensor, shape: VideoShape) -> Reconstruction:
    """What steers one video so that it begins with a frame, uint8 ``[C, H, W]``."""
    frames = torch.zeros(1, *shape)
    frames[:, :, 0] = rearrange(frame.float().div(127.5).sub(1), "c h w -> 1 c h w")
    return Reconstruction(frames, torch.arange(shape.num_frames) == 0)
