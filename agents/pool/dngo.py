"""DNGO over a pool: a small network as basis, Bayesian linear regression on it, expected improvement.

Deep networks for global optimization: Snoek et al., ICML 2015. The settings, and the faults of the mode `mended=False`,
are those of the search released with arXiv 2401.11576.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize
from scipy.special import ndtr

from qas.agents.pool.bayesian import best_positions
from qas.agents.pool.gaussian_process import log_expected_improvement
from qas.agents.pool.searchers import Indices, PoolSearcher, whole_number
from qas.errors import QasError

Array = NDArray[np.float64]
Single = NDArray[np.float32]

_CHUNK = 8192
_RETRIES = 20


class Basis:
    """A network d -> hidden tanh -> 1, trained by mean squared error; its hidden layer is the basis.

    Args:
        x: (n, d) standardised inputs.
        y: (n,) outputs.
        rng: weights and order of the mini-batches.
        hidden, epochs, batch, lr: sizes; Adam with betas (0.9, 0.999), eps 1e-8. In each epoch an incomplete last
            mini-batch is left out.
    """

    def __init__(
        self,
        x: Single,
        y: Single,
        rng: np.random.Generator,
        *,
        hidden: int = 128,
        epochs: int = 100,
        batch: int = 10,
        lr: float = 0.01,
    ) -> None:
        d = x.shape[1]
        self.hidden = hidden
        sizes = [d * hidden, hidden, hidden, 1]
        self.parameters = np.zeros(sum(sizes), dtype=np.float32)
        self.gradient = np.zeros_like(self.parameters)
        ends = np.cumsum(sizes)
        bound = np.repeat([1 / math.sqrt(d), 1 / math.sqrt(hidden)], [ends[1], ends[3] - ends[1]])
        self.parameters[:] = rng.uniform(-bound, bound)
        # Views into one vector: Adam is then a handful of operations for the whole network.
        self._w, self._b, self._v, self._c = self._views(self.parameters, ends, d)
        self._gw, self._gb, self._gv, self._gc = self._views(self.gradient, ends, d)
        self._train(x, y, rng, epochs, min(batch, len(y)), lr)

    def _views(self, vector: Single, ends: NDArray[np.int64], d: int) -> tuple[Single, Single, Single, Single]:
        w, b, v, c = np.split(vector, ends[:-1])
        return w.reshape(d, self.hidden), b, v, c

    def loss(self, x: Single, y: Single) -> float:
        """Mean squared error of a mini-batch; leaves its gradient in `gradient`."""
        h = x @ self._w
        h += self._b
        np.tanh(h, out=h)
        error = h @ self._v
        error += self._c
        error -= y
        value = float(error @ error) / len(y)
        error *= 2.0 / len(y)
        np.dot(error, h, out=self._gv)
        self._gc[0] = error.sum()
        h *= h
        np.subtract(1.0, h, out=h)
        h *= self._v
        h *= error[:, None]
        np.dot(x.T, h, out=self._gw)
        h.sum(axis=0, out=self._gb)
        return value

    def _train(self, x: Single, y: Single, rng: np.random.Generator, epochs: int, batch: int, lr: float) -> None:
        p, g = self.parameters, self.gradient
        first, second, change = np.zeros_like(p), np.zeros_like(p), np.empty_like(p)
        step = 0
        for _ in range(epochs):
            order = rng.permutation(len(y))
            shuffled, target = x[order], y[order]
            for start in range(0, len(y) - batch + 1, batch):
                self.loss(shuffled[start : start + batch], target[start : start + batch])
                step += 1
                first *= 0.9
                np.multiply(g, 0.1, out=change)
                first += change
                second *= 0.999
                np.multiply(g, g, out=change)
                change *= 0.001
                second += change
                np.sqrt(second, out=change)
                change *= 1 / math.sqrt(1 - 0.999**step)
                change += 1e-8
                np.divide(first, change, out=change)
                change *= lr / (1 - 0.9**step)
                p -= change

    def __call__(self, x: Single) -> Single:
        """Features (m, hidden)."""
        h = x @ self._w
        h += self._b
        return np.tanh(h, out=h)


@dataclass(frozen=True)
class LinearHead:
    """Bayesian linear regression y = features w + noise, w ~ N(0, I / alpha), noise of precision beta."""

    alpha: float
    beta: float
    mean: Array
    """(k,) posterior mean of w"""
    root: Array
    """(k, k): the posterior covariance of w is root root^T"""

    @classmethod
    def fit(cls, features: ArrayLike, y: ArrayLike) -> LinearHead:
        """Maximise the marginal likelihood by (alpha, beta) with Nelder-Mead, as the release does, from about (1, 100).

        Args:
            features: (n, k).
            y: (n,).
        """
        evidence = Evidence(features, y)
        # SciPy's own first simplex is flat where a coordinate is 0, as log 1 is, and then ends far from the optimum.
        start = np.array([[0.0, 4.6], [2.0, 4.6], [0.0, 6.6]])
        options = {"xatol": 1e-3, "fatol": 1e-5, "maxiter": 400, "initial_simplex": start}
        found = minimize(lambda t: -evidence(t[0], t[1]), start[0], method="Nelder-Mead", options=options)
        return evidence.head(*np.clip(found.x, -15, 20))

    def predict(self, features: NDArray[np.floating]) -> tuple[Array, Array]:
        """Mean (m,) and variance (m,) of an observation, noise included."""
        spread = features @ self.root.astype(features.dtype)
        mean = features @ self.mean.astype(features.dtype)
        variance = np.einsum("ij,ij->i", spread, spread)
        return mean.astype(np.float64), variance.astype(np.float64) + 1 / self.beta


class Evidence:
    """Log marginal likelihood of the linear head, O(k) for each (log alpha, log beta) after one eigendecomposition."""

    def __init__(self, features: ArrayLike, y: ArrayLike) -> None:
        phi, self.y = np.asarray(features, float), np.asarray(y, float)
        values, self.vectors = eigh(phi.T @ phi, check_finite=False)
        self.values = np.maximum(values, 0.0)
        self.projected = self.vectors.T @ (phi.T @ self.y)
        self.square = float(self.y @ self.y)

    def __call__(self, log_alpha: float, log_beta: float) -> float:
        """Natural logarithm of p(y | features, alpha, beta); -inf far outside any sensible range."""
        if not (-15 <= log_alpha <= 20 and -15 <= log_beta <= 20):
            return -math.inf
        alpha, beta = math.exp(log_alpha), math.exp(log_beta)
        n, precision = len(self.y), alpha + beta * self.values
        quadratic = beta * (self.square - beta * float((self.projected**2 / precision).sum()))
        log_det = float(np.log(precision).sum()) - len(self.values) * log_alpha - n * log_beta
        return -0.5 * (quadratic + log_det + n * math.log(2 * math.pi))

    def head(self, log_alpha: float, log_beta: float) -> LinearHead:
        alpha, beta = math.exp(log_alpha), math.exp(log_beta)
        precision = alpha + beta * self.values
        mean = self.vectors @ (beta * self.projected / precision)
        return LinearHead(alpha, beta, mean, self.vectors / np.sqrt(precision))


class DngoSearcher(PoolSearcher):
    """Network and linear head trained anew for every batch; the `batch` points of largest expected improvement.

    `mended`: standard deviation, incumbent = best value told, only points that may still be asked are ranked.
    Otherwise as released: the variance stands where the standard deviation belongs, the incumbent is fixed, and the
    batch comes from the 2 `batch` best points of the whole pool, visited ones included. Where all of these were
    visited, the release trains again without end; here it does so 20 times and then takes the best that are left.

    Neither mode makes the points of a batch differ, or models pending points: these are only not asked again.

    Args:
        mended: see above.
        batch: points per ask.
        initial: random points of the first batch.
        incumbent: when not mended; the release has 0.9, 0.7 for 8-qubit fidelity, 0.85 for 8-qubit VQE.
        hidden, epochs, lr: of the network; its mini-batches hold 10.

    Raises:
        QasError: an option out of its range.
    """

    name: ClassVar[str] = "dngo"
    about: ClassVar[str] = "network basis with a Bayesian linear head, expected improvement (QAS-URL)"

    def __init__(
        self,
        points: ArrayLike,
        rng: np.random.Generator,
        *,
        mended: bool = True,
        batch: int = 5,
        initial: int = 16,
        incumbent: float = 0.9,
        hidden: int = 128,
        epochs: int = 100,
        lr: float = 0.01,
    ) -> None:
        super().__init__(points, rng)
        if not (math.isfinite(incumbent) and lr > 0):
            raise QasError(f"incumbent is finite and lr positive, got {incumbent!r} and {lr!r}")
        self.mended, self.incumbent, self.lr = bool(mended), float(incumbent), float(lr)
        self.batch, self.initial = whole_number("batch", batch), whole_number("initial", initial)
        self.hidden, self.epochs = whole_number("hidden", hidden), whole_number("epochs", epochs)

    def _choose(self) -> Indices:
        if self._n_seen < self.initial:
            return self._random_open(self.initial - self._n_seen)
        if len(self._told) < 2:
            return self._random_open(self.batch)
        if self.mended:
            return best_positions(np.where(self._open, self._scores(), -np.inf), min(self.batch, self.n_open))
        for _ in range(_RETRIES):
            scores = self._scores()
            best = best_positions(scores, 2 * self.batch)
            unvisited = best[self._open[best]][: self.batch]
            if unvisited.size:
                return unvisited
        return best_positions(np.where(self._open, scores, -np.inf), min(self.batch, self.n_open))

    def _scores(self) -> Array:
        """Expected improvement of every pool point (N,), or its logarithm when mended, from a model trained now."""
        told, values = self.told
        seen = self.points[told]
        centre, spread = seen.mean(axis=0), seen.std(axis=0)
        spread = np.where(spread > 1e-12, spread, 1.0)
        basis = Basis(
            ((seen - centre) / spread).astype(np.float32), values.astype(np.float32), self.rng,
            hidden=self.hidden, epochs=self.epochs, lr=self.lr,
        )  # fmt: skip
        head = LinearHead.fit(basis(((seen - centre) / spread).astype(np.float32)), values)
        mean, variance = np.empty(len(self)), np.empty(len(self))
        for start in range(0, len(self), _CHUNK):
            where = slice(start, start + _CHUNK)
            mean[where], variance[where] = head.predict(
                basis(((self.points[where] - centre) / spread).astype(np.float32))
            )
        if self.mended:
            return log_expected_improvement(mean, np.sqrt(variance), float(values.max()))
        u = (mean - self.incumbent) / variance
        return variance * (u * ndtr(u) + np.exp(-0.5 * u * u) / math.sqrt(2 * math.pi))
