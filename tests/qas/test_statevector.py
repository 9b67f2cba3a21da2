"""The state-vector engine against dense matrices: every gate, real and complex amplitudes, both forms of H."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from qas.circuits import Circuit
from qas.errors import TooLargeError
from qas.gates import EXCITATIONS, GATES
from qas.hamiltonians import Hamiltonian
from qas.optimizers import minimize_many
from qas.problems import Problem
from qas.simulators import _sv_kernels, _team, statevector, workers
from qas.simulators.dense import circuit_matrix, gate_matrix
from qas.simulators.interrupt import Interrupted, stop_when
from qas.simulators.statevector import StatevectorSimulator, parts_of
from qas.testing import random_circuit, random_hamiltonian
from qas.testing.simulators import covering_circuit
from qas.vqe import Evaluator

SEED = 402_118_379
REAL_GATES = ["ry", "ry", "cx", "cz", "swap", "x", "y", "z", "h", *EXCITATIONS]
ALL_GATES = [*GATES, *EXCITATIONS]


class Decomposing(StatevectorSimulator):
    """The same engine without gates for excitations: the twin that is slow."""

    runs_excitations = False


@pytest.fixture(params=["diagonals", "terms"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the engine holds Hamiltonians that are no projectors."""
    monkeypatch.setattr(statevector, "STORED_BYTES", 0 if request.param == "terms" else 1 << 30)
    return request.param


def _slope(
    energy: Callable[[Circuit, Hamiltonian], float], circuit: Circuit, hamiltonian: Hamiltonian, k: int
) -> float:
    """dE/dθ of angle k from four energies, exact for E = a + Σ (s sin jθ + c cos jθ), j = 1, 2."""

    def swing(shift: float) -> float:
        step = shift * np.eye(circuit.n_angles)[k]
        up, down = (energy(circuit.with_angles(circuit.angles + sign * step), hamiltonian) for sign in (1, -1))
        return (up - down) / 2

    once = swing(np.pi / 2)
    return once + 2 * (swing(np.pi / 4) - once / np.sqrt(2))


def _local(n_qubits: int, rng: np.random.Generator) -> Hamiltonian:
    """Strings on one, two and four neighbours: random ones have next to no expectation value on many qubits."""
    terms = {}
    for width in (1, 2, 4):
        for first in range(0, n_qubits - width + 1):
            letters = ["I"] * n_qubits
            letters[first : first + width] = rng.choice(list("XYZ"), size=width)
            terms["".join(letters)] = float(rng.normal())
    return Hamiltonian(terms)


def _check(circuit: Circuit, hamiltonian: Hamiltonian) -> None:
    simulator = StatevectorSimulator()
    psi = circuit_matrix(circuit)[:, 0]
    exact = np.vdot(psi, hamiltonian.to_matrix() @ psi).real
    assert abs(abs(np.vdot(psi, simulator.state(circuit))) - 1.0) < 1e-12
    assert abs(simulator.expectation(circuit, hamiltonian) - exact) < 1e-11
    energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
    assert abs(energy - exact) < 1e-11
    slopes = [_slope(simulator.expectation, circuit, hamiltonian, k) for k in range(circuit.n_angles)]
    assert gradient == pytest.approx(slopes, abs=1e-11)


@pytest.mark.parametrize("n_qubits", [1, 2, 3, 5, 8])
def test_every_gate_on_every_size(n_qubits: int, form: str) -> None:
    rng = np.random.default_rng([SEED, n_qubits])
    for _ in range(2):
        circuit = covering_circuit(n_qubits, 20, None, rng)
        for gate in random_circuit(n_qubits, 8, rng, gates=["u", *EXCITATIONS]):
            circuit = circuit.insert(int(rng.integers(len(circuit))), gate)
        assert parts_of(circuit) == 2
        _check(circuit, random_hamiltonian(n_qubits, min(4**n_qubits, 30), rng))


