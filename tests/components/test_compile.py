"""Compiled blocks: whole graphs, the same results, the same names of weights."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.testing import assert_close

from snapvideo.components import EDM, FIT, ByteText, ClassifierFree, Heun, UNet, VideoDiffusion
from snapvideo.components.draws import Draws
from snapvideo.components.interfaces import Backbone, Condition, VideoShape
from snapvideo.components.layers import blocks

SHAPE = VideoShape(num_frames=2, height=8, width=8)


def fit(num_blocks: int = 2, **settings) -> FIT:
    sizes = {"dim_patch": 16, "dim_latent": 24, "patch_head_dim": 8, "latent_head_dim": 8, "dim_condition": 24}
    network = FIT(SHAPE, (1, 4, 4), (2, 2, 1), 4, num_blocks, num_latent_layers=1, **sizes, **settings)
    nn.init.normal_(network.latent_init.norm.weight)
    return network


def unet() -> UNet:
    network = UNet(SHAPE, 16, (1, 2), num_blocks=1, attention_levels=(1,), head_dim=16, dim_condition=24)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)  # of zeros not all would be seen
    return network


def model(backbone: Backbone, compile: bool) -> VideoDiffusion:
    parts = EDM(), ByteText(24, width=32), Heun(2), ClassifierFree(2.0)
    optimizer, scheduler = torch.optim.Adam, torch.optim.lr_scheduler.ConstantLR
    return VideoDiffusion(backbone, *parts, optimizer, scheduler, compile=compile)


@pytest.fixture(params=["eager"])
def backend(request, monkeypatch):
    """Blocks are compiled for this backend, as one graph or not at all."""
    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: original(self, backend=request.param, fullgraph=True))
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(recompile_limit=8):
        yield


def outcome(backbone: Backbone, samples: bool = True) -> list[torch.Tensor]:
    """A prediction to train on and its gradients, dropout included; a second evaluation as in sampling."""
    generator = torch.Generator().manual_seed(0)
    x, c_noise, tokens = (torch.randn(*size, generator=generator) for size in ((4, *SHAPE), (4,), (4, 3, 24)))
    condition = Condition(tokens, torch.ones(4, 3, dtype=torch.bool))
    torch.manual_seed(1)
    prediction = backbone.train().train_forward(x, c_noise, condition, Draws(0, 4))
    prediction.square().mean().backward()
    results = [prediction, *(weight.grad for weight in backbone.parameters() if weight.grad is not None)]
    if not samples:
        return results
    with torch.no_grad():
        _, state = backbone.eval()(x, c_noise, condition)
        return [*results, backbone(x, c_noise, backbone.prepare(condition), state)[0]]


def assert_compiles_without_a_difference(backbone: Backbone, **settings) -> None:
    expected = outcome(copy.deepcopy(backbone), **settings)
    names = list(backbone.state_dict())
    compiled = model(backbone, compile=True)
    for _ in range(2):  # as the trainer does
        compiled.configure_model()
    found = outcome(compiled.backbone, **settings)
    assert counters["stats"]["unique_graphs"] > 0 and not counters["graph_break"]
    assert list(backbone.state_dict()) == names
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_block_is_one_graph_and_gives_the_same(backend):
    assert_compiles_without_a_difference(fit(num_blocks=1), samples=False)
    assert counters["stats"]["unique_graphs"] == 2  # one for each pass


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [fit, lambda: fit(activation_checkpointing=True), unet], ids=["FIT", "FIT, checkpointing", "UNet"]
)
def test_all_blocks_are_whole_graphs_in_training_and_sampling(backend, make):
    assert_compiles_without_a_difference(make())


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["inductor"], indirect=True)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_code_gives_the_same(backend, checkpointing):
    assert_compiles_without_a_difference(fit(dropout=0.0, activation_checkpointing=checkpointing))


def test_nothing_is_compiled_unless_it_is_asked_for():
    plain = model(fit(), compile=False)
    plain.configure_model()
    assert all(block._compiled_call_impl is None for block in blocks(plain.backbone))


def test_an_average_of_a_compiled_model_is_a_model_of_its_own(backend):
    """Deep copies, as averaged weights are, must not run the code of what they were copied from."""
    compiled = model(fit(num_blocks=1), compile=True).eval()
    compiled.configure_model()
    average = copy.deepcopy(compiled)
    nn.init.normal_(average.backbone.blocks[0].write.attention.to_out.weight)
    condition = Condition(torch.ones(1, 3, 24), torch.ones(1, 3, dtype=torch.bool))
    with torch.no_grad():
        one, other = (
            each.backbone(torch.ones(1, *SHAPE), torch.zeros(1), condition)[0] for each in (compiled, average)
        )
    assert not torch.allclose(one, other)
