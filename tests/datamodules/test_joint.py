import hashlib
import logging
import math
import shutil
import tarfile
from itertools import islice
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import save_file

from snapvideo.components.interfaces import VideoShape
from snapvideo.datamodules import JointData, Source
from snapvideo.datamodules.embeddings import caption_hash
from snapvideo.datamodules.samples import NothingUsable

SHAPE = VideoShape(num_frames=4, height=8, width=8)


@pytest.fixture(autouse=True)
def no_seed(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.fixture
def folders(files, media) -> dict:
    """The videos and images of `files` in the folder of `media`, as arguments."""
    shutil.copytree(files, media.folder, dirs_exist_ok=True)
    return {"videos": media.folder / "videos", "images": media.folder / "images"}


def data(folders, **arguments) -> JointData:
    settings = {"shape": SHAPE, "video_batch_size": 3, "image_batch_size": 2, "fps": [20.0, 10.0, 5.0]}
    return JointData(**{**settings, **folders, **arguments})


def batches(datamodule, number) -> list:
    """Joined training batches without a trainer."""
    datamodule.setup("fit")
    return [datamodule.on_after_batch_transfer(parts, 0) for parts in islice(datamodule.train_dataloader(), number)]


def fingerprint(batch) -> tuple:
    """All that a batch shows."""
    pixels = hashlib.sha256(batch.video.numpy().tobytes()).hexdigest()
    return (*batch.keys, *batch.captions, *batch.fps.tolist(), *batch.resolution.flatten().tolist(), pixels)


class Recorder(LightningModule):
    """Learns next to nothing and remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated = [], []

    def training_step(self, batch, batch_index):
        self.seen.append(fingerprint(batch))
        return (self.weight - batch.video.mean()) ** 2

    def validation_step(self, batch, batch_index):
        self.validated.append(fingerprint(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, datamodule, max_steps, ckpt_path=None, **options) -> Recorder:
    module = Recorder()
    checkpoint = ModelCheckpoint(folder, save_last=True, every_n_train_steps=1, save_top_k=0)
    trainer = Trainer(
        **{"check_val_every_n_epoch": None, "val_check_interval": 2, **options},
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        callbacks=[checkpoint],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule, ckpt_path=ckpt_path)
    return module


def test_a_batch_joins_videos_and_images(folders):
    [parts] = islice(ready(data(folders)).train_dataloader(), 1)
    assert [part.video.dtype for part in parts] == [torch.uint8, torch.uint8]
    assert [tuple(part.video.shape) for part in parts] == [(3, 3, 4, 8, 8), (2, 3, 1, 8, 8)]
    [batch] = batches(data(folders), 1)
    assert batch.video.shape == (5, 3, 4, 8, 8) and batch.video.dtype == torch.float32
    assert batch.is_image.tolist() == [False] * 3 + [True] * 2
    assert set(batch.fps[:3].tolist()) <= {20.0, 10.0, 5.0} and batch.fps[3:].tolist() == [math.inf] * 2
    for key, caption, resolution in zip(batch.keys, batch.captions, batch.resolution.tolist(), strict=True):
        number = int(key.split(".")[0])
        if key.endswith(".mp4"):
            assert caption == f"video {number}" and resolution == [16, 16 + 2 * number]
        else:
            assert caption == f"image {number}" and resolution == [20 + number, 30]


MANIFEST = dict.fromkeys(("encoder", "revision", "tokenizer", "max_length", "dtype"), "x") | {"width": "8"}


def write_embedding(media, tokens, caption, **metadata):
    save_file(
        {"tokens": tokens}, media.with_suffix(".safetensors"), MANIFEST | {"caption": caption_hash(caption)} | metadata
    )


def test_embeddings_lie_beside_the_files(folders):
    rng = torch.Generator().manual_seed(0)
    stored = {}
    for path in sorted([*folders["videos"].glob("*.mp4"), *folders["images"].glob("*.png")]):
        stored[path.name] = torch.randn(3 + len(stored) % 4, 8, generator=rng).bfloat16()
        kind = "video" if path.suffix == ".mp4" else "image"
        write_embedding(path, stored[path.name], f"{kind} {path.stem}")
    first, flat, missing, narrow, older, changed, cut = sorted(folders["videos"].glob("*.mp4"))[:7]
    write_embedding(flat, torch.zeros(8), f"video {flat.stem}")
    write_embedding(narrow, torch.zeros(2, 7), f"video {narrow.stem}")
    write_embedding(older, torch.zeros(2, 8), f"video {older.stem}", max_length="5")
    write_embedding(changed, torch.zeros(2, 8), "another caption")
    missing.with_suffix(".safetensors").unlink()
    cut.with_suffix(".safetensors").write_bytes(cut.with_suffix(".safetensors").read_bytes()[:-3])
    datamodule = data(folders, embeddings=True, most_unusable=0.9)
    for batch in batches(datamodule, 6):
        assert batch.embeddings.tokens.shape[0] == batch.embeddings.mask.shape[0] == 5
        for key, tokens, mask in zip(batch.keys, batch.embeddings.tokens, batch.embeddings.mask, strict=True):
            assert torch.equal(tokens[mask], stored[key])
    assert str(first) not in datamodule.skipped and len(datamodule.skipped) == 6
    assert datamodule.skipped[str(missing)].startswith("no embedding")
    assert all(datamodule.skipped[str(path)].startswith("bad embedding") for path in (flat, narrow, cut))
    assert datamodule.skipped[str(older)] == "other embedding: max_length is 5, not x"
    assert datamodule.skipped[str(changed)] == "other embedding: the caption has changed since"


def test_error_where_there_are_no_embeddings(folders):
    with pytest.raises(NothingUsable, match=r"embeddings: the first 13 samples have none; .*\.mp4: no embedding"):
        batches(data(folders, embeddings=True), 1)


def ready(datamodule) -> JointData:
    datamodule.setup("fit")
    return datamodule


@pytest.mark.parametrize("modality", ["video", "image"])
def test_one_modality_alone(folders, modality):
    arguments = {f"{modality}s": folders[f"{modality}s"], f"{modality}_batch_size": 2}
    datamodule = JointData(SHAPE, **arguments, fps=[10.0])
    [batch] = batches(datamodule, 1)
    assert batch.video.shape == (2, 3, 4, 8, 8)
    assert batch.is_image.tolist() == [modality == "image"] * 2


def test_workers_change_nothing(folders, media):
    media.broken("videos/bad.mp4")
    expected = [fingerprint(batch) for batch in batches(data(folders), 6)]
    assert [fingerprint(batch) for batch in batches(data(folders, num_workers=2), 6)] == expected


def test_seed_changes_order_and_draws(folders, monkeypatch):
    first = [fingerprint(batch) for batch in batches(data(folders), 2)]
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    assert [fingerprint(batch) for batch in batches(data(folders), 2)] != first


def test_global_random_numbers_are_left_alone(folders):
    torch.manual_seed(0)
    batches(data(folders), 1)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert after == torch.rand(1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_sees_what_it_would_have_seen(folders, tmp_path, num_workers):
    def fresh():
        return data(folders, holdout=2, num_workers=num_workers)

    whole = fit(tmp_path / "whole", fresh(), 7)
    start = fit(tmp_path / "parts", fresh(), 3)
    rest = fit(tmp_path / "parts", fresh(), 7, ckpt_path=tmp_path / "parts/last.ckpt")
    assert len(whole.seen) == 7 and len(set(whole.seen)) == 7
    assert start.seen + rest.seen == whole.seen
    assert start.validated + rest.validated == whole.validated and len(whole.validated) == 3


def test_accumulated_steps_resume_too(folders, tmp_path):
    options = {"accumulate_grad_batches": 2, "val_check_interval": None}
    whole = fit(tmp_path / "whole", data(folders), 4, **options)
    fit(tmp_path / "parts", data(folders), 2, **options)
    rest = fit(tmp_path / "parts", data(folders), 4, ckpt_path=tmp_path / "parts/last.ckpt", **options)
    assert len(whole.seen) == 8 and rest.seen == whole.seen[4:]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_epochs_go_on_where_the_last_one_stopped(folders, tmp_path, num_workers):
    options = {"limit_train_batches": 2, "val_check_interval": None, "check_val_every_n_epoch": 1}
    module = fit(tmp_path, data(folders, num_workers=num_workers), 6, **options)
    assert module.seen == [fingerprint(batch) for batch in batches(data(folders), 6)]


def test_no_holdout_means_no_validation(folders, tmp_path):
    assert data(folders).val_dataloader() == []
    assert fit(tmp_path, data(folders), 2).validated == []


def test_held_out_samples_are_not_trained_on(folders):
    datamodule = ready(data(folders, holdout=2))
    held = {key for parts in datamodule.val_dataloader() for part in parts for key in part.keys}
    assert len(held) == 4
    trained = {key for batch in batches(datamodule, 6) for key in batch.keys}
    assert len(trained) == 9 and not held & trained


def test_validation_is_the_same_for_every_seed(folders, monkeypatch):
    def validation():
        loader = ready(data(folders, holdout=3)).val_dataloader()
        assert len(loader) == 2
        return [[fingerprint(part) for part in parts] for parts in loader]

    first = validation()
    assert [len(parts) for parts in first] == [2, 1]  # 3 videos and 2 images, then 1 image
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    assert validation() == first


def test_new_files_change_little_of_the_holdout(folders, media):
    def held():
        loader = ready(data(folders, images=None, image_batch_size=0, holdout=4)).val_dataloader()
        return {key for parts in loader for part in parts for key in part.keys}

    before = held()
    media.video("videos/a/new.mp4")
    assert len(before - held()) <= 1


def test_broken_files_are_replaced_and_named_once(folders, media, caplog):
    media.broken("videos/empty.mp4")
    media.broken("images/cut.png", b"\x89PNG")
    media.video("videos/short.mp4", times=[0.0, 0.05])
    media.video("videos/silent.mp4", caption=None)
    datamodule = data(folders, num_workers=2)
    with caplog.at_level(logging.WARNING):
        shown = batches(datamodule, 16)
        datamodule.teardown("fit")
    assert all(len(batch) == 5 for batch in shown)
    assert not {"empty.mp4", "cut.png", "short.mp4", "silent.mp4"} & {key for batch in shown for key in batch.keys}
    reasons = {Path(path).name: reason.split(":")[0] for path, reason in datamodule.skipped.items()}
    expected = {"empty.mp4": "corrupt", "cut.png": "corrupt", "short.mp4": "too short", "silent.mp4": "no caption"}
    assert reasons == expected
    lines = [record.getMessage() for record in caplog.records]
    for name in ("empty.mp4", "cut.png", "short.mp4"):
        assert sum(line.startswith("skipped ") and f"{name}: " in line for line in lines) == 1
    assert sum("videos: 1 of 11 (1 no caption)" in line and "silent.mp4: no caption" in line for line in lines) == 1
    assert "4 files could not be used: 2 corrupt, " in caplog.text


def test_files_that_vanish_or_take_too_long_are_replaced(folders):
    datamodule = ready(data(folders, images=None, image_batch_size=0, fps=[10.0]))
    (folders["videos"] / "3.mp4").unlink()
    keys = {key for parts in islice(datamodule.train_dataloader(), 8) for part in parts for key in part.keys}
    assert keys == {f"{i}.mp4" for i in range(8) if i != 3}
    hurried = data(folders, seconds_per_file=1e-9)
    with pytest.raises(NothingUsable, match="too slow: not decoded within 1e-09 s"):
        batches(hurried, 1)


def packed(folder, path) -> Path:
    with tarfile.open(path, "w") as tar:
        tar.add(folder, arcname=".")
    return path


@pytest.mark.parametrize("num_workers", [0, 2])
def test_tars_and_folders_of_the_same_files_give_the_same_batches(folders, tmp_path, num_workers):
    parts = [tmp_path / "parts/a", tmp_path / "parts/b"]
    for path in folders["videos"].iterdir():
        target = parts[int(path.stem) % 2]
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shards = [packed(part, tmp_path / f"{part.name}.tar") for part in parts]
    images = packed(folders["images"], tmp_path / "images.tar")
    expected = [fingerprint(batch) for batch in batches(data(folders, holdout=1), 5)]
    for videos in (tmp_path / "?.tar", tmp_path / "{a,b}.tar", [Source(path) for path in shards]):
        found = data({"videos": videos, "images": images}, holdout=1, num_workers=num_workers)
        if not isinstance(videos, list):  # separate sources are listed one after the other
            assert [fingerprint(batch) for batch in batches(found, 5)] == expected
        assert {key for batch in batches(found, 5) for key in batch.keys} >= {f"{i}.mp4" for i in range(7)} - held(
            found
        )


def held(datamodule) -> set[str]:
    return {key for parts in datamodule.val_dataloader() for part in parts for key in part.keys}


def test_missing_and_damaged_shards_are_named_and_survived(folders, tmp_path, caplog):
    packed(folders["videos"], tmp_path / "0.tar")
    (tmp_path / "1.tar").write_bytes(b"no tar at all" * 100)
    datamodule = ready(data(folders, videos=tmp_path / "{0..2}.tar"))
    reasons = {Path(place).name: reason.split(":")[0] for place, reason in datamodule.skipped.items()}
    assert reasons == {"1.tar": "bad shard", "2.tar": "missing shard"}
    assert "videos: 2 of 10 (1 bad shard, 1 missing shard) cannot be used" in caplog.text


def test_weighted_sources(folders, tmp_path):
    few, many = tmp_path / "few", tmp_path / "many"
    for path in folders["videos"].iterdir():
        target = few if path.stem == "0" else many
        target.mkdir(exist_ok=True)
        shutil.copy(path, target)
    videos = [Source(few, 3.0), Source(many, 1.0)]
    datamodule = ready(data(folders, videos=videos, video_batch_size=20, images=None, image_batch_size=0))
    keys = [key for parts in islice(datamodule.train_dataloader(), 10) for part in parts for key in part.keys]
    assert 0.65 < sum(key == "0.mp4" for key in keys) / len(keys) < 0.85  # 750 of the first 1000 positions
    with pytest.raises(
        ValueError, match=r"videos: the weights are \[3.0, None\]: give all a finite one above 0, or none"
    ):
        data(folders, videos=[Source(few, 3.0), Source(many)])
    with pytest.raises(
        ValueError, match=r"videos: the weights are \[1.0, 0.0005\]: each must be at least a thousandth"
    ):
        data(folders, videos=[Source(few, 1.0), Source(many, 0.0005)])


def test_steps_of_videos_and_of_images_take_turns(folders):
    shown = batches(data(folders, image_steps=0.5), 6)
    assert [len(batch) for batch in shown] == [3, 2] * 3
    assert [batch.is_image.all().item() for batch in shown] == [False, True] * 3
    assert all(batch.video.shape[2] == 4 for batch in shown)


@pytest.mark.parametrize("size", [1, 4])
def test_a_run_goes_on_with_batches_of_another_size(folders, tmp_path, size):
    """What changes with the number of ranks changes with the size of a batch, too."""
    loader = {"images": None, "image_batch_size": 0}
    whole = fit(tmp_path / "whole", data(folders, **loader, video_batch_size=2), 4, val_check_interval=None)
    fit(tmp_path / "parts", data(folders, **loader, video_batch_size=2), 2, val_check_interval=None)
    datamodule = data(folders, **loader, video_batch_size=size)
    rest = fit(tmp_path / "parts", datamodule, 2 + 4 // size, tmp_path / "parts/last.ckpt", val_check_interval=None)
    keys = [key for seen in rest.seen for key in seen[:size]]
    assert keys == [key for seen in whole.seen[2:] for key in seen[:2]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_error_when_no_file_can_be_decoded(media, num_workers):
    for i in range(3):
        media.video(f"{i}.mp4")
    arguments = {"videos": media.folder, "video_batch_size": 2, "fps": [10.0], "num_workers": num_workers}
    datamodule = ready(JointData(SHAPE, **arguments))
    for i in range(3):
        media.broken(f"{i}.mp4")  # after the census
    with pytest.raises(NothingUsable, match=r"none of 3 files .*\(3 corrupt\); for example .*/.\.mp4"):
        next(iter(datamodule.train_dataloader()))


def test_error_of_an_empty_folder(media):
    with pytest.raises(NothingUsable, match="holds no image file"):
        JointData(SHAPE, images=media.folder, image_batch_size=1).setup("fit")


def test_folders_may_name_home_and_variables(folders, media, monkeypatch):
    monkeypatch.setenv("DATA", "images")
    monkeypatch.setenv("HOME", str(media.folder))
    assert len(batches(data({"videos": Path("~/videos"), "images": Path("~/$DATA")}), 1)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"videos": None, "images": None}, "videos and images are both missing"),
        ({"videos": None}, "videos is None and video_batch_size is 3"),
        ({"image_batch_size": 0}, r"images is .* and image_batch_size is 0"),
        ({"image_batch_size": -1}, r"image_batch_size is -1"),
        ({"fps": []}, r"fps is \[\]"),
        ({"fps": [24.0, 0.0]}, r"fps is \[24.0, 0.0\]"),
        ({"holdout": -1}, "holdout is -1"),
        ({"shape": VideoShape(4, 8, 8, channels=1)}, "shape.channels is 1"),
    ],
)
def test_errors_of_arguments(folders, arguments, message):
    with pytest.raises(ValueError, match=message):
        data(folders, **arguments)


def test_error_of_a_holdout_that_leaves_nothing(folders):
    with pytest.raises(ValueError, match=r"holdout is 5, but .* has 5 images"):
        data(folders, holdout=5).setup("fit")


def test_configuration_by_name(folders):
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(JointData, "data")
    text = {"videos": str(folders["videos"]), "video_batch_size": 2, "fps": [10, 5]}
    init = {"shape": {"num_frames": 4, "height": 8, "width": 8}, **text}
    config = parser.parse_object({"data": {"class_path": "snapvideo.datamodules.JointData", "init_args": init}})
    datamodule = parser.instantiate(config).data
    assert isinstance(datamodule, JointData) and len(batches(datamodule, 1)[0]) == 2


def test_real_files(real_data):
    """Every real file is used in a run over all of them."""
    arguments = {"videos": real_data / "videos", "images": real_data / "images"}
    datamodule = JointData(SHAPE, **arguments, video_batch_size=4, image_batch_size=5)
    seen = {key for batch in batches(datamodule, 6) for key in batch.keys}
    assert len(seen) == 54 and datamodule.skipped == {}


@pytest.mark.parametrize("window", [1, 2])
def test_a_run_goes_on_with_other_accumulation(folders, tmp_path, window):
    loader = {"images": None, "image_batch_size": 0}
    options = {"val_check_interval": None, "accumulate_grad_batches": 4}
    whole = fit(tmp_path / "whole", data(folders, **loader, video_batch_size=1), 5, **options)
    fit(tmp_path / "parts", data(folders, **loader, video_batch_size=1), 3, **options)
    options["accumulate_grad_batches"] = window
    datamodule = data(folders, **loader, video_batch_size=8 // window)
    rest = fit(tmp_path / "parts", datamodule, 4, tmp_path / "parts/last.ckpt", **options)
    keys = [key for seen in rest.seen for key in seen[: 8 // window]]
    assert keys == [seen[0] for seen in whole.seen[12:]]


def test_a_resume_says_that_the_settings_changed(folders, tmp_path, caplog, monkeypatch):
    fit(tmp_path, data(folders), 1)
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    fit(tmp_path, data(folders, holdout=1), 2, tmp_path / "last.ckpt")
    assert "data: seed is 1, not 0 as at the checkpoint" in caplog.text
    assert "data: holdout is 1, not 0 as at the checkpoint" in caplog.text


def test_error_of_a_weighted_source_of_which_nothing_can_be_used(folders, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.mp4").touch()
    (bad / "a.txt").write_text("empty")
    with pytest.raises(NothingUsable, match=r"100% of 1 files cannot be used \(1 corrupt\)"):
        ready(data(folders, videos=[Source(str(folders["videos"]), 0.9), Source(str(bad), 0.1)]))


def test_unusable_files_are_not_held_out(folders, media):
    for i in range(30):
        media.broken(f"videos/bad{i}.mp4")
    datamodule = ready(data(folders, images=None, image_batch_size=0, holdout=5, most_unusable=0.9))
    assert held(datamodule) <= {f"{i}.mp4" for i in range(8)} and len(held(datamodule)) == 5


def test_a_resume_says_that_the_data_changed(folders, media, tmp_path, caplog):
    fit(tmp_path, data(folders), 1)
    fit(tmp_path, data(folders), 2, tmp_path / "last.ckpt")
    assert "the data changed" not in caplog.text
    media.video("videos/more.mp4")
    fit(tmp_path, data(folders), 3, tmp_path / "last.ckpt")
    assert "videos: the data changed since the checkpoint (9 samples, 8 before)" in caplog.text
    assert "images: the data changed" not in caplog.text
