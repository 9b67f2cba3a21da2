"""BFGS in compiled code: the whole minimization of one architecture's angles without returning to Python.

Below about 6 qubits SciPy's own bookkeeping (60 to 100 µs an iteration) costs more than the physics. The method is the
same quasi-Newton family as L-BFGS, with the full inverse Hessian, which up to a few hundred angles is the cheaper form.
Line search: bracketing for the weak Wolfe conditions (Lewis and Overton, Math. Program. 141, 135, 2013).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qas.circuits import Circuit
from qas.errors import CircuitError
from qas.hamiltonians import Hamiltonian
from qas.simulators import interrupt
from qas.simulators._compile import compiled
from qas.simulators._entry import ANGLES, ENGINE, GRADIENT, MODE, SLOPES, STOP, array_at
from qas.simulators._lanes import (
    address,
    call,
    load8,
    read,
    splat8,
    stopped,
    store,
    times,
    times_plus,
    total,
    write,
    zero8,
)
from qas.simulators.base import check_angles
from qas.simulators.compiled import CompiledSimulator

LANES = 8
CONVERGED, OUT_OF_BUDGET, NO_PROGRESS, INTERRUPTED, _RUNNING = 0, 1, 2, 3, -1
_MESSAGES = {
    CONVERGED: "converged: the quadratic model promises less than the tolerance",
    OUT_OF_BUDGET: "stopped: the evaluation budget is used up",
    NO_PROGRESS: "converged: no further decrease is possible in floating point",
    INTERRUPTED: "stopped: interrupted",
}


@compiled(inline=True)
def _dot(a, b, size):
    sums = zero8()
    for i in range(0, size, LANES):
        sums = times_plus(load8(a, i), load8(b, i), sums)
    return total(sums)


@compiled(inline=True)
def _combine(a, x, y, target, size):
    """target = a·x + y"""
    aa = splat8(a)
    for i in range(0, size, LANES):
        store(target, i, times_plus(aa, load8(x, i), load8(y, i)))


@compiled(inline=True)
def _scale(a, x, target, size):
    """target = a·x"""
    aa = splat8(a)
    for i in range(0, size, LANES):
        store(target, i, times(aa, load8(x, i)))


@compiled(inline=True)
def _multiply(inverse, rows, size, move, image, factor, share, vector, product):
    """inverse += factor·s sᵀ - share·(p sᵀ + s pᵀ), with s `move` and p `image`; product = inverse · vector.

    One pass over the matrix, which is symmetric, `rows` x `size`.
    """
    for j in range(0, size, LANES):
        s, p, sums = load8(move, j), load8(image, j), zero8()
        column, ahead = times_plus(splat8(factor), s, times(splat8(-share), p)), times(splat8(-share), s)
        for i in range(rows):
            row = load8(inverse, i * size + j)
            row = times_plus(splat8(read(image, i)), ahead, times_plus(splat8(read(move, i)), column, row))
            store(inverse, i * size + j, row)
            sums = times_plus(row, splat8(read(vector, i)), sums)
        store(product, j, sums)


@compiled()
def bfgs(engine, call_at, x, gradient, hessian, known, max_evaluations, tolerance, stop):
    """Minimize in place from `x`; `gradient` receives the final gradient, `hessian` the inverse Hessian.

    The update of the inverse Hessian waits until its next product with a vector, so an iteration reads the matrix once:
    H(g' - g) is Hg' plus the direction -Hg just followed, and the next direction follows from it by the update's two
    vectors.

    Args:
        engine: address of the engine's entry point.
        call_at: address of its table (see `qas.simulators._entry`); where it names angles and slopes is written here.
        hessian: float64, shape (n, n), or (0, 0) where it is not asked for.
        known: whether `hessian` holds an inverse Hessian, positive definite, to begin with.
        stop: address of a flag; where it is raised the best point so far is returned (energy infinite without one).

    Returns:
        energy, iterations, evaluations, status
    """
    n = len(x)
    size = max((n + LANES - 1) // LANES, 1) * LANES
    rows = np.zeros((11 + n, size))
    memory = address(rows)
    row = 8 * size
    trial, new_gradient, here, slopes = memory, memory + row, memory + 2 * row, memory + 3 * row
    best, best_gradient, direction = memory + 4 * row, memory + 5 * row, memory + 6 * row
    move, image, change, product = memory + 7 * row, memory + 8 * row, memory + 9 * row, memory + 10 * row
    inverse = memory + 11 * row
    table = array_at(call_at, ENGINE, np.int64)
    table[MODE], table[STOP], table[ANGLES], table[SLOPES] = GRADIENT, stop, trial, new_gradient
    energy = best_energy = math.inf
    step = best_step = low = high = slope = factor = share = 0.0
    iterations = evaluations = small_steps = 0
    fresh = not known  # the inverse Hessian is the identity
    status = _RUNNING
    for i in range(n):
        write(trial, i, x[i])
        write(here, i, x[i])
        if known:
            for j in range(n):
                write(inverse, i * size + j, hessian[i, j])
    while True:
        if evaluations >= max_evaluations:
            status = OUT_OF_BUDGET
            break
        new_energy = call(engine, call_at)
        if math.isnan(new_energy) and stopped(stop):
            status = INTERRUPTED
            break
        evaluations += 1
        if evaluations == 1:
            energy = new_energy
            _scale(1.0, new_gradient, slopes, size)
            _scale(-1.0, slopes, direction, size)
            if known:
                _multiply(inverse, n, size, move, image, factor, share, slopes, product)
                _scale(-1.0, product, direction, size)
        else:
            # Line search: bracket a step with enough decrease and a flatter slope (weak Wolfe conditions).
            new_slope = _dot(new_gradient, direction, size)
            if new_energy < best_energy:
                best_energy, best_step = new_energy, step
                _scale(1.0, trial, best, size)
                _scale(1.0, new_gradient, best_gradient, size)
            found, guess = False, 0.0
            if new_energy > energy + 1e-4 * step * slope:
                high = step
                if low == 0.0:
                    # Minimum of the parabola through the value and slope at 0 and the value here.
                    guess = -0.5 * slope * step * step / (new_energy - energy - slope * step)
            elif new_slope < 0.9 * slope:
                low = step
            else:
                found = True
            if not found and high - low >= 1e-10:
                if high == math.inf:
                    step *= 2.0
                else:
                    margin = 0.1 * (high - low)
                    step = guess if low + margin < guess < high - margin else 0.5 * (low + high)
                _combine(step, direction, here, trial, size)
                continue
            if best_step == 0.0:
                if fresh:
                    status = NO_PROGRESS
                    break
                fresh = True
                _scale(-1.0, slopes, direction, size)
            else:
                _combine(-1.0, slopes, best_gradient, change, size)
                _combine(-1.0, here, best, trial, size)  # the step; the old one still waits in `move`
                curvature, yy = _dot(change, trial, size), _dot(change, change, size)
                curved = curvature > 1e-12 * math.sqrt(yy)
                if not fresh:
                    _multiply(inverse, n, size, move, image, factor, share, best_gradient, product)
                    _combine(1.0, product, direction, image, size)
                elif curved:
                    _scale(curvature / yy, best_gradient, product, size)
                    _scale(curvature / yy, change, image, size)
                    for i in range(n):
                        for j in range(0, size, LANES):
                            store(inverse, i * size + j, zero8())
                        write(inverse, i * size + i, curvature / yy)
                else:
                    _scale(1.0, best_gradient, product, size)
                _scale(-1.0, product, direction, size)
                factor = share = 0.0
                if curved:
                    fresh = False
                    _scale(1.0, trial, move, size)
                    share = 1.0 / curvature
                    factor = (1.0 + _dot(change, image, size) * share) * share
                    along, across = _dot(move, best_gradient, size), _dot(image, best_gradient, size)
                    _combine(share * across - factor * along, move, direction, direction, size)
                    _combine(share * along, image, direction, direction, size)
                _scale(1.0, best, here, size)
                _scale(1.0, best_gradient, slopes, size)
                # The model can also promise too much; three steps in a row that gain nothing settle it.
                small_steps = small_steps + 1 if energy - best_energy < 0.01 * tolerance else 0
                energy = best_energy
                iterations += 1
                if small_steps >= 3:
                    status = CONVERGED

        slope = _dot(direction, slopes, size)
        if slope >= 0.0 and not fresh:
            fresh = True
            _scale(-1.0, slopes, direction, size)
            slope = _dot(direction, slopes, size)
        best_energy, best_step = energy, 0.0
        if -0.5 * slope < 0.01 * tolerance:  # in flat directions the model promises too little
            status = CONVERGED
        if status == CONVERGED:
            break
        largest = 0.0
        for i in range(n):
            largest = max(largest, abs(read(direction, i)))
        # No angle moves by more than half a turn in the first trial of a step.
        step = min(1.0, math.pi / largest)
        low, high = 0.0, math.inf
        _combine(step, direction, here, trial, size)

    if best_step > 0.0 and status in (OUT_OF_BUDGET, INTERRUPTED):
        here, slopes, energy = best, best_gradient, best_energy
    for i in range(n):
        x[i], gradient[i] = read(here, i), read(slopes, i)
    if len(hessian) > 0 and not fresh:
        _multiply(inverse, n, size, move, image, factor, share, slopes, product)
    for i in range(len(hessian)):
        for j in range(len(hessian)):
            hessian[i, j] = read(inverse, i * size + j) if not fresh else 1.0 if i == j else 0.0
    rows[0, 0] = 0.0  # named by its address above, it lives to here
    return energy, iterations, evaluations, status


def minimize_bfgs(
    simulator: CompiledSimulator,
    circuit: Circuit,
    hamiltonian: Hamiltonian,
    start: np.ndarray,
    max_evaluations: int | None = None,
    tolerance: float = 1e-9,
    inverse_hessian: np.ndarray | None = None,
) -> Any:
    """Minimize the energy over all angles from `start`, shape (n_angles,).

    Args:
        simulator: a compiled engine.
        max_evaluations: most evaluations of energy and gradient, at least 1; None: no limit.
        tolerance: stop when less than about this much energy can still be gained.
        inverse_hessian: what is known of it at the start, shape (n_angles, n_angles), symmetric and positive definite;
            None: nothing.

    Returns:
        `scipy.optimize.OptimizeResult` with x, fun, jac, nit, nfev, njev, status, success, message, and hess_inv, the
        estimated inverse Hessian, shape (n_angles, n_angles): the unit matrix where no step has taught anything of the
        curvature (yet), else right in the directions of the steps and on their scale in the others.

    Raises:
        CircuitError: sizes that do not fit, a start that is not finite, an inverse Hessian that is none, or a budget
            below 1.
        Interrupted: stopped before the first energy (see `qas.simulators.interrupt`).
    """
    limit = 2**62 if max_evaluations is None else int(max_evaluations)
    if limit < 1:
        raise CircuitError(f"max_evaluations is at least 1, got {max_evaluations}")
    x = np.array(check_angles(circuit, hamiltonian, start), dtype=np.float64)
    gradient, hessian = np.zeros(len(x)), np.empty((len(x), len(x)))
    known = inverse_hessian is not None and len(x) > 0
    if inverse_hessian is not None:
        hessian[:] = checked_inverse(inverse_hessian, len(x))
    asked = simulator.call(circuit, hamiltonian)
    engine, table = asked.entry.address, asked.address

    def run() -> tuple[float, int, int, int]:
        stop = interrupt.current().address
        with asked.together():
            return bfgs(engine, table, x, gradient, hessian, known, limit, float(tolerance), stop)

    # A thread that listens is worth its start where the minimization may take a second.
    n_gates = len(circuit) if simulator.runs_excitations else circuit.n_gates
    if n_gates * min(limit, 200) << (1 if simulator.noise is None else 2) * circuit.n_qubits > 300_000_000:
        with interrupt.open_to_ctrl_c():
            energy, nit, nfev, status = run()
    else:
        energy, nit, nfev, status = run()
    if nfev == 0:
        interrupt.check()
    return outcome(x, gradient, hessian, float(energy), nit, nfev, status)


def checked_inverse(given: np.ndarray, n_angles: int) -> np.ndarray:
    """An inverse Hessian to begin with, float64.

    Raises:
        CircuitError: another shape than (n_angles, n_angles), or a diagonal that is not positive and finite.
    """
    matrix = np.asarray(given, dtype=np.float64)
    if matrix.shape != (n_angles, n_angles):
        raise CircuitError(f"the inverse Hessian has shape ({n_angles}, {n_angles}), got {matrix.shape}")
    if not (np.isfinite(matrix).all() and (matrix.diagonal() > 0.0).all()):
        raise CircuitError("the diagonal of an inverse Hessian is positive and finite, got other values")
    return matrix


def outcome(
    x: np.ndarray, gradient: np.ndarray, hessian: np.ndarray, energy: float, nit: int, nfev: int, status: int
) -> Any:
    """What `bfgs` found, as `scipy.optimize.OptimizeResult`."""
    from scipy.optimize import OptimizeResult

    return OptimizeResult(
        x=x,
        fun=energy,
        jac=gradient,
        hess_inv=hessian,
        nit=nit,
        nfev=nfev,
        njev=nfev,
        status=status,
        success=status not in (OUT_OF_BUDGET, INTERRUPTED),
        message=_MESSAGES[status],
    )
