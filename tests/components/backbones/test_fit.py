"""FIT against the closed forms and properties of its architecture."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from snapvideo.components import FIT, UNet
from snapvideo.components.conditioning import FrameRate, LowResolution, Resolution
from snapvideo.components.draws import Draws
from snapvideo.components.interfaces import Condition, VideoShape

SHAPE = VideoShape(num_frames=4, height=10, width=16)  # rows are padded to 12


def small_fit(**settings) -> FIT:
    torch.manual_seed(0)
    defaults = {
        "patch": (1, 4, 4),
        "group": (4, 3, 2),
        "num_latents": 8,
        "num_blocks": 1,
        "num_latent_layers": 1,
        "dim_patch": 32,
        "dim_latent": 48,
        "dim_condition": 24,
        "patch_head_dim": 8,
        "latent_head_dim": 12,
    }
    return FIT(SHAPE, **(defaults | settings)).eval()


def condition(batch_size: int = 2, dim: int = 24, length: int = 5) -> Condition:
    return Condition(torch.randn(batch_size, length, dim), torch.ones(batch_size, length, dtype=torch.bool))


def test_every_weight_learns_under_autocast():
    """The first pass of self-conditioning has no gradient; nothing of it may be left to the second."""
    fit = small_fit(self_conditioning=1.0).train()
    x, c_noise = torch.randn(2, *SHAPE), torch.randn(2)
    for weight in fit.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        fit.train_forward(x, c_noise, condition(), Draws(0, 2)).square().mean().backward()
    assert [name for name, weight in fit.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def closed_form(Dp, Dl, Dc, num_latents, positions, num_scalars, channels=3, blocks=6, layers=4) -> int:
    """Parameters of FIT, its scalar conditioners and the projection of 1024-wide text (paper, Table 8)."""
    ff = lambda d: 8 * d**2 + 6 * d  # noqa: E731
    i, j, h = min(Dp, Dl), min(Dc, Dl), 4 * Dp
    block = 2 * Dl * j + 2 * Dc * j + Dl + Dc + ff(Dl)
    block += 2 * Dl * i + 2 * Dp * i + Dl + Dp + ff(Dl)
    block += layers * (4 * Dl**2 + Dl + ff(Dl))
    block += 2 * Dp * i + 2 * Dl * i + Dp + Dl + ff(Dp)
    total = blocks * block + 16 * channels * Dp + Dp + 2 * Dp + positions + num_latents * Dl
    total += num_scalars * (257 * h + (h + 1) * Dc) + 1025 * Dc
    return total + ff(Dl) + Dl + Dp + (Dp + 1) * 16 * channels


def paper_fit(name: str) -> FIT:
    large = {"dim_patch": 1024, "dim_latent": 3072, "dim_condition": 1024, "patch_head_dim": 64, "latent_head_dim": 128}
    with torch.device("meta"):
        match name:
            case "500M":
                return FIT(VideoShape(16, 36, 64))
            case "3.9B":
                return FIT(VideoShape(16, 36, 64), num_latents=768, **large)
            case _:
                shape = VideoShape(16, 288, 512)
                settings = {"position": "factorized", "condition_channels": 3, "num_latents": 768}
                return FIT(shape, group=(16, 18, 16), **settings, **large)


@pytest.mark.parametrize(
    ("name", "published", "form"),
    [
        ("500M", 502_014_512, (768, 1024, 768, 512, 2560 * 768)),
        ("3.9B", 3_923_448_880, (1024, 3072, 1024, 768, 2560 * 1024)),
    ],
)
def test_parameters_equal_the_closed_form(name, published, form):
    fit = paper_fit(name)
    dim = fit.dim_condition
    with torch.device("meta"):
        others = [FrameRate(dim), Resolution(dim), torch.nn.Linear(1024, dim)]
    count = sum(p.numel() for module in [fit, *others] for p in module.parameters())
    assert count == closed_form(*form, num_scalars=3) == published


def test_parameters_of_the_upsampler_equal_the_closed_form():
    fit = paper_fit("upsampler")
    dim = fit.dim_condition
    with torch.device("meta"):
        others = [FrameRate(dim), Resolution(dim), LowResolution(dim, 36, 64), torch.nn.Linear(1024, dim)]
    count = sum(p.numel() for module in [fit, *others] for p in module.parameters())
    low_resolution = 48 * 1024  # the closed form's head has as many channels as its stem
    form = closed_form(1024, 3072, 1024, 768, (16 + 72 * 128) * 1024, num_scalars=4) + low_resolution
    assert count == form == 3_935_578_160


@pytest.mark.parametrize(("name", "tflop"), [("500M", 0.703), ("3.9B", 6.435)])
def test_forward_flops(name, tflop):
    fit = paper_fit(name)
    with torch.device("meta"):
        context = Condition(torch.empty(1, 130, fit.dim_condition), torch.ones(1, 130, dtype=torch.bool))
        state = torch.empty_like(fit.latent_init.table)[None]
        with FlopCounterMode(display=False) as counter:
            fit(torch.empty(1, *fit.shape), torch.empty(1), context, state)
    assert counter.get_total_flops() / 1e12 == pytest.approx(tflop, rel=0.01)


@pytest.mark.parametrize("layers", [0, 1])
def test_information_crosses_groups_only_among_latents(layers):
    fit = small_fit(num_latent_layers=layers)
    x, c = torch.randn(1, *SHAPE), condition(1)
    moved = x.clone()
    moved[0, :, 1, 5, 6] += 1.0  # in the group of columns 0..7
    change = (fit(moved, torch.zeros(1), c)[0] - fit(x, torch.zeros(1), c)[0]).abs().amax((0, 1, 2, 3))
    assert (change[:8] > 0).all()
    assert bool((change[8:] > 0).all()) == (layers == 1)
    assert bool((change[8:] == 0).all()) == (layers == 0)


def test_self_conditioning_starts_without_effect_and_off_is_exactly_the_table():
    fit, x, c = small_fit(), torch.randn(2, *SHAPE), condition()
    previous = torch.randn(2, 8, 48)
    plain = fit(x, torch.zeros(2), c)[0]
    assert torch.equal(fit(x, torch.zeros(2), c, previous)[0], plain)
    torch.nn.init.normal_(fit.latent_init.norm.weight)
    assert not torch.equal(fit(x, torch.zeros(2), c, previous)[0], plain)
    start = fit.latent_init(2, previous, torch.tensor([False, True]))
    assert torch.equal(start[0], fit.latent_init.table)
    assert not torch.equal(start[1], fit.latent_init.table)


def test_without_self_conditioning_nothing_is_carried_and_no_weight_is_idle():
    fit, x, c = small_fit(self_conditioning=0.0), torch.randn(2, *SHAPE), condition()
    assert fit(x, torch.zeros(2), c)[1] is None
    fit.train_forward(x, torch.zeros(2), c, Draws(0, 2)).square().mean().backward()
    assert [name for name, parameter in fit.named_parameters() if parameter.grad is None] == []


def test_first_pass_has_no_gradient_and_shares_all_inputs(monkeypatch):
    fit, x, c = small_fit(self_conditioning=0.5), torch.randn(4, *SHAPE), condition(4)
    torch.nn.init.normal_(fit.latent_init.norm.weight)
    calls = []
    evaluate = fit._evaluate

    def spy(*arguments):
        calls.append((torch.is_grad_enabled(), arguments))
        return evaluate(*arguments)

    monkeypatch.setattr(fit, "_evaluate", spy)
    c_noise = torch.randn(4)
    fit.train_forward(x, c_noise, c, Draws(0, 4)).square().mean().backward()
    (first_grad, first), (second_grad, second) = calls
    assert (first_grad, second_grad) == (False, True)
    assert not second[3].requires_grad
    rows = [next(i for i in range(4) if torch.equal(x[i], row)) for row in first[0]]
    assert len(set(rows)) == 2
    for mine, theirs in ((first[1], c_noise), (first[2].tokens, c.tokens), (first[2].mask, c.mask)):
        assert torch.equal(mine, theirs[rows])
    assert set(second[4].nonzero().flatten().tolist()) <= set(rows)


def test_self_conditioning_probability():
    fit = small_fit(self_conditioning=0.7)
    kept = []

    def evaluate(x, c_noise, context, previous, keep):
        kept.append(keep)
        return x, torch.zeros(len(x), 8, 48)

    fit._evaluate = evaluate
    for seed in range(200):
        fit.train_forward(torch.randn(3, *SHAPE), torch.zeros(3), condition(3), Draws(seed, 3))
    share = torch.stack([k for k in kept if k is not None]).float().mean()
    assert share == pytest.approx(0.7, abs=0.06)  # 3 standard errors of 600 draws


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_ranks_together_make_the_prediction_of_one_process(share):
    """3 videos and 2 images on each of two ranks; the first passes are as large on both."""
    fit, x, c_noise, c = small_fit(self_conditioning=share), torch.randn(10, *SHAPE), torch.randn(10), condition(10)
    torch.nn.init.normal_(fit.latent_init.norm.weight)
    sizes = []
    fit.latent_init.register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    whole = fit.train_forward(x, c_noise, c, Draws(1, 6, 4))
    for rank in range(2):
        draws = Draws(1, 3, 2, rank, 2)
        rows = draws.places
        part = fit.train_forward(x[rows], c_noise[rows], Condition(c.tokens[rows], c.mask[rows]), draws)
        torch.testing.assert_close(part, whole[rows])
    assert sizes[2:4] == sizes[4:]
    other = fit.train_forward(x, c_noise, c, Draws(2, 6, 4))
    assert not torch.allclose(other, whole, atol=1e-3)  # who starts from a first pass matters


def test_masked_conditioning_tokens_have_no_effect():
    fit, x, c = small_fit(), torch.randn(2, *SHAPE), condition()
    c.mask[:, 3:] = False
    changed = Condition(c.tokens.clone(), c.mask)
    changed.tokens[:, 3:] = torch.randn(2, 2, 24)
    shorter = Condition(c.tokens[:, :3], c.mask[:, :3])
    out = fit(x, torch.zeros(2), c)[0]
    assert torch.equal(fit(x, torch.zeros(2), changed)[0], out)
    torch.testing.assert_close(fit(x, torch.zeros(2), shorter)[0], out)


def test_prepared_conditioning_changes_nothing_and_is_not_computed_again(monkeypatch):
    fit, x, tokens = small_fit(), torch.randn(2, *SHAPE), condition(2)
    tokens.mask[0, 3:] = False
    expected, state = fit(x, torch.tensor([0.1, 0.7]), tokens)
    prepared = fit.prepare(tokens)
    for keys, values in prepared.known:
        assert keys.shape[2] == values.shape[2] == tokens.tokens.shape[1]
    seen = []
    layer = fit.blocks[0].read_condition.attention.to_kv
    layer.register_forward_hook(lambda module, args, out: seen.append(out.shape[1]))
    found, other_state = fit(x, torch.tensor([0.1, 0.7]), prepared)
    assert seen == [1]  # the noise level's token alone
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(other_state, state)


@pytest.mark.parametrize(
    "saving",
    [{"activation_checkpointing": True}, {"patch_chunk": 7}, {"patch_chunk": 7, "activation_checkpointing": True}],
)
def test_saving_memory_changes_nothing(saving):
    x, c = torch.randn(2, *SHAPE), condition()
    gradients = []
    for settings in ({}, saving):
        fit = small_fit(num_blocks=2, **settings)
        fit(x, torch.zeros(2), c)[0].square().mean().backward()
        gradients.append([p.grad for p in fit.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_low_resolution_pixel_is_seen_where_it_lies():
    """Without latent layers groups are apart: a pixel changes its own group, and its neighbours' by interpolation."""
    fit = small_fit(num_latent_layers=0, condition_channels=3)
    torch.nn.init.normal_(fit.head[1].weight)
    low = torch.randn(2, 3, 4, 5, 8)
    x, c = torch.randn(2, *SHAPE), condition()
    before = fit(x, torch.zeros(2), replace(c, video=low))[0]
    low[:, :, 1, 4, 0] += 1  # rows 8-9, columns 0-1; groups are of 12 rows and 8 columns
    changed = (fit(x, torch.zeros(2), replace(c, video=low))[0] != before).any(dim=(0, 1, 2, 3))
    assert changed[:8].all() and not changed[8:].any()


