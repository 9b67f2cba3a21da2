"""Target unitaries, and the engines that judge a circuit by its whole matrix."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.quantum_info import Operator, SuperOp, average_gate_fidelity, process_fidelity

import qas
from qas.alphabet import Alphabet
from qas.circuits import Circuit
from qas.errors import CircuitError, QasError
from qas.guidance import Guide
from qas.idle import Idle
from qas.mitigation import scaled
from qas.noise import NoiseModel, depolarizing, thermal_relaxation
from qas.patches import patch_for
from qas.problems import Problem, UnitaryProblem, load_problem, unitary
from qas.problems.unitaries import MAX_UNITARY_QUBITS
from qas.rewriting import compress, native
from qas.routing import in_place, routed
from qas.shrinking import shrink
from qas.simulators import make_simulator
from qas.simulators.choi import ChoiSimulator, on_first
from qas.simulators.dense import circuit_matrix, gate_matrix
from qas.testing.random import random_circuit
from qas.vqe import Evaluator


def haar(n: int, seed: int) -> np.ndarray:
    return load_problem(f"unitary-{n}-{seed}").target  # type: ignore[attr-defined]


def fidelity(target: np.ndarray, made: np.ndarray) -> float:
    return abs(np.trace(target.conj().T @ made)) ** 2 / len(made) ** 2


# ---------------------------------------------------------------------- what is asked for
@given(st.integers(1, 3), st.integers(0, 100), st.integers(0, 12))
@settings(max_examples=25, deadline=None)
def test_the_energy_is_minus_the_process_fidelity(n: int, seed: int, size: int) -> None:
    target = haar(n, seed) if n > 1 else haar(2, seed)[:2, :2]
    target = target if n > 1 else np.linalg.qr(target)[0]
    circuit = random_circuit(n, size, np.random.default_rng(seed))
    problem = unitary(target)
    energy = problem.energy(circuit)
    assert energy == pytest.approx(-fidelity(target, circuit.to_matrix()), abs=1e-12)
    assert -energy == pytest.approx(process_fidelity(Operator(circuit.to_qiskit()), Operator(target)), abs=1e-12)
    # What is averaged over all states is a fixed multiple of it.
    average = average_gate_fidelity(Operator(circuit.to_qiskit()), Operator(target))
    assert 1 - average == pytest.approx(problem.error(energy) * 2**n / (2**n + 1), abs=1e-12)


def test_a_circuit_is_its_own_target_up_to_its_phase() -> None:
    circuit = random_circuit(3, 15, np.random.default_rng(1))
    problem = unitary(circuit, name="mine")
    assert problem.name == "mine" and problem.error(problem.energy(circuit)) == pytest.approx(0, abs=1e-12)
    turned = unitary(np.exp(0.7j) * circuit.to_matrix())
    assert turned.error(turned.energy(circuit)) == pytest.approx(0, abs=1e-12)
    # A circuit that makes the same state of |000> and another matrix is none.
    other = Circuit(3, [("rz", 0, 1.0), *circuit])
    assert problem.error(problem.energy(other)) == pytest.approx(math.sin(0.5) ** 2, abs=1e-12)


@pytest.mark.parametrize(
    "given",
    [np.zeros((4, 4)), np.eye(3), np.eye(4)[:, :2], 1.001 * np.eye(4), np.eye(32), [[1, "x"], [0, 1]], np.ones(4),
     np.full((2, 2), np.nan)],
)  # fmt: skip
def test_what_is_no_target_unitary(given: object) -> None:
    with pytest.raises(QasError) as caught:
        unitary(given)
    assert "\n" not in str(caught.value)


def test_a_target_with_few_digits_is_made_unitary() -> None:
    rounded = np.round(haar(3, 2), 7)
    made = unitary(rounded).target
    assert np.abs(made @ made.conj().T - np.eye(8)).max() < 1e-14 and np.abs(made - rounded).max() < 1e-6
    with pytest.raises(QasError, match="off by"):
        unitary(np.round(haar(3, 2), 2))


NAMED = {
    "toffoli-3": lambda c: c.ccx(0, 1, 2),
    "toffoli-4": lambda c: c.mcx([0, 1, 2], 3),
    "fredkin-3": lambda c: c.cswap(0, 1, 2),
    "peres-3": lambda c: (c.ccx(0, 1, 2), c.cx(0, 1)),
}


@pytest.mark.parametrize("name", [*NAMED, "qft-2", "qft-3", "qft-4"])
def test_named_targets_are_those_of_qiskit(name: str) -> None:
    from qiskit import QuantumCircuit
    from qiskit.circuit.library import QFTGate

    problem = load_problem(name)
    assert isinstance(problem, UnitaryProblem)
    circuit = QuantumCircuit(problem.n_qubits)
    if name in NAMED:
        NAMED[name](circuit)
    else:
        circuit.append(QFTGate(problem.n_qubits), range(problem.n_qubits))
    assert fidelity(problem.target, Operator(circuit).data) == pytest.approx(1, abs=1e-12)
    assert problem.energy(Circuit.from_qiskit(circuit.decompose(reps=4))) == pytest.approx(-1, abs=1e-9)


def test_what_simple_gates_reach() -> None:
    # |tr(CX† (RZ ⊗ RX))| / 4 is 1/√2 at quarter turns, and no product does better.
    cx = unitary(Circuit(2, [("cx", (0, 1))]))
    assert cx.product_state == pytest.approx(-0.5, abs=1e-9) and cx.basis_state == pytest.approx(-0.25)
    local = unitary(Circuit(3, [("rx", 0, 0.3), ("ry", 2, 1.3), ("rz", 1, 2.0)]))
    assert local.product_state == pytest.approx(-1, abs=1e-9)
    flips = unitary(Circuit(3, [("x", 0), ("x", 2)]))
    assert flips.basis_state == pytest.approx(-1)
    # Against an optimizer that knows nothing of how it is done.
    problem = load_problem("unitary-3-5")
    turns = Circuit(3, [(name, q, 0.1) for q in range(3) for name in ("rz", "ry", "rz")])
    rng = np.random.default_rng(0)
    starts = [turns.with_angles(rng.uniform(-3, 3, 9)) for _ in range(20)]
    best = min(found.energy for found in Evaluator(problem, start_noise=0.0).evaluate_many(starts, rng))
    assert problem.product_state == pytest.approx(best, abs=1e-6)


# ---------------------------------------------------------------------- noise
def noisy_process(circuit: Circuit, noise: NoiseModel) -> SuperOp:
    """The process of a noisy circuit by Qiskit's matrices of superoperators: slow, and nothing of ours but the PTMs."""
    from qiskit.quantum_info import PTM

    n, made = circuit.n_qubits, SuperOp(np.eye(4**circuit.n_qubits))
    if noise.idle is not None:  # all inputs are there when the first gate begins
        first = [0.0] * n
        for gate in reversed(circuit.gates):
            begin = max(first[q] for q in gate.qubits) + noise.idle.durations.get((gate.name, gate.qubits), 0.0)
            for q in gate.qubits:
                first[q] = begin
        for q, (t1, t2) in enumerate(zip(noise.idle.t1[:n], noise.idle.t2[:n], strict=True)):
            waits = thermal_relaxation(t1, min(t2, 2 * t1), max(first) - first[q])
            made = made.compose(SuperOp(PTM(waits.ptm)), qargs=[q])
    for gate, channel in zip(circuit, noise.channels(circuit), strict=True):
        made = made.compose(SuperOp(Operator(gate_matrix(gate))), qargs=list(gate.qubits))
        if channel is not None:
            qubits = list(gate.qubits) if len(channel) == 4 ** len(gate.qubits) else list(range(n))
            made = made.compose(SuperOp(PTM(channel)), qargs=qubits)
    return made


