"""Exact agreement of the Pauli-transfer engine with Qiskit Aer's density matrix: presets and device snapshots."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qas.circuits import Circuit, Gate
from qas.gates import GATES
from qas.hamiltonians import Hamiltonian
from qas.noise import (
    ONE_QUBIT_GATES,
    TWO_QUBIT_GATES,
    NoiseModel,
    depolarizing,
    list_noise,
    load_noise,
    thermal_relaxation,
)
from qas.simulators.aer import AerSimulator
from qas.simulators.pauli_transfer import PauliTransferSimulator
from qas.testing import random_circuit, random_hamiltonian

SEED = 918_273_311
TOLERANCE = 1e-10
AERS_OWN = 1e-8
"""With noise models that qiskit-aer composes itself, its energies stray by up to 2e-9 from dense matrices with
the same channels (equal to 1e-15 when read with `SuperOp`); our engine stays within 1e-15 of the dense matrices."""

DEVICES = [
    "FakeOurenseV2",
    "FakeVigoV2",
    "FakeSantiagoV2",
    "FakeLimaV2",
    "FakeManilaV2",
    "FakeYorktownV2",
    "FakeJakartaV2",
    "FakeLagosV2",
    "FakeNairobiV2",
    "FakePerth",
    "FakeGuadalupeV2",
    "FakeMumbaiV2",
    "FakeMelbourneV2",
]


def circuit_on(pairs: list[tuple[int, int]] | None, n_qubits: int, n_gates: int, rng: np.random.Generator) -> Circuit:
    """A random circuit whose two-qubit gates lie on `pairs`, in either order (None: anywhere)."""
    gates = []
    for gate in random_circuit(n_qubits, n_gates, rng):
        if len(gate.qubits) == 2 and pairs is not None:
            a, b = pairs[rng.integers(len(pairs))]
            gate = Gate(gate.name, (a, b) if rng.random() < 0.5 else (b, a), gate.angles)
        gates.append(gate)
    return Circuit(n_qubits, gates)


def assert_agreement(noise: NoiseModel, n_qubits: int, repeats: int, rng: np.random.Generator) -> None:
    pairs = None if noise.coupling is None else sorted(p for p in noise.coupling if max(p) < n_qubits)
    ours, aer = PauliTransferSimulator(noise), AerSimulator(noise)
    ideal = PauliTransferSimulator()
    hamiltonian = random_hamiltonian(n_qubits, min(4**n_qubits - 1, 30), rng)
    noticed = 0.0
    for _ in range(repeats):
        circuit = circuit_on(pairs, n_qubits, 8 * n_qubits, rng)
        energy = ours.expectation(circuit, hamiltonian)
        assert abs(energy - aer.expectation(circuit, hamiltonian)) < TOLERANCE
        terms = ours.term_expectations(circuit, hamiltonian) - aer.term_expectations(circuit, hamiltonian)
        assert np.abs(terms).max() < TOLERANCE
        noticed = max(noticed, abs(energy - ideal.expectation(circuit, hamiltonian)))
    assert noticed > 1e-4, "the noise must be seen"


@pytest.mark.parametrize("n_qubits", [2, 4, 6])
@pytest.mark.parametrize("preset", ["ibm-mumbai-max", "ibm-ourense", "depolarizing"])
def test_presets(preset: str, n_qubits: int) -> None:
    noise = load_noise(preset)
    assert noise is not None
    n_qubits = min(n_qubits, noise.n_qubits or n_qubits)
    assert_agreement(noise, n_qubits, 2, np.random.default_rng([SEED, n_qubits]))


# ---------------------------------------------------------------------- device snapshots
@functools.cache
def device(name: str) -> Any:
    provider = pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    return getattr(provider, name)()


def connected_qubits(backend: Any, count: int, rng: np.random.Generator) -> list[int]:
    """A random connected patch of the device, in random order."""
    edges = [tuple(edge) for edge in backend.coupling_map.get_edges()]
    patch = [int(rng.integers(backend.num_qubits))]
    while len(patch) < count:
        near = sorted({b for a, b in edges if a in patch} | {a for a, b in edges if b in patch})
        near = [q for q in near if q not in patch]
        patch.append(near[rng.integers(len(near))])
    return [patch[i] for i in rng.permutation(count)]


@pytest.mark.ibm
@pytest.mark.parametrize("name", DEVICES)
def test_devices(name: str) -> None:
    backend = device(name)
    rng = np.random.default_rng([SEED, 100 + DEVICES.index(name)])
    for n_qubits in (3, 5):
        noise = NoiseModel.from_backend(backend, qubits=connected_qubits(backend, n_qubits, rng))
        assert_agreement(noise, n_qubits, 1, rng)


@pytest.mark.ibm
@pytest.mark.parametrize("name", ["FakeOurenseV2", "FakeManilaV2", "FakeYorktownV2"])
def test_native_circuits_see_the_noise_that_aer_reads_itself(name: str) -> None:
    """Native gates on the whole device: Aer's own model and Aer's own run, none of our conversions back to Aer."""
    from qiskit_aer.noise import NoiseModel as AerNoiseModel

    backend = device(name)
    ours = PauliTransferSimulator(NoiseModel.from_backend(backend, qubits=list(range(backend.num_qubits))))
    theirs = AerNoiseModel.from_backend(backend)
    rng = np.random.default_rng([SEED, 7])
    directed = [tuple(edge) for edge in backend.coupling_map.get_edges()]
    pulse = "sx" if "sx" in backend.target.operation_names else "u"
    for _ in range(3):
        gates: list[Gate] = []
        for _ in range(30):
            if rng.random() < 0.4:
                gates.append(Gate("cx", directed[rng.integers(len(directed))]))
            else:
                qubit = int(rng.integers(backend.num_qubits))
                name_of = str(rng.choice(["rz", pulse]))
                count = GATES[name_of].n_angles
                gates.append(Gate(name_of, (qubit,), tuple(rng.uniform(-3, 3, size=count).tolist())))
        circuit = Circuit(backend.num_qubits, gates)
        hamiltonian = random_hamiltonian(backend.num_qubits, 20, rng)
        flips = ours.noise.readout_flips(backend.num_qubits) if ours.noise is not None else None
        rho = aer_density_matrix(circuit, theirs, rename={"u": "u3"} if pulse == "u" else {})
        assert abs(ours.expectation(circuit, hamiltonian) - measured(rho, hamiltonian, flips)) < AERS_OWN


# ---------------------------------------------------------------------- Aer by hand
def aer_density_matrix(circuit: Circuit, model: Any, rename: dict[str, str] | None = None) -> np.ndarray:
    """The final state by qiskit-aer alone, shape (2**n, 2**n)."""
    from qiskit import QuantumCircuit
    from qiskit.circuit.library import U3Gate
    from qiskit_aer import AerSimulator as QiskitAerSimulator

    quantum = QuantumCircuit(circuit.n_qubits)
    for gate in circuit:
        if (rename or {}).get(gate.name) == "u3":
            quantum.append(U3Gate(*gate.angles), gate.qubits)
        else:
            getattr(quantum, gate.name)(*gate.angles, *gate.qubits)
    quantum.save_density_matrix()
    backend = QiskitAerSimulator(method="density_matrix", noise_model=model, zero_threshold=0.0)
    return np.asarray(backend.run(quantum, shots=1).result().data(0)["density_matrix"])


def measured(rho: np.ndarray, hamiltonian: Hamiltonian, flips: np.ndarray | None) -> float:
    """Σ_k c_k ⟨P_k⟩ from the probabilities of outcomes in each term's basis, read through the confusion matrices."""
    n = hamiltonian.n_qubits
    h = np.array([[1, 1], [1, -1]]) / math.sqrt(2)
    into = {"I": np.eye(2), "Z": np.eye(2), "X": h, "Y": h @ np.diag([1, -1j])}
    total = 0.0
    for string, coefficient in hamiltonian.terms.items():
        rotation = functools.reduce(np.kron, [into[letter] for letter in string])
        outcome = np.diag(rotation @ rho @ rotation.conj().T).real
        value = np.ones(1)
        for place, letter in enumerate(string):
            p01, p10 = (0.0, 0.0) if flips is None else flips[n - 1 - place]
            # What the reading 0 or 1 is worth, averaged over the flips, for the true bit 0 or 1.
            worth = np.array([1 - 2 * p01, -(1 - 2 * p10)]) if letter != "I" else np.ones(2)
            value = np.kron(value, worth)
        total += coefficient * float(value @ outcome)
    return total