def test_first_stage_becomes_an_upsampler_that_starts_as_it_was():
    """Wider stem, other table of positions, same groups: with nothing to see in low resolution it computes the same."""
    first = small_fit()
    upsampler = small_fit(condition_channels=3)
    fitted = upsampler.fit_weights(dict(first.state_dict()), first)
    upsampler.load_state_dict(fitted)
    x, c_noise, c = torch.randn(2, *SHAPE), torch.randn(2), condition()
    expected = first(x, c_noise, c)[0]
    torch.testing.assert_close(upsampler(x, c_noise, replace(c, video=torch.randn(2, 3, 4, 5, 8)))[0], expected)


def test_of_another_backbone_nothing_is_changed():
    weights = {"stem.weight": torch.ones(2)}
    assert small_fit().fit_weights(weights, UNet(SHAPE, channels=8, head_dim=8, attention_levels=())) == weights


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_latents": 9}, r"num_latents=9 .* 2 groups; \[8, 10\] would fit"),
        ({"group": (3, 3, 2)}, r"along T, .* group sizes \[1, 2, 4\] fit"),
        ({"group": (4, 3, 3)}, r"along W, .* pad 16 pixels by 8"),
        ({"patch": (3, 4, 4)}, r"along T, .* patch sizes \[1, 2, 4\] fit"),
        ({"patch_head_dim": 9}, r"head_dim=9 does not divide the attention width 24; \[1, 2, 3, 4, 6, 8, 12, 24\] fit"),
        ({"latent_head_dim": 5}, r"head_dim=5 does not divide"),
        ({"patch_chunk": -1}, r"patch_chunk=-1 must be at least 1"),
        ({"patch": (1, 4)}, r"patch=\[1, 4\] must be three sizes"),
    ],
)
def test_bad_geometry_names_what_would_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        small_fit(**settings)
