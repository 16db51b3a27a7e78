"""Prompts and real clips of the sets that models are measured on."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from snapvideo.components.interfaces import VideoShape
from snapvideo.components.media import write_mp4
from snapvideo.components.metrics.shape_captions import parse_caption
from snapvideo.datamodules.evaluation import FolderSet, MsrVtt, ShapesSet, Ucf101
from snapvideo.datamodules.evaluation.files import FileClips, file_at
from snapvideo.datamodules.evaluation.ucf101_prompts import PROMPTS
from snapvideo.datamodules.samples import Unusable
from snapvideo.datamodules.shapes import HELD_OUT, draw_scene, render
from snapvideo.datamodules.synth import write_shapes

SHAPE = VideoShape(4, 16, 16)


def test_shapes_are_drawn_exactly_and_again():
    real = ShapesSet(num_real=3).real(VideoShape(4, 16, 32), 8.0)
    assert len(real) == 3 and real[0].video.shape == (3, 4, 16, 32)
    assert torch.equal(real[1].video, ShapesSet(num_real=3).real(VideoShape(4, 16, 32), 8.0)[1].video)
    fast = ShapesSet(num_real=3).real(VideoShape(8, 16, 32), 16.0)
    assert torch.equal(fast[2].video[:, ::2], real[2].video), "the same half second, at twice the rate"
    assert all(clip.text.startswith("a ") for clip in real)
    assert not torch.equal(real[0].video, ShapesSet(num_real=3, seed=1).real(VideoShape(4, 16, 32), 8.0)[0].video)


def test_shapes_are_none_that_training_draws(tmp_path):
    """Scenes of a data set of the default seed, and of seeds near it, have other places."""
    write_shapes(tmp_path / "shapes", 3, 0, size=16, workers=1)
    train = [render(draw_scene(np.random.default_rng([seed, False, i])), 4, 16) for seed in range(3) for i in range(4)]
    ours = [clip.video.permute(1, 2, 3, 0).numpy() for clip in ShapesSet(num_real=8).real(SHAPE, 4.0)]
    assert not any(np.array_equal(one, other) for one in train for other in ours)


def test_prompts_of_shapes_begin_alike_whatever_their_number():
    prompts = ShapesSet().prompts(50, SHAPE)
    assert prompts[:20] == ShapesSet().prompts(20, SHAPE)
    assert len(set(prompts)) > 30
    captions = {clip.text for clip in ShapesSet(num_real=50).real(SHAPE, 4.0)}
    assert set(prompts) != captions, "real clips are of other scenes"


def test_shapes_of_combinations_that_training_leaves_out():
    for held_out in (True, False):
        data = ShapesSet(num_real=12, held_out=held_out)
        texts = [*data.prompts(12, SHAPE), *(clip.text for clip in data.real(SHAPE, 8.0))]
        things = [thing for text in texts for thing in parse_caption(text).things]
        kept = [(t.colour, t.shape) in HELD_OUT or (t.shape, t.direction) in HELD_OUT for t in things]
        assert sum(kept) >= 24 if held_out else not any(kept)
        assert data.record() != ShapesSet(num_real=12).record()


def test_clips_longer_than_scenes_are_refused():
    with pytest.raises(ValueError, match="fps is 8: scenes last 1 s, and 16 frames need 16"):
        ShapesSet().real(VideoShape(16, 16, 16), 8.0)


def test_classes_of_ucf101_come_as_often_as_in_the_data(ucf101):
    prompts = Counter(Ucf101(ucf101).prompts(100, SHAPE))
    assert prompts == {PROMPTS["Archery"]: 50, PROMPTS["Basketball"]: 30, PROMPTS["YoYo"]: 20}
    for num in (1, 7, 33, 101):
        counts = Counter(Ucf101(ucf101).prompts(num, SHAPE))
        assert counts.total() == num
        for name, share in {"Archery": 0.5, "Basketball": 0.3, "YoYo": 0.2}.items():
            assert abs(counts[PROMPTS[name]] - share * num) < 1
    assert len(PROMPTS) == len(set(PROMPTS.values())) == 101


def test_clips_of_ucf101(ucf101):
    real = Ucf101(ucf101).real(SHAPE, 12.0)
    assert len(real) == 10, "the folder of another class is none of its"
    clips = [real[i] for i in range(10)]
    assert isinstance(clips[-1], Unusable), "a broken file"
    assert all(clip.video.shape == (3, 4, 16, 16) for clip in clips[:-1])
    assert [clip.text for clip in clips[:5]] == [PROMPTS["Archery"]] * 5
    levels = clips[0].video.float().mean((0, 2, 3))
    assert abs(float(levels[3] - levels[0]) - 3) <= 1, "one frame after the other at the video's own rate"
    assert pickle.loads(pickle.dumps(real))[0].video.equal(clips[0].video), "a worker of any kind can have it"
    starts = {float(clip.video.float().mean()) - 10 * place for place, clip in enumerate(clips[:-1])}
    assert max(starts) - min(starts) > 2, "clips begin at different times"


def test_a_split_of_ucf101(ucf101):
    split = Ucf101(ucf101, split="train01")
    assert len(split.real(SHAPE, 12.0)) == 6 and split.record()["split"] == "train01"
    with pytest.raises(ValueError, match=r"split is 'test02'.*known: train01"):
        Ucf101(ucf101, split="test02").prompts(3, SHAPE)
    with pytest.raises(ValueError, match="no videos of UCF-101"):
        Ucf101(ucf101 / "ucfTrainTestlist").prompts(3, SHAPE)


def test_captions_of_msr_vtt(msr_vtt):
    data = MsrVtt(msr_vtt / "data.json", msr_vtt / "videos")
    assert data.prompts(6, SHAPE)[:4] == ["a man sings", "somebody is singing", "a cat eats", "a cow"]
    assert data.prompts(2, SHAPE) == data.prompts(2, SHAPE) and len(data.prompts(2, SHAPE)) == 2
    clips = [data.real(SHAPE, 12.0)[i] for i in range(5)]
    assert str(clips.pop(2)) == "missing", "which keeps its place"
    assert [clip.text for clip in clips] == ["a man sings", "a cat eats", "a man runs", "a woman cooks"]
    assert clips[0].video.shape == (3, 4, 16, 16)
    assert data.record()["captions"] != MsrVtt(msr_vtt / "data.json", msr_vtt, split="train").record()["captions"]
    with pytest.raises(ValueError, match=r"num is 7: .* has 6 captions of test"):
        data.prompts(7, SHAPE)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [("{", "is not MSR-VTT's"), ("[]", "is not MSR-VTT's"), ('{"videos": [], "sentences": []}', "has captions of ")],
)
def test_another_file_is_told_from_msr_vtt(text, fragment, tmp_path):
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(ValueError, match=fragment):
        MsrVtt(tmp_path / "data.json", tmp_path).prompts(1, SHAPE)
    with pytest.raises(ValueError, match=r"none\.json cannot be read"):
        MsrVtt(tmp_path / "none.json", tmp_path).prompts(1, SHAPE)


def test_videos_of_msr_vtt_that_are_elsewhere_are_told(msr_vtt, tmp_path):
    with pytest.raises(ValueError, match=r"has none of the 5 of the split, as video7010\.mp4"):
        MsrVtt(msr_vtt / "data.json", tmp_path).real(SHAPE, 12.0)


def test_a_folder_of_ones_own(tmp_path):
    for number in range(4):
        write_mp4(tmp_path / f"{number}.mp4", np.full((12, 16, 16, 3), 40 * number, np.uint8), 12)
        (tmp_path / f"{number}.txt").write_text(f"clip {number}")
    own = FolderSet(tmp_path)
    assert sorted(own.prompts(4, SHAPE)) == [f"clip {number}" for number in range(4)]
    assert own.prompts(4, SHAPE)[:2] == own.prompts(2, SHAPE)
    real = own.real(SHAPE, 12.0)
    clips = [real[i] for i in range(len(real))]
    assert [clip.text for clip in clips] == [f"clip {number}" for number in range(4)]
    assert [round(float(clip.video.float().mean()) / 40) for clip in clips] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="num is 5"):
        own.prompts(5, SHAPE)
    before = own.record()
    (tmp_path / "3.mp4").write_bytes((tmp_path / "2.mp4").read_bytes() + b"0")
    assert FolderSet(tmp_path).record() != before, "other contents"
    (tmp_path / "0.mp4").unlink()
    real = FolderSet(tmp_path).real(SHAPE, 12.0)
    assert real[0].video.equal(clips[1].video), "a clip is a function of its file, whatever others there are"
    with pytest.raises(ValueError, match="cannot be read"):
        FileClips([file_at(tmp_path, "a folder")], SHAPE, 12.0, 0)[0]