def model() -> NoiseModel:
    asymmetric = NoiseModel("mine").add(depolarizing(0.03, 2), "cx").add(thermal_relaxation(50.0, 30.0, 1.0), "ry")
    return asymmetric.add(thermal_relaxation(20.0, 30.0, 1.0), "cx", [(1, 0)], target=1).add_readout(0.1, 0.2)


@pytest.mark.parametrize(("seed", "strength"), [(0, 1.0), (1, 1.0), (2, 3.0)])
def test_under_noise_it_is_the_fidelity_of_the_noisy_process(seed: int, strength: float) -> None:
    problem, noise = load_problem(f"unitary-2-{seed}"), scaled(model(), strength)
    circuit = random_circuit(2, 14, np.random.default_rng(seed), ("rx", "ry", "rz", "cx"))
    expected = process_fidelity(noisy_process(circuit, noise), Operator(problem.target))  # type: ignore[attr-defined]
    for engine in ("pauli-transfer", "aer"):
        simulator = problem.simulator(noise, engine)
        assert problem.energy(circuit, simulator) == pytest.approx(-expected, abs=1e-10)
    if strength != 1.0:
        assert abs(problem.energy(circuit, problem.simulator(model())) + expected) > 1e-3
    report = qas.evaluate(circuit, problem, noise=noise, engine="aer")
    assert report.energy == pytest.approx(-expected, abs=1e-10)
    assert report.noise_free_energy == pytest.approx(problem.energy(circuit), abs=1e-10)


