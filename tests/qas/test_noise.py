"""Channels, presets, and noise models in and out of Qiskit, against Qiskit's channels and Aer's density matrices."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.quantum_info import PTM, DensityMatrix, Kraus, Operator, SuperOp, random_quantum_channel
from qiskit_aer import AerSimulator
from qiskit_aer.library import SaveDensityMatrix
from qiskit_aer.noise import NoiseModel as AerNoiseModel
from qiskit_aer.noise import (
    QuantumError,
    ReadoutError,
    amplitude_damping_error,
    depolarizing_error,
    phase_amplitude_damping_error,
    phase_damping_error,
    thermal_relaxation_error,
)

from qas.circuits import Circuit, Gate
from qas.devices import load_device
from qas.errors import CircuitError, NotPhysicalError, QasError, UnknownNameError
from qas.gates import GATES
from qas.hamiltonians import Hamiltonian
from qas.noise import (
    ONE_QUBIT_GATES,
    TWO_QUBIT_GATES,
    Channel,
    NoiseModel,
    amplitude_damping,
    depolarizing,
    embed_pair,
    kraus,
    list_noise,
    load_noise,
    phase_damping,
    thermal_relaxation,
    unitary_ptm,
)
from qas.simulators import make_simulator
from qas.simulators.dense import dense_expectation, density_matrix
from qas.simulators.pauli_transfer import PauliTransferSimulator
from qas.testing import random_circuit, random_hamiltonian
from qas.testing.devices import backend_of

SEED = 402_033_500
NATIVE = ("rz", "sx", "x", "cx", "cz")
DEVICES = {
    "FakeOurenseV2": [3, 1, 0],
    "FakeYorktownV2": [2, 3, 4],
    "FakeManilaV2": [1, 2, 3],
    "FakeNairobiV2": [0, 1, 2],
    "FakeMumbaiV2": [1, 0, 2],
    "FakeTorino": [2, 1, 0],
    "FakeSherbrooke": [2, 1, 0],
}


def qiskit_ptm(channel: Any) -> np.ndarray:
    return PTM(SuperOp(channel)).data.real


def aer_density_matrix(circuit: Circuit, noise: AerNoiseModel) -> np.ndarray:
    quantum = circuit.to_qiskit()
    quantum.append(SaveDensityMatrix(circuit.n_qubits), range(circuit.n_qubits))
    backend = AerSimulator(method="density_matrix", noise_model=noise, zero_threshold=0.0)
    return np.asarray(backend.run(quantum, shots=1).result().data(0)["density_matrix"])


def assert_same_states(
    model: NoiseModel,
    aer: AerNoiseModel,
    n_qubits: int,
    gates: tuple[str, ...] | None = None,
    accuracy: float = 1e-10,
) -> None:
    """Three random circuits that the model allows: our channels in dense matrices against Aer's density matrix."""
    rng = np.random.default_rng(SEED)
    for _ in range(3):
        drawn = random_circuit(n_qubits, 40, rng, gates)
        circuit = Circuit(n_qubits, [g for g in drawn if allowed(model, g.name, g.qubits)][:14])
        difference = np.abs(density_matrix(circuit, model) - aer_density_matrix(circuit, aer)).max()
        assert difference < accuracy
        ideal = np.abs(density_matrix(circuit) - density_matrix(circuit, model)).max()
        assert ideal > 1e-5


def allowed(model: NoiseModel, gate: str, qubits: tuple[int, ...]) -> bool:
    try:
        model.check(gate, qubits)
    except CircuitError:
        return False
    return True


def asymmetric_channel(seed: int = SEED) -> SuperOp:
    """A two-qubit channel that changes when its qubits are exchanged."""
    return SuperOp(0.8 * np.eye(16) + 0.2 * SuperOp(random_quantum_channel(4, 4, rank=3, seed=seed)).data)


# ---------------------------------------------------------------------- channels
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (depolarizing(0.3), depolarizing_error(0.3, 1)),
        (depolarizing(4 / 3), depolarizing_error(4 / 3, 1)),
        (depolarizing(0.07, 2), depolarizing_error(0.07, 2)),
        (thermal_relaxation(50e-6, 70e-6, 300e-9, 0.07), thermal_relaxation_error(50e-6, 70e-6, 300e-9, 0.07)),
        (thermal_relaxation(50e-6, 30e-6, 300e-9, 0.2), thermal_relaxation_error(50e-6, 30e-6, 300e-9, 0.2)),
        (thermal_relaxation(50e-6, 100e-6, 1e-5), thermal_relaxation_error(50e-6, 100e-6, 1e-5)),
        (amplitude_damping(0.2, 0.3), amplitude_damping_error(0.2, 0.3)),
        (phase_damping(0.4), phase_damping_error(0.4)),
    ],
    ids=lambda c: c.name if isinstance(c, Channel) else "",
)
def test_channels_are_those_of_aer(ours: Channel, theirs: Any) -> None:
    np.testing.assert_allclose(ours.ptm, qiskit_ptm(theirs), atol=1e-12)


@pytest.mark.parametrize("n_qubits", [1, 2])
def test_kraus_and_unitary_transfer_matrices_are_those_of_qiskit(n_qubits: int) -> None:
    for seed in range(5):
        channel = random_quantum_channel(2**n_qubits, 2**n_qubits, rank=3, seed=SEED + seed)
        np.testing.assert_allclose(kraus(Kraus(channel).data).ptm, qiskit_ptm(channel), atol=1e-12)
    for spec in GATES.values():
        matrix = spec.matrix(*np.linspace(0.3, 2.0, spec.n_angles))
        np.testing.assert_allclose(unitary_ptm(matrix), qiskit_ptm(Kraus(matrix)), atol=1e-12)