@pytest.mark.parametrize("n_qubits", [3, 4])
def test_a_model_built_by_hand_in_aer(n_qubits: int) -> None:
    """Depolarizing and thermal relaxation, different on each qubit, attached with qiskit-aer's own functions."""
    from qiskit_aer.noise import NoiseModel as AerNoiseModel
    from qiskit_aer.noise import depolarizing_error, thermal_relaxation_error

    rng = np.random.default_rng([SEED, 200 + n_qubits])
    t1 = rng.uniform(50e-6, 120e-6, size=n_qubits)
    t2 = t1 * rng.uniform(0.3, 1.9, size=n_qubits)  # below and above T1: Aer writes them in two different ways
    population = rng.uniform(0.0, 0.3, size=n_qubits)
    p1, p2 = 2e-3, 1.5e-2
    flips = rng.uniform(0.005, 0.1, size=(n_qubits, 2))
    ours = NoiseModel("by hand").add(depolarizing(p1), ONE_QUBIT_GATES).add(depolarizing(p2, 2), TWO_QUBIT_GATES)
    theirs = AerNoiseModel()
    relax1, relax2 = [], []
    for q in range(n_qubits):
        ours = ours.add(thermal_relaxation(t1[q], t2[q], 50e-9, population[q]), ONE_QUBIT_GATES, [q])
        ours = ours.add_readout(*flips[q], [q])
        relax1.append(thermal_relaxation_error(t1[q], t2[q], 50e-9, population[q]))
        relax2.append(thermal_relaxation_error(t1[q], t2[q], 400e-9, population[q]))
        error = depolarizing_error(p1, 1).compose(relax1[q])
        theirs.add_quantum_error(error, list(ONE_QUBIT_GATES), [q])
    for a in range(n_qubits):
        relax = thermal_relaxation(t1[a], t2[a], 400e-9, population[a])
        others = [b for b in (a - 1, a + 1) if 0 <= b < n_qubits]
        ours = ours.add(relax, TWO_QUBIT_GATES, [(a, b) for b in others], target=0)
        ours = ours.add(relax, TWO_QUBIT_GATES, [(b, a) for b in others], target=1)
        for b in others:
            both = relax2[a].expand(relax2[b])  # qubit a is the first of the gate, Aer's least significant
            theirs.add_quantum_error(depolarizing_error(p2, 2).compose(both), list(TWO_QUBIT_GATES), [a, b])
    simulator = PauliTransferSimulator(ours)
    hamiltonian = random_hamiltonian(n_qubits, min(4**n_qubits - 1, 25), rng)
    for _ in range(3):
        circuit = circuit_on([(q, q + 1) for q in range(n_qubits - 1)], n_qubits, 8 * n_qubits, rng)
        expected = measured(aer_density_matrix(circuit, theirs), hamiltonian, flips)
        assert abs(simulator.expectation(circuit, hamiltonian) - expected) < AERS_OWN


