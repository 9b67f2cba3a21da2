"""DNGO: a small network as basis, Bayesian linear regression on it.

Deep networks for global optimization: Snoek et al., ICML 2015; sizes as in the search released with arXiv 2401.11576.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize
from torch import Tensor

from qas.agents.pool.surrogates import Array, Observed, Positions, Posterior, Surrogate, standard_units
from qas.checks import finite_number, whole_number

_BATCH = 10


@torch.no_grad()
def train_basis(x: Tensor, y: Tensor, generator: torch.Generator, hidden: int, epochs: int, lr: float) -> Tensor:
    """First layer of a network d -> hidden tanh -> 1, trained by Adam on the mean squared error.

    In each epoch an incomplete last mini-batch of 10 is left out. The gradient is written out, and all parameters are
    views of one vector: with so small a network, autograd and one step for each parameter take twice as long.

    Args:
        x: (n, d), the last column all ones.
        y: (n,).
        generator: weights, uniform within 1 / sqrt of the width of their layer, and order of the mini-batches.

    Returns:
        (d, hidden).
    """
    d, n, batch = x.shape[1], len(y), min(_BATCH, len(y))
    bound = torch.tensor([1 / math.sqrt(max(1, d - 1)), 1 / math.sqrt(hidden)]).repeat_interleave(
        torch.tensor([d * hidden, hidden + 1])
    )
    parameters = (2 * torch.rand(len(bound), generator=generator) - 1) * bound
    parameters.grad = torch.zeros_like(parameters)
    weights, head, offset = parameters.split([d * hidden, hidden, 1])
    slope, head_slope, offset_slope = parameters.grad.split([d * hidden, hidden, 1])
    weights, slope = weights.view(d, hidden), slope.view(d, hidden)
    optimizer = torch.optim.Adam([parameters], lr=lr, fused=True)
    for _ in range(epochs):
        order = torch.randperm(n, generator=generator)[: n // batch * batch]
        for inputs, target in zip(x[order].split(batch), y[order].split(batch), strict=True):
            h = torch.tanh(inputs @ weights)
            error = (h @ head + offset - target) * (2 / batch)
            torch.mv(h.T, error, out=head_slope)
            torch.sum(error, 0, keepdim=True, out=offset_slope)
            torch.mm(inputs.T, torch.outer(error, head) * (1 - h * h), out=slope)
            optimizer.step()
    return weights


class LinearHead:
    """Bayesian linear regression y = features w + noise, w ~ N(0, I / alpha), noise of precision beta.

    Alpha and beta maximise the marginal likelihood, by Nelder-Mead from about (1, 100) as in the release; every
    evaluation is O(k) after one eigendecomposition.

    Args:
        features: (n, k).
        y: (n,).
    """

    def __init__(self, features: ArrayLike, y: ArrayLike) -> None:
        phi, self._y = np.asarray(features, float), np.asarray(y, float)
        values, vectors = eigh(phi.T @ phi, check_finite=False)
        self._values = np.maximum(values, 0.0)
        self._projected = vectors.T @ (phi.T @ self._y)
        # SciPy's own first simplex is flat where a coordinate is 0, as log 1 is, and then ends far from the optimum.
        start = np.array([[0.0, 4.6], [2.0, 4.6], [0.0, 6.6]])
        options = {"xatol": 1e-3, "fatol": 1e-5, "maxiter": 400, "initial_simplex": start}
        found = minimize(lambda t: -self.evidence(t[0], t[1]), start[0], method="Nelder-Mead", options=options)
        self.alpha, self.beta = np.exp(np.clip(found.x, -15, 20))
        precision = self.alpha + self.beta * self._values
        self.mean = vectors @ (self.beta * self._projected / precision)
        """(k,) posterior mean of w"""
        self.root = vectors / np.sqrt(precision)
        """(k, k): the posterior covariance of w is root root^T"""

    def evidence(self, log_alpha: float, log_beta: float) -> float:
        """Natural logarithm of p(y | features, alpha, beta); -inf far outside any sensible range."""
        if not (-15 <= log_alpha <= 20 and -15 <= log_beta <= 20):
            return -math.inf
        beta, n = math.exp(log_beta), len(self._y)
        precision = math.exp(log_alpha) + beta * self._values
        quadratic = beta * (float(self._y @ self._y) - beta * float((self._projected**2 / precision).sum()))
        log_det = float(np.log(precision).sum()) - len(precision) * log_alpha - n * log_beta
        return -0.5 * (quadratic + log_det + n * math.log(2 * math.pi))


class DngoPosterior(Posterior):
    """Moments of observations, noise included; joint draws are draws of the weights of the head."""

    def __init__(self, features: NDArray[np.float32], head: LinearHead) -> None:
        self._features, self._head = features, head
        spread = features @ head.root.astype(np.float32)
        self.mean = (features @ head.mean.astype(np.float32)).astype(np.float64)
        self.std = np.sqrt(np.einsum("ij,ij->i", spread, spread).astype(np.float64) + 1 / head.beta)

    def sample(self, where: Positions, count: int, rng: np.random.Generator) -> Array:
        k = len(self._head.mean)
        weights = self._head.mean + rng.standard_normal((count, k)) @ self._head.root.T
        return weights @ self._features[where].T


class DngoSurrogate(Surrogate):
    """A small network trained anew on all observations, in standard units; a Bayesian linear head on its hidden layer.

    Args:
        hidden, epochs, lr: size, epochs and learning rate of the network.

    Raises:
        QasError: an option out of its range.
    """

    about = "network basis with a Bayesian linear head (DNGO, QAS-URL)"

    def __init__(self, *, hidden: int = 128, epochs: int = 100, lr: float = 0.01) -> None:
        self.hidden, self.epochs = whole_number("hidden", hidden), whole_number("epochs", epochs)
        self.lr = finite_number("lr", lr, above=0)

    def prepare(self, points: ArrayLike) -> None:
        pass

    def learn(self, points: Observed, values: Array, rng: np.random.Generator, *, thorough: bool = False) -> bool:
        points = points[:]
        self._centre, self._scale = standard_units(points)
        self._mean, spread = float(values.mean()), float(values.std())
        self._spread = spread if spread > 1e-12 * max(1.0, abs(self._mean)) else 1.0
        y = (values - self._mean) / self._spread
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        target = torch.from_numpy(y.astype(np.float32))
        self._basis = train_basis(self._inputs(points), target, generator, self.hidden, self.epochs, self.lr)
        self._head = LinearHead(self._features(points), y)
        return True

    def _inputs(self, points: NDArray[np.floating]) -> Tensor:
        x = np.ones((len(points), points.shape[1] + 1), dtype=np.float32)  # the last column is for the bias
        x[:, :-1] = (points - self._centre) / self._scale
        return torch.from_numpy(x)

    def _features(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        return torch.tanh(self._inputs(points) @ self._basis).numpy()

    def standard(self, value: float) -> float:
        return (value - self._mean) / self._spread

    def posterior(self, points: NDArray[np.floating]) -> Posterior:
        return DngoPosterior(self._features(points), self._head)
