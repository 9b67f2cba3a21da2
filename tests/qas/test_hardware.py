"""Circuits on backends through Qiskit's primitives: exact where that is possible, pinned, and never sent unasked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from qiskit import QuantumCircuit

import qas
from qas.circuits import Circuit
from qas.errors import QasError, TooLargeError, UnknownNameError
from qas.hardware import Shape, counts_of, device_of, is_local, load_backend, place
from qas.mitigation.counting import Request, outcome_probabilities
from qas.simulators.pauli_transfer import PauliTransferSimulator

NOISE = qas.NoiseModel.depolarizing(2e-3, 1e-2).add_readout(0.02, 0.05).add_readout(0.07, 0.01, [1])
CIRCUIT = Circuit(3, [("ry", 0, 0.5), ("cx", (0, 1)), ("rzz", (1, 2), 0.7), ("rx", 2, 1.1), ("cx", (1, 2)), ("h", 0)])
NATIVE = Circuit(
    3,
    [("rz", 0, 0.3), ("sx", 0), ("rz", 0, 1.2), ("cx", (0, 1)), ("sx", 2), ("x", 1), ("rz", 1, 0.4), ("sx", 1)]
    + [("cx", (1, 2)), ("cx", (0, 1)), ("rz", 2, -0.6), ("sx", 2), ("sx", 0), ("cx", (1, 2)), ("cx", (0, 1))],
)


def random_circuit(seed: int) -> Circuit:
    rng = np.random.default_rng(seed)
    gates: list[tuple[object, ...]] = []
    for _ in range(14):
        a, b = (int(q) for q in rng.permutation(3)[:2])
        gates += [("u", a, tuple(rng.normal(size=3))), (str(rng.choice(["cx", "cz"])), (a, b))]
    return Circuit(3, gates)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [None, NOISE], ids=["perfect", "noisy"])
def test_the_exact_estimator_of_aer_is_our_engine(seed: int, noise: qas.NoiseModel | None) -> None:
    circuit = random_circuit(seed)
    found = qas.evaluate(circuit, "heisenberg-3", noise=noise, backend="aer")
    unflipped = None if noise is None else replace(noise, readout={})  # Aer's estimator knows no readout
    ours = qas.evaluate(circuit, "heisenberg-3", noise=unflipped)
    assert found.energy == pytest.approx(ours.energy, abs=1e-9)
    assert found.noise_free_energy == pytest.approx(ours.noise_free_energy, abs=1e-9)
    assert found.execution is not None and found.execution.primitive == "estimator" and found.standard_error is None
    assert dict(found.execution.after.counts) == circuit.counts  # gate for gate, as noise goes by names


def test_counted_bit_strings_are_those_of_our_engine() -> None:
    backend = load_backend("aer", NOISE, n_qubits=3)
    placed = place(CIRCUIT, backend, [2, 0, 1])
    assert placed.qubits == (2, 0, 1)
    requests = [Request(scale, basis, 40_000) for scale in (1.0, 3.0) for basis in ("ZZZ", "XYZ", "YZX")]
    free = replace(NOISE, rules=tuple(rule for rule in NOISE.rules if "cx" in rule.gates))
    backend = load_backend("aer", free, n_qubits=3)  # the change of basis then makes no noise
    moved = Circuit(3, [(g.name, tuple((2, 0, 1)[q] for q in g.qubits), g.angles) for g in CIRCUIT])
    for request, share in zip(requests, counts_of(placed, backend, requests, 7), strict=True):
        vector = PauliTransferSimulator(free).pauli_expectations(qas.mitigation.folding.folded(moved, request.scale))
        basis = "".join(reversed([dict(zip((2, 0, 1), reversed(request.basis), strict=True))[q] for q in range(3)]))
        flips = free.readout_flips(3)
        wide = outcome_probabilities(vector, basis, flips).reshape(2, 2, 2)  # axes: device qubits 2, 1, 0
        exact = wide.transpose(1, 2, 0).ravel()  # problem qubits 2, 1, 0 sit on 1, 0, 2
        assert np.abs(share - exact).max() < 4 * np.sqrt(0.25 / 40_000)


@pytest.mark.ibm
def test_a_native_circuit_runs_as_it_stands_on_its_patch() -> None:
    backend = load_backend("fake_manila")
    placed = place(NATIVE, backend, [3, 2, 1], 0)
    assert placed.circuit == QuantumCircuit(5).compose(NATIVE.to_qiskit(), [3, 2, 1])
    assert placed.before == placed.after and placed.qubits == (3, 2, 1)
    assert placed.after.duration == pytest.approx(placed.circuit.estimate_duration(backend.target), rel=1e-9)
    levels = {level: place(CIRCUIT, backend, [3, 2, 1], level).after for level in range(4)}
    assert levels[3].depth <= levels[0].depth and levels[3].two_qubit_gates <= levels[0].two_qubit_gates
    assert levels[0].duration is not None and place(CIRCUIT, backend, [3, 2, 1], 0).before.duration is None
    free = place(CIRCUIT, backend)
    assert free.start == device_of(backend).patch(3).physical


@pytest.mark.ibm
def test_mitigation_on_a_fake_backend_is_that_of_its_noise_model() -> None:
    backend, steps = load_backend("fake_manila"), "readout,zne:fit=linear,nodes=1-3"
    noise = device_of(backend).restricted([3, 2, 1]).noise(idle=False)
    ours = qas.evaluate(NATIVE, "tfim-3", noise=noise, mitigate=steps).mitigated
    report = qas.evaluate(NATIVE, "tfim-3", backend=backend, layout=[3, 2, 1], shots=200_000, mitigate=steps, seed=3)
    found = report.mitigated
    assert ours is not None and found is not None and found.settings == 2
    for mine, theirs in zip(
        ours.steps[1:], found.steps[1:], strict=True
    ):  # the target tells the mean of both flips only
        assert theirs.energy == pytest.approx(mine.energy, abs=3 * theirs.standard_error + 1e-3)
    assert abs(ours.energy - report.noise_free_energy) < abs(ours.steps[1].energy - report.noise_free_energy) / 3
    theirs = qas.evaluate(
        NATIVE, "tfim-3", backend=backend, layout=[3, 2, 1], shots=100_000, primitive="estimator", seed=4
    )
    assert theirs.energy == pytest.approx(report.energy, abs=0.02) and theirs.standard_error is not None
    assert theirs.to_json()["execution"]["primitive"] == "estimator"


def test_nothing_is_sent_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ibm_torino", "ibm_unheard_of"):
        with pytest.raises(QasError, match="nothing is sent to ibm_.* without --submit"):
            qas.evaluate(CIRCUIT, "tfim-3", backend=name)
    from qiskit.providers.fake_provider import GenericBackendV2

    class Remote(GenericBackendV2):
        """A backend whose module is nobody's that is known to be local."""

        def run(self, *arguments: object, **options: object) -> None:
            raise AssertionError("this was sent")

    remote = Remote(5, seed=1)
    assert not is_local(remote) and is_local(GenericBackendV2(5, seed=1))
    with pytest.raises(QasError, match="without submit=True"):
        qas.evaluate(CIRCUIT, "tfim-3", backend=remote)


