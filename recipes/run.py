"""Run folders, and models that come back from them.

A run folder is made by ``snapvideo fit``. A model that was exported, one that is shipped with the package among them,
has a folder, too, and is taken wherever a run is: weights, ``config.json`` and a record.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import yaml
from torch import Tensor

from ..components import VideoDiffusion, building, exported, weights
from ..components.building import Part, parser_of, section_name
from ..components.hub import HUB_ID
from ..components.weights import WEIGHTS, check_weights
from .errors import UserError, did_you_mean
from .explain import explain
from .parsing import know_our_classes
from .requests import fps_range, in_range
from .sampling import with_sampling
from .shipped import CONFIG, EXPORTED_CONFIG, LATEST, PRETRAINED, RUNS, find_config

ENDS = 2**20
"""Bytes of each end of a file of weights that its fingerprint is of."""
LAST = "checkpoints/last.ckpt"

PACKAGES = ("snapvideo", "torch", "lightning", "jsonargparse", "transformers", "av", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def find_run(name: str | Path, trust: bool = False) -> Path:
    """The folder that `name` stands for: itself, the latest run in it, a shipped model, or one fetched from the Hub.

    Args:
        name: A run folder, a folder of runs, that of an exported model, a shipped model, or ``USER/NAME`` on the Hub.
        trust: Take from the Hub what names classes of others, too.

    Raises:
        UserError: There is none.
        ValueError: It cannot be fetched from the Hub, or is not trusted.
    """
    path = Path(os.path.expanduser(name))
    for folder in (path, path / LATEST, PRETRAINED / str(name)):
        if find_config(folder):
            return folder.resolve()
    if path.is_file():
        raise UserError(f"{name} is a file: name the run folder, and a checkpoint of it with --checkpoint")
    if HUB_ID.fullmatch(str(name)) and not path.parent.exists():  # where it exists, a name in it is mistyped
        return exported.fetch_model(str(name), trust)
    shipped = sorted(folder.parent.name for folder in PRETRAINED.glob(f"*/{EXPORTED_CONFIG}"))
    trained = sorted(str(link) for link in RUNS.glob(f"*/{LATEST}"))
    known = ", ".join([*shipped, *trained]) or "none; snapvideo fit makes one"
    near = did_you_mean(str(name), shipped + trained)
    raise UserError(f"{name}: no such run folder or shipped model.{near}\nknown: {known}")


def is_exported(folder: Path) -> bool:
    """Whether a folder is of an exported model: its training is not here, and nothing is to be written there."""
    return (folder / WEIGHTS).is_file()


def find_weights(run: Path) -> Path:
    """The weights in a run folder.

    Raises:
        UserError: There are none.
    """
    found = run / WEIGHTS if is_exported(run) else newest_checkpoint(run)
    if found is None:
        raise UserError(f"{run} has no weights yet: neither {WEIGHTS} nor {LAST} is there")
    return found


def newest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run folder, if there is one; not the link to it, which may soon lead elsewhere."""
    requeued = max(run.glob("hpc_ckpt_*.ckpt"), key=lambda file: int(file.stem.rpartition("_")[2]), default=None)
    if requeued is not None:  # of Lightning, when SLURM asked for it; the next checkpoint removes it
        return requeued
    steps = (run / LAST).parent.glob("step=*.ckpt")  # a run may have been killed before it pointed to the last
    return max(steps, default=(run / LAST).resolve() if (run / LAST).is_file() else None)


def load_model(
    run: str | Path,
    checkpoint: Path | None = None,
    num_steps: int | None = None,
    guidance: float | None = None,
    device: str = "auto",
    settings: Sequence[str] = (),
) -> VideoDiffusion:
    """A trained model, in evaluation mode, with the averaged weights where the run kept them.

    Args:
        run: See `find_run`.
        checkpoint: Weights: a ``.safetensors`` or ``.ckpt`` file; None: the run's own, its newest.
        num_steps: Steps of the sampler; None: those of the run's config.
        guidance: Scale of the guidance; None: that of the run's config.
        device: Where to put it: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``auto``: the fastest there is.
        settings: Others than those of the run's config, as ``--model.sampler=DDIM``.

    Raises:
        UserError: There is no such run, a setting is wrong, it has no weights, or the weights don't fit its config.
    """
    folder = find_run(run)
    section = model_section(folder, num_steps, guidance, settings)
    return load_weights(section, checkpoint or find_weights(folder)).to(pick_device(device))


def load_weights(section: dict[str, Any], file: Path) -> VideoDiffusion:
    """A trained model, in evaluation mode, on the CPU.

    Args:
        section: The section ``model`` of its config.
        file: Weights: a ``.safetensors`` or ``.ckpt`` file.

    Raises:
        UserError: The section is wrong, the file cannot be read, or the weights don't fit.
    """
    model = build_model(section)
    state = read_weights(file)
    check_weights(model, state, file)
    model.load_state_dict(state)
    return model.eval()


