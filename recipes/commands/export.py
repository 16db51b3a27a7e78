"""``snapvideo export``: a model to share."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from ..errors import UserError
from ..requests import read_wishes


def run(verb: str, argv: list[str]) -> None:
    """Export, put it on the Hub if that is asked for, say where it is."""
    options = _parser().parse_args(argv)
    _refuse(options)
    sys.path.append(os.getcwd())  # where a user's own classes are
    from ...components.hub import HUB_ID, make_place, push
    from ...components.weights import WEIGHTS
    from ..card import encoders, is_local
    from ..export import Settings, export, is_upsampler, prompts_of
    from ..run import find_run

    if options.push and not HUB_ID.fullmatch(options.push):
        raise UserError(f"--push {options.push}: it must be USER/NAME, as the Hub names models")
    run = find_run(options.run)
    prompts = [wish.prompt for wish in read_wishes(options.prompts)] if options.prompts else prompts_of(run)
    enlarges = is_upsampler(run)
    if enlarges and options.samples:
        raise UserError(f"--samples {options.samples}: an upsampler makes none without a first stage; leave it out")
    samples = 0 if enlarges else 4 if options.samples is None else options.samples
    if samples and not prompts:
        raise UserError(f"{options.run} has no prompts to sample: give --prompts FILE, or --samples 0 for none")
    if options.push:
        make_place(options.push, options.private)  # before the work, so that what is not allowed is known now
    name = options.push or options.out.resolve().name
    settings = Settings(name, options.license, options.dtype, prompts, samples, options.device)
    model = export(run, options.out, settings, options.checkpoint)
    near = os.path.relpath(options.out) if options.out.absolute().is_relative_to(Path.cwd()) else str(options.out)
    size = (options.out / WEIGHTS).stat().st_size / 1e6
    print(f"exported: {near} ({WEIGHTS}, {size:,.1f} MB, and config.json, record.json, README.md)")
    for text in encoders(model):
        if is_local(text):
            print(f"note:     its text encoder is a folder of this machine, {text.pretrained.name}: name it by its id")
    if options.push:
        try:
            print(f"pushed:   {push(options.out, options.push)}")
        except ValueError as error:
            again = shlex.join(["hf", "upload", options.push, near])
            raise UserError(f"{error}\nwhat was exported is there; to try again: {again}") from error
    prompt = next(iter(prompts), "a text")
    base = ["BASE_RUN"] if enlarges else []
    print(f"sample:   {shlex.join(['snapvideo', 'sample', *base, options.push or near, prompt])}")


def _refuse(options: argparse.Namespace) -> None:
    """Refuse what would fail later, when a place on the Hub is made already."""
    if options.samples is not None and options.samples < 0:
        raise UserError(f"--samples {options.samples}: it must be at least 0")
    if options.private and not options.push:
        raise UserError("--private is of the Hub: give --push USER/NAME, too")
    if options.out.is_file() or (options.out.is_dir() and any(options.out.iterdir())):
        raise UserError(f"{options.out} is not an empty folder: name another")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snapvideo export",
        description="Write a model to share: model.safetensors, config.json, record.json (how it was trained), and "
        "README.md, a card with samples. Whatever takes a run takes its folder.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="run folder, as runs/demo/latest")
    parser.add_argument("out", metavar="DIR", type=Path, help="folder to write")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights; default: the newest of the run")
    parser.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16", "int8"],
        default="float32",
        help="how weights are stored (float32, exact); int8: large ones in a byte a value, the rest in float16",
    )
    parser.add_argument("--license", help="licence of the weights, as the Hub names it: apache-2.0, cc-by-4.0, ...")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="what samples show, a line each; default: the run's"
    )
    parser.add_argument(
        "--samples", type=int, metavar="N", help="samples on the card; 0: none (4; of an upsampler none)"
    )
    parser.add_argument("--device", default="auto", help="where they are made: cpu, cuda, mps (the fastest there is)")
    parser.add_argument("--push", metavar="USER/NAME", help="put it on the Hugging Face Hub, too")
    parser.add_argument("--private", action="store_true", help="what is new there is seen by you alone")
    return parser
