"""The compiled BFGS against SciPy's L-BFGS-B on random architectures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.optimize import OptimizeResult, minimize

from qas.circuits import Circuit
from qas.errors import CircuitError
from qas.hamiltonians import Hamiltonian
from qas.noise import load_noise
from qas.optimizers import bfgs
from qas.problems import load_problem
from qas.simulators import make_simulator
from qas.simulators.compiled import CompiledSimulator
from qas.testing import random_circuit, random_hamiltonian

SEED = 667_120_945
HAMILTONIAN = load_problem("lih-4").hamiltonian
SEARCH_SET = ["rx", "ry", "rz", "cx"]
COUNT = 60


def engine(noise: str | None = None) -> CompiledSimulator:
    simulator = make_simulator(noise)
    assert isinstance(simulator, CompiledSimulator)
    return simulator


def scipy_minimum(simulator: CompiledSimulator, circuit: Circuit, start: np.ndarray) -> OptimizeResult:
    objective = simulator.objective(circuit, HAMILTONIAN)
    options = {"maxiter": 5000, "maxfun": 10_000, "ftol": 1e-16, "gtol": 1e-11, "maxcor": 30}
    return minimize(objective.value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)


def lowest_curvature(simulator: CompiledSimulator, circuit: Circuit, x: np.ndarray) -> float:
    """Smallest eigenvalue of the Hessian, by differences of exact gradients."""
    step = 1e-5
    rows = []
    for k in range(len(x)):
        shift = step * np.eye(len(x))[k]
        up = simulator.expectation_and_gradient(circuit, HAMILTONIAN, x + shift)[1]
        down = simulator.expectation_and_gradient(circuit, HAMILTONIAN, x - shift)[1]
        rows.append((up - down) / (2 * step))
    hessian = np.array(rows)
    return float(np.linalg.eigvalsh((hessian + hessian.T) / 2)[0])


@dataclass
class Case:
    circuit: Circuit
    start: np.ndarray
    found: OptimizeResult
    remaining: float
    """what SciPy still gains from our result"""
    scipy: float
    """what SciPy finds from the same start"""


@pytest.fixture(scope="module", params=[None, "ibm-mumbai"], ids=["noise-free", "ibm-mumbai"])
def simulator(request: pytest.FixtureRequest) -> CompiledSimulator:
    return engine(request.param)


@pytest.fixture(scope="module")
def cases(simulator: CompiledSimulator) -> list[Case]:
    rng = np.random.default_rng(SEED)
    result = []
    for _ in range(COUNT):
        circuit = random_circuit(4, 20, rng, gates=SEARCH_SET)
        start = np.array(circuit.angles)
        found = bfgs.minimize_bfgs(simulator, circuit, HAMILTONIAN, start, None, 1e-9)
        polished = scipy_minimum(simulator, circuit, found.x)
        same_start = scipy_minimum(simulator, circuit, start)
        result.append(Case(circuit, start, found, float(found.fun - polished.fun), float(same_start.fun)))
    return result


def test_nothing_is_left_to_gain_except_at_saddles(simulator: CompiledSimulator, cases: list[Case]) -> None:
    left = [case for case in cases if case.remaining >= 1e-8]
    if simulator.noise is None:
        assert len(left) <= COUNT // 8, [case.remaining for case in left]
        for case in left:
            assert np.abs(case.found.jac).max() < 1e-4, "stopped on a slope"
            assert lowest_curvature(simulator, case.circuit, case.found.x) < -1e-8, "stopped short of a minimum"
        return
    # Noise tilts directions that are flat without it by very little: there, a tolerance of 1e-9 is no promise.
    assert all(case.remaining < 1e-3 and np.abs(case.found.jac).max() < 1e-4 for case in cases)
    tight = [bfgs.minimize_bfgs(simulator, c.circuit, HAMILTONIAN, c.start, None, 1e-12) for c in cases[:20]]
    ends = [scipy_minimum(simulator, c.circuit, r.x).fun for c, r in zip(cases, tight, strict=False)]
    remaining = np.array([r.fun - end for r, end in zip(tight, ends, strict=True)])
    assert np.median(remaining) < 1e-8 and remaining.max() < 1e-3


def test_it_finds_as_good_minima_as_scipy_from_the_same_start(simulator: CompiledSimulator, cases: list[Case]) -> None:
    """Both are local methods and may end in different minima; neither may be worse on the whole."""
    margin = 1e-8 if simulator.noise is None else 1e-3
    difference = np.array([case.found.fun - case.scipy for case in cases])
    worse, better = int((difference > margin).sum()), int((difference < -margin).sum())
    assert worse <= COUNT // 4, (worse, better)
    assert worse - better <= COUNT // 6, (worse, better)
    assert abs(float(np.median(difference))) < margin
    assert float(difference.mean()) < 5e-3


def test_the_result_is_what_it_says(simulator: CompiledSimulator, cases: list[Case]) -> None:
    for case in cases:
        found = case.found
        energy, gradient = simulator.expectation_and_gradient(case.circuit, HAMILTONIAN, found.x)
        assert abs(found.fun - energy) < 1e-12
        assert np.abs(found.jac - gradient).max() < 1e-11
        assert found.success and found.nfev == found.njev and found.nit <= found.nfev
        assert found.fun <= simulator.expectation(case.circuit, HAMILTONIAN, case.start) + 1e-14


def test_the_budget_is_obeyed_and_the_counts_are_honest(simulator: CompiledSimulator, cases: list[Case]) -> None:
    for case in cases[:12]:
        full = case.found.nfev
        previous = np.inf
        for budget in sorted({1, 2, 3, 5, 8, full - 1, full, full + 1, 10 * full} - {0}):
            objective = simulator.objective(case.circuit, HAMILTONIAN)
            result = objective.minimize_compiled(case.start, budget, 1e-9)  # type: ignore[attr-defined]
            assert result.nfev == min(budget, full) == objective.nfev == objective.njev
            assert result.success == (budget >= full)
            assert result.fun <= previous, "more budget never gives a worse result"
            assert abs(result.fun - simulator.expectation(case.circuit, HAMILTONIAN, result.x)) < 1e-12
            previous = result.fun
        assert previous == case.found.fun


def test_it_is_deterministic_and_leaves_the_start_alone(simulator: CompiledSimulator, cases: list[Case]) -> None:
    for case in cases[:10]:
        start = case.start.copy()
        again = bfgs.minimize_bfgs(simulator, case.circuit, HAMILTONIAN, start, None, 1e-9)
        assert np.array_equal(start, case.start)
        assert np.array_equal(again.x, case.found.x)
        assert (again.fun, again.nfev, again.nit) == (case.found.fun, case.found.nfev, case.found.nit)


def test_a_looser_tolerance_costs_less_and_ends_higher(simulator: CompiledSimulator, cases: list[Case]) -> None:
    loose = [bfgs.minimize_bfgs(simulator, c.circuit, HAMILTONIAN, c.start, None, 1e-3) for c in cases]
    assert sum(r.nfev for r in loose) < 0.8 * sum(c.found.nfev for c in cases)
    assert np.mean([r.fun - c.found.fun for r, c in zip(loose, cases, strict=True)]) > 0


def test_without_angles_there_is_one_evaluation(simulator: CompiledSimulator) -> None:
    for circuit in (Circuit(4), Circuit(4, [("cx", (0, 1)), ("x", 2)])):
        result = bfgs.minimize_bfgs(simulator, circuit, HAMILTONIAN, np.empty(0))
        assert result.x.shape == (0,) and result.nfev == 1 and result.success
        assert result.fun == pytest.approx(simulator.expectation(circuit, HAMILTONIAN), abs=1e-13)


def test_angles_that_do_nothing_are_no_trouble(simulator: CompiledSimulator) -> None:
    """The gradient is zero from the start, or always zero in one direction."""
    flat = bfgs.minimize_bfgs(simulator, Circuit(4, [("rz", 0, 0.3)]), HAMILTONIAN, np.array([0.3]))
    assert flat.success and flat.x == pytest.approx([0.3]) and flat.nfev <= 3
    mixed = Circuit(4, [("rz", 0, 0.3), ("ry", 0, 0.2), ("ry", 2, 0.1), ("cx", (0, 1))])
    result = bfgs.minimize_bfgs(simulator, mixed, HAMILTONIAN, mixed.angles)
    assert result.success and np.isfinite(result.x).all()
    assert scipy_minimum(simulator, mixed, result.x).fun > result.fun - 1e-9


def test_one_angle_has_a_known_minimum() -> None:
    hamiltonian = Hamiltonian({"Z": 0.6, "X": -0.8, "I": 2.0})
    result = bfgs.minimize_bfgs(engine(), Circuit(1, [("ry", 0, 0.1)]), hamiltonian, np.array([0.1]), None, 1e-14)
    assert result.fun == pytest.approx(1.0, abs=1e-12)


def test_sizes_beyond_the_full_kernels_work() -> None:
    rng = np.random.default_rng(SEED + 1)
    for n_qubits in (1, 2, 6):
        circuit, hamiltonian = random_circuit(n_qubits, 25, rng), random_hamiltonian(n_qubits, 4, rng)
        for noise in (None, load_noise("depolarizing")):
            simulator = engine(noise)  # type: ignore[arg-type]
            result = bfgs.minimize_bfgs(simulator, circuit, hamiltonian, circuit.angles, 300, 1e-10)
            assert result.fun <= simulator.expectation(circuit, hamiltonian)
            assert np.abs(result.jac).max() < 1e-3


def test_bad_starts_are_refused() -> None:
    circuit = Circuit(4, [("rx", 0, 0.1)])
    for start, words in (([float("nan")], "finite"), ([0.1, 0.2], "1 angles")):
        with pytest.raises(CircuitError, match=words):
            bfgs.minimize_bfgs(engine(), circuit, HAMILTONIAN, np.array(start))
    with pytest.raises(CircuitError, match="at least 1"):
        bfgs.minimize_bfgs(engine(), circuit, HAMILTONIAN, np.array([0.1]), 0)