def test_pair_order_first_qubit_is_the_least_significant() -> None:
    first, second = amplitude_damping(0.3), phase_damping(0.5)
    theirs = phase_damping_error(0.5).tensor(amplitude_damping_error(0.3))
    np.testing.assert_allclose(embed_pair(first.ptm, second.ptm), qiskit_ptm(theirs), atol=1e-12)


def test_channels_compose_in_time_order() -> None:
    both = amplitude_damping(0.3).then(depolarizing(0.2))
    theirs = amplitude_damping_error(0.3).compose(depolarizing_error(0.2, 1))
    np.testing.assert_allclose(both.ptm, qiskit_ptm(theirs), atol=1e-12)


@pytest.mark.parametrize(
    ("ptm", "reason"),
    [
        (np.diag([1.0, 1.0, 1.0, -1.0]), "completely positive"),
        (np.diag([1.0, 1.01, 1.0, 1.0]), "completely positive"),
        (np.diag([0.9, 0.9, 0.9, 0.9]), "trace preserving"),
        (np.full((4, 4), np.nan), "finite"),
    ],
)
def test_maps_that_are_not_physical_are_refused_by_name(ptm: np.ndarray, reason: str) -> None:
    with pytest.raises(NotPhysicalError, match=f"(?s)broken-one.*{reason}"):
        Channel("broken-one", ptm)
    with pytest.raises(NotPhysicalError, match="lossy"):
        kraus([np.diag([1.0, 0.5])], "lossy")


@pytest.mark.parametrize(
    "make",
    [
        lambda: depolarizing(-0.1),
        lambda: depolarizing(1.4),
        lambda: depolarizing(float("nan")),
        lambda: thermal_relaxation(1e-6, 3e-6, 1e-7),
        lambda: thermal_relaxation(1e-6, 1e-6, -1e-7),
        lambda: thermal_relaxation(1e-6, 1e-6, 1e-7, 1.5),
        lambda: amplitude_damping(1.1),
        lambda: phase_damping(-0.1),
        lambda: NoiseModel().add_readout(1.2, 0.0),
    ],
)
def test_parameters_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(NotPhysicalError):
        make()


# ---------------------------------------------------------------------- models and presets
@pytest.mark.parametrize("name", list_noise())
def test_presets_load_act_and_survive_json(name: str) -> None:
    model = load_noise(name)
    assert isinstance(model, NoiseModel)
    assert model.name == name
    again = NoiseModel.from_json(json.loads(json.dumps(model.to_json())))
    assert again == model
    circuit = Circuit(4, [("ry", 0, 0.7), ("cx", (0, 1)), ("rx", 2, 1.1), ("cx", (1, 2)), ("cx", (3, 1))])
    hamiltonian = random_hamiltonian(4, 20, np.random.default_rng(SEED))
    value = dense_expectation(circuit, hamiltonian, model)
    assert value == dense_expectation(circuit, hamiltonian, again)
    assert abs(value - dense_expectation(circuit, hamiltonian)) > 1e-4


def test_generic_depolarizing_shrinks_as_published() -> None:
    model = load_noise("depolarizing")
    assert model is not None
    one, two = model.channel("rx", (0,)), model.channel("cx", (0, 1))
    assert one is not None
    assert two is not None
    np.testing.assert_allclose(np.diag(one), [1, 0.999, 0.999, 0.999], atol=1e-15)
    assert two[15, 15] == pytest.approx(0.995**2)
    assert two[3, 3] == pytest.approx(0.995)


def test_unknown_presets_and_gates_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="ibm-mumbai"):
        load_noise("ibm-mumbay")
    with pytest.raises(UnknownNameError):
        NoiseModel().add(depolarizing(0.1), "cnot")
    with pytest.raises(QasError, match="two-qubit gate"):
        NoiseModel().add(depolarizing(0.1, 2), "rx")
    with pytest.raises(CircuitError, match="couples only"):
        density_matrix(Circuit(4, [("cx", (0, 2))]), load_noise("ibm-ourense"))


def test_readout_algebra_agrees_with_counted_bits() -> None:
    rng = np.random.default_rng(SEED)
    flips = [(0.03, 0.09), (0.2, 0.01), (0.0, 0.15)]
    model, aer = NoiseModel(), AerNoiseModel()
    for qubit, (p01, p10) in enumerate(flips):
        model = model.add_readout(p01, p10, [qubit])
        aer.add_readout_error(ReadoutError([[1 - p01, p01], [p10, 1 - p10]]), [qubit])
    circuit = random_circuit(3, 12, rng)
    quantum = circuit.to_qiskit()
    quantum.measure_all()
    shots = 200_000
    counts = AerSimulator(noise_model=aer).run(quantum, shots=shots, seed_simulator=8).result().get_counts()
    for string in ("IIZ", "IZI", "ZII", "ZIZ", "ZZZ"):
        expected = dense_expectation(circuit, Hamiltonian({string: 1.0}), model)
        signs = {bits: (-1) ** sum(b == "1" and p == "Z" for b, p in zip(bits, string, strict=True)) for bits in counts}
        measured = sum(signs[bits] * number for bits, number in counts.items()) / shots
        assert abs(measured - expected) < 5 * np.sqrt((1 - expected**2) / shots) + 1e-12


