"""Gaussian processes on embeddings and on count fingerprints: fit, predict, append, and a posterior over a whole pool.

Kernels have unit variance on standardised outputs, as in BoTorch since 0.12 (Hvarfner, Hellsten, Nardi, ICML 2024):

* `matern`: Matern-5/2 on standardised embeddings, one length scale per dimension or one for all;
* `fingerprint`: Tanimoto <a, b> / (<a, a> + <b, b> - <a, b>) on non-negative counts (positive definite; no parameters);
* `sum`: s * matern + (1 - s) * fingerprint, s learned.

Hyper-parameters maximise the marginal likelihood times the priors: length scale ~ LogNormal(sqrt 2 + log(d) / 2,
sqrt 3), noise variance ~ LogNormal(-4, 1), logit(s) ~ N(0, 1.5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lapack, solve_triangular
from scipy.optimize import minimize
from scipy.special import erfcx, expit, log_ndtr, ndtr

from qas.errors import QasError

Array = NDArray[np.float64]

KERNELS = ("matern", "fingerprint", "sum")
MIN_NOISE = 1e-4
"""variance on standardised outputs; BoTorch's floor, and what keeps repeated points and float32 safe"""
_LENGTH_BOUNDS = (2.5e-2, 1e4)
_NOISE_BOUNDS = (MIN_NOISE, 10.0)
_LENGTH_SIGMA = math.sqrt(3.0)
_NOISE_MU, _NOISE_SIGMA = -4.0, 1.0
_MIX_SIGMA = 1.5
_CHUNK = 512  # columns of one block of pool covariances: 1,000 rows of it in float32 are 2 MB
_ROWS = 128
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


# ---------------------------------------------------------------------- closed forms of one Gaussian
def log_expected_improvement(mean: ArrayLike, std: ArrayLike, best: ArrayLike) -> Array:
    """log E[max(f - best, 0)] for f ~ N(mean, std^2), accurate in the far tails; shapes broadcast.

    Where std is 0 it is log(mean - best), or -inf. Below -1 standard deviations phi + u Phi is phi times a factor that
    erfcx gives without cancellation, below -50 its asymptotic series (Ament et al., NeurIPS 2023, appendix).
    """
    mean, std, best = np.broadcast_arrays(np.asarray(mean, float), np.asarray(std, float), np.asarray(best, float))
    gain = mean - best
    with np.errstate(divide="ignore", invalid="ignore"):
        u = gain / std
        result = np.log(std) + _log_h(u)
        sure = np.log(np.maximum(gain, 0.0))
    return np.where(std > 0, result, sure)


def _log_h(u: Array) -> Array:
    """log(phi(u) + u Phi(u))."""
    out = np.empty(u.shape)
    high = u > -1.0
    x = u[high]
    out[high] = np.log(np.exp(-0.5 * x * x - _LOG_SQRT_2PI) + x * ndtr(x))
    x = np.abs(u[~high])
    square = x * x
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        near = np.log(np.maximum(1.0 - math.sqrt(math.pi / 2) * x * erfcx(x / math.sqrt(2)), 1e-300))
        far = -2.0 * np.log(x) + np.log1p((-3.0 + (15.0 - 105.0 / square) / square) / square)
    out[~high] = -0.5 * square - _LOG_SQRT_2PI + np.where(x < 50.0, near, far)
    return out


def log_probability_above(mean: ArrayLike, std: ArrayLike, threshold: float) -> Array:
    """log P(f >= threshold) for f ~ N(mean, std^2); 0 or -inf where std is 0."""
    mean, std = np.broadcast_arrays(np.asarray(mean, float), np.asarray(std, float))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(std > 0, log_ndtr((mean - threshold) / std), np.where(mean >= threshold, 0.0, -np.inf))


# ---------------------------------------------------------------------- kernels
@dataclass(frozen=True)
class Inputs:
    """Rows of one data set: standardised embeddings (n, d), and counts (n, F) if the kernel reads them."""

    x: NDArray[np.floating]
    counts: NDArray[np.floating] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Any) -> Inputs:
        return Inputs(self.x[rows], None if self.counts is None else self.counts[rows])


def _matern_in_place(squared: NDArray[np.floating]) -> NDArray[np.floating]:
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


