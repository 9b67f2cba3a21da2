"""An exact Gaussian process on points: fit, predict, append, and a posterior over a whole pool.

The kernel is Matern-5/2 on standardised points with one length scale per dimension or one for all, of unit variance on
standardised outputs, as in BoTorch since 0.12 (Hvarfner, Hellsten, Nardi, ICML 2024). Hyper-parameters maximise the
marginal likelihood times the priors: length scale ~ LogNormal(sqrt 2 + log(d) / 2, sqrt 3), noise variance ~
LogNormal(-4, 1).

Cost. The posterior over 100,000 points after 1,000 observations would hold 400 MB, read again for every batch. Instead
`GaussianProcessSurrogate.candidates` points carry an incrementally updated posterior; which ones is decided by scoring
the whole pool in blocks, nothing kept (`pool_moments`), whenever the observations have grown enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lapack, solve_triangular
from scipy.optimize import minimize

from qas.agents.pool.acquisitions import log_expected_improvement
from qas.agents.pool.surrogates import Array, Choice, Observed, Positions, Posterior, Surrogate, standard_units
from qas.checks import finite_number, whole_number
from qas.errors import QasError

MIN_NOISE = 1e-4
"""variance on standardised outputs; BoTorch's floor, and what keeps repeated points and float32 safe"""
_LENGTH_BOUNDS = (2.5e-2, 1e4)
_NOISE_BOUNDS = (MIN_NOISE, 10.0)
_LENGTH_SIGMA = math.sqrt(3.0)
_NOISE_MU, _NOISE_SIGMA = -4.0, 1.0
_CHUNK = 512  # columns of one block of pool covariances: 1,000 rows of it in float32 are 2 MB
_ROWS = 128
_SAMPLES = 32  # of pending values
_CONDITIONED = 256  # observations that narrow the standard deviation while the whole pool is scored
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
Points = NDArray[np.floating]


# ---------------------------------------------------------------------- kernel
def _matern_in_place(squared: Points) -> Points:
    """(1 + s + s^2 / 3) exp(-s) from s^2 = 5 r^2, over its own argument."""
    np.maximum(squared, 0.0, out=squared)
    s = np.sqrt(squared)
    squared /= 3.0
    squared += s
    squared += 1.0
    np.negative(s, out=s)
    np.exp(s, out=s)
    squared *= s
    return squared


def _left(z: Points) -> Points:
    """Factor whose product with `_right` holds squared distances: one matrix product instead of three passes."""
    return np.concatenate([z, np.einsum("ij,ij->i", z, z)[:, None], np.ones((len(z), 1), z.dtype)], axis=1)


def _right(z: Points) -> Points:
    return np.concatenate([-2 * z, np.ones((len(z), 1), z.dtype), np.einsum("ij,ij->i", z, z)[:, None]], axis=1)


@dataclass(frozen=True)
class Kernel:
    """Matern-5/2 with its hyper-parameters; `theta`: log length scales (d or 1), then log noise variance."""

    theta: Array
    dimensions: int

    @property
    def lengths(self) -> Array:
        """Length scales on standardised points: (d,), or (1,)."""
        return np.exp(self.theta[:-1])

    @property
    def noise(self) -> float:
        """Noise variance on standardised outputs."""
        return float(np.exp(self.theta[-1]))

    def scaled(self, x: Points) -> Points:
        """Points in units of length / sqrt 5."""
        factor = np.sqrt(5.0) / np.broadcast_to(self.lengths, (self.dimensions,))
        return x * factor.astype(x.dtype)

    def __call__(self, a: Points, b: Points) -> Points:
        """Covariances (len(a), len(b)) in the precision of the inputs."""
        return _matern_in_place(_left(self.scaled(a)) @ _right(self.scaled(b)).T)


def start_parameters(dimensions: int, ard: bool, length: float = 0.5) -> Array:
    """Parameters to start a fit from: length scales `length` * sqrt(d), noise at the mode of its prior."""
    lengths = np.full(dimensions if ard else 1, math.log(length) + 0.5 * math.log(dimensions))
    return np.append(lengths, _NOISE_MU - _NOISE_SIGMA**2)


