"""What every problem must keep."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qas.circuits import Circuit
from qas.errors import CircuitError, QasError
from qas.problems import BaseProblem, Problem, load_problem, problem_from_json
from qas.testing.random import random_circuit


class ProblemContract:
    """A problem that is known by name: subclass this and set `name`, or give several by the fixture `problem`.

    ::

        class TestLadder(ProblemContract):
            name = "ladder-2"
    """

    name: str
    """What `qas.load_problem` takes."""

    @pytest.fixture
    def problem(self) -> BaseProblem:
        """The problem under test."""
        return load_problem(self.name)

    @pytest.fixture
    def circuits(self, problem: BaseProblem) -> list[Circuit]:
        """Circuits that it judges; random ones of its gates unless a subclass knows better."""
        rng = np.random.default_rng(0)
        sizes = range(0, min(problem.max_gates, 10) + 1, 3)
        return [random_circuit(problem.n_qubits, size, rng, problem.search_gates) for size in sizes]

    def test_energies_lie_within_the_bounds(self, problem: BaseProblem, circuits: list[Circuit]) -> None:
        assert problem.n_qubits >= 1 and problem.max_gates >= 1 and problem.search_gates
        assert problem.lower_bound <= problem.exact + 1e-9 < problem.mixed_energy + 2e-9
        assert 0 < problem.spread < np.inf
        energies = [problem.energy(circuit) for circuit in circuits]
        assert np.isfinite(energies).all() and np.ptp(energies) <= problem.spread + 1e-9
        assert min(energies) >= problem.exact - 1e-9 * max(1.0, abs(problem.exact))

    def test_error_and_success_belong_together(self, problem: BaseProblem) -> None:
        assert problem.threshold is not None and problem.threshold > 0
        assert problem.error(problem.exact) == 0 and problem.solved(problem.exact)
        assert problem.error(problem.exact + 0.25) == pytest.approx(0.25)
        assert problem.solved(problem.exact + 0.9 * problem.threshold)
        assert not problem.solved(problem.exact + 1.1 * problem.threshold)

    def test_reference_states_are_ordered(self, problem: BaseProblem) -> None:
        known = [value for value in (problem.product_state, problem.basis_state) if value is not None]
        slack = 1e-9 * max(1.0, abs(problem.exact))
        assert all(low <= high + slack for low, high in zip([problem.exact, *known], known, strict=False))

    def test_the_objective_is_the_energy_with_its_gradient(self, problem: BaseProblem, circuits: list[Circuit]) -> None:
        simulator = problem.simulator()
        assert problem.simulated == (simulator is not None)
        for circuit in circuits:
            objective = problem.objective(circuit, simulator)
            value, gradient = objective.value_and_gradient(circuit.angles)
            assert value == pytest.approx(problem.energy(circuit), abs=1e-9)
            assert (objective.nfev, objective.njev, len(gradient)) == (1, 1, circuit.n_angles)
            for k in range(min(circuit.n_angles, 3)):
                step = 1e-5 * np.eye(circuit.n_angles)[k]
                slope = (objective(circuit.angles + step) - objective(circuit.angles - step)) / 2e-5
                assert gradient[k] == pytest.approx(slope, abs=1e-5 * max(1.0, problem.spread))
        with pytest.raises(CircuitError):
            problem.objective(Circuit(problem.n_qubits + 1), simulator)(np.zeros(0))

    def test_simplified_circuits_have_the_same_energy(self, problem: BaseProblem, circuits: list[Circuit]) -> None:
        for circuit in circuits:
            short = problem.simplify(circuit)
            assert len(short) <= len(circuit)
            assert problem.energy(short) == pytest.approx(problem.energy(circuit), abs=1e-8 * max(1.0, problem.spread))

    def test_a_perfect_device_only_where_there_is_no_simulator(self, problem: BaseProblem) -> None:
        if not problem.simulated:
            for given in ({"engine": "statevector"}, {"shots": 10}):
                with pytest.raises(QasError, match="without a simulator"):
                    problem.simulator(**given)  # type: ignore[arg-type]

    def test_files_keep_every_bit(self, problem: BaseProblem, tmp_path: Path) -> None:
        text = json.dumps(problem.to_json(), allow_nan=False)
        again = problem_from_json(json.loads(text))
        assert again == problem and json.dumps(again.to_json()) == text
        problem.save(tmp_path / "problem.json")
        assert load_problem(tmp_path / "problem.json") == problem
        for damage in ({"version": 10**6}, {"name": "a/b"}, {"threshold": -1.0}):
            with pytest.raises(QasError) as caught:
                problem_from_json(json.loads(text) | damage)
            assert "\n" not in str(caught.value)

    def test_the_operator_has_the_energies_it_tells(self, problem: BaseProblem, circuits: list[Circuit]) -> None:
        """Only for problems of a Hamiltonian, up to 8 qubits."""
        if not isinstance(problem, Problem) or problem.n_qubits > 8:
            return
        matrix = problem.hamiltonian.to_matrix()
        assert problem.exact == pytest.approx(np.linalg.eigvalsh(matrix)[0], abs=1e-9)
        assert problem.basis_state == pytest.approx(np.diag(matrix).real.min(), abs=1e-9)
        assert problem.mixed_energy == pytest.approx(np.trace(matrix).real / len(matrix), abs=1e-9)
        for circuit in circuits:
            state = circuit.to_matrix()[:, 0]
            assert problem.energy(circuit) == pytest.approx((state.conj() @ matrix @ state).real, abs=1e-9)