def _tanimoto(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Similarities (n, m); two rows without any count are alike."""
    inner = a @ b.T
    rest = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b)
    rest -= inner
    empty = rest <= 0
    rest[empty] = 1.0
    inner /= rest
    inner[empty] = 1.0
    return inner


def _left(z: NDArray[np.floating]) -> NDArray[np.floating]:
    """Factor whose product with `_right` holds squared distances: one matrix product instead of three passes."""
    return np.concatenate([z, np.einsum("ij,ij->i", z, z)[:, None], np.ones((len(z), 1), z.dtype)], axis=1)


def _right(z: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.concatenate([-2 * z, np.ones((len(z), 1), z.dtype), np.einsum("ij,ij->i", z, z)[:, None]], axis=1)


@dataclass(frozen=True)
class Kernel:
    """A kernel with its hyper-parameters; `theta`: log length scales, log noise variance, and for `sum` logit(s)."""

    kind: str
    theta: Array
    dimensions: int

    @property
    def lengths(self) -> Array:
        """Length scales on standardised embeddings: (d,), or (1,)."""
        return np.exp(self.theta[: self._n_lengths])

    @property
    def noise(self) -> float:
        """Noise variance on standardised outputs."""
        return float(np.exp(self.theta[self._n_lengths]))

    @property
    def share(self) -> float:
        """Share of the Matern kernel in the sum."""
        return {"matern": 1.0, "fingerprint": 0.0}.get(self.kind, float(expit(self.theta[-1])))

    @property
    def _n_lengths(self) -> int:
        return len(self.theta) - (2 if self.kind == "sum" else 1)

    def scaled(self, x: NDArray[np.floating]) -> NDArray[np.floating]:
        """Embeddings in units of length / sqrt 5."""
        factor = np.sqrt(5.0) / np.broadcast_to(self.lengths, (self.dimensions,))
        return x * factor.astype(x.dtype)

    def __call__(self, a: Inputs, b: Inputs) -> NDArray[np.floating]:
        """Covariances (len(a), len(b)) in the precision of the inputs."""
        parts = []
        if self.kind != "fingerprint":
            parts.append((self.share, _matern_in_place(_left(self.scaled(a.x)) @ _right(self.scaled(b.x)).T)))
        if self.kind != "matern":
            assert a.counts is not None and b.counts is not None
            parts.append((1.0 - self.share, _tanimoto(a.counts, b.counts)))
        if len(parts) == 1:
            return parts[0][1]
        for weight, part in parts:
            part *= weight
        return parts[0][1] + parts[1][1]


def start_parameters(kind: str, dimensions: int, ard: bool, length: float = 0.5) -> Array:
    """Parameters to start a fit from: length scales `length` * sqrt(d), noise at the mode of its prior, s = 1/2."""
    n = 0 if kind == "fingerprint" else dimensions if ard else 1
    lengths = np.full(n, math.log(length) + 0.5 * math.log(dimensions))
    tail = [_NOISE_MU - _NOISE_SIGMA**2] + ([0.0] if kind == "sum" else [])
    return np.concatenate([lengths, tail])


def log_posterior(kind: str, theta: Array, data: Inputs, y: Array) -> tuple[float, Array]:
    """Log marginal likelihood plus log priors, and its gradient by theta.

    Args:
        kind: one of `KERNELS`.
        theta: as in `Kernel`.
        data: float64 standardised inputs, n rows.
        y: (n,) standardised outputs.

    Returns:
        (-inf, zeros) where the covariance is not positive definite. The priors are densities of the length scales and
        the noise themselves, as in BoTorch, not of their logarithms.
    """
    n, d = data.x.shape
    kernel = Kernel(kind, theta, d)
    lengths = kernel._n_lengths
    matern = decay = tanimoto = None
    if kind != "fingerprint":
        z = kernel.scaled(data.x)
        s = np.sqrt(np.maximum(_left(z) @ _right(z).T, 0.0))
        np.fill_diagonal(s, 0.0)
        decay = np.exp(-s)
        slope = (1.0 + s) * decay / 3.0  # -2 dk/d(s^2)
        matern = slope * 3.0 + (s * s) * decay / 3.0
    if kind != "matern":
        assert data.counts is not None
        tanimoto = _tanimoto(data.counts, data.counts)
    share = kernel.share
    covariance = np.zeros((n, n))
    if matern is not None:
        covariance += share * matern
    if tanimoto is not None:
        covariance += (1 - share) * tanimoto
    covariance.flat[:: n + 1] += kernel.noise
    factor, info = lapack.dpotrf(covariance, lower=1)
    if info != 0:
        return -np.inf, np.zeros_like(theta)
    alpha = lapack.dpotrs(factor, y, lower=1)[0]
    value = -0.5 * float(y @ alpha) - float(np.log(np.diag(factor)).sum()) - n * _LOG_SQRT_2PI
    inverse = lapack.dpotri(factor, lower=1)[0]
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weight = np.outer(alpha, alpha) - inverse  # 2 dL/dK
    gradient = np.zeros_like(theta)
    if matern is not None:
        m = weight * slope
        rows = m.sum(axis=1)
        # sum_ij m_ij (z_i - z_j)^2 per dimension; times share / 2, as dk/dlog(length) = slope * (its part of s^2)
        by_dimension = share * ((z * z * rows[:, None]).sum(axis=0) - (z * (m @ z)).sum(axis=0))
        gradient[:lengths] = by_dimension if lengths == d else by_dimension.sum()
    gradient[lengths] = 0.5 * kernel.noise * float(np.trace(weight))
    if matern is not None and tanimoto is not None:
        gradient[-1] = 0.5 * share * (1 - share) * float((weight * (matern - tanimoto)).sum())
        value -= 0.5 * (theta[-1] / _MIX_SIGMA) ** 2
        gradient[-1] -= theta[-1] / _MIX_SIGMA**2
    logs = theta[: lengths + 1]
    mu = np.full(lengths + 1, math.sqrt(2.0) + 0.5 * math.log(d))
    sigma = np.full(lengths + 1, _LENGTH_SIGMA)
    mu[-1], sigma[-1] = _NOISE_MU, _NOISE_SIGMA
    value += float((-logs - 0.5 * ((logs - mu) / sigma) ** 2 - np.log(sigma) - _LOG_SQRT_2PI).sum())
    gradient[: lengths + 1] += -1.0 - (logs - mu) / sigma**2
    return value, gradient


def fit_parameters(
    kind: str, data: Inputs, y: Array, *, ard: bool = True, warm: Array | None = None, max_iterations: int = 60
) -> Array:
    """Maximise `log_posterior` by L-BFGS from the best of three isotropic starts and `warm`."""
    d = data.x.shape[1]
    starts = [start_parameters(kind, d, ard, length) for length in (0.2, 0.6, 1.5)] if warm is None else [warm]
    if warm is not None:
        starts.append(start_parameters(kind, d, ard, 0.6))
    bounds = [tuple(np.log(_LENGTH_BOUNDS))] * (len(starts[0]) - (2 if kind == "sum" else 1))
    bounds += [tuple(np.log(_NOISE_BOUNDS))] + ([(-6.0, 6.0)] if kind == "sum" else [])

    def negative(theta: Array) -> tuple[float, Array]:
        value, gradient = log_posterior(kind, theta, data, y)
        return (-value, -gradient) if np.isfinite(value) else (1e25, np.zeros_like(theta))

    start = min(starts, key=lambda t: negative(t)[0])
    options = {"maxiter": max_iterations, "maxcor": 12, "ftol": 1e-7, "gtol": 1e-3}
    return minimize(negative, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x


# ---------------------------------------------------------------------- the process
class GaussianProcess:
    """An exact Gaussian process: fit, predict, append observations, sample.

    Embeddings are standardised per dimension (by the data, or by `centre` and `scale`), outputs as a whole; both stay
    as they were at the last `fit`, so that appended observations need no new fit.

    Args:
        kernel: one of `KERNELS`; `fingerprint` and `sum` need `counts` wherever points are given.
        ard: one length scale per dimension instead of one for all.
        centre, scale: (d,) of the embeddings; from the data when not given.

    Raises:
        QasError: unknown kernel.
    """

    def __init__(
        self,
        kernel: str = "matern",
        *,
        ard: bool = True,
        centre: ArrayLike | None = None,
        scale: ArrayLike | None = None,
    ) -> None:
        if kernel not in KERNELS:
            raise QasError(f"a kernel is one of {', '.join(KERNELS)}, got {kernel!r}")
        self.kind = kernel
        self.ard = bool(ard)
        self.centre = None if centre is None else np.asarray(centre, float)
        self.scale = None if scale is None else np.asarray(scale, float)
        self.kernel: Kernel | None = None
        self.y_mean, self.y_std = 0.0, 1.0
        self.data = Inputs(np.empty((0, 0)))
        self.y = np.empty(0)  # standardised
        self.factor = np.empty((0, 0))  # lower Cholesky factor of K + noise, leading block of a larger buffer
        self.weights = np.empty(0)  # factor^-1 y
        self._buffer = np.empty((0, 0))

    def __len__(self) -> int:
        return len(self.y)

    # ------------------------------------------------------------------ fitting
    def fit(
        self, x: ArrayLike, y: ArrayLike, counts: ArrayLike | None = None, *, max_iterations: int = 60
    ) -> GaussianProcess:
        """Take over observations and find hyper-parameters, from those of the last fit if there was one.

        Args:
            x: (n, d), n at least 1.
            y: (n,), any unit.
            counts: (n, F), non-negative.
            max_iterations: of L-BFGS.

        Raises:
            QasError: wrong shapes or values that are not finite.
        """
        y = np.asarray(y, float)
        self.take_units(np.asarray(x, float), y)
        data, target = self.inputs(x, counts), (y - self.y_mean) / self.y_std
        warm = None if self.kernel is None else self.kernel.theta
        theta = fit_parameters(self.kind, data, target, ard=self.ard, warm=warm, max_iterations=max_iterations)
        return self.set(theta, data, target)

    def set(self, theta: Array, data: Inputs, y: Array) -> GaussianProcess:
        """Take over hyper-parameters and standardised observations, and factorise anew."""
        self.kernel = Kernel(self.kind, np.asarray(theta, float), data.x.shape[1])
        self.data, self.y = data.take(slice(0, 0)), np.empty(0)
        self._buffer = np.empty((0, 0))
        self.factor, self.weights = np.empty((0, 0)), np.empty(0)
        self._extend(data, np.asarray(y, float))
        return self

    def append(self, x: ArrayLike, y: ArrayLike, counts: ArrayLike | None = None) -> None:
        """Condition on more observations at the same hyper-parameters: O(n^2) for each instead of O(n^3)."""
        self._extend(self.inputs(x, counts), (np.atleast_1d(np.asarray(y, float)) - self.y_mean) / self.y_std)

    def condition(self, x: ArrayLike, y: ArrayLike, counts: ArrayLike | None = None) -> GaussianProcess:
        """A copy that has these observations too; this one is unchanged."""
        other = GaussianProcess(self.kind, ard=self.ard, centre=self.centre, scale=self.scale)
        other.kernel, other.y_mean, other.y_std = self.kernel, self.y_mean, self.y_std
        other.data, other.y, other.weights = self.data, self.y, self.weights
        other._buffer = self.factor.copy()
        other.factor = other._buffer
        other.append(x, y, counts)
        return other

    def inputs(self, x: ArrayLike, counts: ArrayLike | None = None) -> Inputs:
        """Points as the kernel reads them.

        Raises:
            QasError: wrong shapes, or values that are not finite.
        """
        rows = np.atleast_2d(np.asarray(x, float))
        if rows.ndim != 2 or not np.isfinite(rows).all():
            raise QasError(f"points form a finite array (n, d), got shape {rows.shape}")
        if self.centre is not None and self.scale is not None:
            rows = (rows - self.centre) / self.scale
        if self.kind == "matern":
            return Inputs(rows)
        if counts is None:
            raise QasError(f"the kernel {self.kind} needs fingerprints, got none")
        table = np.atleast_2d(np.asarray(counts, float))
        if table.shape[0] != len(rows) or not np.isfinite(table).all() or (table < 0).any():
            raise QasError(f"fingerprints are non-negative counts, one row for each of {len(rows)} points")
        return Inputs(rows, table)

    def take_units(self, x: NDArray[np.floating], y: Array) -> None:
        """Units of `fit`: of the outputs, and of the embeddings unless given to the constructor."""
        if x.ndim != 2 or y.shape != (len(x),) or len(y) < 1:
            raise QasError(f"a fit needs points (n, d) and n values, got {x.shape} and {y.shape}")
        if not np.isfinite(y).all():
            raise QasError("values of a fit are finite numbers")
        if self.centre is None or self.scale is None:
            self.centre, self.scale = standard_units(x)
        self.y_mean, spread = float(y.mean()), float(y.std(ddof=1)) if len(y) > 1 else 0.0
        self.y_std = spread if spread > 1e-12 * max(1.0, abs(self.y_mean)) else 1.0

    def _extend(self, data: Inputs, y: Array) -> None:
        assert self.kernel is not None, "fit first"
        n, b = len(self.y), len(y)
        block = self.kernel(data, data)
        block.flat[:: b + 1] = 1.0 + self.kernel.noise
        self._grow(n + b)
        if n:
            across = solve_triangular(self.factor, self.kernel(self.data, data), lower=True, check_finite=False)
            self._buffer[n : n + b, :n] = across.T
            block -= across.T @ across
        corner = np.linalg.cholesky(block)
        self._buffer[n : n + b, n : n + b] = corner
        rest = y - self._buffer[n : n + b, :n] @ self.weights
        new = solve_triangular(corner, rest, lower=True, check_finite=False)
        self.factor = self._buffer[: n + b, : n + b]
        self.weights = np.concatenate([self.weights, new])
        counts = None if data.counts is None else data.counts
        if n:
            x = np.concatenate([self.data.x, data.x])
            data = Inputs(x, None if counts is None else np.concatenate([self.data.counts, counts]))  # type: ignore[list-item]
        self.data, self.y = data, np.concatenate([self.y, y])

    def _grow(self, size: int) -> None:
        if len(self._buffer) >= size:
            return
        n = len(self.y)
        larger = np.zeros((max(size, int(1.3 * len(self._buffer))),) * 2)
        larger[:n, :n] = self.factor
        self._buffer = larger
        self.factor = larger[:n, :n]

    # ------------------------------------------------------------------ predicting
    def predict(self, x: ArrayLike, counts: ArrayLike | None = None) -> tuple[Array, Array]:
        """Mean (m,) and standard deviation (m,) of the noise-free value at points (m, d), in the unit of y."""
        mean, v = self._project(self.inputs(x, counts))
        variance = np.maximum(1.0 - np.einsum("ij,ij->j", v, v), 0.0)
        return mean * self.y_std + self.y_mean, np.sqrt(variance) * self.y_std

    def joint(self, x: ArrayLike, counts: ArrayLike | None = None) -> tuple[Array, Array]:
        """Mean (m,) and covariance (m, m) of noise-free values at points (m, d), in the unit of y and its square."""
        data = self.inputs(x, counts)
        mean, v = self._project(data)
        assert self.kernel is not None
        covariance = self.kernel(data, data) - v.T @ v
        return mean * self.y_std + self.y_mean, 0.5 * (covariance + covariance.T) * self.y_std**2

    def sample(self, x: ArrayLike, n_samples: int, rng: np.random.Generator, counts: ArrayLike | None = None) -> Array:
        """Joint samples (n_samples, m) of the noise-free values at points (m, d); O(m^3)."""
        mean, covariance = self.joint(x, counts)
        return mean + rng.standard_normal((n_samples, len(mean))) @ safe_cholesky(covariance).T

    def _project(self, data: Inputs) -> tuple[Array, Array]:
        if self.kernel is None:
            raise QasError("a Gaussian process predicts after a fit")
        v = solve_triangular(self.factor, self.kernel(self.data, data), lower=True, check_finite=False)
        return v.T @ self.weights, v


def standard_units(x: NDArray[np.floating]) -> tuple[Array, Array]:
    """Mean and standard deviation (d,) of each column; 1 for a column that is constant."""
    centre = x.mean(axis=0, dtype=np.float64)
    spread = x.std(axis=0, dtype=np.float64)
    return centre, np.where(spread > 1e-9 * np.maximum(1.0, np.abs(centre)), spread, 1.0)


def safe_cholesky(covariance: Array) -> Array:
    """Lower factor of a positive semi-definite matrix, with as little added to the diagonal as it takes."""
    size = max(float(np.mean(np.diag(covariance))), 1e-300)
    for jitter in (0.0, 1e-10, 1e-8, 1e-6, 1e-4):
        factor, info = lapack.dpotrf(covariance + jitter * size * np.eye(len(covariance)), lower=1)
        if info == 0:
            return np.tril(factor)
    return np.diag(np.sqrt(np.maximum(np.diag(covariance), 0.0)))


# ---------------------------------------------------------------------- posterior over many points
def pool_moments(process: GaussianProcess, pool: Inputs, *, most: int | None = None) -> tuple[Array, Array]:
    """Posterior mean and standard deviation (N,) of a pool in standardised output, in blocks and float32.

    Nothing of size n x N is kept: 100,000 points cost the memory of `_CHUNK` of them.

    Args:
        process, pool: model and points.
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
    some = process.data.take(part)
    factor = process.factor
    if len(part) < n:
        gram = process.kernel(some, some)
        gram.flat[:: len(part) + 1] = 1.0 + process.kernel.noise
        factor = np.linalg.cholesky(gram)
    inverse = _inverse(factor)
    data = _single(process.data)
    for start in range(0, len(pool), _CHUNK):
        where = slice(start, min(start + _CHUNK, len(pool)))
        k = process.kernel(data, _single(pool.take(where)))
        mean[where] = alpha @ k
        v = _times(inverse, k if len(part) == n else k[part])
        variance[where] = 1.0 - np.einsum("ij,ij->j", v, v)
    return mean, np.sqrt(np.maximum(variance, 1e-8))


def _telling(y: Array, count: int) -> NDArray[np.intp]:
    best = np.argsort(-y, kind="stable")[: count // 2]
    return np.union1d(best, np.linspace(0, len(y) - 1, count - count // 2).astype(np.intp))


def _inverse(factor: Array) -> NDArray[np.float32]:
    # Made in float64, it turns triangular solves into matrix products: several times as fast in SciPy 1.17.
    return lapack.dtrtri(factor, lower=1)[0].astype(np.float32, order="C")


def _times(inverse: NDArray[np.float32], k: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lower triangular matrix (n, n) times (n, m), without the zeros above the blocks of the diagonal."""
    v = np.empty_like(k)
    for top in range(0, len(k), _ROWS):
        end = min(top + _ROWS, len(k))
        np.matmul(inverse[top:end, :end], k[:end], out=v[top:end])
    return v


def _projected(process: GaussianProcess, pool: Inputs) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Blocks of factor^-1 K(X, pool) in float32."""
    assert process.kernel is not None
    data, inverse = _single(process.data), _inverse(process.factor)
    for start in range(0, len(pool), _CHUNK):
        where = slice(start, min(start + _CHUNK, len(pool)))
        yield where, _times(inverse, process.kernel(data, _single(pool.take(where))))


def _single(data: Inputs) -> Inputs:
    counts = None if data.counts is None else data.counts.astype(np.float32, copy=False)
    return Inputs(data.x.astype(np.float32, copy=False), counts)


class PoolPosterior:
    """Posterior of a Gaussian process over m points, kept up to date as observations are appended.

    Holds V = factor^-1 K(X, points) in float32 (4 n m bytes); a new observation appends one row. Means and variances
    are summed in float64. Units: standardised output.

    Args:
        process: the process; `append` it first, then call `update`.
        points: the points.
    """

    def __init__(self, process: GaussianProcess, points: Inputs) -> None:
        self.process = process
        self.points = _single(points)
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
    def std(self) -> Array:
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
        rows = process.kernel(_single(process.data.take(slice(n, total))), self.points)
        rows -= process.factor[n:total, :n].astype(np.float32) @ self._v[:n]
        corner = process.factor[n:total, n:total].astype(np.float32)
        rows = solve_triangular(corner, rows, lower=True, check_finite=False)
        self._v[n:total] = rows
        self.mean += process.weights[n:total] @ rows
        self.variance -= np.einsum("ij,ij->j", rows, rows)
        self._n = total

    def outside(self, points: Inputs, subset: NDArray[np.intp]) -> tuple[Array, Array, Array]:
        """Posterior of p other points: means (p,), covariance (p, p), covariances with a subset (p, len(subset))."""
        process = self.process
        assert process.kernel is not None
        v = solve_triangular(process.factor, process.kernel(process.data, points), lower=True, check_finite=False)
        across = process.kernel(_single(points), self.points.take(subset)) - v.T.astype(np.float32) @ self.columns(
            subset
        )
        return v.T @ process.weights, process.kernel(points, points) - v.T @ v, across.astype(np.float64)

    def columns(self, subset: NDArray[np.intp]) -> NDArray[np.float32]:
        """V (n, len(subset)) of a subset of the points."""
        return self._v[: self._n, subset]

    def joint_covariance(self, subset: NDArray[np.intp]) -> Array:
        """Posterior covariance of a subset of the points."""
        assert self.process.kernel is not None
        rows, points = self.columns(subset).astype(np.float64), self.points.take(subset)
        counts = None if points.counts is None else points.counts.astype(np.float64)
        exact = Inputs(points.x.astype(np.float64), counts)
        covariance = self.process.kernel(exact, exact) - rows.T @ rows
        return 0.5 * (covariance + covariance.T)
