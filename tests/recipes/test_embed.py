"""``snapvideo data embed``, and training on what it wrote."""

import json
import os
import shutil

import pytest
import torch
from safetensors import safe_open

from snapvideo.components.conditioning import Text
from snapvideo.datamodules.sources import index_source
from snapvideo.recipes.embed import batches_of

from .conftest import call


@pytest.fixture
def root(shapes, tmp_path):
    return shutil.copytree(shapes, tmp_path / "shapes")


def embed(source, encoder, *words):
    result = call("data", "embed", source, "--encoder", encoder, "--max-length", 12, "--dtype", "float32", *words)
    assert result.code == 0, result.err
    return result.out


def fit(encoder, runs, videos, images, *words):
    text = json.dumps({"class_path": "Text", "init_args": {"dim": 32, "max_length": 12, "encoder": str(encoder)}})
    data = ["--data", "JointData", "--data.videos", videos, "--data.images", images, "--data.fps", "[8.0]"]
    data += ["--data.video_batch_size=2", "--data.image_batch_size=1", "--data.embeddings=true"]
    few = ["--trainer.max_steps=2", "--trainer.limit_val_batches=0", "--sampling", "null", "--runs", runs]
    return call("fit", "-c", "demo", "--smoke", *data, *few, "--model.conditioner", text, *words)


def test_each_file_has_what_the_encoder_says(root, encoders):
    out = embed(root, encoders["t5"])
    assert out.startswith("10 captions to embed") and "0 are embedded already" in out
    text = Text(4, str(encoders["t5"]), max_length=12)
    files = sorted(root.rglob("*.safetensors"))
    assert len(files) == 10
    for file in files:
        caption = file.with_suffix(".txt").read_text().strip()
        hidden = text.pretrained.encode(*text.pretrained.tokenize([caption], torch.device("cpu")))[0]
        with safe_open(file, "pt") as opened:
            torch.testing.assert_close(opened.get_tensor("tokens"), hidden.bfloat16(), rtol=0.02, atol=0.02)
            metadata = opened.metadata()
        assert metadata["encoder"] == str(encoders["t5"]) and metadata["max_length"] == "12"
        assert metadata["width"] == "24" and metadata["dtype"] == "float32"


def test_only_what_is_missing_or_changed_is_written_again(root, encoders):
    embed(root, encoders["t5"])
    files = sorted(root.rglob("*.safetensors"))
    before = {file: file.stat().st_mtime_ns for file in files}
    files[0].unlink()
    files[1].with_suffix(".txt").write_text("another caption")
    assert embed(root, encoders["t5"]).startswith("2 captions to embed")
    assert [file for file in files if file.stat().st_mtime_ns != before[file]] == files[:2]
    assert embed(root, encoders["bert"]).startswith("10 captions to embed")


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_training_reads_them_and_no_encoder(root, encoders, tmp_path, kind):
    encoder = shutil.copytree(encoders["t5"], tmp_path / "encoder")
    source = root
    if kind == "shards":
        call("data", "pack", root, tmp_path / "shards", "--shard-size", 0.01, "--workers", 1)
        source = f"{tmp_path}/shards/*.tar"
    embed(source, encoder)
    assert len(list(tmp_path.rglob("*.embeddings.tar"))) == (
        len(list(tmp_path.rglob("shard-*0?.tar"))) if kind == "shards" else 0
    )
    if kind == "shards":
        assert embed(source, encoder).startswith("0 captions to embed")
    os.remove(encoder / "model.safetensors")  # the weights are not needed
    videos, images = (source, source) if kind == "shards" else (root / "videos", root / "images")
    result = fit(encoder, tmp_path / "runs", videos, images)
    assert result.code == 0, result.err


def test_embeddings_that_nothing_takes_are_refused(root, encoders, tmp_path):
    embed(root, encoders["t5"])
    bytes_alone = "{class_path: ByteText, init_args: {dim: 32}}"
    result = fit(
        encoders["t5"], tmp_path / "runs", root / "videos", root / "images", "--model.conditioner", bytes_alone
    )
    assert result.code == 2 and "data.embeddings: no conditioner takes them" in result.err


def test_newer_embeddings_of_a_tar_count(root, encoders, tmp_path):
    """Not those that were packed with the media."""
    embed(root, encoders["bert"])
    call("data", "pack", root, tmp_path / "shards", "--shard-size", 0.01, "--workers", 1)
    assert embed(f"{tmp_path}/shards/*.tar", encoders["t5"]).startswith("10 captions to embed")
    assert embed(f"{tmp_path}/shards/*.tar", encoders["t5"]).startswith("0 captions to embed")


def test_two_captions_for_one_embedding_are_refused(root, encoders):
    (root / "list.csv").write_text("path,caption\nvideos/000000.mp4,one\nvideos/000000.mp4,two\n")
    result = call("data", "embed", root / "list.csv", "--encoder", encoders["t5"])
    assert result.code == 2 and "have different captions" in result.err


def test_ranks_share_the_batches(shapes):
    samples = index_source(shapes, "video").samples
    ranks = [batches_of(samples, 4, rank, 3) for rank in range(3)]
    assert sorted(i for batches in ranks for batch in batches for i in batch) == list(range(6))
    assert [len(batches) for batches in ranks] == [1, 1, 0]


def test_another_encoder_or_length_is_refused_by_name(root, encoders, tmp_path):
    embed(root, encoders["t5"])
    folders = root / "videos", root / "images"
    other = fit(encoders["bert"], tmp_path / "runs", *folders)
    assert other.code == 2 and "data.embeddings: their encoder is" in other.err
    longer = fit(encoders["t5"], tmp_path / "runs", *folders, "--model.conditioner.max_length=20")
    assert longer.code == 2 and "their max_length is 12, the conditioner's is 20" in longer.err
    assert not (tmp_path / "runs/demo").exists()
