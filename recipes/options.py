"""Options that the commands that sample share, and what they come to.

It does not import torch where options are right or wrong by themselves.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .errors import UserError
from .requests import Wish, fps_range, in_range, is_unicode, read_wishes

Number = TypeVar("Number", int, float)

COUNTS = {"-n": "num", "--batch-size": "batch_size", "--devices": "devices", "--num-nodes": "num_nodes"}
"""Options that are at least 1, and what they are called."""


AUG_LEVEL = "0.1"
"""Noise on what an upsampler enlarges, where nothing is said."""


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add those of prompts, of where to write and of the machine."""
    what = "a file: a prompt, or in .jsonl an object, per line"
    parser.add_argument("--prompts", dest="file", type=Path, metavar="FILE", help=what)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first video; the next have the next (0)")
    parser.add_argument("--fps", type=float, help="frames per second, asked of the model and played")
    what = "folder to write; the same command again makes what is missing in it"
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help=what)
    add_machine(parser)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add those of the machine, and of whom it runs code of."""
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="videos at a time, per device (8)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (the fastest there is)")
    parser.add_argument("--precision", choices=["auto", "32-true", "bf16-mixed"], default="auto")
    parser.add_argument("--trust", action="store_true", help="also run code that a model of the Hub names")


def add_devices(parser: argparse.ArgumentParser) -> None:
    """Add those of several devices."""
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="devices, with a process each (1)")
    parser.add_argument("--num-nodes", type=int, default=1, metavar="N", help="machines, with so many devices each (1)")


def check_counts(options: argparse.Namespace) -> None:
    """Refuse numbers of things that are below 1.

    Raises:
        UserError: One is.
    """
    for name, key in COUNTS.items():
        if vars(options).get(key, 1) < 1:
            raise UserError(f"{name} {getattr(options, key)}: it must be at least 1")


def check_processes(options: argparse.Namespace) -> None:
    """Refuse to work in processes that do not know of each other: each would do the work of all.

    Raises:
        UserError: Others have started more, or fewer, than options say.
    """
    torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    started = int(os.environ.get("WORLD_SIZE" if torchrun else "SLURM_STEP_NUM_TASKS", 1))
    asked = options.devices * options.num_nodes
    if (torchrun or started > 1) and started != asked:
        raise UserError(
            f"--devices {options.devices} --num-nodes {options.num_nodes}: that is {asked}, and "
            f"{'torchrun' if torchrun else 'srun'} has started {started} processes; say how many each machine has"
        )
    if ":" in options.device and asked > 1:
        raise UserError(f"--device {options.device} is one device, and {asked} are asked for: name their type alone")


def wishes_of(options: argparse.Namespace, prompts: Sequence[str] = ()) -> list[Wish]:
    """Prompts, then those of the file of prompts.

    Args:
        options: Those of `add_common`, and ``num``.
        prompts: Those of the command line.

    Raises:
        UserError: An option is out of range, or a prompt is not as it should be.
    """
    check_counts(options)
    if not 0 <= options.seed <= 2**63 - options.num:
        raise UserError(f"--seed {options.seed}: it must be at least 0, and the last of {options.num} below 2^63")
    if options.fps is not None and not in_range(options.fps):
        raise UserError(f"--fps {options.fps}: it must be {fps_range()}")
    for prompt in prompts:
        if not is_unicode(prompt):
            raise UserError(f"prompt {prompt!r} is not UTF-8")
    wishes = [Wish(prompt) for prompt in prompts]
    return wishes + (read_wishes(options.file, options.num) if options.file is not None else [])


def numbers(
    option: str, text: str, kind: Callable[[str], Number], count: int | None = None, separator: str = ","
) -> list[Number]:
    """The numbers of an option, one for each of so many runs; one number is that of all.

    Args:
        option: Its name, for messages.
        text: What it was given.
        kind: ``int`` or ``float``.
        count: Runs that it is for; None: any number of numbers.
        separator: What is between two numbers.

    Raises:
        UserError: They are no numbers, or not so many.
    """
    try:
        found = [kind(word) for word in text.split(separator)]
    except ValueError:
        raise UserError(f"{option} {text}: give a number, or one for each run with {separator!r} between") from None
    if count is None:
        return found
    found = found * count if len(found) == 1 else found
    if len(found) != count:
        raise UserError(f"{option} {text}: {len(found)} numbers; {count} or one for all are needed")
    return found


def machine_of(options: argparse.Namespace, num_devices: int = 1) -> dict[str, Any]:
    """What the record of a video says of where it was made; options that are ``auto`` are found, and set.

    Args:
        options: Those of `add_common`.
        num_devices: Devices of all machines.

    Raises:
        UserError: The device is not there.
    """
    from .run import machine_precision, pick_device

    if options.device == "auto" or num_devices == 1:
        options.device = str(pick_device(options.device))
    kind = options.device.partition(":")[0]
    if options.precision == "auto":
        options.precision = machine_precision(kind)
    return {"precision": options.precision, "batch_size": options.batch_size, "device": kind}


def near(path: Path) -> str:
    """A path as it is seen from here."""
    path = path.resolve()
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
