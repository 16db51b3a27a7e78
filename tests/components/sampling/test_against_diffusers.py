"""Samplers and frameworks against the schedulers of diffusers, for the same denoiser, noise and levels."""

import pytest
import torch

from snapvideo.components import DDIM, DDPM, Ancestral, DPMSolver, Euler, FlowMatching, Heun
from snapvideo.components.interfaces import VideoShape

schedulers = pytest.importorskip("diffusers.schedulers", reason="diffusers is not installed: pip install '.[dev]'")

STEPS = 20
VP = {"num_train_timesteps": 1000, "beta_schedule": "linear", "timestep_spacing": "trailing"}


def denoise(x, sigma):
    """The exact denoiser of data that is -1 or 1, both with standard deviation 0.5."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1, 1, 1, 1)
    variance = 0.25 + sigma**2
    return (0.25 * x + sigma**2 * torch.tanh(x / variance)) / variance


def source(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return lambda: torch.randn(1, 1, 1, 1, 1000, generator=generator, dtype=dtype)


def assert_agree(ours, theirs):
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=1e-5, atol=1e-5)


def in_sigma_space(scheduler):
    """Sample with a scheduler whose samples are x + sigma * eps; its levels and the outcome."""
    scheduler.set_timesteps(STEPS)
    x = source()() * scheduler.sigmas[0]
    for i, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[i]
        clean = denoise(x, sigma)
        if isinstance(scheduler, schedulers.EDMEulerScheduler):
            sd = scheduler.config.sigma_data
            c_skip, c_out = sd**2 / (sigma**2 + sd**2), sigma * sd / (sigma**2 + sd**2).sqrt()
            scheduler.scale_model_input(x, t)
            x = scheduler.step((clean - c_skip * x) / c_out, t, x).prev_sample
        else:
            scheduler.scale_model_input(x, t)
            x = scheduler.step((x - clean) / sigma, t, x).prev_sample
    return scheduler.sigmas, x


def test_euler_is_edm_euler():
    sigmas, theirs = in_sigma_space(schedulers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0))
    assert_agree(Euler(STEPS)(denoise, source(), sigmas), theirs)


def test_euler_is_euler():
    sigmas, theirs = in_sigma_space(schedulers.EulerDiscreteScheduler(**VP))
    assert_agree(Euler(STEPS)(denoise, source(), sigmas), theirs)


def test_heun_is_heun():
    scheduler = schedulers.HeunDiscreteScheduler(**VP)
    sigmas, theirs = in_sigma_space(scheduler)
    levels = torch.cat([sigmas[:1], sigmas[1::2]])  # all between the ends are there twice
    assert_agree(Heun(STEPS)(denoise, source(), levels), theirs)


def in_vp_space(scheduler, noise, **settings):
    """Sample with a scheduler whose samples are sqrt(ab) x + sqrt(1 - ab) eps, from the last level's pure noise."""
    scheduler.set_timesteps(STEPS)
    first = scheduler.alphas_cumprod[scheduler.timesteps[0]].double()
    x = noise() * (1 - first).sqrt()
    for t in scheduler.timesteps:
        product = scheduler.alphas_cumprod[t].double()
        signal, sigma = product.sqrt(), (1 / product - 1).sqrt()
        eps = (x / signal - denoise(x / signal, sigma)) / sigma
        x = scheduler.step(eps, t, x, **{name: make() for name, make in settings.items()}).prev_sample
    return x


LEVELS = DDPM("linear", sigma_in=1).sampling_levels(STEPS, VideoShape(1, 1, 1))


def test_the_levels_of_ddpm_are_its():
    scheduler = schedulers.DDPMScheduler(**VP)
    scheduler.set_timesteps(STEPS)
    products = scheduler.alphas_cumprod[scheduler.timesteps].double()
    torch.testing.assert_close(LEVELS[:-1], (1 / products - 1).sqrt(), rtol=1e-4, atol=0)
    cosine = schedulers.DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2").alphas_cumprod.double()
    table = DDPM("cosine", sigma_in=1).table
    torch.testing.assert_close(1 / (1 + table[:-1] ** 2), cosine[:-1], rtol=1e-3, atol=1e-7)


