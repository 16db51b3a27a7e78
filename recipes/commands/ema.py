"""``snapvideo ema``: averages of the weights of a training, of lengths chosen after it."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from ..errors import UserError


def run(verb: str, argv: list[str]) -> None:
    """Make the averages; say where they are and how to sample with them."""
    options = _parser().parse_args(argv)
    if options.out is not None and len(options.std) > 1:
        raise UserError(f"-o {options.out} is one file, for {len(options.std)} averages: give one --std, or no -o")
    if options.out is not None and options.out.suffix != ".safetensors":
        raise UserError(f"-o {options.out}: its name must end in .safetensors")
    from ...components.callbacks.post_hoc_ema import AVERAGES, file_name
    from ..averages import find_snapshots, shares_for, write_average
    from ..run import find_run, read_config

    run = find_run(options.run)
    snapshots = find_snapshots(run, options.step)
    step = snapshots[-1].step
    if begun := snapshots[-1].begun:
        print(f"note:    these averages began at step {begun}; its weights stand for all before, which is off, too")
    prompt = (((read_config(run).get("sampling") or {}).get("init_args") or {}).get("prompts") or ["a text"])[0]
    for std, (shares, error) in [(std, shares_for(snapshots, std)) for std in options.std]:
        out = options.out or run / AVERAGES / file_name(std, step)
        try:
            write_average(snapshots, shares, out)
        except OSError as reason:
            raise UserError(f"{out} cannot be written: {reason.strerror}") from reason
        near = os.path.relpath(out) if out.is_relative_to(Path.cwd()) else str(out)
        print(f"average: {near} (std {std:g} at step {step}, {error:.2%} off, from {len(snapshots)} snapshots)")
        print(f"sample:  {shlex.join(['snapvideo', 'sample', options.run, prompt, '--checkpoint', near])}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snapvideo ema",
        description="Make averages of the weights of a run, of any length, from the snapshots that its training wrote.",
        epilog="Snapshots are written by: snapvideo fit ... --post_hoc_ema.every_n_steps N",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="run folder, as runs/demo/latest")
    parser.add_argument(
        "--std",
        type=float,
        nargs="+",
        required=True,
        metavar="STD",
        help="lengths: how widely steps have a part in an average; a standard deviation, in shares of all; 0 to 0.289",
    )
    parser.add_argument(
        "--step", type=int, metavar="N", help="average up to this step, of a snapshot; default: the last"
    )
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="file to write; default: in RUN/averages")
    return parser
