"""Long videos: properties of the plan, and the loop on a model that writes down what it is asked for."""

import random
from collections.abc import Iterator, Sequence

import pytest
import torch

from snapvideo.components import GivenFrames, LongVideo
from snapvideo.components.interfaces import Prompt, VideoShape
from snapvideo.components.sampling.long import Window

SIZE = 8
LADDERS = [(8.0,), (2.0, 8.0), (1.0, 7.0), (0.5, 1.0, 3.0, 12.0), (23.976 / 4, 23.976)]


def plans(rates: Sequence[float], overlap: int) -> Iterator[tuple[LongVideo, list[int], list[Window]]]:
    """Plans of long videos of many lengths, with given frames that the lowest rate sees."""
    draw, stride = random.Random(0), round(rates[-1] / rates[0])
    for num_frames in (1, 5, SIZE, SIZE + 1, 24, 25, 40, 97):
        video, grid = LongVideo(num_frames / rates[-1], rates, overlap), range(0, num_frames, stride)
        clip, any_three = range(draw.randint(1, num_frames)), draw.sample(grid, min(3, len(grid)))
        for given in ([], [0], [grid[-1]], [0, grid[-1]], list(clip), any_three):
            yield video, given, video.windows(SIZE, given)


@pytest.mark.parametrize("rates", LADDERS, ids=str)
@pytest.mark.parametrize("overlap", [1, 3, 7])
def test_plan(rates, overlap):
    for video, given, windows in plans(rates, overlap):
        there = set(given)
        for window in windows:
            assert len(window.places) == SIZE and window.places[0] >= 0
            assert window.places.step == round(rates[-1] / window.fps)
            assert set(window.known) == there & set(window.places)  # all that exists is used, nothing that doesn't
            assert window.new and not there & set(window.new) and set(window.new) <= set(window.places)
            there |= set(window.new)
        assert there >= set(range(video.num_frames))
        order = [window.fps for window in windows]
        assert order == sorted(order) and set(order) <= set(rates)


@pytest.mark.parametrize("rates", LADDERS, ids=str)
@pytest.mark.parametrize("overlap", [1, 3, 7])
def test_new_frames_join_what_exists(rates, overlap):
    """A window sees at least the frame before what it adds, and the one after it, where these exist."""
    for _, given, windows in plans(rates, overlap):
        there = set(given)
        for window in windows:
            beside = {place + step for place in window.new for step in (-window.places.step, window.places.step)}
            assert beside & there <= set(window.known)
            there |= set(window.new)


def test_one_rate_goes_on_from_the_last_frame():
    windows = LongVideo(22 / 8, (8.0,)).windows(SIZE)
    assert [list(w.places) for w in windows] == [list(range(i, i + SIZE)) for i in (0, 7, 14)]
    assert [w.known for w in windows] == [(), (7,), (14,)]
    windows = LongVideo(3.0, (8.0,)).windows(SIZE)
    assert list(windows[-1].places) == list(range(16, 24))  # shifted back, not cut
    assert windows[-1].known == (16, 17, 18, 19, 20, 21)


def test_each_rate_fills_the_gaps_of_the_one_before():
    first, *others = LongVideo(22 / 6, (2.0, 6.0)).windows(SIZE)
    assert first.places == range(0, 22, 3) and first.fps == 2.0
    assert [w.known[-1] for w in others] == [6, 12, 18, 21]
    assert [w.new for w in others] == [(1, 2, 4, 5), (7, 8, 10, 11), (13, 14, 16, 17), (19, 20)]


class Recorder:
    """A model whose videos are the seed, but for known frames; it writes down what it is asked for."""

    shape, device = VideoShape(SIZE, 2, 3), torch.device("cpu")

    def __init__(self) -> None:
        self.asked: list[tuple[list[float], list[int]]] = []

    def sample(self, prompt, seeds, on_evaluation=None, steer=None):
        self.asked.append((prompt.fps.tolist(), list(seeds)))
        value = torch.tensor([(seed % 1000) / 1000 for seed in seeds])
        video = value[:, None, None, None, None].expand(-1, *self.shape)
        if steer is None:
            return video
        return steer(lambda y, sigma: video + 0 * y)(torch.zeros(len(seeds), *self.shape), torch.ones(len(seeds)))


def prompt(count: int) -> Prompt:
    return Prompt([f"text {i}" for i in range(count)], torch.full((count,), 99.0), torch.full((count, 2), 64.0))


def test_windows_are_sampled_at_their_rates_with_what_exists():
    model, video = Recorder(), LongVideo(22 / 6, (2.0, 6.0))
    frames = video.sample(model, prompt(2), [5, 7])
    windows = video.windows(SIZE)
    assert frames.shape == (2, 3, 22, 2, 3)
    assert [fps for fps, _ in model.asked] == [[window.fps] * 2 for window in windows]
    assert model.asked[0][1] == [5, 7]  # the first window is what the model makes of the seed
    seeds = [seed for _, row in model.asked for seed in row]
    assert len(set(seeds)) == len(seeds)
    for window, (_, row) in zip(windows, model.asked, strict=True):
        for place in window.new:
            torch.testing.assert_close(frames[:, 0, place, 0, 0], torch.tensor([seed % 1000 / 1000 for seed in row]))


def test_a_video_depends_on_its_own_seed_alone():
    video = LongVideo(3.0, (2.0, 8.0))
    together = video.sample(Recorder(), prompt(3), [1, -2, 2**63])
    alone = [video.sample(Recorder(), prompt(1), [seed]) for seed in (1, -2, 2**63)]
    assert torch.equal(together, torch.cat(alone))
    assert len({tuple(one.flatten().tolist()) for one in alone}) == 3


@pytest.mark.parametrize("places", [[0], [0, -1], [*range(5)], [-1]])
def test_given_frames_are_in_the_video(places):
    given = torch.rand(2, 3, len(places), 2, 3) * 2 - 1
    frames = LongVideo(25 / 8, (2.0, 8.0)).sample(Recorder(), prompt(2), [5, 7], GivenFrames(given, places))
    assert torch.equal(frames[:, :, places], given)


def test_given_frames_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"given frames are \[2, 3, 1, 4, 4\]: they must be \[2, 3, 1, 2, 3\]"):
        LongVideo(3.0, (8.0,)).sample(Recorder(), prompt(2), [1, 2], GivenFrames(torch.zeros(2, 3, 1, 4, 4), [0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LongVideo(3.0, ()), "rates=.*at least one"),
        (lambda: LongVideo(3.0, (8.0, 8.0)), "8 is no whole multiple of 8"),
        (lambda: LongVideo(3.0, (8.0, 12.0)), "12 is no whole multiple of 8"),
        (lambda: LongVideo(0.01, (8.0,)), "duration=0.01 s"),
        (lambda: LongVideo(float("inf"), (8.0,)), "duration=inf s"),
        (lambda: LongVideo(3.0, (8.0,), overlap=0), "overlap=0 must be at least 1"),
        (lambda: LongVideo(3.0, (8.0,), overlap=8).windows(8), "overlap=8 must be below the 8 frames"),
        (lambda: LongVideo(3.0, (1.0, 8.0)).windows(8), "up to 7: put a rate between"),
        (lambda: LongVideo(3.0, (8.0,)).windows(8, [24]), "frame 24 is given, but the video has 24 frames"),
        (lambda: LongVideo(3.0, (2.0, 8.0)).windows(8, [0, 23]), "frames 20 and 24: .*2.625 or 3.125 s"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