def log_posterior(theta: Array, x: Array, y: Array) -> tuple[float, Array]:
    """Log marginal likelihood plus log priors, and its gradient by theta.

    Args:
        theta: as in `Kernel`.
        x: (n, d) standardised points, float64.
        y: (n,) standardised outputs.

    Returns:
        (-inf, zeros) where the covariance is not positive definite. The priors are densities of the length scales and
        the noise themselves, as in BoTorch, not of their logarithms.
    """
    n, d = x.shape
    kernel, lengths = Kernel(theta, d), len(theta) - 1
    z = kernel.scaled(x)
    s = np.sqrt(np.maximum(_left(z) @ _right(z).T, 0.0))
    np.fill_diagonal(s, 0.0)
    decay = np.exp(-s)
    slope = (1.0 + s) * decay / 3.0  # -2 dk/d(s^2)
    covariance = slope * 3.0 + (s * s) * decay / 3.0
    covariance.flat[:: n + 1] += kernel.noise
    factor, info = lapack.dpotrf(covariance, lower=1)
    if info != 0:
        return -np.inf, np.zeros_like(theta)
    alpha = lapack.dpotrs(factor, y, lower=1)[0]
    value = -0.5 * float(y @ alpha) - float(np.log(np.diag(factor)).sum()) - n * _LOG_SQRT_2PI
    inverse = lapack.dpotri(factor, lower=1)[0]
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weight = np.outer(alpha, alpha) - inverse  # 2 dL/dK
    m = weight * slope
    # sum_ij m_ij (z_i - z_j)^2 per dimension; halved, as dk/dlog(length) = slope * (its part of s^2)
    by_dimension = (z * z * m.sum(axis=1)[:, None]).sum(axis=0) - (z * (m @ z)).sum(axis=0)
    gradient = np.append(by_dimension if lengths == d else by_dimension.sum(), 0.5 * kernel.noise * np.trace(weight))
    mu = np.full(lengths + 1, math.sqrt(2.0) + 0.5 * math.log(d))
    sigma = np.full(lengths + 1, _LENGTH_SIGMA)
    mu[-1], sigma[-1] = _NOISE_MU, _NOISE_SIGMA
    value += float((-theta - 0.5 * ((theta - mu) / sigma) ** 2 - np.log(sigma) - _LOG_SQRT_2PI).sum())
    gradient += -1.0 - (theta - mu) / sigma**2
    return value, gradient