# ---------------------------------------------------------------------- Aer models
def aer_model() -> AerNoiseModel:
    """All-qubit and local errors of every kind, with an asymmetric channel on one ordered pair."""
    model = AerNoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(0.02, 1), ["rx", "ry", "h", "u"])
    model.add_all_qubit_quantum_error(depolarizing_error(0.05, 2), ["cx", "rzz"])
    model.add_all_qubit_quantum_error(thermal_relaxation_error(50, 30, 5), ["x", "sx"])
    model.add_quantum_error(phase_amplitude_damping_error(0.1, 0.05, 0.2), "rx", [1])
    model.add_quantum_error(QuantumError(asymmetric_channel()), "cx", [2, 0])
    relaxation = thermal_relaxation_error(50, 70, 9)
    local = relaxation.tensor(amplitude_damping_error(0.1))
    model.add_quantum_error(depolarizing_error(0.04, 2).compose(local), "cz", [0, 1])
    turned = amplitude_damping_error(0.1).tensor(relaxation)
    model.add_quantum_error(depolarizing_error(0.04, 2).compose(turned), "cz", [1, 0])
    model.add_quantum_error(depolarizing_error(0.3, 1), ["id", "reset"], [0])
    model.add_all_qubit_quantum_error(depolarizing_error(0.3, 2), "ecr")
    model.add_all_qubit_readout_error(ReadoutError([[0.95, 0.05], [0.1, 0.9]]))
    model.add_readout_error(ReadoutError([[0.9, 0.1], [0.02, 0.98]]), [2])
    return model


@pytest.mark.parametrize("n_qubits", [None, 3])
def test_from_aer_is_exact(n_qubits: int | None) -> None:
    ours = NoiseModel.from_aer(aer_model(), n_qubits=n_qubits, strict=False)
    assert_same_states(ours, aer_model(), 3)
    np.testing.assert_array_equal(ours.readout_flips(3), [[0.05, 0.1], [0.05, 0.1], [0.1, 0.02]])


def test_a_local_error_replaces_the_all_qubit_error() -> None:
    ours = NoiseModel.from_aer(aer_model(), strict=False)
    local = ours.channel("cx", (2, 0))
    other = ours.channel("cx", (0, 2))
    assert local is not None
    assert other is not None
    np.testing.assert_allclose(local, qiskit_ptm(asymmetric_channel()), atol=1e-12)
    np.testing.assert_allclose(other, depolarizing(0.05, 2).ptm, atol=1e-12)


def test_asymmetric_channels_keep_their_qubit_order() -> None:
    """Distinguishes the order of qubits in every path: from Aer, to Aer, and dense."""
    channel = asymmetric_channel()
    exchanged = qiskit_ptm(channel).reshape(4, 4, 4, 4).transpose(1, 0, 3, 2).reshape(16, 16)
    assert np.abs(exchanged - qiskit_ptm(channel)).max() > 0.01
    for pair in permutations(range(3), 2):
        theirs = AerNoiseModel()
        theirs.add_quantum_error(QuantumError(channel), "cx", list(pair))
        circuit = Circuit(3, [("h", 0), ("ry", 1, 0.4), ("ry", 2, 1.9), ("cx", pair)])
        imported = NoiseModel.from_aer(theirs, strict=False)
        own = NoiseModel().add(Channel("asymmetric", qiskit_ptm(channel)), "cx", [pair])
        expected = aer_density_matrix(circuit, theirs)
        for state in (
            density_matrix(circuit, imported),
            density_matrix(circuit, own),
            aer_density_matrix(circuit, own.to_aer(3)),
        ):
            np.testing.assert_allclose(state, expected, atol=1e-10)


def test_errors_written_with_exchanged_qubits_are_read_right() -> None:
    inner = QuantumCircuit(2)
    inner.append(Kraus(asymmetric_channel()).to_instruction(), [1, 0])
    theirs = AerNoiseModel()
    theirs.add_all_qubit_quantum_error(QuantumError([(inner, 0.7), (QuantumCircuit(2), 0.3)]), "cx")
    assert_same_states(NoiseModel.from_aer(theirs), theirs, 2, ("cx", "u"))


def test_from_aer_with_fewer_qubits_leaves_the_rest_out() -> None:
    ours = NoiseModel.from_aer(aer_model(), n_qubits=2, strict=False)
    assert ours.n_qubits == 2
    assert all(2 not in qubits for rule in ours.rules for qubits in rule.qubits or ())
    with pytest.raises(CircuitError, match="describes 2 qubits"):
        ours.channel("rx", (2,))


def test_from_aer_refuses_what_it_cannot_represent() -> None:
    three = AerNoiseModel()
    three.add_all_qubit_quantum_error(depolarizing_error(0.1, 3), "ccx")
    joint = AerNoiseModel()
    joint.add_readout_error(ReadoutError(np.full((4, 4), 0.25)), [0, 1])
    from qiskit_aer.noise import RelaxationNoisePass

    scheduled = AerNoiseModel()
    scheduled._custom_noise_passes.append(RelaxationNoisePass([50.0], [50.0]))
    for broken, word in [(three, "1 or 2"), (joint, "single qubits"), (scheduled, "noise pass"), ("ibm-mumbai", "str")]:
        with pytest.raises(QasError, match=word):
            NoiseModel.from_aer(broken)
    with pytest.raises(QasError, match="at least 1"):
        NoiseModel.from_aer(aer_model(), n_qubits=0)


def one_qubit_errors(*gates: str) -> AerNoiseModel:
    model = AerNoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(0.01, 1), list(gates))
    return model


def test_from_aer_refuses_errors_on_two_qubit_gates_outside_the_table() -> None:
    everywhere, local = one_qubit_errors("rx", "ry"), one_qubit_errors("rx", "ry")
    everywhere.add_all_qubit_quantum_error(depolarizing_error(0.01, 2), "iswap")
    local.add_quantum_error(depolarizing_error(0.01, 2), "iswap", [1, 0])
    for theirs in (everywhere, local):
        with pytest.raises(QasError, match=r"errors on iswap.*from_backend.*strict=False") as caught:
            NoiseModel.from_aer(theirs)
        assert "\n" not in str(caught.value)
        assert NoiseModel.from_aer(theirs, strict=False).channel("cx", (0, 1)) is None


