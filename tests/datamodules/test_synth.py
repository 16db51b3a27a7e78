from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from snapvideo.datamodules import synth
from snapvideo.datamodules.shapes import HELD_OUT, draw_scene, ground_truth, holds_out, render
from snapvideo.datamodules.synth import MANIFEST, write_shapes


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shapes") / "new" / "data"
    write_shapes(out, num_videos=40, num_images=6, size=32, workers=1)
    return out


def test_the_folder_is_complete_and_holds_nothing_else(folder):
    videos = [f"videos/{i:06d}{end}" for i in range(40) for end in (".json", ".mp4", ".txt")]
    images = [f"images/{i:06d}{end}" for i in range(6) for end in (".jpg", ".json", ".txt")]
    assert sorted(contents(folder)) == sorted([*videos, *images, MANIFEST])
    assert json.loads((folder / MANIFEST).read_text()) == {
        "num_videos": 40,
        "num_images": 6,
        "size": 32,
        "fps": 16,
        "duration": 1.0,
        "seed": 0,
        "width": None,
        "version": 2,
    }


def test_videos_are_the_scenes_of_their_captions(folder):
    for i in range(40):
        scene = draw_scene(np.random.default_rng([0, 0, i]))
        media = folder / "videos" / f"{i:06d}.mp4"
        assert json.loads(media.with_suffix(".json").read_text()) == ground_truth(scene)
        assert media.with_suffix(".txt").read_text() == f"{ground_truth(scene)['caption']}\n"
        frames = decode(media)
        assert frames.shape == (16, 32, 32, 3)
        # h264 halves the resolution of colour, so that edges differ; planes do not.
        drawn = render(scene, 16, 32).astype(int)
        steps = ((dy, dx) for dy in (-2, 0, 2) for dx in (-2, 0, 2))
        plane = np.all([np.roll(drawn, step, (1, 2)) == drawn for step in steps], axis=(0, -1))
        assert plane.mean() > 0.5
        assert np.abs(frames - drawn)[plane].max() < 40
        assert np.abs(frames - drawn)[plane].mean() < 2


def test_videos_play_at_their_rate(folder):
    with av.open(str(folder / "videos" / "000000.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.codec_context.name, stream.pix_fmt) == (16, "h264", "yuv420p")
        assert float(stream.duration * stream.time_base) == pytest.approx(1.0)


def test_images_are_sharp_in_colour(folder):
    for i in range(6):
        scene = draw_scene(np.random.default_rng([0, 1, i]), is_image=True)
        with Image.open(folder / "images" / f"{i:06d}.jpg") as image:
            assert image.size == (32, 32)
            assert np.abs(np.asarray(image, float) - render(scene, 1, 32)[0]).mean() < 4


def test_items_do_not_depend_on_processes_or_number(folder, tmp_path):
    write_shapes(tmp_path, num_videos=36, num_images=2, size=32, workers=2)
    ours = contents(tmp_path)
    ours.pop(MANIFEST)
    theirs = contents(folder)
    assert {name: theirs[name] for name in ours} == ours


def test_two_may_write_the_same_folder_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=write_shapes, args=(tmp_path / "x", 40, 40), kwargs={"size": 16, "workers": 1})
        for _ in range(2)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert (tmp_path / "x/shapes.json").exists()
    assert len(list(tmp_path.rglob("*.mp4"))) == 40
    assert not list(tmp_path.rglob("*.tmp"))


def test_another_seed_gives_other_scenes(folder, tmp_path):
    write_shapes(tmp_path, num_videos=3, num_images=0, size=32, seed=1, workers=1)
    assert (tmp_path / "videos/000000.json").read_text() != (folder / "videos/000000.json").read_text()


def test_combinations_can_be_held_out(folder, tmp_path):
    settings = {"num_videos": 24, "num_images": 6, "size": 32, "workers": 1}
    write_shapes(tmp_path / "a", **settings, hold_out_combinations=True)
    assert json.loads((tmp_path / "a" / MANIFEST).read_text())["hold_out_combinations"] is True
    ours, all_files = contents(tmp_path / "a"), contents(folder)
    for kind, end, number in (("videos", "mp4", 24), ("images", "jpg", 6)):
        for i in range(number):
            rng = np.random.default_rng([0, kind == "images", i])
            held_out = holds_out(draw_scene(rng, kind == "images"))
            name = f"{kind}/{i:06d}"
            assert (ours[f"{name}.{end}"] == all_files[f"{name}.{end}"]) == (not held_out)
            truth = json.loads(ours[f"{name}.json"])
            assert not {(t["colour"], t["shape"]) for t in truth["things"]} & HELD_OUT
            assert not {(t["shape"], t["direction"]) for t in truth["things"]} & HELD_OUT
    with pytest.raises(ValueError, match="hold_out_combinations True, not None"):
        write_shapes(tmp_path / "a", **settings)


def test_a_complete_folder_is_left_alone(folder, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.setattr(synth, "_write_item", None)
    write_shapes(folder, num_videos=40, num_images=6, size=32)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_stopped_run_is_taken_up(tmp_path, monkeypatch):
    write_item = synth._write_item

    def stop(settings, folder, index):
        if index == 3:
            raise KeyboardInterrupt
        write_item(settings, folder, index)

    monkeypatch.setattr(synth, "_write_item", stop)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / "a", num_videos=5, num_images=2, size=24, workers=1)
    assert not (tmp_path / "a" / MANIFEST).exists()
    monkeypatch.undo()

    with pytest.raises(ValueError, match="seed 0, not 4"):
        write_shapes(tmp_path / "a", num_videos=5, num_images=2, size=24, seed=4, workers=1)
    done = tmp_path / "a/videos/000001.mp4"
    os.utime(done, ns=(1, 1))
    write_shapes(tmp_path / "a", num_videos=5, num_images=2, size=24, workers=1)
    assert done.stat().st_mtime_ns == 1
    write_shapes(tmp_path / "b", num_videos=5, num_images=2, size=24, workers=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_failed_encoding_leaves_no_media(tmp_path, monkeypatch):
    def fail(path, frames, fps):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(synth, "_encode", fail)
    with pytest.raises(OSError, match="disk full"):
        write_shapes(tmp_path, num_videos=1, num_images=0, size=24, workers=1)
    assert not list(tmp_path.rglob("*.mp4"))


def test_other_settings_are_refused(folder):
    before = contents(folder)
    with pytest.raises(ValueError, match="size 32, not 64"):
        write_shapes(folder, num_videos=40, num_images=6, size=64)
    assert contents(folder) == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        write_shapes(tmp_path, num_videos=1, num_images=0)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 33}, "size is 33.*34"),
        ({"size": 0}, "size is 0"),
        ({"fps": 0}, "fps is 0"),
        ({"num_videos": -1}, "num_videos is -1"),
        ({"duration": 3.0}, "duration is 3.0"),
        ({"duration": 0.3}, "4.8 frames"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_settings(tmp_path, changes, message):
    settings = {"num_videos": 1, "num_images": 1, **changes}
    with pytest.raises(ValueError, match=message):
        write_shapes(tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()
