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
from qas.simulators import _ptm_kernels, _sv_kernels, interrupt
from qas.simulators._compile import compiled
from qas.simulators._simd import stopped
from qas.simulators.base import check_angles
from qas.simulators.compiled import CompiledSimulator

CONVERGED, OUT_OF_BUDGET, NO_PROGRESS, INTERRUPTED, _RUNNING = 0, 1, 2, 3, -1
_MESSAGES = {
    CONVERGED: "converged: the quadratic model promises less than the tolerance",
    OUT_OF_BUDGET: "stopped: the evaluation budget is used up",
    NO_PROGRESS: "converged: no further decrease is possible in floating point",
    INTERRUPTED: "stopped: interrupted",
}


@compiled(inline=True)
def _value_and_gradient(noisy, sv, ptm, x, gradient, stop):
    if noisy:
        library, ops, slots, n_qubits, h_index, h_value, segment, work = ptm
        return _ptm_kernels.value_and_gradient(
            library, ops, slots, x, n_qubits, h_index, h_value, segment, work, gradient, stop
        )
    library, ops, slots, masks, real, imag, work = sv
    return _sv_kernels.value_and_gradient(library, ops, slots, x, masks, real, imag, work, gradient, stop)


@compiled()
def bfgs(noisy, sv, ptm, x, gradient, max_evaluations, tolerance, stop):
    """Minimize in place from `x`; `gradient` receives the final gradient.

    The engine is called at one place only, because every call site is a copy of it to compile.

    Args:
        stop: address of a flag; where it is raised the best point so far is returned (energy infinite without one).

    Returns:
        energy, iterations, evaluations, status
    """
    n = len(x)
    inverse = np.zeros((n, n))
    direction, trial, new_gradient = np.empty(n), np.empty(n), np.empty(n)
    change, product = np.empty(n), np.empty(n)
    best, best_gradient = np.empty(n), np.empty(n)
    energy = best_energy = math.inf
    step = best_step = low = high = slope = 0.0
    iterations = evaluations = small_steps = 0
    fresh = False
    for i in range(n):
        trial[i] = x[i]
    while True:
        status = OUT_OF_BUDGET if evaluations >= max_evaluations else _RUNNING
        new_energy = math.nan
        if status == _RUNNING:
            new_energy = _value_and_gradient(noisy, sv, ptm, trial, new_gradient, stop)
            if math.isnan(new_energy) and stopped(stop):
                status = INTERRUPTED
        if status != _RUNNING:
            if best_step > 0.0:
                for i in range(n):
                    x[i], gradient[i] = best[i], best_gradient[i]
                energy = best_energy
            return energy, iterations, evaluations, status
        evaluations += 1
        restart = False
        if evaluations == 1:
            energy = new_energy
            for i in range(n):
                gradient[i] = new_gradient[i]
            restart = True
        else:
            # Line search: bracket a step with enough decrease and a flatter slope (weak Wolfe conditions).
            new_slope = 0.0
            for i in range(n):
                new_slope += new_gradient[i] * direction[i]
            if new_energy < best_energy:
                best_energy, best_step = new_energy, step
                for i in range(n):
                    best[i], best_gradient[i] = trial[i], new_gradient[i]
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
                for i in range(n):
                    trial[i] = x[i] + step * direction[i]
                continue
            if best_step == 0.0:
                if fresh:
                    return energy, iterations, evaluations, NO_PROGRESS
                restart = True
            else:
                curvature = yy = 0.0
                for i in range(n):
                    change[i] = best_gradient[i] - gradient[i]
                    yy += change[i] * change[i]
                    trial[i] = best[i] - x[i]
                    curvature += change[i] * trial[i]
                if curvature > 1e-12 * math.sqrt(yy):
                    if fresh:
                        for i in range(n):
                            inverse[i, i] = curvature / yy
                    quadratic = 0.0
                    for i in range(n):
                        total = 0.0
                        for j in range(n):
                            total += inverse[i, j] * change[j]
                        product[i] = total
                        quadratic += change[i] * total
                    factor, share = (1.0 + quadratic / curvature) / curvature, 1.0 / curvature
                    for i in range(n):
                        left, right = factor * trial[i] - share * product[i], share * trial[i]
                        for j in range(n):
                            inverse[i, j] += left * trial[j] - right * product[j]
                    fresh = False
                for i in range(n):
                    x[i], gradient[i] = best[i], best_gradient[i]
                # The model can also promise too much; three steps in a row that gain nothing settle it.
                small_steps = small_steps + 1 if energy - best_energy < 0.01 * tolerance else 0
                energy = best_energy
                iterations += 1
                if small_steps >= 3:
                    return energy, iterations, evaluations, CONVERGED

        while True:
            if restart:
                for i in range(n):
                    for j in range(n):
                        inverse[i, j] = 1.0 if i == j else 0.0
                fresh = True
            slope = largest = 0.0
            for i in range(n):
                total = 0.0
                for j in range(n):
                    total -= inverse[i, j] * gradient[j]
                direction[i] = total
                slope += total * gradient[i]
                largest = max(largest, abs(total))
            if slope < 0.0 or fresh:
                break
            restart = True
        if -0.5 * slope < 0.01 * tolerance:  # in flat directions the model promises too little
            return energy, iterations, evaluations, CONVERGED
        # No angle moves by more than half a turn in the first trial of a step.
        step = min(1.0, math.pi / largest)
        low, high = 0.0, math.inf
        best_energy, best_step = energy, 0.0
        for i in range(n):
            trial[i] = x[i] + step * direction[i]


