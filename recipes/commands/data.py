"""``snapvideo data``: data to train on."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from ..errors import UserError


def run(verb: str, argv: list[str]) -> None:
    """Run ``snapvideo data synth``."""
    parser = argparse.ArgumentParser(prog="snapvideo data", description="Generate data to train on.")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    synth = actions.add_parser(
        "synth",
        help="write moving shapes: videos, images, captions and the ground truth",
        description="Write moving shapes: videos, images, captions and the ground truth; or go on with it, if stopped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    synth.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    synth.add_argument("--videos", type=int, default=2000, metavar="N", help="videos, 1 s each")
    synth.add_argument("--images", type=int, default=2000, metavar="N", help="images")
    synth.add_argument("--size", type=int, default=64, metavar="PIXELS", help="side of the frames, even")
    synth.add_argument("--fps", type=int, default=16, help="frames per second")
    synth.add_argument("--seed", type=int, default=0, help="another seed draws other scenes")
    synth.add_argument("--workers", type=int, metavar="N", help="processes; None: all cores")
    options = parser.parse_args(argv)
    from ...datamodules.synth import write_shapes

    try:
        write_shapes(
            options.out,
            options.videos,
            options.images,
            size=options.size,
            fps=options.fps,
            seed=options.seed,
            workers=options.workers,
        )
    except OSError as error:
        raise UserError(f"{options.out} cannot be written: {error.strerror}") from error
    print(f"{options.videos} videos and {options.images} images in {options.out}")
    words = ["snapvideo", "fit", "-c", "folders"]
    for name, count in (("videos", options.videos), ("images", options.images)):
        words += [f"--data.{name}", str(options.out / name)] if count else [f"--data.{name[:-1]}_batch_size", "0"]
    print(f"train:  {shlex.join(words)}")
