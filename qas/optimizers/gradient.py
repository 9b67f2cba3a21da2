"""Methods that follow exact gradients: L-BFGS and Adam."""

from __future__ import annotations

import math

import numpy as np

from qas.optimizers.bookkeeping import Bookkeeper, Outcome, method

_NO_LIMIT = 10**9


@method("quasi-Newton with exact gradients, compiled where the engine can", needs_gradient=True)
def lbfgs(
    book: Bookkeeper,
    start: np.ndarray,
    tolerance: float,
    rng: np.random.Generator,
    *,
    memory: int = 10,
    max_iterations: int = _NO_LIMIT,
) -> Outcome:
    """L-BFGS-B of SciPy without bounds (Byrd, Lu, Nocedal, Zhu, SIAM J. Sci. Comput. 16, 1190, 1995).

    Stops when the largest gradient entry is below sqrt(tolerance), so that at unit curvature about `tolerance` is left,
    or when a step gains less than a hundredth of `tolerance` (relative to the objective's size where that exceeds 1).

    Args:
        memory: number of past steps that the Hessian is built from.
        max_iterations: most iterations.
    """
    from scipy.optimize import minimize

    def count(intermediate_result: object) -> None:
        book.iterations += 1

    result = minimize(
        book.value_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        callback=count,
        options={
            "maxcor": memory,
            "maxiter": max_iterations,
            "maxfun": _NO_LIMIT,
            "ftol": tolerance / 100,
            "gtol": math.sqrt(tolerance),
        },
    )
    return Outcome(bool(result.success), str(result.message))


@method("gradient descent with adaptive steps and exact gradients", needs_gradient=True)
def adam(
    book: Bookkeeper,
    start: np.ndarray,
    tolerance: float,
    rng: np.random.Generator,
    *,
    learning_rate: float = 0.05,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    max_iterations: int = 5000,
) -> Outcome:
    """Adam (Kingma and Ba, arXiv:1412.6980, algorithm 1) on exact gradients.

    Stops when the largest gradient entry is below sqrt(tolerance).

    Args:
        learning_rate: size of a step in radians, roughly.
        beta1, beta2: decay of the averages of the gradient and of its square.
        epsilon: keeps the step finite where the gradient vanishes.
        max_iterations: most steps.
    """
    x = start
    mean, square = np.zeros_like(x), np.zeros_like(x)
    for step in range(1, max_iterations + 1):
        _, gradient = book.value_and_gradient(x)
        if np.abs(gradient).max() <= math.sqrt(tolerance):
            return Outcome(True, "converged: the gradient is below the square root of the tolerance")
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        x = x - learning_rate * (mean / (1 - beta1**step)) / (np.sqrt(square / (1 - beta2**step)) + epsilon)
        book.iterations = step
    return Outcome(False, f"stopped after {max_iterations} iterations")
