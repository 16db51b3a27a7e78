"""Run folders, and models that come back from them.

A run folder is made by ``snapvideo fit``, or is shipped with the package: weights, ``config.yaml`` and a record.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
import yaml
from lightning.pytorch import LightningModule
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..components import VideoDiffusion
from ..components.media import write_bytes
from .errors import UserError, did_you_mean
from .explain import explain
from .parsing import Builder, Parser, know_our_classes
from .sampling import with_sampling
from .shipped import CONFIG, ENVIRONMENT, HERE, LATEST, RUNS

Part = TypeVar("Part")

PRETRAINED = HERE / "pretrained"
WEIGHTS = "model.safetensors"
SCALE = ".int8_scale"
LARGE = 2**14
"""Values from which on a matrix or kernel is packed in int8."""
LAST = "checkpoints/last.ckpt"

PACKAGES = ("snapvideo", "torch", "lightning", "jsonargparse", "transformers", "av", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def find_run(name: str | Path) -> Path:
    """The run folder that `name` stands for: itself, the latest run in it, or a shipped model.

    Raises:
        UserError: There is none.
    """
    path = Path(name).expanduser()
    for folder in (path, path / LATEST, PRETRAINED / str(name)):
        if (folder / CONFIG).is_file():
            return folder.resolve()
    if path.is_file():
        raise UserError(f"{name} is a file: name the run folder, and a checkpoint of it with --checkpoint")
    shipped = sorted(folder.parent.name for folder in PRETRAINED.glob(f"*/{CONFIG}"))
    trained = sorted(str(link) for link in RUNS.glob(f"*/{LATEST}"))
    known = ", ".join([*shipped, *trained]) or "none; snapvideo fit makes one"
    near = did_you_mean(str(name), shipped + trained)
    raise UserError(f"{name}: no such run folder or shipped model.{near}\nknown: {known}")


def find_weights(run: Path) -> Path:
    """The weights in a run folder.

    Raises:
        UserError: There are none.
    """
    found = run / WEIGHTS if (run / WEIGHTS).is_file() else newest_checkpoint(run)
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
        run: A run folder, a folder of runs (its latest is taken), or the name of a shipped model.
        checkpoint: Weights: a ``.safetensors`` or ``.ckpt`` file; None: the run's own, its newest.
        num_steps: Steps of the sampler; None: those of the run's config.
        guidance: Scale of the guidance; None: that of the run's config.
        device: Where to put it: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``auto``: the fastest there is.
        settings: Others than those of the run's config, as ``--model.sampler=DDIM``.

    Raises:
        UserError: There is no such run, a setting is wrong, it has no weights, or the weights don't fit its config.
    """
    folder = find_run(run)
    file = checkpoint or find_weights(folder)
    model = build_model(model_section(folder, num_steps, guidance, settings))
    weights = read_weights(file)
    check_weights(model, weights, file)
    model.load_state_dict(weights, strict=True)
    return model.eval().to(pick_device(device))


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
    parser = _parser(VideoDiffusion)
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
    parser = _parser(kind)
    with _explained(kind):
        config = parser.parse_object({_section(kind): section})
    return Builder(config).build(parser)[_section(kind)]


def _section(kind: type) -> str:
    return "model" if kind is VideoDiffusion else kind.__name__.lower()


def _parser(kind: type) -> Parser:
    parser = Parser()
    parser.add_argument(f"--{_section(kind)}", type=kind)
    return parser


