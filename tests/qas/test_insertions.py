"""Slopes and gains of rotations that could be inserted, and prices of angles set to zero, against dense matrices."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from qas.circuits import Circuit
from qas.errors import CircuitError, QasError
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel, amplitude_damping, depolarizing, thermal_relaxation
from qas.optimizers.bfgs import minimize_bfgs
from qas.simulators import insertions, make_simulator, pauli_transfer
from qas.simulators._inserted import device_gates, rotation_gates
from qas.simulators._sums import minima
from qas.simulators.compiled import CompiledSimulator
from qas.simulators.dense import _apply_channel, density_matrix, embed, gate_matrix, measured_matrix
from qas.simulators.insertions import pauli_generators
from qas.simulators.statevector import StatevectorSimulator
from qas.testing import random_circuit, random_hamiltonian
from qas.testing.simulators import asymmetric_noise, covering_circuit

SEED = 51_907_733
NOISES = (None, asymmetric_noise(5))


class Inserted:
    """Energy with exp(-iθG/2) before gate k, by density matrices; the gates of the circuit keep their noise.

    The observable is carried back to the position once, by the transposed channels.
    """

    def __init__(self, circuit: Circuit, hamiltonian: Hamiltonian, noise: NoiseModel | None, position: int) -> None:
        n = circuit.n_qubits
        self.state = density_matrix(Circuit(n, circuit.gates[:position]), noise)
        self.observable = measured_matrix(hamiltonian, noise)
        for gate in reversed(circuit.gates[position:]):
            channel = None if noise is None else noise.channel(gate.name, gate.qubits)
            if channel is not None:
                self.observable = _apply_channel(channel.T, gate.qubits, self.observable, n)
            matrix = embed(gate_matrix(gate), gate.qubits, n)
            self.observable = matrix.conj().T @ self.observable @ matrix

    def energy(self, generator: Hamiltonian, theta: float) -> float:
        values, vectors = np.linalg.eigh(generator.to_matrix())
        unitary = (vectors * np.exp(-0.5j * theta * values)) @ vectors.conj().T
        return float(np.trace(self.observable @ unitary @ self.state @ unitary.conj().T).real)

    def slope(self, generator: Hamiltonian) -> float:
        """Of any generator: a difference that is exact to the fourth order in the step."""
        step = 2e-3
        near = self.energy(generator, step) - self.energy(generator, -step)
        return (8 * near - self.energy(generator, 2 * step) + self.energy(generator, -2 * step)) / (12 * step)


def pauli(string: str) -> Hamiltonian:
    return Hamiltonian({string: 1.0})


def engine(noise: NoiseModel | None = None) -> CompiledSimulator:
    simulator = make_simulator(noise)
    assert isinstance(simulator, CompiledSimulator)
    return simulator


@pytest.mark.parametrize("noise", NOISES, ids=["pure", "noisy"])
@pytest.mark.parametrize("n_qubits", [1, 2, 4])
def test_slopes_are_those_of_really_inserted_gates(noise: NoiseModel | None, n_qubits: int) -> None:
    rng = np.random.default_rng([SEED, n_qubits])
    circuit = covering_circuit(n_qubits, 0, noise, rng)
    hamiltonian = random_hamiltonian(n_qubits, min(4**n_qubits, 20), rng)
    strings = pauli_generators(n_qubits)
    wide = [*random_hamiltonian(n_qubits, min(4**n_qubits, 12), rng).strings, "I" * n_qubits]
    sums = [random_hamiltonian(n_qubits, 3, rng), Hamiltonian({strings[0]: -0.5}), pauli(strings[-1])]
    simulator = engine(noise)
    blocks = simulator.insertion_gradients(circuit, hamiltonian)
    others = simulator.insertion_gradients(circuit, hamiltonian, [*wide, *sums])
    assert blocks.shape == (len(circuit) + 1, len(strings)) and others.shape[1] == len(wide) + 3
    rows = {0, len(circuit), *rng.choice(len(circuit), size=3).tolist()}
    for k in rows:
        inserted = Inserted(circuit, hamiltonian, noise, k)
        for column in rng.permutation(len(strings))[:15]:
            assert blocks[k, column] == pytest.approx(inserted.slope(pauli(strings[column])), abs=1e-9)
        for column, generator in enumerate([*map(pauli, wide), *sums]):
            assert others[k, column] == pytest.approx(inserted.slope(generator), abs=1e-9)


@pytest.mark.parametrize("noise", NOISES, ids=["pure", "noisy"])
def test_what_a_gate_does_not_touch_was_not_forgotten(noise: NoiseModel | None) -> None:
    """Every string is followed through a circuit of gates of all kinds, not only where its own qubits change."""
    rng = np.random.default_rng(SEED)
    circuit = covering_circuit(4, 4, noise, rng)
    hamiltonian = random_hamiltonian(4, 30, rng)
    generators = [*pauli_generators(4), *random_hamiltonian(4, 40, rng).strings]
    sweep = engine(noise).insertion_gradients(circuit, hamiltonian, generators)
    for k in range(0, len(circuit), 3):
        inserted = Inserted(circuit, hamiltonian, noise, k)
        for column in rng.permutation(len(generators))[:10]:
            assert sweep[k, column] == pytest.approx(inserted.slope(pauli(generators[column])), abs=1e-9)


def test_gradients_of_the_circuits_own_angles_are_slopes_before_their_gates() -> None:
    rng = np.random.default_rng(SEED)
    circuit = random_circuit(5, 40, rng, gates=["rx", "ry", "rz", "rxx", "ryy", "rzz", "cx", "swap"])
    hamiltonian = random_hamiltonian(5, 40, rng)
    angles, strings = rng.uniform(-3, 3, size=circuit.n_angles), pauli_generators(5)
    for noise in (None, asymmetric_noise(5)):
        simulator = engine(noise)
        gradient = simulator.expectation_and_gradient(circuit, hamiltonian, angles)[1]
        slopes = simulator.insertion_gradients(circuit, hamiltonian, angles=angles)
        found = []
        for k, gate in enumerate(circuit):
            if gate.angles:
                letters = ["I"] * 5
                for q in gate.qubits:
                    letters[4 - q] = gate.name[1].upper()
                found.append(slopes[k, strings.index("".join(letters))])
        np.testing.assert_allclose(found, gradient, atol=1e-11)


def test_long_noisy_circuits_are_run_again_in_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(SEED)
    hamiltonian = random_hamiltonian(4, 20, rng)
    simulator = engine(asymmetric_noise(4))
    for n_gates in (0, 1, 2, 11, 16):
        circuit = random_circuit(4, n_gates, rng)
        monkeypatch.setattr(pauli_transfer, "KEPT_BYTES", 1 << 28)
        kept = simulator.insertion_gradients(circuit, hamiltonian)
        monkeypatch.setattr(pauli_transfer, "KEPT_BYTES", 0)
        np.testing.assert_array_equal(simulator.insertion_gradients(circuit, hamiltonian), kept)


# ---------------------------------------------------------------------- gains
@pytest.mark.parametrize("noise", NOISES, ids=["pure", "noisy"])
@pytest.mark.parametrize("n_qubits", [1, 2, 4])
def test_gains_are_minima_over_the_angle(noise: NoiseModel | None, n_qubits: int) -> None:
    rng = np.random.default_rng([SEED, n_qubits])
    circuit = covering_circuit(n_qubits, 0, noise, rng)
    hamiltonian = random_hamiltonian(n_qubits, min(4**n_qubits, 30), rng)
    strings = [*pauli_generators(n_qubits), *random_hamiltonian(n_qubits, 4, rng).strings]
    generators: list[str | Hamiltonian] = [*strings, Hamiltonian({strings[0]: -1.0})]
    gains, angles = engine(noise).append_gains(circuit, hamiltonian, generators)
    inserted = Inserted(circuit, hamiltonian, noise, len(circuit))
    for column in {*rng.permutation(len(generators))[:6].tolist(), len(generators) - 1}:
        generator = generators[column]
        operator = generator if isinstance(generator, Hamiltonian) else pauli(generator)
        grid = np.linspace(-np.pi, np.pi, 9)
        start = grid[np.argmin([inserted.energy(operator, theta) for theta in grid])]
        around = {"bounds": (start - 1.0, start + 1.0), "method": "bounded", "options": {"xatol": 1e-8}}
        best = minimize_scalar(lambda t, g=operator: inserted.energy(g, t), **around)
        here = inserted.energy(operator, 0.0)
        assert gains[column] == pytest.approx(here - best.fun, abs=1e-9)
        assert inserted.energy(operator, angles[column]) == pytest.approx(here - gains[column], abs=1e-9)


def test_gains_keep_their_digits_near_a_minimum() -> None:
    # <X> slopes by sin θ where the energy can only rise by |1 + cos θ|: the gain is θ²/4 and far below 1.
    hamiltonian = Hamiltonian({"Z": -1.0})
    for angle in (1e-3, 1e-6, 1e-9):
        gains, angles = make_simulator().append_gains(Circuit(1, [("rx", 0, angle)]), hamiltonian, ["X"])
        assert gains[0] == pytest.approx(2 * math.sin(angle / 2) ** 2, rel=1e-6) and angles[0] == pytest.approx(-angle)
    gains, angles = make_simulator().append_gains(Circuit(1), Hamiltonian({"X": 0.0, "Z": 1.0}), ["Z", "I", "X"])
    assert gains.tolist() == pytest.approx([0.0, 0.0, 2.0]) and angles[:2].tolist() == [0.0, 0.0]
    assert abs(angles[2]) == pytest.approx(math.pi)


def excitation(n_qubits: int, create: tuple[int, ...], destroy: tuple[int, ...], fermionic: bool) -> Hamiltonian:
    """i(T - T†) of T = Π a†_create Π a_destroy, with Jordan-Wigner's signs or without, from its dense matrix."""
    lowering = np.array([[0, 1], [0, 0]], dtype=complex)
    parity = np.diag([1.0, -1.0]) if fermionic else np.eye(2)

    def ladder(qubit: int) -> np.ndarray:
        factors = [parity if q < qubit else lowering if q == qubit else np.eye(2) for q in range(n_qubits)]
        return functools.reduce(lambda high, low: np.kron(low, high), factors)

    chain = [*(ladder(q).conj().T for q in create), *map(ladder, destroy)]
    product = functools.reduce(np.matmul, chain)
    return Hamiltonian.from_matrix(1j * (product - product.conj().T))