def test_from_aer_refuses_one_qubit_errors_that_miss_the_rotations() -> None:
    with pytest.raises(QasError, match=r"errors on sx, x but none on rx and ry.*from_backend.*strict=False") as caught:
        NoiseModel.from_aer(one_qubit_errors("sx", "x", "id"))
    assert "\n" not in str(caught.value)
    assert NoiseModel.from_aer(one_qubit_errors("sx", "x"), strict=False).channel("rx", (0,)) is None
    for gates in (("rx",), ("ry", "sx"), ("id",)):
        NoiseModel.from_aer(one_qubit_errors(*gates))


def test_from_aer_refuses_an_asymmetric_gate_with_one_direction() -> None:
    theirs = AerNoiseModel()
    theirs.add_quantum_error(depolarizing_error(0.01, 2), "cx", [2, 1])
    with pytest.raises(QasError, match=r"cx has an error on \(2, 1\) but none on \(1, 2\).*strict=False") as caught:
        NoiseModel.from_aer(theirs)
    assert "\n" not in str(caught.value)
    assert NoiseModel.from_aer(theirs, strict=False).channel("cx", (1, 2)) is None
    assert NoiseModel.from_aer(theirs, n_qubits=2).rules == ()
    theirs.add_quantum_error(depolarizing_error(0.01, 2), "cx", [1, 2])
    assert NoiseModel.from_aer(theirs).coupling == {(1, 2)}
    symmetric = AerNoiseModel()
    symmetric.add_quantum_error(depolarizing_error(0.01, 2), "rzz", [2, 1])
    np.testing.assert_allclose(present(NoiseModel.from_aer(symmetric), "rzz", 1, 2), depolarizing(0.01, 2).ptm)


def test_from_aer_refuses_errors_that_depend_on_the_order_of_a_symmetric_gate() -> None:
    everywhere, local = AerNoiseModel(), AerNoiseModel()
    everywhere.add_all_qubit_quantum_error(QuantumError(asymmetric_channel()), "swap")
    for pair in ([1, 0], [0, 1]):
        local.add_quantum_error(QuantumError(asymmetric_channel()), "swap", pair)
    for theirs in (everywhere, local):
        with pytest.raises(QasError, match=r"order of the qubits of swap.*strict=False") as caught:
            NoiseModel.from_aer(theirs)
        assert "\n" not in str(caught.value)
        read = NoiseModel.from_aer(theirs, strict=False)
        np.testing.assert_allclose(present(read, "swap", 0, 1), qiskit_ptm(asymmetric_channel()), atol=1e-12)
        np.testing.assert_allclose(present(read, "swap", 1, 0), exchanged(asymmetric_channel()), atol=1e-12)


@pytest.mark.parametrize("name", ["FakeOurenseV2", "FakeManilaV2"])
def test_from_aer_refuses_the_native_errors_of_a_device(name: str) -> None:
    theirs = AerNoiseModel.from_backend(fake(name))
    with pytest.raises(QasError, match="none on rx and ry"):
        NoiseModel.from_aer(theirs)
    read = NoiseModel.from_aer(theirs, strict=False)
    assert read.coupling == NoiseModel.from_backend(fake(name)).coupling
    with pytest.raises(CircuitError, match="couples only"):
        read.channel("cx", (0, 4))


def test_coupling_is_read_from_local_errors_only() -> None:
    theirs = AerNoiseModel()
    for pair in ([0, 1], [1, 0], [3, 1], [1, 3]):
        theirs.add_quantum_error(depolarizing_error(0.01, 2), ["cx", "rzz"], pair)
    assert NoiseModel.from_aer(theirs).coupling == {(0, 1), (1, 3)}
    assert NoiseModel.from_aer(theirs, n_qubits=3).coupling == {(0, 1)}
    theirs.add_all_qubit_quantum_error(depolarizing_error(0.01, 2), "cz")
    assert NoiseModel.from_aer(theirs).coupling is None
    assert NoiseModel.from_aer(one_qubit_errors("rx", "ry")).coupling is None


# ---------------------------------------------------------------------- symmetric gates
SYMMETRIC = [name for name, spec in GATES.items() if spec.symmetric]


def turned(channel: SuperOp) -> SuperOp:
    """The channel with its two qubits exchanged."""
    swap = SuperOp(Kraus(GATES["swap"].matrix()))
    return swap.compose(channel).compose(swap)


def exchanged(channel: SuperOp) -> np.ndarray:
    return qiskit_ptm(turned(channel))


def asymmetric_models() -> dict[str, NoiseModel]:
    """Models that tell the two qubits of a pair apart, in every way a rule can."""
    pair = Channel("asymmetric", qiskit_ptm(asymmetric_channel()))
    other = Channel("exchanged", exchanged(asymmetric_channel()))
    damping = amplitude_damping(0.3)
    return {
        "one order": NoiseModel().add(pair, TWO_QUBIT_GATES, [(2, 0), (1, 2)]),
        "target": NoiseModel().add(damping, TWO_QUBIT_GATES, [(2, 0), (1, 2)], target=1),
        "everywhere": NoiseModel().add(pair, TWO_QUBIT_GATES),
        "target everywhere": NoiseModel().add(damping, TWO_QUBIT_GATES, target=0),
        "both orders": NoiseModel()
        .add(pair, TWO_QUBIT_GATES, [(2, 0)])
        .add(other, TWO_QUBIT_GATES, [(0, 2)])
        .add(damping, TWO_QUBIT_GATES, [(1, 2)], target=0)
        .add(damping, TWO_QUBIT_GATES, [(2, 1)], target=1),
    }


