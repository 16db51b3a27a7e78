import copy
import os
import socket

import mpmath
import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from snapvideo.components.metrics import FID, FVD, ImageNetwork, InceptionScore, frechet_distance
from snapvideo.components.metrics.frechet import Moments
from snapvideo.components.metrics.network import Classifier, VideoNetwork, spaced_frames

CAPTIONS = [""] * 8


class Means(VideoNetwork, ImageNetwork, Classifier):
    """Of a video, numbers that are its mean colours, and their squares and products."""

    width, classes = 9, 9

    def __init__(self, of_frames=False):
        self.of_frames = of_frames

    files = ()

    def load(self):
        raise AssertionError

    def preprocessing(self):
        return {}

    def __call__(self, videos):
        x = videos.float().mean(dim=(3, 4) if self.of_frames else (2, 3, 4)) / 255
        x = x.transpose(1, 2) if self.of_frames else x
        return torch.cat([x, x.square(), x * x.roll(1, -1)], -1)

    def classify(self, videos):
        return (9 * self(videos)).softmax(-1).reshape(len(videos), -1, 9)


def gaussian(samples: torch.Tensor):
    return samples.mean(dim=0), samples.T.cov()


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The distance


def test_one_dimension_and_diagonal_covariances():
    """Known: the squared differences of the means and of the deviations."""
    one = frechet_distance(torch.tensor([1.0]), torch.tensor([[4.0]]), torch.tensor([3.0]), torch.tensor([[25.0]]))
    assert one.dtype == torch.float64 and float(one) == pytest.approx(4 + 9, rel=1e-14)

    means, deviations = normal(0, 2, 7), normal(1, 2, 7).abs()
    found = frechet_distance(means[0], deviations[0].square().diag(), means[1], deviations[1].square().diag())
    known = (means[0] - means[1]).square().sum() + (deviations[0] - deviations[1]).square().sum()
    assert float(found) == pytest.approx(float(known), rel=1e-12)


def test_one_covariance_a_multiple_of_the_other():
    covariance = normal(0, 30, 12).T.cov()[:12, :12]
    mean = normal(1, 12)
    found = frechet_distance(mean, covariance, mean, 2.25 * covariance)
    assert float(found) == pytest.approx(float(covariance.trace()) * (1 - 1.5) ** 2, rel=1e-10)
    assert float(frechet_distance(mean, covariance, mean, covariance)) == pytest.approx(0, abs=1e-10)


def test_covariances_of_rank_one():
    u, v, zero = normal(0, 40), normal(1, 40), torch.zeros(40, dtype=torch.float64)
    found = frechet_distance(zero, torch.outer(u, u), zero, torch.outer(v, v))
    assert float(found) == pytest.approx(float(u @ u + v @ v - 2 * (u @ v).abs()), rel=1e-9)


@pytest.mark.parametrize("count", [4, 30])
def test_against_sixty_digits(count):
    """The trace of the root of A B from the eigenvalues of A B, also where both are singular (4 samples of 6)."""
    (mean_a, a), (mean_b, b) = gaussian(normal(0, count, 6)), gaussian(normal(1, count, 6) * 2 + 1)
    with mpmath.workdps(60):
        values = mpmath.eig(mpmath.matrix(a.tolist()) * mpmath.matrix(b.tolist()), left=False, right=False)
        root = float(sum(mpmath.sqrt(abs(mpmath.re(value))) for value in values))
    known = float((mean_a - mean_b).square().sum() + a.trace() + b.trace()) - 2 * root
    # Rounded to float64, a singular covariance is singular to 1e-16 alone, of which the root is 1e-8.
    assert float(frechet_distance(mean_a, a, mean_b, b)) == pytest.approx(known, rel=1e-7)


