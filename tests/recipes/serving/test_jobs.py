import threading
import time
from pathlib import Path

import pytest
import torch

from snapvideo.recipes.errors import UserError
from snapvideo.recipes.serving.gallery import Made
from snapvideo.recipes.serving.jobs import Jobs
from snapvideo.recipes.serving.request import Request


def request(prompt):
    return Request(prompt, 0, 2, None, 8.0)


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come to that within 20 s"
        time.sleep(0.005)


class Maker:
    """Makes a video in three evaluations, each as soon as the test allows it."""

    def __init__(self):
        self.allowed = threading.Semaphore(0)
        self.evaluations = []
        self.made = []

    def __call__(self, request, report):
        for done in range(1, 4):
            assert self.allowed.acquire(timeout=20)
            report(done, 3)
            self.evaluations.append(request.prompt)
        self.made.append(request.prompt)
        return Made(Path(request.prompt), request.prompt, 0, 2, None, 8.0)

    def allow(self, number):
        self.allowed.release(number)


@pytest.fixture
def maker():
    return Maker()


@pytest.fixture
def jobs(maker):
    jobs = Jobs(maker, max_waiting=2)
    yield jobs
    maker.allow(1000)
    jobs.close()


def test_jobs_run_one_after_the_other_in_their_order(maker, jobs):
    line = [jobs.submit(owner, request(owner)) for owner in ("a", "b", "c")]
    assert [jobs.before(job) for job in line] == [0, 1, 2]
    maker.allow(4)
    until(lambda: len(maker.evaluations) == 4)
    assert maker.evaluations == ["a", "a", "a", "b"]
    assert [job.state for job in line] == ["made", "running", "waiting"]
    assert (line[1].done, line[1].total) == (1, 3) and [jobs.before(job) for job in line] == [0, 0, 1]
    maker.allow(5)
    until(lambda: line[2].ended)
    assert maker.made == ["a", "b", "c"] and line[2].made.file == Path("c")


def test_a_running_job_is_cancelled_at_its_next_evaluation(maker, jobs):
    first, second = jobs.submit("a", request("a")), jobs.submit("b", request("b"))
    maker.allow(1)
    until(lambda: first.done == 1)
    jobs.cancel("a")
    maker.allow(1)
    until(lambda: first.ended)
    assert first.state == "cancelled" and maker.evaluations == ["a"]
    maker.allow(3)
    until(lambda: second.ended)
    assert second.state == "made" and maker.made == ["b"]


def test_a_waiting_job_is_cancelled_at_once(maker, jobs):
    first, second, third = (jobs.submit(owner, request(owner)) for owner in ("a", "b", "c"))
    jobs.cancel("b")
    assert second.state == "cancelled" and jobs.before(third) == 1
    jobs.submit("b", request("again"))
    maker.allow(9)
    until(lambda: len(maker.made) == 3)
    assert maker.made == ["a", "c", "again"] and first.state == "made"
    jobs.cancel("nobody")
    jobs.cancel("a")
    assert first.state == "made"


def test_a_full_line_refuses_in_words(maker, jobs):
    for owner in ("a", "b", "c"):
        jobs.submit(owner, request(owner))
    with pytest.raises(UserError, match=r"waiting already \(2\)"):
        jobs.submit("d", request("d"))
    jobs.cancel("c")
    jobs.submit("d", request("d"))


def test_an_owner_has_one_job_at_a_time(maker, jobs):
    job = jobs.submit("a", request("a"))
    with pytest.raises(UserError, match="not done yet"):
        jobs.submit("a", request("a"))
    maker.allow(3)
    until(lambda: job.ended)
    jobs.submit("a", request("a"))


@pytest.mark.parametrize(
    ("error", "words", "printed"),
    [
        (UserError("sampler: num_steps=1 must be 2"), "sampler: num_steps=1 must be 2", ""),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory of the device is not enough", ""),
        (RuntimeError("/secret/path broke"), "terminal", "/secret/path broke"),
    ],
)
def test_a_failure_is_told_in_words_and_the_next_job_runs(error, words, printed, capsys):
    def make(request, report):
        if request.prompt == "bad":
            raise error
        return Made(Path("x"), "x", 0, 2, None, 8.0)

    jobs = Jobs(make, max_waiting=2)
    bad, good = jobs.submit("a", request("bad")), jobs.submit("b", request("good"))
    until(lambda: good.ended)
    jobs.close()
    assert bad.state == "failed" and words in bad.error and "secret" not in bad.error
    assert good.state == "made"
    shown = capsys.readouterr().err
    assert printed in shown and bool(printed) == ("Traceback" in shown)


def test_closing_cancels_all(maker):
    jobs = Jobs(maker, max_waiting=2)
    line = [jobs.submit(owner, request(owner)) for owner in ("a", "b")]
    maker.allow(1)
    until(lambda: line[0].done == 1)
    closing = threading.Thread(target=jobs.close)
    closing.start()
    until(lambda: line[0].cancelling)
    maker.allow(1)
    closing.join(20)
    assert not closing.is_alive() and [job.state for job in line] == ["cancelled", "cancelled"]
