"""`qas.evaluate`: engines agree, shots scatter as they say, and input that does not fit is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import qas
from qas.circuits import Circuit
from qas.errors import CircuitError, QasError, TooLargeError, UnknownNameError
from qas.evaluation import EvaluationReport, evaluate
from qas.simulators.aer import AerSimulator

CIRCUIT = Circuit(2, [("ry", 0, 0.4), ("cx", (0, 1)), ("rx", 1, -0.7), ("cx", (1, 0)), ("rz", 0, 0.2)])


def test_exact_values() -> None:
    problem = qas.load_problem("h2-2")
    report = evaluate(CIRCUIT, "h2-2", noise="ibm-mumbai")
    assert report == qas.evaluate(CIRCUIT, problem, noise=qas.load_noise("ibm-mumbai"))
    assert report.engine == "pauli-transfer" and report.noise == "ibm-mumbai" and report.standard_error is None
    assert report.error == pytest.approx(report.energy - problem.exact, abs=1e-12)
    perfect = evaluate(CIRCUIT, problem)
    assert perfect.engine == "statevector" and perfect.noise is None
    assert perfect.energy == perfect.noise_free_energy == pytest.approx(report.noise_free_energy, abs=1e-12)
    assert perfect.error >= -1e-12
    assert (report.gates, report.two_qubit_gates, report.depth) == (5, 2, CIRCUIT.depth)
    assert report.counts == CIRCUIT.counts and report.exact == problem.exact and report.unit == "hartree"


@pytest.mark.parametrize("noise", [None, "ibm-mumbai"])
def test_aer_agrees(noise: str | None) -> None:
    ours, theirs = evaluate(CIRCUIT, "h2-2", noise=noise), evaluate(CIRCUIT, "h2-2", noise=noise, engine="aer")
    for engine in (AerSimulator, AerSimulator(qas.load_noise(noise))):
        assert evaluate(CIRCUIT, "h2-2", noise=noise, engine=engine) == theirs
    assert theirs.engine == "aer"
    assert theirs.energy == pytest.approx(ours.energy, abs=1e-10)
    assert theirs.noise_free_energy == pytest.approx(ours.noise_free_energy, abs=1e-10)


@pytest.mark.parametrize(("engine", "count"), [(None, 400), ("aer", 12)])
@pytest.mark.parametrize("noise", [None, "ibm-mumbai"])
def test_shots_scatter_by_the_standard_error(engine: str | None, count: int, noise: str | None) -> None:
    exact = evaluate(CIRCUIT, "h2-2", noise=noise).energy
    reports = [evaluate(CIRCUIT, "h2-2", noise=noise, shots=500, engine=engine, seed=s) for s in range(count)]
    errors = np.array([r.standard_error for r in reports], dtype=float)
    deviations = (np.array([r.energy for r in reports]) - exact) / errors
    assert abs(deviations.mean()) < 4.5 / np.sqrt(count)
    assert deviations.std() == pytest.approx(1.0, abs=4.5 / np.sqrt(2 * count))
    assert reports[0] == evaluate(CIRCUIT, "h2-2", noise=noise, shots=500, engine=engine, seed=0)
    assert reports[0].noise_free_energy == pytest.approx(evaluate(CIRCUIT, "h2-2").energy, abs=1e-10)


def test_json() -> None:
    report = evaluate(CIRCUIT, "h2-2", noise="depolarizing", shots=100)
    data = json.loads(json.dumps(report.to_json()))
    assert data["shots"] == 100 and data["standard_error"] > 0 and data["solved"] is report.solved
    assert Circuit.from_qasm(data["qasm"]) == CIRCUIT
    assert isinstance(report, EvaluationReport)


def test_a_solution_is_solved() -> None:
    best = qas.evaluate(Circuit(2, [("x", 0), ("h", 0)]), qas.problem({"IX": 1.0}, exact=-1.0))
    assert best.solved and best.error == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"problem": "h2-22"}, UnknownNameError, "h2-2"),
        ({"noise": "ibm-mumbay"}, UnknownNameError, "ibm-mumbai"),
        ({"engine": "areo"}, UnknownNameError, "aer"),
        ({"problem": "lih-4"}, CircuitError, "2 qubits, but problem lih-4 needs 4"),
        ({"shots": 0}, QasError, "shots"),
        ({"shots": 1.5}, QasError, "shots"),
        ({"seed": -1}, QasError, "seed"),
        ({"problem": 3}, QasError, "problem"),
        ({"circuit": "x"}, QasError, "Circuit"),
        ({"noise": "ibm-mumbai", "engine": "statevector"}, QasError, "statevector"),
        ({"noise": "ibm-mumbai", "problem": "tfim-14", "circuit": Circuit(14, [("h", 3)])}, TooLargeError, "GB"),
    ],
)
def test_bad_input(change: dict[str, object], error: type[QasError], message: str) -> None:
    arguments: dict[str, object] = {"circuit": CIRCUIT, "problem": "h2-2"} | change
    with pytest.raises(error, match=message) as caught:
        evaluate(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
