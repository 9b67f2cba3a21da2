"""Excitations as gates: matrices, decompositions, engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import expm

from qas import load_run, search
from qas.alphabet import Alphabet
from qas.circuits import Circuit, Gate
from qas.decomposition import lower, steps_of
from qas.encoders.layers import LayerEncoding
from qas.encoders.pools.spaces import CircuitSpace
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.gates import EXCITATIONS, SEARCH_GATES
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel
from qas.optimizers import minimize, minimize_many
from qas.preparation import prepared
from qas.problems import Problem
from qas.simplify import simplify
from qas.simulators import make_simulator
from qas.simulators.dense import circuit_matrix, dense_expectation, embed
from qas.testing.random import random_circuit, random_hamiltonian

CNOTS = {"single_excitation": 2, "double_excitation": 13, "ovp_ceo": 9, "mvp_ceo": 13}
"""Yordanov et al., arXiv:2005.14475; Ramôa et al., arXiv:2407.08696."""


def raising(qubit: int, n: int, *, lower: bool = False) -> np.ndarray:
    local = np.array([[0.0, 1.0], [0.0, 0.0]] if lower else [[0.0, 0.0], [1.0, 0.0]])
    return embed(local, (qubit,), n)


def exchange(n: int, taken: tuple[int, ...], given: tuple[int, ...]) -> np.ndarray:
    """T - T† of qubit excitations, from the operators that raise and lower single qubits."""
    operator = np.eye(1 << n)
    for q in given:
        operator = operator @ raising(q, n)
    for q in taken:
        operator = operator @ raising(q, n, lower=True)
    return operator - operator.conj().T


def random_excitations(n: int, count: int, rng: np.random.Generator) -> Circuit:
    gates = []
    for _ in range(count):
        name = str(rng.choice([name for name, spec in EXCITATIONS.items() if spec.n_qubits <= n]))
        spec = EXCITATIONS[name]
        qubits = tuple(int(q) for q in rng.choice(n, spec.n_qubits, replace=False))
        gates.append(Gate(name, qubits, tuple(rng.normal(size=spec.n_angles).tolist())))
        gates += random_circuit(n, 2, rng).gates
    return Circuit(n, gates)


def same_up_to_phase(a: np.ndarray, b: np.ndarray) -> bool:
    overlap = np.vdot(a, b)
    return bool(np.abs(b - a * overlap / abs(overlap)).max() < 1e-12)


@pytest.mark.parametrize("name", EXCITATIONS)
def test_gates_are_exponentials_of_excitations(name: str) -> None:
    a, b = 0.37, -1.21
    first, second = exchange(4, (0, 1), (2, 3)), exchange(4, (0, 3), (2, 1))
    generators = {
        "single_excitation": [exchange(2, (0,), (1,))],
        "double_excitation": [first],
        "ovp_ceo": [first + second],
        "mvp_ceo": [first, second],
    }[name]
    angles = (a, b)[: len(generators)]
    expected = expm(sum(angle * generator for angle, generator in zip(angles, generators, strict=True)))
    assert np.abs(EXCITATIONS[name].matrix(*angles) - expected).max() < 1e-14


@pytest.mark.parametrize("name", EXCITATIONS)
def test_decompositions_are_the_published_length(name: str) -> None:
    spec = EXCITATIONS[name]
    rng = np.random.default_rng(1)
    qubits = tuple(int(q) for q in rng.permutation(5)[: spec.n_qubits])
    circuit = Circuit(5, [Gate(name, qubits, tuple(rng.normal(size=spec.n_angles)))])
    plain = circuit.decompose()
    assert set(plain.counts) <= set(SEARCH_GATES)
    assert plain.two_qubit_gates == circuit.two_qubit_gates == plain.count("cx") == CNOTS[name]
    assert circuit.depth == plain.depth
    assert same_up_to_phase(circuit_matrix(circuit), circuit_matrix(plain))


def test_a_state_that_is_known_makes_excitations_cheaper() -> None:
    rng = np.random.default_rng(2)
    for name, spec in EXCITATIONS.items():
        for _ in range(15):
            occurring = frozenset(rng.permutation(1 << spec.n_qubits)[: rng.integers(1, 7)].tolist())
            angles = rng.normal(size=spec.n_angles)
            gates = [
                Gate(
                    step.name,
                    step.qubits,
                    () if step.name == "cx" else (step.offset + float(np.dot(step.weights or 0.0, angles).sum()),),
                )
                for step in steps_of(name, occurring)
            ]
            columns = sorted(occurring)
            found = circuit_matrix(Circuit(spec.n_qubits, gates))[:, columns]
            assert same_up_to_phase(spec.matrix(*angles)[:, columns], found), (name, columns)
            assert sum(gate.name == "cx" for gate in gates) <= CNOTS[name]


def test_excitations_of_a_determinant_take_one_cx_or_three() -> None:
    front = [("x", 0), ("x", 1)]
    double = Circuit(6, [*front, ("double_excitation", (0, 1, 4, 5), 0.4)])
    single = Circuit(6, [*front, ("single_excitation", (1, 5), 0.4)])
    nothing = Circuit(6, [*front, ("double_excitation", (0, 2, 4, 5), 0.4)])
    assert [c.decompose(from_zero=True).two_qubit_gates for c in (double, single, nothing)] == [3, 1, 0]
    assert [c.decompose().two_qubit_gates for c in (double, single, nothing)] == [13, 2, 13]


def test_only_the_state_is_kept_from_zero() -> None:
    rng = np.random.default_rng(3)
    for _ in range(12):
        n = int(rng.integers(4, 7))
        front = [("rx", int(q), float(np.pi)) if rng.random() < 0.3 else ("x", int(q)) for q in range(n // 2)]
        excitations = [gate for gate in random_excitations(n, 4, rng) if gate.name in EXCITATIONS]
        between = random_circuit(n, 3, rng).gates if rng.random() < 0.5 else ()
        circuit = Circuit(n, [*front, *excitations[:2], *between, *excitations[2:]])
        plain = circuit.decompose(from_zero=True)
        assert same_up_to_phase(circuit_matrix(circuit)[:, 0], circuit_matrix(plain)[:, 0])
        assert plain.two_qubit_gates <= circuit.two_qubit_gates


@pytest.mark.parametrize("engine", ["statevector", "pauli-transfer", "torch", "aer"])
@pytest.mark.parametrize("noisy", [False, True])
def test_engines_run_what_is_decomposed_with_exact_gradients(engine: str, noisy: bool) -> None:
    if engine == "statevector" and noisy:
        pytest.skip("noise-free")
    noise = NoiseModel.depolarizing(1e-3, 1e-2) if noisy else None
    simulator = make_simulator(engine=engine, noise=noise)
    rng = np.random.default_rng(4)
    circuit, hamiltonian = random_excitations(4, 2, rng), random_hamiltonian(4, 12, rng)
    other = rng.normal(size=circuit.n_angles)
    expected = dense_expectation(circuit.with_angles(other), hamiltonian, noise)
    assert simulator.expectation(circuit, hamiltonian, other) == pytest.approx(expected, abs=1e-10)
    energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian, other)
    assert energy == pytest.approx(expected, abs=1e-10)
    terms = simulator.term_expectations(circuit, hamiltonian, other)
    assert hamiltonian.coefficients @ terms == pytest.approx(expected, abs=1e-9)
    step = 1e-5 * rng.normal(size=circuit.n_angles)
    ahead, behind = (dense_expectation(circuit.with_angles(other + s), hamiltonian, noise) for s in (step, -step))
    assert gradient @ step == pytest.approx((ahead - behind) / 2, abs=1e-12)


def test_insertion_gradients_stand_between_the_gates_as_they_are_written() -> None:
    rng = np.random.default_rng(5)
    circuit, hamiltonian = random_excitations(4, 2, rng), random_hamiltonian(4, 10, rng)
    simulator = make_simulator()
    found = simulator.insertion_gradients(circuit, hamiltonian, ["XYZX", "IIZY"])
    assert found.shape == (len(circuit) + 1, 2)
    for position in range(len(circuit) + 1):
        up, down = (
            simulator.expectation(circuit.insert(position, Gate("ryy", (0, 1), (sign * 1e-4,))), hamiltonian)
            for sign in (1, -1)
        )
        assert simulator.insertion_gradients(circuit, hamiltonian, ["IIYY"])[position, 0] == pytest.approx(
            (up - down) / 2e-4, abs=1e-6
        )
    gains, angles = simulator.append_gains(circuit, hamiltonian, ["IIYY"])
    better = simulator.expectation(circuit.append("ryy", (0, 1), float(angles[0])), hamiltonian)
    assert simulator.expectation(circuit, hamiltonian) - better == pytest.approx(gains[0], abs=1e-10)


def test_tied_angles_are_minimized() -> None:
    hamiltonian = Hamiltonian({"IIZZ": 0.3, "ZIIZ": -0.2, "XXYY": 0.4, "YYXX": 0.1, "IZII": 0.15})
    circuit = Circuit(4, [("x", 0), ("x", 1), ("double_excitation", (0, 1, 2, 3), 0.1)])
    objective = make_simulator().objective(circuit, hamiltonian)
    found = minimize(objective, circuit.angles, tolerance=1e-10)
    assert found.hess_inv.shape == (1, 1)
    scan = [objective(np.array([angle])) for angle in np.linspace(0, np.pi, 2001)]
    assert found.fun <= min(scan) + 1e-9
    with pytest.raises(QasError, match="got excitations or a score"):
        minimize(objective, circuit.angles, method="rotosolve")


@pytest.mark.parametrize("noise", [None, NoiseModel.depolarizing(1e-3, 1e-2)])
def test_compiled_minimization_of_tied_angles(noise: NoiseModel | None) -> None:
    rng = np.random.default_rng(10)
    hamiltonian, simulator = random_hamiltonian(4, 12, rng), make_simulator(noise=noise)
    front = [Gate("ry", (q,), (0.4 + 0.3 * q,)) for q in range(4)]
    circuits = [Circuit(4, [*front, *random_excitations(4, 2, rng)]) for _ in range(5)]
    objectives = [simulator.objective(circuit, hamiltonian) for circuit in circuits]
    many = minimize_many(objectives, [c.angles for c in circuits], workers=2)
    for circuit, found in zip(circuits, many, strict=True):
        again = minimize(simulator.objective(circuit, hamiltonian), circuit.angles)
        assert found.fun == again.fun == pytest.approx(simulator.expectation(circuit, hamiltonian, found.x), abs=1e-11)
        assert np.abs(simulator.expectation_and_gradient(circuit, hamiltonian, found.x)[1]).max() < 1e-3
        assert found.fun < simulator.expectation(circuit, hamiltonian)


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        (("double_excitation", (0, 1, 1, 2), 0.1), "double_excitation needs four different qubits, got (0, 1, 1, 2)"),
        (("double_excitation", (0, 1, 2), 0.1), "double_excitation acts on 4 qubit(s), got (0, 1, 2)"),
        (("single_excitation", (3, 3), 0.1), "single_excitation needs two different qubits, got (3, 3)"),
        (("mvp_ceo", (0, 1, 2, 3), 0.1), "mvp_ceo takes 2 angle(s), got 1"),
        (("ovp_ceo", (0, 4, 1, 2), 0.1), "qubit out of range"),
    ],
)
def test_malformed_excitations_are_refused(gate: tuple[object, ...], told: str) -> None:
    with pytest.raises(CircuitError) as caught:
        Circuit(4, [gate])  # type: ignore[list-item]
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_other_names_are_suggested() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'single_excitation'"):
        Circuit(2, [("givens", (0, 1), 0.1)])


def test_qiskit_and_qasm_keep_excitations_and_their_matrices() -> None:
    from qiskit.quantum_info import Operator

    circuit = random_excitations(5, 8, np.random.default_rng(6))
    assert {"double_excitation", "mvp_ceo"} <= set(circuit.counts)
    qiskit = circuit.to_qiskit()
    assert same_up_to_phase(circuit_matrix(circuit), Operator(qiskit).data)
    assert Circuit.from_qiskit(qiskit) == circuit
    text = circuit.to_qasm()
    assert Circuit.from_qasm(text) == circuit
    renamed = text.replace("double_excitation", "mine").replace("mvp_ceo", "theirs")
    assert same_up_to_phase(circuit_matrix(circuit), circuit_matrix(Circuit.from_qasm(renamed)))
    stolen = 'OPENQASM 3.0; include "stdgates.inc"; gate single_excitation(t) a, b { cx a, b; ry(t) a; } qubit[2] q;'
    assert Circuit.from_qasm(stolen + "single_excitation(0.3) q[0], q[1];").counts == {"cx": 1, "ry": 1}


def test_simplify_adds_excitations_and_drops_those_that_do_nothing() -> None:
    double = ("double_excitation", (0, 1, 2, 3))
    circuit = Circuit(5, [("single_excitation", (0, 4), 0.3), ("x", 0), ("x", 1), (*double, 0.2), (*double, 0.5)])
    assert simplify(circuit) == Circuit(5, [("x", 0), ("x", 1), (*double, 0.7)])
    between = Circuit(5, [("x", 0), ("x", 1), (*double, 0.2), ("ry", 2, 0.1), (*double, 0.5), (*double, 2 * np.pi)])
    assert len(simplify(between)) == 5
    rng = np.random.default_rng(7)
    for _ in range(10):
        drawn = random_excitations(4, 3, rng)
        doubled = Circuit(4, [gate for gate in drawn.gates for _ in range(2)])
        for whole, columns in ((True, slice(None)), (False, slice(0, 1))):
            short = simplify(doubled, whole=whole)
            assert same_up_to_phase(circuit_matrix(doubled)[:, columns], circuit_matrix(short)[:, columns])


def test_alphabets_hold_each_excitation_once() -> None:
    alphabet = Alphabet(5, ("rx", "mvp_ceo", "cx", "ovp_ceo", "double_excitation", "single_excitation"))
    assert [len([g for g in alphabet.placed if g.name == name]) for name in EXCITATIONS] == [10, 15, 30, 15]
    matrices = {}
    for token, gate in enumerate(alphabet.placed):
        if gate.name in EXCITATIONS:
            moved = Gate(gate.name, gate.qubits, (0.3, 0.7)[: len(gate.angles)])
            turned = moved.with_angles(tuple(-angle for angle in moved.angles))
            both = {tuple(circuit_matrix(Circuit(5, [g])).ravel()) for g in (moved, turned)}
            assert not any(both & others for others in matrices.values())
            matrices[token] = both
    swapped = alphabet.index(Gate("double_excitation", (3, 1, 0, 2), (0.1,)))
    assert swapped == alphabet.index(Gate("double_excitation", (0, 2, 1, 3), (0.1,)))
    last = alphabet.last_of(Circuit(5, [("double_excitation", (0, 1, 2, 3), 0.1), ("rx", 4, 0.2)]))
    illegal = np.flatnonzero(~alphabet.legal(last)).tolist()
    assert [str(alphabet.gate(token)) for token in illegal] == ["double_excitation(0) 0,1,2,3", "rx(0) 4"]
    assert Alphabet.from_json(alphabet.to_json()) == alphabet
    ring = [(0, 1), (1, 2), (2, 3), (3, 0)]
    assert len(Alphabet(4, ("single_excitation",), ring)) == 4
    with pytest.raises(QasError, match="no 4 qubits that are all coupled may carry double_excitation"):
        Alphabet(4, ("double_excitation",), ring)
    with pytest.raises(QasError, match="gates on one and two qubits, got double_excitation"):
        CircuitSpace(4, ("rx", "double_excitation"), max_gates=4)


def test_layers_hold_excitations() -> None:
    rng = np.random.default_rng(8)
    names = ("single_excitation", "cz", "double_excitation", "rx", "mvp_ceo")
    encoding = LayerEncoding(9, names, max_layers=12)
    for _ in range(20):
        circuit = random_circuit(9, 12, rng, names)
        assert encoding.decode(encoding.encode(circuit)).key == circuit.key
    tensor = encoding.encode(Circuit(9, [("double_excitation", (0, 3, 1, 2), 0.0)]))
    tensor[tuple(np.argwhere(tensor)[0])] = 0
    with pytest.raises(CircuitError, match="a part of double_excitation"):
        encoding.decode(tensor)


@pytest.mark.parametrize("agent", ["evolution", "random", "beam"])
def test_agents_search_with_excitations(agent: str, tmp_path: Path) -> None:
    hamiltonian = random_hamiltonian(4, 12, np.random.default_rng(9))
    problem = Problem("drawn", hamiltonian)
    gates = ("single_excitation", "double_excitation", "ovp_ceo", "ry", "x")
    run = search(problem, agent=agent, gates=gates, evaluations=300, seed=0, out=tmp_path / "run", report=False)
    for result in run.front:
        circuit = result.circuit
        assert set(circuit.counts) <= set(gates)
        assert (result.gates, result.two_qubit_gates) == (len(circuit.decompose()), circuit.decompose().count("cx"))
        assert result.energy == pytest.approx(dense_expectation(circuit, hamiltonian), abs=1e-9)
    assert [r.circuit for r in load_run(tmp_path / "run").front] == [r.circuit for r in run.front]


def test_the_environment_plays_excitations() -> None:
    from qas.envs.builder import CircuitBuilderEnv

    hamiltonian = Hamiltonian({"IIZZ": 0.3, "ZIIZ": -0.2, "XXYY": 0.4, "YYXX": 0.1, "IZII": 0.15})
    env = CircuitBuilderEnv(
        Problem("drawn", hamiltonian), gates=("double_excitation", "single_excitation", "x"), max_gates=6
    )
    env.reset(seed=0)
    names = ("x", (0,)), ("x", (1,)), ("double_excitation", (0, 1, 2, 3))
    for name, qubits in names:
        observation, *_ = env.step(env.actions.index(Gate(name, qubits, (0.0,) * len(qubits[1:2]))))
    assert env.actions.gate(env.actions.index(Gate("double_excitation", (2, 3, 0, 1), (0.0,)))).qubits == (0, 1, 2, 3)
    assert observation["circuit"].sum() == 2 + 3


@pytest.mark.parametrize("gates", [("rx", "ry", "rz", "cx"), ("rz", "sx", "cz", "rx"), ("u", "cx"), ("ry", "rz", "cz")])
def test_any_circuit_in_other_gates(gates: tuple[str, ...]) -> None:
    rng = np.random.default_rng(11)
    for _ in range(6):
        circuit = Circuit(4, [*random_circuit(4, 10, rng), *random_excitations(4, 1, rng), *random_circuit(4, 10, rng)])
        for from_zero, columns in ((False, slice(None)), (True, slice(0, 1))):
            plain = circuit.decompose(gates, from_zero=from_zero)
            assert set(plain.counts) <= set(gates)
            assert same_up_to_phase(circuit_matrix(circuit)[:, columns], circuit_matrix(plain)[:, columns])


def test_gates_that_cannot_be_made_are_named() -> None:
    with pytest.raises(CircuitError, match="h cannot be made of rz, cx"):
        Circuit(2, [("h", 0), ("cx", (0, 1))]).decompose(("rz", "cx"), from_zero=False)
    with pytest.raises(CircuitError, match="cx cannot be made of rx, rz"):
        Circuit(2, [("cx", (0, 1))]).decompose(("rx", "rz"))
    with pytest.raises(UnknownNameError, match="did you mean 'cx'"):
        Circuit(2, [("cx", (0, 1))]).decompose(("cnot",))


def test_excitations_of_a_determinant_share_what_they_flip() -> None:
    rng = np.random.default_rng(12)
    for trial in range(4):
        n = 6 + trial % 2
        excitations = [gate for gate in random_excitations(n, 5, rng) if gate.name in EXCITATIONS]
        front = [("x", int(q)) for q in rng.permutation(n)[: n // 2]]
        circuit = Circuit(n, [*front, *excitations])
        plain = prepared(circuit)
        assert plain is not None
        assert set(plain.counts) <= {"x", "ry", "cx"}
        assert same_up_to_phase(circuit_matrix(circuit)[:, 0], circuit_matrix(plain)[:, 0])
        alone = lower(circuit, from_zero=True).circuit.two_qubit_gates
        assert circuit.decompose(from_zero=True).two_qubit_gates == min(alone, plain.two_qubit_gates)
    assert prepared(Circuit(2, [("h", 0), ("single_excitation", (0, 1), 0.1)])) is None
    shared = [("double_excitation", (0, 1, a, b), 0.3) for a, b in ((2, 3), (4, 3), (5, 3))]
    assert Circuit(6, [("x", 0), ("x", 1), *shared]).decompose(from_zero=True).two_qubit_gates < 3 + 4 + 5
