"""``snapvideo bench``: the networks of recipes side by side, in one run."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..shipped import find_recipes

if TYPE_CHECKING:
    from ..bench import Result

SIZES = {"frames": "num_frames", "height": "height", "width": "width"}


def run(verb: str, argv: list[str]) -> None:
    """Measure, print a table, write files."""
    options = _parser().parse_args(argv)
    logging.getLogger("lightning").setLevel(logging.ERROR)
    sys.path.append(os.getcwd())  # where a user's own classes are
    from ...components.media import write_bytes
    from ..bench import Make, Settings, compare, work_of
    from ..plot import bars, need_matplotlib
    from ..run import pick_device
    from ..training import read_settings

    if options.plot:
        need_matplotlib()
    for path in filter(None, (options.json, options.plot)):
        _prepare(path)

    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    networks: dict[str, Make] = {}
    for name in options.recipes:
        if name in networks:
            raise UserError(f"{name} is named twice")
        section = read_settings(find_recipes(name))["model"]
        _resize(name, section["init_args"]["backbone"].get("init_args") or {}, options)
        networks[name] = partial(work_of, section)
    device = str(pick_device(options.device))
    results = compare(networks, Settings(options.batch, options.dtype, device, options.compile, options.rounds))
    print(table(results))
    if options.json:
        figures = [result.as_dict() | _how(options, device) for result in results]
        write_bytes(options.json, json.dumps(figures, indent=1).encode())
    if options.plot:
        write_bytes(options.plot, bars(results))


def _resize(recipe: str, backbone: dict[str, Any], options: argparse.Namespace) -> None:
    """Give the backbone of a recipe the size that the options ask for."""
    sizes = {SIZES[name]: getattr(options, name) for name in SIZES if getattr(options, name)}
    if sizes and not isinstance(backbone.get("shape"), dict):
        raise UserError(f"--{' --'.join(SIZES)}: the backbone of {recipe} has no setting `shape`")
    if sizes:
        backbone["shape"] |= sizes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snapvideo bench",
        description="Time a training step and an evaluation of the networks of recipes, in turn, in one run.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "recipes", metavar="RECIPE", nargs="+", help="demo, or demo+overlays/ddpm; ratios are against the first"
    )
    for name in SIZES:
        parser.add_argument(f"--{name}", type=_positive, metavar="N", help="in place of the recipes'")
    parser.add_argument("--batch", type=_positive, default=1, metavar="N", help="videos per step (1)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16: by autocast")
    parser.add_argument("--device", default="auto", help="cpu, cuda (the fastest there is)")
    parser.add_argument("--threads", type=_positive, metavar="N", help="of a CPU (torch's own choice)")
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    parser.add_argument("--rounds", type=_positive, default=5, metavar="N", help="measurements of each, in turn (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture, PNG")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of at least 1")
    return int(text)


def table(results: Sequence[Result]) -> str:
    """The figures for people, and what they come to against the first recipe."""
    first = results[0]
    columns = {"M param": 9, "TFLOP": 8, "ms/video": 11, "spread": 15, "TFLOP/s": 9, "of mm": 7, "GB": 7, "ratio": 7}
    lines = [f"{'recipe':28}" + "".join(f"{name:>{width}}" for name, width in columns.items())]
    for kind in ("train", "inference"):
        lines.append(kind)
        for result in results:
            timing, flops = getattr(result, kind), result.flops_train if kind == "train" else result.flops_forward
            memory = "-" if timing.peak_memory is None else f"{timing.peak_memory / 1e9:.2f}"
            lines.append(
                f"  {result.recipe:26}{result.parameters / 1e6:9.1f}{flops / 1e12:8.3f}{timing.ms_per_video:11.1f}"
                f"{f'{timing.low:.1f}-{timing.high:.1f}':>15}{timing.tflops:9.3f}{timing.fraction:7.0%}{memory:>7}"
                f"{timing.ms_per_video / getattr(first, kind).ms_per_video:7.2f}"
            )
    return "\n".join(lines)


def _how(options: argparse.Namespace, device: str) -> dict[str, object]:
    import torch

    names = ("batch", "dtype", "compile", "rounds", *SIZES)
    machine = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or platform.machine()
    about = {"device": machine, "threads": torch.get_num_threads(), "torch": torch.__version__}
    return {name: getattr(options, name) for name in names} | about


def _prepare(path: Path) -> None:
    """Make the folder of a file to write, and see that it can be written, before minutes are spent on what it holds."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            raise UserError(f"{path} cannot be written")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
