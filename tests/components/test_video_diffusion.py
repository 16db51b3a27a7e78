"""VideoDiffusion: losses, randomness and samples of a small model."""

import dataclasses
import gc
import math
from collections.abc import Iterable
from types import SimpleNamespace

import pytest
import torch

from snapvideo.components import EDM, FIT, ClassifierFree, Heun, LinearLevels, Reconstruction, VideoDiffusion
from snapvideo.components.conditioning import ByteText, Conditioners, FrameRate, Resolution
from snapvideo.components.interfaces import Condition, Prompt, VideoBatch, VideoShape
from snapvideo.components.video_diffusion import Denoiser, DenoiserPair

SHAPE = VideoShape(num_frames=2, height=8, width=8)


def small_model(dim_condition: int = 24, **settings) -> VideoDiffusion:
    torch.manual_seed(0)
    backbone = FIT(
        SHAPE,
        patch=(1, 4, 4),
        group=(2, 2, 1),
        num_latents=4,
        num_blocks=2,
        num_latent_layers=1,
        dim_patch=16,
        dim_latent=24,
        dim_condition=dim_condition,
        patch_head_dim=8,
        latent_head_dim=8,
    )
    torch.nn.init.normal_(backbone.latent_init.norm.weight)
    conditioner = Conditioners([ByteText(24, width=32), FrameRate(24), Resolution(24)])
    optimizer, scheduler = torch.optim.Adam, torch.optim.lr_scheduler.ConstantLR
    return VideoDiffusion(backbone, EDM(), conditioner, Heun(3), ClassifierFree(2.0), optimizer, scheduler, **settings)


def prompt(*captions: str, fps: float = 8.0) -> Prompt:
    count = len(captions)
    return Prompt(list(captions), torch.full((count,), fps), torch.full((count, 2), 64.0))


def batch() -> VideoBatch:
    video = torch.rand(4, *SHAPE) * 2 - 1
    video[2:] = video[2:, :, :1]  # two images: equal frames
    fps = torch.tensor([8.0, 16.0, math.inf, math.inf])
    return VideoBatch(["a", "b c", "", "d"], fps, torch.full((4, 2), 64.0), video, list("wxyz"))


def rows(data: VideoBatch, chosen: Iterable[int]) -> VideoBatch:
    """Some samples of a batch."""
    chosen = list(chosen)
    captions, keys = [data.captions[i] for i in chosen], [data.keys[i] for i in chosen]
    return VideoBatch(captions, data.fps[chosen], data.resolution[chosen], data.video[chosen], keys)


class Mesh:
    """What a strategy spreads a model over."""

    def __init__(self, **sizes: int):
        self.sizes = sizes

    def __getitem__(self, axis: str) -> "Mesh":
        return Mesh(**{axis: self.sizes[axis]})

    def size(self) -> int:
        return math.prod(self.sizes.values())


@pytest.fixture
def logged(monkeypatch):
    values = {}
    monkeypatch.setattr(VideoDiffusion, "log", lambda self, name, value, **_: values.__setitem__(name, value.item()))
    return values


def test_a_sample_depends_on_its_own_seed_and_prompt_alone():
    model = small_model()
    together = model.sample(prompt("a red circle", "blue", "a red circle"), [3, 4, 5])
    assert together.shape == (3, *SHAPE)
    assert together.abs().max() <= 1
    alone = model.sample(prompt("a red circle"), [3])
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-4)
    assert not torch.allclose(together[0], together[2], atol=1e-2)
    assert torch.equal(model.sample(prompt("a red circle"), [3]), alone)


def test_sampling_leaves_the_modes_of_all_parts_and_takes_none_of_the_global_randomness():
    model = small_model().train()
    model.backbone.blocks[0].eval()
    before = torch.get_rng_state()
    modes = [part.training for part in model.modules()]
    model.sample(prompt("x"), [0])
    assert torch.equal(torch.get_rng_state(), before)
    assert [part.training for part in model.modules()] == modes


def denoisers(model: VideoDiffusion) -> tuple[Denoiser, Denoiser]:
    """Two of the same videos, whose conditioning has 5 and 3 tokens, some of them masked."""
    generator = torch.Generator().manual_seed(1)
    masks = [torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0]]).bool(), torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()]
    conditions = [Condition(torch.randn(*mask.shape, 24, generator=generator), mask) for mask in masks]
    return tuple(Denoiser(model.framework, model.backbone, condition) for condition in conditions)


@pytest.mark.parametrize("alone", [(), (0,), (1,), (0, 1)])
@torch.no_grad()
def test_one_evaluation_for_both_branches_is_two(alone):
    """Each branch keeps latents of its own, also where the first had evaluations before the other."""
    model = small_model().eval()
    pair, (one, two) = DenoiserPair(*denoisers(model)), denoisers(model)
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(2))
    for step, sigma in enumerate((4.0, 2.0, 1.0)):
        levels = torch.full((2,), sigma)
        if step in alone:
            torch.testing.assert_close(pair.conditional(x, levels), one(x, levels))
        else:
            for ours, expected in zip(pair.both(x, levels), (one(x, levels), two(x, levels)), strict=True):
                torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    fresh, _ = denoisers(model)
    assert not torch.allclose(fresh(x, levels), one(x, levels), atol=1e-3)  # the latents matter