@pytest.mark.parametrize("n_qubits", [1, 2, 4, 7, 8])
def test_real_gates_keep_amplitudes_real(n_qubits: int, form: str) -> None:
    rng = np.random.default_rng([SEED, 20 + n_qubits])
    for n_terms in (2, 30):  # strings with an odd number of Y among them: they have no part in a real state
        circuit = random_circuit(n_qubits, 30, rng, gates=REAL_GATES)
        assert parts_of(circuit) == 1 and parts_of(circuit.append("rz", 0, 0.1)) == 2
        hamiltonian = random_hamiltonian(n_qubits, min(4**n_qubits, n_terms), rng)
        _check(circuit, hamiltonian)
        # The same circuit with complex amplitudes.
        energy, gradient = StatevectorSimulator().expectation_and_gradient(circuit, hamiltonian)
        other, longer = StatevectorSimulator().expectation_and_gradient(circuit.append("rz", 0, 0.0), hamiltonian)
        assert abs(energy - other) < 1e-12 and np.abs(gradient - longer[:-1]).max(initial=0.0) < 1e-12


@pytest.mark.parametrize("gates", [None, REAL_GATES], ids=["complex", "real"])
def test_both_forms_of_a_hamiltonian_agree_over_several_blocks(
    gates: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng([SEED, 40])
    circuit, hamiltonian = random_circuit(11, 60, rng, gates=gates), random_hamiltonian(11, 60, rng)
    found = []
    for stored in (0, 1 << 30):
        monkeypatch.setattr(statevector, "STORED_BYTES", stored)
        simulator = StatevectorSimulator()
        assert (simulator.observable(hamiltonian)[0][0] < 0) == (stored == 0)
        found.append(simulator.expectation_and_gradient(circuit, hamiltonian))
    exact = simulator.term_expectations(circuit, hamiltonian) @ hamiltonian.coefficients
    for energy, gradient in found:
        assert abs(energy - exact) < 1e-11 and np.abs(gradient - found[0][1]).max() < 1e-11


@pytest.mark.parametrize("gates", [["cx", "ry"], ["cx", "rx", "u"]], ids=["real", "complex"])
def test_circuits_that_start_at_a_basis_state(gates: list[str]) -> None:
    rng = np.random.default_rng([SEED, 50])
    for count in (1, 3, 8):
        start = random_circuit(4, count, rng, gates=["x"])
        circuit = Circuit(4, [*start, *random_circuit(4, 8, rng, gates=gates), ("x", 2)])
        _check(circuit, random_hamiltonian(4, 40, rng))
        _check(start, random_hamiltonian(4, 40, rng))


@pytest.mark.parametrize("scale", [1e-9, 1.0, 50.0, 1e5, 3e5, 1e12])
def test_angles_of_any_size(scale: float) -> None:
    rng = np.random.default_rng(SEED)
    quarters = np.arange(-9, 10) * np.pi / 4
    hamiltonian = Hamiltonian({"Z": 1.0})
    for angles in (scale * rng.uniform(-1, 1, size=19), quarters, np.nextafter(quarters, 9.0)):
        for gate, parts in (("ry", 1), ("rx", 2)):
            # The others turn back by the same angle, so that all lanes of the table are read.
            circuit = Circuit(1, [(gate, 0, sign * a) for a in angles[1:] for sign in (1, -1)] + [(gate, 0, angles[0])])
            energy, gradient = StatevectorSimulator().expectation_and_gradient(circuit, hamiltonian)
            assert parts_of(circuit) == parts
            assert abs(energy - np.cos(angles[0])) < 2e-14 and abs(gradient[-1] + np.sin(angles[0])) < 2e-14


def test_what_is_too_large_names_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooLargeError, match=r"at most 24 qubits, got 26: two states would take 2\.15 GB") as caught:
        StatevectorSimulator().expectation(Circuit(26), Hamiltonian({"Z" * 26: 1.0}))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(statevector, "memory_limit", lambda: 10**7)
    with pytest.raises(TooLargeError, match=r"20 qubits need 0\.034 GB .* has 0\.01 GB"):
        StatevectorSimulator().expectation(Circuit(20), Hamiltonian({"Z" * 20: 1.0}))


