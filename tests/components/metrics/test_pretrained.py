import json
import logging
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import constants as hub_constants
from PIL import Image
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel, VideoMAEForVideoClassification, VideoMAEModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from snapvideo.components.metrics import CLIP, CLIPSIM, FID, FVD, VideoMAE
from snapvideo.components.metrics.network import resize

from ...hub import Repo
from ...recipes.conftest import hub  # noqa: F401  # a fixture

CAPTIONS = ["a red dog", "nothing", "a cat", "dogs and cats and birds of all the kinds", "b", "c", "d", "e"]


def smooth(height, width, seed=0):
    """A photograph of sorts, uint8 ``[3, H, W]``."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(1, 3, 9, 7, generator=generator)
    fine = 0.1 * torch.rand(1, 3, height, width, generator=generator)
    return (255 * (0.9 * F.interpolate(rough, (height, width), mode="bicubic") + fine)[0].clamp(0, 1)).to(torch.uint8)


def pictures(frame):
    return Image.fromarray(frame.permute(1, 2, 0).numpy())


# Frames


@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(24, 40), (100, 90), (30, 64)])
def test_resize_as_pillow(filter, size):
    frame = smooth(64, 50)
    resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[filter]
    known = torch.from_numpy(np.array(pictures(frame).resize(size[::-1], resample))).permute(2, 0, 1)
    difference = (resize(frame[None], size, filter)[0] - known).abs()
    assert difference.max() <= 1 and difference.mean() < 0.05  # halves may go either way


@pytest.mark.parametrize("shape", [(36, 64), (64, 36), (300, 231), (224, 224), (225, 226)])
def test_frames_as_clip_wants_them(clip_folder, tmp_path, shape):
    """Those that transformers' own processor makes of them with Pillow, at CLIP's size."""
    shutil.copytree(clip_folder, tmp_path, dirs_exist_ok=True)
    processor = CLIPImageProcessorPil()  # 224
    processor.save_pretrained(tmp_path)
    frame = smooth(*shape)
    known = processor(pictures(frame), return_tensors="pt")["pixel_values"]
    ours = CLIP(str(tmp_path)).prepare(frame[None])
    assert ours.shape == known.shape == (1, 3, 224, 224)
    step = 1 / 255 / min(processor.image_std)
    assert (ours - known).abs().max() < 1.01 * step
    assert (ours - known).abs().mean() < 0.02 * step


def test_settings_of_clip(clip_folder, tmp_path):
    shutil.copytree(clip_folder, tmp_path / "old")
    old = tmp_path / "old/preprocessor_config.json"
    # As OpenAI wrote theirs: numbers for sizes.
    settings = {"size": 10, "crop_size": 8, "resample": 2, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}
    old.write_text(json.dumps(settings | {"do_resize": True, "do_center_crop": True, "do_normalize": True}))
    record = CLIP(str(tmp_path / "old")).preprocessing()
    assert (record["size"], record["fit"], record["filter"]) == ([8, 8], "shorter side 10, middle", "bilinear")
    assert (record["mean"], record["std"]) == ([0.1, 0.2, 0.3], [1, 2, 3])

    old.unlink()  # what was published, at the size of the config
    record = CLIP(str(tmp_path / "old")).preprocessing()
    assert (record["size"], record["fit"], record["filter"]) == ([8, 8], "shorter side 8, middle", "bicubic")
    assert record["mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])

    for wrong in ({"do_normalize": False}, {"resample": 0}, {"size": {"height": 8, "width": 9}}, {"crop_size": 12}):
        old.write_text(json.dumps(settings | wrong))
        with pytest.raises(ValueError, match=r"can't be read: its preprocessor_config\.json asks for other than"):
            CLIP(str(tmp_path / "old")).preprocessing()


# CLIP


def features(folder, video, caption):
    """With the tools of transformers alone: of each frame and of the caption."""
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPImageProcessorPil.from_pretrained(folder)
    pixels = processor([pictures(frame) for frame in video.transpose(0, 1)], return_tensors="pt")["pixel_values"]
    ids = AutoTokenizer.from_pretrained(folder)(caption, truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        whole = model(pixel_values=pixels, **ids)
        return whole.image_embeds, whole.text_embeds, model.get_image_features(pixel_values=pixels).pooler_output


@pytest.fixture
def photographs():
    """Videos ``[8, 3, 4, 20, 12]``."""
    return torch.stack([torch.stack([smooth(20, 12, 10 * i + j) for j in range(4)], dim=1) for i in range(8)])


def test_clipsim_by_hand(clip_folder, photographs):
    metric = CLIPSIM(CLIP(str(clip_folder)))
    metric.update(photographs[:5], CAPTIONS[:5])
    metric.update(photographs[5:], CAPTIONS[5:])
    sums = []
    for video, caption in zip(photographs, CAPTIONS, strict=True):
        frames, text, _ = features(clip_folder, video, caption)
        sums.append(float((frames @ text.T).mean()))
    # Of one step of 255 in a pixel, which is large in 8 x 8 pixels.
    assert float(metric.compute()["clipsim"]) == pytest.approx(np.mean(sums), abs=2e-3)
    rows = metric.observe(photographs, CAPTIONS)
    assert rows.tolist() == pytest.approx(sums, abs=5e-3)
    for i in range(8):  # by itself, each
        assert float(metric.observe(photographs[i : i + 1], CAPTIONS[i : i + 1])) == pytest.approx(
            float(rows[i]), abs=1e-5
        )


def test_clip_features_are_those_of_transformers(clip_folder, photographs):
    network = CLIP(str(clip_folder))
    ours = network(photographs[:1])
    known = features(clip_folder, photographs[0], "a")[2]
    assert ours.shape == (1, 4, network.width)
    assert torch.allclose(ours[0], known, atol=0.05 * float(known.abs().max()))
    text = network.read(["a red dog", "a red dog " * 30], torch.device("cpu"))
    assert text.shape == (2, network.width) and not text.requires_grad


def test_scores_say_which_network(clip_folder, videomae_folder, photographs):
    fid, fvd = FID(CLIP(str(clip_folder)), frames=2), FVD(VideoMAE(str(videomae_folder)))
    for metric in (fid, fvd):
        metric.update(photographs, CAPTIONS)
        metric.update(photographs.flip(1), CAPTIONS, real=True)
    (name, value), (other, distance) = fid.compute().popitem(), fvd.compute().popitem()
    assert (name, other) == ("clip_fid", "videomae_fvd") and value > 0 and distance > 0
    record = fid.record()
    assert record["score"] == "clip_fid" and record["network"]["name"] == "CLIP"
    assert record["network"]["preprocessing"]["filter"] == "bicubic" and record["network"]["preprocessing"]["antialias"]
    assert fvd.record()["network"]["preprocessing"]["frames"] == 4
    json.dumps([record, fvd.record()])


def test_one_caption_for_each_video(clip_folder, photographs):
    with pytest.raises(ValueError, match="7 captions for 8 videos"):
        CLIPSIM(CLIP(str(clip_folder))).update(photographs, CAPTIONS[:7])


# VideoMAE


def test_videomae_features_are_what_its_classifier_sees(videomae_folder, photographs):
    network = VideoMAE(str(videomae_folder))
    ours = network(photographs)
    assert ours.shape == (8, network.width)
    model = VideoMAEForVideoClassification.from_pretrained(videomae_folder).eval()
    frames = [
        torch.from_numpy(np.array(pictures(frame).resize((8, 8), Image.Resampling.BILINEAR))).permute(2, 0, 1)
        for frame in photographs[3].transpose(0, 1)
    ]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (torch.stack(frames) / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        known = model(pixel_values=pixels[None]).logits
        assert torch.allclose(model.classifier(ours[3:4]), known, atol=0.02)
    assert torch.allclose(network(photographs[3:4]), ours[3:4], atol=1e-5)


def test_videomae_takes_the_frames_of_its_config(videomae_folder, photographs):
    with pytest.raises(ValueError, match=r"the videos have 3 frames: .* takes 4"):
        VideoMAE(str(videomae_folder))(photographs[:, :, :3])


# What can't be read


@pytest.mark.parametrize("kind", [CLIP, VideoMAE])
def test_no_network(kind):
    network = kind()
    for wanted in (network.record, lambda: network.width):
        with pytest.raises(ValueError, match=r"can't be read") as error:
            wanted()
        message = str(error.value)
        assert network.name in message and "HF_HUB_OFFLINE" in message and f"hf download {network.name}" in message
        assert "local folder" in message
    with pytest.raises(ValueError, match=r"'\./none' can't be read: there is no such folder\nFix: give a folder"):
        kind("./none").record()


def test_folders_without_what_is_needed(clip_folder, videomae_folder, photographs, tmp_path):
    with pytest.raises(ValueError, match="it is a 'clip' model, and 'videomae' is wanted"):
        VideoMAE(str(clip_folder))(photographs)
    bare = tmp_path / "bare"
    VideoMAEModel.from_pretrained(videomae_folder).save_pretrained(bare)
    with pytest.raises(ValueError, match=r"it has no weights for .* and \d+ more"):
        VideoMAE(str(bare))(photographs)
    (bare / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"holds no weights\nFix: the folder must hold config\.json"):
        VideoMAE(str(bare)).record()
    (bare / "config.json").unlink()
    with pytest.raises(ValueError, match="can't be read"):
        VideoMAE(str(bare))(photographs)


def test_a_clip_without_tokenizer(clip_folder, photographs, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(clip_folder / name, tmp_path)
    network = CLIP(str(tmp_path))
    assert network(photographs).shape[:2] == (8, 4)
    with pytest.raises(ValueError, match="can't be read: it has no tokenizer"):
        network.read(["a"], torch.device("cpu"))


def test_fetched_from_the_hub_once(hub, clip_folder, photographs, monkeypatch):  # noqa: F811
    files = {file.name: file.read_bytes() for file in clip_folder.iterdir()}
    hub.repos["user/clip"] = Repo(files=files | {"tf_model.h5": b"of no use", "README.md": b""})
    network = CLIP("user/clip")
    assert torch.equal(network(photographs), CLIP(str(clip_folder))(photographs))
    assert network.record() == CLIP(str(clip_folder)).record()
    assert not any("tf_model" in line for line in hub.asked)
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    before = len(hub.asked)
    assert torch.equal(CLIP("user/clip")(photographs), network(photographs))
    assert len(hub.asked) == before


def test_weights_of_torch(hub, clip_folder, photographs):  # noqa: F811
    """What has no safetensors is read from torch's file; a pickle of more than tensors is refused."""
    files = {file.name: file.read_bytes() for file in clip_folder.iterdir() if file.suffix == ".json"}
    hub.repos["user/clip"] = Repo(files=files)
    cache = hub_constants.HF_HUB_CACHE
    torch.save(CLIPModel.from_pretrained(clip_folder).state_dict(), f"{cache}-weights")
    with open(f"{cache}-weights", "rb") as file:
        hub.repos["user/clip"].files["pytorch_model.bin"] = file.read()
    assert torch.equal(CLIP("user/clip")(photographs), CLIP(str(clip_folder))(photographs))

    torch.save({"weight": logging.getLogger}, f"{cache}-weights")
    with open(f"{cache}-weights", "rb") as file:
        hub.repos["user/clip"].files["pytorch_model.bin"] = file.read()
    with pytest.raises(ValueError, match="can't be read"):
        CLIP("user/clip")(photographs)
