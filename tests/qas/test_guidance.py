"""What guides growth: insertions and their slopes against dense matrices, costs, and where it ends."""

from __future__ import annotations

import itertools
import math
from typing import Any

import networkx as nx
import numpy as np
import pytest
from scipy.linalg import expm

import qas
from qas.alphabet import Alphabet
from qas.circuits import Circuit, Gate
from qas.guidance import (
    Curvature,
    Guide,
    blocks_of,
    edited,
    fan_string,
    fans,
    gates_of,
    pauli_insertions,
    rotation_costs,
    trees,
)
from qas.hamiltonians import Hamiltonian
from qas.meter import Meter
from qas.simplify import simplify
from qas.vqe import Evaluation, Evaluator

ALPHABETS = [
    Alphabet(3),
    Alphabet(3, ("cx", "cz", "ry", "rz"), [(0, 1), (1, 2)]),
    Alphabet(2, ("rzz", "rxx", "rx", "cx")),
    Alphabet(1, ("rx", "rz")),
]


def rotation(string: str, angle: float) -> np.ndarray:
    return expm(-0.5j * angle * Hamiltonian({string: 1.0}).to_matrix())


@pytest.mark.parametrize("alphabet", ALPHABETS, ids=str)
def test_every_insertion_turns_about_its_string(alphabet: Alphabet) -> None:
    found = pauli_insertions(alphabet)
    for string, ways in found.items():
        for way in ways:
            made = Circuit(alphabet.n_qubits, way.gates(0.7))
            assert np.abs(made.to_matrix() - rotation(string, 0.7)).max() < 1e-12
            assert made.two_qubit_gates == way.two_qubit_gates
            alphabet.tokens_of(made)
    assert {s for s in found if s.count("I") == alphabet.n_qubits - 1}, "single rotations are among them"


def test_cx_leads_to_six_of_the_nine_strings_of_a_pair() -> None:
    pairs = {string.replace("I", "") for string in pauli_insertions(Alphabet(2)) if "I" not in string}
    assert pairs == {"XX", "ZZ", "XY", "YX", "ZY", "YZ"}
    assert pauli_insertions(Alphabet(2, ("h", "cx"))) == {}


def test_fans_of_a_qubit_in_zero_need_one_cx_for_each_other_letter() -> None:
    rng = np.random.default_rng(0)
    before = Circuit(4, [("ry", 0, 0.4), ("cx", (0, 1)), ("rx", 2, rng.normal()), ("cx", (2, 0)), ("rz", 1, 0.3)])
    state = before.to_matrix()[:, 0]
    found = fans(Alphabet(4), 3)
    assert sorted(map(len, found)) == [3, 3, 3, 4]
    for qubits, (string, way) in found.items():
        grown = simplify(edited(before, (), [(len(before), way.gates(0.9))]))
        assert grown.two_qubit_gates == before.two_qubit_gates + len(qubits) - 1
        overlap = np.vdot(grown.to_matrix()[:, 0], rotation(string, 0.9) @ state)
        assert abs(overlap) == pytest.approx(1.0, abs=1e-12)
    coupled = fans(Alphabet(4, coupling=[(0, 1), (1, 2), (2, 3), (0, 2)]), 3)
    assert coupled == {}, "one neighbour makes no string of three letters"


@pytest.mark.parametrize(
    "coupling",
    [
        [(0, 1), (1, 2), (2, 3), (3, 4)],
        [(4, 2), (2, 0), (0, 3), (3, 1)],
        [(0, 1), (0, 2), (0, 3), (3, 4)],
        [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)],
    ],
    ids=str,
)
def test_trees_from_qubits_in_zero_turn_about_their_string_along_the_coupling(coupling: list[tuple[int, int]]) -> None:
    alphabet = Alphabet(5, coupling=coupling)
    found, graph, zero = trees(alphabet), nx.Graph(coupling), np.eye(32)[0]
    starred = {qubits for head in range(5) for qubits in fans(alphabet, head)}
    sets = {frozenset(qubits) for size in (2, 3, 4) for qubits in itertools.combinations(range(5), size)}
    assert found.keys() | starred == sets - set(map(frozenset, coupling))
    for qubits, (string, ways) in found.items():
        assert {q for q, letter in enumerate(reversed(string)) if letter != "I"} == qubits
        for way in ways:
            whole = Circuit(5, way.gates(0.9))
            alphabet.tokens_of(whole)
            assert np.abs(whole.to_matrix() - rotation(fan_string(5, way), 0.9)).max() < 1e-12
            grown = simplify(whole)
            assert grown.two_qubit_gates == way.two_qubit_gates
            overlap = np.vdot(grown.to_matrix()[:, 0], rotation(string, 0.9) @ zero)
            assert abs(overlap) == pytest.approx(1.0, abs=1e-12), "at |0...0> all heads do the same"
            if len(graph.edges) == 4:
                tree = nx.algorithms.approximation.steiner_tree(graph, list(qubits))
                between = len(tree) - len(qubits)
                assert way.two_qubit_gates == len(tree.edges) + between


