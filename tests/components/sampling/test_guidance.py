"""Classifier-free guidance."""

import pytest
import torch

from snapvideo.components import ClassifierFree


def test_mixes_estimates_linearly():
    x, sigma = torch.randn(2, 3, 2, 4, 4), torch.ones(2)
    for scale, expected in ((0.0, -1.0), (0.5, 0.5), (4.0, 11.0)):
        guided = ClassifierFree(scale)(lambda x, s: x + 2, lambda x, s: x - 1)
        torch.testing.assert_close(guided(x, sigma), x + expected)


def test_no_guidance_costs_no_second_evaluation():
    conditional = lambda x, sigma: x  # noqa: E731
    assert ClassifierFree(1)(conditional, lambda x, sigma: pytest.fail("evaluated")) is conditional


def test_scale_must_be_finite():
    with pytest.raises(ValueError, match="scale=inf"):
        ClassifierFree(float("inf"))