def relaxing(p: float, t1: float, t2: float, time: float, excited: float) -> Any:
    """Depolarizing, then thermal relaxation, on one qubit, by qiskit-aer's own functions (times in seconds)."""
    from qiskit_aer.noise import depolarizing_error, thermal_relaxation_error

    return depolarizing_error(p, 1).compose(thermal_relaxation_error(t1, t2, time, excited))


def mumbai_by_hand(p1: float, p2: float, time1: float, time2: float) -> Any:
    from qiskit_aer.noise import NoiseModel as AerNoiseModel

    model = AerNoiseModel()
    one = relaxing(p1, 122.286e-6, 167.2e-6, time1, 0.0758466)
    each = relaxing(p2, 122.286e-6, 167.2e-6, time2, 0.0758466)
    model.add_all_qubit_quantum_error(one, list(ONE_QUBIT_GATES))
    model.add_all_qubit_quantum_error(each.tensor(each), list(TWO_QUBIT_GATES))
    return model


def ourense_by_hand() -> Any:
    from qiskit_aer.noise import NoiseModel as AerNoiseModel
    from qiskit_aer.noise import thermal_relaxation_error

    times = [(75.75e-6, 50.81e-6), (78.47e-6, 27.56e-6), (101.51e-6, 107.0e-6), (79.54e-6, 78.38e-6)]
    model = AerNoiseModel()
    for qubit, (t1, t2) in enumerate(times):
        model.add_quantum_error(thermal_relaxation_error(t1, t2, 35e-9, 0.0722037), list(ONE_QUBIT_GATES), [qubit])
    for a, b, p in [(0, 1, 0.0098), (1, 2, 0.0095), (1, 3, 0.0130)]:
        on_a, on_b = (relaxing(p, *times[q], 300e-9, 0.0722037) for q in (a, b))
        model.add_quantum_error(on_a.expand(on_b), list(TWO_QUBIT_GATES), [a, b])
        model.add_quantum_error(on_b.expand(on_a), list(TWO_QUBIT_GATES), [b, a])
    return model