@contextmanager
def _explained(kind: type) -> Iterator[None]:
    """Errors of parsing in words that fit the screen."""
    try:
        yield
    except UserError as error:
        raise UserError(explain(str(error), {_section(kind): kind})) from error


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a run folder.

    Raises:
        UserError: It is not a config of a model.
    """
    try:
        config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / CONFIG} is not YAML: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise UserError(f"{folder / CONFIG} is not the config of a run: it has no section `model`")
    return config


def usual_fps(folder: Path) -> float:
    """The frames per second that the grids of a run have."""
    return ((read_config(folder).get("sampling") or {}).get("init_args") or {}).get("fps", 8.0)


def read_weights(file: Path) -> dict[str, Tensor]:
    """Weights by name, from a ``.safetensors`` file or a checkpoint.

    Raises:
        UserError: There is no such file, or it is none of the two.
    """
    if file.suffix != ".safetensors":
        return read_checkpoint(file)["state_dict"]
    if not file.is_file():
        raise UserError(f"there is no checkpoint {file}")
    try:
        return expand(load_file(file))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is no checkpoint that can be read: {error}") from error


def read_checkpoint(file: Path) -> dict[str, Any]:
    """All that a checkpoint holds; tensors are read when they are used.

    Raises:
        UserError: There is no such file, or it is no checkpoint.
    """
    if not file.is_file():
        raise UserError(f"there is no checkpoint {file}")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, OSError, UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no checkpoint that can be read: {error}") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(f"{file} is no checkpoint: it holds no `state_dict`")
    return checkpoint


def compress(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in float16; large matrices and kernels in int8, with a scale per output channel beside them."""
    packed = {}
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            packed[name] = tensor.contiguous()
        elif name.endswith(".weight") and tensor.dim() > 1 and tensor.numel() >= LARGE:
            scale = tensor.abs().amax(tuple(range(1, tensor.dim())), keepdim=True).div(127).clamp(min=1e-12)
            packed[name + SCALE] = scale.contiguous()
            packed[name] = (tensor / scale).round().clamp(-127, 127).to(torch.int8).contiguous()
        else:
            packed[name] = tensor.half().contiguous()
    return packed


def expand(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `compress` packed, int8 weights in float32."""
    scales = {name.removesuffix(SCALE): scale for name, scale in packed.items() if name.endswith(SCALE)}
    return {
        name: tensor.float() * scales[name] if name in scales else tensor
        for name, tensor in packed.items()
        if not name.endswith(SCALE)
    }


def check_weights(model: LightningModule, weights: Mapping[str, Tensor], file: Path) -> None:
    """Refuse weights of another model.

    Raises:
        UserError: They differ in names or shapes from those of `model`; the message names one that does.
    """
    wanted = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in weights.items()}
    wrong = [name for name in wanted | found if wanted.get(name) != found.get(name)]
    if wrong:
        first = f"{wrong[0]} is {found.get(wrong[0], 'missing')} there and {wanted.get(wrong[0], 'missing')} here"
        raise UserError(f"{file} holds weights of another model: {len(wrong)} of {len(wanted)} differ; {first}")


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


def pack_run(run: str | Path, out: Path) -> None:
    """Write what sampling a run needs: ``model.safetensors``, ``config.yaml``, and ``record.json``, how it was trained.

    Weights are stored in half precision or less (`compress`): sampling needs no more. The config has the sections
    that sampling reads: others may hold paths of this machine.

    Args:
        run: A run folder, or a folder of runs (its latest is taken).
        out: The folder to write.

    Raises:
        UserError: There is no such run, it has no checkpoint, or it is packed already.
    """
    folder = find_run(run)
    if (folder / WEIGHTS).exists():
        raise UserError(f"{folder} is packed already")
    checkpoint = read_checkpoint(find_weights(folder))
    environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    counts = checkpoint["callbacks"]["Record"]
    record = {"steps": checkpoint["global_step"], "clips": counts["clips"], "seconds": round(counts["seconds"])}
    weights = compress(checkpoint["state_dict"])
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f".{WEIGHTS}.partial"
    save_file(weights, partial)
    os.replace(partial, out / WEIGHTS)
    config = {name: section for name, section in read_config(folder).items() if name in ("model", "sampling")}
    write_bytes(out / CONFIG, yaml.safe_dump(config, sort_keys=False).encode())
    write_bytes(out / "record.json", (json.dumps(record | environment, indent=1) + "\n").encode())
