import json

import av
import numpy as np
import pytest
import torch
from PIL import Image

from snapvideo.recipes.errors import UserError
from snapvideo.recipes.serving.gallery import NUM_SHOWN, Gallery
from snapvideo.recipes.serving.request import Request

RECORD = {"steps": 2, "guidance": 1.5, "fps": 8.0, "run": "demo/x"}


def request(prompt="x", seed=1, first_frame=None):
    return Request(prompt, seed, 2, 1.5, 8.0, first_frame)


def video(value=200):
    return torch.full((3, 4, 8, 10), value, dtype=torch.uint8)


def test_a_video_is_kept_with_all_there_is_to_know(tmp_path):
    gallery = Gallery(tmp_path / "new/out")
    made = gallery.add(video(), request("a “red” circle\n../../x", 7), RECORD)
    assert made.file.parent == gallery.folder and made.file.suffix == ".mp4"
    assert "circle" not in made.file.name
    with av.open(str(made.file)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 4 and frames[0].shape == (256, 320, 3)
    assert np.abs(np.stack(frames).astype(int) - 200).max() <= 3
    (line,) = [json.loads(line) for line in gallery.meta.read_text().splitlines()]
    assert line == {"file": made.file.name, "prompt": "a “red” circle\n../../x", "seed": 7} | RECORD


def test_the_first_frame_is_kept_as_it_was(tmp_path):
    frame = torch.randint(0, 256, (3, 8, 10), dtype=torch.uint8)
    gallery = Gallery(tmp_path / "out")
    made = gallery.add(video(), request(first_frame=frame), RECORD)
    assert np.array_equal(np.asarray(Image.open(made.first_frame)), frame.permute(1, 2, 0))
    assert Gallery(tmp_path / "out").newest() == [made]


def test_videos_of_before_are_shown_the_newest_first(tmp_path):
    gallery = Gallery(tmp_path / "out")
    made = [gallery.add(video(), request(str(number), number), RECORD) for number in range(NUM_SHOWN + 2)]
    assert gallery.newest() == made[:1:-1]
    assert Gallery(tmp_path / "out").newest() == gallery.newest()
    made[-1].file.unlink()
    assert Gallery(tmp_path / "out").newest()[0] == made[-2]


def test_damaged_lines_and_files_elsewhere_are_left_out(tmp_path):
    gallery = Gallery(tmp_path / "out")
    made = gallery.add(video(), request(), RECORD)
    (tmp_path / "secret.mp4").write_bytes(b"")
    line = {"file": "../secret.mp4", "prompt": "x", "seed": 1} | RECORD
    with gallery.meta.open("a") as file:
        file.write(json.dumps(line) + '\n[1]\n"x"\n\n{"file": 3}\n' + gallery.meta.read_text()[:20])
    assert Gallery(tmp_path / "out").newest() == [made]


def test_other_files_are_not_given_away(tmp_path):
    (tmp_path / "private.txt").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        Gallery(tmp_path)
    with pytest.raises(UserError, match="cannot be written"):
        Gallery(tmp_path / "private.txt")
