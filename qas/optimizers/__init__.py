"""Optimizers for the angles of a fixed circuit.

To add a method, write a function like those in `coordinate.py` and add it to `_METHODS`; its keyword-only arguments
become the options that users may give.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qas.errors import CircuitError, QasError, UnknownNameError
from qas.optimizers.bookkeeping import Bookkeeper, Outcome, OutOfBudget
from qas.optimizers.coordinate import rotosolve
from qas.optimizers.gradient import adam, lbfgs
from qas.optimizers.shots import SampledObjective
from qas.optimizers.stochastic import adam_spsa, spsa
from qas.optimizers.trust_region import cobyla

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

__all__ = ["SampledObjective", "list_optimizers", "minimize"]


@dataclass(frozen=True)
class _Method:
    about: str
    run: Callable[..., Outcome]
    needs_gradient: bool = False
    ends_unevaluated: bool = False
    """the last iterate has not been evaluated when the method ends"""


_METHODS = {
    "l-bfgs": _Method("quasi-Newton with exact gradients, compiled where the engine can", lbfgs, needs_gradient=True),
    "adam": _Method("gradient descent with adaptive steps and exact gradients", adam, needs_gradient=True),
    "cobyla": _Method("linear models in a shrinking trust region, no gradients (CRLQAS without noise)", cobyla),
    "rotosolve": _Method("exact minimum of one angle after the other, no gradients", rotosolve, ends_unevaluated=True),
    "spsa": _Method("simultaneous perturbation, two evaluations a step", spsa, ends_unevaluated=True),
    "adam-spsa": _Method("SPSA with Adam steps, one or three shot stages (CRLQAS)", adam_spsa, ends_unevaluated=True),
}


def list_optimizers() -> dict[str, str]:
    """Method name -> one line about it."""
    return {name: method.about for name, method in _METHODS.items()}


def minimize(
    objective: Any,
    start: Any,
    *,
    method: str = "l-bfgs",
    max_evaluations: int | None = None,
    tolerance: float = 1e-9,
    shots: int | None = None,
    rng: np.random.Generator | int | None = None,
    **options: Any,
) -> OptimizeResult:
    """Find angles with a low objective.

    The budget is strict: `max_evaluations` is never exceeded. Without shot noise the result is the best point that was
    evaluated. With shot noise it is the last (or averaged) iterate, evaluated once more with fresh shots within the
    budget: the smallest of many noisy values would be a lucky one.

    Args:
        objective: as `qas.simulators.base.BaseObjective`.
        start: angles to start from, radians, shape (n_angles,).
        method: a name from `list_optimizers`.
        max_evaluations: most calls of the objective, at least 1; a gradient counts as one call. None: no limit.
        tolerance: stop when roughly this much (in the objective's unit) can still be gained or was gained last.
        shots: measure every Pauli term with that many shots (see `SampledObjective`); None: exact values.
        rng: generator (or seed) for shot noise and random perturbations; None draws fresh randomness.
        **options: the method's own keyword arguments; see the function of that method in this package.

    Returns:
        `scipy.optimize.OptimizeResult` with x, fun, nfev, njev (calls counted by the objective), nit, success (False
        when the budget ended the search), message; jac where it is known; shots, the total number of single-term
        measurements, when `shots` was given.

    Raises:
        UnknownNameError: no such method.
        CircuitError: a start of the wrong shape or with values that are not finite.
        QasError: an unknown option, a budget, tolerance or number of shots out of range, or shots with a method that
            needs exact gradients.
    """
    if method not in _METHODS:
        raise UnknownNameError("optimizer", method, _METHODS)
    chosen = _METHODS[method]
    if options:
        _check_options(method, chosen, options)
    budget = None if max_evaluations is None else _whole("max_evaluations", max_evaluations)
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise QasError(f"tolerance is positive, got {tolerance}")
    if shots is not None:
        shots = _whole("shots", shots)
        if chosen.needs_gradient:
            other = ", ".join(sorted(n for n, m in _METHODS.items() if not m.needs_gradient))
            raise QasError(f"{method} needs exact gradients and takes no shots; with shots use one of {other}")
    x = _checked_start(objective, start)

    compiled = getattr(objective, "minimize_compiled", None)
    if method == "l-bfgs" and compiled is not None and not options and len(x):
        return compiled(x, budget, tolerance)
    generator = np.random.default_rng(rng)
    sampled = None if shots is None else SampledObjective(objective, shots, generator)
    return _run(chosen, objective, sampled, x, budget, tolerance, generator, options)


def _run(
    method: _Method,
    objective: Any,
    sampled: SampledObjective | None,
    start: np.ndarray,
    budget: int | None,
    tolerance: float,
    rng: np.random.Generator,
    options: dict[str, Any],
) -> OptimizeResult:
    from scipy.optimize import OptimizeResult

    nfev, njev = objective.nfev, objective.njev
    last_evaluation = sampled is not None or method.ends_unevaluated
    book = Bookkeeper(objective, sampled, start, budget, reserved=1 if last_evaluation or not len(start) else 0)
    if len(start) == 0:
        outcome = Outcome(True, "the circuit has no angles")
    else:
        try:
            outcome = method.run(book, start.copy(), tolerance, rng, **options)
        except OutOfBudget:
            outcome = Outcome(False, f"stopped: the budget of {budget} evaluations is used up")
    if last_evaluation or len(start) == 0:
        book.evaluate_iterate()
    x, value, gradient = book.answer()
    result = OptimizeResult(
        x=x,
        fun=value,
        nfev=objective.nfev - nfev,
        njev=objective.njev - njev,
        nit=book.iterations,
        success=outcome.success,
        message=outcome.message,
    )
    if gradient is not None:
        result.jac = gradient
    if sampled is not None:
        result.shots = sampled.shots_used
    return result


def _whole(what: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1 or number != value:
        raise QasError(f"{what} is a whole number of at least 1, got {value!r}")
    return number


def _checked_start(objective: Any, start: Any) -> np.ndarray:
    try:
        x = np.array(start, dtype=np.float64)
    except (TypeError, ValueError):
        raise CircuitError(f"the start is an array of {objective.n_angles} angles, got {start!r}") from None
    if x.shape != (objective.n_angles,):
        raise CircuitError(f"the start needs shape ({objective.n_angles},), got {x.shape}")
    if not np.isfinite(x).all():
        raise CircuitError("the start must be finite, got NaN or infinity")
    return x


def _check_options(name: str, method: _Method, options: dict[str, Any]) -> None:
    parameters = inspect.signature(method.run).parameters.values()
    known = sorted(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
    for option in options:
        if option not in known:
            raise QasError(f"{name} has no option {option!r}; it takes {', '.join(known)}")
