"""Rotosolve: the exact minimum over one angle after the other."""

from __future__ import annotations

import math

import numpy as np

from qas.errors import QasError
from qas.optimizers.bookkeeping import Bookkeeper, Outcome, method


@method("exact minimum of one angle after the other, no gradients", ends_unevaluated=True)
def rotosolve(
    book: Bookkeeper,
    start: np.ndarray,
    tolerance: float,
    rng: np.random.Generator,
    *,
    max_sweeps: int = 1000,
    refresh: int = 32,
) -> Outcome:
    """Sequential minimization of one angle at a time (Ostaszewski, Grant, Benedetti, arXiv:1905.09692, section 2).

    Every angle of every primitive gate is a Pauli rotation up to fixed gates, with or without noise, so along one angle
    the energy is a cos δ + b sin δ + c. Two evaluations at δ = ±π/2 and the known value at δ = 0 give its minimum in
    closed form, which is the known value for the next angle: three evaluations for the first angle, two for each one
    after it.

    Stops when a whole sweep gains less than `tolerance`. With shot noise the known value gathers noise from angle to
    angle, so it is measured afresh every `refresh` angles (as in Nakanishi, Fujii, Todo, arXiv:1903.12166), and a sweep
    that shows no gain ends the search.

    Args:
        max_sweeps: most passes over all angles; one pass is one iteration.
        refresh: with shot noise, angles between fresh measurements of the current point, at least 1.

    Raises:
        QasError: a circuit with excitations, whose energy has two frequencies in each of their angles, or a mitigated
            score that is not linear in energies.
    """
    if not book.sinusoidal:
        raise QasError(
            "rotosolve needs energies of rotations, got excitations or a score that is not linear in energies; "
            "decompose the circuit, set kappa=0, or use l-bfgs"
        )
    x = start
    value = book(x)
    visited = 0
    for sweep in range(1, max_sweeps + 1):
        before = value
        for k in range(len(x)):
            if not book.exact and visited and visited % max(1, refresh) == 0:
                value = book(x)
            visited += 1
            value = _minimize_angle(book, x, k, value)
            book.iterate = x.copy()
        book.iterations = sweep
        if before - value < tolerance:
            return Outcome(True, "converged: a sweep over all angles gains less than the tolerance")
    return Outcome(False, f"stopped after {max_sweeps} sweeps")


def _minimize_angle(book: Bookkeeper, x: np.ndarray, k: int, value: float) -> float:
    """Move angle `k` of `x` to its minimum, in place, and return the value there."""
    angle = x[k]
    probe = x.copy()
    probe[k] = angle + math.pi / 2
    upper = book(probe)
    probe[k] = angle - math.pi / 2
    lower = book(probe)
    middle = (upper + lower) / 2
    cosine, sine = value - middle, (upper - lower) / 2
    if math.hypot(cosine, sine) <= 1e-15 * max(1.0, abs(middle)):
        return value
    x[k] = angle + math.atan2(-sine, -cosine)
    return middle - math.hypot(cosine, sine)
