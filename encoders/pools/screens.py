"""Screens: training-free scores that throw out most of a pool before any circuit of it is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from qas.encoders.pools.spaces import CircuitSpace
from qas.encoders.registries import SCREENS
from qas.errors import QasError
from qas.problems import BaseProblem

Screen = Callable[[np.ndarray, CircuitSpace, BaseProblem, np.random.Generator], np.ndarray]
"""(rows, space, problem, rng) -> scores, float64, shape (size,), larger is better."""


def by_expressibility(
    rows: np.ndarray, space: CircuitSpace, problem: BaseProblem, rng: np.random.Generator
) -> np.ndarray:
    """Closeness of the states a circuit reaches to Haar-random ones."""
    from qas.proxies import expressibility
    from qas.simulators.statevector import StatevectorSimulator  # compiled: slow to import

    engine = StatevectorSimulator()
    return np.array([-expressibility(space.circuit(row), rng, simulator=engine) for row in space.check_rows(rows)])


def by_fluctuation(rows: np.ndarray, space: CircuitSpace, problem: BaseProblem, rng: np.random.Generator) -> np.ndarray:
    """Fluctuation of the energy over random angles, against a landscape known to be learnable."""
    from qas.proxies import relative_fluctuation
    from qas.simulators.statevector import StatevectorSimulator

    engine = StatevectorSimulator()
    rows = space.check_rows(rows)
    return np.array([relative_fluctuation(space.circuit(row), problem, rng, simulator=engine) for row in rows])


def screen(
    score: str | Screen, rows: Any, space: CircuitSpace, problem: BaseProblem, rng: np.random.Generator, keep: float
) -> np.ndarray:
    """Positions of the rows with the largest scores, best first; int64. Equal scores keep their order.

    Args:
        score: a name in `SCREENS`, or a `Screen`.
        rows: rows of the space, whole numbers, shape (size, max_gates).
        space: the space.
        problem: the problem the circuits are to solve.
        rng: source of random angles.
        keep: an int is the number of rows to keep, 1 to size; a float the share, above 0 and at most 1 (rounded up).

    Raises:
        UnknownNameError: no such screen; the nearest name is suggested.
        QasError: `keep` out of range, or the problem has another number of qubits or not what the screen looks at.
        CircuitError: not rows of the space.
    """
    measure: Screen = SCREENS[score] if isinstance(score, str) else score
    if problem.n_qubits != space.n_qubits:
        raise QasError(f"the space is for {space.n_qubits} qubits, got {problem.name} of {problem.n_qubits}")
    rows = space.check_rows(rows)
    count = _count(keep, len(rows))
    scores = measure(rows, space, problem, rng)
    return np.argsort(-scores, kind="stable")[:count]


def _count(keep: Any, size: int) -> int:
    if isinstance(keep, (int, np.integer)) and not isinstance(keep, bool):
        if not 1 <= keep <= size:
            raise QasError(f"a screen keeps 1 to {size} circuits of this pool, got {keep}")
        return int(keep)
    if not isinstance(keep, (float, np.floating)) or not 0 < keep <= 1:
        raise QasError(f"keep is a number of circuits (int) or a share above 0 and at most 1 (float), got {keep!r}")
    return math.ceil(keep * size - 1e-9)  # 0.07 * 100 is a rounding above 7
