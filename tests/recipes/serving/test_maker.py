import pytest
import torch

from snapvideo.components.media import to_uint8
from snapvideo.recipes.errors import UserError
from snapvideo.recipes.generation import Generation
from snapvideo.recipes.requests import Request as Asked
from snapvideo.recipes.run import load_model
from snapvideo.recipes.serving.jobs import Cancelled
from snapvideo.recipes.serving.maker import VideoMaker
from snapvideo.recipes.serving.request import Request
from snapvideo.recipes.stages import Stages

PROMPT = "a red circle moves left"


@pytest.fixture
def maker(work):
    return VideoMaker("runs/demo", device="cpu", precision="32-true")


def ignore(done, total):
    pass


@pytest.mark.parametrize(("steps", "guidance"), [(2, 1.0), (3, 4.0), (2, 0.5)])
def test_a_video_is_that_of_the_command_line(maker, steps, guidance):
    video, record = maker.make(Request(PROMPT, 5, steps, guidance, 4.0), ignore)
    model = load_model("runs/demo", num_steps=steps, guidance=guidance, device="cpu")
    (expected,) = Generation(Stages([model])).predict_step([Asked(PROMPT, 5, 4.0, "a")], 0).values()
    assert torch.equal(video, to_uint8(expected[0]))
    assert (record["steps"], record["guidance"], record["fps"]) == (steps, guidance, 4.0)
    assert record["settings"]["sampler"]["init_args"]["num_steps"] == steps


def test_settings_are_of_one_video_alone(maker):
    first, _ = maker.make(Request(PROMPT, 5, 3, 4.0, 8.0), ignore)
    maker.make(Request(PROMPT, 5, 2, 1.0, 8.0), ignore)
    again, record = maker.make(Request(PROMPT, 5, 3, None, 8.0), ignore)
    assert record["guidance"] == maker.guidance == load_model("runs/demo").guidance.scale
    again, _ = maker.make(Request(PROMPT, 5, 3, 4.0, 8.0), ignore)
    assert torch.equal(first, again)


def test_progress_is_told_at_each_evaluation(maker):
    told = []
    maker.make(Request(PROMPT, 0, 3, 1.0, 8.0), lambda done, total: told.append((done, total)))
    assert told == [(done, 5) for done in range(6)]  # Heun's three steps


def test_cancelling_ends_it_within_an_evaluation(maker):
    told = []

    def report(done, total):
        told.append(done)
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        maker.make(Request(PROMPT, 0, 50, 1.0, 8.0), report)
    assert told == [0, 1, 2]
    maker.make(Request(PROMPT, 0, 1, 1.0, 8.0), ignore)


def test_other_parts_of_sampling(work):
    words = ["--model.sampler=DDIM", "--model.guidance=Threshold", "--model.guidance.guidance=ClassifierFree"]
    maker = VideoMaker("runs/demo", device="cpu", settings=words)
    told = []
    _, record = maker.make(Request(PROMPT, 0, 4, 3.0, 8.0), lambda done, total: told.append(total))
    assert record["sampler"] == "DDIM" and set(told) == {4}
    assert record["settings"]["guidance"]["init_args"]["guidance"]["init_args"]["scale"] == 3.0


def test_what_a_sampler_refuses_is_a_users_error(work):
    maker = VideoMaker("runs/demo", device="cpu")
    with pytest.raises(UserError, match="num_steps=0"):
        maker.make(Request(PROMPT, 0, 0, 1.0, 8.0), ignore)


def test_an_upsampler_is_refused_at_the_start(upsampler):
    with pytest.raises(UserError, match="enlarges videos"):
        VideoMaker(upsampler, device="cpu")


def test_a_video_begins_with_the_first_frame(maker):
    frame = torch.randint(0, 256, (3, *list(maker.shape)[2:]), dtype=torch.uint8)
    told = []
    request = Request(PROMPT, 5, 2, 2.0, 8.0, frame)
    video, _ = maker.make(request, lambda done, total: told.append((done, total)))
    assert torch.equal(video[:, 0], frame) and told[-1] == (3, 3)
    free, _ = maker.make(Request(PROMPT, 5, 2, 2.0, 8.0), ignore)
    assert not torch.equal(video[:, 1:], free[:, 1:])