def test_of_many_trees_those_with_the_fewest_cx_are_taken() -> None:
    few, many = (trees(Alphabet(n, coupling=list(itertools.pairwise(range(n))))) for n in (12, 14))
    assert len(few) == math.comb(12, 2) + math.comb(12, 3) + math.comb(12, 4) - 11 and len(many) == 800
    assert {frozenset(range(k, k + 4)) for k in range(11)} <= many.keys()
    costs = [ways[0].two_qubit_gates for _, ways in many.values()]
    assert costs == sorted(costs) and costs[-1] < max(ways[0].two_qubit_gates for _, ways in few.values())


def case(name: str = "h2-4", noise: str | None = None) -> tuple[Guide, Evaluator]:
    problem = qas.load_problem(name)
    evaluator = Evaluator(problem, None if noise is None else qas.load_noise(noise))
    guide = Guide.fitting(Alphabet(problem.n_qubits), Meter(evaluator))
    assert guide is not None
    return guide, evaluator


CIRCUIT = Circuit(
    4, [("ry", 0, 0.4), ("rx", 1, 2.0), ("cx", (0, 1)), ("rz", 1, 0.9), ("ry", 1, -0.5), ("cx", (1, 2)), ("rx", 2, 1.1)]
)


def test_slopes_are_those_of_the_inserted_gates() -> None:
    """Finite differences of the circuit that `draw` would make, each angle alone: rotations, pairs and fans alike."""
    guide, evaluator = case()
    study = guide.study(CIRCUIT)
    kinds = set()
    for place in (*list(study.local.found)[:20], *study.entangling.found):
        for way, (k, slope) in itertools.product(place.block.ways, enumerate(place.slopes)):
            up, down = (
                evaluator.energy(edited(CIRCUIT, (), [(place.position, gates_of(way, step * np.eye(len(way))[k]))]))
                for step in (1e-4, -1e-4)
            )
            assert (up - down) / 2e-4 == pytest.approx(slope, abs=1e-6)
            kinds.add((place.block.two_qubit_gates, len(way)))
    assert {(0, 1), (2, 2), (3, 1)} <= kinds
    assert study.entangling.heap == pytest.approx(np.cumsum([place.promise for place in study.entangling.found]))
    promises = [place.promise for place in study.local.found]
    assert promises == sorted(promises, reverse=True)


def test_every_place_that_differs_is_known_once() -> None:
    """All slopes of single rotations, against a sweep: those behind a gate on other qubits are left out."""
    guide, evaluator = case()
    study = guide.study(CIRCUIT)
    slopes = evaluator.simulator.insertion_gradients(CIRCUIT, evaluator.problem.hamiltonian, guide.generators)
    wanted = set()
    for position, column in itertools.product(range(len(CIRCUIT) + 1), range(len(guide.generators))):
        string = str(guide.generators[column])
        qubit = 3 - next(q for q, letter in enumerate(string) if letter != "I")
        fresh = position == 0 or qubit in CIRCUIT[position - 1].qubits
        if string.count("I") == 3 and fresh and abs(slopes[position, column]) > 1e-8:
            wanted.add((position, column))
    assert {(place.position, *place.block.columns) for place in study.local.found} == wanted


@pytest.mark.parametrize("alphabet", ALPHABETS, ids=str)
def test_blocks_turn_about_both_strings_and_leave_none_out(alphabet: Alphabet) -> None:
    ways = pauli_insertions(alphabet)
    strings, blocks = list(ways), blocks_of(list(ways.values()))
    assert {column for block in blocks for column in block.columns} == set(range(len(strings)))
    for block in blocks:
        wanted = np.eye(1 << alphabet.n_qubits)
        for column, angle in zip(block.columns, (0.7, -1.1), strict=False):
            wanted = rotation(strings[column], angle) @ wanted
        for way in block.ways:
            made = Circuit(alphabet.n_qubits, gates_of(way, (0.7, -1.1)[: len(way)]))
            assert np.abs(made.to_matrix() - wanted).max() < 1e-12
            assert made.two_qubit_gates == block.two_qubit_gates


