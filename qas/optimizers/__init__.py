"""Optimizers for the angles of a fixed circuit.

To add a method, write a function like those in `coordinate.py` and register it (`OPTIMIZERS`, or an entry point in the
group ``qas.optimizers``), or hand it to `minimize`; its keyword-only arguments become the options that users may give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qas.checks import finite_number, whole_number
from qas.errors import CircuitError, QasError
from qas.optimizers.bookkeeping import Bookkeeper, Outcome, OutOfBudget
from qas.optimizers.shots import SampledObjective
from qas.registry import Registry, options_of
from qas.simulators.interrupt import Interrupted
from qas.simulators.workers import in_order, worker_count

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

__all__ = [
    "OPTIMIZERS",
    "SampledObjective",
    "check_tolerance",
    "list_optimizers",
    "minimize",
    "minimize_many",
]


MOST_TOGETHER = 8
"""Minimizations of one compiled call."""

OPTIMIZERS = Registry(
    "optimizers",
    "optimizer",
    {
        "l-bfgs": "qas.optimizers.gradient:lbfgs",
        "adam": "qas.optimizers.gradient:adam",
        "cobyla": "qas.optimizers.trust_region:cobyla",
        "rotosolve": "qas.optimizers.coordinate:rotosolve",
        "spsa": "qas.optimizers.stochastic:spsa",
        "adam-spsa": "qas.optimizers.stochastic:adam_spsa",
    },
)
"""Name -> function; see `qas.optimizers.bookkeeping.method`."""


def list_optimizers() -> dict[str, str]:
    """Method name -> one line about it."""
    return {name: OPTIMIZERS.about(name) for name in OPTIMIZERS}


def minimize(
    objective: Any,
    start: Any,
    *,
    method: str | Callable[..., Outcome] = "l-bfgs",
    max_evaluations: int | None = None,
    tolerance: float = 1e-9,
    shots: int | None = None,
    rng: np.random.Generator | int | None = None,
    inverse_hessian: np.ndarray | None = None,
    **options: Any,
) -> OptimizeResult:
    """Find angles with a low objective.

    The budget is strict: `max_evaluations` is never exceeded. Without shot noise the result is the best point that was
    evaluated. With shot noise it is the last (or averaged) iterate, evaluated once more with fresh shots within the
    budget: the smallest of many noisy values would be a lucky one. Inside `qas.simulators.interrupt.stop_when` it may
    be stopped in between; then the result is the best point so far, or the last one measured, and the message says so.

    Args:
        objective: as `qas.simulators.base.BaseObjective`.
        start: angles to start from, radians, shape (n_angles,).
        method: a name from `list_optimizers`, or a function like theirs.
        max_evaluations: most calls of the objective, at least 1; a gradient counts as one call. None: no limit.
        tolerance: stop when roughly this much (in the objective's unit) can still be gained or was gained last.
        shots: measure every Pauli term with that many shots (see `SampledObjective`); None: exact values.
        rng: generator (or seed) for shot noise and random perturbations; None draws fresh randomness.
        inverse_hessian: what is known of it at the start, shape (n_angles, n_angles), such as ``hess_inv`` of a result;
            compiled "l-bfgs" begins with it, nothing else makes use of it.
        **options: the method's own keyword arguments; see the function of that method in this package.

    Returns:
        `scipy.optimize.OptimizeResult` with x, fun, nfev, njev (calls counted by the objective), nit, success (False
        when the budget ended the search), message; jac where it is known; shots, the total number of single-term
        measurements, when `shots` was given.

    Raises:
        UnknownNameError: no such method.
        Interrupted: stopped before the first value.
        CircuitError: a start of the wrong shape or with values that are not finite.
        QasError: an unknown option, a budget, tolerance or number of shots out of range, a tolerance below the rounding
            error of the objective, or shots with a method that needs exact gradients.
    """
    chosen, budget = _checked_settings(method, max_evaluations, tolerance, shots, options)
    check_tolerance(objective, tolerance)
    x = _checked_start(objective, start)

    compiled = getattr(objective, "minimize_compiled", None)
    if method == "l-bfgs" and compiled is not None and not options and len(x):
        known = {} if inverse_hessian is None else {"inverse_hessian": inverse_hessian}
        return compiled(x, budget, tolerance, **known)
    generator = np.random.default_rng(rng)
    sampled = None if shots is None else SampledObjective(objective, shots, generator)
    return _run(chosen, objective, sampled, x, budget, tolerance, generator, options)


def minimize_many(
    objectives: Iterable[Any],
    starts: Iterable[Any],
    *,
    method: str | Callable[..., Outcome] = "l-bfgs",
    max_evaluations: int | None = None,
    tolerance: float = 1e-9,
    shots: int | None = None,
    rng: np.random.Generator | int | None = None,
    workers: int | None = None,
    **options: Any,
) -> list[OptimizeResult]:
    """What `minimize` finds for each of many objectives, the compiled engines on all cores at once.

    The results are the same for any number of workers. Other methods, options, shots and engines are worked on one
    after the other, as they draw from one generator or hold the interpreter anyway.

    Args:
        objectives: of one engine or of several; one may occur often, with other starts.
        starts: for each objective the angles to start from, shape (n_angles,).
        method, max_evaluations, tolerance, shots, rng, options: as of `minimize`, for every one.
        workers: threads; None: one for each core that the process may use; 1: one core, also for large circuits.

    Raises:
        UnknownNameError, CircuitError, QasError, Interrupted: as `minimize`, of the first one that it is true of; or
            not as many starts as objectives.
    """
    many, points = list(objectives), list(starts)
    if len(many) != len(points):
        raise QasError(f"each of {len(many)} objectives is minimized from a start of its own, got {len(points)}")
    _checked_settings(method, max_evaluations, tolerance, shots, options)
    whole_number("workers", 1 if workers is None else workers)
    generator = np.random.default_rng(rng)

    def run(pair: tuple[Any, Any]) -> OptimizeResult:
        return minimize(
            *pair,
            method=method,
            max_evaluations=max_evaluations,
            tolerance=tolerance,
            shots=shots,
            rng=generator,
            **options,
        )

    at_once = all(runs_in_threads(objective, method, shots, options) for objective in many)
    # Without angles an objective is called as usual, and counts by itself.
    at_once = at_once and (len({id(o) for o in many}) == len(many) or all(o.n_angles for o in many))
    scratch = max((o.scratch for o in many), default=0) if at_once else 0
    count = min(worker_count(workers, scratch), len(many)) if at_once else 1

    def run_together(pairs: list[tuple[Any, Any]]) -> list[Any]:
        return minimize_together([(objective, start, max_evaluations, None) for objective, start in pairs], tolerance)

    pairs = zip(many, points, strict=True)
    one_core = workers == 1
    return list(in_order(run, pairs, count, one_core=one_core, together=run_together, most_together=MOST_TOGETHER))


def minimize_together(tasks: Sequence[tuple[Any, Any, int | None, np.ndarray | None]], tolerance: float) -> list[Any]:
    """What `minimize` returns or raises for several short minimizations, in one compiled call.

    Args:
        tasks: up to `MOST_TOGETHER` of (objective, start, most evaluations, inverse Hessian) such that
            `runs_in_threads`; the last two may be None.
        tolerance: as of `minimize`.
    """
    from qas.optimizers.batch import FEWEST, minimize_batch
    from qas.simulators.compiled import CompiledObjective

    found: list[Any] = [None] * len(tasks)
    batch: list[tuple[int, np.ndarray]] = []
    for k, (objective, start, limit, known) in enumerate(tasks):
        try:
            if len(tasks) >= FEWEST and isinstance(objective, CompiledObjective) and objective.n_angles:
                check_tolerance(objective, tolerance)
                batch.append((k, _checked_start(objective, start)))
            else:
                given: Any = {"max_evaluations": limit, "tolerance": tolerance, "inverse_hessian": known}
                found[k] = minimize(objective, start, rng=0, **given)
        except Exception as error:  # the caller's, at its turn
            found[k] = error
    if batch:
        limits = [2**62 if tasks[k][2] is None else int(tasks[k][2]) for k, _ in batch]  # type: ignore[arg-type]
        objectives, inverses = [tasks[k][0] for k, _ in batch], [tasks[k][3] for k, _ in batch]
        results = minimize_batch(objectives, [x for _, x in batch], limits, tolerance, inverses)
        for (k, _), result in zip(batch, results, strict=True):
            found[k] = result
    return found


def runs_in_threads(objective: Any, method: str | Callable[..., Outcome], shots: int | None, options: Any) -> bool:
    """Whether `minimize` with these arguments may run in several threads at once, draws nothing, and gains from it."""
    return getattr(objective, "threaded", False) and method == "l-bfgs" and shots is None and not options


def _checked_settings(
    method: str | Callable[..., Outcome],
    max_evaluations: int | None,
    tolerance: float,
    shots: int | None,
    options: dict[str, Any],
) -> tuple[Callable[..., Outcome], int | None]:
    chosen = method if callable(method) else OPTIMIZERS[method]
    name = getattr(method, "__name__", method)
    _check_options(str(name), chosen, options)
    budget = None if max_evaluations is None else whole_number("max_evaluations", max_evaluations)
    finite_number("tolerance", tolerance, above=0)
    if shots is not None:
        whole_number("shots", shots)
        if _needs_gradient(chosen):
            other = ", ".join(sorted(n for n in OPTIMIZERS if not _needs_gradient(OPTIMIZERS[n])))
            raise QasError(f"{name} needs exact gradients and takes no shots; with shots use one of {other}")
    return chosen, budget


def check_tolerance(objective: Any, tolerance: Any) -> float:
    """The tolerance, if it is a positive number that the objective's rounding leaves a meaning.

    Raises:
        QasError: it is not positive and finite, or below `BaseObjective.resolution`.
    """
    number = finite_number("tolerance", tolerance, above=0)
    resolution = getattr(objective, "resolution", 0.0)
    if number < resolution:
        raise QasError(f"the tolerance is at least the engine's resolution {resolution:.3g}, got {number:g}")
    return number


def _needs_gradient(method: Callable[..., Outcome]) -> bool:
    return getattr(method, "needs_gradient", False)


def _run(
    method: Callable[..., Outcome],
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
    last_evaluation = sampled is not None or getattr(method, "ends_unevaluated", False)
    book = Bookkeeper(objective, sampled, start, budget, reserved=1 if last_evaluation or not len(start) else 0)
    outcome = Outcome(True, "the circuit has no angles")
    try:
        try:
            if len(start):
                outcome = method(book, start.copy(), tolerance, rng, **options)
        except OutOfBudget:
            outcome = Outcome(False, f"stopped: the budget of {budget} evaluations is used up")
        if last_evaluation or len(start) == 0:
            book.evaluate_iterate()
    except Interrupted:
        if not book.has_value:
            raise
        outcome = Outcome(False, "stopped: interrupted")
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


def _check_options(name: str, method: Callable[..., Outcome], options: dict[str, Any]) -> None:
    known = options_of(method) if options else {}
    for option in options:
        if option not in known:
            raise QasError(f"{name} has no option {option!r}; it takes {', '.join(sorted(known))}")
