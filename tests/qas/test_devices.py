"""Devices: calibrations, patches, idle noise; against Aer and Qiskit's schedule, dense matrices, and by enumeration."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import networkx as nx
import numpy as np
import pytest

import qas
import qas.envs
from qas.circuits import Circuit, Gate
from qas.cli import main
from qas.devices import DEVICES, Calibration, Device, list_devices, load_device, native_gates_of
from qas.errors import CircuitError, NotPhysicalError, QasError
from qas.hamiltonians import Hamiltonian
from qas.idle import Idle, seconds
from qas.mitigation.objectives import ZeroNoise
from qas.noise import NoiseModel, load_noise, thermal_relaxation
from qas.patches import Prediction, choose, patch_for
from qas.simulators import make_simulator
from qas.simulators.base import Simulator
from qas.simulators.dense import dense_expectation
from qas.testing import random_hamiltonian
from qas.testing.devices import aer_energies, random_native_circuit, target_of

KINDS = {"fake_torino": "cz", "fake_sherbrooke": "ecr", "fake_mumbai": "cx"}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(12)


def quiet(noise: NoiseModel) -> NoiseModel:
    return replace(noise, readout={})


# ---------------------------------------------------------------------- calibrations
@pytest.mark.parametrize("name", list(DEVICES))
def test_shipped_devices_are_whole(name: str) -> None:
    device = load_device(name)
    assert device.name == name and device.date > "2021" and "Apache" in device.source
    assert device.native_gates == ("rz", "sx", "x", device.entangler)
    assert all(c.error < 1 for c in device.gates[device.entangler].values() if c.error is not None)
    assert Device.from_json(json.loads(json.dumps(device.to_json()))) == device
    assert f"{device.n_qubits} qubits" in DEVICES.about(name)


def test_kinds_of_entanglers_are_all_there() -> None:
    assert {load_device(name).entangler for name in list_devices()} == {"cx", "cz", "ecr"}


@pytest.mark.parametrize("name", ["fake_lagos", "fake_guadalupe"])
def test_shipped_devices_are_what_qiskit_has(name: str) -> None:
    provider = pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    backends = {thing.backend_name: thing for thing in vars(provider).values() if hasattr(thing, "backend_name")}
    ours, theirs = load_device(name), Device.from_backend(backends[name]())
    assert replace(theirs, source=ours.source) == ours


@pytest.mark.ibm
def test_both_flips_of_a_readout_are_read() -> None:
    """A target of IBM has their mean only; the properties of the backend have both."""
    from qiskit_ibm_runtime.fake_provider import FakeLagosV2

    backend = FakeLagosV2()
    for qubit, (p01, p10) in enumerate(Device.from_backend(backend).readout):
        told = backend.properties().qubit_property(qubit)
        assert (p01, p10) == (told["prob_meas1_prep0"][0], told["prob_meas0_prep1"][0]) and p01 != p10
        assert (p01 + p10) / 2 == pytest.approx(backend.target["measure"][(qubit,)].error)


def test_a_part_keeps_the_numbers_of_the_device() -> None:
    device = load_device("fake_mumbai")
    part = device.restricted([5, 3, 2]).restricted([2, 1])
    assert part.physical == (2, 3) and part.name == "fake_mumbai[2,3]" and part.backend_name == "fake_mumbai"
    assert part.gates["cx"][0, 1] == device.gates["cx"][2, 3] and part.gates["cx"][1, 0] == device.gates["cx"][3, 2]
    assert part.t1 == (device.t1[2], device.t1[3]) and part.readout[1] == device.readout[3]
    assert part.coupling == {(0, 1)} and part.directions == ((0, 1), (1, 0))


def test_a_file_of_a_device_may_say_times_with_their_unit(tmp_path: Path) -> None:
    data = load_device("fake_lagos").restricted([1, 3]).to_json()
    data["t1"], data["t2"] = ["120 us", "0.1 ms"], ["80 µs", None]
    (tmp_path / "mine.json").write_text(json.dumps(data))
    device = load_device(tmp_path / "mine.json")
    assert device.t1 == pytest.approx((120e-6, 1e-4)) and device.t2[0] == pytest.approx(80e-6)
    assert math.isinf(device.t2[1])
    assert seconds("t", "3 μs") == seconds("t", "3 us") == pytest.approx(3e-6)  # the Greek letter


def test_broken_pairs_are_left_out_with_a_warning() -> None:
    from qas.testing.devices import backend_of

    device = load_device("fake_lagos").restricted([1, 3, 5])
    broken = {**device.gates["cx"], (1, 2): Calibration(1.0, 3e-7), (2, 1): Calibration(None, 3e-7)}
    target = target_of(replace(device, gates={**device.gates, "cx": broken}))
    with pytest.warns(UserWarning, match="no working gate on 1-2; left out"):
        found = Device.from_backend(backend_of(target))
    assert found.coupling == {(0, 1)} and len(found.directions) == 2


def test_broken_pairs_of_a_file_are_left_out_too(tmp_path: Path) -> None:
    """A pair whose error is not told would else be one without any noise, and the best of all patches."""
    data = load_device("fake_lagos").restricted([1, 3, 5]).to_json()
    places = data["gates"]["cx"]["qubits"]
    data["gates"]["cx"]["error"] = [None if place == [0, 1] else 1.0 if place == [1, 0] else 0.01 for place in places]
    (tmp_path / "mine.json").write_text(json.dumps(data))
    with pytest.warns(UserWarning, match="no working gate on 1-3; left out"):
        device = load_device(tmp_path / "mine.json")
    assert device.coupling == {(1, 2)} and device.patch(2).physical == (3, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t1": [1e-4]}, "T1, T2 and readout of each of its 2 qubits"),
        ({"t1": ["5 years", "1 us"]}, "text such as '120 us'"),
        ({"t2": [-1.0, 1.0]}, "of at least 0"),
        ({"readout": [[0.1, 1.5], [0, 0]]}, "from 0 to 1"),
        ({"t1": [0, 1e-4]}, "T1 is a positive time in seconds, got 0"),
        ({"t2": ["0 us", 1e-4]}, "T2 is a positive time"),
        ({"physical": [0, -1]}, "damaged at physical"),
        ({"physical": [3, 3]}, r"different numbers, got \[3, 3\]"),
        ({"gates": {"sx": {"qubits": [[0, 1]], "error": [0.1], "duration": [0]}}}, "sx is calibrated once on 1 "),
        ({"gates": {"cx": {"qubits": [[0]], "error": [0.1], "duration": [0]}}}, "cx is calibrated once on 2 different"),
        ({"gates": {"cx": {"qubits": [[1, 1]], "error": [0.1], "duration": [0]}}}, r"got \[1, 1\]"),
        ({"gates": {"x": {"qubits": [[0], [0]], "error": [0.1, 0], "duration": [0, 0]}}}, "calibrated once"),
        ({"gates": {"sx": {"qubits": [[7]], "error": [0.1], "duration": [0]}}}, "from 0 to 1"),
        ({"gates": 3}, "damaged at gates"),
    ],
)
def test_malformed_descriptions_are_refused(change: dict[str, Any], message: str) -> None:
    data = load_device("fake_lagos").restricted([1, 3]).to_json()
    with pytest.raises(QasError, match=message) as caught:
        Device.from_json(data | change)
    assert "\n" not in str(caught.value)


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(QasError, match="fake_torino"):
        load_device("fake_torin")
    with pytest.raises(QasError, match="name, a file or a Device"):
        load_device(3)  # type: ignore[arg-type]
    with pytest.raises(QasError, match=r"no\.json"):
        load_device(tmp_path / "no.json")
    with pytest.raises(QasError, match=r"name it as device \(--device\), or load_device\('fake_torino'\)"):
        load_noise("fake_torino")
    with pytest.raises(QasError, match=r"choose the ones in use"):
        load_device("fake_torino").noise()
    with pytest.raises(QasError, match="the native gates of fake_lagos are rz, sx, x, cx, got ry"):
        native_gates_of(load_device("fake_lagos"), ["rz", "ry"])


# ---------------------------------------------------------------------- patches
def all_patches(device: Device, n_qubits: int, shape: str) -> dict[tuple[int, ...], float]:
    """Every patch of a small device, by trying all sets and orders of qubits."""
    prediction, graph, found = Prediction(device), nx.Graph(list(device.coupling)), {}
    for qubits in itertools.combinations(range(device.n_qubits), n_qubits):
        if shape == "line":
            for path in itertools.permutations(qubits):
                pairs = list(itertools.pairwise(path))
                if path[0] <= path[-1] and all(graph.has_edge(*pair) for pair in pairs):
                    found[path] = prediction.of(path, pairs)
        elif nx.is_connected(graph.subgraph(qubits)):
            trees = (pairs for pairs in itertools.combinations(graph.subgraph(qubits).edges, n_qubits - 1)
                     if nx.is_connected(nx.Graph(pairs)) and set(nx.Graph(pairs)) == set(qubits))  # fmt: skip
            found[qubits] = max(prediction.of(qubits, pairs) for pairs in trees)
    return found


@pytest.mark.parametrize("shape", ["line", "best"])
@pytest.mark.parametrize("n_qubits", [2, 3, 5])
def test_patches_are_the_best_and_the_median_of_all(shape: str, n_qubits: int) -> None:
    device = load_device("fake_lagos")
    ranked = sorted(all_patches(device, n_qubits, shape).items(), key=lambda entry: (-entry[1], entry[0]))
    best, median = (choose(device, n_qubits, shape, which) for which in ("best", "median"))
    for patch, expected in ((best, ranked[0][0]), (median, ranked[len(ranked) // 2][0])):
        assert patch.physical == expected or (shape == "best" and sorted(patch.physical) == list(expected))


@pytest.mark.parametrize("shape", ["best", "tree"])
@pytest.mark.parametrize("name", ["fake_lagos", "fake_guadalupe", "fake_torino"])
def test_patches_are_numbered_along_a_path_or_with_short_ways_back(name: str, shape: str) -> None:
    """Of all orders none has neighbours in number closer together."""
    device = load_device(name)
    for n_qubits in (1, 2, 4, 5, 6, 7):
        patch = device.patch(n_qubits, shape)
        apart = dict(nx.all_pairs_shortest_path_length(nx.Graph([(q, q) for q in range(n_qubits)] + [*patch.coupling])))
        own, *others = (
            sum(apart[a][b] for a, b in itertools.pairwise(order)) for order in itertools.permutations(range(n_qubits))
        )
        assert own == min((own, *others)), patch.physical


def test_trees_are_numbered_along_their_own_pairs() -> None:
    """On a grid, where the best path through the qubits takes pairs that the tree leaves out."""
    rng = np.random.default_rng(11)
    grid = nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 3))
    pairs = {pair: Calibration(rng.uniform(2e-3, 2e-2), 7e-8) for a, b in grid.edges for pair in ((a, b), (b, a))}
    turns = {(q,): Calibration(3e-4, 3e-8) for q in range(9)}
    free = {(q,): Calibration(0.0, 0.0) for q in range(9)}
    grid_device = Device(
        "grid", {"rz": free, "sx": turns, "x": turns, "cz": pairs}, (1e-4,) * 9, (1e-4,) * 9, ((0.01, 0.01),) * 9,
        tuple(range(9)),
    )  # fmt: skip
    for n_qubits in range(4, 8):
        tree = nx.Graph(list(grid_device.patch(n_qubits, "tree").coupling))
        apart = dict(nx.all_pairs_shortest_path_length(tree))
        least = 2 * (n_qubits - 1) - nx.diameter(tree)
        assert sum(apart[q][q + 1] for q in range(n_qubits - 1)) == least


def test_shapes() -> None:
    device = load_device("fake_guadalupe")
    line, ring, tree = (device.patch(12, shape) for shape in ("line", "ring", "tree"))
    assert line.coupling == {(k, k + 1) for k in range(11)}
    assert ring.coupling == {(k, k + 1) for k in range(11)} | {(0, 11)}
    assert len(tree.coupling) == 11 and nx.is_tree(nx.Graph(list(tree.coupling)))
    assert device.patch(1).n_qubits == 1 and device.patch(1).native_gates == ("rz", "sx", "x")
    whole = device.patch(16)
    assert {frozenset(whole.physical[q] for q in pair) for pair in whole.coupling} == set(
        map(frozenset, device.coupling)
    )
    for a, b in line.coupling:
        assert (line.physical[a], line.physical[b]) in device.gates["cx"]


def test_what_a_patch_is_asked_for() -> None:
    device = load_device("fake_lagos")
    assert patch_for(2, device, "line:median") == choose(device, 2, "line", "median")
    assert patch_for(2, "fake_lagos", "median") == choose(device, 2, "best", "median")
    assert patch_for(3, device, "5,3,1").physical == patch_for(3, device, [5, 3, 1]).physical == (5, 3, 1)
    part = device.patch(3, "line")
    assert patch_for(3, part, None) == part


def test_a_patch_is_connected_by_one_kind_of_entangler() -> None:
    """As on fake_cairo, whose pairs carry cx or ecr: what circuits consist of must reach all qubits."""
    device = load_device("fake_lagos")
    held = dict(device.gates["cx"])
    others = {place: held.pop(place) for place in list(held) if set(place) in ({0, 1}, {5, 6})}
    mixed = replace(device, gates={**device.gates, "cx": held, "ecr": others})
    assert mixed.coupling == {(1, 2), (1, 3), (3, 5), (4, 5)}
    for shape in ("best", "line", "tree"):
        patch = mixed.patch(4, shape)
        assert patch.native_gates[-1] == "cx" and "ecr" not in patch.gates
        assert nx.is_connected(nx.Graph(list(patch.directions))) and set(sum(patch.directions, ())) == {0, 1, 2, 3}
    with pytest.raises(QasError, match="no path from qubit 1 to qubit 0"):
        patch_for(3, mixed, [0, 1, 2])
    assert patch_for(2, mixed, [0, 1]).entangler == "ecr"


@pytest.mark.parametrize(
    ("n_qubits", "patch", "message"),
    [
        (8, None, "at most the 7 qubits of fake_lagos, got 8"),
        (2, [0, 6], "no path from qubit 0 to qubit 6"),
        (3, [0, 1], "as many qubits as the problem, 3, got 2"),
        (2, "0,9", "qubits 0..6"),
        (2, "0,x", "a shape or qubits such as"),
        (4, "ring", "no ring of 4"),
        (6, "line", "no line of 6"),
        (4, "round", "did you mean 'ring'"),
        (4, "line:worst", "choice of a patch"),
        (3, "median:line", "unknown shape of a patch 'median'"),
    ],
)
def test_patches_that_are_none(n_qubits: int, patch: Any, message: str) -> None:
    with pytest.raises(QasError, match=message) as caught:
        patch_for(n_qubits, "fake_lagos", patch)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- idle noise
def test_waiting_by_hand() -> None:
    idle = Idle(
        (1.0,) * 3, (1.0,) * 3, {("sx", (0,)): 1.0, ("sx", (1,)): 1.0, ("cz", (0, 1)): 5.0, ("cz", (1, 2)): 7.0}
    )
    circuit = Circuit(3, [("sx", 0), ("rz", 0, 0.3), ("cz", (0, 1)), ("sx", 0), ("cz", (1, 2)), ("x", 2)])
    # Backwards from the end: cz(1,2) takes the last 7, the second sx the last 1, cz(0,1) ends 7 before the end.
    waits, total = idle.waits(circuit)
    assert waits == [[], [], [(0, 6.0)], [], [], []]
    assert total == 13.0
    assert idle.waits(Circuit(2))[1] == 0.0
    with pytest.raises(CircuitError, match="describes 3 qubits"):
        idle.waits(Circuit(4))


def test_waiting_qubits_relax() -> None:
    idle = Idle((2.0,) * 3, (1.0,) * 3, {("cx", (0, 1)): 5.0, ("cx", (1, 2)): 5.0})
    noise = NoiseModel(idle=idle)
    circuit = Circuit(3, [("x", 2), ("cx", (0, 1)), ("cx", (1, 2))])
    first, ((qubit, ptm),), last = noise.idle_channels(circuit)  # type: ignore[misc]
    assert first == last == [] and qubit == 0
    np.testing.assert_array_equal(ptm, thermal_relaxation(2.0, 1.0, 5.0).ptm)
    assert NoiseModel.from_json(json.loads(json.dumps(noise.to_json()))) == noise
    assert "waiting: T1 2 s" in str(noise)
    aer = noise.to_aer(3)._custom_noise_passes
    assert len(aer) == 1 and NoiseModel.from_aer(noise.to_aer(3)).idle is None


@pytest.mark.parametrize("bad", [((0.0,), (1.0,), {}), ((1.0,), (-1.0,), {}), ((1.0,), (1.0,), {("x", (0,)): -1.0})])
def test_times_that_are_none(bad: Any) -> None:
    with pytest.raises(NotPhysicalError):
        Idle(*bad)
    with pytest.raises(QasError, match="T1 and T2 of each qubit"):
        Idle((1.0,), (), {})


@pytest.mark.parametrize("name", KINDS)
def test_native_circuits_against_aer_and_its_schedule(name: str, rng: np.random.Generator) -> None:
    device = load_device(name).patch(3, "line", "median")
    assert device.entangler == KINDS[name]
    noise, target = quiet(device.noise()), target_of(device)
    for n_gates in (0, 24):
        circuit = random_native_circuit(device, n_gates, rng)
        hamiltonian = random_hamiltonian(3, 20, rng)
        still, waiting = aer_energies(target, circuit, hamiltonian)
        for model, expected in ((replace(noise, idle=None), still), (noise, waiting)):
            assert dense_expectation(circuit, hamiltonian, model) == pytest.approx(expected, abs=1e-10)
            for engine in ("pauli-transfer", "torch", "aer"):
                energy = make_simulator(noise=model, engine=engine).expectation(circuit, hamiltonian)
                assert energy == pytest.approx(expected, abs=1e-10)
    assert abs(still - waiting) > 1e-6


@pytest.mark.parametrize("engine", ["pauli-transfer", "torch"])
def test_gradients_with_idle_noise(engine: str, rng: np.random.Generator) -> None:
    device = load_device("fake_sherbrooke").patch(4)
    simulator, circuit = make_simulator(noise=device.noise(), engine=engine), random_native_circuit(device, 40, rng)
    hamiltonian = random_hamiltonian(4, 25, rng)
    _, gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
    shifts = math.pi / 2 * np.eye(circuit.n_angles)
    up, down = (
        [simulator.expectation(circuit, hamiltonian, circuit.angles + sign * shift) for shift in shifts]
        for sign in (1, -1)
    )
    np.testing.assert_allclose(gradient, (np.array(up) - np.array(down)) / 2, atol=1e-11)


@pytest.mark.parametrize("engine", ["pauli-transfer", "torch"])
def test_insertions_with_idle_noise(engine: str, rng: np.random.Generator) -> None:
    """Against gates without noise that take no time, really inserted. On two qubits they would let one wait."""
    device = load_device("fake_mumbai").patch(3, "line")
    whole = device.noise()
    assert whole.idle is not None
    native = {
        (gate, place): time for (gate, place), time in whole.idle.durations.items() if gate in device.native_gates
    }
    free = tuple(gate for rule in whole.rules for gate in rule.gates if gate not in device.native_gates)
    rules = tuple(replace(r, gates=tuple(set(r.gates) - set(free))) for r in whole.rules)
    noise = replace(whole, rules=tuple(r for r in rules if r.gates), idle=replace(whole.idle, durations=native))
    simulator, circuit = make_simulator(noise=noise, engine=engine), random_native_circuit(device, 12, rng)
    hamiltonian, strings = random_hamiltonian(3, 20, rng), ["IIX", "IYI", "ZII"]
    found = simulator.insertion_gradients(circuit, hamiltonian, strings)
    for position, (column, string) in itertools.product(range(len(circuit) + 1), enumerate(strings)):
        qubits = tuple(q for q, letter in enumerate(reversed(string)) if letter != "I")
        name = "r" + "".join(letter.lower() for letter in string if letter != "I")
        ends = [
            simulator.expectation(circuit.insert(position, Gate(name, qubits, (angle,))), hamiltonian)
            for angle in (math.pi / 2, -math.pi / 2)
        ]
        assert found[position, column] == pytest.approx((ends[0] - ends[1]) / 2, abs=1e-10), (position, string)


def test_minimizing_with_idle_noise(rng: np.random.Generator) -> None:
    device = load_device("fake_brisbane").patch(3, "line")
    circuit, hamiltonian = random_native_circuit(device, 30, rng), random_hamiltonian(3, 20, rng)
    simulator = make_simulator(noise=device.noise())
    found = simulator.objective(circuit, hamiltonian).minimize_compiled(circuit.angles, 200, 1e-10)
    energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian, found.x)
    assert found.fun == pytest.approx(energy, abs=1e-12) and np.abs(gradient).max() < 1e-4
    assert energy <= simulator.expectation(circuit, hamiltonian)
    other = make_simulator(noise=device.noise(), engine="torch")
    assert other.expectation(circuit, hamiltonian, found.x) == pytest.approx(energy, abs=1e-11)


def test_shots_with_idle_noise() -> None:
    device = load_device("fake_mumbai").patch(2)
    slow = replace(device, t1=(2e-6, 3e-6), t2=(2e-6, 1e-6))  # waiting shows
    circuit = Circuit(2, [("x", 0), ("x", 1), (device.entangler, (0, 1)), *[("sx", 1)] * 8])
    hamiltonian = Hamiltonian({"IZ": 1.0, "ZI": 0.5, "XY": 0.3})
    simulator = make_simulator(noise=slow.noise(), engine="aer")
    estimate, spread = simulator.sample(circuit, hamiltonian, 40_000, seed=5)
    assert abs(estimate - simulator.expectation(circuit, hamiltonian)) < 5 * spread
    still = make_simulator(noise=slow.noise(idle=False)).expectation(circuit, hamiltonian)
    assert abs(estimate - still) > 5 * spread


def test_an_engine_that_does_not_know_waiting_refuses_it() -> None:
    class Other(Simulator):
        name = "other"

        def expectation(self, *_: Any) -> float:
            return 0.0

        def expectation_and_gradient(self, *_: Any) -> tuple[float, np.ndarray]:
            return 0.0, np.zeros(0)

        def term_expectations(self, *_: Any) -> np.ndarray:
            return np.zeros(0)

    noise = load_device("fake_lagos").patch(2).noise()
    assert Other(replace(noise, idle=None)).noise is not None
    with pytest.raises(QasError, match="engine 'other' knows no idle noise"):
        Other(noise)


# ---------------------------------------------------------------------- searches
def test_a_search_for_a_device_stays_in_its_gates(tmp_path: Path) -> None:
    run = qas.search(
        "h2-2", device="fake_sherbrooke", patch="line", agent="random", steps=4, seed=1, out=tmp_path / "run",
        objective="noisy", report=False,
    )  # fmt: skip
    device = run.device
    assert device is not None and device == load_device("fake_sherbrooke").patch(2, "line")
    assert run.config["gates"] == list(device.native_gates) and run.noise == device.noise()
    for result in run.front:
        for gate in result.circuit:
            assert gate.name in device.native_gates
            assert len(gate.qubits) == 1 or gate.qubits in device.directions


def runs_as_it_stands(device: Device, circuit: Circuit, qubits: tuple[int, ...]) -> bool:
    """Whether Qiskit's transpiler leaves a circuit gate for gate at level 0; gates apart may be listed in any order."""
    from qiskit import QuantumCircuit, transpile

    plain = circuit.to_qiskit()
    made = transpile(plain, target=target_of(device), initial_layout=list(qubits), optimization_level=0)
    return bool(made == QuantumCircuit(device.n_qubits).compose(plain, list(qubits)))


