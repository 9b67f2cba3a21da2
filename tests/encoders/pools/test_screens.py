"""Screens: their scores, and which circuits a screen keeps."""

from __future__ import annotations

import numpy as np
import pytest

from qas.circuits import Circuit
from qas.encoders import CircuitSpace
from qas.encoders.pools import SCREENS
from qas.encoders.pools.screens import screen
from qas.encoders.pools.spaces import PADDING
from qas.errors import QasError, UnknownNameError
from qas.problems import tfim
from qas.proxies import expressibility, relative_fluctuation

SPACE = CircuitSpace(4, max_gates=10)
PROBLEM = tfim(4)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def by_length(rows: np.ndarray, *_: object) -> np.ndarray:
    return (rows != PADDING).sum(axis=1).astype(float)


def test_scores_are_the_proxies() -> None:
    rows = SPACE.sample(6, rng(2))
    circuits: list[Circuit] = [SPACE.circuit(row) for row in rows]
    one, other = rng(3), rng(3)
    found = SCREENS["expressibility"](rows, SPACE, PROBLEM, one)
    np.testing.assert_allclose(found, [-expressibility(c, other) for c in circuits])
    found = SCREENS["fluctuation"](rows, SPACE, PROBLEM, one)
    np.testing.assert_allclose(found, [relative_fluctuation(c, PROBLEM, other) for c in circuits])


@pytest.mark.parametrize("name", SCREENS)
def test_screens_keep_the_best_first(name: str) -> None:
    rows = SPACE.sample(30, rng(4))
    scores = SCREENS[name](rows, SPACE, PROBLEM, rng(5))
    kept = screen(name, rows, SPACE, PROBLEM, rng(5), keep=7)
    assert len(set(kept.tolist())) == 7
    assert np.all(np.diff(scores[kept]) <= 0)
    assert scores[kept].min() >= np.delete(scores, kept).max()
    np.testing.assert_array_equal(screen(name, rows, SPACE, PROBLEM, rng(5), keep=1.0)[:7], kept)


def test_equal_scores_keep_their_order() -> None:
    rows = np.repeat(SPACE.sample(1, rng(6)), 5, axis=0)
    assert screen(by_length, rows, SPACE, PROBLEM, rng(), 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("keep", "count"), [(1, 1), (100, 100), (0.07, 7), (0.071, 8), (1e-6, 1), (1.0, 100)])
def test_how_many_are_kept(keep: float, count: int) -> None:
    rows = SPACE.sample(100, rng(7))
    assert len(screen(by_length, rows, SPACE, PROBLEM, rng(), keep)) == count


def test_errors() -> None:
    rows = SPACE.sample(10, rng(8))
    with pytest.raises(UnknownNameError, match="did you mean 'fluctuation'"):
        screen("fluctuations", rows, SPACE, PROBLEM, rng(), 3)
    for keep in (0, 11, -1):
        with pytest.raises(QasError, match=f"keeps 1 to 10 circuits of this pool, got {keep}"):
            screen(by_length, rows, SPACE, PROBLEM, rng(), keep)
    for share in (0.0, 1.5, -0.1, float("nan"), True, "all"):
        with pytest.raises(QasError, match="a number of circuits"):
            screen(by_length, rows, SPACE, PROBLEM, rng(), share)  # type: ignore[arg-type]
    with pytest.raises(QasError, match="the space is for 4 qubits, got tfim-3 of 3"):
        screen(by_length, rows, SPACE, tfim(3), rng(), 3)
