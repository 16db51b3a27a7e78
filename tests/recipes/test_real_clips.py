"""The whole way on real files: folders of mixed codecs and rates, training, and samples that show what was learned."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from snapvideo.components.interfaces import Prompt
from snapvideo.components.media import contact_sheet, encode_png, enlarge, to_uint8, write_bytes
from snapvideo.datamodules.decode import decode_video
from snapvideo.recipes.cli import main
from snapvideo.recipes.run import load_model

OVERFIT = Path(__file__).with_name("overfit.yaml")
CLIPS = [  # VP8, VP9, AV1, GIF, MPEG-4 in AVI, full-range H.264 in Matroska, variable rate, portrait; quick to decode
    "butterfly_vfr.mp4",
    "llama_road_av1.webm",
    "parking_lot_car_bike.gif",
    "sign_bird_portrait.mp4",
    "sign_walk.mkv",
    "store_aisle_odd_vp9.webm",
    "stream_over_rocks_vp8.webm",
    "white_car_mpeg4.avi",
]
FPS = 4.0


def copy_with_captions(source: Path, out: Path, names: list[str] | None = None) -> dict[str, str]:
    """Files of a folder and their captions, as `.txt` beside them."""
    out.mkdir(parents=True)
    captions = {}
    for line in (source / "metadata.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if names is None or entry["file_name"] in names:
            shutil.copy(source / entry["file_name"], out)
            (out / entry["file_name"]).with_suffix(".txt").write_text(entry["caption"])
            captions[entry["file_name"]] = entry["caption"]
    return captions


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of two uint8 videos, in dB."""
    return float(10 * torch.log10(255**2 / (one.double() - other.double()).square().mean()))


def windows(path: Path, shape) -> list[torch.Tensor]:
    """A clip as training sees it, from several starts."""
    return [decode_video(path, shape, [FPS], np.random.default_rng(seed)).video for seed in range(24)]


@pytest.mark.slow
def test_training_captions_give_back_their_clips(real_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    captions = copy_with_captions(real_data / "videos", tmp_path / "videos", CLIPS)
    copy_with_captions(real_data / "images", tmp_path / "images")
    settings = ["--data.videos", "videos", "--data.images", "images"]
    assert main(["fit", "-c", "folders", "-c", str(OVERFIT), *settings]) == 0

    model = load_model("runs/folders")
    assert len(captions) == len(CLIPS)
    prompt = Prompt([captions[name] for name in CLIPS], torch.full((8,), FPS), torch.full((8, 2), 480.0))
    samples = to_uint8(model.sample(prompt, seeds=range(8)))
    clips = {name: windows(tmp_path / "videos" / name, model.shape) for name in CLIPS}
    table = [[max(psnr(sample, window) for window in clips[name]) for name in CLIPS] for sample in samples]
    print(
        "\n".join(
            f"{name:32}" + " ".join(f"{value:5.1f}" for value in row) for name, row in zip(CLIPS, table, strict=True)
        )
    )
    pairs = torch.stack([video for i, name in enumerate(CLIPS) for video in (samples[i], clips[name][0])])
    write_bytes(tmp_path / "contact_sheet.png", encode_png(contact_sheet(enlarge(pairs, 96))))
    good = sum(row[i] >= 20 and row[i] == max(row) for i, row in enumerate(table))
    assert good >= 6, table
