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
from torch import Tensor, nn

from qas.agents.pool.surrogates import Array, Positions, Posterior, Surrogate, standard_units
from qas.checks import finite_number, whole_number

_BATCH = 10


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
        self._mean = (features @ head.mean.astype(np.float32)).astype(np.float64)
        self._std = np.sqrt(np.einsum("ij,ij->i", spread, spread).astype(np.float64) + 1 / head.beta)

    @property
    def mean(self) -> Array:
        return self._mean

    @property
    def std(self) -> Array:
        return self._std

    def sample(self, where: Positions, count: int, rng: np.random.Generator) -> Array:
        k = len(self._head.mean)
        weights = self._head.mean + rng.standard_normal((count, k)) @ self._head.root.T
        return weights @ self._features[where].T


class DngoSurrogate(Surrogate):
    """A network d -> hidden tanh -> 1 trained anew on all observations; a Bayesian linear head on its hidden layer.

    Trained by Adam on the mean squared error of standardised values; in each epoch an incomplete last mini-batch of 10
    is left out.

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

    def learn(
        self, points: NDArray[np.floating], values: Array, rng: np.random.Generator, *, thorough: bool = False
    ) -> bool:
        self._centre, self._scale = standard_units(points)
        self._mean, spread = float(values.mean()), float(values.std())
        self._spread = spread if spread > 1e-12 * max(1.0, abs(self._mean)) else 1.0
        y = (values - self._mean) / self._spread
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            self._basis = self._trained(self._inputs(points), torch.from_numpy(y.astype(np.float32)))
        self._head = LinearHead(self._features(points), y)
        return True

    def _trained(self, x: Tensor, y: Tensor) -> nn.Module:
        basis = nn.Sequential(nn.Linear(x.shape[1], self.hidden), nn.Tanh())
        network = nn.Sequential(basis, nn.Linear(self.hidden, 1))
        optimizer = torch.optim.Adam(network.parameters(), lr=self.lr, fused=True)
        batch = min(_BATCH, len(y))
        for _ in range(self.epochs):
            order = torch.randperm(len(y))
            for part in order[: len(y) // batch * batch].split(batch):
                optimizer.zero_grad()
                nn.functional.mse_loss(network(x[part])[:, 0], y[part]).backward()
                optimizer.step()
        return basis

    def _inputs(self, points: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(((points - self._centre) / self._scale).astype(np.float32))

    def _features(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        with torch.no_grad():
            return self._basis(self._inputs(points)).numpy()

    def standard(self, value: float) -> float:
        return (value - self._mean) / self._spread

    def posterior(self, points: NDArray[np.floating]) -> Posterior:
        return DngoPosterior(self._features(points), self._head)
