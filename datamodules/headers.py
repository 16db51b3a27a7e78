"""What the header of a file says; its pixels are not decoded."""

from __future__ import annotations

import io

import av

from .decode import Timed, extent_of, open_image, open_stream
from .samples import Modality, Sample, Unusable


def read_header(sample: Sample, modality: Modality, seconds: float = 60.0) -> dict[str, float]:
    """``height`` and ``width`` in pixels as stored, for videos ``fps`` (the mean) and ``seconds``.

    Args:
        sample: Which.
        modality: What it is.
        seconds: How long it may take.

    Raises:
        Unusable: "corrupt", "cannot be opened", "too large", "too slow", or for videos "no video stream" or "unknown
            codec".
    """
    try:
        file = sample.tree.open(sample.key)
    except OSError as error:
        raise Unusable("cannot be opened", error.strerror or str(error)) from error
    try:
        with file:
            timed = io.BufferedReader(Timed(file, seconds))
            if modality == "image":
                with open_image(timed) as image:
                    return {"height": float(image.height), "width": float(image.width)}
            with av.open(timed, "r", metadata_errors="ignore") as container:
                stream = open_stream(container)
                extent = extent_of(container, stream)
                size = {"height": float(stream.height), "width": float(stream.width)}
                return size | {"fps": extent.rate, "seconds": extent.duration}
    except Unusable:
        raise
    except Exception as error:  # headers may say anything
        raise Unusable("corrupt", getattr(error, "strerror", None) or str(error)) from error
