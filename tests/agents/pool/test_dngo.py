"""DNGO: gradient of the network, the Bayesian linear head, and what separates the released from the mended search."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from qas.agents.pool.dngo import Basis, DngoSearcher, Evidence, LinearHead


def data(n: int, d: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x, (0.5 + 0.3 * np.sin(x[:, 0])).astype(np.float32)


def test_the_gradient_is_that_of_autograd() -> None:
    x, y = data(10)
    basis = Basis(x, y, np.random.default_rng(0), hidden=5, epochs=0)
    value = basis.loss(x, y)
    w, b, v, c = (torch.tensor(p, requires_grad=True) for p in (basis._w, basis._b, basis._v, basis._c))
    loss = ((torch.tanh(torch.tensor(x) @ w + b) @ v + c - torch.tensor(y)) ** 2).mean()
    loss.backward()
    assert value == pytest.approx(float(loss.detach()), rel=1e-5)
    expected = torch.cat([p.grad.reshape(-1) for p in (w, b, v, c)]).numpy()  # type: ignore[union-attr]
    assert basis.gradient == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_training_is_that_of_torch_s_adam() -> None:
    x, y = data(23)
    basis = Basis(x, y, np.random.default_rng(5), hidden=4, epochs=0)
    trained = Basis(x, y, np.random.default_rng(5), hidden=4, epochs=3)
    vector = torch.tensor(basis.parameters, requires_grad=True)
    optimizer = torch.optim.Adam([vector], lr=0.01)
    rng = np.random.default_rng(5)
    rng.uniform(size=len(basis.parameters))
    for _ in range(3):
        order = rng.permutation(23)
        for part in (order[:10], order[10:20]):
            w, b, v, c = torch.split(vector, [12, 4, 4, 1])
            loss = (
                (torch.tanh(torch.tensor(x[part]) @ w.reshape(3, 4) + b) @ v + c - torch.tensor(y[part])) ** 2
            ).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert trained.parameters == pytest.approx(vector.detach().numpy(), abs=1e-5)


def test_a_trained_basis_fits() -> None:
    x, y = data(200)
    basis = Basis(x, y, np.random.default_rng(0), hidden=32)
    assert basis.loss(x, y) < 0.1 * y.var()


def test_the_evidence_and_the_prediction_are_the_closed_forms() -> None:
    rng = np.random.default_rng(0)
    phi, y = rng.normal(size=(15, 4)), rng.normal(size=15)
    for alpha, beta in ((0.5, 3.0), (20.0, 100.0)):
        covariance = phi @ phi.T / alpha + np.eye(15) / beta
        exact = multivariate_normal(np.zeros(15), covariance).logpdf(y)
        assert Evidence(phi, y)(math.log(alpha), math.log(beta)) == pytest.approx(exact, abs=1e-9)
        head = Evidence(phi, y).head(math.log(alpha), math.log(beta))
        precision = alpha * np.eye(4) + beta * phi.T @ phi
        new = rng.normal(size=(6, 4))
        mean, variance = head.predict(new)
        assert mean == pytest.approx(new @ np.linalg.solve(precision, beta * phi.T @ y))
        assert variance == pytest.approx(np.diag(new @ np.linalg.solve(precision, new.T)) + 1 / beta)


def test_the_evidence_is_maximised() -> None:
    rng = np.random.default_rng(1)
    phi = rng.normal(size=(300, 6))
    y = phi @ rng.normal(scale=2.0, size=6) + 0.1 * rng.normal(size=300)
    head = LinearHead.fit(phi, y)
    assert 1 / math.sqrt(head.beta) == pytest.approx(0.1, rel=0.15)
    evidence = Evidence(phi, y)
    top = evidence(math.log(head.alpha), math.log(head.beta))
    for shift in ((0.1, 0), (-0.1, 0), (0, 0.1), (0, -0.1)):
        assert evidence(math.log(head.alpha) + shift[0], math.log(head.beta) + shift[1]) < top


def searcher(mended: bool, monkeypatch: pytest.MonkeyPatch, mean: np.ndarray, variance: np.ndarray) -> DngoSearcher:
    """One whose model says what it is told to say."""
    points = np.arange(len(mean), dtype=float)[:, None]
    made = DngoSearcher(points, np.random.default_rng(0), mended=mended, batch=2, epochs=1, hidden=2, initial=2)
    monkeypatch.setattr(LinearHead, "predict", lambda self, features: (mean, variance))
    return made


def test_released_scores_use_the_variance_and_a_fixed_incumbent(monkeypatch: pytest.MonkeyPatch) -> None:
    mean, variance = np.array([0.3, 0.5, 0.7, 0.2, 0.6, 0.65]), np.array([0.3, 0.02, 0.01, 0.2, 0.05, 0.09])

    def improvement(spread: np.ndarray, best: float) -> np.ndarray:
        u = (mean - best) / spread
        return spread * (u * norm.cdf(u) + norm.pdf(u))

    released, mended = (searcher(m, monkeypatch, mean, variance) for m in (False, True))
    for made in (released, mended):
        made.tell([1, 2], [0.5, 0.7], prior=True)
    assert released._scores() == pytest.approx(improvement(variance, 0.9))
    assert np.exp(mended._scores()) == pytest.approx(improvement(np.sqrt(variance), 0.7))
    first = [i for i in np.argsort(-improvement(variance, 0.9)) if i not in (1, 2)][:2]
    assert released.ask().tolist() == first


def test_where_the_release_would_spin_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    made = searcher(False, monkeypatch, np.linspace(1, 0, 8), np.full(8, 0.2))
    made.tell([0, 1, 2, 3], [1.0, 0.9, 0.8, 0.7], prior=True)
    trainings = 0
    scores = DngoSearcher._scores

    def counted(self: DngoSearcher) -> np.ndarray:
        nonlocal trainings
        trainings += 1
        return scores(self)

    monkeypatch.setattr(DngoSearcher, "_scores", counted)
    assert made.ask().tolist() == [4, 5]
    assert trainings == 20


def test_mended_beats_random_on_a_smooth_pool() -> None:
    hits = {}
    for name in ("random", "dngo"):
        found = []
        for seed in range(4):
            points = np.random.default_rng([1, seed]).normal(size=(800, 3))
            values = np.exp(-0.3 * ((points - 0.4) ** 2).sum(axis=1))
            best = values >= np.quantile(values, 0.95)
            if name == "random":
                told = np.random.default_rng(seed).choice(800, size=60, replace=False)
            else:
                made = DngoSearcher(points, np.random.default_rng(seed), epochs=40, hidden=32)
                while len(made.told[0]) < 60:
                    batch = made.ask()
                    made.tell(batch, values[batch])
                told = made.told[0]
            found.append(best[told].sum())
        hits[name] = np.mean(found)
    assert hits["dngo"] > 2 * hits["random"]