@pytest.mark.parametrize("name", list(DEVICES))
def test_what_is_scored_is_what_runs_gate_for_gate(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    device = load_device(name)
    cases = [(device.patch(4, shape), None) for shape in ("line", "best")]
    if name == "fake_sherbrooke":  # ecr, which runs in one direction only
        run = qas.search(
            "h2-2", device=device, patch="line", agent="evolution", evaluations=300, seed=0, out=tmp_path / "run",
            report=False,
        )  # fmt: skip
        assert run.device is not None and any(result.two_qubit_gates for result in run.front)
        cases += [(run.device, result.circuit) for result in run.front]
    for patch, found in cases:
        circuit = random_native_circuit(patch, 30, rng) if found is None else found
        assert runs_as_it_stands(device, circuit, patch.physical)
    far = Circuit(2, [(device.entangler, (0, 1))])
    assert not runs_as_it_stands(device, far, (0, device.n_qubits - 1))
    assert not runs_as_it_stands(device, Circuit(1, [("h", 0)]), (0,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "fake_torino", "noise": "ibm-mumbai"}, "give device or noise"),
        ({"patch": "line"}, "without a device"),
        ({"device": "fake_lagos", "gates": ["ry", "cx"]}, "native gates of fake_lagos"),
        ({"device": "fake_lago"}, "fake_lagos"),
        (
            {"device": "fake_lagos", "problem": "tfim-3", "patch": "line", "coupling": [(0, 1), (0, 2)]},
            "a coupling has pairs that the device couples (0-1 1-2), got 0-2",
        ),
        ({"device": "fake_lagos", "patch": [0, 6]}, "is connected"),
        ({"device": "fake_lagos", "problem": "tfim-8"}, "at most the 7 qubits"),
        (
            {"device": "fake_torino", "problem": "tfim-14", "patch": "line", "objective": "noisy"},
            "at most 13 noisy qubits",
        ),
    ],
)
def test_settings_of_a_device_that_do_not_fit(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(QasError, match=re.escape(message)) as caught:
        qas.search(settings.pop("problem", "h2-2"), agent="random", out=tmp_path / "run", **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_environment_of_a_device(tmp_path: Path) -> None:
    env = gymnasium.make("qas/CircuitBuilder-v0", problem="tfim-3", device="fake_sherbrooke", patch="line", max_gates=4)
    device = load_device("fake_sherbrooke").patch(3, "line")
    actions, evaluator = env.unwrapped.actions, env.unwrapped.evaluator  # type: ignore[attr-defined]
    assert actions.gates == device.native_gates and actions.directions == device.directions
    assert evaluator.noise == device.noise() and isinstance(evaluator.objective, ZeroNoise)
    env.reset(seed=0)
    for action in (0, len(actions) - 1):
        _, _, _, _, info = env.step(np.int64(action))
    assert info["circuit"][0].qubits in device.directions
    for settings in ({"noise": "ibm-mumbai"}, {"device": None}):
        with pytest.raises(QasError, match="device"):
            gymnasium.make(
                "qas/CircuitBuilder-v0", problem="tfim-3", **{"device": "fake_lagos", "patch": "line"} | settings
            )


def test_devices_at_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices"]) == 0
    assert set(list_devices()) <= set(capsys.readouterr().out.split())
    assert main(["devices", "fake_guadalupe", "--patch", "line", "--qubits", "3"]) == 0
    text = capsys.readouterr().out
    patch = load_device("fake_guadalupe").patch(3, "line")
    assert patch.name in text and "map: 0-1, 1-2" in text and "cx error" in text
    assert main(["devices", "fake_guadalupe", "--patch", "5,3", "--json"]) == 0
    assert Device.from_json(json.loads(capsys.readouterr().out)) == patch_for(2, "fake_guadalupe", "5,3")
    for words in (["--patch", "line"], ["--qubits", "3"], ["fake_lagos", "--patch", "5,3", "--qubits", "2"]):
        assert main(["devices", *words]) == 2  # none of them may be ignored
        assert "error: a patch is" in capsys.readouterr().err
    assert main(["devices", "fake_guadalup"]) == 2
    assert "did you mean 'fake_guadalupe'" in capsys.readouterr().err