def test_fewer_samples_than_dimensions():
    """From the samples themselves, in numpy: the root's trace is the nuclear norm of the product of the samples."""
    a, b = (samples.numpy() for samples in (normal(0, 20, 300), normal(1, 12, 300) + 0.1))
    x, y = ((samples - samples.mean(0)) / np.sqrt(len(samples) - 1) for samples in (a, b))
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    known = ((a.mean(0) - b.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * root
    found = frechet_distance(*gaussian(torch.from_numpy(a)), *gaussian(torch.from_numpy(b)))
    assert float(found) == pytest.approx(known, rel=1e-10)


def test_a_rotation_changes_nothing_and_both_sides_are_equal():
    a, b = gaussian(normal(0, 30, 20)), gaussian(2 * normal(1, 15, 20) + 1)
    rotation, _ = torch.linalg.qr(normal(2, 20, 20))
    turned = [(mean @ rotation, rotation.T @ covariance @ rotation) for mean, covariance in (a, b)]
    known = float(frechet_distance(*a, *b))
    assert float(frechet_distance(*turned[0], *turned[1])) == pytest.approx(known, rel=1e-10)
    assert float(frechet_distance(*b, *a)) == pytest.approx(known, rel=1e-10)


def test_moments_of_parts_add_up():
    samples = normal(0, 31, 5) + 3
    total = Moments.of(samples[:4]) + Moments.of(samples[4:5]) + Moments.of(samples[5:])
    assert torch.allclose(total.mean, samples.mean(dim=0), rtol=1e-12)
    assert torch.allclose(total.covariance, samples.T.cov(), rtol=1e-9)


# The metrics


def filled(metric, videos, real=None):
    metric.update(videos, CAPTIONS[: len(videos)])
    if real is not None:
        metric.update(real, CAPTIONS[: len(real)], real=True)
    return metric


def test_fid_is_that_of_torchmetrics(videos):
    class Features(nn.Module):
        num_features = 9

        def forward(self, images):
            return Means()(images[:, :, None]).double()

    ours = filled(FID(Means(of_frames=True), frames=4), videos[:5], videos[5:])
    theirs = FrechetInceptionDistance(feature=Features()).set_dtype(torch.float64)
    for part, real in ((videos[:5], False), (videos[5:], True)):
        frames = spaced_frames(part, 4).transpose(1, 2).flatten(0, 1)
        theirs.update(frames, real=real)
    assert float(ours.compute()["fid"]) == pytest.approx(float(theirs.compute()), rel=1e-4)
    assert int(ours.count) == 20 and int(ours.real_count) == 12


def test_batches_and_order_change_nothing(videos):
    real = videos.flip(1) // 2
    at_once = filled(FVD(Means()), videos, real).compute()["fvd"]
    assert at_once > 0
    parts = FVD(Means())
    for part in (videos[5:], videos[:1], videos[1:5]):
        parts.update(part, CAPTIONS[: len(part)])
        parts.compute()
    for part in real.flip(0).split(3):
        parts.add(parts.observe(part, CAPTIONS[: len(part)]), real=True)
    assert float(parts.compute()["fvd"]) == pytest.approx(float(at_once), rel=1e-9)
    assert float(filled(FVD(Means()), videos, videos.flip(0)).compute()["fvd"]) == pytest.approx(0, abs=1e-9)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_to_compare_is_no_number(videos):
    metric = FVD(Means())
    assert metric.compute()["fvd"].isnan()
    metric.update(videos, CAPTIONS)
    metric.update(videos[:1], CAPTIONS[:1], real=True)
    assert metric.compute()["fvd"].isnan()  # one real video has no covariance
    metric.update(videos[1:], CAPTIONS[1:], real=True)
    assert metric.compute()["fvd"] == pytest.approx(0, abs=1e-9)
    metric.reset()
    assert metric.compute()["fvd"].isnan()


@pytest.mark.parametrize("cast", ["half", "bfloat16"])
def test_sums_stay_float64_and_networks_stay_outside(videos, cast):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.metric, self.layer = FVD(Means()), nn.Linear(2, 2)

    model = Model()
    exact = filled(copy.deepcopy(model.metric), videos, videos // 2).compute()["fvd"]
    getattr(model, cast)()
    filled(model.metric, videos, videos // 2)
    getattr(model, cast)()
    getattr(model.metric, cast)()
    states = [getattr(model.metric, name) for name in ("count", "sum", "outer", "real_count", "real_sum", "real_outer")]
    assert {state.dtype for state in states} == {torch.float64}
    assert torch.equal(model.metric.compute()["fvd"], exact)
    assert set(model.state_dict()) == {"layer.weight", "layer.bias"}
    assert copy.deepcopy(model).metric.network is model.metric.network


def test_frames_are_evenly_spaced():
    video = torch.arange(16).reshape(1, 1, 16, 1, 1)
    for count, frames in {1: [8], 2: [4, 12], 4: [2, 6, 10, 14], 16: list(range(16))}.items():
        assert spaced_frames(video, count).flatten().tolist() == frames
    assert spaced_frames(video[:, :, :1], 1).flatten().tolist() == [0]
    with pytest.raises(ValueError, match="frames=17: the videos have 16"):
        spaced_frames(video, 17)
    with pytest.raises(ValueError, match="frames=0"):
        FID(Means(), frames=0)


def test_frames_beside_those_that_are_looked_at_do_not_count(videos):
    seen = FID(Means(of_frames=True)).observe(videos, CAPTIONS)
    other = torch.zeros_like(videos)
    other[:, :, 8] = videos[:, :, 8]
    assert seen.shape == (8, 1, 9)
    assert torch.equal(FID(Means(of_frames=True)).observe(other, CAPTIONS), seen)


# Two processes


def scores(videos, rank=None):
    """All scores that keep sums; of one of two processes if `rank` is given. The second has no video to score."""
    metrics = [FVD(Means()), FID(Means(of_frames=True), frames=2), InceptionScore(Means(), splits=1)]
    for metric in metrics:
        if rank in (None, 0):
            metric.update(videos, CAPTIONS)
        if metric.uses_real:
            mine = videos // 2 if rank is None else videos[rank::2] // 2
            metric.update(mine, CAPTIONS[: len(mine)], real=True)
    return {name: float(value) for metric in metrics for name, value in metric.compute().items()}


def one_of_two(rank, port, videos, file):
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(scores(videos, rank), f"{file}{rank}")
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_two_processes_score_as_one(videos, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(one_of_two, (port, videos, tmp_path / "scores"), 2)
    known = scores(videos)
    assert set(known) == {"fvd", "fid", "inception_score", "inception_score_std"}
    for rank in range(2):
        assert torch.load(tmp_path / f"scores{rank}") == pytest.approx(known, rel=1e-9)
