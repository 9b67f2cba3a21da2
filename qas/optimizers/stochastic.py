"""Methods for noisy values: SPSA, and SPSA with Adam steps in shot stages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qas.checks import finite_number, whole_number
from qas.errors import QasError
from qas.optimizers.bookkeeping import Bookkeeper, Outcome, OutOfBudget, method

LIH4_STAGES = (1191, 357, 119)
"""Evaluations of the three shot stages that CRLQAS uses for LiH on 4 qubits."""

_STAGE_SHOTS = {1: (1.0,), 3: (0.01, 0.1, 1.0)}


class _TailAverage:
    """The mean of the last iterates; noise in single steps averages out."""

    def __init__(self, total: int, fraction: float) -> None:
        if not 0.0 <= fraction <= 1.0:
            raise QasError(f"average is a fraction between 0 and 1, got {fraction}")
        self._first = total - max(1, round(total * fraction))
        self._sum: np.ndarray | None = None
        self._count = 0

    def add(self, step: int, x: np.ndarray) -> np.ndarray:
        """Take in the iterate after step `step` (from 0); the point to return if the search ended now."""
        if step < self._first:
            return x.copy()
        self._sum = x.copy() if self._sum is None else self._sum + x
        self._count += 1
        return self._sum / self._count


def _slope(book: Bookkeeper, x: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    """Simultaneous-perturbation gradient from two evaluations at x ± size·Δ, Δ uniform in {-1, +1}."""
    delta = rng.choice((-1.0, 1.0), size=len(x))
    return (book(x + size * delta) - book(x - size * delta)) / (2 * size) * delta


@method("simultaneous perturbation, two evaluations a step", ends_unevaluated=True)
def spsa(
    book: Bookkeeper,
    start: np.ndarray,
    tolerance: float,
    rng: np.random.Generator,
    *,
    iterations: int = 1000,
    a: float = 1.0,
    c: float = 0.1,
    alpha: float = 0.602,
    gamma: float = 0.101,
    stability: float | None = None,
    average: float = 0.1,
) -> Outcome:
    """Simultaneous perturbation stochastic approximation (Spall, IEEE Trans. Aerosp. Electron. Syst. 34, 817, 1998).

    Step k moves by a/(k + 1 + stability)^alpha along a gradient from two evaluations at distance c/(k + 1)^gamma. It
    runs its planned iterations, or as many as the budget holds (success is then False); `tolerance` is not used. One
    evaluation at the end measures the point to return.

    Args:
        iterations: number of steps planned, two evaluations each.
        a, c: sizes of step and perturbation.
        alpha, gamma: how fast they shrink.
        stability: None: a tenth of the iterations.
        average: the returned point is the mean over this last fraction of the iterates; 0 returns the last one.
    """
    whole_number("iterations", iterations)
    _check_positive(a=a, c=c)
    affordable = int(min(iterations, book.left // 2))
    offset = affordable / 10 if stability is None else stability
    tail = _TailAverage(affordable, average)
    x = start
    for k in range(affordable):
        x = x - a / (k + 1 + offset) ** alpha * _slope(book, x, c / (k + 1) ** gamma, rng)
        book.iterate = tail.add(k, x)
        book.iterations = k + 1
    if affordable < iterations:
        raise OutOfBudget
    return Outcome(True, f"finished {iterations} iterations")


@method("SPSA with Adam steps, one or three shot stages (CRLQAS)", ends_unevaluated=True)
def adam_spsa(
    book: Bookkeeper,
    start: np.ndarray,
    tolerance: float,
    rng: np.random.Generator,
    *,
    stages: Sequence[int] = LIH4_STAGES,
    a: float = 1.8658,
    alpha: float = 0.9451,
    c: float = 0.046,
    gamma: float = 0.1397,
    lamda: float = 0.0138,
    beta1: float = 0.9658,
    beta2: float = 0.8594,
    epsilon: float = 1e-8,
    raw_first_step: bool | None = None,
    average: float = 0.1,
) -> Outcome:
    """Adam steps on SPSA gradients, in one or three shot stages (CRLQAS, arXiv:2402.03500).

    In step k = 0, 1, … the step size is a/(k+1)^alpha, the perturbation c/(k+1)^gamma, and the decay of the first
    moment beta1/(k+1)^lamda; all three decay on through the stages. Three stages measure with a hundredth, a tenth and
    all of the shots. The defaults are the published values for LiH on 4 qubits; they start with steps of nearly two
    radians, so they search widely rather than polish.

    Differences from the released code: perturbations come from `rng`, never from a fixed seed; the point to return is
    the mean of the last iterates (all in the last, most precise stage), measured afresh with the full shots, and not
    the smallest value seen across stages of different noise; that evaluation is counted, and there are no others
    beside the two of each step. A smaller budget shortens all stages in proportion (success is then False);
    `tolerance` is not used.

    Args:
        stages: evaluations in each stage, one or three numbers; a stage of m evaluations takes ceil(m / 2) steps.
        a, alpha, c, gamma, lamda, beta1, beta2, epsilon: as above, and Adam's.
        raw_first_step: the first step follows the plain gradient. None: in a single stage only, as in the paper's code.
        average: the returned point is the mean over this last fraction of the iterates; 0 returns the last one.
    """
    planned = _stage_steps(stages)
    _check_positive(a=a, c=c)
    total = sum(planned)
    affordable = int(min(total, book.left // 2))
    steps = [affordable * n // total for n in planned]
    steps[-1] += affordable - sum(steps)
    fractions = np.repeat(_STAGE_SHOTS[len(planned)], steps)
    raw_first = len(planned) == 1 if raw_first_step is None else raw_first_step
    tail = _TailAverage(affordable, min(average, steps[-1] / max(1, affordable)))
    x = start
    mean, square = np.zeros_like(x), np.zeros_like(x)
    for k, fraction in enumerate(fractions):
        book.set_shots(float(fraction))
        gradient = _slope(book, x, c / (k + 1) ** gamma, rng)
        decay = beta1 / (k + 1) ** lamda
        mean = decay * mean + (1 - decay) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        direction = (mean / (1 - decay ** (k + 1))) / (np.sqrt(square / (1 - beta2 ** (k + 1))) + epsilon)
        x = x - a / (k + 1) ** alpha * (gradient if raw_first and k == 0 else direction)
        book.iterate = tail.add(k, x)
        book.iterations = k + 1
    if affordable < total:
        raise OutOfBudget
    return Outcome(True, f"finished {total} iterations")


def _stage_steps(stages: Sequence[int]) -> list[int]:
    try:
        counts = [int(n) for n in stages]
    except (TypeError, ValueError):
        counts = []
    if len(counts) not in _STAGE_SHOTS or min(counts) < 1:
        raise QasError(f"stages is one or three numbers of evaluations, each at least 1, got {stages!r}")
    return [-(-n // 2) for n in counts]


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        finite_number(name, value, above=0)
