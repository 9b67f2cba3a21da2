"""Gaussian processes against dense formulas and BoTorch, closed forms against quadrature."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import check_grad
from scipy.special import ndtr

from qas.agents.pool.acquisitions import log_expected_improvement, log_probability_above
from qas.agents.pool.gaussian_process import (
    MIN_NOISE,
    GaussianProcess,
    NewPosterior,
    PoolPosterior,
    fit_parameters,
    log_posterior,
    pool_moments,
    safe_cholesky,
    start_parameters,
)
from qas.errors import QasError


def data(n: int, d: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x, np.sin(2 * x[:, 0]) + 0.3 * x[:, 1] + 0.1 * rng.normal(size=n)


def dense_kernel(theta: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """From the formula of Matern-5/2."""
    difference = (a[:, None, :] - b[None, :, :]) / np.broadcast_to(np.exp(theta[:-1]), a.shape[1:])
    s = math.sqrt(5) * np.sqrt((difference**2).sum(axis=2))
    return (1 + s + s * s / 3) * np.exp(-s)


def parameters(d: int, ard: bool, seed: int = 1) -> np.ndarray:
    start = start_parameters(d, ard)
    return start + 0.3 * np.random.default_rng(seed).normal(size=len(start))


@pytest.mark.parametrize("ard", [True, False])
def test_posteriors_match_the_dense_formula(ard: bool) -> None:
    x, y = data(25)
    theta, new = parameters(3, ard), data(9, seed=5)[0]
    process = GaussianProcess(ard=ard).set(theta, x, y)
    at = process.inputs(new)
    k = dense_kernel(theta, process.x, process.x) + np.exp(theta[-1]) * np.eye(25)
    across = dense_kernel(theta, at, process.x)
    unit = (y - y.mean()) / y.std(ddof=1)
    covariance = dense_kernel(theta, at, at) - across @ np.linalg.solve(k, across.T)
    mean, std = process.predict(new)
    assert mean == pytest.approx(y.mean() + y.std(ddof=1) * across @ np.linalg.solve(k, unit), abs=1e-10)
    assert std == pytest.approx(y.std(ddof=1) * np.sqrt(np.diag(covariance)), abs=1e-8)
    assert process.joint(at)[1] == pytest.approx(covariance, abs=1e-9)
    for posterior in (NewPosterior(process, new), PoolPosterior(process, at)):
        samples = posterior.sample(np.arange(9), 40_000, np.random.default_rng(0))
        assert samples.mean(axis=0) == pytest.approx(posterior.mean, abs=0.02)
        assert np.cov(samples.T) == pytest.approx(covariance, abs=0.03)


@pytest.mark.parametrize("ard", [True, False])
def test_gradient_of_the_log_posterior(ard: bool) -> None:
    x, y = data(20)
    for seed in range(3):
        theta = parameters(3, ard, seed)
        error = check_grad(lambda t: log_posterior(t, x, y)[0], lambda t: log_posterior(t, x, y)[1], theta)
        assert error < 2e-4 * np.linalg.norm(log_posterior(theta, x, y)[1]) + 1e-5


def test_fits_find_the_dimension_that_matters_and_the_noise() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 4))
    y = np.sin(2 * x[:, 1]) + 0.2 * rng.normal(size=150)
    process = GaussianProcess().fit(x, y)
    assert process.kernel is not None
    assert int(np.argmin(process.kernel.lengths)) == 1
    assert math.sqrt(process.kernel.noise) * process.y_std == pytest.approx(0.2, rel=0.25)
    start = log_posterior(start_parameters(4, True), process.x, process.y)[0]
    end, gradient = log_posterior(process.kernel.theta, process.x, process.y)
    assert end > start + 10 and np.abs(gradient).max() < 1.0
    again = fit_parameters(process.x, process.y, warm=process.kernel.theta)
    assert log_posterior(again, process.x, process.y)[0] >= end - 1e-6


@settings(deadline=None, max_examples=20)
@given(blocks=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_appended_observations_equal_a_fresh_factorisation(blocks: list[int], seed: int) -> None:
    total = 5 + sum(blocks)
    x, y = data(total, seed=seed)
    theta = parameters(3, True)
    grown = GaussianProcess(centre=np.zeros(3), scale=np.ones(3)).set(theta, x[:5], y[:5])
    pool = data(40, seed=seed + 1)[0]
    posterior = PoolPosterior(grown, pool)
    done = 5
    for size in blocks:
        grown.append(x[done : done + size], y[done : done + size])
        posterior.update()
        done += size
    fresh = GaussianProcess(centre=np.zeros(3), scale=np.ones(3)).set(theta, x, y)
    fresh.y_mean, fresh.y_std = grown.y_mean, grown.y_std
    fresh._set(theta, x, (y - grown.y_mean) / grown.y_std)
    assert grown.factor == pytest.approx(fresh.factor, abs=1e-9)
    assert grown.weights == pytest.approx(fresh.weights, abs=1e-7)
    mean, std = pool_moments(fresh, pool.astype(np.float32))
    assert posterior.mean == pytest.approx(mean, abs=1e-3) and posterior.std == pytest.approx(std, abs=1e-3)


def test_a_conditioned_copy_leaves_the_original_alone() -> None:
    x, y = data(20)
    process = GaussianProcess(ard=False).fit(x[:15], y[:15])
    before = process.predict(x)
    other = process.condition(process.inputs(x[15:]), (y[15:] - process.y_mean) / process.y_std)
    assert len(other) == 20 and len(process) == 15
    assert np.array_equal(before[0], process.predict(x)[0])
    assert (other.predict(x[15:])[1] < process.predict(x[15:])[1]).all()
    process.append(x[15:], y[15:])
    assert process.predict(x)[0] == pytest.approx(other.predict(x)[0], abs=1e-12)


def test_float32_over_a_pool_is_accurate_enough_also_with_copies_and_little_noise() -> None:
    """Worst case: 300 observations, some twice, noise at its floor, candidates beside and on observations."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 8))
    x[150:200] = x[:50]
    y = np.sin(x[:, 0]) + x[:, 1] ** 2
    process = GaussianProcess(ard=False).set(np.log([3.0, MIN_NOISE]), x, y)
    points = np.concatenate([x[:50], x[50:100] + 0.01, rng.normal(size=(200, 8))])
    exact_mean, exact_std = process.predict(points)
    for mean, std in (pool_moments(process, process.inputs(points).astype(np.float32)), _moments(process, points)):
        assert mean * process.y_std + process.y_mean == pytest.approx(exact_mean, abs=2e-3 * process.y_std)
        assert std * process.y_std == pytest.approx(exact_std, rel=0.02, abs=1e-3 * process.y_std)
    few_mean, few_std = pool_moments(process, process.inputs(points).astype(np.float32), most=60)
    assert few_mean == pytest.approx(pool_moments(process, process.inputs(points).astype(np.float32))[0], abs=1e-5)
    assert (few_std * process.y_std > exact_std - 1e-3).all(), "an upper bound"