@pytest.mark.ibm
def test_an_account_that_does_not_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    from qiskit_ibm_runtime.accounts import AccountManager

    monkeypatch.setattr(AccountManager, "get", classmethod(lambda *a, **k: (_ for _ in ()).throw(OSError("no\nfile"))))
    with pytest.raises(QasError, match="needs an account that knows it") as caught:
        qas.evaluate(CIRCUIT, "tfim-3", backend="ibm_torino", submit=True)
    assert "\n" not in str(caught.value)


@pytest.mark.ibm
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"backend": "fake_manilla"}, UnknownNameError, "did you mean 'fake_manila'"),
        ({"backend": 7}, QasError, "BackendV2, got int"),
        ({"layout": [0, 1]}, QasError, "different qubit of fake_manila for each of the circuit's 3"),
        ({"layout": [0, 1, 1]}, QasError, "different qubit"),
        ({"layout": [0, 1, 5]}, QasError, "from 0 to 4, got 5"),
        ({"transpile_level": 4}, QasError, "from 0 to 3, got 4"),
        ({"primitive": "guesser"}, UnknownNameError, "primitive"),
        ({"primitive": "estimator", "mitigate": "readout"}, QasError, "counted bit strings"),
        ({"noise": "ibm-mumbai"}, QasError, "own noise"),
        ({"engine": "aer"}, QasError, "got both"),
        ({"shots": 0}, QasError, "shots"),
        ({"backend": None, "layout": [0, 1, 2]}, QasError, "go with a backend, got none"),
        (
            {"circuit": Circuit(6, []), "problem": "tfim-6"},
            TooLargeError,
            "fake_manila has 5 qubits, got a circuit of 6",
        ),
    ],
)
def test_bad_input(change: dict[str, object], error: type[QasError], message: str) -> None:
    arguments: dict[str, object] = {"circuit": CIRCUIT, "problem": "tfim-3", "backend": "fake_manila"} | change
    with pytest.raises(error, match=message) as caught:
        qas.evaluate(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_shapes_without_gates() -> None:
    backend = load_backend("aer")
    placed = place(Circuit(1), backend)
    assert placed.after == Shape(0, {}, 0, 0.0)
    assert qas.evaluate(Circuit(1), qas.problem({"Z": 1.0}), backend="aer").energy == pytest.approx(1.0)
    assert qas.evaluate(Circuit(1), qas.problem({"I": 2.0}), backend="aer", shots=10).energy == 2.0
