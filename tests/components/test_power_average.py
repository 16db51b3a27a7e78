"""Power-function averages against published figures, numeric integrals and averages that were tracked directly."""

import numpy as np
import pytest

from snapvideo.components.power_average import (
    LONGEST,
    Profile,
    combine,
    decay,
    exponent_of,
    inner_products,
    response,
    std_of,
)

TIMES = np.linspace(0, 100, 200_001)


def integral(values):
    return np.trapezoid(values, TIMES)


@pytest.mark.parametrize(("std", "exponent"), [(0.05, 16.97), (0.10, 6.94)])
def test_published_exponents(std, exponent):
    """Those of section 3.1."""
    assert exponent_of(std) == pytest.approx(exponent, abs=0.005)


@pytest.mark.parametrize("std", [0.001, 0.02, 0.05, 0.1, 0.2, 0.28])
def test_length_and_exponent_are_inverse(std):
    assert std_of(exponent_of(std)) == pytest.approx(std, rel=1e-9)


def test_the_longest_is_the_mean_over_all_steps():
    assert std_of(0.0) == pytest.approx(LONGEST) == pytest.approx(np.arange(1000).std() / 1000, rel=1e-5)


@pytest.mark.parametrize("std", [0.0, -0.1, 0.29, 1.0, float("nan")])
def test_lengths_out_of_range_are_refused(std):
    with pytest.raises(ValueError, match=r"above 0 and below 0\.289"):
        exponent_of(std)


@pytest.mark.parametrize("std", [0.03, 0.1, 0.25])
def test_the_response_has_the_length_that_it_is_named_by(std):
    weight = response(TIMES, Profile(80, std))
    mean = integral(TIMES * weight)
    assert integral(weight) == pytest.approx(1, rel=1e-4)
    assert np.sqrt(integral((TIMES - mean) ** 2 * weight)) / 80 == pytest.approx(std, rel=1e-3)


def test_inner_products_are_integrals():
    profiles = [Profile(30, 0.1), Profile(80, 0.05), Profile(80, 0.2), Profile(100, 0.03)]
    found = inner_products(profiles, profiles[::-1])
    for i, one in enumerate(profiles):
        for j, other in enumerate(profiles[::-1]):
            expected = integral(response(TIMES, one) * response(TIMES, other))
            assert found[i, j] == pytest.approx(expected, rel=1e-3)


def tracked(weights, std):
    """The average after each step, by the rule of training."""
    averages = [weights[0]]
    for step in range(2, len(weights) + 1):
        beta = decay(step, std)
        averages.append(beta * averages[-1] + (1 - beta) * weights[step - 1])
    return averages


@pytest.mark.parametrize("std", [0.05, 0.2])
def test_tracking_is_the_integral_of_the_response(std):
    """The weights of step s have the share between s - 1 and s, from the first step on."""
    shares = tracked(np.eye(50), std)[-1]
    edges = (np.arange(51) / 50) ** (exponent_of(std) + 1)  # the integral of the response, in closed form
    np.testing.assert_allclose(shares, np.diff(edges), atol=1e-15)
    assert decay(1, std) == 0


def walk(steps=4000):
    """Weights that are drawn to an optimum, from afar, by noisy steps."""
    random = np.random.default_rng(0)
    weights = [10 * random.standard_normal(200)]
    for _ in range(steps - 1):
        weights.append(0.99 * weights[-1] + random.standard_normal(200))
    return np.stack(weights)


@pytest.mark.parametrize(
    ("std", "most"), [(0.02, 8e-3), (0.03, 2e-3), (0.04, 5e-4), (0.07, 2e-4), (0.15, 4e-4), (0.2, 1e-3)]
)
def test_a_rebuilt_average_is_the_one_that_was_not_tracked(std, most):
    """40 snapshots of 0.05 and 0.10 give averages that differ from tracked ones by `most` of their size.

    The nearer of the two snapshots differs by 14% (for 0.04) to 80% (for 0.2).
    """
    weights = walk()
    averages = {known: tracked(weights, known) for known in (0.05, 0.10)}
    known = [Profile(step, length) for step in range(100, 4001, 100) for length in averages]
    shares, error = combine(known, Profile(4000, std))
    rebuilt = sum(share * averages[each.std][each.step - 1] for share, each in zip(shares, known, strict=True))
    wanted = tracked(weights, std)[-1]
    off = np.linalg.norm(rebuilt - wanted) / np.linalg.norm(wanted)
    assert off < most
    assert off < error < 5 * most  # the error that is told needs no weights: it bounds the one that there is
    nearest = min(np.linalg.norm(each[-1] - wanted) for each in averages.values()) / np.linalg.norm(wanted)
    assert off < nearest / 30


def test_a_snapshot_gives_itself_and_weights_that_stand_still_stay():
    known = [Profile(step, std) for step in (10, 20, 30) for std in (0.05, 0.10)]
    shares, error = combine(known, Profile(20, 0.10))
    np.testing.assert_allclose(shares, [0, 0, 0, 1, 0, 0], atol=1e-9)
    assert error < 1e-6
    assert combine(known, Profile(30, 0.2))[0].sum() == pytest.approx(1, abs=1e-12)


def test_the_error_is_that_of_the_response():
    known, wanted = [Profile(step, std) for step in (40, 80) for std in (0.05, 0.10)], Profile(80, 0.2)
    shares, error = combine(known, wanted)
    made = sum(share * response(TIMES, each) for share, each in zip(shares, known, strict=True))
    difference, size = (integral(f**2) for f in (made - response(TIMES, wanted), response(TIMES, wanted)))
    assert error == pytest.approx(np.sqrt(difference / size), rel=1e-3)


def test_more_snapshots_are_nearer():
    errors = []
    for every in (40, 20, 10, 5):
        known = [Profile(step, std) for step in range(every, 81, every) for std in (0.05, 0.10)]
        errors.append(combine(known, Profile(80, 0.15))[1])
    assert errors == sorted(errors, reverse=True)