def test_memory_is_that_of_two_states_whatever_comes_in_turn() -> None:
    rng = np.random.default_rng([SEED, 51])
    simulator, hamiltonian = StatevectorSimulator(), _local(15, rng)
    circuits = [random_circuit(15, 8, rng, gates=gates) for gates in (REAL_GATES, ["rx", "cx"])]
    alone = [StatevectorSimulator().expectation_and_gradient(circuit, hamiltonian) for circuit in circuits]
    simulator.observable(hamiltonian)
    tracemalloc.start()
    try:
        for _ in range(2):
            for circuit, (energy, gradient) in zip(circuits, alone, strict=True):
                found = simulator.expectation_and_gradient(circuit, hamiltonian)
                assert found[0] == energy and np.array_equal(found[1], gradient)
                assert simulator.expectation(circuit, hamiltonian) == energy
        assert 32 << 15 <= tracemalloc.get_traced_memory()[1] < 1.1 * (32 << 15)
        simulator.expectation(Circuit(14), Hamiltonian({"Z" * 14: 1.0}))
        assert tracemalloc.get_traced_memory()[0] < 1.1 * (32 << 14) + (8 << 17)  # and the diagonals of four masks
    finally:
        tracemalloc.stop()


def _slow_energy(circuit: Circuit, hamiltonian: Hamiltonian) -> float:
    """Gate after gate on a tensor with one axis for each qubit, the last for qubit 0."""
    n = circuit.n_qubits
    psi = np.zeros((2,) * n, dtype=complex)
    psi[(0,) * n] = 1.0
    for gate in circuit:
        axes = [n - 1 - q for q in reversed(gate.qubits)]
        matrix = gate_matrix(gate).reshape((2,) * (2 * len(axes)))
        psi = np.tensordot(matrix, psi, axes=(range(len(axes), 2 * len(axes)), axes))
        psi = np.moveaxis(psi, range(len(axes)), axes)
    psi, index = psi.ravel(), np.arange(2**n)
    total = 0.0
    for coefficient, x, z in zip(hamiltonian.coefficients, *hamiltonian.masks, strict=True):
        signs = 1.0 - 2.0 * (np.bitwise_count(index & z) & 1)
        image = 1j ** (int(x & z).bit_count() % 4) * signs * psi
        total += coefficient * np.vdot(psi[index ^ x], image).real
    return total


@pytest.mark.parametrize(("gates", "n_qubits"), [(ALL_GATES, 13), (REAL_GATES, 14)], ids=["complex", "real"])
def test_large_states_are_taken_through_gates_block_by_block(gates: list[str], n_qubits: int) -> None:
    rng = np.random.default_rng([SEED, 60])
    for n_gates in (3, 60):
        circuit = random_circuit(n_qubits, n_gates, rng, gates=gates)
        circuit = circuit.append("ry" if gates == REAL_GATES else "rx", n_qubits - 1, 0.3)
        assert parts_of(circuit) << n_qubits >= _sv_kernels.BLOCKED
        hamiltonian = random_hamiltonian(n_qubits, 12, rng)
        energy, gradient = StatevectorSimulator().expectation_and_gradient(circuit, hamiltonian)
        assert abs(energy - _slow_energy(circuit, hamiltonian)) < 1e-11
        for k in rng.choice(circuit.n_angles, size=min(2, circuit.n_angles), replace=False):
            assert abs(gradient[k] - _slope(_slow_energy, circuit, hamiltonian, k)) < 1e-11