def model_section(
    run: Path, num_steps: int | None = None, guidance: float | None = None, settings: Sequence[str] = ()
) -> dict[str, Any]:
    """The section ``model`` of the config of a run folder, with what sampling is to have in place of it.

    Arguments are those of `load_model`.

    Raises:
        UserError: The config or a setting is wrong.
    """
    return with_sampling(with_settings(read_config(run)["model"], settings), num_steps, guidance)


def with_settings(section: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The section ``model`` of a config with settings over it, ``--model.KEY=VALUE``.

    Raises:
        UserError: The section or a setting is wrong.
    """
    if not settings:
        return section
    know_our_classes()
    parser = parser_of(VideoDiffusion)
    with _explained(VideoDiffusion):
        config = parser.parse_args(list(settings), parser.parse_object({"model": section}))
    return yaml.safe_load(parser.dump(config, skip_unset=False))["model"]


def build_model(section: dict[str, Any]) -> VideoDiffusion:
    """The model, untrained, of the section ``model`` of a config.

    Raises:
        UserError: The section is wrong.
    """
    return build_part(VideoDiffusion, section)


def build_part(kind: type[Part], section: dict[str, Any]) -> Part:
    """What the section of a config names: a `VideoDiffusion`, or a part of one alone.

    Args:
        kind: Its class, or a base of it.
        section: ``class_path`` and ``init_args``.

    Raises:
        UserError: The section is wrong.
    """
    with _explained(kind):
        return building.build(kind, section)


@contextmanager
def _explained(kind: type) -> Iterator[None]:
    """Errors of parsing, and what constructors refuse, in words that fit the screen."""
    try:
        yield
    except (building.ParsingError, argparse.ArgumentError) as error:
        raise UserError(explain(str(error), {section_name(kind): kind})) from error
    except building.Refusal as error:
        raise UserError(str(error)) from error


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a run folder, or of an exported model.

    Raises:
        ValueError: It is not a config of a model.
    """
    return exported.read_config(find_config(folder) or folder / CONFIG)


def usual_fps(folder: Path) -> float:
    """The frames per second that the grids of a run have."""
    return ((read_config(folder).get("sampling") or {}).get("init_args") or {}).get("fps", 8.0)


def trained_fps(folder: Path) -> list[float]:
    """The frames per second that a run or an exported model was trained at; none, if nobody wrote them down.

    Raises:
        ValueError: What was written down are no frame rates.
    """
    if is_exported(folder):
        rates = read_record(folder).get("fps", [])
        if not isinstance(rates, list) or not all(isinstance(rate, int | float) and in_range(rate) for rate in rates):
            raise ValueError(f"{folder / exported.RECORD}: fps {rates} must be a list of {fps_range()}")
        return rates
    return list(((read_config(folder).get("data") or {}).get("init_args") or {}).get("fps") or [])


def read_record(folder: Path) -> dict[str, Any]:
    """How an exported model was trained, as far as it says so.

    Raises:
        ValueError: Its record is not one.
    """
    file = folder / exported.RECORD
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{file} is no record of a training")
    return record


def read_weights(file: Path) -> dict[str, Tensor]:
    """Weights by name, from a ``.safetensors`` file or a checkpoint.

    Raises:
        UserError: It is no checkpoint that can be read.
        ValueError: The same of a ``.safetensors`` file.
    """
    return weights.read_weights(file) if file.suffix == ".safetensors" else read_checkpoint(file)["state_dict"]


def read_checkpoint(file: Path) -> dict[str, Any]:
    """All that a checkpoint holds; tensors are read when they are used.

    Raises:
        UserError: There is no such file, or it is no checkpoint; the message names the one before it.
    """
    if not file.is_file():
        raise UserError(f"there is no checkpoint {file}")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except PermissionError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except (RuntimeError, OSError, UnpicklingError, EOFError, KeyError, TypeError) as error:
        # What torch says is of its own formats.
        older = [each for each in file.parent.glob("step=*.ckpt") if each.name < file.resolve().name]
        then = f"; the one before it: {max(older)}" if older else ""
        raise UserError(f"{file} is no checkpoint that can be read: it is damaged or cut short{then}") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(f"{file} is no checkpoint: it holds no `state_dict`")
    return checkpoint


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto``: the fastest there is.

    Raises:
        UserError: This machine does not have it.
    """
    if name != "auto":
        try:
            return torch.zeros(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def machine_precision(device: str) -> str:
    """``bf16-mixed`` where a device of that type computes in bf16, else ``32-true``."""
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # torch.cpu.get_capabilities, which is public, is younger than our oldest torch.
        native = device == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if native else "32-true"


def fingerprint(weights: Path) -> str:
    """What tells a file of weights from others, of both ends of it: a checkpoint ends with sums of all that it holds.

    Raises:
        UserError: There is no such file.
    """
    try:
        with weights.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            ends = []
            for place in (0, max(0, size - ENDS)):
                file.seek(place)
                ends.append(file.read(ENDS))
    except OSError as error:
        raise UserError(f"there is no checkpoint {weights}: {error.strerror}") from error
    return hashlib.sha256(b"%d" % size + b"".join(ends)).hexdigest()[:16]
