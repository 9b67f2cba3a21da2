"""Curricula by hand, and the distribution of random halting."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qas.envs import Curriculum, FixedThreshold, MovingThreshold, RandomHalting, load_curriculum
from qas.errors import QasError, UnknownNameError
from qas.problems import load_problem, problem


def test_fixed() -> None:
    curriculum = FixedThreshold(0.3)
    curriculum.observe(-5.0)
    curriculum.end_episode(True)
    assert curriculum.threshold == 0.3 and curriculum.target is None


def test_moving_threshold_by_hand() -> None:
    curriculum = MovingThreshold(-2.0, accept_error=1.0, ball=0.2, shift_time=6, successes_per_cut=2, cuts=4)
    assert curriculum.threshold == 1.0

    def episode(best_error: float, success: bool) -> float:
        curriculum.observe(-2.0 + 1.5)
        curriculum.observe(-2.0 + best_error)
        curriculum.end_episode(success)
        return round(curriculum.threshold, 12)

    # 1-5: every second success cuts by 0.05
    assert [episode(0.9, True) for _ in range(5)] == [1.0, 0.95, 0.95, 0.9, 0.9]
    # 6: a multiple of the shift time, but not beyond the tenth episode; the sixth success cuts
    assert episode(0.9, True) == 0.85
    # 7: a failure counts for nothing; 8-9: the fourth and last cut; 10-11: no fifth one
    assert [episode(0.9, False), episode(0.9, True), episode(0.9, True)] == [0.85, 0.85, 0.8]
    assert [episode(0.9, True), episode(0.9, True)] == [0.8, 0.8]
    # 12: shift to the best error plus the ball, although it is now larger
    assert episode(0.95, True) == 1.1
    # 13-18: cuts start anew; after four of them the threshold would be the best error
    assert [episode(0.4, True) for _ in range(5)] == [1.1, 1.05, 1.05, 1.0, 1.0]
    # 18: the cut of the sixth success gives way to the shift
    assert episode(0.4, False) == 0.6
    curriculum.shift_time = 10**6
    assert [episode(0.45, True) for _ in range(9)][-1] == 0.4
    assert episode(0.45, True) == 0.4


def test_no_cut_before_the_switch() -> None:
    curriculum = MovingThreshold(0.0, accept_error=1.0, ball=0.1, successes_per_cut=1, success_switch=0.5)
    curriculum.observe(0.7)
    curriculum.end_episode(True)
    assert curriculum.threshold == 1.0
    curriculum.observe(0.4)
    curriculum.end_episode(True)
    assert curriculum.threshold == pytest.approx(0.99)


def test_cuts_never_reach_zero() -> None:
    curriculum = MovingThreshold(0.0, accept_error=0.3, ball=0.3, shift_time=10**6, successes_per_cut=1, cuts=3)
    curriculum.observe(0.0)
    for _ in range(5):
        curriculum.end_episode(True)
    assert 0.3 - 3 * (0.3 / 3) < curriculum.threshold < 1e-3


def test_resumes() -> None:
    rng = np.random.default_rng(5)
    first = MovingThreshold(-1.0, accept_error=0.5, ball=0.1, shift_time=11, successes_per_cut=1)
    second: Curriculum = MovingThreshold(0.0)
    for i in range(60):
        if i == 30:
            second = MovingThreshold.from_state(json.loads(json.dumps(first.to_state())))
        energy, success = -1.0 + rng.random(), bool(rng.random() < 0.6)
        for curriculum in (first, second):
            curriculum.observe(energy)
            curriculum.end_episode(success)
    assert first.to_state() == second.to_state()
    fixed = FixedThreshold(0.2, target=-1.0)
    assert FixedThreshold.from_state(fixed.to_state()).to_state() == fixed.to_state()
    with pytest.raises(QasError, match="not the state of a FixedThreshold"):
        FixedThreshold.from_state(first.to_state())


def test_defaults_for_a_problem() -> None:
    molecule = load_problem("lih-4")
    moving = load_curriculum(None, molecule)
    assert isinstance(moving, MovingThreshold)
    assert moving.target == molecule.exact and moving.threshold == pytest.approx(3 * 1.6e-3)
    assert load_curriculum("fixed", molecule).threshold == molecule.threshold
    assert load_curriculum(FixedThreshold, molecule).to_state() == load_curriculum("fixed", molecule).to_state()
    with pytest.raises(QasError, match="give an instance"):
        load_curriculum(Curriculum, molecule)
    assert load_curriculum(0.25, molecule).threshold == 0.25
    copied = load_curriculum(moving, molecule)
    assert copied is not moving and copied.to_state() == moving.to_state()


def test_lower_bound_is_below_the_exact_value() -> None:
    operator = problem({"II": 1.5, "ZZ": -1.0, "XI": 0.25, "IX": -0.25}, name="small")
    bound = load_curriculum("moving-lower-bound", operator)
    assert bound.target == 0.0 and bound.threshold == 1.5
    molecule = load_problem("lih-4")
    target = load_curriculum("moving-lower-bound", molecule).target
    assert target is not None and target < molecule.exact


@pytest.mark.parametrize(
    "parameters",
    [{"ball": 0.0}, {"ball": 1.0}, {"accept_error": -1.0}, {"cuts": 0}, {"shift_time": 1.5}, {"ball": "x"}],
)
def test_wrong_parameters(parameters: dict) -> None:
    with pytest.raises(QasError):
        MovingThreshold(-1.0, **parameters)


def test_wrong_choices() -> None:
    molecule = load_problem("tfim-2")
    with pytest.raises(UnknownNameError, match="moving"):
        load_curriculum("movin", molecule)
    for value in (0.0, -1.0, float("nan"), [1], True):
        with pytest.raises(QasError):
            load_curriculum(value, molecule)  # type: ignore[arg-type]


def test_halting_distribution() -> None:
    rng = np.random.default_rng(7)
    halting = RandomHalting()
    draws = np.array([halting.draw(rng) for _ in range(40_000)])
    assert draws.mean() == pytest.approx(52.0, abs=0.2)
    assert draws.std() == pytest.approx(9.1, abs=0.15)
    assert np.quantile(draws, [0.05, 0.5, 0.95]).tolist() == pytest.approx([37, 52, 69], abs=1)
    assert (draws.min(), draws.max()) == (25, 70)
    assert (draws == 70).mean() == pytest.approx(0.041, abs=0.005)


@pytest.mark.parametrize(
    "parameters", [{"successes": 0}, {"probability": 0.0}, {"probability": 1.1}, {"low": -1}, {"low": 80}]
)
def test_wrong_halting(parameters: dict) -> None:
    with pytest.raises(QasError):
        RandomHalting(**parameters)
