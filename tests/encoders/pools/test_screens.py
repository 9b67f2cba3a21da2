"""Screens: path counts of whole pools, and which circuits a screen keeps."""

from __future__ import annotations

import numpy as np
import pytest

from qas.circuits import Circuit
from qas.encoders import SCREENS, CircuitSpace, path_counts, screen
from qas.encoders.pools.spaces import PADDING
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.problems import tfim
from qas.proxies import expressibility, n_paths, relative_fluctuation

SPACE = CircuitSpace(4, max_gates=10)
PROBLEM = tfim(4)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    "space",
    [
        SPACE,
        CircuitSpace(8, max_gates=20),
        CircuitSpace(5, ("cx", "cz", "x"), max_gates=12, min_gates=0, max_depth=0, coupling=[(0, 1), (1, 2), (3, 4)]),
        CircuitSpace(1, ("x",), max_gates=3, min_gates=0),
        CircuitSpace(3, ("cx", "x"), max_gates=100, min_gates=60, max_depth=0),
    ],
)
def test_path_counts_are_n_paths(space: CircuitSpace) -> None:
    rows = space.sample(200, rng(1))
    counts = path_counts(rows, space)
    assert counts.tolist() == [n_paths(space.circuit(row)) for row in rows]
    assert counts.dtype == (np.int64 if space.max_gates <= 80 else object)


def ladder(size: int) -> tuple[CircuitSpace, np.ndarray]:
    """cz 0,1 and cz 1,2 in turns: the most paths that `size` gates can have, Fibonacci numbers."""
    space = CircuitSpace(3, ("cz",), max_gates=size, min_gates=0, max_depth=0, coupling=[(0, 1), (1, 2)])
    return space, np.array([[i % 2 for i in range(size)]])


@pytest.mark.parametrize("size", [80, 81, 300])
def test_path_counts_do_not_overflow(size: int) -> None:
    space, rows = ladder(size)
    assert path_counts(rows, space).tolist() == [n_paths(space.circuit(rows[0]))]


def test_empty_pools_and_rows() -> None:
    assert path_counts(np.zeros((0, 10), dtype=int), SPACE).tolist() == []
    assert path_counts(np.full((2, 10), PADDING), SPACE).tolist() == [0, 0]
    with pytest.raises(CircuitError, match="tokens of this space"):
        path_counts(np.full((2, 10), 48), SPACE)


def test_scores_are_the_proxies() -> None:
    rows = SPACE.sample(6, rng(2))
    circuits: list[Circuit] = [SPACE.circuit(row) for row in rows]
    one, other = rng(3), rng(3)
    found = SCREENS["expressibility"](rows, SPACE, PROBLEM, one)
    np.testing.assert_allclose(found, [-expressibility(c, other) for c in circuits])
    found = SCREENS["fluctuation"](rows, SPACE, PROBLEM, one)
    np.testing.assert_allclose(found, [relative_fluctuation(c, PROBLEM, other) for c in circuits])
    np.testing.assert_array_equal(SCREENS["paths"](rows, SPACE, PROBLEM, one), path_counts(rows, SPACE))


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
    assert screen("paths", rows, SPACE, PROBLEM, rng(), 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("keep", "count"), [(1, 1), (100, 100), (0.07, 7), (0.071, 8), (1e-6, 1), (1.0, 100)])
def test_how_many_are_kept(keep: float, count: int) -> None:
    rows = SPACE.sample(100, rng(7))
    assert len(screen("paths", rows, SPACE, PROBLEM, rng(), keep)) == count


def test_errors() -> None:
    rows = SPACE.sample(10, rng(8))
    with pytest.raises(UnknownNameError, match="did you mean 'paths'"):
        screen("path", rows, SPACE, PROBLEM, rng(), 3)
    for keep in (0, 11, -1):
        with pytest.raises(QasError, match=f"keeps 1 to 10 circuits of this pool, got {keep}"):
            screen("paths", rows, SPACE, PROBLEM, rng(), keep)
    for share in (0.0, 1.5, -0.1, float("nan"), True, "all"):
        with pytest.raises(QasError, match="a number of circuits"):
            screen("paths", rows, SPACE, PROBLEM, rng(), share)  # type: ignore[arg-type]
    with pytest.raises(QasError, match="the space is for 4 qubits, got tfim-3 of 3"):
        screen("paths", rows, SPACE, tfim(3), rng(), 3)