def test_large_states_without_gates_or_angles() -> None:
    rng = np.random.default_rng([SEED, 61])
    hamiltonian = random_hamiltonian(14, 5, rng)
    for circuit in (Circuit(14), random_circuit(14, 9, rng, gates=["h", "cx", "s"]), Circuit(14, [("x", 13)])):
        energy, gradient = StatevectorSimulator().expectation_and_gradient(circuit, hamiltonian)
        assert abs(energy - _slow_energy(circuit, hamiltonian)) < 1e-12 and gradient.shape == (0,)


@pytest.mark.parametrize(
    "gates", [ALL_GATES, REAL_GATES, ["x", "cx", "cz", *EXCITATIONS]], ids=["all", "real", "adapt"]
)
@pytest.mark.parametrize("n_qubits", [2, 4, 7, 13])
def test_excitations_are_the_same_gates_as_decomposed(n_qubits: int, gates: list[str]) -> None:
    rng = np.random.default_rng([SEED, 62, n_qubits])
    for n_gates in (6, 20):
        circuit = Circuit(n_qubits, [("ry", q, 0.4 + 0.1 * q) for q in range(n_qubits)])
        excitation = random_circuit(n_qubits, 1, rng, gates=list(EXCITATIONS)).gates
        circuit = Circuit(n_qubits, [*circuit, *random_circuit(n_qubits, n_gates, rng, gates=gates), *excitation])
        hamiltonian = _local(n_qubits, rng)
        engine, twin = StatevectorSimulator(), Decomposing()
        assert engine.lowering(circuit) is None and twin.lowering(circuit) is not None
        energy, gradient = engine.expectation_and_gradient(circuit, hamiltonian)
        expected, slopes = twin.expectation_and_gradient(circuit, hamiltonian)
        assert abs(energy - _slow_energy(circuit, hamiltonian)) < 1e-11 and abs(energy - expected) < 1e-11
        assert gradient == pytest.approx(slopes, abs=1e-11) and np.abs(gradient).max() > 1e-3
        ways = ["XYZY"[-min(n_qubits, 4) :].rjust(n_qubits, "I"), "Z".ljust(n_qubits, "I"), _local(n_qubits, rng)]
        found, expected = (s.insertion_gradients(circuit, hamiltonian, ways) for s in (engine, twin))
        assert found.shape == (len(circuit) + 1, 3) and np.abs(found - expected).max() < 1e-11
        gains = [s.append_gains(circuit, hamiltonian, ways[:2]) for s in (engine, twin)]
        assert np.abs(np.subtract(*gains)).max() < 1e-9
        if n_qubits <= 7:
            costs, expected = (s.deletion_costs(circuit, hamiltonian) for s in (engine, twin))
            assert costs == pytest.approx(expected, rel=1e-3, abs=1e-7)
            ends = [s.objective(circuit, hamiltonian).minimize_compiled(circuit.angles, 9, 0.0) for s in (engine, twin)]
            assert ends[0].fun == pytest.approx(ends[1].fun, abs=1e-7) and ends[0].fun < energy - 1e-3


# ---------------------------------------------------------------------- threads that share one circuit
@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[None]]:
    """Sets how many threads there are, from the smallest states on that are cut; returns a list that helpers extend."""
    helpers: list[None] = []

    def lend(work: Callable[[], None]) -> None:
        helpers.append(None)
        workers.lend(work)

    def use(count: int) -> list[None]:
        monkeypatch.setattr(workers, "cores", lambda: count)
        monkeypatch.setattr(_sv_kernels, "SHARED_QUBITS", 13)  # real states are cut from 14 qubits on
        monkeypatch.setattr(_team, "lend", lend)
        return helpers

    return use