def test_waiting_qubits_of_a_device_relax_and_their_partners_do_not() -> None:
    durations = {("x", (q,)): 1.0 + q for q in range(4)} | {("cx", (a, b)): 5.0 for a in range(4) for b in range(4)}
    noise = model().add(depolarizing(0.01), "x")
    noise = replace(noise, idle=Idle((30.0, 40.0, 20.0, 9.0), (25.0, 60.0, 30.0, 9.0), durations))
    circuit = Circuit(3, [("x", 0), ("x", 1), ("cx", (1, 0)), ("x", 1), ("x", 1), ("cx", (0, 2)), ("x", 0)])
    problem = unitary(circuit)
    expected = process_fidelity(noisy_process(circuit, noise), Operator(problem.target))
    assert problem.energy(circuit, problem.simulator(noise)) == pytest.approx(-expected, abs=1e-10)
    quiet = replace(noise, idle=None)
    assert problem.energy(circuit, problem.simulator(quiet)) < -expected - 1e-9


def test_a_qubit_that_no_gate_acts_on_relaxes_all_the_time() -> None:
    t1, t2, time = 30.0, 25.0, 2.0
    idle = Idle((t1,) * 3, (t2,) * 3, {("x", (0,)): 1.0, ("x", (1,)): 0.5})
    noise = NoiseModel("waiting", idle=idle)
    circuit = Circuit(2, [("x", 0), ("x", 0)])
    kept = (1 + 2 * math.exp(-time / t2) + math.exp(-time / t1)) / 4
    problem = unitary(np.eye(4))
    assert problem.energy(circuit, problem.simulator(noise)) == pytest.approx(-kept, abs=1e-12)
    # It costs the same whether it waits for its first gate or after its last one.
    late, early = (
        Circuit(2, gates) for gates in ([("x", 0), ("x", 0), ("cx", (1, 0))], [("cx", (1, 0)), ("x", 0), ("x", 0)])
    )
    for both in (late, early):
        goal = unitary(both)
        assert goal.energy(both, goal.simulator(noise)) == pytest.approx(-kept, abs=1e-12)


@pytest.mark.parametrize("n", [3, 4])
def test_circuits_begun_from_are_routed_with_their_whole_matrix(n: int) -> None:
    line = patch_for(n, qas.load_device("fake_mumbai"), "line")
    rng = np.random.default_rng(n)
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b]
    gates = [gate for pair in pairs for gate in [("cx", pair), ("u", pair[0], *rng.uniform(-3, 3, 3))]]
    circuit = Circuit(n, gates)
    for moved in (True, False):
        made, order = routed(circuit, line, moved=moved, whole=True)
        assert fidelity(circuit.to_matrix(), made.to_matrix()) == pytest.approx(1, abs=1e-9)
        assert sorted(order) == list(range(n)) and (moved or order == tuple(range(n)))
        line.restricted(order).noise().channels(made)  # refuses pairs that are not coupled
    short = Circuit(n, [("rz", 0, 0.3), ("h", 1), ("cx", (0, 1))])
    there = in_place(short, line, whole=True)
    assert there is not None and fidelity(short.to_matrix(), there.to_matrix()) == pytest.approx(1, abs=1e-9)


def test_a_search_on_a_device_begins_from_a_circuit_for_the_matrix(tmp_path: Path) -> None:
    problem = load_problem("toffoli-3")
    known = Circuit(3, qas.atlas("toffoli-3").best.circuit.gates)
    settings = {"device": "fake_mumbai", "patch": "line", "seed": 0, "report": False}
    run = qas.search(problem, start=known, evaluations=40, out=tmp_path / "begun", **settings)
    assert run.best.noise_free_error < 1e-6 and run.best.error < 0.5


def test_noise_that_does_not_reach_far_enough() -> None:
    small = NoiseModel("small", n_qubits=2).add(depolarizing(0.01), "rx")
    with pytest.raises(CircuitError, match="2 qubits"):
        load_problem("toffoli-3").simulator(small)
    chain = NoiseModel("chain", coupling=frozenset({(0, 1), (1, 2)})).add(depolarizing(0.01), "rx")
    problem = load_problem("toffoli-3")
    with pytest.raises(CircuitError, match="couples only"):
        problem.energy(Circuit(3, [("cx", (0, 2))]), problem.simulator(chain))
    assert on_first(chain, 3).channel("cx", (3, 0)) is None


