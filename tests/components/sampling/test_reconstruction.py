"""Reconstruction guidance against closed forms."""

import pytest
import torch

from snapvideo.components import EDM, Ancestral, Churn, DPMSolver, Euler, Heun, Reconstruction
from snapvideo.components.interfaces import VideoShape

SAMPLERS = [Euler(200), Heun(64), Heun(100, Churn(20.0)), Ancestral(500), DPMSolver(100)]
COVARIANCE = torch.tensor([[1.0, 0.8, 0.5], [0.8, 1.2, 0.7], [0.5, 0.7, 0.9]], dtype=torch.float64)
"""Of a pixel in three frames; pixels are independent."""

COUNT = 20000
GIVEN = 1.5
VIDEO = torch.zeros(2, 3, 3, 8, 8)


def gain(sigma):
    """A of the exact denoiser ``D = A y``."""
    return COVARIANCE @ torch.linalg.inv(COVARIANCE + sigma**2 * torch.eye(3, dtype=torch.float64))


def gaussian(y, sigma):
    """The exact denoiser of jointly Gaussian frames of mean 0."""
    return torch.einsum("st,bcthw->bcshw", gain(sigma[0]), y)


def source(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(1, 1, 3, 1, COUNT, generator=generator, dtype=torch.float64)


def known(*places: int, num_frames: int = 3) -> torch.Tensor:
    return torch.isin(torch.arange(num_frames), torch.tensor(places))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("place", [0, 1])
def test_gaussian_frames_have_the_mean_and_covariance_of_their_posterior(sampler, place):
    """Eq. 7 takes the error of D_a to have variance sigma^2; it is sigma^2 A_aa, so the exact weight is 1 / A_aa."""
    frames = torch.full((1, 1, 3, 1, COUNT), GIVEN, dtype=torch.float64)

    def steered(y, sigma):
        exact = 1 / gain(sigma[0])[place, place]
        return Reconstruction(frames, known(place), float(exact) / 3)(gaussian)(y, sigma)

    samples = sampler(steered, source(), EDM(sigma_in=1.0).sampling_levels(sampler.num_steps, VideoShape(3, 1, 1)))
    samples = samples[0, 0, :, 0]
    torch.testing.assert_close(samples[place], frames[0, 0, place, 0])
    others = [t for t in range(3) if t != place]
    to_known = COVARIANCE[others, place] / COVARIANCE[place, place]
    covariance = COVARIANCE[others][:, others] - torch.outer(to_known, COVARIANCE[place, others])
    torch.testing.assert_close(samples[others].mean(1), to_known * GIVEN, rtol=0, atol=0.03)
    torch.testing.assert_close(samples[others].cov(), covariance, rtol=0, atol=0.03)


@pytest.mark.parametrize("places", [(0,), (0, 7), (0, 1, 2, 3)])
def test_a_still_video_stays_as_its_known_frames_are(places):
    """All frames of such a video are one Gaussian image: what is sampled must be the known one. Scale 1 is exact."""
    frames = torch.full((1, 1, 8, 1, 1000), GIVEN)

    def still(y, sigma):
        return (y.sum(2, keepdim=True) / (8 + sigma[0] ** 2)).expand_as(y)

    def error(scale: float) -> float:
        generator = torch.Generator().manual_seed(2)
        steered = Reconstruction(frames, known(*places, num_frames=8), scale)(still)
        noise = lambda: torch.randn(1, 1, 8, 1, 1000, generator=generator)  # noqa: E731
        samples = Heun(32)(steered, noise, EDM(sigma_in=1.0).sampling_levels(32, VideoShape(8, 1, 1)))
        return float((samples - GIVEN).square().mean())

    assert error(1.0) < 1e-12 < min(error(0.25), error(0.5), error(4.0))


def coupled(y, sigma):
    """Some smooth denoiser in which frames and pixels meet."""
    return torch.tanh(y + 0.5 * y.roll(1, 2) * y.mean((3, 4), keepdim=True)) / (1 + sigma.reshape(-1, 1, 1, 1, 1))


def test_the_estimate_is_equation_7():
    """The gradient is that of differences; what stands where a frame is not known plays no role."""
    generator = torch.Generator().manual_seed(1)
    y, frames = torch.randn(2, 2, 1, 4, 2, 3, generator=generator, dtype=torch.float64)
    sigma, shown = torch.tensor([0.5, 2.0]), torch.stack([known(0, 2, num_frames=4), known(1, num_frames=4)])
    mask = shown[:, None, :, None, None].expand_as(y)
    expected = torch.where(mask, frames, coupled(y, sigma))
    for place in (~mask).nonzero().tolist():
        step = torch.zeros_like(y)
        step[tuple(place)] = 1e-4
        errors = [((frames - coupled(y + s, sigma)) ** 2)[mask].sum() for s in (step, -step)]
        weight = 3.0 * 4 / int(shown[place[0]].sum())
        expected[tuple(place)] -= weight / 2 * (errors[0] - errors[1]) / 2e-4
    frames = frames.masked_fill(~mask, float("nan"))
    with torch.no_grad():
        actual = Reconstruction(frames, shown, 3.0)(coupled)(y, sigma)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-7)
    assert not actual.requires_grad


def test_without_a_scale_known_frames_are_put_in_place_and_nothing_else():
    y, frames = torch.randn(2, 2, 3, 4, 8, 8)
    mask = known(3, num_frames=4)
    actual = Reconstruction(frames, mask, 0.0)(coupled)(y, torch.ones(2))
    torch.testing.assert_close(actual[:, :, :3], coupled(y, torch.ones(2))[:, :, :3])
    assert torch.equal(actual[:, :, 3], frames[:, :, 3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Reconstruction(torch.zeros(2, 3, 4, 8, 8), known(0)),
            r"torch.bool \[3\].*give bool \[4\] or \[2, 4\]",
        ),
        (lambda: Reconstruction(torch.zeros(2, 3, 4, 8, 8), torch.ones(4)), r"known is torch.float32 \[4\]"),
        (lambda: Reconstruction(VIDEO, known(0), -1.0), "scale=-1.0"),
        (lambda: Reconstruction(VIDEO, known(0))(coupled)(VIDEO[:1], torch.ones(1)), r"\[1, 3, 3, 8, 8\]"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