def excitations(n_qubits: int) -> list[Hamiltonian]:
    """Sums of strings whose gain has a closed form: of one and two electrons, exchanges, several X-masks."""
    rest = "I" * (n_qubits - 2)
    found = [Hamiltonian({"XX" + rest: 0.5, "YY" + rest: 0.5}), Hamiltonian({"XI" + rest: 0.3, "IX" + rest: -0.3})]
    found += [Hamiltonian({"XZ" + rest: 0.6, "ZI" + rest: 0.8, "II" + rest: 2.0})]
    for fermionic in (False, True) if n_qubits > 2 else ():
        found += [excitation(n_qubits, (0,), (n_qubits - 1,), fermionic)]
    for fermionic in (False, True) if n_qubits > 4 else ():
        doubles = [excitation(n_qubits, (0, 3), pair, fermionic) for pair in ((2, 4), (4, 2))]
        found += [doubles[0], Hamiltonian([*doubles[0].terms.items(), *doubles[1].terms.items()])][: 1 + fermionic]
        crossed = excitation(n_qubits, (0, 2), (3, 4), fermionic)
        if not fermionic:  # a coupled exchange: two excitations of the same four qubits, half of their strings cancel
            found.append(Hamiltonian([*doubles[0].terms.items(), *crossed.terms.items()]))
    return [generator for generator in found if np.abs(generator.coefficients).max() > 1e-9]