def test_what_a_process_is_not_judged_with() -> None:
    problem = load_problem("toffoli-3")
    with pytest.raises(QasError, match="no shots"):
        problem.simulator(shots=100)
    with pytest.raises(QasError, match="made with noise"):
        problem.simulator(engine=make_simulator("ibm-mumbai"))
    with pytest.raises(QasError, match="mitigation needs"):
        qas.evaluate(Circuit(3), problem, noise="ibm-mumbai", mitigate="zne")
    with pytest.raises(QasError, match="process fidelity"):
        qas.search(problem, noise="ibm-mumbai", objective="zne", evaluations=10)
    again = problem.simulator(engine=problem.simulator(engine="pauli-transfer"))
    assert isinstance(again, ChoiSimulator) and again.name == "pauli-transfer"
    with pytest.raises(CircuitError, match="noise is that of 3 qubits"):
        problem.simulator(model()).expectation(Circuit(2), load_problem("qft-2").hamiltonian)
    with pytest.raises(CircuitError, match="twice its 2 qubits"):
        again.expectation(Circuit(2), problem.hamiltonian)


# ---------------------------------------------------------------------- slopes
@pytest.mark.parametrize("noisy", [False, True])
def test_slopes_and_gains_are_those_of_gates_really_inserted(noisy: bool) -> None:
    problem = load_problem("unitary-2-3")
    simulator = problem.simulator(model() if noisy else None)
    circuit = random_circuit(2, 6, np.random.default_rng(5), ("rx", "ry", "rz", "cx"))
    strings = ["IX", "ZY", "YI"]
    slopes = simulator.insertion_gradients(circuit, problem.hamiltonian, strings, positions=[6, 0, 3])
    everywhere = simulator.insertion_gradients(circuit, problem.hamiltonian, strings)
    assert everywhere.shape == (7, 3) and np.allclose(everywhere[[6, 0, 3]], slopes, atol=1e-14)

    def turned(string: str, angle: float) -> np.ndarray:
        letters = {"I": np.eye(2), "X": [[0, 1], [1, 0]], "Y": [[0, -1j], [1j, 0]], "Z": np.diag([1, -1])}
        pauli = np.kron(letters[string[0]], letters[string[1]])
        return math.cos(angle / 2) * np.eye(4) - 1j * math.sin(angle / 2) * pauli

    def energy(position: int, string: str, angle: float) -> float:
        parts = [Circuit(2, circuit.gates[:position]), Circuit(2, circuit.gates[position:])]
        if not noisy:
            made = circuit_matrix(parts[1]) @ turned(string, angle) @ circuit_matrix(parts[0])
            return -fidelity(problem.target, made)
        process = noisy_process(parts[0], model()).compose(Operator(turned(string, angle)))
        return -process_fidelity(process.compose(noisy_process(parts[1], model())), Operator(problem.target))

    for row, position in enumerate([6, 0, 3]):
        for column, string in enumerate(strings):
            step = (energy(position, string, 1e-4) - energy(position, string, -1e-4)) / 2e-4
            assert slopes[row, column] == pytest.approx(step, abs=1e-7)
    gains, angles = simulator.append_gains(circuit, problem.hamiltonian, strings)
    for column, string in enumerate(strings):
        here, turned_by_half, turned_by_quarter = (energy(6, string, angle) for angle in (0.0, math.pi, math.pi / 2))
        middle = (here + turned_by_half) / 2
        lowest = middle - math.hypot(here - middle, turned_by_quarter - middle)
        assert gains[column] == pytest.approx(here - lowest, abs=1e-10)
        assert energy(6, string, angles[column]) == pytest.approx(lowest, abs=1e-10)


def test_excitations_are_gates_here_too() -> None:
    problem = load_problem("unitary-2-3")
    circuit = Circuit(2, [("ry", 0, 0.4), ("single_excitation", (0, 1), 0.7), ("rz", 1, 0.2)])
    for engine in ("statevector", "pauli-transfer"):
        simulator = problem.simulator(engine=engine)
        expected = -fidelity(problem.target, circuit.to_matrix())
        assert problem.energy(circuit, simulator) == pytest.approx(expected, abs=1e-12)
        energy, gradient = simulator.expectation_and_gradient(circuit, problem.hamiltonian)
        assert energy == pytest.approx(expected, abs=1e-12) and gradient.shape == (3,)