@pytest.mark.parametrize("kind", asymmetric_models())
def test_circuits_of_equal_key_have_equal_energies(kind: str) -> None:
    model = asymmetric_models()[kind]
    model = NoiseModel.from_json(json.loads(json.dumps(model.to_json())))
    assert model == asymmetric_models()[kind]
    rng = np.random.default_rng(SEED)
    engine = PauliTransferSimulator(model)
    for _ in range(2):
        drawn = random_circuit(3, 25, rng, ("u", *SYMMETRIC))
        gates = [Gate(g.name, g.qubits[::-1] if rng.random() < 0.5 else g.qubits, g.angles) for g in drawn]
        circuit, other = Circuit(3, drawn), Circuit(3, gates)
        assert circuit.key == other.key
        hamiltonian = random_hamiltonian(3, 30, rng)
        energy = dense_expectation(circuit, hamiltonian, model)
        assert dense_expectation(other, hamiltonian, model) == pytest.approx(energy, abs=1e-12)
        assert engine.expectation(circuit, hamiltonian) == pytest.approx(energy, abs=1e-12)
        assert engine.expectation(other, hamiltonian) == pytest.approx(energy, abs=1e-12)
        assert abs(energy - dense_expectation(circuit, hamiltonian)) > 1e-4


@pytest.mark.parametrize("gate", SYMMETRIC)
def test_rules_on_one_order_of_a_symmetric_gate_act_on_both(gate: str) -> None:
    channel = asymmetric_channel()
    one = NoiseModel().add(Channel("pair", qiskit_ptm(channel)), (gate, "cx"), [(0, 1)])
    np.testing.assert_allclose(present(one, gate, 0, 1), qiskit_ptm(channel), atol=1e-14)
    np.testing.assert_allclose(present(one, gate, 1, 0), exchanged(channel), atol=1e-14)
    assert one.channel("cx", (1, 0)) is None
    damping = amplitude_damping(0.2)
    first = NoiseModel().add(damping, gate, [(2, 1)], target=0)
    np.testing.assert_array_equal(present(first, gate, 2, 1), embed_pair(damping.ptm, np.eye(4)))
    np.testing.assert_array_equal(present(first, gate, 1, 2), embed_pair(np.eye(4), damping.ptm))


def test_rules_on_both_orders_of_a_symmetric_gate_act_once() -> None:
    channel, damping = depolarizing(0.1, 2), amplitude_damping(0.2)
    together = NoiseModel().add(channel, "cz", [(0, 1), (1, 0)])
    apart = NoiseModel().add(channel, "cz", [(0, 1)]).add(channel, "cz", [(1, 0)])
    for model in (together, apart):
        np.testing.assert_array_equal(present(model, "cz", 0, 1), channel.ptm)
        np.testing.assert_array_equal(present(model, "cz", 1, 0), channel.ptm)
    twice = NoiseModel().add(channel, "cz", [(0, 1)]).add(channel, "cz", [(0, 1)])
    np.testing.assert_array_equal(present(twice, "cz", 1, 0), channel.ptm @ channel.ptm)
    also = together.add(damping, "cz")
    np.testing.assert_allclose(present(also, "cz", 1, 0), embed_pair(damping.ptm, damping.ptm) @ channel.ptm)


def test_rules_that_differ_on_the_two_orders_of_a_symmetric_gate_are_refused() -> None:
    model = NoiseModel("odd").add(depolarizing(0.1), ("cx", "cz"), [(0, 1)])
    model = model.add(depolarizing(0.2), ("cx", "cz"), [(1, 0)])
    for pair in ((0, 1), (1, 0)):
        assert model.channel("cx", pair) is not None
        with pytest.raises(QasError, match=r"order of the qubits of cz.*'odd'") as caught:
            model.channel("cz", pair)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- size of the register
@pytest.mark.parametrize("engine", ["pauli-transfer", "aer", "dense"])
def test_a_register_larger_than_the_model_is_refused(engine: str) -> None:
    noise = load_noise("ibm-ourense")
    assert noise is not None
    noise.check_register(4)
    NoiseModel().check_register(40)
    circuit, hamiltonian = Circuit(6, [("rx", 0, 0.3)]), Hamiltonian({"ZIIIII": 1.0})
    with pytest.raises(CircuitError) as caught:
        if engine == "dense":
            dense_expectation(circuit, hamiltonian, noise)
        else:
            make_simulator(noise, engine).expectation(circuit, hamiltonian)
    assert str(caught.value) == "noise 'ibm-ourense' describes 4 qubits, got 6"


@pytest.mark.parametrize("name", list_noise())
def test_presets_export_to_aer_exactly(name: str) -> None:
    model = load_noise(name)
    assert model is not None
    assert_same_states(model, model.to_aer(3), 3)
    readout = model.to_aer(3)._local_readout_errors
    for qubit, (p01, p10) in enumerate(model.readout_flips(3)):
        if p01 or p10:
            np.testing.assert_allclose(readout[(qubit,)].probabilities, [[1 - p01, p01], [p10, 1 - p10]])


def test_export_and_import_are_inverse() -> None:
    model = NoiseModel.from_aer(aer_model(), n_qubits=3, strict=False)
    again = NoiseModel.from_aer(model.to_aer(3), n_qubits=3)
    for gate, spec in GATES.items():
        for qubits in permutations(range(3), spec.n_qubits):
            ours, theirs = model.channel(gate, qubits), again.channel(gate, qubits)
            identity = np.eye(4**spec.n_qubits)
            left, right = (identity if m is None else m for m in (ours, theirs))
            np.testing.assert_allclose(left, right, atol=1e-12)


def test_very_weak_noise_is_not_lost_on_export() -> None:
    model = NoiseModel().add(amplitude_damping(3e-9), ONE_QUBIT_GATES)
    circuit = Circuit(1, [("x", 0)])
    np.testing.assert_allclose(aer_density_matrix(circuit, model.to_aer(1)), density_matrix(circuit, model), atol=1e-14)