@pytest.mark.parametrize("noise", NOISES, ids=["pure", "noisy"])
@pytest.mark.parametrize("n_qubits", [2, 3, 5])
def test_gains_of_excitations_are_minima_over_the_angle(noise: NoiseModel | None, n_qubits: int) -> None:
    rng = np.random.default_rng([SEED, n_qubits, 1])
    circuit = covering_circuit(n_qubits, 0, noise, rng)
    hamiltonian = random_hamiltonian(n_qubits, min(4**n_qubits, 40), rng)
    sums = excitations(n_qubits)
    generators: list[str | Hamiltonian] = [sums[0], "X" * n_qubits, *sums[1:], Hamiltonian({"Z" * n_qubits: 0.4})]
    gains, angles = engine(noise).append_gains(circuit, hamiltonian, generators)
    inserted = Inserted(circuit, hamiltonian, noise, len(circuit))
    here = inserted.energy(sums[0], 0.0)
    for gain, angle, generator in zip(gains, angles, generators, strict=True):
        operator = generator if isinstance(generator, Hamiltonian) else pauli(generator)
        values, vectors = np.linalg.eigh(operator.to_matrix() - operator.identity * np.eye(2**n_qubits))
        observable, state = (vectors.conj().T @ m @ vectors for m in (inserted.observable, inserted.state))
        grid = np.linspace(-2 * np.pi, 2 * np.pi, 1001) / np.abs(values).max()
        turns = np.exp(-0.5j * grid[:, None, None] * (values[:, None] - values))
        energies = np.einsum("ij,tji,ji->t", observable, turns, state, optimize=True).real
        step = (grid[1] - grid[0]) * np.abs(values).max()
        assert inserted.energy(operator, angle) == pytest.approx(here - gain, abs=1e-10)
        assert -1e-12 <= gain - (here - energies.min()) <= step**2 * np.abs(hamiltonian.coefficients).sum()
        assert abs(angle) * np.abs(values).max() <= 2 * np.pi + 1e-9