@pytest.mark.parametrize(("gates", "n_qubits"), [(ALL_GATES, 13), (REAL_GATES, 14)], ids=["complex", "real"])
def test_any_number_of_threads_finds_the_same(
    gates: list[str], n_qubits: int, form: str, threads: Callable[[int], list[None]]
) -> None:
    rng = np.random.default_rng([SEED, 70, n_qubits])
    hamiltonian = random_hamiltonian(n_qubits, 12, rng)
    for n_gates in (0, 60):
        circuit = Circuit(n_qubits, [("x", 12), ("ry", n_qubits - 1, 0.3)])
        for gate in random_circuit(n_qubits, n_gates, rng, gates=gates):
            circuit = circuit.append(gate.name, gate.qubits, *gate.angles)
        found = []
        for count in (1, 2, 3):
            helpers = threads(count)
            helpers.clear()
            simulator = StatevectorSimulator()
            energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
            assert simulator.expectation(circuit, hamiltonian) == energy
            found.append((energy, gradient, simulator.state(circuit)))
            assert len(helpers) == 3 * (count - 1)
        assert abs(found[0][0] - _slow_energy(circuit, hamiltonian)) < 1e-11
        for energy, gradient, state in found[1:]:
            assert energy == found[0][0] and (gradient == found[0][1]).all() and (state == found[0][2]).all()


def test_threads_share_a_minimization_and_hear_the_flag(threads: Callable[[int], list[None]]) -> None:
    rng = np.random.default_rng([SEED, 71])
    circuit, hamiltonian = random_circuit(13, 30, rng, gates=["rx", "ry", "rz", "cx"]), random_hamiltonian(13, 6, rng)
    ends = []
    for count in (1, 2):
        helpers = threads(count)
        helpers.clear()
        objective = StatevectorSimulator().objective(circuit, hamiltonian)
        ends.append(objective.minimize_compiled(circuit.angles, 12, 1e-12))
        assert len(helpers) == count - 1, "the same threads for all of it"
    assert ends[0].fun == ends[1].fun and (ends[0].x == ends[1].x).all()
    simulator = StatevectorSimulator()
    with stop_when(0.0) as stop:
        while not stop:
            time.sleep(0.001)
        with pytest.raises(Interrupted):
            simulator.expectation_and_gradient(circuit, hamiltonian)
    endless = random_circuit(18, 3000, rng, gates=["rx", "rxx"])
    with stop_when(0.05), pytest.raises(Interrupted):
        for _ in range(1000):
            simulator.expectation_and_gradient(endless, Hamiltonian({"Z" * 18: 1.0}))
    energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
    threads(1)
    again = simulator.expectation_and_gradient(circuit, hamiltonian)
    assert energy == again[0] and (gradient == again[1]).all()


def test_a_worker_has_no_helpers(threads: Callable[[int], list[None]]) -> None:
    helpers = threads(2)
    simulator, circuit, hamiltonian = (
        StatevectorSimulator(),
        Circuit(14, [("ry", 13, 0.3)]),
        Hamiltonian({"Z" * 14: 1.0}),
    )
    energies = list(workers.in_order(lambda _: simulator.expectation(circuit, hamiltonian), range(3), 2))
    assert not helpers and energies == [simulator.expectation(circuit, hamiltonian)] * 3 and len(helpers) == 1


def test_one_worker_is_one_core(threads: Callable[[int], list[None]]) -> None:
    helpers = threads(2)
    circuit, hamiltonian = Circuit(14, [("ry", 13, 0.3)]), Hamiltonian({"Z" * 14: 1.0, "X" + "I" * 13: 0.1})
    simulator = StatevectorSimulator()
    evaluator = Evaluator(Problem("large", hamiltonian), engine=simulator)

    def work(count: int | None) -> list[float]:
        rng = np.random.default_rng(0)
        (found,) = minimize_many([simulator.objective(circuit, hamiltonian)], [circuit.angles], workers=count)
        (best,) = evaluator.evaluate_many([circuit], rng, workers=count)
        return [*simulator.expectation_many([circuit], hamiltonian, workers=count), found.fun, best.energy]

    alone = work(1)
    assert not helpers
    assert work(None) == alone and len(helpers) == 2, "the evaluator has a worker for the circuit, the others share it"
    assert simulator.expectation(circuit, hamiltonian) == alone[0] and len(helpers) == 3, "told for one call only"
