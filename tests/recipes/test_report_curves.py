"""What a report's curves and numbers are drawn by: axes, ticks, thinning, words."""

import math
from itertools import pairwise

import numpy as np
import pytest

from snapvideo.recipes.report.curves import Axis, round_values, thin, trace, value_axis
from snapvideo.recipes.report.folder import Curve
from snapvideo.recipes.report.markup import duration, number
from snapvideo.recipes.report.panels import moving_mean


@pytest.mark.parametrize("low", [0.0, -3.0, 1e-7, 0.99, 12345.0])
@pytest.mark.parametrize("width", [1e-9, 0.0314, 1.0, 7.7, 99.0, 5.5e8])
def test_ticks_are_round(low, width):
    ticks = round_values(low, low + width)
    assert 2 <= len(ticks) <= 7
    for a, b in pairwise(ticks):
        digit, exponent = f"{b - a:.4e}".split("e")
        assert float(digit) in (1, 2, 5) or width / max(abs(low), 1e-300) < 1e-9, (ticks, exponent)
    assert low - 1e-9 * width <= ticks[0] and ticks[-1] <= low + width * (1 + 1e-9)


@pytest.mark.parametrize(("low", "high"), [(1e-5, 1e5), (0.049, 4.1), (2.2, 12.0), (0.101, 0.109), (1, 1)])
def test_ticks_of_a_logarithmic_axis(low, high):
    axis = value_axis([low, high], log=True)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12
    places = [axis(tick) for tick in ticks]
    assert places == sorted(places, reverse=True) and 14 <= places[-1] <= places[0] <= 202


def test_equal_values_have_an_axis():
    for value in (0.0, 3.0, -3.0):
        axis = value_axis([value, value], log=False)
        assert axis.low < axis.high and 14 <= axis(value) <= 202 and 0 in axis.ticks()
    assert Axis(0, 10, 0, 100)(5) == 50


def test_thinning_keeps_what_stands_out():
    values = np.random.default_rng(0).normal(size=5000)
    values[1234], values[3456], values[4000] = 9, -9, math.nan
    curve = Curve(list(range(0, 50000, 10)), values.tolist())
    places = thin(curve, 400)
    assert {0, 1234, 3456, 4000, 4999} <= set(places) and len(places) <= 402
    assert places == sorted(set(places))
    assert [len(part) for part in trace(curve, 400).stretches] == [
        places.index(4000),
        len(places) - 1 - places.index(4000),
    ]


def test_the_moving_mean():
    values = np.random.default_rng(0).normal(size=1000)
    mean, width = moving_mean(Curve(range(1000), values.tolist()), 1000)
    assert width == 40
    expected = np.convolve(values, np.ones(40) / 40, "valid")
    np.testing.assert_allclose(mean.values[39:], expected, rtol=1e-9, atol=1e-12)
    few, _ = moving_mean(Curve(range(1000), values.tolist()), 100)
    assert few.steps == [*range(9, 1000, 10)] and few.values[-1] == mean.values[-1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.22908878, "2.229"), (12345.6, "12,346"), (1e-4, "1e-4"), (0, "0"), (-1.5e-12, "-1.5e-12"), (1e12, "1e12"),
     (math.nan, "NaN"), (-math.inf, "-∞"), (None, "–"), (0.00951, "0.00951"), (True, "True")],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (86, "1 min 26 s"), (7500, "2 h 5 min"), (86400, "1 d")])
def test_durations(seconds, text):
    assert duration(seconds) == text