def fit_parameters(
    x: Array, y: Array, *, ard: bool = True, warm: Array | None = None, max_iterations: int = 60
) -> Array:
    """Maximise `log_posterior` by L-BFGS from the best of three isotropic starts, or of `warm` and one of them."""
    d = x.shape[1]
    lengths = (0.2, 0.6, 1.5) if warm is None else (0.6,)
    starts = ([] if warm is None else [warm]) + [start_parameters(d, ard, length) for length in lengths]
    bounds = [tuple(np.log(_LENGTH_BOUNDS))] * (len(starts[0]) - 1) + [tuple(np.log(_NOISE_BOUNDS))]

    def negative(theta: Array) -> tuple[float, Array]:
        value, gradient = log_posterior(theta, x, y)
        return (-value, -gradient) if np.isfinite(value) else (1e25, np.zeros_like(theta))

    start = min(starts, key=lambda t: negative(t)[0])
    options = {"maxiter": max_iterations, "maxcor": 12, "ftol": 1e-7, "gtol": 1e-3}
    return minimize(negative, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x


# ---------------------------------------------------------------------- the process
class GaussianProcess:
    """An exact Gaussian process: fit, predict, append observations.

    Points are standardised per dimension (by the data, or by `centre` and `scale`), outputs as a whole; both stay as
    they were at the last `fit`, so that appended observations need no new fit.

    Args:
        ard: one length scale per dimension instead of one for all.
        centre, scale: (d,) of the points; from the data when not given.
    """

    def __init__(self, *, ard: bool = True, centre: ArrayLike | None = None, scale: ArrayLike | None = None) -> None:
        self.ard = bool(ard)
        self.centre = None if centre is None else np.asarray(centre, float)
        self.scale = None if scale is None else np.asarray(scale, float)
        self.kernel: Kernel | None = None
        self.y_mean, self.y_std = 0.0, 1.0
        self._forget()

    def _forget(self) -> None:
        self.x = np.empty((0, 0))  # standardised
        self.y = np.empty(0)  # standardised
        self.factor = np.empty((0, 0))  # lower Cholesky factor of K + noise, leading block of a larger buffer
        self.weights = np.empty(0)  # factor^-1 y
        self._buffer = np.empty((0, 0))

    def __len__(self) -> int:
        return len(self.y)

    # ------------------------------------------------------------------ fitting
    def fit(self, x: ArrayLike, y: ArrayLike, *, max_iterations: int = 60) -> GaussianProcess:
        """Take over observations and find hyper-parameters, from those of the last fit if there was one.

        Args:
            x: (n, d), n at least 1.
            y: (n,), any unit.
            max_iterations: of L-BFGS.

        Raises:
            QasError: wrong shapes or values that are not finite.
        """
        data, target = self._take_units(x, y)
        warm = None if self.kernel is None else self.kernel.theta
        theta = fit_parameters(data, target, ard=self.ard, warm=warm, max_iterations=max_iterations)
        return self._set(theta, data, target)

    def set(self, theta: ArrayLike, x: ArrayLike, y: ArrayLike) -> GaussianProcess:
        """Take over observations as `fit` does, with hyper-parameters that are known."""
        return self._set(theta, *self._take_units(x, y))

    def _set(self, theta: ArrayLike, data: Array, target: Array) -> GaussianProcess:
        self.kernel = Kernel(np.asarray(theta, float), data.shape[1])
        self._forget()
        self._extend(data, target)
        return self

    def append(self, x: ArrayLike, y: ArrayLike) -> None:
        """Condition on more observations at the same hyper-parameters: O(n^2) for each instead of O(n^3)."""
        self._extend(self.inputs(x), (np.atleast_1d(np.asarray(y, float)) - self.y_mean) / self.y_std)

    def condition(self, x: Array, y: Array) -> GaussianProcess:
        """A copy that has these standardised observations too; this one is unchanged."""
        other = GaussianProcess(ard=self.ard, centre=self.centre, scale=self.scale)
        other.kernel, other.y_mean, other.y_std = self.kernel, self.y_mean, self.y_std
        other.x, other.y, other.weights = self.x, self.y, self.weights
        other.factor = other._buffer = self.factor.copy()
        other._extend(x, y)
        return other

    def inputs(self, x: ArrayLike) -> Array:
        """Points (n, d) as the kernel reads them.

        Raises:
            QasError: wrong shapes, or values that are not finite.
        """
        rows = np.atleast_2d(np.asarray(x, float))
        if rows.ndim != 2 or not np.isfinite(rows).all():
            raise QasError(f"points form a finite array (n, d), got shape {rows.shape}")
        return rows if self.centre is None or self.scale is None else (rows - self.centre) / self.scale

    def _take_units(self, points: ArrayLike, values: ArrayLike) -> tuple[Array, Array]:
        """Standardised observations; their units are kept, those of the points unless the constructor got them."""
        x, y = np.asarray(points, float), np.asarray(values, float)
        if x.ndim != 2 or y.shape != (len(x),) or len(y) < 1:
            raise QasError(f"a fit needs points (n, d) and n values, got {x.shape} and {y.shape}")
        if not np.isfinite(y).all():
            raise QasError("values of a fit are finite numbers")
        if self.centre is None or self.scale is None:
            self.centre, self.scale = standard_units(x)
        self.y_mean, spread = float(y.mean()), float(y.std(ddof=1)) if len(y) > 1 else 0.0
        self.y_std = spread if spread > 1e-12 * max(1.0, abs(self.y_mean)) else 1.0
        return self.inputs(x), (y - self.y_mean) / self.y_std

    def _extend(self, x: Array, y: Array) -> None:
        assert self.kernel is not None, "fit first"
        n, b = len(self.y), len(y)
        block = self.kernel(x, x)
        block.flat[:: b + 1] = 1.0 + self.kernel.noise
        self._grow(n + b)
        if n:
            across = solve_triangular(self.factor, self.kernel(self.x, x), lower=True, check_finite=False)
            self._buffer[n : n + b, :n] = across.T
            block -= across.T @ across
        corner = np.linalg.cholesky(block)
        self._buffer[n : n + b, n : n + b] = corner
        rest = y - self._buffer[n : n + b, :n] @ self.weights
        new = solve_triangular(corner, rest, lower=True, check_finite=False)
        self.factor = self._buffer[: n + b, : n + b]
        self.weights = np.concatenate([self.weights, new])
        self.x, self.y = np.concatenate([self.x, x]) if n else x, np.concatenate([self.y, y])

    def _grow(self, size: int) -> None:
        if len(self._buffer) >= size:
            return
        n = len(self.y)
        larger = np.zeros((max(size, int(1.3 * len(self._buffer))),) * 2)
        larger[:n, :n] = self.factor
        self._buffer = larger
        self.factor = larger[:n, :n]

    # ------------------------------------------------------------------ predicting
    def predict(self, x: ArrayLike) -> tuple[Array, Array]:
        """Mean (m,) and standard deviation (m,) of the noise-free value at points (m, d), in the unit of y."""
        mean, std = self.standard(self.inputs(x))
        return mean * self.y_std + self.y_mean, std * self.y_std

    def standard(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at standardised points, in standardised output."""
        mean, v = self._project(x)
        return mean, np.sqrt(np.maximum(1.0 - np.einsum("ij,ij->j", v, v), 0.0))

    def joint(self, x: Array) -> tuple[Array, Array]:
        """Mean (m,) and covariance (m, m) at standardised points, in standardised output."""
        mean, v = self._project(x)
        assert self.kernel is not None
        covariance = self.kernel(x, x) - v.T @ v
        return mean, 0.5 * (covariance + covariance.T)

    def _project(self, x: Array) -> tuple[Array, Array]:
        if self.kernel is None:
            raise QasError("a Gaussian process predicts after a fit")
        v = solve_triangular(self.factor, self.kernel(self.x, x), lower=True, check_finite=False)
        return v.T @ self.weights, v


def safe_cholesky(covariance: Array) -> Array:
    """Lower factor of a positive semi-definite matrix, with as little added to the diagonal as it takes."""
    size = max(float(np.mean(np.diag(covariance))), 1e-300)
    for jitter in (0.0, 1e-10, 1e-8, 1e-6, 1e-4):
        factor, info = lapack.dpotrf(covariance + jitter * size * np.eye(len(covariance)), lower=1)
        if info == 0:
            return np.tril(factor)
    return np.diag(np.sqrt(np.maximum(np.diag(covariance), 0.0)))


# ---------------------------------------------------------------------- posterior over many points
def pool_moments(process: GaussianProcess, pool: Points, *, most: int | None = None) -> tuple[Array, Array]:
    """Posterior mean and standard deviation (N,) of a pool in standardised output, in blocks and float32.

    Nothing of size n x N is kept: 100,000 points cost the memory of `_CHUNK` of them.

    Args:
        process: the model.
        pool: standardised points, float32.
        most: condition the standard deviation on at most so many observations, one half the best, the other spread
            evenly over the order told; it is then an upper bound. The mean is exact. Exact throughout when None.
    """
    assert process.kernel is not None
    n = len(process)
    mean, variance = np.empty(len(pool)), np.empty(len(pool))
    part = np.arange(n) if most is None or n <= most else _telling(process.y, most)
    alpha = solve_triangular(process.factor, process.weights, lower=True, trans=1, check_finite=False).astype(
        np.float32
    )
    factor: Points = process.factor
    if len(part) < n:
        gram = process.kernel(process.x[part], process.x[part])
        gram.flat[:: len(part) + 1] = 1.0 + process.kernel.noise
        factor = np.linalg.cholesky(gram)
    inverse, data = _inverse(factor), process.x.astype(np.float32)
    for start in range(0, len(pool), _CHUNK):
        where = slice(start, min(start + _CHUNK, len(pool)))
        k = process.kernel(data, pool[where])
        mean[where] = alpha @ k
        v = _times(inverse, k if len(part) == n else k[part])
        variance[where] = 1.0 - np.einsum("ij,ij->j", v, v)
    return mean, np.sqrt(np.maximum(variance, 1e-8))


def _telling(y: Array, count: int) -> Positions:
    best = np.argsort(-y, kind="stable")[: count // 2]
    return np.union1d(best, np.linspace(0, len(y) - 1, count - count // 2).astype(np.intp))


def _inverse(factor: Points) -> NDArray[np.float32]:
    # Made in float64, it turns triangular solves into matrix products: several times as fast in SciPy 1.17.
    return lapack.dtrtri(factor, lower=1)[0].astype(np.float32, order="C")


def _times(inverse: NDArray[np.float32], k: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lower triangular matrix (n, n) times (n, m), without the zeros above the blocks of the diagonal."""
    v = np.empty_like(k)
    for top in range(0, len(k), _ROWS):
        end = min(top + _ROWS, len(k))
        np.matmul(inverse[top:end, :end], k[:end], out=v[top:end])
    return v


def _projected(process: GaussianProcess, pool: Points) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Blocks of factor^-1 K(X, pool) in float32."""
    assert process.kernel is not None
    data, inverse = process.x.astype(np.float32), _inverse(process.factor)
    for start in range(0, len(pool), _CHUNK):
        where = slice(start, min(start + _CHUNK, len(pool)))
        yield where, _times(inverse, process.kernel(data, pool[where]))


class PoolPosterior(Posterior):
    """Posterior of a Gaussian process over m points, kept up to date as observations are appended.

    Holds V = factor^-1 K(X, points) in float32 (4 n m bytes); a new observation appends one row. Means and variances
    are summed in float64.

    Args:
        process: the process; `append` it first, then call `update`.
        points: standardised points (m, d).
    """

    def __init__(self, process: GaussianProcess, points: Points) -> None:
        self.process = process
        self.points = points.astype(np.float32, copy=False)
        n, m = len(process), len(points)
        self._v = np.empty((n + 64, m), dtype=np.float32)
        self.mean, self.variance = np.empty(m), np.empty(m)
        self._n = n
        weights = process.weights.astype(np.float32)
        for where, v in _projected(process, self.points):
            self._v[:n, where] = v
            self.mean[where] = weights @ v
            self.variance[where] = 1.0 - np.einsum("ij,ij->j", v, v)

    @property
    def std(self) -> Array:  # type: ignore[override]
        return np.sqrt(np.maximum(self.variance, 1e-8))

    def update(self) -> None:
        """Take over the observations appended to the process since the last call."""
        process, n, total = self.process, self._n, len(self.process)
        if total == n:
            return
        assert process.kernel is not None
        if total > len(self._v):
            larger = np.empty((max(total, n + n // 4 + 64), self._v.shape[1]), dtype=np.float32)
            larger[:n] = self._v[:n]
            self._v = larger
        rows = process.kernel(process.x[n:total].astype(np.float32), self.points)
        rows -= process.factor[n:total, :n].astype(np.float32) @ self._v[:n]
        corner = process.factor[n:total, n:total].astype(np.float32)
        rows = solve_triangular(corner, rows, lower=True, check_finite=False)
        self._v[n:total] = rows
        self.mean += process.weights[n:total] @ rows
        self.variance -= np.einsum("ij,ij->j", rows, rows)
        self._n = total

    def outside(self, points: Array, subset: Positions) -> tuple[Array, Array, Array]:
        """Posterior of p other points: means (p,), covariance (p, p), covariances with a subset (p, len(subset))."""
        process = self.process
        assert process.kernel is not None
        v = solve_triangular(process.factor, process.kernel(process.x, points), lower=True, check_finite=False)
        across = process.kernel(points.astype(np.float32), self.points[subset])
        across -= v.T.astype(np.float32) @ self.columns(subset)
        return v.T @ process.weights, process.kernel(points, points) - v.T @ v, across.astype(np.float64)

    def columns(self, subset: Positions) -> NDArray[np.float32]:
        """V (n, len(subset)) of a subset of the points."""
        return self._v[: self._n, subset]

    def joint_covariance(self, subset: Positions) -> Array:
        """Posterior covariance of a subset of the points."""
        assert self.process.kernel is not None
        rows, exact = self.columns(subset).astype(np.float64), self.points[subset].astype(np.float64)
        covariance = self.process.kernel(exact, exact) - rows.T @ rows
        return 0.5 * (covariance + covariance.T)

    def sample(self, where: Positions, count: int, rng: np.random.Generator) -> Array:
        factor = safe_cholesky(self.joint_covariance(where))
        return self.mean[where] + rng.standard_normal((count, len(where))) @ factor.T

    def improve(self, short: Positions, among: Choice, samples: int | None) -> Positions:
        samples = samples or _SAMPLES
        half = among.rng.standard_normal(((samples + 1) // 2, len(among.pending) + among.count))
        draws = np.concatenate([half, -half])[:samples]
        pending = self.process.inputs(among.pending) if len(among.pending) else np.empty((0, self.points.shape[1]))
        greedy = GreedyImprovement(self, short, among.target, draws, pending)
        return np.array(greedy.pick(among.count), dtype=np.intp)


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
        pending: (p, d), the pending points, standardised.
    """

    def __init__(self, posterior: PoolPosterior, short: Positions, best: float, draws: Array, pending: Array) -> None:
        self.posterior = posterior
        self.short = short
        self.points = posterior.points[short]
        self.rows = posterior.columns(short)
        self.mean = posterior.mean[short][None, :]  # (1 or S, C)
        self.variance = posterior.variance[short].copy()
        self.best = np.full(1, best)
        self.draws = draws
        self.used = 0
        # Conditioning directions: the covariance given the fantasies is less by their product.
        self.basis = np.empty((0, len(short)))
        self.taken = np.zeros(len(short), dtype=bool)
        if len(pending):
            self._fantasise(pending)

    def _fantasise(self, pending: Array) -> None:
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
        row = kernel(self.points[[j]], self.points)[0].astype(np.float64)
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


class NewPosterior(Posterior):
    """Posterior over points of a moment, in float64; a batch is built by taking each pick at its expected value."""

    def __init__(self, process: GaussianProcess, points: ArrayLike) -> None:
        self.process, self.points = process, process.inputs(points)
        self.mean, std = process.standard(self.points)
        self.std = np.maximum(std, 1e-9)

    def sample(self, where: Positions, count: int, rng: np.random.Generator) -> Array:
        mean, covariance = self.process.joint(self.points[where])
        return mean + rng.standard_normal((count, len(where))) @ safe_cholesky(covariance).T

    def improve(self, short: Positions, among: Choice, samples: int | None) -> Positions:
        process, x, best = self.process, self.points[short], among.target
        mean, std = self.mean[short], self.std[short]
        chosen: list[int] = []
        while len(chosen) < min(among.count, len(short)):
            scores = log_expected_improvement(mean, std, best)
            scores[chosen] = -np.inf
            pick = int(scores.argmax())
            chosen.append(pick)
            best = max(best, float(mean[pick]))
            process = process.condition(x[pick : pick + 1], mean[pick : pick + 1])
            mean, std = process.standard(x)
            std = np.maximum(std, 1e-9)
        return short[chosen]


# ---------------------------------------------------------------------- as a surrogate
class GaussianProcessSurrogate(Surrogate):
    """Exact Gaussian process, Matern-5/2; its hyper-parameters are fitted now and then, in between it is extended.

    Args:
        ard: a length scale per dimension instead of one for all.
        refit_growth: growth of the observations after which hyper-parameters are fitted anew, above 1; default 1.25 on
            a pool and 1.2 beyond it, where every fit also takes more iterations.
        candidates: points of a larger pool that carry a posterior between two scorings of the whole pool.
        candidates_growth: growth of the observations after which they are chosen anew, above 1.

    Raises:
        QasError: an option out of its range.
    """

    about = "exact Gaussian process, Matern-5/2"

    def __init__(
        self,
        *,
        ard: bool = True,
        refit_growth: float | None = None,
        candidates: int = 20_000,
        candidates_growth: float = 1.15,
    ) -> None:
        self.ard = bool(ard)
        self.refit_growth = None if refit_growth is None else finite_number("refit_growth", refit_growth, above=1)
        self.candidates: int | None = whole_number("candidates", candidates)
        self.candidates_growth = finite_number("candidates_growth", candidates_growth, above=1)

    def prepare(self, points: ArrayLike) -> None:
        self._centre, self._scale = standard_units(np.asarray(points))
        self._process: GaussianProcess | None = None
        self._kept: PoolPosterior | None = None
        self._n_fit = 0  # observations at the last fit of hyper-parameters
        self._blocks: list[int] = []  # observations after each addition since

    @property
    def process(self) -> GaussianProcess:
        assert self._process is not None, "learn first"
        return self._process

    def _new(self) -> GaussianProcess:
        return GaussianProcess(ard=self.ard, centre=self._centre, scale=self._scale)

    def standard(self, value: float) -> float:
        return (value - self.process.y_mean) / self.process.y_std

    def learn(self, points: Observed, values: Array, rng: np.random.Generator, *, thorough: bool = False) -> bool:
        n, growth = len(values), self.refit_growth or (1.2 if thorough else 1.25)
        if self._process is not None and n < growth * self._n_fit:
            if n > len(self._process):
                self._append(points, values, n)
            return False
        self._process = self._process or self._new()
        self._process.fit(points[:n], values, max_iterations=60 if thorough or self._n_fit == 0 else 10)
        self._n_fit, self._blocks, self._kept = n, [], None
        return True

    def _append(self, points: Observed, values: Array, end: int) -> None:
        new = slice(len(self.process), end)
        self.process.append(points[new], values[new])
        self._blocks.append(end)
        if self._kept is not None:
            self._kept.update()

    def moments(self, points: Points) -> tuple[Array, Array]:
        return pool_moments(self.process, self._single(points), most=_CONDITIONED)

    def posterior(self, points: Points) -> Posterior:
        self._kept = PoolPosterior(self.process, self._single(points))
        return self._kept

    def posterior_once(self, points: Points) -> Posterior:
        return NewPosterior(self.process, points)

    def _single(self, points: Points) -> NDArray[np.float32]:
        return ((points - self._centre) / self._scale).astype(np.float32)

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        fitted = self._process is not None and self._process.kernel is not None
        return {"n_fit": self._n_fit, "blocks": list(self._blocks)}, {"theta": self._theta} if fitted else {}

    @property
    def _theta(self) -> Array:
        kernel = self.process.kernel
        assert kernel is not None
        return kernel.theta.copy()

    def restore(
        self,
        state: dict[str, Any],
        arrays: dict[str, np.ndarray],
        points: Observed,
        values: Array,
        after: Callable[[int], None],
    ) -> None:
        if "theta" not in arrays:
            return
        # The same products in the same order as in the unbroken run: sums then agree to the last bit.
        self._n_fit = int(state["n_fit"])
        self._process = self._new().set(arrays["theta"], points[: self._n_fit], values[: self._n_fit])
        for end in chain([self._n_fit], map(int, state["blocks"])):
            if end > len(self._process):
                self._append(points, values, end)
            after(end)
