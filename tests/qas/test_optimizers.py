"""Every optimizer: finds a known optimum, keeps its budget, counts honestly, and repeats itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qas.circuits import Circuit
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.hamiltonians import Hamiltonian
from qas.optimizers import OPTIMIZERS, SampledObjective, list_optimizers, minimize
from qas.optimizers.bookkeeping import Outcome
from qas.optimizers.gradient import adam
from qas.simulators import Objective, make_simulator

METHODS = sorted(list_optimizers())
SAMPLED = [m for m in METHODS if m not in ("l-bfgs", "adam")]
ISING = Hamiltonian({"ZZ": -1.0, "XI": -0.5, "IX": -0.5, "II": 3.0})
ANSATZ = Circuit(2, [("ry", 0, 0.4), ("ry", 1, -0.3), ("cx", (0, 1)), ("ry", 0, 0.2), ("ry", 1, 0.5)])


class Witness(Objective):
    """Counts calls on its own, apart from the objective's counters, and remembers the values it gave."""

    def __init__(self, circuit: Circuit = ANSATZ, hamiltonian: Hamiltonian = ISING) -> None:
        super().__init__(make_simulator(), circuit, hamiltonian)
        self.calls: list[np.ndarray] = []
        self.values: list[float] = []
        self.gradients = 0

    def __call__(self, angles: np.ndarray) -> float:
        self.calls.append(np.array(angles))
        self.values.append(super().__call__(angles))
        return self.values[-1]

    def value_and_gradient(self, angles: np.ndarray) -> tuple[float, np.ndarray]:
        self.calls.append(np.array(angles))
        self.gradients += 1
        value, gradient = super().value_and_gradient(angles)
        self.values.append(value)
        return value, gradient

    def terms(self, angles: np.ndarray) -> np.ndarray:
        self.calls.append(np.array(angles))
        return super().terms(angles)

    def exact(self, angles: np.ndarray) -> float:
        return self.simulator.expectation(self.circuit, self.hamiltonian, angles)


# ---------------------------------------------------------------------- exact values
@pytest.mark.parametrize(
    ("method", "options", "accuracy"),
    [
        ("l-bfgs", {}, 1e-8),
        ("l-bfgs", {"memory": 3}, 1e-8),
        ("adam", {}, 1e-7),
        ("cobyla", {}, 1e-7),
        ("rotosolve", {}, 1e-7),
        ("spsa", {}, 1e-5),
        ("adam-spsa", {"a": 0.1, "alpha": 0.4}, 1e-2),
    ],
)
def test_known_optimum_is_found(method: str, options: dict[str, Any], accuracy: float) -> None:
    objective = Witness()
    result = minimize(objective, ANSATZ.angles, method=method, rng=1, **options)
    assert result.success, result.message
    assert result.fun == pytest.approx(ISING.ground_energy, abs=accuracy)
    assert objective.exact(result.x) == pytest.approx(result.fun, abs=1e-12)
    if "jac" in result:
        assert np.abs(result.jac).max() < 1e-3


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=12, deadline=None)
@given(budget=st.integers(1, 45), seed=st.integers(0, 1000))
def test_budget_is_never_exceeded_and_counts_are_honest(method: str, budget: int, seed: int) -> None:
    objective = Witness()
    objective.nfev, objective.njev = 7, 2
    start = np.random.default_rng(seed).uniform(-3, 3, ANSATZ.n_angles)
    result = minimize(objective, start, method=method, max_evaluations=budget, rng=seed)
    assert result.nfev == len(objective.calls) <= budget
    assert result.njev == objective.gradients
    assert result.fun == min(objective.values)
    assert objective.exact(result.x) == pytest.approx(result.fun, abs=1e-12)
    if not result.success:
        assert f"budget of {budget}" in result.message


@pytest.mark.parametrize("method", SAMPLED)
@settings(max_examples=12, deadline=None)
@given(budget=st.integers(1, 45), seed=st.integers(0, 1000))
def test_budget_holds_with_shot_noise(method: str, budget: int, seed: int) -> None:
    objective = Witness()
    result = minimize(objective, ANSATZ.angles, method=method, max_evaluations=budget, shots=50, rng=seed)
    assert result.nfev == len(objective.calls) <= budget
    np.testing.assert_array_equal(objective.calls[-1], result.x)
    assert 3 <= result.shots <= 3 * 50 * result.nfev
    if method != "adam-spsa":
        assert result.shots == 3 * 50 * result.nfev


@pytest.mark.parametrize("method", METHODS)
def test_a_circuit_without_angles_is_evaluated_once(method: str) -> None:
    objective = Witness(Circuit(2, [("h", 0)]))
    result = minimize(objective, [], method=method, max_evaluations=1)
    assert result.success
    assert result.x.shape == (0,)
    assert result.fun == pytest.approx(objective.exact(result.x))
    assert result.nfev == len(objective.calls) == 1


