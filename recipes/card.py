"""The card of a model: what it is, how to use it, how it was trained; Markdown, as the Hub shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..components import LowResolution, Text, VideoDiffusion
from ..components.weights import Stored

COLUMNS = 4
"""Samples side by side."""

SHEET = "samples/contact_sheet.png"

FOREIGN = """\
It is made of {names}, too, which is not of snapvideo: that code has to be there, where Python finds it, and with
`--trust` (in Python `trust=True`) you say that it may be run."""

BASE = "A text-to-video diffusion model: {size}. It was trained and is run with snapvideo."

UPSAMPLER = """\
An upsampler of text-to-video diffusion: {size}. It enlarges the videos that a first stage, `BASE_RUN` below, makes of
texts, and knows the texts, too. It was trained and is run with snapvideo."""

LIMITS = "It knows what its training data shows, and little else. No measure of quality was taken here."

USE = """\
## Use

With snapvideo installed:

```console
$ snapvideo sample {runs} "{prompt}"
```

In Python:

```python
import torch
from snapvideo.components import {imports}
from snapvideo.components.interfaces import Prompt
from snapvideo.components.media import to_uint8, write_mp4

model = {model}
prompt = Prompt(["{prompt}"], torch.tensor([{fps}]), torch.tensor([[{height}.0, {width}.0]]))
video = model.sample(prompt, seeds=[0]){last}  # [1, {channels}, {num_frames}, {height}, {width}], values in [-1, 1]
write_mp4("video.mp4", to_uint8(video)[0], fps={fps})
```