def test_gains_of_excitations_on_large_registers_and_of_states_with_few_amplitudes() -> None:
    """Where diagonals are not kept, and against the energies of circuits that rotate about the commuting strings."""
    rng = np.random.default_rng(SEED)
    hamiltonian = random_hamiltonian(7, 60, rng)
    generators = [
        excitation(7, (1, 5), (6, 2), True),
        excitation(7, (0,), (4,), True),
        excitation(7, (3,), (1,), False),
    ]
    for circuit in (Circuit(7, [("x", 1), ("x", 5), ("x", 0)]), random_circuit(7, 40, rng)):
        gains, angles = engine().append_gains(circuit, hamiltonian, generators)
        energy = engine().expectation(circuit, hamiltonian)
        for gain, angle, generator in zip(gains, angles, generators, strict=True):
            gates = [g for p, w in generator.terms.items() for g in rotation_gates(p, w * angle)]
            assert engine().expectation(Circuit(7, [*circuit, *gates]), hamiltonian) == pytest.approx(energy - gain)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(insertions, "DIAGONAL_BYTES", 0)
            again = engine().append_gains(circuit, Hamiltonian(hamiltonian.terms), generators)
        np.testing.assert_allclose(again, (gains, angles), atol=1e-12)


def test_minima_of_trigonometric_polynomials() -> None:
    rng = np.random.default_rng(SEED)
    curves = rng.normal(size=(300, 4)) * 10.0 ** rng.integers(-9, 1, size=(300, 4))
    curves[:6] = [[0, 0, 0, 0], [0, 1, 0, 0], [0, -1, 0, 0], [1e-9, -1, 0, 0], [0, 0, 0, -1], [0, -4, 0, -2]]
    gains, phi = minima(curves)
    grid = np.linspace(-np.pi, np.pi, 5001)[:, None]
    sin, cos = np.sin(grid), np.cos(grid) - 1
    lowest = (curves[:, 0] * sin + curves[:, 1] * cos + curves[:, 2] * sin * cos + curves[:, 3] * cos**2).min(axis=0)
    size = np.abs(curves).max(axis=1)
    assert np.all(gains >= -lowest - 1e-15 * size) and np.all(gains + lowest <= 3e-6 * size)
    assert gains[3] == pytest.approx(5e-19) and phi[3] == pytest.approx(-1e-9) and not gains[[0, 2]].any()
    assert phi[:3].tolist() == pytest.approx([0.0, np.pi, 0.0]), "half a turn has one name, nothing is angle 0"
    # sin φ cos φ has minima at -π/4 and 3π/4, its square at 0 and π, less its square at ±π/2.
    gains, phi = minima(np.array([[1.0, 0, 1, 0], [0, 2.0, 0, 1], [0, -2.0, 0, -1], [1e-17, 3e-17, 0, 0]]), 1e-14)
    assert gains.tolist() == pytest.approx([0.5, 1.0, 0.0, 0.0], abs=1e-15) and gains[3] == phi[3] == 0.0
    assert phi[:3].tolist() == pytest.approx([-np.pi / 4, np.pi / 2, 0.0])


