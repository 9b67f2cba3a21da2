"""Screens: training-free scores that throw out most of a pool before any circuit of it is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from qas.encoders.pools.spaces import PADDING, CircuitSpace
from qas.errors import QasError, UnknownNameError
from qas.problems import BaseProblem

_INT64_GATES = 80  # at most 64 Fibonacci(gates + 2) paths, which is below 2^63

Screen = Callable[[np.ndarray, CircuitSpace, BaseProblem, np.random.Generator], np.ndarray]
"""(rows, space, problem, rng) -> scores, float64, shape (size,), larger is better."""


def path_counts(rows: Any, space: CircuitSpace) -> np.ndarray:
    """`qas.proxies.n_paths` of many circuits.

    Args:
        rows: rows of the space, whole numbers, shape (size, max_gates).
        space: the space.

    Returns:
        Exact counts, shape (size,): int64, for spaces of more than 80 gates Python integers (dtype object).

    Raises:
        CircuitError: not rows of the space.
    """
    rows = space.check_rows(rows)
    size, most = rows.shape
    # Node 0 is START; the last node on each wire so far.
    paths = np.zeros((size, most + 1), dtype=np.int64 if most <= _INT64_GATES else object)
    paths[:, 0] = 1
    tips = np.zeros((size, space.n_qubits), dtype=np.int64)
    for position in range(most):
        who = np.flatnonzero(rows[:, position] != PADDING)
        token = rows[who, position]
        first, last = space.first[token], space.last[token]
        left, right = tips[who, first], tips[who, last]
        paths[who, position + 1] = paths[who, left] + np.where(left != right, paths[who, right], 0)
        tips[who, first] = tips[who, last] = position + 1
    total = np.zeros(size, dtype=paths.dtype)
    for qubit in range(space.n_qubits):
        tip = tips[:, qubit]
        new = (tip > 0) & ~(tips[:, :qubit] == tip[:, None]).any(axis=1)
        who = np.flatnonzero(new)
        total[who] += paths[who, tip[who]]
    return total


def _paths(rows: np.ndarray, space: CircuitSpace, problem: BaseProblem, rng: np.random.Generator) -> np.ndarray:
    return path_counts(rows, space).astype(np.float64)


def _expressibility(
    rows: np.ndarray, space: CircuitSpace, problem: BaseProblem, rng: np.random.Generator
) -> np.ndarray:
    from qas.proxies import expressibility
    from qas.simulators.statevector import StatevectorSimulator  # compiled: too slow to import for the other screens

    engine = StatevectorSimulator()
    return np.array([-expressibility(space.circuit(row), rng, simulator=engine) for row in space.check_rows(rows)])


def _fluctuation(rows: np.ndarray, space: CircuitSpace, problem: BaseProblem, rng: np.random.Generator) -> np.ndarray:
    from qas.proxies import relative_fluctuation
    from qas.simulators.statevector import StatevectorSimulator

    engine = StatevectorSimulator()
    rows = space.check_rows(rows)
    return np.array([relative_fluctuation(space.circuit(row), problem, rng, simulator=engine) for row in rows])


SCREENS: dict[str, Screen] = {"paths": _paths, "expressibility": _expressibility, "fluctuation": _fluctuation}
"""Name -> screen. ``paths`` looks at the graph of gates only (a million circuits in seconds); ``expressibility``
(negative, so that larger is better) and ``fluctuation`` (relative, the only one that knows the problem) simulate 200
states of each circuit, without noise."""


def screen(
    name: str, rows: Any, space: CircuitSpace, problem: BaseProblem, rng: np.random.Generator, keep: float
) -> np.ndarray:
    """Positions of the rows with the largest scores, best first; int64. Equal scores keep their order.

    Args:
        name: a name in `SCREENS`.
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
    if name not in SCREENS:
        raise UnknownNameError("screen", name, SCREENS)
    if problem.n_qubits != space.n_qubits:
        raise QasError(f"the space is for {space.n_qubits} qubits, got {problem.name} of {problem.n_qubits}")
    rows = space.check_rows(rows)
    count = _count(keep, len(rows))
    scores = SCREENS[name](rows, space, problem, rng)
    return np.argsort(-scores, kind="stable")[:count]


def _count(keep: Any, size: int) -> int:
    if isinstance(keep, (int, np.integer)) and not isinstance(keep, bool):
        if not 1 <= keep <= size:
            raise QasError(f"a screen keeps 1 to {size} circuits of this pool, got {keep}")
        return int(keep)
    if not isinstance(keep, (float, np.floating)) or not 0 < keep <= 1:
        raise QasError(f"keep is a number of circuits (int) or a share above 0 and at most 1 (float), got {keep!r}")
    return math.ceil(keep * size - 1e-9)  # 0.07 * 100 is a rounding above 7