def test_export_checks_the_number_of_qubits() -> None:
    with pytest.raises(QasError, match="describes 4"):
        load_noise("ibm-ourense").to_aer(5)  # type: ignore[union-attr]
    with pytest.raises(QasError, match="at least 1"):
        NoiseModel().to_aer(0)


# ---------------------------------------------------------------------- what is refused, files, summaries
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"gates": "cx", "target": 2}, "target"),
        ({"gates": "cx", "target": -1}, "target"),
        ({"gates": "rx", "target": 0}, "target"),
        ({"gates": "rx", "qubits": [-1]}, "at least 0, got -1"),
        ({"gates": "rx", "qubits": [1.5]}, "at least 0, got 1.5"),
        ({"gates": "rx", "qubits": [(0, 1)]}, "different"),
        ({"gates": "cx", "qubits": [(-1, 0)]}, "at least 0, got -1"),
        ({"gates": "cx", "qubits": [(1, 1)]}, "different"),
        ({"gates": "cx", "qubits": [0]}, "different"),
        ({"gates": "cx", "qubits": [(0, 3)]}, "couples only"),
        ({"gates": "rx", "qubits": [4]}, "describes 4"),
    ],
)
def test_noise_that_no_gate_can_have_is_refused(arguments: dict[str, Any], words: str) -> None:
    model = load_noise("ibm-ourense")
    assert model is not None
    with pytest.raises(QasError, match=words) as caught:
        model.add(depolarizing(0.1), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("qubit", [-1, 4, 0.5, (0, 1)])
def test_readout_of_qubits_that_are_none_is_refused(qubit: Any) -> None:
    with pytest.raises(QasError, match="read out"):
        load_noise("ibm-ourense").add_readout(0.1, 0.1, [qubit])  # type: ignore[union-attr]


def test_noise_is_read_from_files(tmp_path: Path) -> None:
    model = load_noise("ibm-ourense")
    assert model is not None
    path = tmp_path / "device.json"
    path.write_text(json.dumps(model.to_json()))
    assert load_noise(path) == load_noise(str(path)) == model
    for text, words in (
        ("{", "damaged or cut short"),
        ("[]", "an object is needed"),
        ('{"name": 3}', "damaged at name"),
    ):
        path.write_text(text)
        with pytest.raises(QasError, match=words) as caught:
            load_noise(path)
        assert "\n" not in str(caught.value) and "device.json" in str(caught.value)
    with pytest.raises(QasError, match="is missing"):
        load_noise(tmp_path / "nothing.json")


def test_a_model_prints_a_summary() -> None:
    device = NoiseModel.from_backend(fake("FakeMumbaiV2"), qubits=[1, 0, 2])
    for model in (
        NoiseModel(),
        device,
        NoiseModel("chain", coupling=frozenset({(1, 2)}), n_qubits=3).add(depolarizing(0.1), "cx"),
    ):
        assert len(str(model).splitlines()) == 4 and len(str(model)) < 500
        assert len(repr(model)) < 100 and len(repr(model.rules[:1])) < 1000
    assert "cx: 0.0" in str(device) and "2 coupled pairs" in str(device)
    assert "rx: 0.05 average" in str(NoiseModel().add(depolarizing(0.1), "rx"))


# ---------------------------------------------------------------------- devices
def fake(name: str) -> Any:
    provider = pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    return getattr(provider, name)()


@pytest.mark.parametrize("name", DEVICES)
def test_device_snapshots_agree_with_aer(name: str) -> None:
    backend, qubits = fake(name), DEVICES[name]
    model = NoiseModel.from_backend(backend, qubits=qubits)
    assert model.n_qubits == 3
    assert model.coupling
    theirs = AerNoiseModel.from_backend(backend if backend.num_qubits <= 27 else _patch(backend, qubits))
    places = qubits if backend.num_qubits <= 27 else [0, 1, 2]
    renumbered = NoiseModel.from_aer(theirs, strict=False)
    native = [g for g in NATIVE if g in backend.operation_names]
    for gate in native:
        for where in permutations(range(3), GATES[gate].n_qubits):
            if not allowed(model, gate, where):
                continue
            ours = model.channel(gate, where)
            expected = renumbered.channel(gate, tuple(places[q] for q in where))
            if gate == "rz":
                assert ours is None
                assert expected is None
                continue
            assert ours is not None
            assert expected is not None
            np.testing.assert_allclose(ours, expected, atol=1e-10)
    flips = renumbered.readout_flips(max(places) + 1)[places]
    # Aer takes the mean of both flips.
    np.testing.assert_allclose(model.readout_flips(3).mean(axis=1), flips.mean(axis=1), atol=1e-12)
    assert_same_states(model, model.to_aer(3), 3)
    if places == [0, 1, 2]:
        # Aer drops the rarest of the up to 144 branches of its own model: its states lose up to 2e-9 of their trace.
        assert_same_states(model, theirs, 3, tuple(native), accuracy=5e-9)


def _patch(backend: Any, qubits: list[int]) -> Any:
    """Three qubits of a large device as a backend of its own; Aer takes many seconds to read the whole device."""
    from qiskit.transpiler import Target

    target = Target(num_qubits=3, qubit_properties=[backend.target.qubit_properties[q] for q in qubits])
    for name in ("rz", "sx", "x", "cz", "ecr", "measure"):
        if name in backend.target.operation_names:
            rows = backend.target[name].items()
            kept = {tuple(map(qubits.index, q)): row for q, row in rows if set(q) <= set(qubits)}
            target.add_instruction(backend.target.operation_from_name(name), kept)
    return backend_of(target)


def present(model: NoiseModel, gate: str, *qubits: int) -> np.ndarray:
    ptm = model.channel(gate, qubits)
    assert ptm is not None
    return ptm


def test_compiled_gates_carry_the_noise_of_their_pulses() -> None:
    model = NoiseModel.from_backend(fake("FakeManilaV2"), qubits=[1, 2])
    pulse, pair = present(model, "sx", 0), present(model, "cx", 0, 1)
    for gate in ("rz", "z", "s", "sdg", "t", "tdg"):
        assert model.channel(gate, (0,)) is None
    np.testing.assert_array_equal(present(model, "h", 0), pulse)
    np.testing.assert_array_equal(present(model, "y", 0), present(model, "x", 0))
    for gate in ("rx", "ry", "u"):
        np.testing.assert_allclose(present(model, gate, 0), pulse @ pulse, atol=1e-15)
    np.testing.assert_array_equal(present(model, "cz", 0, 1), pair)
    for gate in ("rxx", "ryy", "rzz"):
        np.testing.assert_allclose(present(model, gate, 0, 1), pair @ pair, atol=1e-15)
    np.testing.assert_allclose(present(model, "swap", 0, 1), pair @ pair @ pair, atol=1e-15)


def compiled_by_hand(local: Any, entangler: str, gate: str, places: tuple[int, ...]) -> SuperOp | None:
    """The noise that a gate compiled to native gates collects, from the errors of Aer's own model of the device."""
    if len(places) == 1:
        if gate in ("rz", "z", "s", "sdg", "t", "tdg"):
            return None
        native, times = {"h": ("sx", 1), "sx": ("sx", 1), "x": ("x", 1), "y": ("x", 1)}.get(gate, ("sx", 2))
        once = local[native][places]
    elif GATES[gate].symmetric and places[0] > places[1]:
        lower_first = compiled_by_hand(local, entangler, gate, places[::-1])
        return None if lower_first is None else turned(lower_first)
    else:
        times = {"cx": 1, "cz": 1, "ecr": 1, "rxx": 2, "ryy": 2, "rzz": 2, "swap": 3}[gate]
        errors = local[entangler]
        once = errors[places] if places in errors else turned(errors[places[::-1]])
    return SuperOp(np.linalg.matrix_power(once.data, times))


@pytest.mark.ibm
@pytest.mark.parametrize(
    ("name", "entangler", "qubits"),
    [("FakeTorino", "cz", [0, 1, 2]), ("FakeSherbrooke", "ecr", [0, 1, 2]), ("FakeManilaV2", "cx", [1, 2, 3])],
)
def test_compiled_gates_against_the_model_that_aer_makes_of_the_device(
    name: str, entangler: str, qubits: list[int]
) -> None:
    backend = fake(name)
    theirs = AerNoiseModel.from_backend(backend if backend.num_qubits <= 27 else _patch(backend, qubits))
    local = {g: {q: SuperOp(e) for q, e in errors.items()} for g, errors in theirs._local_quantum_errors.items()}
    numbers = qubits if backend.num_qubits <= 27 else [0, 1, 2]
    assert entangler in local
    assert not {"cx", "cz", "ecr"} - {entangler} & set(local)
    assert "rz" not in local
    model = NoiseModel.from_backend(backend, qubits=qubits)
    assert model.coupling == {(0, 1), (1, 2)}
    table: dict[tuple[str, tuple[int, ...]], SuperOp | None] = {}
    for gate, spec in GATES.items():
        for where in [(0,), (1,), (2,)] if spec.n_qubits == 1 else [(0, 1), (1, 0), (1, 2), (2, 1)]:
            ours = model.channel(gate, where)
            expected = table[gate, where] = compiled_by_hand(local, entangler, gate, tuple(numbers[q] for q in where))
            if expected is None:
                assert ours is None
            else:
                assert ours is not None
                np.testing.assert_allclose(ours, qiskit_ptm(expected), atol=1e-10)

    rng = np.random.default_rng(SEED)
    engine = PauliTransferSimulator(replace(model, readout={}))
    for _ in range(3):
        drawn = random_circuit(3, 60, rng)
        circuit = Circuit(3, [g for g in drawn if allowed(model, g.name, g.qubits)])
        state = DensityMatrix.from_label("000")
        for g in circuit:
            state = state.evolve(Operator(GATES[g.name].matrix(*g.angles)), list(g.qubits))
            noise = table[g.name, g.qubits]
            state = state if noise is None else state.evolve(noise, list(g.qubits))
        hamiltonian = random_hamiltonian(3, 30, rng)
        expected_energy = state.expectation_value(hamiltonian.to_qiskit()).real
        energy = engine.expectation(circuit, hamiltonian)
        assert energy == pytest.approx(expected_energy, abs=1e-8)
        assert abs(energy - dense_expectation(circuit, hamiltonian)) > 1e-4


@pytest.mark.parametrize("name", ["FakeLondonV2", "FakeBoeblingenV2"])
def test_older_devices_are_read_through_their_u2_and_u3(name: str) -> None:
    backend = fake(name)
    model = NoiseModel.from_backend(backend, qubits=[1, 0])
    local = AerNoiseModel.from_backend(backend)._local_quantum_errors
    assert model.channel("rz", (0,)) is None
    for gate in ("h", "sx"):
        np.testing.assert_allclose(present(model, gate, 0), qiskit_ptm(local["u2"][1,]), atol=1e-12)
    for gate in ("x", "y", "rx", "ry", "u"):
        np.testing.assert_allclose(present(model, gate, 1), qiskit_ptm(local["u3"][0,]), atol=1e-12)
    np.testing.assert_allclose(present(model, "cx", 0, 1), qiskit_ptm(local["cx"][1, 0]), atol=1e-12)


def test_every_gate_of_the_table_is_covered_on_every_coupled_pair() -> None:
    model = NoiseModel.from_backend(fake("FakeSherbrooke"), qubits=[2, 1, 0])
    for pair in [(0, 1), (1, 0), (1, 2), (2, 1)]:
        for gate in TWO_QUBIT_GATES:
            assert model.channel(gate, pair) is not None
    for gate in (g for g in ONE_QUBIT_GATES if g not in ("rz", "z", "s", "sdg", "t", "tdg")):
        assert model.channel(gate, (2,)) is not None


def test_an_entangler_with_one_direction_serves_both_with_its_qubits_exchanged() -> None:
    backend = fake("FakeSherbrooke")
    direction = next(q for q in backend.target["ecr"] if backend.target["ecr"][q].error < 1)
    assert direction[::-1] not in backend.target["ecr"]
    forward = NoiseModel.from_backend(backend, qubits=list(direction))
    backward = NoiseModel.from_backend(backend, qubits=list(direction[::-1]))
    ours, other = present(forward, "cx", 0, 1), present(forward, "cx", 1, 0)
    np.testing.assert_array_equal(ours, present(backward, "cx", 1, 0))
    assert np.abs(ours - other).max() > 1e-7


def test_broken_pairs_are_not_coupled() -> None:
    backend = fake("FakeTorino")
    broken = next(q for q, row in backend.target["cz"].items() if row.error >= 1)
    with pytest.warns(UserWarning, match=f"no working gate on {broken[0]}-{broken[1]}; left out"):
        model = NoiseModel.from_backend(backend, qubits=sorted(broken))
    assert model.coupling == frozenset()
    with pytest.raises(CircuitError, match="couples only"):
        model.channel("cx", (0, 1))


def test_a_small_device_is_read_whole() -> None:
    backend = fake("FakeLimaV2")
    model = NoiseModel.from_backend(backend)
    assert model.n_qubits == 5
    assert model.coupling == {(0, 1), (1, 2), (1, 3), (3, 4)}
    assert NoiseModel.from_json(json.loads(json.dumps(model.to_json()))) == model


@pytest.mark.parametrize(
    ("qubits", "word"),
    [([0, 0], "differ"), ([0, 5], "0..4"), ([-1, 2], "0..4"), ([], "at least one"), ("ab", "list"), ([0.5], "list")],
)
def test_bad_qubits_are_refused(qubits: Any, word: str) -> None:
    with pytest.raises(QasError, match=word) as caught:
        NoiseModel.from_backend(fake("FakeLimaV2"), qubits=qubits)
    assert "\n" not in str(caught.value)


def test_backends_without_calibration_are_refused() -> None:
    from qiskit.providers.fake_provider import GenericBackendV2

    with pytest.raises(QasError, match=r"qubits=\[0, 1"):
        load_device("fake_torino").noise()
    bare = GenericBackendV2(3, noise_info=False)
    for backend in (AerSimulator(), bare, object(), None, "ibm-mumbai"):
        with pytest.raises(QasError) as caught:
            NoiseModel.from_backend(backend, qubits=[0, 1])
        assert "\n" not in str(caught.value)


def test_generic_backends_with_noise_are_read() -> None:
    from qiskit.providers.fake_provider import GenericBackendV2

    backend = GenericBackendV2(3, seed=3, coupling_map=[[0, 1], [1, 2]])
    model = NoiseModel.from_backend(backend)
    assert model.coupling == {(0, 1), (1, 2)}
    theirs = AerNoiseModel.from_backend(backend)
    assert_same_states(model, theirs, 3, ("sx", "x"))
    assert_same_states(model, model.to_aer(3), 3)


def test_noise_on_unused_qubits_does_not_matter() -> None:
    model = NoiseModel.from_backend(fake("FakeOurenseV2"))
    smaller = replace(NoiseModel.from_backend(fake("FakeOurenseV2"), qubits=[0, 1]), name=model.name)
    circuit = Circuit(2, [("ry", 0, 0.3), ("cx", (0, 1)), ("rx", 1, 0.8)])
    np.testing.assert_array_equal(density_matrix(circuit, model), density_matrix(circuit, smaller))


WORDS = ["0.1", None, [0.1, 0.2], 1e300, float("nan"), 10**400, b"0.1"]
NO_NUMBERS = [*WORDS, 1j, True, np.complex128(0.1), np.array(["a"])]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=[repr(value)[:12] for value in NO_NUMBERS])
def test_what_is_no_number_is_refused_in_one_line(value: Any) -> None:
    makers: list[Any] = [
        lambda: depolarizing(value),
        lambda: amplitude_damping(0.1, value),
        lambda: (
            thermal_relaxation(1.0, value, 0.1)
            if not (isinstance(value, float) and value == 1e300)
            else depolarizing(value)
        ),
        lambda: NoiseModel.depolarizing(0.1, value),
        lambda: NoiseModel().add_readout(value, 0.1),
    ]
    if any(
        value is each for each in WORDS
    ):  # of arrays, which know no truth values, and operators with complex numbers
        makers += [
            lambda: Channel("x", [[1, 0, 0, 0], [0, value, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),  # type: ignore[arg-type]
            lambda: kraus([[[1, 0], [0, value]]]),
            lambda: Hamiltonian({"XX": value}),
        ]
    for make in makers:
        with pytest.raises(QasError) as caught:
            make()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_lists_and_operators_that_are_none() -> None:
    with pytest.raises(QasError, match="are a list"):
        NoiseModel().add_readout(0.1, 0.1, "a")  # type: ignore[arg-type]
    with pytest.raises(QasError, match="coefficients must be finite, up to 1e"):
        Hamiltonian({"XX": 1e150})
    with pytest.raises(QasError, match="damaged at n_qubits"):
        NoiseModel(n_qubits="x")  # type: ignore[arg-type]
