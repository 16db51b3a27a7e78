"""``snapvideo serve``: a page in the browser to try a model."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..sampling import OPTIONS, split_settings


def run(verb: str, argv: list[str]) -> None:
    """Load the model, show the page until it is interrupted."""
    words, settings = split_settings(argv)
    options = _parser().parse_args(words)
    sys.path.append(os.getcwd())  # where a user's own classes are
    from ..run import find_run, is_exported
    from ..serving.gallery import Gallery
    from ..serving.maker import VideoMaker
    from ..serving.request import Limits
    from ..serving.server import check_serving, serve

    check_serving(options.host, options.port)
    limits = Limits(options.max_prompt, options.max_steps, options.max_waiting, options.max_upload)
    folder = find_run(options.run, options.trust)
    maker = VideoMaker(folder, options.checkpoint, options.device, options.precision, settings)
    out = options.out or (Path("samples") if is_exported(maker.folder) else maker.folder / "samples") / "served"
    serve(maker, Gallery(out), limits, options.host, options.port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snapvideo serve",
        description="Show a page in the browser on which a model makes videos of texts. It needs Gradio: "
        "pip install 'snapvideo[serve]'.",
        epilog=f"{OPTIONS} can be others than in training: --model.sampler DDIM",
        allow_abbrev=False,
    )
    what = "run folder, as runs/demo/latest, exported model, shipped one, as demo, or USER/NAME on the Hub"
    parser.add_argument("run", metavar="RUN", help=what)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: open to others (127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen at (7860)")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="folder of the videos (samples/served in the run)"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights; default: the newest of the run")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (the fastest there is)")
    parser.add_argument("--trust", action="store_true", help="also run code that a model of the Hub names")
    parser.add_argument("--precision", choices=["auto", "32-true", "bf16-mixed"], default="auto")
    parser.add_argument("--max-prompt", type=int, default=500, metavar="N", help="characters of a prompt (500)")
    parser.add_argument("--max-steps", type=int, default=250, metavar="N", help="steps of the sampler (250)")
    parser.add_argument("--max-waiting", type=int, default=8, metavar="N", help="videos that may wait (8)")
    parser.add_argument("--max-upload", type=int, default=10, metavar="MB", help="megabytes of an uploaded file (10)")
    return parser
