"""COBYLA: linear models of the objective in a shrinking trust region."""

from __future__ import annotations

import math

import numpy as np

from qas.checks import finite_number
from qas.optimizers.bookkeeping import Bookkeeper, Outcome, method

_NO_LIMIT = 10**7


@method("linear models in a shrinking trust region, no gradients (CRLQAS without noise)")
def cobyla(
    book: Bookkeeper,
    start: np.ndarray,
    tolerance: float,
    rng: np.random.Generator,
    *,
    initial_step: float = 1.0,
) -> Outcome:
    """COBYLA of SciPy without constraints (Powell, 1994); the optimizer of CRLQAS without noise.

    Stops when the trust region is smaller than sqrt(tolerance), so that at unit curvature about `tolerance` is left.
    With shot noise the point is the one whose linear models looked best; `minimize` measures it afresh.

    Args:
        initial_step: first radius of the trust region, radians; 1.0 in CRLQAS.
    """
    from scipy.optimize import minimize

    finite_number("initial_step", initial_step, above=0)

    def follow(x: np.ndarray) -> None:
        book.iterations += 1
        book.iterate = np.array(x)

    result = minimize(
        book,
        start,
        method="COBYLA",
        callback=follow,
        tol=min(math.sqrt(tolerance), initial_step),
        options={"rhobeg": initial_step, "maxiter": _NO_LIMIT},
    )
    book.iterate = np.array(result.x)
    return Outcome(bool(result.success), str(result.message))