def test_zero_terminal_snr_is_its():
    scheduler = schedulers.DDIMScheduler(**VP, rescale_betas_zero_snr=True)
    table = DDPM("linear", "v", sigma_in=1, zero_terminal_snr=True).table
    torch.testing.assert_close(1 / (1 + table**2), scheduler.alphas_cumprod.double(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_zero_terminal_snr_leaves_less_signal(schedule):
    tables = [DDPM(schedule, "v", sigma_in=1, zero_terminal_snr=zero).table for zero in (False, True)]
    assert tables[1][-1] > 3 * tables[0][-1]
    assert tables[1].diff().min() > 0


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim_is_ddim(eta):
    scheduler = schedulers.DDIMScheduler(**VP, clip_sample=False, set_alpha_to_one=True)
    noise = source(torch.float64)
    settings = {"eta": lambda: eta} | ({"variance_noise": noise} if eta else {})
    theirs = in_vp_space(scheduler, noise, **settings)
    assert_agree(DDIM(STEPS, eta)(denoise, source(torch.float64), LEVELS), theirs)


def test_ancestral_is_ddpm():
    scheduler = schedulers.DDPMScheduler(**VP, clip_sample=False, variance_type="fixed_small")
    generator = torch.Generator().manual_seed(0)
    shape = (1, 1, 1, 1, 1000)
    theirs = in_vp_space(
        scheduler, lambda: torch.randn(shape, generator=generator, dtype=torch.float64), generator=lambda: generator
    )
    assert_agree(Ancestral(STEPS)(denoise, source(torch.float64), LEVELS), theirs)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_predictions_are_its(prediction):
    name = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}[prediction]
    scheduler = schedulers.DDIMScheduler(**VP, clip_sample=False, prediction_type=name)
    scheduler.set_timesteps(STEPS)
    x_t, output = torch.randn(2, 1, 1, 1, 1, 1000).double()
    framework = DDPM("linear", prediction, sigma_in=1)
    for t in (999, 499, 49):
        product = scheduler.alphas_cumprod[t].double()
        sigma = (1 / product - 1).sqrt()
        theirs = scheduler.step(output, t, x_t).pred_original_sample
        ours = framework.denoise(lambda x, c: output, x_t / product.sqrt(), sigma.expand(1))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_dpm_solver_is_dpm_solver(eta):
    algorithm = "sde-dpmsolver++" if eta else "dpmsolver++"
    scheduler = schedulers.DPMSolverMultistepScheduler(**VP, algorithm_type=algorithm, final_sigmas_type="zero")
    scheduler.set_timesteps(STEPS)
    noise = source()
    signals = 1 / (1 + scheduler.sigmas**2).sqrt()
    x = noise() * scheduler.sigmas[0] * signals[0]
    for i, t in enumerate(scheduler.timesteps):
        sigma, signal = scheduler.sigmas[i], signals[i]
        eps = (x / signal - denoise(x / signal, sigma)) / sigma
        x = scheduler.step(eps, t, x, variance_noise=noise() if eta and i < STEPS - 1 else None).prev_sample
    assert_agree(DPMSolver(STEPS, eta)(denoise, source(), scheduler.sigmas), x)


def test_flow_matching_is_its():
    """Its Euler steps in time are ours in sigma; a network that predicts velocities is asked in its coordinates."""
    scheduler = schedulers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    times = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    scheduler.set_timesteps(sigmas=times.tolist())
    sigma = 3.0 * times / (1 - times)
    torch.testing.assert_close(sigma / (1 + sigma), scheduler.sigmas[:-1].double(), rtol=1e-5, atol=1e-6)

    def velocity(x_t, c_noise):
        time = ((c_noise + 1) / 2).reshape(-1, 1, 1, 1, 1)
        clean = denoise(x_t / (1 - time), time / (1 - time))
        return (x_t - (1 - time) * clean) / time - clean

    x = source()() * scheduler.sigmas[0]
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(velocity(x, 2 * scheduler.sigmas[i].expand(1) - 1), t, x).prev_sample
    framework = FlowMatching(shift=3.0)
    levels = torch.cat([sigma, torch.zeros(1, dtype=torch.float64)])
    assert_agree(Euler(3)(lambda y, sigma: framework.denoise(velocity, y, sigma), source(), levels), x)
