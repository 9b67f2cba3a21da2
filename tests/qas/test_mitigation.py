"""Mitigation of measured energies: each step against dense matrices, shots against their standard errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import qas
from qas.circuits import Circuit
from qas.errors import QasError, TooLargeError, UnknownNameError
from qas.mitigation import Linear, Richardson, make_objective, read_mitigation
from qas.mitigation.counting import Counts, Flips, outcome_probabilities, settings_of
from qas.mitigation.folding import folded, folded_qiskit
from qas.mitigation.symmetry import verification
from qas.simulators.dense import dense_expectation, density_matrix
from qas.simulators.pauli_transfer import PauliTransferSimulator

NOISE = qas.NoiseModel.depolarizing(1e-3, 8e-3).add_readout(0.02, 0.05).add_readout(0.07, 0.01, [1])
LIH = Circuit(
    4,
    [("ry", 0, 0.5), ("ry", 2, -0.3), ("x", 0), ("cx", (0, 2)), ("rzz", (1, 3), 0.4), ("ry", 1, 3.0), ("cx", (1, 0))]
    + [("rx", 3, 0.2), ("cz", (3, 2)), ("ry", 3, 0.1)],
)


def expectation(problem: qas.problems.Problem, noise: qas.NoiseModel, scale: float = 1.0) -> float:
    return dense_expectation(folded(LIH, scale), problem.hamiltonian, noise)


def test_exact_steps_are_those_of_dense_matrices() -> None:
    problem = qas.load_problem("lih-4")
    unflipped = replace(NOISE, readout={})
    found = qas.evaluate(LIH, problem, noise=NOISE, mitigate="readout,symmetry,zne:fit=richardson,nodes=1-3").mitigated
    assert found is not None
    projector = verification(problem).projector.to_matrix()
    verified = {}
    for scale in (1.0, 3.0):
        rho = density_matrix(folded(LIH, scale), unflipped)
        kept = projector @ rho @ projector
        verified[scale] = (np.trace(problem.hamiltonian.to_matrix() @ kept) / np.trace(kept)).real
    expected = {
        "as measured": expectation(problem, NOISE),
        "readout inverted": expectation(problem, unflipped),
        "symmetry verified": verified[1.0],
        "extrapolated": Richardson()((1, 3), (verified[1.0], verified[3.0])).value,
    }
    assert {step.name: step.energy for step in found.steps} == pytest.approx(expected, abs=1e-10)
    assert found.kept == pytest.approx(np.trace(projector @ density_matrix(LIH, unflipped)).real, abs=1e-10)


@pytest.mark.parametrize("name", ["h2-4", "lih-4", "tfim-3"])
def test_the_ground_state_lies_in_the_verified_sector(name: str) -> None:
    problem = qas.load_problem(name)
    found = verification(problem)
    projector, matrix = found.projector.to_matrix(), problem.hamiltonian.to_matrix()
    assert np.abs(projector @ projector - projector).max() < 1e-10
    assert np.abs(found.projected.to_matrix() - projector @ matrix).max() < 1e-10
    lowest = np.linalg.eigvalsh(matrix + 100 * (np.eye(len(matrix)) - projector))[0]
    assert lowest == pytest.approx(problem.exact, abs=1e-9)
    assert np.trace(projector).real < len(matrix) - 0.5


def test_folded_circuits_prepare_the_same_state_with_so_many_gates() -> None:
    whole = folded(LIH, 5)
    assert whole.two_qubit_gates == 5 * LIH.two_qubit_gates
    overlap = np.trace(whole.to_matrix().conj().T @ LIH.to_matrix()) / 16
    assert abs(overlap) == pytest.approx(1.0, abs=1e-12)
    theirs = folded_qiskit(LIH.to_qiskit(), 5)
    assert np.abs(Circuit.from_qiskit(theirs).to_matrix() - whole.to_matrix()).max() < 1e-12
    assert folded(LIH, 1) == LIH.decompose()


def test_bit_strings_tell_every_term_whatever_the_flips() -> None:
    problem = qas.load_problem("lih-4")
    settings = settings_of([problem.hamiltonian])
    measured = sorted(string for setting in settings for string in setting.strings)
    assert measured == sorted(string for string in problem.hamiltonian.terms if set(string) != {"I"})
    vector = PauliTransferSimulator(NOISE).pauli_expectations(LIH)
    flips = NOISE.readout_flips(4)
    read = [outcome_probabilities(vector, setting.basis, flips) for setting in settings]
    counts = Counts(settings, read, [10] * len(settings))
    raw = counts.estimates([problem.hamiltonian]).values[0]
    assert raw == pytest.approx(expectation(problem, NOISE), abs=1e-10)
    inverted = counts.estimates([problem.hamiltonian], Flips.known(flips)).values[0]
    assert inverted == pytest.approx(expectation(problem, replace(NOISE, readout={})), abs=1e-10)


@pytest.mark.parametrize("steps", ["readout,zne:fit=linear,nodes=1-3", "readout,symmetry:by=number,zne"])
def test_shots_scatter_by_the_standard_error(steps: str) -> None:
    exact = qas.evaluate(LIH, "lih-4", noise=NOISE, mitigate=steps).mitigated
    assert exact is not None
    found = [qas.evaluate(LIH, "lih-4", noise=NOISE, mitigate=steps, shots=10**6, seed=s).mitigated for s in range(30)]
    for k, step in enumerate(exact.steps):
        pulls = np.array([(f.steps[k].energy - step.energy) / f.steps[k].standard_error for f in found if f])
        assert abs(pulls.mean()) < 3.5 / np.sqrt(30)
        assert pulls.std() == pytest.approx(1.0, abs=3.5 / np.sqrt(60))
    assert found[0] is not None and abs(found[0].shots - 10**6) < 100


def test_a_search_objective_and_an_evaluation_say_the_same() -> None:
    circuit = Circuit(4, [gate for gate in LIH if gate.name != "rzz"])
    objective = make_objective("zne:nodes=1-3,fit=linear,scale=fold")
    found = objective.simulator(PauliTransferSimulator(NOISE)).estimate(circuit, qas.load_problem("lih-4").hamiltonian)
    steps = "readout,zne:fit=linear,nodes=1-3"
    exact = qas.evaluate(circuit, "lih-4", noise=NOISE, mitigate=steps).mitigated
    drawn = qas.evaluate(circuit, "lih-4", noise=NOISE, mitigate=steps, shots=objective.shots).mitigated
    assert exact is not None and exact.energy == pytest.approx(found.mitigated, abs=1e-10)
    assert drawn is not None and drawn.standard_error == pytest.approx(found.sigma, rel=0.1)


def test_flips_that_were_measured_add_to_the_standard_error() -> None:
    problem, rng = qas.load_problem("lih-4"), np.random.default_rng(0)
    settings = settings_of([problem.hamiltonian])
    vector, flips = PauliTransferSimulator(NOISE).pauli_expectations(LIH), NOISE.readout_flips(4)
    states = [np.eye(16)[k] for k in (0, 15)]
    maps = np.eye(1)
    for p01, p10 in flips:
        maps = np.kron(np.array([[1 - p01, p10], [p01, 1 - p10]]), maps)
    values, errors = [], []
    for _ in range(40):
        read = [rng.multinomial(10**6, outcome_probabilities(vector, s.basis, flips)) / 10**6 for s in settings]
        zeros, ones = (rng.multinomial(2000, maps @ state) / 2000 for state in states)
        known = Flips.measured(zeros, ones, 2000)
        found = Counts(settings, read, [10**6] * len(settings)).estimates([problem.hamiltonian], known)
        values.append(found.values[0])
        errors.append(np.sqrt(found.covariance[0, 0]))
    unflipped = expectation(problem, replace(NOISE, readout={}))
    assert np.mean(values) == pytest.approx(unflipped, abs=3.5 * errors[0] / np.sqrt(40))
    assert np.std(values) == pytest.approx(np.mean(errors), rel=3.5 / np.sqrt(80))


def test_steps_are_read_from_text_and_told_back() -> None:
    text = "readout,symmetry:by=number-z2,zne:fit=poly-exponential:degree=2,nodes=5-1-3"
    recipe = read_mitigation(text)
    assert (recipe.readout, recipe.symmetries, recipe.nodes) == (True, ("number", "z2"), (1.0, 3.0, 5.0))
    assert read_mitigation(recipe) is recipe
    assert str(recipe) == "readout,symmetry:by=number-z2,zne:fit=poly-exponential,nodes=1-3-5"
    steep = "zne:fit=poly-exponential:degree=3,nodes=1-3-5-7"
    assert str(read_mitigation(steep)) == steep
    own = replace(recipe, extrapolation=Linear())
    assert str(own).endswith("zne:fit=linear,nodes=1-3-5")


def test_an_extrapolation_that_fails_warns_and_is_finite() -> None:
    problem = qas.problem({"Z": 1.0, "X": 0.2})  # the energy is that of infinite noise, and values lie on both sides
    circuit = Circuit(1, [("rx", 0, np.pi / 2)])
    with pytest.warns(UserWarning, match="a straight line was fitted instead"):
        noise = qas.NoiseModel.depolarizing(1e-3, 1e-2)
        found = qas.evaluate(circuit, problem, noise=noise, mitigate="zne", shots=2000, seed=2).mitigated
    assert found is not None and found.fallback and np.isfinite(found.energy)


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        ("reedout", UnknownNameError, "did you mean 'readout'"),
        ("zne:nodes=1", QasError, "two or more"),
        ("zne:nodes=1-2", QasError, "gate folding makes the noise 1, 3, 5"),
        ("zne:fit=poly-exponential,nodes=1-3", QasError, "at least 3 nodes, got 2"),
        ("zne:fit=exponentail", UnknownNameError, "exponential"),
        ("zne:knots=1-3", UnknownNameError, "nodes"),
        ("readout:by=number", QasError, "has no settings"),
        ("readout,readout", QasError, "twice"),
        ("symmetry:by=z2", QasError, "lih-4 does not conserve a Pauli string"),
        ("symmetry:by=charge", UnknownNameError, "number"),
        ("", UnknownNameError, "mitigation"),
    ],
)
def test_bad_steps(steps: str, error: type[QasError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        qas.evaluate(LIH, "lih-4", noise=NOISE, mitigate=steps)
    assert "\n" not in str(caught.value)


def test_bad_circumstances(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QasError, match="has none"):
        qas.evaluate(Circuit(1, [("x", 0)]), qas.problem({"Z": 1.0, "X": 0.5, "Y": 0.2}), mitigate="symmetry")
    with pytest.raises(TooLargeError, match="up to 8 qubits, got 10"):
        qas.evaluate(Circuit(10, []), "tfim-10", mitigate="symmetry")
    random = qas.NoiseModel().add_readout(0.5, 0.5)
    for shots in (100, None):
        with pytest.raises(QasError, match="tells 0 from 1"):
            qas.evaluate(LIH, "lih-4", noise=random, mitigate="readout", shots=shots)
    with pytest.raises(QasError, match="text or a list of it, got 3"):
        qas.evaluate(LIH, "lih-4", noise=NOISE, mitigate=3)  # type: ignore[arg-type]
    with pytest.raises(QasError, match="draws its shots"):
        qas.evaluate(LIH, "lih-4", noise=NOISE, mitigate="readout", shots=100, engine="aer")
    with pytest.raises(TooLargeError, match="at most 13 noisy qubits, got 14"):
        qas.evaluate(Circuit(14, []), "tfim-14", noise=NOISE, mitigate="readout", shots=100)
    monkeypatch.setattr("qas.mitigation.recipe.memory_limit", lambda: 9_000)
    with pytest.raises(TooLargeError, match=r"75 measured distributions of 4 qubits need 0\.0 GB"):
        qas.evaluate(LIH, "lih-4", noise=NOISE, mitigate="zne", shots=100)
