import json
import os
from pathlib import Path

import pytest

from snapvideo.components.interfaces import VideoShape
from snapvideo.datamodules.shapes_data import Shapes

SHAPE = VideoShape(num_frames=4, height=16, width=16)


def shapes(root, **settings):
    return Shapes(SHAPE, root, **{"num_videos": 4, "num_images": 3, "size": 16, "fps": (8.0,)} | settings)


def test_draws_itself_once_and_yields_joint_batches(tmp_path):
    data = shapes(tmp_path / "shapes", video_batch_size=2, image_batch_size=1)
    data.prepare_data()
    data.setup("fit")
    videos, images = next(iter(data.train_dataloader()))
    assert list(videos.video.shape) == [2, 3, 4, 16, 16] and list(images.video.shape) == [1, 3, 1, 16, 16]
    assert all(videos.captions) and all(images.captions)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    shapes(tmp_path / "shapes").prepare_data()
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_refuses_a_folder_of_other_shapes(tmp_path):
    shapes(tmp_path / "shapes").prepare_data()
    with pytest.raises(ValueError, match="seed"):
        shapes(tmp_path / "shapes", seed=1).prepare_data()


def test_without_images(tmp_path):
    data = shapes(tmp_path, image_batch_size=0)
    data.prepare_data()
    data.setup("fit")
    assert len(next(iter(data.train_dataloader()))) == 1


def test_root_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setitem(os.environ, "SHAPES", str(tmp_path))
    assert shapes(Path("$SHAPES/a")).root == tmp_path / "a"


def test_combinations_are_held_out_where_asked(tmp_path):
    shapes(tmp_path / "shapes", num_videos=2, num_images=2, hold_out_combinations=True).prepare_data()
    assert json.loads((tmp_path / "shapes/shapes.json").read_text())["hold_out_combinations"] is True
