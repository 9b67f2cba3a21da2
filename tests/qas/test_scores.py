"""Scores: the paper's constants, what product states get, and problems that have no score."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from qas.errors import QasError, UnknownNameError
from qas.problems import Problem, load_problem, problem, state_preparation
from qas.scores import Score, entanglement_score, load_score, published_score


def cuts(made: Problem) -> np.ndarray:
    """Cut weight of all bit strings, by going through the edges."""
    n = made.n_qubits
    return np.array(
        [
            sum(bits[a] != bits[b] for a, b, _ in made.provenance["edges"])
            for bits in itertools.product((0, 1), repeat=n)
        ],
        dtype=float,
    )


# ---------------------------------------------------------------------- max-cut
@pytest.mark.parametrize(
    ("name", "largest", "ground", "optimal", "threshold"),
    [("maxcut-4-url", 4, -10.0, 2, 0.95), ("maxcut-8-url", 12, -52.0, 6, 0.925)],
)
def test_published_maxcut(name: str, largest: int, ground: float, optimal: int, threshold: float) -> None:
    made = load_problem(name)
    weights = cuts(made)
    assert weights.max() == largest == -made.exact and (weights == largest).sum() == optimal
    # The release minimizes -(n/2)(1 + cut): the loop over nodes evaluates the whole cost each time.
    theirs = -made.n_qubits / 2 * (1 + weights)
    assert theirs.min() == ground
    score = published_score(made)
    np.testing.assert_allclose(score(-weights), theirs / ground, atol=1e-15)
    np.testing.assert_allclose(score(-weights), (1 + weights) / (1 + largest), atol=1e-15)
    assert score.threshold == threshold and score(made.exact) == 1.0
    assert score(0.0) == pytest.approx({4: 0.2, 12: 0.0769}[largest], abs=1e-4), "no cut at all"
    # Thresholds as cuts: 3.75 of 4, 11.03 of 12.
    passed = threshold * (1 + largest) - 1
    assert passed == pytest.approx({4: 3.75, 12: 11.025}[largest])
    assert score(-passed + 1e-9) < threshold < score(-passed - 1e-9)


# ---------------------------------------------------------------------- energies
def test_tfim_is_scored_by_the_published_value() -> None:
    made = load_problem("tfim-8")
    score = published_score(made)
    assert made.exact == pytest.approx(-10.2517, abs=5e-5) and made.product_state == pytest.approx(-10.0, abs=1e-6)
    assert score(-10.0) == 1.0 and score(made.exact) == pytest.approx(1.02517, abs=5e-6)
    assert score(made.product_state) >= 1 - 1e-6 and score.threshold == 0.9, "a product state solves it"
    # The exact ground energy everywhere else, open chains too.
    for name in ("tfim-6", "tfim-8-open"):
        assert published_score(load_problem(name))(load_problem(name).exact) == 1.0


@pytest.mark.parametrize(
    ("name", "exact", "product"), [("heisenberg-8", -14.6044, -9.0), ("cluster-8-open", -8.0, -4.0)]
)
def test_spin_models_that_need_entanglement(name: str, exact: float, product: float) -> None:
    made = load_problem(name)
    assert made.exact == pytest.approx(exact, abs=5e-5) and made.product_state == pytest.approx(product, abs=1e-6)
    score = published_score(made)
    assert score.threshold == 0.9 and score(made.product_state) == pytest.approx(product / exact, abs=1e-5)
    assert score(made.product_state) < score.threshold
    inside = entanglement_score(made)
    assert inside((exact + product) / 2) == pytest.approx(0.5, abs=1e-4)


def test_hartree_fock_passes_for_hydrogen() -> None:
    made = load_problem("h2-4")
    score = published_score(made)
    assert made.exact == pytest.approx(-1.1362, abs=1e-4)
    hartree_fock = made.provenance["hartree_fock"]
    assert hartree_fock == pytest.approx(-1.1173, abs=1e-4)
    assert score(hartree_fock) == pytest.approx(0.983, abs=5e-4) and score.threshold == 0.95
    assert score(made.exact + 1.6e-3) == pytest.approx(0.9986, abs=1e-4), "chemical accuracy"


@pytest.mark.parametrize(("n", "threshold"), [(4, 0.95), (7, 0.95), (8, 0.75)])
def test_state_preparation_is_scored_by_fidelity(n: int, threshold: float) -> None:
    score = published_score(state_preparation(np.eye(2**n)[0] - np.eye(2**n)[-1]))
    np.testing.assert_array_equal(score(np.array([-1.0, -0.25, 0.0])), [1.0, 0.25, 0.0])
    assert score.threshold == threshold and score(1e-17) == 0.0


# ---------------------------------------------------------------------- both
@pytest.mark.parametrize("name", ["lih-4", "heisenberg-5-open"])
def test_entanglement_score_runs_from_product_states_to_the_ground_state(name: str) -> None:
    made = load_problem(name)
    score = entanglement_score(made)
    assert score(made.product_state) == pytest.approx(0.0, abs=1e-9)
    assert score(made.exact) == pytest.approx(1.0, abs=1e-9)
    assert score(made.basis_state) <= 1e-9 and score.threshold == 0.9
    rng = np.random.default_rng(0)
    matrix = made.hamiltonian.to_matrix()
    for _ in range(50):
        psi = np.ones(1, dtype=complex)
        for _ in range(made.n_qubits):
            psi = np.kron(psi, rng.normal(size=2) + 1j * rng.normal(size=2)).astype(complex)
        energy = float((psi.conj() @ matrix @ psi).real / np.linalg.norm(psi) ** 2)
        assert score(energy) <= 1e-6


def test_clipping() -> None:
    made = load_problem("h2-2")
    energies = np.array([0.5, 0.0, made.exact / 2, made.exact, 2 * made.exact])
    np.testing.assert_allclose(published_score(made)(energies), [0.0, 0.0, 0.5, 1.0, 2.0], atol=1e-12)
    assert entanglement_score(made)(0.5) < -1, "how far below a product state is told"
    score = Score("x", 1.0, 2.0, 0.5, 0.25)
    assert score(np.array([[1.0, -1.0]])).tolist() == [[0.25, 1.0]] and score(1.0).shape == ()
    assert Score("x", 0.0, 1.0, 0.5)(3) == -3.0
    assert np.isnan(score(np.nan)), "what is not known is no score"


def test_problems_without_a_score() -> None:
    positive = problem({"II": 5.0, "XX": 1.0, "YY": 1.0, "ZZ": 1.0}, name="positive")
    zero = problem({"II": 1.0, "ZZ": 1.0}, exact=0.0)
    for made, match in [(positive, "negative ground energy, got (2|1.99).*positive"), (zero, "got 0")]:
        with pytest.raises(QasError, match=match) as caught:
            published_score(made)
        assert "\n" not in str(caught.value)
    for name in ("maxcut-4-url", "maxcut-6-1"):
        with pytest.raises(QasError, match=f"{name} has no entanglement score: a product state"):
            entanglement_score(load_problem(name))
    product = state_preparation(np.kron([0.6, 0.8j], [1, 1]), name="flat")
    with pytest.raises(QasError, match="flat has no entanglement score"):
        entanglement_score(product)
    assert entanglement_score(positive).scale == pytest.approx(2.0)


def test_scores_by_name() -> None:
    made = load_problem("tfim-4")
    assert load_score("published", made) == published_score(made)
    assert load_score("entanglement", made) == entanglement_score(made)
    with pytest.raises(UnknownNameError, match="did you mean 'published'"):
        load_score("publishd", made)
    with pytest.raises(QasError, match="no entanglement score"):
        load_score("entanglement", load_problem("maxcut-4-url"))
