"""BFGS on several architectures in one call of compiled code, so that the GIL is free for all of them together.

The minimization of a small circuit takes about as long as handing the GIL from thread to thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qas.optimizers.bfgs import bfgs, checked_inverse, outcome
from qas.simulators import interrupt
from qas.simulators._compile import compiled
from qas.simulators._entry import Call
from qas.simulators.base import check_angles

if TYPE_CHECKING:
    from qas.simulators.compiled import CompiledObjective

FEWEST = 3
"""With fewer, single calls cost less than filling up."""


@compiled()
def bfgs_batch(engines, calls, x, gradient, hessians, known, first, limits, tolerance, stop, energies, counts):
    """`qas.optimizers.bfgs.bfgs` on several architectures, in place.

    Args:
        engines, calls: addresses of each one's entry point and table.
        x, gradient: of all architectures one after the other; those of number i begin at ``first[i]``.
        hessians: the inverse Hessians one after the other; where `known` says so, of each at the start too.
        energies, counts: receive the energy, and iterations, evaluations and status.
    """
    filled = 0
    for i in range(len(calls)):
        a, b = first[i], first[i + 1]
        size = (b - a) * (b - a)
        hessian = hessians[filled : filled + size].reshape(b - a, b - a)
        filled += size
        energies[i], counts[i, 0], counts[i, 1], counts[i, 2] = bfgs(
            engines[i], calls[i], x[a:b], gradient[a:b], hessian, known[i], limits[i], tolerance, stop
        )


def minimize_batch(
    objectives: Sequence[CompiledObjective],
    starts: Sequence[np.ndarray],
    limits: Sequence[int],
    tolerance: float,
    inverses: Sequence[np.ndarray | None],
) -> list[Any]:
    """What `CompiledObjective.minimize_compiled` returns or raises for each of several objectives.

    Args:
        objectives: each with at least one angle.
        starts: angles to start from, shape (n_angles,) each.
        limits: most evaluations of each.
        tolerance: as of `minimize_compiled`.
        inverses: what is known of the inverse Hessian of each at the start.
    """
    found: list[Any] = []
    ready: list[_Ready] = []
    for k, (objective, start) in enumerate(zip(objectives, starts, strict=True)):
        circuit, hamiltonian = objective.circuit, objective.hamiltonian
        try:
            x = check_angles(circuit, hamiltonian, start)
            given = inverses[k]
            known = None if given is None else checked_inverse(given, len(x))
            ready.append(_Ready(k, x, objective.simulator.call(circuit, hamiltonian), limits[k], known))
            found.append(None)
        except Exception as error:  # the caller's, at its turn
            found.append(error)
    if ready:
        for one, result in zip(ready, _run(ready, tolerance), strict=True):
            found[one.k] = result if isinstance(result, Exception) else objectives[one.k].counted(result)
    return found


class _Ready(NamedTuple):
    k: int
    start: np.ndarray
    call: Call
    limit: int
    inverse: np.ndarray | None


def _run(ready: list[_Ready], tolerance: float) -> list[Any]:
    count = len(ready)
    first = np.zeros(count + 1, dtype=np.int64)
    sizes = [len(one.start) for one in ready]
    np.cumsum(sizes, out=first[1:])
    x = np.concatenate([one.start for one in ready])
    gradient, energies, counts = np.zeros(len(x)), np.empty(count), np.empty((count, 3), dtype=np.int64)
    hessians = np.empty(sum(n * n for n in sizes))
    inverses = np.split(hessians, np.cumsum([n * n for n in sizes])[:-1])
    for one, inverse in zip(ready, inverses, strict=True):
        if one.inverse is not None:
            inverse[:] = one.inverse.ravel()
    known = np.array([one.inverse is not None for one in ready])
    engines = np.array([one.call.entry.address for one in ready], dtype=np.int64)
    tables = np.array([one.call.address for one in ready], dtype=np.int64)
    stop = interrupt.current()
    most = np.array([one.limit for one in ready], dtype=np.int64)
    where = hessians, known, first, most, float(tolerance), stop.address
    bfgs_batch(engines, tables, x, gradient, *where, energies, counts)
    results: list[Any] = []
    for i, (a, b) in enumerate(zip(first[:-1].tolist(), first[1:].tolist(), strict=True)):
        nit, nfev, status = counts[i].tolist()
        if nfev == 0 and stop:
            results.append(interrupt.Interrupted("the calculation was stopped before it had a value"))
        else:
            inverse = inverses[i].reshape(b - a, b - a).copy()
            results.append(outcome(x[a:b].copy(), gradient[a:b].copy(), inverse, float(energies[i]), nit, nfev, status))
    return results