@pytest.mark.parametrize("size", [1.0, 1e-9])
def test_engines_agree_on_angles_that_rounding_could_choose(size: float) -> None:
    """Equal minima, half turns, and generators that do nothing: where all is decided by the last digit."""
    rng = np.random.default_rng(SEED)
    strings = [{"IXY": 1.0, "IYX": -1.0}, {"XIY": 1.0}, {"ZII": 1.0}, {"ZII": 1.0, "IZI": 1.0}, {"XII": 1.0}]
    generators = [Hamiltonian({string: size * c for string, c in terms.items()}) for terms in strings]
    hamiltonians = [random_hamiltonian(3, 10, rng), Hamiltonian({"ZII": 1.0, "IIZ": 0.3, "III": 50.0})]
    largest = []
    for circuit in (Circuit(3, [("x", 0)]), Circuit(3, [("x", 2)]), Circuit(3, [("h", 1), ("t", 1), ("h", 1)])):
        for hamiltonian in hamiltonians:
            gains, angles = make_simulator().append_gains(circuit, hamiltonian, generators)
            for name in ("pauli-transfer", "torch"):
                others = make_simulator(None, name).append_gains(circuit, hamiltonian, generators)
                np.testing.assert_allclose(others[0], gains, atol=1e-12)
                np.testing.assert_allclose(others[1] * size, angles * size, atol=1e-6)
            largest.append(np.abs(angles).max() * size)
            exact = (gains == 0.0) & (np.abs(angles) * size < 1e-9)
            assert np.all((gains > 1e-6) | exact), "what gains nothing stays at 0"
    assert max(largest) == pytest.approx(np.pi), "half a turn is among them"


