"""Guidance against its formulas."""

import numpy as np
import pytest
import torch

from snapvideo.components import ClassifierFree, Oscillating, Threshold
from snapvideo.components.interfaces import Branches

X, SIGMA = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)), torch.ones(2)


class Shifted(Branches):
    """The condition adds 2, its absence takes 1; counts how often both were asked."""

    def __init__(self):
        self.asked_both = 0

    def conditional(self, x, sigma):
        return x + 2

    def both(self, x, sigma):
        self.asked_both += 1
        return x + 2, x - 1


def test_mixes_estimates_linearly():
    for scale, expected in ((0.0, -1.0), (0.5, 0.5), (4.0, 11.0)):
        torch.testing.assert_close(ClassifierFree(scale)(Shifted())(X, SIGMA), X + expected)


def test_no_guidance_costs_no_second_evaluation():
    branches = Shifted()
    assert torch.equal(ClassifierFree(1)(branches)(X, SIGMA), X + 2)
    assert branches.asked_both == 0


def test_an_interval_guides_inside_alone():
    branches = Shifted()
    guided = ClassifierFree(4.0, low=0.5, high=3.0)(branches)
    shifts = [(guided(X, sigma * SIGMA) - X).mean().item() for sigma in (10.0, 3.0, 1.0, 0.5, 0.1)]
    assert shifts == pytest.approx([2, 11, 11, 11, 2], abs=1e-5)
    assert branches.asked_both == 3


def test_oscillation_starts_high_and_counts_levels_not_evaluations():
    guided = Oscillating(scale=4.0, low_scale=1.0, num_high=3)(Shifted())
    sigmas = [9.0, 8.0, 8.0, 7.0, 7.0, 6.0, 6.0, 5.0, 5.0, 4.0]  # as Heun asks
    shifts = [(guided(X, sigma * SIGMA) - X).mean().item() for sigma in sigmas]
    assert shifts == pytest.approx([11, 11, 11, 11, 11, 2, 2, 11, 11, 2], abs=1e-5)


def test_oscillation_counts_levels_under_churn():
    """Heun with churn asks first above a level, then at the next one."""
    guided = Oscillating(scale=4.0, low_scale=1.0, num_high=2)(Shifted())
    sigmas = [9.9, 8.0, 8.8, 7.0, 7.7, 6.0, 6.6, 5.0]
    shifts = [(guided(X, sigma * SIGMA) - X).mean().item() for sigma in sigmas]
    assert shifts == pytest.approx([11, 11, 11, 2, 2, 11, 11, 2], abs=1e-5)


def test_oscillation_starts_anew_with_each_sampling():
    guidance = Oscillating(scale=4.0, num_high=1)
    for _ in range(2):
        guided = guidance(Shifted())
        assert [(guided(X, s * SIGMA) - X).mean().item() for s in (2.0, 1.0)] == pytest.approx([11, 2], abs=1e-5)


def test_static_threshold_clips():
    guided = Threshold(ClassifierFree(4.0), mode="static")(Shifted())(X - 11, SIGMA)
    torch.testing.assert_close(guided, X.clamp(-1, 1))


@pytest.mark.parametrize("quantile", [0.5, 0.9, 1.0])
def test_dynamic_threshold_divides_by_a_quantile_of_each_video(quantile):
    scaled = X * torch.tensor([0.1, 5.0])[:, None, None, None, None]
    guided = Threshold(ClassifierFree(4.0), quantile=quantile)(Shifted())(scaled - 11, SIGMA)
    torch.testing.assert_close(guided[0], scaled[0], atol=1e-5, rtol=0)  # all within [-1, 1]
    limit = float(np.quantile(scaled[1].abs(), quantile, method="inverted_cdf"))
    torch.testing.assert_close(guided[1], scaled[1].clamp(-limit, limit) / limit, atol=1e-5, rtol=0)
    assert guided.abs().max() <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassifierFree(float("inf")), "scale=inf"),
        (lambda: ClassifierFree(2.0, low=3.0, high=3.0), "low=3.0 must be below high=3.0"),
        (lambda: Oscillating(low_scale=float("nan")), "low_scale=nan"),
        (lambda: Oscillating(num_high=0), "num_high=0"),
        (lambda: Threshold(ClassifierFree(), quantile=0.0), "quantile=0.0"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