`model.safetensors` holds the weights and `config.json` the parts they belong to; none is unpickled."""


@dataclass(frozen=True)
class Sample:
    """A sample on the card.

    Args:
        caption: Its prompt.
        seed: Its seed.
        file: Its GIF, from the card.
    """

    caption: str
    seed: int
    file: str


@dataclass(frozen=True)
class About:
    """What a card says besides what the model itself says.

    Args:
        name: What the model is called: ``USER/NAME`` on the Hub, or its folder.
        license: Of the weights, as the Hub names it; None: nothing is said of it.
        stored: How the weights are stored.
        fps: Frames per second of the samples.
        samples: Samples.
        record: How it was trained (see ``record.json``).
        foreign: Classes that it is made of and that are not of snapvideo.
    """

    name: str
    license: str | None
    stored: Stored
    fps: float
    samples: Sequence[Sample]
    record: dict[str, Any]
    foreign: Sequence[str]


def card(model: VideoDiffusion, about: About) -> str:
    """The card of a model."""
    shape = model.shape
    size = f"{shape.num_frames} frames of {shape.height}x{shape.width} pixels (height x width)"
    prompt = about.samples[0].caption if about.samples else "a text"
    enlarges = model.conditioner.video_channels > 0
    usage = USE.format(
        runs=f"BASE_RUN {about.name}" if enlarges else about.name,
        imports="Cascade, load" if enlarges else "load",
        model=f'Cascade([load("BASE_RUN"), load("{about.name}")], levels=[0.1])'
        if enlarges
        else f'load("{about.name}")',
        last="[-1]" if enlarges else "",
        prompt=prompt.replace("\\", "\\\\").replace('"', '\\"'),
        fps=float(about.fps),
        channels=shape.channels,
        num_frames=shape.num_frames,
        height=shape.height,
        width=shape.width,
    )
    parts = [
        f"---\n{yaml.safe_dump(_metadata(about, enlarges), sort_keys=False)}---",
        f"# {about.name.rpartition('/')[2]}",
        (UPSAMPLER if enlarges else BASE).format(size=size),
        *_samples(about.samples, model),
        usage,
        *([FOREIGN.format(names=", ".join(f"`{name}`" for name in about.foreign))] if about.foreign else []),
        "## Model",
        _table(_architecture(model, about)),
        *encoders_in_words(model),
    ]
    if training := _training(about.record):
        parts += ["## Training", _table(training)]
    parts += [
        "## Limits",
        LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def encoders(model: VideoDiffusion) -> list[Text]:
    """The parts of a model that need a pretrained text encoder from elsewhere."""
    return [part for part in model.modules() if isinstance(part, Text)]


def is_local(text: Text) -> bool:
    """Whether the files of a pretrained text encoder are of this machine alone."""
    return Path(text.pretrained.name).exists()


def encoders_in_words(model: VideoDiffusion) -> list[str]:
    """Where each pretrained text encoder comes from, a sentence each."""
    sentences = []
    for text in encoders(model):
        name = f"`{text.pretrained.name}`"
        frozen = f"Captions are read by the text encoder {name}, which is frozen and not among these weights."
        trained = f"Captions are read by a text encoder that was trained along; its tokenizer is that of {name}."
        local = "That is a folder of the machine that it was trained on: `config.json` must name another copy."
        sentence = frozen if text.encoder is None else trained
        where = local if is_local(text) else "Its files are fetched from the Hub when needed."
        sentences.append(f"{sentence} {where}")
    return sentences


def _metadata(about: About, enlarges: bool) -> dict[str, Any]:
    """What the Hub reads: the front matter."""
    task = "video-to-video" if enlarges else "text-to-video"
    license = {"license": about.license} if about.license else {}
    return license | {
        "library_name": "snapvideo",
        "pipeline_tag": task,
        "tags": [task, "diffusion", "snap-video"],
    }


def _samples(samples: Sequence[Sample], model: VideoDiffusion) -> list[str]:
    """A table with a GIF below each prompt, in rows, and what they were made with."""
    if not samples:
        return []
    rows = []
    for start in range(0, len(samples), COLUMNS):
        row = samples[start : start + COLUMNS]
        empty = [""] * (min(COLUMNS, len(samples)) - len(row))
        rows.append([*(f"{_cell(sample.caption)} ({sample.seed})" for sample in row), *empty])
        rows.append([*(f"![]({sample.file})" for sample in row), *empty])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    scale = getattr(model.guidance, "scale", None)
    sampler = f"{type(model.sampler).__name__}, {model.sampler.num_steps} steps"
    made = sampler if scale is None else f"{sampler}, guidance {scale:g}"
    return ["\n".join(lines), f"Not selected; the seed is in brackets. {made}. [Frames side by side]({SHEET})."]


def _architecture(model: VideoDiffusion, about: About) -> dict[str, str]:
    lows = [part.size for part in model.modules() if isinstance(part, LowResolution)]
    conditioner = getattr(model.conditioner, "parts", [model.conditioner])
    return {
        "backbone": f"`{type(model.backbone).__name__}`",
        "framework": f"`{type(model.framework).__name__}`",
        "conditioning": ", ".join(f"`{type(part).__name__}`" for part in conditioner),
        **({"enlarges": f"videos of {lows[0][0]}x{lows[0][1]} pixels"} if lows else {}),
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:,.1f}M",
        "stored as": about.stored,
    }


def _training(record: dict[str, Any]) -> dict[str, str]:
    """What is known of the training."""
    rows: dict[str, str] = {}
    if "steps" in record:
        rows["steps"] = f"{record['steps']:,}"
    if "clips" in record:
        rows["clips seen"] = f"{record['clips']:,} videos and images"
    if "seconds" in record:
        rows["time"] = f"{record['seconds'] / 3600:.2f} hours"
    if "fps" in record:
        rows["frames per second"] = ", ".join(f"{rate:g}" for rate in record["fps"])
    for modality, counts in record.get("data", {}).items():
        held_out = f", {counts['held_out']:,} of them held out" if counts["held_out"] else ""
        rows[f"{modality}s"] = f"{counts['samples']:,} in the data{held_out}"
    if "half_life" in record:
        rows["weights"] = f"averaged, with a half-life of {record['half_life']:g} steps"
    for name in ("device", "precision"):
        if name in record:
            rows[name] = str(record[name])
    if "versions" in record:
        rows["versions"] = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return rows


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {_cell(text)} |" for name, text in rows.items())])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