@pytest.mark.parametrize("method", METHODS)
def test_one_angle_is_enough(method: str) -> None:
    objective = Witness(Circuit(1, [("ry", 0, 0.3)]), Hamiltonian({"Z": 1.0}))
    assert minimize(objective, [0.3], method=method, rng=3).fun == pytest.approx(-1.0, abs=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_result(method: str) -> None:
    shots = 100 if method in SAMPLED else None

    def run(seed: int) -> Any:
        return minimize(Witness(), ANSATZ.angles, method=method, max_evaluations=60, shots=shots, rng=seed)

    first, again, other = run(5), run(5), run(6)
    np.testing.assert_array_equal(first.x, again.x)
    assert first.fun == again.fun
    if shots is not None:
        assert first.fun != other.fun


def test_perturbations_are_not_the_same_in_every_call() -> None:
    rng = np.random.default_rng(0)
    results = [minimize(Witness(), ANSATZ.angles, method="spsa", iterations=3, rng=rng).x for _ in range(2)]
    assert not np.array_equal(results[0], results[1])


def test_the_start_is_left_alone() -> None:
    for method in METHODS:
        start = ANSATZ.angles.copy()
        minimize(Witness(), start, method=method, max_evaluations=20, rng=0)
        np.testing.assert_array_equal(start, ANSATZ.angles)


# ---------------------------------------------------------------------- rotosolve
def test_rotosolve_uses_three_evaluations_then_two_and_solves_every_gate() -> None:
    gates = [("u", 0, 0.3, 0.1, -0.5), ("h", 1), ("rxx", (0, 1), 0.7), ("ryy", (0, 1), 0.2), ("rzz", (0, 1), 1.0)]
    circuit = Circuit(2, [*gates, ("rx", 0, 0.2), ("rz", 1, 0.9)])
    hamiltonian = Hamiltonian({"XZ": 0.7, "YY": -0.4, "ZI": 0.9, "IX": 0.3})
    objective = Witness(circuit, hamiltonian)
    result = minimize(objective, circuit.angles, method="rotosolve", max_sweeps=1)
    assert result.nfev == 2 + 2 * circuit.n_angles
    x = circuit.angles.copy()
    grid = np.linspace(-np.pi, np.pi, 181)
    for k in range(len(x)):
        values = [objective.exact(np.where(np.arange(len(x)) == k, g, x)) for g in grid]
        x[k] = objective.calls[3 + 2 * k][k] if k + 1 < len(x) else result.x[k]
        assert objective.exact(x) <= min(values) + 1e-12


# ---------------------------------------------------------------------- shot noise
def test_shot_noise_has_the_stated_variance_and_leaves_the_identity_out() -> None:
    hamiltonian = Hamiltonian({"II": -70.0, "ZZ": -1.0, "XI": -0.5, "IY": 0.8})
    objective = Witness(ANSATZ, hamiltonian)
    terms = objective.simulator.term_expectations(ANSATZ, hamiltonian)
    shots, repeats = 400, 1500
    sampled = SampledObjective(objective, shots, np.random.default_rng(11))
    values = np.array([sampled(ANSATZ.angles) for _ in range(repeats)])
    expected = sum(c**2 * (1 - t**2) / shots for c, t in zip(hamiltonian.coefficients[1:], terms[1:], strict=True))
    assert hamiltonian.strings[0] == "II"
    assert sampled.standard_deviation(terms) == pytest.approx(math.sqrt(expected))
    assert abs(values.mean() - objective.exact(ANSATZ.angles)) < 5 * math.sqrt(expected / repeats)
    assert abs(values.var(ddof=1) / expected - 1) < 5 * math.sqrt(2 / repeats)
    assert sampled.shots_used == 3 * shots * repeats
    assert sampled.nfev == repeats


def test_an_eigenstate_has_no_shot_noise() -> None:
    sampled = SampledObjective(Witness(Circuit(2), Hamiltonian({"ZZ": 2.0, "II": 1.0})), 1, np.random.default_rng(0))
    assert sampled(np.array([])) == pytest.approx(3.0)


@pytest.mark.parametrize("method", SAMPLED)
def test_the_reported_value_is_not_a_lucky_one(method: str) -> None:
    """Over many runs the reported value is unbiased at the reported point; a smallest-of-all would sit far below."""
    shots, pulls = 20, []
    for seed in range(25):
        objective = Witness()
        result = minimize(objective, ANSATZ.angles, method=method, max_evaluations=40, shots=shots, rng=seed)
        spread = SampledObjective(objective, shots, np.random.default_rng(0)).standard_deviation(
            objective.simulator.term_expectations(ANSATZ, ISING, result.x)
        )
        pulls.append((result.fun - objective.exact(result.x)) / spread)
    assert abs(np.mean(pulls)) < 5 / math.sqrt(len(pulls))
    assert np.std(pulls) == pytest.approx(1.0, abs=5 / math.sqrt(2 * len(pulls)))


@pytest.mark.parametrize(
    ("method", "options", "gap"),
    [("spsa", {}, 0.01), ("adam-spsa", {"a": 0.1, "alpha": 0.4}, 0.1), ("rotosolve", {}, 0.05), ("cobyla", {}, 0.15)],
)
def test_noisy_search_comes_close_to_the_optimum(method: str, options: dict[str, Any], gap: float) -> None:
    objective = Witness()
    result = minimize(objective, ANSATZ.angles, method=method, shots=10_000, rng=4, **options)
    assert objective.exact(ANSATZ.angles) > ISING.ground_energy + 0.3
    assert objective.exact(result.x) < ISING.ground_energy + gap


def test_adam_spsa_measures_its_three_stages_with_growing_shots() -> None:
    objective = Witness()
    result = minimize(objective, ANSATZ.angles, method="adam-spsa", stages=(20, 6, 3), shots=1000, rng=0)
    assert result.success
    assert result.nfev == 2 * (10 + 3 + 2) + 1
    assert result.nit == 15
    assert result.shots == 3 * (20 * 10 + 6 * 100 + 4 * 1000 + 1000)
    single = minimize(Witness(), ANSATZ.angles, method="adam-spsa", stages=(20,), shots=1000, rng=0)
    assert single.shots == 3 * 1000 * 21


def test_adam_spsa_defaults_are_the_published_ones() -> None:
    result = minimize(Witness(), ANSATZ.angles, method="adam-spsa", rng=0)
    assert (result.nit, result.nfev) == (835, 1671)


def test_adam_spsa_first_step_is_as_long_as_published() -> None:
    objective = Witness()
    result = minimize(objective, ANSATZ.angles, method="adam-spsa", max_evaluations=3, shots=10**9, rng=0, average=0.0)
    np.testing.assert_allclose(np.abs(result.x - ANSATZ.angles), 1.8658, rtol=1e-5)


# ---------------------------------------------------------------------- what is refused
@pytest.mark.parametrize("start", [[np.nan] * 4, [np.inf, 0, 0, 0], [0.0], [[0.0] * 4], "abcd"])
def test_a_bad_start_is_refused(start: Any) -> None:
    for method in METHODS:
        with pytest.raises(CircuitError, match="start"):
            minimize(Witness(), start, method=method)


def test_unknown_names_are_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="cobyla"):
        minimize(Witness(), ANSATZ.angles, method="coybla")
    for method in METHODS:
        with pytest.raises(QasError, match="maxiter"):
            minimize(Witness(), ANSATZ.angles, method=method, maxiter=3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_evaluations": 0},
        {"max_evaluations": 2.5},
        {"shots": 0, "method": "spsa"},
        {"shots": -1, "method": "cobyla"},
        {"tolerance": 0.0},
        {"tolerance": math.nan},
        {"shots": 100, "method": "l-bfgs"},
        {"shots": 100, "method": "adam"},
        {"method": "adam-spsa", "stages": (10, 20)},
        {"method": "adam-spsa", "stages": (10, 0, 3)},
        {"method": "spsa", "average": 2.0},
        {"method": "spsa", "iterations": 0},
        {"method": "cobyla", "initial_step": 0.0},
    ],
)
def test_values_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    objective = Witness()
    with pytest.raises(QasError):
        minimize(objective, ANSATZ.angles, **arguments)
    assert not objective.calls