def _moments(process: GaussianProcess, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    posterior = PoolPosterior(process, process.inputs(points))
    covariance = posterior.joint_covariance(np.arange(len(points)))
    assert np.diag(covariance) == pytest.approx(posterior.variance, abs=1e-5)
    assert np.isfinite(safe_cholesky(covariance)).all()
    return posterior.mean, posterior.std


def test_agrees_with_botorch_at_equal_parameters() -> None:
    pytest.importorskip("botorch")
    import torch
    from botorch.acquisition import LogExpectedImprovement
    from botorch.models import SingleTaskGP
    from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
    from gpytorch.mlls import ExactMarginalLogLikelihood

    x, y = data(30)
    new = data(12, seed=8)[0]
    process = GaussianProcess().fit(x, y)
    assert process.kernel is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SingleTaskGP(
            torch.from_numpy(process.x),
            torch.from_numpy(y)[:, None],
            covar_module=get_covar_module_with_dim_scaled_prior(3, use_rbf_kernel=False),
        )
        model.covar_module.lengthscale = torch.from_numpy(process.kernel.lengths)
        model.likelihood.noise = process.kernel.noise
        model.mean_module.constant.data.fill_(0.0)
        mll = ExactMarginalLogLikelihood(model.likelihood, model)
        model.train()
        value = float(mll(model(*model.train_inputs), model.train_targets)) * 30
        model.eval()
        at = torch.from_numpy(process.inputs(new))
        posterior = model.posterior(at)
        improvement = LogExpectedImprovement(model, best_f=1.0)(at[:, None, :]).detach().numpy()
    mean, std = process.predict(new)
    assert mean == pytest.approx(posterior.mean.detach().numpy()[:, 0], abs=1e-5)
    assert std == pytest.approx(posterior.variance.detach().numpy()[:, 0] ** 0.5, abs=1e-5)
    assert log_posterior(process.kernel.theta, process.x, process.y)[0] == pytest.approx(value, abs=1e-3)
    assert log_expected_improvement(mean, std, 1.0) == pytest.approx(improvement, abs=1e-3)


# ---------------------------------------------------------------------- closed forms
@settings(deadline=None, max_examples=40)
@given(mean=st.floats(-3, 3), std=st.floats(0.05, 3), best=st.floats(-3, 3))
def test_expected_improvement_is_its_integral(mean: float, std: float, best: float) -> None:
    def integrand(f: float) -> float:
        return (f - best) * math.exp(-0.5 * ((f - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))

    low, high = max(best, mean - 12 * std), max(best, mean) + 12 * std
    exact = quad(integrand, low, high, points=[max(low, mean)], epsabs=0, limit=200)[0]
    if exact > 1e-280:
        assert float(log_expected_improvement(mean, std, best)) == pytest.approx(math.log(exact), abs=1e-6)


def test_log_expected_improvement_far_out() -> None:
    u = -np.array([0.5, 0.999, 1.001, 5.0, 20.0, 49.99, 50.01, 200.0, 1e4, 1e8])
    values = log_expected_improvement(u, 1.0, 0.0)
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        for x, value in zip(u, values, strict=True):
            t = mpmath.mpf(float(x))
            density = mpmath.exp(-t * t / 2) / mpmath.sqrt(2 * mpmath.pi)
            exact = mpmath.log(density + t * mpmath.erfc(-t / mpmath.sqrt(2)) / 2)
            assert value == pytest.approx(float(exact), rel=1e-9)
    assert (np.diff(values) < 0).all()
    assert log_expected_improvement([1.0, 0.0, -1.0], 0.0, 0.0).tolist() == [0.0, -np.inf, -np.inf]


def test_probability_above_a_threshold() -> None:
    mean, std = np.array([0.2, -1.0, 3.0]), np.array([0.5, 1.0, 0.1])
    assert np.exp(log_probability_above(mean, std, 0.4)) == pytest.approx(1 - ndtr((0.4 - mean) / std), abs=1e-14)
    assert np.isfinite(log_probability_above(-100.0, 1.0, 0.0)), "where the probability itself is 0 in float64"
    assert log_probability_above([1.0, 0.0], 0.0, 0.5).tolist() == [0.0, -np.inf]


def test_what_a_process_refuses() -> None:
    x, y = data(6)
    with pytest.raises(QasError, match="after a fit"):
        GaussianProcess().predict(x)
    with pytest.raises(QasError, match="n values"):
        GaussianProcess().fit(x, y[:-1])
    with pytest.raises(QasError, match="finite"):
        GaussianProcess().fit(x, np.where(y > y.min(), y, np.nan))


def test_one_observation_and_equal_observations_are_enough() -> None:
    for n in (1, 5):
        x = np.ones((n, 2))
        mean, std = GaussianProcess().fit(x, np.full(n, 0.7)).predict(x)
        assert mean == pytest.approx(np.full(n, 0.7)) and np.isfinite(std).all()
