"""Copies of UCF-101 and MSR-VTT in small, laid out as theirs."""

import json

import numpy as np
import pytest

from snapvideo.components.media import write_mp4

CLASSES = {"Archery": 5, "Basketball": 3, "YoYo": 2}
CAPTIONS = {
    "video7010": ["a man sings", "somebody is singing"],
    "video7011": ["a cat eats"],
    "video7012": ["a cow"],
    "video7013": ["a man runs"],
    "video7014": ["a woman cooks"],
    "video3": ["a dog"],
}


def write_video(path, level, frames=24, fps=12):
    """A grey clip of 2 s, 32x24, which gets brighter."""
    steps = np.arange(frames, dtype=np.uint8)[:, None, None, None]
    write_mp4(path, np.full((frames, 24, 32, 3), level, np.uint8) + steps, fps)


@pytest.fixture(scope="session")
def ucf101(tmp_path_factory):
    """A folder with ten videos of three classes, one of another folder, one broken, and a list."""
    root = tmp_path_factory.mktemp("ucf101")
    files = []
    for name, count in CLASSES.items():
        for number in range(count):
            file = root / "UCF-101" / name / f"v_{name}_g01_c{number:02d}.avi"
            write_video(file.with_suffix(".mp4"), 10 * len(files))
            files.append(file.with_suffix(".mp4").rename(file))
    files[-1].write_bytes(b"no video")
    (root / "UCF-101/Other").mkdir()
    (root / "UCF-101/Other/v_Other_g01_c00.avi").write_bytes(files[0].read_bytes())
    (root / "ucfTrainTestlist").mkdir()
    lines = [f"{file.parent.name}/{file.name} {number}" for number, file in enumerate(files[:6])]
    (root / "ucfTrainTestlist/trainlist01.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def msr_vtt(tmp_path_factory):
    """An annotation file, and its videos but for one of the five of the test split."""
    root = tmp_path_factory.mktemp("msr_vtt")
    videos = [{"video_id": name, "split": "train" if name == "video3" else "test"} for name in CAPTIONS]
    sentences = [{"video_id": name, "caption": text} for name, texts in CAPTIONS.items() for text in texts]
    (root / "data.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))
    for name in CAPTIONS.keys() - {"video7012"}:
        write_video(root / "videos" / f"{name}.mp4", 100)
    return root
