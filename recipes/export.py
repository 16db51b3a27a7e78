"""A model to share: its weights, its config, how it was trained, and a card with samples."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from ..components import VideoDiffusion
from ..components.exported import RECORD, load
from ..components.media import contact_sheet, encode_gif, encode_png, enlarge, to_uint8, write_bytes
from ..components.trust import foreign_names
from ..components.weights import WEIGHTS, Stored, check_weights, write_weights
from .card import SHEET, About, Sample, card
from .errors import UserError
from .generation import Generation
from .record import read_environment
from .requests import Request, batches_of
from .run import (
    build_model,
    find_weights,
    is_exported,
    machine_precision,
    pick_device,
    read_checkpoint,
    read_config,
    read_record,
    read_weights,
    trained_fps,
)
from .shipped import CENSUS, EXPORTED_CONFIG
from .stages import Stages

CARD = "README.md"
SECTIONS = ("model", "sampling")
"""What sampling reads of a config; other sections may hold paths of this machine."""

OF_WEIGHTS = ("steps", "clips", "seconds", "half_life", "parts", "note")
"""What a record says of the weights; the rest is of their run."""

BATCH_SIZE = 8
"""Samples that are made at a time."""


@dataclass(frozen=True)
class Settings:
    """What is exported, and how.

    Args:
        name: What the model is called: ``USER/NAME`` on the Hub, or its folder.
        license: Of the weights, as the Hub names it; None: the card says nothing of it.
        stored: How weights are stored.
        prompts: What samples show.
        num_samples: Samples on the card, of the prompts in turn, each time with the next seed.
        device: Where they are made.
    """

    name: str
    license: str | None = None
    stored: Stored = "float32"
    prompts: Sequence[str] = ()
    num_samples: int = 4
    device: str = "auto"


def prompts_of(run: Path) -> list[str]:
    """The prompts that a run sampled while it trained."""
    return _sampling(run).get("prompts") or []


def _sampling(run: Path) -> dict[str, Any]:
    return (read_config(run).get("sampling") or {}).get("init_args") or {}


def is_upsampler(run: Path) -> bool:
    """Whether the model of a run enlarges videos, so that it has no samples by itself.

    Raises:
        UserError: Its config is wrong.
    """
    with torch.device("meta"):
        return build_model(read_config(run)["model"]).conditioner.video_channels > 0


def export(run: Path, out: Path, settings: Settings, checkpoint: Path | None = None) -> VideoDiffusion:
    """Write a folder that `load` reads; it is whole or not there.

    Args:
        run: The folder of a run, or of an exported model.
        out: The folder to write, empty if it is there.
        settings: What is exported, and how.
        checkpoint: A file of weights; None: those of the run, its newest.

    Returns:
        The model that was read back from there, on the CPU.

    Raises:
        UserError: The run has no weights, or the folder cannot be written.
        ValueError: The weights don't fit the config.
    """
    config = {name: section for name, section in read_config(run).items() if name in SECTIONS}
    device = pick_device(settings.device)
    file = checkpoint or find_weights(run)
    weights = read_weights(file)
    with torch.device("meta"):
        check_weights(build_model(config["model"]), weights, file)
    record = record_of(run, file)
    with _whole_folder(out) as folder:
        write_weights(weights, folder / WEIGHTS, settings.stored)
        _write_json(folder / RECORD, record)
        _write_json(folder / EXPORTED_CONFIG, config)
        model = load(folder)
        fps = _sampling(run).get("fps", 8.0)
        samples = _write_samples(model.to(device), folder, settings, fps)
        foreign = foreign_names(config["model"])
        about = About(settings.name, settings.license, settings.stored, fps, samples, record, foreign)
        write_bytes(folder / CARD, card(model.cpu(), about).encode())
    return model


def record_of(run: Path, weights: Path) -> dict[str, Any]:
    """How a model was trained: what others may know of it, so no path, command or name.

    Args:
        run: The folder of a run, or of an exported model.
        weights: The file of its weights. Of a ``.safetensors`` file, an average of another length, nobody knows after
            how many steps it was: the record leaves out what is of the run's own weights.
    """
    if is_exported(run):
        known = read_record(run)
        return known if weights == run / WEIGHTS else {name: known[name] for name in known if name not in OF_WEIGHTS}
    record: dict[str, Any] = {}
    if weights.suffix != ".safetensors":
        state = read_checkpoint(weights)
        counts = state.get("callbacks", {}).get("Record", {})
        record = {"steps": state["global_step"]}
        record |= {"clips": counts["clips"], "seconds": round(counts["seconds"])} if counts else {}
        average = (read_config(run).get("ema") or {}).get("init_args") or {}
        record |= {"half_life": average["half_life"]} if average.get("half_life") else {}
    record |= {"fps": rates} if (rates := trained_fps(run)) else {}
    if (file := run / CENSUS).is_file():
        census = json.loads(file.read_text(encoding="utf-8"))
        record["data"] = {
            modality: {name: of[name] for name in ("samples", "held_out")} for modality, of in census.items()
        }
    environment = read_environment(run)
    return record | {
        name: environment[name] for name in ("started", "device", "precision", "versions") if name in environment
    }


def _write_json(file: Path, content: dict[str, Any]) -> None:
    write_bytes(file, (json.dumps(_finite(content), indent=1, allow_nan=False) + "\n").encode())


def _finite(node: object) -> object:
    """What JSON can say: an infinite number becomes the text that YAML has for it, which parsers of configs take."""
    if isinstance(node, dict):
        return {name: _finite(part) for name, part in node.items()}
    if isinstance(node, list):
        return [_finite(part) for part in node]
    return yaml.safe_dump(node).split()[0] if isinstance(node, float) and not math.isfinite(node) else node


def _write_samples(model: VideoDiffusion, folder: Path, settings: Settings, fps: float) -> list[Sample]:
    """Sample, write a GIF of each sample, and a sheet of all."""
    count, num_prompts = settings.num_samples, len(settings.prompts)
    if not count:
        return []
    asked = [Request(settings.prompts[i % num_prompts], i // num_prompts, fps, f"{i:02d}") for i in range(count)]
    generation, device = Generation(Stages([model])), model.device.type
    with torch.autocast(device, torch.bfloat16, enabled=machine_precision(device) == "bf16-mixed"):
        made = [generation.predict_step(batch, 0)["videos"] for batch in batches_of(asked, BATCH_SIZE)]
    videos = to_uint8(torch.cat(made))
    samples = []
    for request, video in zip(asked, videos, strict=True):
        file = f"samples/{request.name}.gif"
        write_bytes(folder / file, encode_gif(enlarge(video), fps))
        samples.append(Sample(request.prompt, request.seed, file))
    write_bytes(folder / SHEET, encode_png(contact_sheet(enlarge(videos, 64))))
    return samples


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes it at the end, or vanishes when something goes wrong.

    Raises:
        UserError: `out` cannot be written.
    """
    out = out.resolve()
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error
    try:
        yield partial
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