# ---------------------------------------------------------------------- searching
def test_nothing_that_only_a_state_allows_is_done() -> None:
    """RZ at the front is dead on |0…0⟩ and not in a matrix; a guide spreads no string in front of the circuit."""
    problem = load_problem("unitary-3-1")
    circuit = Circuit(3, [("rz", 0, 0.3), ("cx", (0, 1)), ("rx", 2, 0.2)])
    assert problem.simplify(circuit) == circuit
    guide = Guide(Alphabet(3, ("rx", "ry", "rz", "cx")), problem, problem.simulator())
    positions = {place.position for place in guide.study(circuit).entangling.found}
    assert not guide.fans_behind(circuit)[0] and positions
    assert all(len(place.block.ways[0][0].before) < 2 for place in guide.study(circuit).entangling.found)


@given(st.integers(2, 4), st.integers(0, 10**6), st.integers(0, 25))
@settings(max_examples=40, deadline=None)
def test_rewriting_keeps_the_whole_matrix(n: int, seed: int, size: int) -> None:
    circuit = random_circuit(n, size, np.random.default_rng(seed))
    plain = native(circuit, whole=True)
    short = compress(plain, whole=True)
    assert set(short.counts) <= {"rx", "ry", "rz", "cx"} and short.two_qubit_gates <= plain.two_qubit_gates
    assert fidelity(circuit.to_matrix(), plain.to_matrix()) == pytest.approx(1, abs=1e-10)
    assert fidelity(circuit.to_matrix(), short.to_matrix()) == pytest.approx(1, abs=1e-10)


def test_any_two_qubits_take_three_cx(tmp_path: Path) -> None:
    """Vatan and Williams, Phys. Rev. A 69, 032315 (2004): three suffice, and almost no matrix does with two."""
    run = qas.search("unitary-2-0", evaluations=3000, seed=0, out=tmp_path / "run")
    assert run.best.error < 1e-6 and run.best.circuit.two_qubit_gates == 3
    assert fidelity(run.problem.target, run.best.circuit.to_matrix()) > 1 - 1e-6  # type: ignore[attr-defined]
    assert min(r.error for r in run.front if r.two_qubit_gates < 3) > 1e-4
    again = qas.load_run(run.path)
    assert again.problem == run.problem and again.best.circuit == run.best.circuit


def test_a_long_circuit_shrinks_to_the_matrix_and_not_to_its_state() -> None:
    circuit = random_circuit(2, 30, np.random.default_rng(3), ("rx", "ry", "rz", "cx"))
    assert circuit.two_qubit_gates > 3
    problem = unitary(circuit)
    shrunk = shrink(circuit, problem, evaluations=2000)
    assert shrunk.best.two_qubit_gates <= 3
    assert fidelity(circuit.to_matrix(), shrunk.best.circuit.to_matrix()) > 1 - 2e-6


def test_searches_under_noise_weigh_what_gates_cost(tmp_path: Path) -> None:
    run = qas.search("unitary-2-0", noise="ibm-mumbai", evaluations=1500, seed=0, out=tmp_path / "run")
    best = run.best
    expected = process_fidelity(
        noisy_process(best.circuit, qas.load_noise("ibm-mumbai")),
        Operator(run.problem.target),  # type: ignore
    )
    assert best.energy == pytest.approx(-expected, abs=1e-9) and 0 < best.noise_free_error < best.error


def test_a_device_runs_the_matrix_in_its_own_gates(tmp_path: Path) -> None:
    run = qas.search("unitary-2-0", device="fake_lagos", evaluations=600, seed=0, out=tmp_path / "run", report=False)
    noise = run.noise
    assert noise is not None
    expected = process_fidelity(noisy_process(run.best.circuit, noise), Operator(run.problem.target))  # type: ignore
    assert run.best.energy == pytest.approx(-expected, abs=1e-9)


def test_the_largest_target() -> None:
    assert MAX_UNITARY_QUBITS == 4
    problem = load_problem("qft-4")
    assert not isinstance(problem, Problem) and problem.simulator().check_size(4) is None  # type: ignore[func-returns-value]
    circuit = random_circuit(4, 20, np.random.default_rng(0))
    target = problem.target  # type: ignore[attr-defined]
    assert problem.energy(circuit) == pytest.approx(-fidelity(target, circuit.to_matrix()), abs=1e-12)