_NO_SV = (
    _sv_kernels.Library(
        np.zeros(0, np.int64),
        np.zeros(0, np.int64),
        np.zeros(0, np.int64),
        np.zeros((0, 2, 8)),
        np.zeros(0, np.int64),
        np.zeros(0, np.int64),
    ),
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros(0),
    np.zeros(0),
    np.zeros((0, 0)),
)
_NO_PTM = (
    _ptm_kernels.Library(
        np.zeros(0, np.int64),
        np.zeros(0, np.int64),
        np.zeros(0, np.int64),
        np.zeros((0, 16)),
        np.zeros((0, 4, 2), np.int64),
        np.zeros((0, 2, 17), np.int64),
        np.zeros(0, np.int64),
        np.zeros((0, 4)),
    ),
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    1,
    np.zeros(0, np.int64),
    np.zeros(0),
    1,
    np.zeros((0, 0)),
)


def minimize_bfgs(
    simulator: CompiledSimulator,
    circuit: Circuit,
    hamiltonian: Hamiltonian,
    start: np.ndarray,
    max_evaluations: int | None = None,
    tolerance: float = 1e-9,
) -> Any:
    """Minimize the energy over all angles from `start`, shape (n_angles,).

    Args:
        simulator: a compiled engine.
        max_evaluations: most evaluations of energy and gradient, at least 1; None: no limit.
        tolerance: stop when less than about this much energy can still be gained.

    Returns:
        `scipy.optimize.OptimizeResult` with x, fun, jac, nit, nfev, njev, status, success, message.

    Raises:
        CircuitError: sizes that do not fit, a start that is not finite, or a budget below 1.
        Interrupted: stopped before the first energy (see `qas.simulators.interrupt`).
    """
    limit = 2**62 if max_evaluations is None else int(max_evaluations)
    if limit < 1:
        raise CircuitError(f"max_evaluations is at least 1, got {max_evaluations}")
    x = np.array(check_angles(circuit, hamiltonian, start), dtype=np.float64)
    gradient = np.zeros(len(x))
    noisy, sv, ptm = simulator.kernel_arguments(circuit, hamiltonian, _NO_SV, _NO_PTM)

    def run() -> tuple[float, int, int, int]:
        return bfgs(noisy, sv, ptm, x, gradient, limit, float(tolerance), interrupt.current().address)

    # A thread that listens is worth its start where the minimization may take a second.
    if len(circuit) * min(limit, 200) << (2 if noisy else 1) * circuit.n_qubits > 300_000_000:
        with interrupt.open_to_ctrl_c():
            energy, nit, nfev, status = run()
    else:
        energy, nit, nfev, status = run()
    if nfev == 0:
        interrupt.check()
    return outcome(x, gradient, float(energy), nit, nfev, status)


def outcome(x: np.ndarray, gradient: np.ndarray, energy: float, nit: int, nfev: int, status: int) -> Any:
    """What `bfgs` found, as `scipy.optimize.OptimizeResult`."""
    from scipy.optimize import OptimizeResult

    return OptimizeResult(
        x=x,
        fun=energy,
        jac=gradient,
        nit=nit,
        nfev=nfev,
        njev=nfev,
        status=status,
        success=status not in (OUT_OF_BUDGET, INTERRUPTED),
        message=_MESSAGES[status],
    )