@pytest.mark.parametrize("noise", NOISES, ids=["pure", "noisy"])
def test_slopes_at_some_positions_only(noise: NoiseModel | None, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(SEED)
    circuit, hamiltonian = random_circuit(5, 12, rng), random_hamiltonian(5, 20, rng)
    generators: list[str | Hamiltonian] = [*pauli_generators(5), "XYZXY", *excitations(5)]
    simulator = engine(noise)
    every = simulator.insertion_gradients(circuit, hamiltonian, generators)
    for kept in (1 << 28, 0):
        monkeypatch.setattr(pauli_transfer, "KEPT_BYTES", kept)
        for positions in ([12], [0], [7, 12, 3, 7], [], range(2, 6)):
            some = simulator.insertion_gradients(circuit, hamiltonian, generators, positions=positions)
            np.testing.assert_allclose(some, every[list(positions)], atol=1e-13)
    for bad in ([13], [-1], [1.5]):
        with pytest.raises(QasError, match="a position"):
            simulator.insertion_gradients(circuit, hamiltonian, generators, positions=bad)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- noise of what is inserted
def noise_of_rotations(n_qubits: int) -> NoiseModel:
    """Noise that differs from gate to gate and qubit to qubit; rxx has some of its own, ryy and rzz have none."""
    model = NoiseModel("own").add_readout(0.02, 0.05)
    for q in range(n_qubits):
        model = model.add(thermal_relaxation(50.0 + q, 40.0, 1.0, 0.1), ("rx", "ry", "h"), [q])
        model = model.add(amplitude_damping(0.01 + 0.01 * q), "rz", [q])
    model = model.add(depolarizing(0.05, 2), "rxx").add(depolarizing(0.03, 2), "cx")
    return model.add(amplitude_damping(0.02), "cx", target=1)


@pytest.mark.parametrize("name", ["compiled", "torch"])
@pytest.mark.parametrize("n_qubits", [1, 2, 5])
def test_costs_are_those_of_really_inserted_gates(name: str, n_qubits: int) -> None:
    rng = np.random.default_rng([SEED, n_qubits])
    noise = noise_of_rotations(n_qubits)
    circuit, hamiltonian = random_circuit(n_qubits, 8, rng), random_hamiltonian(n_qubits, min(4**n_qubits, 20), rng)
    simulator = make_simulator(noise, "torch" if name == "torch" else None)
    energy = simulator.expectation(circuit, hamiltonian)
    strings = [*pauli_generators(n_qubits), "I" * n_qubits]
    positions = range(len(circuit) + 1)
    slopes, costs = simulator.insertion_gradients(circuit, hamiltonian, strings, costs=True)
    np.testing.assert_allclose(slopes, simulator.insertion_gradients(circuit, hamiltonian, strings), atol=1e-12)
    assert costs.shape == slopes.shape and not costs[:, -1].any()
    for k in positions if n_qubits < 5 else (0, 3, len(circuit)):
        for column in rng.permutation(len(strings) - 1)[:20]:
            gates = [*circuit.gates[:k], *device_gates(strings[column], noise), *circuit.gates[k:]]
            inserted = simulator.expectation(Circuit(n_qubits, gates), hamiltonian)
            assert costs[k, column] == pytest.approx(inserted - energy, abs=1e-11)
    gains, _, lost = simulator.append_gains(circuit, hamiltonian, strings, costs=True)
    np.testing.assert_allclose(lost, costs[-1], atol=1e-12)
    assert np.array_equal(gains, simulator.append_gains(circuit, hamiltonian, strings)[0])


def test_the_gates_of_a_device() -> None:
    noise = noise_of_rotations(3)
    assert [g.name for g in device_gates("IXX", noise)] == ["rxx"] and device_gates("IIY", noise)[0].name == "ry"
    assert [g.name for g in device_gates("YIY", noise)] == ["rx", "rx", "cx", "rz", "cx", "rx", "rx"]
    rng = np.random.default_rng(SEED)
    for string in ("YIX", "ZYX", "IZY", "IYI"):
        angle = float(rng.uniform(-3, 3))
        before = random_circuit(3, 10, rng)
        simulator = StatevectorSimulator()
        found = simulator.state(Circuit(3, [*before, *rotation_gates(string, angle)]))
        state, matrix = simulator.state(before), pauli(string).to_matrix()
        turned = math.cos(angle / 2) * state - 1j * math.sin(angle / 2) * (matrix @ state)
        assert abs(np.vdot(turned, found)) == pytest.approx(1.0)


def test_costs_without_noise_of_gates_that_are_not_there_and_of_wide_ones() -> None:
    circuit, hamiltonian = Circuit(3, [("ry", 0, 0.3), ("cx", (0, 1))]), Hamiltonian({"ZZI": 1.0, "XIX": 0.5})
    for name in (None, "torch"):
        assert not make_simulator(None, name).insertion_gradients(circuit, hamiltonian, costs=True)[1].any()
        assert not make_simulator(None, name).append_gains(circuit, hamiltonian, costs=True)[2].any()
    chain = dataclasses.replace(noise_of_rotations(3), coupling=frozenset({(0, 1), (1, 2)}))
    costs = make_simulator(chain).append_gains(circuit, hamiltonian, costs=True)[2]
    far = np.array([string[0] != "I" != string[2] and string[1] == "I" for string in pauli_generators(3)])
    assert np.array_equal(np.isinf(costs), far)
    for generators in (["XYZ"], [Hamiltonian({"XXI": 0.5, "YYI": 0.5})]):
        with pytest.raises(QasError, match="one and two qubits"):
            make_simulator(chain).append_gains(circuit, hamiltonian, generators, costs=True)


# ---------------------------------------------------------------------- what is listed, refused, inserted by gates
def test_all_one_and_two_qubit_strings_in_their_order() -> None:
    assert [len(pauli_generators(n)) for n in (1, 4, 6, 8)] == [3, 66, 153, 276]
    assert " ".join(pauli_generators(2)) == "IX IY IZ XI YI ZI XX XY XZ YX YY YZ ZX ZY ZZ"
    assert len(set(pauli_generators(5))) == len(pauli_generators(5))


@pytest.mark.parametrize(
    ("generators", "words"),
    [
        (["XX"], "3 letters"),
        (["AXX"], "letters I, X, Y, Z"),
        ([3], "got int"),
        ("XXX", "a list"),
        ([pauli("XX")], "3 letters"),
    ],
)
def test_generators_that_are_none(generators: object, words: str) -> None:
    circuit, hamiltonian = Circuit(3), Hamiltonian({"ZZZ": 1.0})
    for noise in (None, "depolarizing"):
        simulator = make_simulator(noise)
        for method in (simulator.insertion_gradients, simulator.append_gains):
            with pytest.raises(QasError, match=words) as caught:
                method(circuit, hamiltonian, generators)  # type: ignore[call-overload]
            assert "\n" not in str(caught.value)


def test_gains_need_three_eigenvalues() -> None:
    for generator in ({"IX": 1.0, "XI": 0.5}, {"XX": 0.5, "ZI": 0.25, "IY": 1.0}):
        with pytest.raises(QasError, match="eigenvalues 0, s and -s"):
            make_simulator().append_gains(Circuit(2), Hamiltonian({"ZZ": 1.0}), [Hamiltonian(generator)])


def test_no_generators_give_no_columns() -> None:
    for noise in (None, "depolarizing"):
        simulator = make_simulator(noise)
        circuit = Circuit(2, [("cx", (0, 1))])
        assert simulator.insertion_gradients(circuit, Hamiltonian({"ZZ": 1.0}), []).shape == (2, 0)
        assert simulator.append_gains(circuit, Hamiltonian({"ZZ": 1.0}), [])[0].shape == (0,)


def test_an_engine_without_kernels_inserts_gates() -> None:
    rng = np.random.default_rng(SEED)
    circuit, hamiltonian = random_circuit(3, 4, rng), random_hamiltonian(3, 8, rng)
    aer = make_simulator(engine="aer")
    sums = [Hamiltonian({"XYI": 0.5, "IIZ": -1.5}), excitation(3, (0,), (2,), True)]
    generators: list[str | Hamiltonian] = ["XYZ", *pauli_generators(3)[::5], *sums]
    slopes = aer.insertion_gradients(circuit, hamiltonian, generators)
    np.testing.assert_allclose(slopes, engine().insertion_gradients(circuit, hamiltonian, generators), atol=1e-10)
    del generators[-2]
    gains, angles = aer.append_gains(circuit, hamiltonian, generators)
    exact, exact_angles = engine().append_gains(circuit, hamiltonian, generators)
    np.testing.assert_allclose(gains, exact, atol=1e-10)
    assert np.count_nonzero(exact > 1e-9) >= 3
    np.testing.assert_allclose(np.cos(angles - exact_angles)[exact > 1e-9], 1.0, atol=1e-9)
    with pytest.raises(QasError, match="commuting"):
        aer.append_gains(circuit, hamiltonian, [Hamiltonian({"IIX": 0.6, "IIZ": 0.8})])
    with pytest.raises(QasError, match="use pauli-transfer"):
        make_simulator("depolarizing", "aer").append_gains(circuit, hamiltonian)


# ---------------------------------------------------------------------- deletion
def least(simulator: CompiledSimulator, circuit: Circuit, hamiltonian: Hamiltonian, start: np.ndarray) -> tuple:
    found = minimize_bfgs(simulator, circuit, hamiltonian, start, tolerance=1e-14)
    return found.fun, found.x


@pytest.mark.parametrize("noise", [None, asymmetric_noise(3)], ids=["pure", "noisy"])
def test_prices_are_those_of_deleting_and_optimizing_again(noise: NoiseModel | None) -> None:
    """The last rotation's best angle is moved to a small ε, where the quadratic model is exact up to order ε."""
    rng = np.random.default_rng(SEED)
    circuit = Circuit(
        3, [("ry", 0, 0.0), ("ry", 1, 0.0), ("cx", (0, 1)), ("ry", 2, 0.0), ("cx", (1, 2)), ("ry", 1, 0.0)]
    )
    quiet = NoiseModel("quiet") if noise is None else noise
    simulator = engine(noise)
    for name in ("rx", "rz", "rxx"):
        qubits = (0, 2) if name == "rxx" else (1,)
        longer = circuit.append(name, qubits, 0.0)
        hamiltonian = random_hamiltonian(3, 10, rng)
        _, x = least(simulator, longer, hamiltonian, rng.uniform(-2, 2, size=longer.n_angles))
        errors = []
        for epsilon in (0.1, 0.01):
            moved = turned(hamiltonian, name, qubits, x[-1] - epsilon)
            energy, y = least(simulator, longer, moved, np.array([*x[:-1], epsilon]))
            if noise is not None:  # the deleted gate's noise would go with it: it stays as a gate with angle 0
                without, _ = held_at_zero(simulator, longer, moved, y)
            else:
                without, _ = least(simulator, circuit, moved, y[:-1])
            price = simulator.deletion_costs(longer, moved, y)
            assert price.shape == (longer.n_angles,)
            errors.append(abs(price[-1] / (without - energy) - 1))
        assert errors[1] < 0.05 and errors[0] < 0.5, (name, errors, quiet.name)


def turned(hamiltonian: Hamiltonian, name: str, qubits: tuple[int, ...], angle: float) -> Hamiltonian:
    """U† H U with the rotation U by `angle`: its best angle as last gate is less by as much."""
    from qas.gates import gate_spec

    unitary = embed(gate_spec(name).matrix(angle), qubits, hamiltonian.n_qubits)
    return Hamiltonian.from_matrix(unitary.conj().T @ hamiltonian.to_matrix() @ unitary)


def held_at_zero(simulator: CompiledSimulator, circuit: Circuit, hamiltonian: Hamiltonian, start: np.ndarray) -> tuple:
    from scipy.optimize import minimize

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian, np.append(x, 0.0))
        return energy, gradient[:-1]

    found = minimize(value, start[:-1], jac=True, method="BFGS", options={"gtol": 1e-10})
    return found.fun, found.x


