"""Samplers against other people's numbers, closed forms and their orders of convergence."""

import math
from itertools import pairwise

import pytest
import torch

from snapvideo.components import (
    DDIM,
    DDPM,
    EDM,
    Ancestral,
    Churn,
    CosineLevels,
    DPMSolver,
    Euler,
    FlowMatching,
    Heun,
    LinearLevels,
    RhoLevels,
)
from snapvideo.components.interfaces import VideoShape

SHAPE = VideoShape(1, 1, 1)
SAMPLERS = [Euler(400), Heun(100), DDIM(400), DDIM(400, 0.5), Ancestral(1000), DPMSolver(100), DPMSolver(400, 1.0)]
ids = lambda value: f"{type(value).__name__}-{getattr(value, 'eta', '')}" if hasattr(value, "num_steps") else None  # noqa: E731


def source(count=20000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(1, 1, 1, 1, count, generator=generator, dtype=torch.float64)


def gaussian(std):
    """The exact denoiser of data N(0, std^2)."""
    return lambda x, sigma: x * std**2 / (std**2 + sigma.reshape(-1, 1, 1, 1, 1) ** 2)


def mixture(x, sigma):
    """The exact denoiser of data that is -1 or 1, both with standard deviation 0.3."""
    sigma = sigma.reshape(-1, 1, 1, 1, 1)
    variance = 0.09 + sigma**2
    gate = torch.tanh(x / variance)
    return (0.09 * x + sigma**2 * gate) / variance


@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
@pytest.mark.parametrize("k", [1.0, 4.0])
def test_recovers_the_spread_of_gaussian_data(sampler, k):
    levels = EDM(sigma_in=k).sampling_levels(sampler.num_steps, SHAPE)
    samples = sampler(gaussian(1.0), source(), levels)
    assert samples.std() == pytest.approx(1, rel=0.02)
    assert abs(samples.mean()) < 0.03


@pytest.mark.parametrize("churn", [Churn(40.0), Churn(40.0, 0.05, 50.0, 1.0)])
@pytest.mark.parametrize(("cls", "num_steps"), [(Euler, 1600), (Heun, 400)])
def test_churn_keeps_the_spread(cls, num_steps, churn):
    samples = cls(num_steps, churn)(gaussian(1.0), source(), EDM(sigma_in=1).sampling_levels(num_steps, SHAPE))
    assert samples.std() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("cls", [Heun, DDIM, DPMSolver], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize(
    "levels", [RhoLevels(), LinearLevels(), CosineLevels()], ids=lambda levels: type(levels).__name__
)
@pytest.mark.parametrize("k", [1.0, 4.0])
def test_any_levels_work_with_any_sampler(cls, levels, k):
    """Also where the last levels are far apart: 64 steps keep the spread of Gaussian data."""
    if k != 1 and hasattr(levels, "scale"):
        levels = type(levels)(k)
    samples = cls(64)(gaussian(1.0), source(), levels(EDM(sigma_in=k).sampling_levels(64, SHAPE)))
    assert samples.std() == pytest.approx(1, rel=0.13)


def algorithm_2(denoise, draw, t, churn):
    """Karras et al. 2022, Algorithm 2, line by line."""
    n = len(t) - 1
    x = draw() * t[0]
    for i in range(n):
        gamma = min(churn.amount / n, math.sqrt(2) - 1) if churn.low <= t[i] <= churn.high else 0
        t_hat = t[i] + gamma * t[i]
        if gamma > 0:
            x = x + (t_hat**2 - t[i] ** 2).sqrt() * churn.inflate * draw()
        d = (x - denoise(x, t_hat.expand(1))) / t_hat
        x_next = x + (t[i + 1] - t_hat) * d
        if t[i + 1] != 0:
            d_next = (x_next - denoise(x_next, t[i + 1].expand(1))) / t[i + 1]
            x_next = x + (t[i + 1] - t_hat) * (d / 2 + d_next / 2)
        x = x_next
    return x


@pytest.mark.parametrize("churn", [Churn(0.0), Churn(40.0), Churn(3.0, 0.05, 50.0, 1.003)])
@pytest.mark.parametrize("count", [18, 40])
def test_heun_with_churn_is_edms_algorithm(churn, count):
    levels = EDM(sigma_in=1).sampling_levels(count, SHAPE)
    expected = algorithm_2(mixture, source(50), levels, churn)
    torch.testing.assert_close(Heun(count, churn)(mixture, source(50), levels), expected)


@pytest.mark.parametrize("framework", [DDPM("linear", sigma_in=1), DDPM("cosine", sigma_in=2), FlowMatching(1.0)])
def test_any_framework_samples_with_any_sampler(framework):
    for sampler in (DDIM(250), Heun(250), Ancestral(500), DPMSolver(250)):
        samples = sampler(gaussian(1.0), source(), framework.sampling_levels(sampler.num_steps, SHAPE))
        assert samples.std() == pytest.approx(1, rel=0.03), sampler


def constant(x, sigma):
    """The exact denoiser of videos of one colour each, N(0, 1): noise hides it only where it is very strong."""
    variance = sigma.reshape(-1, 1, 1, 1, 1) ** 2 / x[0].numel()
    return (x.mean((1, 2, 3, 4), keepdim=True) / (1 + variance)).expand_as(x)


@pytest.mark.parametrize("sampler", [Heun, DDIM, DPMSolver], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize(
    ("framework", "levels"),
    [
        (DDPM("cosine", "v", 8.0, zero_terminal_snr=True), None),
        (DDPM("linear", "v", 8.0, zero_terminal_snr=True), None),
        (FlowMatching(8.0), None),
        (EDM(8.0), CosineLevels(8.0)),
    ],
)
def test_long_steps_at_high_noise_keep_the_spread(framework, levels, sampler):
    generator = torch.Generator().manual_seed(0)
    sigmas = framework.sampling_levels(64, VideoShape(4, 12, 12))
    samples = sampler(64)(
        constant,
        lambda: torch.randn(500, 1, 4, 12, 12, generator=generator),
        sigmas if levels is None else levels(sigmas),
    )
    assert samples.mean((1, 2, 3, 4)).std() == pytest.approx(1, rel=0.1)


def error(sampler, num_steps):
    """Mean distance of samples of the mixture from those of very many steps, with the same noise and levels' law."""

    def levels(count):  # equal steps in ln sigma, ending well above 0 where the ODE is smooth
        return torch.cat([torch.linspace(math.log(20), math.log(0.1), count + 1, dtype=torch.float64).exp()])

    reference = Heun(4000)(mixture, source(500), levels(4000))
    return (sampler(num_steps)(mixture, source(500), levels(num_steps)) - reference).abs().mean().item()


@pytest.mark.parametrize(("sampler", "order"), [(Euler, 1), (DDIM, 1), (Heun, 2), (DPMSolver, 2)])
def test_order_of_convergence(sampler, order):
    errors = [error(sampler, count) for count in (64, 128, 256)]
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert orders == pytest.approx([order, order], abs=0.25)


def test_euler_is_ddim_and_ancestral_is_ddim_with_all_noise():
    levels = EDM(sigma_in=1).sampling_levels(20, SHAPE)
    torch.testing.assert_close(Euler(20)(mixture, source(), levels), DDIM(20)(mixture, source(), levels))
    ancestral, ddim = Ancestral(20), DDIM(20, eta=1.0)
    assert torch.equal(ancestral(mixture, source(), levels), ddim(mixture, source(), levels))


def ddpm_posterior_sampling(denoise, draw, products):
    """Ho et al. 2020: x_{t-1} ~ N(posterior mean of Eq. 7, its variance), in DDPM's own coordinates."""
    x = draw()
    for t in range(len(products) - 1, -1, -1):
        now, before = products[t], products[t - 1] if t else torch.tensor(1.0, dtype=torch.float64)
        beta = 1 - now / before
        clean = denoise(x / now.sqrt(), ((1 - now) / now).sqrt().expand(1))
        mean = before.sqrt() * beta / (1 - now) * clean + (now / before).sqrt() * (1 - before) / (1 - now) * x
        x = mean + (beta * (1 - before) / (1 - now)).sqrt() * draw() if t else mean
    return x


def test_ancestral_is_ddpms():
    framework = DDPM("linear", sigma_in=1, num_levels=50)
    products = 1 / (1 + framework.table**2)
    draw = source()
    first = draw() * (1 - products[-1]).sqrt()  # ours starts at pure noise of the last level, without its signal

    def replay(calls=[first]):  # noqa: B006
        return calls.pop() if calls else draw()

    expected = ddpm_posterior_sampling(mixture, replay, products)
    ours = Ancestral(50)(mixture, source(), framework.sampling_levels(50, SHAPE))
    torch.testing.assert_close(ours, expected)


def k_diffusion_dpmpp_2m(denoise, x, sigmas):
    """DPM-Solver++(2M) as in Lu et al. 2022, Algorithm 2, with lambda = -ln(sigma)."""
    old = None
    for i in range(len(sigmas) - 1):
        clean = denoise(x, sigmas[i].expand(1))
        if sigmas[i + 1] == 0:
            return clean
        h = -sigmas[i + 1].log() + sigmas[i].log()
        if old is None:
            data = clean
        else:
            r = (-sigmas[i].log() + sigmas[i - 1].log()) / h
            data = (1 + 1 / (2 * r)) * clean - 1 / (2 * r) * old
        x, old = (sigmas[i + 1] / sigmas[i]) * x - torch.expm1(-h) * data, clean
    return x


def test_dpm_solver_is_its_algorithm():
    levels = EDM(sigma_in=1).sampling_levels(12, SHAPE)
    noise = source()()
    torch.testing.assert_close(
        DPMSolver(12)(mixture, lambda: noise, levels), k_diffusion_dpmpp_2m(mixture, noise * levels[0], levels)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Heun(0), "num_steps=0"),
        (lambda: DDIM(4, eta=1.5), "eta=1.5"),
        (lambda: DPMSolver(4, eta=-1.0), "eta=-1.0"),
        (lambda: Churn(-1.0), "churn.amount=-1.0"),
        (lambda: Churn(1.0, low=3.0, high=2.0), "churn.low=3.0"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
