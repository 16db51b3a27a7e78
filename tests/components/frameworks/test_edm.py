"""EDM with input scaling against the identities of its derivation and against plain EDM."""

import math
from itertools import pairwise

import pytest
import torch

from snapvideo.components import EDM, Heun
from snapvideo.components.frameworks.edm import Preconditioning
from snapvideo.components.interfaces import VideoShape

SHAPE = VideoShape(16, 36, 64)
CASES = [(s, d, k) for s in (0.002, 0.05, 0.7, 3.0, 80.0) for d in (0.5, 1.0) for k in (1.0, 4.0, 32.0)]


def coefficients(s, d, k) -> Preconditioning:
    return Preconditioning(torch.tensor([s], dtype=torch.float64), d, k)


@pytest.mark.parametrize(("s", "d", "k"), CASES)
def test_identities_of_the_preconditioning(s, d, k):
    c = coefficients(s, d, k)
    x, eps, F = torch.randn(3, 1000, dtype=torch.float64)
    x_s, target = x / k + s * eps, c.c_nrm * (s * x - d**2 * eps)
    torch.testing.assert_close(c.c_skip * x_s + c.c_out * target, x, rtol=0, atol=1e-12 * max(1, s))
    D = c.c_skip * x_s + c.c_out * F
    torch.testing.assert_close(c.loss_weight * (D - x) ** 2, c.weight * (F - target) ** 2, rtol=1e-6, atol=1e-9)
    variance_in = c.c_in**2 * (d**2 / k**2 + s**2)
    variance_target = c.c_nrm**2 * (s**2 * d**2 + d**4)
    torch.testing.assert_close(torch.cat([variance_in, variance_target]), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_input_scaling_it_is_edm_to_the_bit(dtype):
    sigma = torch.rand(64, dtype=dtype) * 10 + 0.002
    c, sd = Preconditioning(sigma, 0.5, 1.0), 0.5
    assert torch.equal(c.c_skip, sd**2 / (sigma**2 + sd**2))
    assert torch.equal(c.c_out, sigma * sd / (sigma**2 + sd**2).sqrt())
    assert torch.equal(c.c_in, 1 / (sd**2 + sigma**2).sqrt())
    assert torch.equal(c.c_noise, sigma.log() / 4)
    assert torch.equal(c.weight, torch.ones_like(sigma))
    torch.testing.assert_close(c.loss_weight, (sigma**2 + sd**2) / (sigma * sd) ** 2)


def edm_denoise(network, x, sigma, sd=0.5):
    """Plain EDM preconditioning (Karras et al. 2022, Table 1), written apart from ours."""
    sigma = sigma.reshape(-1, 1, 1, 1, 1)
    c_skip, c_out = sd**2 / (sigma**2 + sd**2), sigma * sd / (sigma**2 + sd**2).sqrt()
    c_in, c_noise = 1 / (sd**2 + sigma**2).sqrt(), sigma.log() / 4
    return c_skip * x + c_out * network(c_in * x, c_noise.flatten())


def edm_sample(network, latents, num_steps, sigma_min=0.002, sigma_max=80, rho=7):
    """Algorithm 1 of EDM without churn."""
    i = torch.arange(num_steps, dtype=torch.float64)
    t = (sigma_max ** (1 / rho) + i / (num_steps - 1) * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    t = torch.cat([t, torch.zeros(1, dtype=torch.float64)])
    x = latents * t[0]
    for now, later in pairwise(t):
        slope = (x - edm_denoise(network, x, now.expand(len(x)))) / now
        euler = x + (later - now) * slope
        if later > 0:
            slope2 = (euler - edm_denoise(network, euler, later.expand(len(x)))) / later
            euler = x + (later - now) * (0.5 * slope + 0.5 * slope2)
        x = euler
    return x


def network(x, c_noise):
    return torch.tanh(x * 1.7 + c_noise.reshape(-1, 1, 1, 1, 1))


def test_denoiser_loss_and_sampler_are_edms():
    framework = EDM(sigma_in=1, sigma_data=0.5)
    x, noise = torch.randn(2, 3, 3, 2, 4, 4, dtype=torch.float64)
    sigma = torch.tensor([0.05, 1.0, 20.0], dtype=torch.float64)
    y = x + sigma.reshape(-1, 1, 1, 1, 1) * noise
    assert torch.equal(framework.denoise(network, y, sigma), edm_denoise(network, y, sigma))
    weight = (sigma**2 + 0.5**2) / (sigma * 0.5) ** 2
    edm_loss = weight * (edm_denoise(network, y, sigma) - x).square().flatten(1).mean(1)
    torch.testing.assert_close(framework.loss(network, x, sigma, noise), edm_loss)

    shape = VideoShape(2, 4, 4)
    levels = framework.sampling_levels(18, shape)
    ours = Heun(18)(lambda x, s: framework.denoise(network, x, s), lambda: noise, levels)
    assert torch.equal(ours, edm_sample(network, noise, 18))


@pytest.mark.parametrize("k", [1.0, 4.0, 32.0])
def test_sampler_recovers_gaussian_data(k):
    # Data N(0, 1): the exact denoiser of y = x + sigma eps is y / (1 + sigma^2).
    framework = EDM(sigma_in=k)
    noise = torch.randn(1, 1, 1, 100, 100, dtype=torch.float64)
    samples = Heun(256)(
        lambda y, sigma: y / (1 + sigma.reshape(-1, 1, 1, 1, 1) ** 2),
        lambda: noise,
        framework.sampling_levels(256, SHAPE),
    )
    assert samples.std() == pytest.approx(noise.std().item(), rel=0.02)


def test_the_exact_prediction_gives_the_clean_video_and_no_loss():
    framework = EDM(sigma_in=4)
    x, noise = torch.randn(2, 2, 3, 4, 8, 8, dtype=torch.float64)
    sigma = framework.noise_levels(torch.tensor([0.1, 0.8]), SHAPE).double()

    def exact(x_in, c_noise):
        s = (4 * c_noise).exp().reshape(-1, 1, 1, 1, 1)
        return (s * x - noise) / (s**2 + 1).sqrt()

    y = x + sigma.reshape(-1, 1, 1, 1, 1) * noise
    torch.testing.assert_close(framework.denoise(exact, y, sigma), x, rtol=1e-6, atol=1e-6)
    assert framework.loss(exact, x, sigma, noise).abs().max() < 1e-10


def test_auto_is_the_papers_scale():
    assert EDM().sampling_levels(8, VideoShape(16, 36, 64))[0] == pytest.approx(4 * 80)
    assert EDM().sampling_levels(8, VideoShape(16, 288, 512))[0] == pytest.approx(32 * 80)


def test_training_levels_follow_the_log_normal():
    quantile = (torch.arange(10000) + 0.5) / 10000
    log_s = (EDM(sigma_in=4).noise_levels(quantile, SHAPE) / 4).log()
    assert log_s.mean() == pytest.approx(-1.2, abs=1e-3)
    assert log_s.std() == pytest.approx(1.2, rel=1e-2)


def test_sampling_levels():
    levels = EDM(sigma_in=4).sampling_levels(5, SHAPE)
    assert levels[0] == pytest.approx(4 * 80)
    assert levels[-2] == pytest.approx(4 * 0.002)
    assert levels[-1] == 0
    middle = (80 ** (1 / 7) + 0.5 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert levels[2] == pytest.approx(4 * middle)
    assert (levels.diff() < 0).all()


def test_mathematics_stays_in_float32_under_autocast():
    framework = EDM(sigma_in=1)
    x, noise = torch.randn(2, 2, 3, 2, 4, 4)
    sigma = torch.tensor([0.01, 50.0])
    in_network = []

    def low_precision(x_in, c_noise):
        in_network.append(torch.is_autocast_enabled("cpu"))
        return network(x_in, c_noise).bfloat16()

    reference = framework.loss(lambda a, b: network(a, b).bfloat16().float(), x, sigma, noise)
    with torch.autocast("cpu", torch.bfloat16):
        loss = framework.loss(low_precision, x, sigma, noise)
        estimate = framework.denoise(low_precision, x, sigma)
    assert loss.dtype == estimate.dtype == torch.float32
    assert all(in_network)
    assert torch.equal(loss, reference)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma_in": 0}, "sigma_in=0 must be a number above 0"),
        ({"sigma_in": "Auto"}, "sigma_in='Auto' must be a number above 0 or 'auto'"),
        ({"sigma_data": -1.0}, "sigma_data=-1.0 must be above 0"),
        ({"sigma_min": 90.0}, "sigma_min=90.0 and sigma_max=80.0"),
        ({"sigma_data": math.nan}, "sigma_data=nan must be above 0"),
    ],
)
def test_bad_values_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        EDM(**settings)