@pytest.mark.parametrize("method", ["l-bfgs", "cobyla"])
def test_a_tolerance_below_the_rounding_of_the_engine_is_refused(method: str) -> None:
    objective = make_simulator().objective(ANSATZ, ISING)
    objective.simulator.resolution = 1e-6
    assert objective.resolution == pytest.approx(2e-6), "the constant of the Hamiltonian has no rounding"
    with pytest.raises(QasError, match="resolution 2e-06, got 1.9e-06") as caught:
        minimize(objective, ANSATZ.angles, method=method, tolerance=1.9e-6)
    assert "\n" not in str(caught.value) and objective.nfev == 0
    assert minimize(objective, ANSATZ.angles, method=method, tolerance=2.1e-6).nfev > 1


def test_a_compiled_objective_is_used_for_plain_lbfgs_only() -> None:
    class Compiled(Witness):
        def minimize_compiled(self, start: np.ndarray, max_evaluations: int | None, tolerance: float) -> Any:
            return start, max_evaluations, tolerance

    start, budget, tolerance = minimize(Compiled(), ANSATZ.angles, max_evaluations=9, tolerance=1e-5)
    np.testing.assert_array_equal(start, ANSATZ.angles)
    assert (budget, tolerance) == (9, 1e-5)
    assert minimize(Compiled(), ANSATZ.angles, memory=5).success
    assert minimize(Compiled(), ANSATZ.angles, method="adam").success


OUTCOME = Outcome(True, "done")


def test_a_function_is_a_method_like_any_other() -> None:
    by_name, by_function = (
        minimize(Witness(), ANSATZ.angles, method=method, learning_rate=0.1) for method in ("adam", adam)
    )
    assert by_name.fun == by_function.fun
    assert OPTIMIZERS["adam"] is adam and OPTIMIZERS.name_of(adam) == "adam"

    def once(book: Any, start: np.ndarray, tolerance: float, rng: np.random.Generator) -> Any:
        book(start)
        return OUTCOME

    assert minimize(Witness(), ANSATZ.angles, method=once).message == "done"
    with pytest.raises(QasError, match="once has no option"):
        minimize(Witness(), ANSATZ.angles, method=once, memory=3)
