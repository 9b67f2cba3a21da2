"""Bayesian optimization over a pool: an exact Gaussian process, scored on every point, proposals in batches.

Cost. The posterior over 100,000 points after 1,000 observations would hold 400 MB, read again for every batch. Instead
`screen` candidates carry an incrementally updated posterior. Whenever the observations have grown by `screen_growth`
the whole pool is scored in blocks, nothing kept, and the candidates are chosen again; they then get an
exact posterior. A pool of at most `screen` points is its own candidate set, and nothing is approximate then.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular

from qas.agents.pool.gaussian_process import (
    KERNELS,
    GaussianProcess,
    Inputs,
    PoolPosterior,
    log_expected_improvement,
    log_probability_above,
    pool_moments,
    safe_cholesky,
    standard_units,
)
from qas.agents.pool.searchers import Indices, PoolSearcher, squared_distances, whole_number
from qas.errors import QasError

Array = NDArray[np.float64]

ACQUISITIONS = ("log-ei", "thompson", "level-set", "mean")
_CONDITIONED = 256  # observations that narrow the standard deviation while the whole pool is scored
DESIGNS = ("kmeans++", "maximin", "random")


def best_positions(scores: Array, count: int) -> NDArray[np.intp]:
    """Positions of the `count` largest scores, largest first, of equal ones the first; NaN is not allowed."""
    count = min(count, len(scores))
    if count == 0:
        return np.empty(0, dtype=np.intp)
    among = np.argpartition(-scores, count - 1)[:count]
    return among[np.lexsort((among, -scores[among]))]


def spread_design(x: NDArray[np.floating], among: Indices, count: int, rng: np.random.Generator, how: str) -> Indices:
    """First points to evaluate, from standardised embeddings.

    Args:
        x: (N, d).
        among: points that may be taken.
        count: how many.
        how: `random`; `kmeans++`, each drawn in proportion to the squared distance from those taken; `maximin`, each
            the farthest from those taken, which favours outliers.
    """
    count = min(count, len(among))
    if how == "random":
        return rng.choice(among, size=count, replace=False)
    points = x[among]
    left = np.ones(len(among), dtype=bool)
    nearest = np.full(len(among), np.inf)
    chosen = [int(rng.integers(len(among)))]
    while len(chosen) < count:
        left[chosen[-1]] = False
        nearest = np.minimum(nearest, squared_distances(points, points[chosen[-1]]))
        weight = np.where(left, nearest, 0.0)
        if weight.sum() <= 0:  # only copies of the points taken are left
            weight = left.astype(float)
        chosen.append(
            int(np.argmax(weight)) if how == "maximin" else int(rng.choice(len(among), p=weight / weight.sum()))
        )
    return among[chosen]


class GreedyImprovement:
    """Joint log expected improvement of a batch, built greedily: the gain of each candidate given what is pending.

    The value of a batch is E[max(max_j f_j - best, 0)]. Values of pending points are drawn; given a draw, a candidate's
    gain over the larger of `best` and the drawn values is analytic, and the mean over draws is its marginal gain. With
    nothing pending that is plain expected improvement, without any Monte Carlo error.

    Args:
        posterior: over all candidates.
        short: positions of the candidates considered.
        best: best value told, in standardised output.
        draws: (S, p + q - 1) standard normal numbers for p pending points and q picks.
        pending: the pending points; may be empty.
    """

    def __init__(
        self, posterior: PoolPosterior, short: NDArray[np.intp], best: float, draws: Array, pending: Inputs
    ) -> None:
        self.posterior = posterior
        self.short = short
        self.points = posterior.points.take(short)
        self.rows = posterior.columns(short)
        self.mean = np.repeat(posterior.mean[short][None, :], 1, axis=0)  # (1 or S, C)
        self.variance = posterior.variance[short].copy()
        self.best = np.full(1, best)
        self.draws = draws
        self.used = 0
        self.basis = np.empty(
            (0, len(short))
        )  # conditioning directions: covariance given the fantasies is minus their product
        self.taken = np.zeros(len(short), dtype=bool)
        if len(pending):
            self._fantasise(pending)

    def _fantasise(self, pending: Inputs) -> None:
        mean, covariance, across = self.posterior.outside(pending, self.short)
        factor = safe_cholesky(covariance + 1e-8 * np.eye(len(mean)))
        self.basis = solve_triangular(factor, across, lower=True, check_finite=False)
        z = self.draws[:, : len(mean)]
        self.mean = self.mean + z @ self.basis
        self.variance -= np.einsum("ij,ij->j", self.basis, self.basis)
        self.best = np.maximum(self.best, (mean + z @ factor.T).max(axis=1))
        self.used = len(mean)

    def scores(self) -> Array:
        """Log of the gain of every candidate (C,); -inf for those taken."""
        std = np.sqrt(np.maximum(self.variance, 1e-8))
        logs = log_expected_improvement(self.mean, std, self.best[:, None])
        top = logs.max(axis=0)
        gain = top + np.log(np.exp(logs - top).mean(axis=0)) if len(logs) > 1 else top
        return np.where(self.taken, -np.inf, gain)

    def take(self, j: int) -> None:
        """Condition on candidate `j` being evaluated too."""
        kernel = self.posterior.process.kernel
        assert kernel is not None
        row = kernel(self.points.take([j]), self.points)[0].astype(np.float64)
        row -= self.rows[:, j] @ self.rows
        row -= self.basis[:, j] @ self.basis
        std = np.sqrt(max(self.variance[j], 1e-8))
        row /= std
        row[j] = std
        z = self.draws[:, self.used]
        self.mean = self.mean + z[:, None] * row
        self.best = np.maximum(self.best, self.mean[:, j])
        self.variance -= row * row
        self.basis = np.concatenate([self.basis, row[None, :]])
        self.taken[j] = True
        self.used += 1

    def pick(self, count: int) -> list[int]:
        """Positions, among all candidates of the posterior, of a batch."""
        chosen: list[int] = []
        for k in range(min(count, len(self.short))):
            j = int(np.argmax(self.scores()))
            chosen.append(int(self.short[j]))
            if k + 1 < count:
                self.take(j)
        return chosen


class BayesianSearcher(PoolSearcher):
    """Gaussian process on the embeddings (and on fingerprints); a batch of `batch` points per ask.

    Acquisitions:

    * `log-ei`: sequential greedy joint log expected improvement over the best value told; pending points count.
    * `thompson`: the best point of each of `batch` joint posterior samples over the shortlist.
    * `level-set`: the largest P(value >= threshold). The expected number of hits of a batch is the sum of these,
      whatever the correlations, so the best batch is the top ones: conditioning on pending values would not change it.
    * `mean`: the largest posterior mean.

    Hyper-parameters are fitted when the observations have grown by `refit_growth`, warm-started; in between
    observations are appended. Before two points are told the choice is random.

    Args:
        acquisition: one of the above.
        kernel: `matern` on embeddings, `fingerprint` on counts, or their `sum`.
        ard: a length scale per dimension instead of one for all.
        fingerprints: (N, F) non-negative counts, for the last two kernels.
        batch: points per ask.
        initial: points of the first batch.
        design: how these are chosen: `kmeans++`, `maximin` or `random`.
        threshold: for `level-set`, in the unit of the values; when not given, the `quantile` of the values told.
        quantile: see above, 0 to 1.
        screen: points that carry a posterior between two scorings of the whole pool.
        shortlist: best candidates considered for a batch by `log-ei` and `thompson`.
        samples: Monte Carlo samples of pending values.
        refit_growth, screen_growth: growth of the observations, above 1.

    Raises:
        QasError: an option out of its range, or fingerprints that do not fit.
    """

    name: ClassVar[str] = "bo"
    about: ClassVar[str] = "exact Gaussian process: log-EI, Thompson samples, level set or mean; in batches"

    def __init__(
        self,
        points: ArrayLike,
        rng: np.random.Generator,
        *,
        acquisition: str = "log-ei",
        kernel: str = "matern",
        ard: bool = True,
        fingerprints: ArrayLike | None = None,
        batch: int = 5,
        initial: int = 16,
        design: str = "kmeans++",
        threshold: float | None = None,
        quantile: float = 0.9,
        screen: int = 20_000,
        shortlist: int = 1000,
        samples: int = 32,
        refit_growth: float = 1.25,
        screen_growth: float = 1.15,
    ) -> None:
        super().__init__(points, rng)
        for what, value, known in (("acquisition", acquisition, ACQUISITIONS), ("kernel", kernel, KERNELS),
                                   ("design", design, DESIGNS)):  # fmt: skip
            if value not in known:
                raise QasError(f"{what} is one of {', '.join(known)}, got {value!r}")
        if threshold is not None and not np.isfinite(threshold):
            raise QasError(f"threshold is a finite number, got {threshold!r}")
        if not 0 <= quantile <= 1:
            raise QasError(f"quantile lies between 0 and 1, got {quantile!r}")
        if not (refit_growth > 1 and screen_growth > 1):
            raise QasError(f"refit_growth and screen_growth are above 1, got {refit_growth!r} and {screen_growth!r}")
        self.acquisition, self.kernel, self.ard, self.design = acquisition, kernel, bool(ard), design
        self.threshold, self.quantile = threshold, float(quantile)
        self.batch, self.initial = whole_number("batch", batch), whole_number("initial", initial)
        self.screen, self.shortlist = whole_number("screen", screen), whole_number("shortlist", shortlist)
        self.samples = whole_number("samples", samples)
        self.refit_growth, self.screen_growth = float(refit_growth), float(screen_growth)
        self._centre, self._scale = standard_units(self.points)
        self._counts = self._checked_counts(fingerprints)
        x = ((self.points - self._centre) / self._scale).astype(np.float32)
        self._pool = Inputs(x, None if self._counts is None else self._counts.astype(np.float32))
        self._forget()

    def _checked_counts(self, fingerprints: ArrayLike | None) -> NDArray[Any] | None:
        if self.kernel == "matern":
            return None
        if fingerprints is None:
            raise QasError(f"the kernel {self.kernel} needs fingerprints, got none")
        counts = np.asarray(fingerprints)
        if counts.ndim != 2 or len(counts) != len(self) or counts.dtype.kind not in "iufb":
            raise QasError(f"fingerprints are counts, one row for each of {len(self)} points, got shape {counts.shape}")
        if not np.isfinite(counts).all() or (counts < 0).any():
            raise QasError("fingerprints are finite and not negative")
        return counts

    def _forget(self) -> None:
        self._process: GaussianProcess | None = None
        self._posterior: PoolPosterior | None = None
        self._candidates = np.empty(0, dtype=np.int64)
        self._n_fit = 0  # observations at the last fit of hyper-parameters
        self._n_screen = 0  # observations when the candidates were chosen
        self._blocks: list[int] = []  # observations after each append since the last fit

    # ------------------------------------------------------------------ choosing
    def _choose(self) -> Indices:
        if self._n_seen < self.initial:
            missing = self.initial - self._n_seen
            return spread_design(self._pool.x, np.flatnonzero(self._open), missing, self.rng, self.design)
        if len(self._told) < 2:
            return self._random_open(self.batch)
        self._update_model()
        assert self._posterior is not None
        positions = np.flatnonzero(self._open[self._candidates])
        scores = self._score(self._posterior.mean[positions], self._posterior.std[positions])
        if self.acquisition in ("level-set", "mean"):
            return self._candidates[positions[best_positions(scores, self.batch)]]
        short = positions[best_positions(scores, self.shortlist)]
        picked = self._thompson(short) if self.acquisition == "thompson" else self._improve(short)
        return self._candidates[picked]

    def _score(self, mean: Array, std: Array) -> Array:
        """What single points are ranked by, from moments in standardised output."""
        if self.acquisition == "mean":
            return mean
        if self.acquisition == "level-set":
            level = float(np.quantile(self._values, self.quantile)) if self.threshold is None else self.threshold
            return log_probability_above(mean, std, self._standard(level))
        return log_expected_improvement(mean, std, self._standard(max(self._values)))

    def _standard(self, value: float) -> float:
        assert self._process is not None
        return (value - self._process.y_mean) / self._process.y_std

    def _improve(self, short: NDArray[np.intp]) -> list[int]:
        assert self._posterior is not None
        half = self.rng.standard_normal(((self.samples + 1) // 2, len(self._pending) + self.batch))
        draws = np.concatenate([half, -half])[: self.samples]
        pending = self._inputs(self._pending)
        best = self._standard(max(self._values))
        return GreedyImprovement(self._posterior, short, best, draws, pending).pick(self.batch)

    def _thompson(self, short: NDArray[np.intp]) -> list[int]:
        assert self._posterior is not None
        factor = safe_cholesky(self._posterior.joint_covariance(short))
        count = min(self.batch, len(short))
        samples = self._posterior.mean[short] + self.rng.standard_normal((count, len(short))) @ factor.T
        chosen: list[int] = []
        for sample in samples:
            sample[chosen] = -np.inf
            chosen.append(int(np.argmax(sample)))
        return [int(short[j]) for j in chosen]

    # ------------------------------------------------------------------ the model
    def _inputs(self, indices: list[int]) -> Inputs:
        assert self._process is not None
        if not indices:
            return self._pool.take(slice(0, 0))
        counts = None if self._counts is None else self._counts[indices]
        return self._process.inputs(self.points[indices], counts)

    def _update_model(self) -> None:
        n = len(self._told)
        if self._process is None or n >= self.refit_growth * self._n_fit:
            self._refit()
        elif n > len(self._process):
            self._append(n)
        left = np.count_nonzero(self._open[self._candidates])
        whole = len(self._candidates) == len(self)
        few = left < min(self.n_open, self.shortlist + self.batch)
        if self._posterior is None or (not whole and (few or n >= self.screen_growth * self._n_screen)):
            self._rescreen()

    def _refit(self) -> None:
        if self._process is None:
            self._process = self._new_process()
        counts = None if self._counts is None else self._counts[self._told]
        iterations = 60 if self._n_fit == 0 else 10
        self._process.fit(self.points[self._told], self._values, counts, max_iterations=iterations)
        self._n_fit, self._blocks, self._posterior = len(self._told), [], None

    def _new_process(self) -> GaussianProcess:
        return GaussianProcess(self.kernel, ard=self.ard, centre=self._centre, scale=self._scale)

    def _append(self, end: int) -> None:
        assert self._process is not None
        new = slice(len(self._process), end)
        counts = None if self._counts is None else self._counts[self._told[new]]
        self._process.append(self.points[self._told[new]], self._values[new], counts)
        self._blocks.append(end)
        if self._posterior is not None:
            self._posterior.update()

    def _rescreen(self) -> None:
        """Choose candidates anew: four fifths by score, one fifth at random as a guard against a wrong model."""
        assert self._process is not None
        if len(self) <= self.screen:
            self._candidates = np.arange(len(self))
        else:
            left = np.flatnonzero(self._open)
            mean, std = pool_moments(self._process, self._pool, most=_CONDITIONED)
            scores = self._score(mean[left], std[left])
            keep = best_positions(scores, self.screen - self.screen // 5)
            others = np.ones(len(left), dtype=bool)
            others[keep] = False
            rest = left[others]
            lucky = self.rng.choice(rest, size=min(self.screen - len(keep), len(rest)), replace=False)
            self._candidates = np.sort(np.concatenate([left[keep], lucky]))
        self._n_screen = len(self._told)
        self._posterior = PoolPosterior(self._process, self._pool.take(self._candidates))

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        state, arrays = super().state()
        state |= {"n_fit": self._n_fit, "n_screen": self._n_screen, "blocks": list(self._blocks)}
        if self._process is not None and self._process.kernel is not None:
            arrays |= {"theta": self._process.kernel.theta.copy(), "candidates": self._candidates.copy()}
        return state, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        super().restore(state, arrays)
        self._forget()
        if "theta" not in arrays:
            return
        # The same products in the same order as in the unbroken run: float32 sums then agree to the last bit.
        told, values = list(self._told), list(self._values)
        self._n_fit, self._n_screen = int(state["n_fit"]), int(state["n_screen"])
        self._candidates = arrays["candidates"].astype(np.int64)
        self._process = self._new_process()
        y = np.array(values[: self._n_fit])
        self._process.take_units(self.points[told[: self._n_fit]], y)
        self._process.set(
            arrays["theta"], self._inputs(told[: self._n_fit]), (y - self._process.y_mean) / self._process.y_std
        )
        for end in [self._n_fit, *(int(b) for b in state["blocks"])]:
            if end > len(self._process):
                self._append(end)
            if end == self._n_screen:
                self._posterior = PoolPosterior(self._process, self._pool.take(self._candidates))