def test_prices_know_full_turns_flat_directions_and_several_angles() -> None:
    hamiltonian = Hamiltonian({"Z": 1.0, "X": 0.5})
    circuit = Circuit(1, [("rz", 0, 0.7), ("u", 0, 0.0, 0.0, 0.0)])
    energy, x = least(engine(), circuit, hamiltonian, np.array([0.7, 2.0, 0.1, 0.2]))
    assert energy == pytest.approx(-math.sqrt(1.25))
    price = engine().deletion_costs(circuit, hamiltonian, x)
    # rz on |0> and λ of u do nothing; φ can be traded for nothing, θ for nothing either.
    assert price[0] < 1e-6 and price[3] < 1e-6 and price[1] > 0.1
    turns = x + 2 * np.pi * np.array([1, -1, 2, -3])
    np.testing.assert_allclose(engine().deletion_costs(circuit, hamiltonian, turns), price, atol=1e-7)
    assert engine().deletion_costs(Circuit(1), hamiltonian).shape == (0,)


def test_prices_from_a_given_inverse_hessian() -> None:
    hamiltonian = Hamiltonian({"ZI": 1.0, "XI": 0.5, "IZ": -0.3, "IX": 0.8})
    circuit = Circuit(2, [("ry", 0, 0.1), ("ry", 1, 0.1)])
    _, x = least(engine(), circuit, hamiltonian, np.array([0.5, 2.0]))
    exact = engine().deletion_costs(circuit, hamiltonian, x)
    # E = |h| (1 - cos(θ - θ*)) on each qubit: the curvature is |h|.
    strength = np.hypot([0.3, 1.0], [0.8, 0.5])
    wrapped = (x + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(exact, strength * wrapped**2 / 2, rtol=1e-6)
    given = engine().deletion_costs(circuit, hamiltonian, x, np.diag(1 / strength))
    np.testing.assert_allclose(given, exact, rtol=1e-6)
    assert np.array_equal(engine().deletion_costs(circuit, hamiltonian, x, np.eye(2)), exact)
    for bad in (np.eye(3), np.zeros((2, 2)), np.full((2, 2), np.nan)):
        with pytest.raises(CircuitError, match="inverse Hessian"):
            engine().deletion_costs(circuit, hamiltonian, x, bad)


def test_the_minimizer_hands_out_its_inverse_hessian() -> None:
    rng = np.random.default_rng(SEED)
    hamiltonian = random_hamiltonian(3, 12, rng)
    circuit = Circuit(
        3, [("ry", 0, 0.0), ("rx", 1, 0.0), ("cx", (0, 1)), ("ry", 2, 0.0), ("cx", (1, 2)), ("ry", 1, 0.0)]
    )
    for noise in NOISES[0], asymmetric_noise(3):
        simulator = engine(noise)
        start = rng.uniform(-2, 2, size=4)
        assert np.array_equal(minimize_bfgs(simulator, circuit, hamiltonian, start, 1).hess_inv, np.eye(4))
        found = minimize_bfgs(simulator, circuit, hamiltonian, start, tolerance=1e-15)
        inverse = found.hess_inv
        np.testing.assert_allclose(inverse, inverse.T, rtol=1e-9, atol=1e-12)
        assert np.linalg.eigvalsh(inverse)[0] > 0.0
        exact = simulator.deletion_costs(circuit, hamiltonian, found.x)
        np.testing.assert_allclose(
            simulator.deletion_costs(circuit, hamiltonian, found.x, inverse), exact, rtol=0.5, atol=1e-3
        )