def depolarizing_by_hand() -> Any:
    from qiskit_aer.noise import NoiseModel as AerNoiseModel
    from qiskit_aer.noise import depolarizing_error

    model = AerNoiseModel()
    each = depolarizing_error(5e-3, 1)
    model.add_all_qubit_quantum_error(depolarizing_error(1e-3, 1), list(ONE_QUBIT_GATES))
    model.add_all_qubit_quantum_error(each.tensor(each), list(TWO_QUBIT_GATES))
    return model


BY_HAND: dict[str, tuple[Callable[[], Any], list[float]]] = {
    "ibm-mumbai": (lambda: mumbai_by_hand(2.44e-4, 8.25e-3, 35e-9, 416e-9), [0.0225] * 4),
    "ibm-mumbai-max": (lambda: mumbai_by_hand(1.4e-3, 0.0228, 35e-9, 739.556e-9), [0.0869] * 4),
    "ibm-mumbai-10max": (lambda: mumbai_by_hand(0.0148, 0.2303, 350e-9, 7395.56e-9), [0.0869] * 4),
    "ibm-ourense": (ourense_by_hand, [0.0166, 0.0237, 0.0156, 0.0396]),
    "depolarizing": (depolarizing_by_hand, [0.0] * 4),
}
"""The numbers of CRLQAS section 4.2, typed again: the model in qiskit-aer, and each qubit's readout flip."""


@pytest.mark.parametrize("preset", list_noise())
def test_presets_built_by_hand_in_aer(preset: str) -> None:
    build, flips = BY_HAND[preset]
    theirs = build()
    noise = load_noise(preset)
    assert noise is not None
    pairs = None if noise.coupling is None else sorted(noise.coupling)
    rng = np.random.default_rng([SEED, 300, *preset.encode()])
    simulator = PauliTransferSimulator(noise)
    for _ in range(2):
        circuit = circuit_on(pairs, 4, 30, rng)
        hamiltonian = random_hamiltonian(4, 30, rng)
        rho = aer_density_matrix(circuit, theirs)
        expected = measured(rho, hamiltonian, np.column_stack([flips, flips]))
        assert abs(simulator.expectation(circuit, hamiltonian) - expected) < AERS_OWN
        ideal = measured(aer_density_matrix(circuit, None), hamiltonian, None)
        assert abs(expected - ideal) > 1e-4, "the noise must be seen"


@pytest.mark.parametrize("preset", list_noise())
def test_readout_of_presets_against_confusion_matrices(preset: str) -> None:
    """Diagonal observables of a state whose outcome probabilities go through the full 16 x 16 confusion matrix."""
    noise = load_noise(preset)
    assert noise is not None
    _, flips = BY_HAND[preset]
    # Column: true outcome, row: reading; qubit 0 is the last factor.
    confusion = functools.reduce(np.kron, [np.array([[1 - p, p], [p, 1 - p]]) for p in reversed(flips)])
    circuit = Circuit(4, [("ry", q, 0.4 + 0.5 * q) for q in range(4)] + [("cx", (0, 1)), ("cx", (1, 3))])
    rho = PauliTransferSimulator(replace(noise, readout={})).pauli_expectations(circuit)
    strings = ["".join(letters) for letters in itertools.product("IZ", repeat=4)]
    values = {s: rho[sum(3 << (2 * (3 - k)) for k, letter in enumerate(s) if letter == "Z")] for s in strings}
    signs = {s: functools.reduce(np.kron, [[1, -1] if c == "Z" else [1, 1] for c in s]) for s in strings}
    outcome = np.sum([values[s] * signs[s] for s in strings], axis=0) / 16
    read = confusion @ outcome
    simulator = PauliTransferSimulator(noise)
    for string in strings[1:]:
        ours = simulator.expectation(circuit, Hamiltonian({string: 1.0}))
        assert ours == pytest.approx(float(signs[string] @ read), abs=1e-12)