def test_excitations_of_the_alphabet_are_among_what_may_be_inserted() -> None:
    problem = qas.load_problem("h2-4")
    alphabet = Alphabet(4, ("rx", "cx", "single_excitation", "double_excitation", "ovp_ceo", "mvp_ceo"))
    guide = Guide.fitting(alphabet, Meter(Evaluator(problem)))
    assert guide is not None
    study = guide.study(problem.reference_circuit)
    steepest = study.entangling.found[0]
    for way in steepest.block.ways:
        (gate,) = gates_of(way, [0.3])
        made = Circuit(4, [gate]).to_matrix()
        generator = guide.generators[steepest.block.columns[0]]
        assert isinstance(generator, Hamiltonian)
        assert np.abs(made - expm(-0.15j * generator.to_matrix())).max() < 1e-12
    kinds = {way.rotation.name for ways in guide.ways for way in ways if len(way.rotation.qubits) > 1}
    assert kinds == {"single_excitation", "double_excitation", "ovp_ceo"}
    assert {way.two_qubit_gates for ways in guide.ways for way in ways} >= {0, 2, 13}


@pytest.mark.parametrize("name", ["cx", "cz"])
def test_what_a_deleted_gate_leaves_is_next_to_it(name: str) -> None:
    guide, _ = case()
    gate = Gate(name, (2, 0))
    drawn = [guide.nearest_product(gate, np.random.default_rng(seed)) for seed in range(8)]
    for gates in drawn:
        product = Circuit(4, gates).to_matrix()
        assert abs(np.vdot(Circuit(4, [gate]).to_matrix(), product)) / 16 == pytest.approx(np.sqrt(0.5))
    assert len(set(drawn)) == 2 and guide.nearest_product(Gate("swap", (0, 1)), np.random.default_rng(0)) == ()


def test_a_drawn_insertion_goes_downhill() -> None:
    guide, evaluator = case()
    study, rng = guide.study(CIRCUIT), np.random.default_rng(1)
    here = evaluator.energy(CIRCUIT)
    lower = 0
    for choice in (study.local, study.entangling) * 20:
        position, gates = guide.draw(choice, rng)
        lower += evaluator.energy(edited(CIRCUIT, (), [(position, gates)])) < here
    assert lower >= 36, "steps that are too long are rare"


def test_costs_of_gates_without_angles_are_energies_without_them() -> None:
    guide, evaluator = case()
    costs, evaluations = guide.deletion_costs(CIRCUIT, [1.0, 2.0, None, 3.0, 4.0, None, 5.0])
    here = evaluator.energy(CIRCUIT)
    assert costs[[0, 1, 3, 4, 6]].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    for index in (2, 5):
        assert costs[index] == pytest.approx(evaluator.energy(CIRCUIT.delete(index)) - here, abs=1e-12)
    assert evaluations == 2
    assert guide.study(CIRCUIT).evaluations == 1 + 2, "sweeps everywhere, and for fans at both ends"


def test_from_a_determinant_the_double_excitation_is_what_is_left() -> None:
    """All slopes of one and two letters vanish there (Brillouin); one fan of three CX is exact for H2."""
    guide, evaluator = case()
    problem = evaluator.problem
    rng = np.random.default_rng(0)
    start = Circuit(4, [("ry", q, 3.0) for q in range(4)])
    energies = [evaluator.evaluate(start.with_angles(rng.uniform(0, 6.3, 4)), rng) for _ in range(8)]
    found = simplify(min(energies, key=lambda e: e.energy).circuit, angle_tolerance=1e-3)
    assert evaluator.energy(found) == pytest.approx(problem.basis_state, abs=1e-8)
    study = guide.study(found)
    assert {each.block.two_qubit_gates for each in study.entangling.found if max(map(abs, each.slopes)) > 1e-3} == {3}
    grown = problem.simplify(edited(found, (), [guide.draw(study.entangling, rng)]))
    exact = evaluator.evaluate(grown, rng, exact_start=True)
    assert exact.error < 1e-9 and exact.circuit.two_qubit_gates == 3


