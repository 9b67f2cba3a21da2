"""Extrapolations to no noise: exact for the curves they are made for, with true derivatives and standard errors."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from qas.errors import QasError, UnknownNameError
from qas.mitigation import Exponential, Linear, PolyExponential, Polynomial, Richardson, make_extrapolation, read_nodes

LIMIT = -0.7
EVERY = (Linear(), Richardson(), Polynomial(degree=2), Exponential(), PolyExponential(degree=2))


@pytest.mark.parametrize(
    ("way", "curve"),
    [
        (Linear(), lambda x: -3 + 0.2 * x),
        (Richardson(), lambda x: -3 + 0.2 * x - 0.04 * x**2 + 0.003 * x**3),
        (Polynomial(degree=2), lambda x: -3 + 0.2 * x - 0.04 * x**2),
        (Exponential(), lambda x: LIMIT - 2.3 * np.exp(-0.11 * x)),
        (PolyExponential(degree=2), lambda x: LIMIT + np.exp(0.3 - 0.2 * x + 0.01 * x**2)),
    ],
)
def test_each_way_is_exact_for_its_own_curve(way, curve) -> None:
    nodes = np.array([1.0, 1.7, 3.0, 5.0])
    found = way(nodes, curve(nodes), limit=LIMIT)
    assert found.value == pytest.approx(curve(0.0), abs=1e-12)
    assert not found.fallback


def test_known_weights_of_two_and_three_nodes() -> None:
    values = np.array([-1.0, -0.8, -0.5])
    assert Richardson()((1, 3), values[:2]).weights == pytest.approx([1.5, -0.5])
    assert Richardson()((1, 3, 5), values).weights == pytest.approx([15 / 8, -10 / 8, 3 / 8])
    assert Linear()((1, 2, 3), values).weights == pytest.approx([4 / 3, 1 / 3, -2 / 3])


@pytest.mark.parametrize("nodes", [range(1, 12), range(1, 41, 2), (1, 1.01, 7), (1, 1e300)])
def test_weights_of_many_or_distant_nodes(nodes) -> None:
    """Against fractions: a polynomial through many values is ill-conditioned by its powers, but not by its nodes."""
    exact = [math.prod(Fraction(x) / (Fraction(x) - Fraction(at)) for x in nodes if x != at) for at in nodes]
    assert Richardson().weights(nodes) == pytest.approx([float(weight) for weight in exact], rel=1e-11, abs=0)
    straight = Linear().weights(nodes)
    assert straight.sum() == pytest.approx(1.0) and straight @ np.array(nodes) / max(nodes) == pytest.approx(0.0)


def test_the_values_that_mitiq_finds() -> None:
    """Numbers of mitiq 1.1.0, which asks for an older NumPy; its exponential of three nodes weighs the logarithms."""
    nodes, values = (1.0, 3.0, 5.0), (-7.75, -7.69, -7.64)
    for way, count, theirs in (
        (Linear(), 3, -7.775833333333329),
        (Richardson(), 3, -7.783749999999994),
        (Polynomial(degree=2), 3, -7.783749999999994),
        (Exponential(), 2, -7.78192905271403),
        (PolyExponential(degree=2), 3, -7.784324887150936),
    ):
        assert way(nodes[:count], values[:count], limit=-7.0).value == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("way", EVERY, ids=lambda way: type(way).__name__)
def test_weights_are_derivatives_and_errors_are_those_of_repeated_experiments(way) -> None:
    rng = np.random.default_rng(3)
    nodes, errors = np.array([1.0, 2.0, 3.0, 5.0]), np.array([1e-3, 2e-3, 1e-3, 3e-3])
    values = LIMIT - 1.3 * np.exp(-0.1 * nodes) + rng.normal(size=4) * 1e-3
    found = way(nodes, values, errors, limit=LIMIT)
    for k, weight in enumerate(found.weights):
        step = 1e-6 * np.eye(4)[k]
        slope = (way(nodes, values + step, limit=LIMIT).value - way(nodes, values - step, limit=LIMIT).value) / 2e-6
        assert weight == pytest.approx(slope, abs=1e-7)
    repeated = [way(nodes, values + errors * rng.normal(size=4), limit=LIMIT).value for _ in range(4000)]
    assert found.standard_error == pytest.approx(np.std(repeated), rel=0.05)


def test_what_does_not_converge_falls_back_on_the_straight_line() -> None:
    for values in ([-1.0, -0.8, -0.6], [-1.0, LIMIT, LIMIT]):
        found = Exponential()((1, 3, 5), values, (0.1, 0.1, 0.1), limit=LIMIT)
        assert found.value == Linear()((1, 3, 5), values).value
        assert found.fallback and math.isfinite(found.standard_error)
    beyond = Exponential()((1, 3), (LIMIT - 1.0, LIMIT - 1e-6), limit=LIMIT, bound=2.0)
    assert beyond.fallback and beyond.value == pytest.approx(LIMIT - 1.5, abs=1e-5)
    overflow = PolyExponential()((1, 1.001, 5), (-1e6, -1e-300, -1.0), limit=0.0)
    assert overflow.fallback and math.isfinite(overflow.value)


def test_what_cannot_be_extrapolated() -> None:
    with pytest.raises(QasError, match=r"different strengths of the noise, got \[1.0, 1.0\]"):
        Richardson()((1, 1), (1, 2))
    with pytest.raises(QasError, match="one value, got 3 at 2 nodes"):
        Linear()((1, 3), (1, 2, 3))


@pytest.mark.parametrize("given", ["1", "1-1", "a-b", "0.5-1", [1.0], [1, math.inf], 3.0, [1, None]])
def test_nodes_that_cannot_be(given) -> None:
    with pytest.raises(QasError, match="nodes are two or more different strengths"):
        read_nodes(given)


def test_nodes_and_ways_by_name() -> None:
    assert read_nodes("5-1-3") == (1.0, 3.0, 5.0) == read_nodes([3, 5, 1])
    assert make_extrapolation("poly-exponential:degree=3").least_nodes == 4
    with pytest.raises(QasError, match="takes at least 4 nodes, got 3"):
        make_extrapolation("poly-exponential:degree=3")((1, 3, 5), (1, 2, 3))
    for degree in (-1, 0, 1.5, True):
        with pytest.raises(QasError, match="the degree of a fit is a whole number of at least 1"):
            Polynomial(degree=degree)
    with pytest.raises(UnknownNameError, match="exponential"):
        make_extrapolation("exponentail")
