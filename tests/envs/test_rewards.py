"""Rewards against their definitions."""

from __future__ import annotations

import math

import pytest

from qas.envs import Transition, list_rewards, load_reward
from qas.errors import QasError, UnknownNameError


def step(
    energy: float, previous: float = 0.0, *, threshold: float = 0.1, limit: bool = False, halt: bool = False
) -> Transition:
    """A step towards the target energy -2."""
    error = abs(energy + 2.0)
    return Transition(energy, previous, -2.0, error, threshold, error < threshold, limit, halt)


def test_default() -> None:
    reward = load_reward("incremental_with_fixed_ends")
    assert reward(step(-1.0)) == 0.5
    assert reward(step(1.0)) == -0.5
    assert reward(step(9.0)) == -1.0
    assert reward(step(-1.95)) == 5.0
    assert reward(step(-1.95, limit=True)) == 5.0
    assert reward(step(-1.0, limit=True)) == -5.0
    assert reward(step(-1.0, halt=True)) == 0.5
    assert reward(step(-2.5, -1.9)) == 1.0


def test_nothing_missing() -> None:
    reward = load_reward("incremental_with_fixed_ends")
    assert reward(step(-2.0, -2.0, threshold=1e-300)._replace(success=False)) == 0.0
    assert reward(step(-1.0, -2.0)) == -1.0
    assert load_reward("incremental")(step(-1.0, -2.0)) == -1000.0


def test_incremental() -> None:
    assert load_reward("incremental")(step(9.0)) == -4.5
    assert load_reward("incremental_clipped")(step(9.0)) == -1.0
    assert load_reward("incremental")(step(-1.0, limit=True)) == 0.5


def test_naive() -> None:
    naive, fives = load_reward("naive"), load_reward("naive_fives")
    assert [naive(s) for s in (step(-1.95), step(-1.0), step(-1.0, limit=True))] == [1.0, 0.0, 0.0]
    assert [fives(s) for s in (step(-1.95), step(-1.0), step(-1.0, limit=True))] == [5.0, 0.0, -5.0]


@pytest.mark.parametrize(("error", "expected"), [(0.05, 2.2), (0.3, 1.2), (0.7, 0.6), (1.2, 0.2), (1.6, 0.0)])
def test_staircase(error: float, expected: float) -> None:
    assert load_reward("staircase")(step(-2 + error)) == pytest.approx(expected / 2.2)


def test_two_step() -> None:
    always, end = load_reward("two_step"), load_reward("two_step_end")
    assert always(step(-1.95)) == pytest.approx(1.0)
    assert always(step(-1.7)) == pytest.approx(0.001 / 1.001)
    assert always(step(-1.0)) == 0.0
    assert end(step(-1.7)) == 0.0
    assert end(step(-1.7, halt=True)) == end(step(-1.7, limit=True)) == always(step(-1.7))


def test_logarithms() -> None:
    assert load_reward("log")(step(-1.5)) == pytest.approx(-math.log(1 - 1.5 / 2))
    assert load_reward("log_to_ground")(step(-1.5)) == pytest.approx(-math.log(0.5))
    assert load_reward("log_to_ground")(step(-2.0)) == pytest.approx(-math.log(1e-12))
    assert load_reward("log_to_threshold")(step(-1.5)) == pytest.approx(-math.log(0.4))
    assert load_reward("log_to_threshold")(step(-1.95)) == 11.0
    assert load_reward("log")(step(-1.5)._replace(target=0.0)) == pytest.approx(-math.log(0.5))


def test_negative_above_threshold() -> None:
    reward = load_reward("negative_above_threshold")
    assert reward(step(-1.5)) == pytest.approx(-5.0)
    assert reward(step(-1.95)) == pytest.approx(2.0)
    assert load_reward("negative_above_threshold", factor=100.0)(step(-1.95)) == pytest.approx(200.0)
    assert reward(step(-2.0)) == pytest.approx(1000.0)


@pytest.mark.parametrize("name", list_rewards())
def test_all_are_finite_and_prefer_success(name: str) -> None:
    reward = load_reward(name)
    for energy in (-2.0, -1.95, -1.9, -1.5, 0.0, 3.0):
        for previous in (-2.0, 0.0):
            for limit in (False, True):
                value = reward(step(energy, previous, limit=limit))
                assert isinstance(value, float) and math.isfinite(value)
    assert reward(step(-1.99, limit=True)) > reward(step(-0.5, limit=True))


def test_look_up() -> None:
    assert load_reward("naive") == load_reward("naive")
    assert load_reward("naive", success=2.0)(step(-1.95)) == 2.0

    def own(step: Transition) -> float:
        return -step.error

    assert load_reward(own) is own
    with pytest.raises(UnknownNameError, match="naive"):
        load_reward("naiv")
    with pytest.raises(QasError, match="has no parameter 'bonus'"):
        load_reward("naive", bonus=1.0)
    with pytest.raises(QasError, match="a reward is"):
        load_reward(5)  # type: ignore[arg-type]