def test_gates_go_and_come_at_the_places_they_had() -> None:
    circuit = Circuit(2, [("rx", 0, 0.1), ("ry", 1, 0.2), ("cx", (0, 1))])
    new = Gate("rz", (0,), (0.5,)), Gate("rz", (1,), (0.6,))
    names = [g.name for g in edited(circuit, {1}, [(1, new), (3, new[:1]), (0, new[1:])])]
    assert names == ["rz", "rx", "rz", "rz", "cx", "rz"]
    assert edited(circuit, {0, 1, 2}, []) == Circuit(2)


def test_costs_of_rotations_are_those_of_the_quadratic_model() -> None:
    _, evaluator = case()
    circuit = evaluator.evaluate(CIRCUIT, np.random.default_rng(0)).circuit
    hessian = np.diag([1.0, 2.0, 3.0, 4.0, 5.0]) + 0.1
    inverse = np.linalg.inv(hessian)
    wanted = evaluator.simulator.deletion_costs(circuit, evaluator.problem.hamiltonian, inverse_hessian=inverse)
    costs, other = ([c for c in rotation_costs(circuit, h) if c is not None] for h in (inverse, np.eye(3)))
    assert costs == pytest.approx(wanted)
    assert other == pytest.approx(np.square(np.angle(np.exp(1j * circuit.angles))) / 2), "another shape is none"


def test_an_evaluation_brings_the_inverse_hessian_of_its_circuit() -> None:
    _, evaluator = case()
    many = list(evaluator.evaluate_many([CIRCUIT] * 4, np.random.default_rng(0), workers=2))
    for found in (evaluator.evaluate(CIRCUIT, np.random.default_rng(0)), *many):
        assert found.inverse_hessian is not None and found.inverse_hessian.shape == (5, 5)
    assert evaluator.evaluate(Circuit(4), np.random.default_rng(0)).inverse_hessian is None


@pytest.mark.parametrize("workers", [1, 2])
def test_an_optimization_of_many_begins_with_what_is_known_of_each(workers: int) -> None:
    _, evaluator = case()
    rng = np.random.default_rng(3)
    starts = [CIRCUIT.with_angles(rng.normal(size=5)) for _ in range(12)]
    inverses = [None if k % 3 == 0 else np.diag(rng.uniform(0.1, 2.0, 5)) for k in range(12)]
    many = evaluator.evaluate_many(starts, rng, exact_start=True, inverse_hessians=inverses, workers=workers)
    for start, inverse, found in zip(starts, inverses, many, strict=True):
        alone = evaluator.evaluate(start, rng, exact_start=True, inverse_hessian=inverse)
        assert (found.circuit, found.energy, found.evaluations) == (alone.circuit, alone.energy, alone.evaluations)


def test_a_child_inherits_the_curvature_of_the_angles_it_keeps() -> None:
    known = np.random.default_rng(0).normal(size=(5, 5))
    known = known @ known.T + np.eye(5)
    held = Curvature.of(Evaluation(CIRCUIT, 0.0, 0.0, 1, known))
    assert held is not None
    new, merged = Gate("ry", (3,), (0.2,)), Gate("rx", (2,), (0.3,))
    child = simplify(edited(CIRCUIT, {1, 2}, [(0, (new,)), (7, (merged,))]))
    assert [gate.name for gate in child] == ["ry", "ry", "ry", "cx", "rx"]
    inverse = held.inherited(CIRCUIT, child)
    slots = {id(gate): k for k, gate in enumerate(g for g in CIRCUIT if g.angles)}
    rows = [slots.get(id(gate)) for gate in child if gate.angles]
    assert inverse is not None and rows.count(None) == 2, "a new rotation, and one that was added to another"
    for (i, a), (j, b) in itertools.product(enumerate(rows), repeat=2):
        wanted = known[a, b] if a is not None and b is not None else float(i == j) * np.median(np.diag(known))
        assert inverse[i, j] == pytest.approx(wanted, rel=1e-6)
    assert held.inherited(CIRCUIT, Circuit(4, [new])) is None
    assert Curvature.of(Evaluation(CIRCUIT, 0.0, 0.0, 1, np.eye(4))) is None


@pytest.mark.parametrize(
    ("problem", "settings"),
    [("adapter-8", {}), ("h2-2", {"shots": 100, "optimizer": "spsa"}), ("h2-2", {"engine": "torch"})],
)
def test_where_there_are_no_slopes_there_is_no_guide(problem: str, settings: dict[str, Any]) -> None:
    chosen = qas.load_problem(problem)
    assert Guide.fitting(Alphabet(chosen.n_qubits, ("ry", "cx")), Meter(Evaluator(chosen, **settings))) is None
