"""Every class of every contract in interfaces.py keeps it. A new class needs an entry in SMALL, and gets all tests."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from tempfile import TemporaryDirectory

import pytest
import torch
from einops import repeat
from torch.testing import assert_close
from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

from snapvideo import components
from snapvideo.components.backbones import FIT, UNet
from snapvideo.components.conditioning import ByteText, Conditioners, FrameRate, LowResolution, Resolution, Text
from snapvideo.components.draws import Draws
from snapvideo.components.frameworks import DDPM, EDM, FlowMatching
from snapvideo.components.interfaces import (
    Backbone,
    Branches,
    Condition,
    Conditioner,
    Framework,
    Guidance,
    Levels,
    LowRes,
    Prompt,
    Sampler,
    VideoShape,
)
from snapvideo.components.sampling import (
    DDIM,
    Ancestral,
    Churn,
    ClassifierFree,
    CosineLevels,
    DPMSolver,
    Euler,
    Heun,
    LinearLevels,
    Oscillating,
    RhoLevels,
    Threshold,
)

SHAPE = VideoShape(num_frames=4, height=8, width=12)
BATCH = 3
DIM = 16


def small_text():
    """A T5 of random weights, trainable, so that nothing is read from the folder later."""
    with TemporaryDirectory() as folder:
        T5EncoderModel(T5Config(vocab_size=384, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(
            folder
        )
        ByT5Tokenizer().save_pretrained(folder)
        return Text(DIM, folder, trainable=True)


SMALL: dict[type, Callable[[], object]] = {
    FIT: lambda: FIT(
        SHAPE,
        group=(4, 1, 3),
        num_latents=4,
        num_blocks=2,
        num_latent_layers=1,
        dim_patch=16,
        dim_latent=24,
        dim_condition=DIM,
        patch_head_dim=8,
        latent_head_dim=8,
    ),
    UNet: lambda: UNet(
        SHAPE,
        channels=8,
        multipliers=(1, 2),
        num_blocks=1,
        attention_levels=(1,),
        head_dim=8,
        dim_condition=DIM,
        pool_condition=True,
        mean_video=True,
    ),
    EDM: EDM,
    DDPM: DDPM,
    FlowMatching: FlowMatching,
    Text: small_text,
    ByteText: lambda: ByteText(DIM, width=16, num_layers=1, head_dim=8, num_rows=64, row_width=8),
    FrameRate: lambda: FrameRate(DIM),
    Resolution: lambda: Resolution(DIM),
    LowResolution: lambda: LowResolution(DIM, 4, 6),
    Conditioners: lambda: Conditioners([FrameRate(DIM), Resolution(DIM)]),
    Euler: lambda: Euler(num_steps=4),
    Heun: lambda: Heun(num_steps=4, churn=Churn(1.0)),
    DDIM: lambda: DDIM(num_steps=4, eta=0.5),
    Ancestral: lambda: Ancestral(num_steps=4),
    DPMSolver: lambda: DPMSolver(num_steps=4),
    RhoLevels: RhoLevels,
    LinearLevels: LinearLevels,
    CosineLevels: CosineLevels,
    ClassifierFree: lambda: ClassifierFree(scale=3.0),
    Oscillating: Oscillating,
    Threshold: lambda: Threshold(ClassifierFree(scale=3.0)),
}


def concrete(contract):
    """All classes of the package that can be made and inherit from `contract`."""
    for module in pkgutil.walk_packages(components.__path__, components.__name__ + "."):
        importlib.import_module(module.name)
    found, open_ = set(), [contract]
    while open_:
        open_ += (subclasses := open_.pop().__subclasses__())
        found |= {c for c in subclasses if not inspect.isabstract(c) and c.__module__.startswith("snapvideo.")}
    return sorted(found, key=lambda c: c.__name__)


def each(contract):
    return pytest.mark.parametrize("cls", concrete(contract), ids=lambda c: c.__name__)


def make(cls):
    assert cls in SMALL, f"{cls.__name__} has no entry in SMALL: add a function that makes a small one"
    torch.manual_seed(0)
    return SMALL[cls]()


def make_stirred(cls):
    """One in evaluation mode whose weights are off their start, where whole branches may be zero."""
    module = make(cls).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return module


def videos():
    """A batch of standard normal videos, the last one an image: equal frames."""
    x = torch.randn(BATCH, *SHAPE, generator=torch.Generator().manual_seed(1))
    x[-1] = repeat(x[-1, :, 0], "c h w -> c t h w", t=SHAPE.num_frames)
    return x


def condition():
    """Five tokens per video; the first video has two of padding."""
    mask = torch.ones(BATCH, 5, dtype=torch.bool)
    mask[0, 3:] = False
    return Condition(torch.randn(BATCH, 5, DIM, generator=torch.Generator().manual_seed(2)), mask)


def assert_trains(module, loss):
    """Each parameter has a gradient at once, and one that isn't zero from the third step on.

    The third: what starts behind a layer of zeros moves only once that layer has, and there may be two in a row.
    """
    parameters = dict(module.named_parameters())
    for _ in range(3):
        module.zero_grad()
        loss().backward()
        assert [name for name, p in parameters.items() if p.grad is None] == []
        with torch.no_grad():
            for p in parameters.values():
                p -= 0.1 * p.grad
    assert [name for name, p in parameters.items() if not p.grad.isfinite().all() or not p.grad.any()] == []


@each(Backbone)
class TestBackbone:
    C_NOISE = torch.tensor([-1.0, 0.0, 1.0])

    def test_says_what_it_takes(self, cls):
        backbone = make(cls)
        assert backbone.shape == SHAPE
        assert backbone.dim_condition == DIM

    def test_takes_the_shapes_that_it_does_not_refuse(self, cls):
        backbone, taken = make(cls).eval(), []
        for shape in (SHAPE, VideoShape(4, 12, 8), VideoShape(2, 8, 12), VideoShape(4, 7, 9), VideoShape(1, 64, 3)):
            try:
                backbone.check_shape(shape)
            except ValueError as error:
                assert f"{cls.__name__} takes videos of " in str(error)
                continue
            taken.append(shape)
            x = torch.randn(BATCH, *shape)
            assert backbone(x, self.C_NOISE, condition())[0].shape == x.shape
        assert SHAPE in taken
        for other in (VideoShape(5, 8, 12), VideoShape(4, 8, 12, channels=1)):
            with pytest.raises(ValueError, match=cls.__name__):
                backbone.check_shape(other)

    def test_shape_in_is_shape_out(self, cls):
        backbone, x = make(cls).eval(), videos()
        prediction, state = backbone(x, self.C_NOISE, condition())
        again, next_state = backbone(x, self.C_NOISE, condition(), state)
        for out in (prediction, again):
            assert out.shape == x.shape
            assert out.dtype == torch.float32
            assert out.isfinite().all()
        assert (state is None) == (next_state is None)
        assert state is None or (state.shape == next_state.shape and len(state) == BATCH)

    def test_videos_of_a_batch_are_apart(self, cls):
        backbone, x, tokens = make_stirred(cls), videos(), condition()
        together, state = backbone(x, self.C_NOISE, tokens)
        first, first_state = backbone(x[:1], self.C_NOISE[:1], Condition(tokens.tokens[:1], tokens.mask[:1]))
        assert_close(first, together[:1], rtol=1e-4, atol=1e-5)
        if state is not None:
            assert_close(first_state, state[:1], rtol=1e-4, atol=1e-5)

    def test_reads_tokens_but_no_padding(self, cls):
        backbone, x, tokens = make_stirred(cls), videos(), condition()
        before = backbone(x, self.C_NOISE, tokens)[0]
        padded = Condition(torch.where(tokens.mask[..., None], tokens.tokens, 9.0), tokens.mask)
        assert_close(backbone(x, self.C_NOISE, padded)[0], before)
        other = Condition(-tokens.tokens, tokens.mask)
        assert not torch.allclose(backbone(x, self.C_NOISE, other)[0], before, atol=1e-6)

    def test_prepared_conditioning_changes_nothing(self, cls):
        backbone, x, tokens = make_stirred(cls), videos(), condition()
        before = backbone(x, self.C_NOISE, tokens)[0]
        assert_close(backbone(x, self.C_NOISE, backbone.prepare(tokens))[0], before, rtol=1e-4, atol=1e-5)

    def test_every_parameter_gets_a_gradient(self, cls):
        backbone, x = make(cls).train(), videos()
        draws = Draws(3, len(x))
        assert_trains(
            backbone, lambda: (backbone.train_forward(x, self.C_NOISE, condition(), draws) - 1).square().mean()
        )


@each(Framework)
class TestFramework:
    def test_training_levels_are_a_quantile_function(self, cls):
        levels = make(cls).noise_levels(torch.linspace(0.001, 0.999, 50), SHAPE)
        assert levels.shape == (50,)
        assert levels.isfinite().all()
        assert (levels > 0).all()
        assert (levels.diff() > 0).all()

    @pytest.mark.parametrize("num_steps", [1, 2, 17])
    def test_sampling_levels_fall_to_zero(self, cls, num_steps):
        levels = make(cls).sampling_levels(num_steps, SHAPE)
        assert levels.shape == (num_steps + 1,)
        assert levels.dtype == torch.float64
        assert (levels.diff() < 0).all()
        assert levels[-1] == 0

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_estimate_and_loss_are_float32(self, cls, dtype):
        framework, x = make(cls), videos().clamp(-1, 1)
        levels = framework.sampling_levels(8, SHAPE)
        for sigma in (levels[0], levels[4], levels[-2]):
            sigma, noise = sigma.float().expand(BATCH), torch.randn_like(x)
            estimate = framework.denoise(lambda x, c: x.to(dtype), x + sigma[0] * noise, sigma)
            loss = framework.loss(lambda x, c: x.to(dtype), x, sigma, noise)
            assert estimate.shape == x.shape
            assert loss.shape == (BATCH,)
            for out in (estimate, loss):
                assert out.dtype == torch.float32
                assert out.isfinite().all()
            assert (loss >= 0).all()

    def test_loss_is_zero_where_the_estimate_is_right(self, cls):
        """The estimate is linear in the prediction: two predictions tell which one would be right."""
        framework, x = make(cls), videos().clamp(-1, 1).double()
        sigma = framework.noise_levels(torch.tensor([0.1, 0.5, 0.9]), SHAPE).double()
        noise = torch.randn_like(x)
        y = x + sigma[:, None, None, None, None] * noise
        at_0, at_1 = (framework.denoise(lambda x, c, v=v: torch.full_like(x, v), y, sigma) for v in (0.0, 1.0))
        right = (x - at_0) / (at_1 - at_0)
        assert_close(framework.denoise(lambda x, c: right, y, sigma), x)
        assert (framework.loss(lambda x, c: right, x, sigma, noise) < 1e-10).all()
        assert (framework.loss(lambda x, c: right + 1, x, sigma, noise) > 1e-2).all()


def noise_source():
    """A seeded `Noise`, float64."""
    generator = torch.Generator().manual_seed(4)
    return lambda: torch.randn(BATCH, *SHAPE, generator=generator, dtype=torch.float64)


@each(Sampler)
class TestSampler:
    def test_finds_the_only_video(self, cls):
        """If the data is one video, the ideal denoiser answers with it, and every sampler ends there."""
        sampler, only = make(cls), videos().double()
        sigmas, seen = EDM().sampling_levels(sampler.num_steps, SHAPE), []

        def denoise(x, sigma):
            assert x.shape == only.shape
            assert x.dtype == only.dtype
            assert sigma.shape == (BATCH,)
            seen.append(sigma[0].item())
            return only

        out = sampler(denoise, noise_source(), sigmas)
        assert_close(out, only)
        assert_close(sampler(denoise, noise_source(), sigmas), out, rtol=0, atol=0)
        assert min(seen) > 0
        assert sigmas[0] <= max(seen) + 1e-9 <= 1.5 * sigmas[0]

    def test_keeps_the_dtype_of_the_noise(self, cls):
        sampler = make(cls)
        levels = EDM().sampling_levels(sampler.num_steps, SHAPE)
        out = sampler(lambda x, sigma: x / (1 + sigma[0] ** 2), lambda: torch.randn(BATCH, *SHAPE), levels)
        assert out.dtype == torch.float32
        assert out.shape == (BATCH, *SHAPE)
        assert out.isfinite().all()


@each(Levels)
class TestLevels:
    @pytest.mark.parametrize("num_steps", [1, 2, 17])
    def test_keeps_the_ends_and_the_number(self, cls, num_steps):
        own = EDM(sigma_in=4).sampling_levels(num_steps, SHAPE)
        levels = make(cls)(own)
        assert levels.shape == own.shape
        assert levels.dtype == torch.float64
        assert (levels.diff() < 0).all()
        assert_close(levels[[0, -2, -1]], own[[0, -2, -1]])


class Two(Branches):
    """Branches of two denoisers."""

    def __init__(self, conditional, unconditional):
        self.one, self.other = conditional, unconditional

    def conditional(self, x, sigma):
        return self.one(x, sigma)

    def both(self, x, sigma):
        return self.one(x, sigma), self.other(x, sigma)


@each(Guidance)
class TestGuidance:
    def test_leaves_equal_denoisers_alone(self, cls):
        """Nothing to steer by: if the condition changes nothing, guidance changes nothing."""
        x, sigma = videos(), torch.ones(BATCH)

        def denoise(x, sigma):
            return 0.3 * torch.tanh(x)

        out = make(cls)(Two(denoise, denoise))(x, sigma)
        assert_close(out, denoise(x, sigma))
        assert out.dtype == torch.float32

    def test_steers_towards_the_condition(self, cls):
        x, sigma = videos(), torch.ones(BATCH)
        branches = Two(lambda x, s: torch.full_like(x, 0.1), lambda x, s: torch.zeros_like(x))
        guided = make(cls)(branches)(x, sigma)
        assert guided.shape == x.shape
        assert (guided >= 0.1 - 1e-6).all()


@each(Conditioner)
class TestConditioner:
    PROMPT = Prompt(
        captions=["a red circle moves left", "", "Ein Fuß, ein größerer Schuh"],
        fps=torch.tensor([24.0, 7.5, torch.inf]),
        resolution=torch.tensor([[36.0, 64.0], [1080.0, 1920.0], [512.0, 512.0]]),
    )
    PROMPT.low_res = LowRes(torch.rand(BATCH, 3, 2, 4, 6), torch.tensor([0.0, 0.3, 0.9]))
    KEEP = torch.zeros(BATCH, dtype=torch.bool)

    def test_gives_tokens_and_a_mask(self, cls):
        conditioner = make(cls).eval()
        for drop in (self.KEEP, ~self.KEEP):
            out = conditioner(self.PROMPT, drop)
            assert out.tokens.shape == (BATCH, out.mask.shape[1], conditioner.dim)
            assert out.mask.dtype == torch.bool
            assert out.mask.any(1).all()
            assert out.tokens.dtype == torch.float32
            assert out.tokens.isfinite().all()

    def test_labels_of_a_batch_are_apart(self, cls):
        conditioner = make(cls).eval()
        together = conditioner(self.PROMPT, self.KEEP)
        for i in range(BATCH):
            one = Prompt([self.PROMPT.captions[i]], self.PROMPT.fps[i : i + 1], self.PROMPT.resolution[i : i + 1])
            one.low_res = LowRes(self.PROMPT.low_res.video[i : i + 1], self.PROMPT.low_res.level[i : i + 1])
            alone = conditioner(one, self.KEEP[:1])
            assert_close(alone.tokens[alone.mask], together.tokens[i][together.mask[i]], rtol=1e-4, atol=1e-5)

    def test_null_knows_no_caption(self, cls):
        conditioner = make(cls).eval()
        other = replace(self.PROMPT, captions=["something else"] * BATCH)
        null, other_null = conditioner(self.PROMPT, ~self.KEEP), conditioner(other, ~self.KEEP)
        for i in range(BATCH):
            assert_close(null.tokens[i][null.mask[i]], other_null.tokens[i][other_null.mask[i]])

    def test_every_parameter_gets_a_gradient(self, cls):
        conditioner = make(cls).train()
        drop = torch.tensor([True, False, False])

        def loss():
            out = conditioner(self.PROMPT, drop)
            return (out.tokens - 1).square()[out.mask].mean()

        if any(p.requires_grad for p in conditioner.parameters()):
            assert_trains(conditioner, loss)
