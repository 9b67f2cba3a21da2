"""Pools of operators: generators against ladder operators as dense matrices, gates against generators."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.linalg import expm

import qas
from qas.circuits import Circuit, Gate
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.excitations import POOLS, excitations, generators_of, operator_pool, pauli_rotation
from qas.fermions import Molecule
from qas.hamiltonians import Hamiltonian
from qas.simulators import make_simulator
from qas.simulators.dense import circuit_matrix
from qas.tapering import Tapering

X, Y, Z = (Hamiltonian({letter: 1.0}).to_matrix() for letter in "XYZ")


def ladder(p: int, n: int, *, creates: bool, z: bool = True) -> np.ndarray:
    """a_p or a†_p of the Jordan-Wigner encoding, spin orbital p on qubit p; without `z` of qubits."""
    matrix = np.eye(1)
    for q in range(n):
        local = (X - 1j * Y) / 2 if creates else (X + 1j * Y) / 2
        matrix = np.kron(local if q == p else Z if q < p and z else np.eye(2), matrix)
    return matrix


def cluster(excitation: tuple[tuple[int, ...], tuple[int, ...]], n: int, *, z: bool = True) -> np.ndarray:
    """T - T† with T = a†_a a_i or a†_a a†_b a_j a_i."""
    taken, given = excitation
    matrix = np.eye(1 << n)
    for p in given:
        matrix = matrix @ ladder(p, n, creates=True, z=z)
    for p in reversed(taken):
        matrix = matrix @ ladder(p, n, creates=False, z=z)
    return matrix - matrix.conj().T


def problem_of(molecule: Molecule) -> SimpleNamespace:
    return SimpleNamespace(molecule=molecule, n_qubits=molecule.n_qubits, name="drawn")


def check_gates(operators: list[qas.excitations.Operator], n: int, rng: np.random.Generator) -> None:
    """Gates are the exponentials of their generators up to a global phase."""
    for operator in operators:
        angles = rng.normal(size=len(operator.generators))
        expected = expm(-0.5j * sum(a * g.to_matrix() for a, g in zip(angles, operator.generators, strict=True)))
        assert np.abs(circuit_matrix(Circuit(n, operator.at(*angles))) - expected).max() < 1e-12, operator.name


@pytest.mark.parametrize("mapping", ["jordan-wigner", "jordan-wigner-interleaved"])
@pytest.mark.parametrize("kind", ["fermionic", "qeb"])
def test_excitations_are_those_of_ladder_operators(kind: str, mapping: str) -> None:
    molecule = Molecule(3, 2, 1, mapping)
    chosen = list(excitations(molecule, generalized=True))
    operators = operator_pool(problem_of(molecule), kind, generalized=True)
    assert len(operators) == len(chosen) == 6 + 18
    check_gates(operators, 6, np.random.default_rng(0))
    for operator, excitation in zip(operators, chosen, strict=True):
        if mapping == "jordan-wigner":
            expected = 2j * cluster(excitation, 6, z=kind == "fermionic")
            assert np.abs(operator.generators[0].to_matrix() - expected).max() < 1e-12, operator.name
    if kind == "fermionic":
        plain = operator_pool(problem_of(Molecule(3, 2, 1)), kind, generalized=True)
        encoded = [molecule.encode(operator.generators[0]) for operator in plain]
        assert encoded == [operator.generators[0] for operator in operators]


def test_pools_from_the_reference_and_from_everywhere() -> None:
    problem = problem_of(Molecule(4, 2, 2))
    assert [len(operator_pool(problem, kind)) for kind in POOLS] == [26, 26, 52, 30, 160, 276]
    assert [len(operator_pool(problem, kind, generalized=True)) for kind in POOLS] == [90, 90, 96, 54, 328, 276]
    for kind in POOLS:
        operators = operator_pool(problem, kind)
        assert len({operator.generators for operator in operators}) == len(operators)
        check_gates(operators[:: 1 + len(operators) // 4], 8, np.random.default_rng(1))


@pytest.mark.parametrize("kind", ["fermionic", "qeb", "ceo", "ceo-mvp"])
def test_pools_conserve_electrons(kind: str) -> None:
    molecule = Molecule(3, 1, 2)
    bits = np.arange(64)
    alpha, beta = np.bitwise_count(bits & 7), np.bitwise_count(bits >> 3)
    for operator in operator_pool(problem_of(molecule), kind, generalized=True):
        for generator in operator.generators:
            rows, columns = np.nonzero(np.abs(generator.to_matrix()) > 1e-12)
            conserved = (alpha[rows] == alpha[columns]).all() and (beta[rows] == beta[columns]).all()
            assert conserved, operator.name


def test_slopes_at_the_reference_are_those_of_the_gates() -> None:
    problem = qas.load_problem("lih-6")
    simulator = make_simulator()
    reference = problem.reference_circuit
    for kind in POOLS:
        operators = operator_pool(problem, kind)
        flat = [g for operator in operators for g in operator.generators]
        slopes = iter(simulator.insertion_gradients(reference, problem.hamiltonian, flat)[-1])
        for operator in operators:
            circuit = Circuit(problem.n_qubits, [*reference, *operator.at(*[0.0] * len(operator.generators))])
            _, gradient = simulator.expectation_and_gradient(circuit, problem.hamiltonian)
            for found in gradient:
                assert found == pytest.approx(next(slopes), abs=1e-10), (kind, operator.name)


def test_tapered_and_other_encodings_have_strings() -> None:
    tapering = Tapering(("IIIZZZ", "ZZZIII"), (-1, -1))
    for molecule in (
        Molecule(3, 1, 1, "jordan-wigner", tapering),
        Molecule(3, 1, 1, "parity"),
        Molecule(3, 1, 1, "bravyi-kitaev"),
    ):
        for kind in ("fermionic", "qeb", "ceo", "qubit"):
            operators = operator_pool(problem_of(molecule), kind, generalized=True)
            strings = [operator.name for operator in operators]
            assert len(set(strings)) == len(strings) > 0
            assert all(len(string) == molecule.n_qubits for string in strings)
            check_gates(operators[::7], molecule.n_qubits, np.random.default_rng(2))
        plain = operator_pool(problem_of(Molecule(3, 1, 1)), "fermionic", generalized=True)
        kept = [g for operator in plain for g in operator.generators if molecule.conserved_by(g)]
        assert {s for g in kept for s in molecule.encode(g).strings} == {
            operator.name for operator in operator_pool(problem_of(molecule), "fermionic", generalized=True)
        }


@pytest.mark.parametrize("string", ["X", "IYI", "ZIXY", "XXII", "YYYY", "ZZ", "XXXX", "ZXIY"])
def test_rotations_about_strings(string: str) -> None:
    weight = sum(letter != "I" for letter in string)
    circuit = Circuit(len(string), pauli_rotation(string, 0.7))
    expected = expm(-0.35j * Hamiltonian({string: 1.0}).to_matrix())
    assert np.abs(circuit_matrix(circuit) - expected).max() < 1e-13
    assert circuit.two_qubit_gates == 2 * (weight - 1) and circuit.n_angles == 1


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    spins = qas.load_problem("tfim-4")
    for kind in list(POOLS)[:-1]:
        with pytest.raises(QasError, match=f"the {kind} pool excites electrons of a molecule, got tfim-4"):
            operator_pool(spins, kind)
    assert len(operator_pool(spins, "pauli")) == 12 + 54
    with pytest.raises(UnknownNameError, match="unknown operator pool 'qubits'; did you mean 'qubit'"):
        operator_pool(spins, "qubits")
    with pytest.raises(QasError, match="4 electrons in 2 orbitals have no excitations"):
        operator_pool(problem_of(Molecule(2, 2, 2)), "qeb")
    with pytest.raises(QasError, match="not the identity, got 'III'"):
        pauli_rotation("III")
    with pytest.raises(CircuitError, match="generators are those of an excitation, got rx"):
        generators_of(Gate("rx", (0,), (0.1,)), 2)
    with pytest.raises(CircuitError, match=r"takes 1 angle\(s\), got 2"):
        operator_pool(problem_of(Molecule(2, 1, 1)), "qeb")[0].at(0.1, 0.2)
