"""DDPM and flow matching: what the network is given and asked, in their papers' own coordinates."""

import math

import pytest
import torch

from snapvideo.components import DDPM, FlowMatching

X, EPS = torch.randn(2, 1, 1, 1, 100, 1000, generator=torch.Generator().manual_seed(0))


def asked(framework, sigma):
    """What the network gets for X at a level, and the loss if it says nothing but zeros."""
    seen = []

    def predict(x, c_noise):
        seen.extend((x, c_noise))
        return torch.zeros_like(x)

    loss = framework.loss(predict, X, torch.tensor([sigma]), EPS)
    return *seen, loss


@pytest.mark.parametrize("k", [1.0, 4.0])
@pytest.mark.parametrize("s", [0.01, 0.5, 3.0, 100.0])
def test_ddpm_sees_unit_variance(s, k):
    given, c_noise, _ = asked(DDPM("linear", sigma_in=k), k * s)
    assert given.std().item() == pytest.approx(1, rel=0.01)
    assert c_noise.item() == pytest.approx(math.log(s) / 4, abs=1e-5)
    expected = X / k + s * EPS  # up to its scale
    assert torch.corrcoef(torch.stack([given.flatten(), expected.flatten()]))[0, 1] > 0.9999


@pytest.mark.parametrize("s", [0.1, 1.0, 5.0])
def test_ddpm_is_asked_for_its_targets(s):
    signal, noise = 1 / math.sqrt(1 + s**2), s / math.sqrt(1 + s**2)
    targets = {"eps": EPS, "x0": X, "v": signal * EPS - noise * X}
    for prediction, target in targets.items():
        loss = asked(DDPM("linear", prediction, sigma_in=1), s)[2]
        torch.testing.assert_close(loss, target.square().mean().reshape(1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("time", [0.1, 0.5, 0.95])
def test_flow_matching_asks_for_the_velocity_on_the_line(time):
    given, c_noise, loss = asked(FlowMatching(shift=2.0), time / (1 - time))
    torch.testing.assert_close(given, (1 - time) * X + time * EPS, rtol=1e-4, atol=1e-5)
    assert c_noise.item() == pytest.approx(2 * time - 1, abs=1e-5)
    torch.testing.assert_close(loss, (EPS - X).square().mean().reshape(1), rtol=1e-4, atol=0)
