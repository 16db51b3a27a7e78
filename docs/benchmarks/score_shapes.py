"""Scores a model of moving shapes: does it show the colours, shapes and directions that captions ask for?

    python docs/benchmarks/score_shapes.py runs/demo/latest --captions 192 --out scores

Captions are drawn like those of the training data (one thing that moves, so that shape and direction can be told); each
gives one video, whose colours, shape, direction and background a fixed function reads. A contact sheet goes to `--out`.
`circle > square: 3` counts what was drawn in place of what was asked for.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from snapvideo.components.interfaces import Prompt
from snapvideo.components.media import contact_sheet, encode_png, enlarge, to_uint8, write_bytes
from snapvideo.components.metrics import ShapeAccuracy
from snapvideo.components.metrics.shape_captions import parse_caption
from snapvideo.components.metrics.shape_reader import read_scene
from snapvideo.datamodules.shapes import caption, draw_scene
from snapvideo.recipes.run import load_model

BATCH = 16


def moving_captions(count: int, seed: int) -> list[str]:
    """Captions of scenes with one thing that moves."""
    captions: list[str] = []
    index = 0
    while len(captions) < count:
        scene = draw_scene(np.random.default_rng([seed, index]))
        index += 1
        if len(scene.things) == 1 and scene.things[0].motion == "moves":
            captions.append(caption(scene))
    return captions


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder, or the name of a shipped model")
    parser.add_argument("--captions", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--out", type=Path, default=Path("scores"))
    arguments = parser.parse_args()
    model = load_model(arguments.run, arguments.checkpoint, arguments.steps, arguments.guidance)
    captions = moving_captions(arguments.captions, arguments.seed)
    accuracy, shown, drawn = ShapeAccuracy(), [], Counter[str]()
    for start in tqdm(range(0, len(captions), BATCH), desc="scoring"):
        texts = captions[start : start + BATCH]
        prompt = Prompt(texts, torch.full((len(texts),), 8.0), torch.full((len(texts), 2), 64.0))
        videos = to_uint8(model.sample(prompt, range(start, start + len(texts))))
        accuracy.update(videos, texts, prompt.fps)
        shown.append(videos)
        for video, text in zip(videos, texts, strict=True):
            things = read_scene(video).things
            drawn[f"{parse_caption(text).things[0].shape} > {things[0].shape if things else 'none'}"] += 1
    scores = {name: round(float(value), 3) for name, value in accuracy.compute().items()}
    print(json.dumps({"captions": len(captions), **scores}))
    print("\n".join(f"{name}: {count}" for name, count in sorted(drawn.items())))
    write_bytes(arguments.out / "contact_sheet.png", encode_png(contact_sheet(enlarge(torch.cat(shown)[:24], 64))))
    write_bytes(arguments.out / "captions.txt", "\n".join(captions).encode())
    write_bytes(arguments.out / "scores.json", json.dumps({"captions": len(captions), **scores}).encode())


if __name__ == "__main__":
    main()