def with_graph() -> list[torch.Tensor]:
    """Tensors that keep a graph alive."""
    gc.collect()
    return [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor) and thing.grad_fn is not None]


def test_known_frames_come_out_as_given_and_no_gradient_stays():
    model, before, graphs = small_model(), len(with_graph()), []
    model.conditioner.requires_grad_(False)
    frozen = [weight.requires_grad for weight in model.parameters()]
    frames = torch.rand(2, *SHAPE) * 2 - 1

    def steer(denoise):
        steered = Reconstruction(frames, torch.tensor([True, False]))(denoise)

        def watched(y, sigma):
            estimate = steered(y, sigma)
            graphs.append(len(with_graph()))
            return estimate

        return watched

    video = model.sample(prompt("a red circle", "blue"), [3, 4], steer=steer)
    torch.testing.assert_close(video[:, :, 0], frames[:, :, 0])
    assert not video.requires_grad and not torch.allclose(video, model.sample(prompt("a red circle", "blue"), [3, 4]))
    assert graphs == [before] * 5  # the latents that an evaluation leaves do not hold on to it
    assert all(weight.grad is None for weight in model.parameters())
    assert [weight.requires_grad for weight in model.parameters()] == frozen
    alone = model.sample(prompt("blue"), [4], steer=Reconstruction(frames[1:], torch.tensor([True, False])))
    torch.testing.assert_close(alone, video[1:], rtol=0, atol=1e-4)


def test_known_frames_in_inference_mode_and_in_bf16():
    model, frames = small_model(), torch.rand(1, *SHAPE) * 2 - 1
    steer = Reconstruction(frames, torch.tensor([True, False]))
    expected = model.sample(prompt("a red circle"), [3], steer=steer)
    with torch.inference_mode():
        assert torch.equal(model.sample(prompt("a red circle"), [3], steer=steer), expected)
    with torch.autocast("cpu", torch.bfloat16):
        video = model.sample(prompt("a red circle"), [3], steer=steer)
    torch.testing.assert_close(video[:, :, 0], frames[:, :, 0])
    torch.testing.assert_close(video, expected, rtol=0, atol=0.05)


def test_levels_take_the_place_of_the_frameworks():
    model = small_model(levels=LinearLevels())
    own = small_model().sampling_levels()
    share = 1 / (1 + model.sampling_levels()[:-1] ** 2)  # of the signal in the variance
    torch.testing.assert_close(share.diff(n=2), torch.zeros(1).double(), rtol=0, atol=1e-9)
    assert model.sampling_levels()[0] == pytest.approx(own[0]) and model.sampling_levels()[-1] == 0
    assert not torch.equal(model.sample(prompt("x"), [0]), small_model().sample(prompt("x"), [0]))


def test_evaluations_are_counted():
    calls = []
    small_model().sample(prompt("x"), [0], on_evaluation=lambda: calls.append(1))
    assert len(calls) == 2 * 3 - 1


def test_without_guidance_a_null_caption_hides_the_text():
    model = small_model(label_dropout=0.0)
    model.guidance = ClassifierFree(0.0)
    one, other = model.sample(prompt("a red circle", "two words"), [1, 1])
    torch.testing.assert_close(one, other)
    model.guidance = ClassifierFree(1.0)
    one, other = model.sample(prompt("a red circle", "two words"), [1, 1])
    assert not torch.allclose(one, other)


def test_images_and_videos_give_finite_losses_logged_apart(logged):
    model = small_model()
    loss = model.training_step(batch(), 0)["loss"]
    loss.backward()
    assert loss.isfinite()
    expected = (logged["train/loss_image"] + logged["train/loss_video"]) / 2
    assert logged["train/loss"] == pytest.approx(expected)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_draws_are_a_function_of_seed_place_and_step(monkeypatch, logged):
    model = small_model()

    def loss(**place) -> float:
        monkeypatch.setenv("PL_GLOBAL_SEED", str(place.get("seed", 0)))
        model._trainer = SimpleNamespace(world_size=2, accumulate_grad_batches=2)
        monkeypatch.setattr(VideoDiffusion, "global_rank", property(lambda self: place.get("rank", 0)))
        monkeypatch.setattr(VideoDiffusion, "global_step", property(lambda self: place.get("step", 0)))
        model.on_train_batch_start(data, place.get("batch", 0))
        return model.training_step(data, place.get("batch", 0))["loss"].item()

    data = batch()
    torch.manual_seed(1)
    first = loss()
    torch.manual_seed(2)
    assert loss() == first
    assert loss(batch=2) == first  # the first of a step's two batches, however many went before
    assert len({first, loss(seed=1), loss(rank=1), loss(step=1), loss(batch=1)}) == 5


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_mean_over_two_ranks_is_the_loss_of_one_process(dropout, monkeypatch, logged):
    """2 videos and 2 images, a rank has one of each; the model has no dropout but of labels."""
    model, data = small_model(label_dropout=dropout).eval(), batch()

    def loss(rank: int, world: int) -> float:
        model._trainer = SimpleNamespace(world_size=world, accumulate_grad_batches=1)
        monkeypatch.setattr(VideoDiffusion, "global_rank", property(lambda self: rank))
        monkeypatch.setattr(VideoDiffusion, "global_step", property(lambda self: 5))
        return model.training_step(rows(data, range(rank, 4, world)), 0)["loss"].item()

    assert (loss(0, 2) + loss(1, 2)) / 2 == pytest.approx(loss(0, 1), rel=1e-5)


