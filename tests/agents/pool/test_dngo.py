"""DNGO: training of the network against autograd, and the Bayesian linear head against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from qas.agents.pool.dngo import DngoSurrogate, LinearHead, train_basis


def test_training_is_that_of_autograd() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.cat([torch.randn(23, 3, generator=rng), torch.ones(23, 1)], 1), torch.randn(23, generator=rng)
    trained = train_basis(x, y, torch.Generator().manual_seed(5), 4, 3, 0.01)
    rng = torch.Generator().manual_seed(5)
    bound = torch.tensor([1 / math.sqrt(3)] * 16 + [1 / 2] * 5)
    vector = ((2 * torch.rand(21, generator=rng) - 1) * bound).requires_grad_()
    optimizer = torch.optim.Adam([vector], lr=0.01)
    for _ in range(3):
        for part in torch.randperm(23, generator=rng)[:20].split(10):
            w, v, c = vector.split([16, 4, 1])
            loss = torch.nn.functional.mse_loss(torch.tanh(x[part] @ w.reshape(4, 4)) @ v + c, y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert trained.numpy() == pytest.approx(vector.detach()[:16].reshape(4, 4).numpy(), abs=1e-5)


def test_the_head_is_the_closed_form_at_the_largest_evidence() -> None:
    rng = np.random.default_rng(1)
    phi = rng.normal(size=(60, 4))
    y = phi @ rng.normal(scale=2.0, size=4) + 0.1 * rng.normal(size=60)
    head = LinearHead(phi, y)
    assert 1 / math.sqrt(head.beta) == pytest.approx(0.1, rel=0.25)
    top = head.evidence(math.log(head.alpha), math.log(head.beta))
    covariance = phi @ phi.T / head.alpha + np.eye(60) / head.beta
    assert top == pytest.approx(multivariate_normal(np.zeros(60), covariance).logpdf(y), abs=1e-6)
    for shift in ((0.1, 0), (-0.1, 0), (0, 0.1), (0, -0.1)):
        assert head.evidence(math.log(head.alpha) + shift[0], math.log(head.beta) + shift[1]) < top
    precision = head.alpha * np.eye(4) + head.beta * phi.T @ phi
    assert head.mean == pytest.approx(np.linalg.solve(precision, head.beta * phi.T @ y))
    assert head.root @ head.root.T == pytest.approx(np.linalg.inv(precision))


def test_posteriors_fit_what_was_told_and_draws_have_their_moments() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    y = 5 + 2 * np.sin(x[:, 0]) + 0.1 * rng.normal(size=200)
    surrogate = DngoSurrogate(hidden=32)
    before = torch.get_rng_state()
    assert surrogate.learn(x, y, rng)
    assert torch.equal(before, torch.get_rng_state())
    posterior = surrogate.posterior(x[:40])
    assert posterior.mean == pytest.approx([surrogate.standard(v) for v in y[:40]], abs=0.4)
    samples = posterior.sample(np.arange(40), 4000, rng)
    assert samples.mean(axis=0) == pytest.approx(posterior.mean, abs=0.05)
    assert (samples.std(axis=0) < posterior.std).all(), "without the noise"