def test_label_dropout_drops_text_at_its_probability(monkeypatch, logged):
    model, drops = small_model(label_dropout=0.3), []
    forward = model.conditioner.forward
    monkeypatch.setattr(model.conditioner, "forward", lambda p, drop: drops.append(drop) or forward(p, drop))
    monkeypatch.setattr(model, "_losses", lambda predict, batch, sigma, noise: torch.zeros(4))
    for step in range(150):
        monkeypatch.setattr(VideoDiffusion, "global_step", property(lambda self, step=step: step))
        model.training_step(batch(), 0)
    assert torch.cat(drops).float().mean() == pytest.approx(0.3, abs=0.06)  # 3 standard errors of 600 draws


def test_validation_is_the_same_whatever_went_before_and_has_all_bands(logged):
    model, data = small_model().eval(), batch()
    torch.manual_seed(1)
    model.validation_step(data, 0)
    first = dict(logged)
    torch.manual_seed(2)
    model.validation_step(data, 0)
    assert logged == first
    bands = [logged[f"val/loss/band_{i}"] for i in range(5)]
    assert logged["val/loss"] == pytest.approx(sum(bands) / 5, rel=1e-5)
    data.keys = list("abcd")
    model.validation_step(data, 0)
    assert logged != first


def test_validation_is_the_same_however_the_samples_are_batched(logged):
    model, data = small_model().eval(), batch()
    model.validation_step(data, 0)
    whole, parts = logged["val/loss"], []
    for index, chosen in enumerate(([3], [0, 1, 2])):
        model.validation_step(rows(data, chosen), index)
        parts.append(logged["val/loss"] * len(chosen))
    assert sum(parts) / 4 == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim_condition": 32}, r"conditioner\.dim=24 must equal backbone\.dim_condition=32"),
        ({"label_dropout": 1.5}, r"label_dropout=1\.5 must be a probability"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        small_model(**settings)


def test_a_part_that_breaks_its_contract_is_named(monkeypatch, logged):
    model = small_model()
    monkeypatch.setattr(model.framework, "loss", lambda *_: torch.zeros(()))
    with pytest.raises(ValueError, match=r"EDM\.loss returned \[\] for a batch of 4: .* \[4\]"):
        model.training_step(batch(), 0)
    model = small_model()
    tokens = Condition(torch.zeros(4, 3, 16), torch.ones(4, 3, dtype=torch.bool))
    monkeypatch.setattr(model.conditioner, "forward", lambda *_: tokens)
    with pytest.raises(ValueError, match=r"Conditioners\.forward returned tokens \[4, 3, 16\].*\[4, 3, 24\]"):
        model.training_step(batch(), 0)


def test_layers_are_not_split_over_devices():
    model = small_model()
    model._device_mesh = Mesh(data_parallel=2, tensor_parallel=2)
    with pytest.raises(ValueError, match=r"tensor_parallel_size=2: .* data_parallel_size to the number of devices, 4"):
        model.configure_model()


def test_each_sample_needs_a_seed():
    with pytest.raises(ValueError, match="1 seeds for 2 prompts"):
        small_model().sample(prompt("a", "b"), [0])


@pytest.mark.parametrize("step", ["training_step", "validation_step"])
def test_noise_levels_are_those_of_the_shape_of_the_batch(logged, monkeypatch, step):
    """EDM's scale is max(H, W) / 64 * sqrt(T) (paper, 3.1): here 3 sqrt(2) times that of the model's own shape."""
    sigmas = []

    def losses(predict, x, sigma, noise):
        sigmas.append(sigma)
        return x.flatten(1).mean(1)

    model = small_model()
    monkeypatch.setattr(model.framework, "loss", losses)
    for shape in (SHAPE, VideoShape(4, 24, 16)):
        getattr(model, step)(dataclasses.replace(batch(), video=torch.zeros(4, *shape)), 0)
    half = len(sigmas) // 2
    for own, other in zip(sigmas[:half], sigmas[half:], strict=True):
        torch.testing.assert_close(other, own * 3 * math.sqrt(2))
