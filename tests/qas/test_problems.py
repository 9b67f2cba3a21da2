"""Problems: references against dense linear algebra and brute force, files, names and bad input."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from scipy.optimize import minimize

from qas.circuits import Circuit
from qas.errors import QasError, RunError, TooLargeError, UnknownNameError
from qas.hamiltonians import Hamiltonian
from qas.problems import (
    PROBLEMS,
    BaseProblem,
    Problem,
    cluster,
    heisenberg,
    list_problems,
    load_problem,
    maxcut,
    needs_file,
    problem,
    state_preparation,
    tfim,
)
from qas.problems.families import family
from qas.problems.triviality import basis_states_needed
from qas.simulators import make_simulator
from qas.simulators.dense import circuit_matrix, dense_expectation
from qas.testing import ProblemContract, random_circuit

PAULI = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}
# Published ground energies in hartree, CRLQAS and TensorRL-QAS; beh2-6 and h2o-8 are the same inputs read in angstrom.
PUBLISHED = {
    "h2-2": -1.137270,
    "h2-3": -1.137270,
    "h2-4": -1.136189,
    "lih-4": -7.789089,
    "lih-6": -7.844879,
    "beh2-6": -15.563137,
    "beh2-6-bohr": -14.861589,
    "ch2-8-bohr": -37.086298,
    "h2o-8": -74.972336,
    "h2o-8-bohr": -73.294107,
}
# Lowest basis state above the ground energy, millihartree, from the same sources.
GAPS = {
    "h2-2": 20.586,
    "h2-3": 20.586,
    "h2-4": 18.840,
    "lih-4": 119.029,
    "lih-6": 36.885,
    "beh2-6-bohr": 5.921,
    "ch2-8-bohr": 7.909,
    "h2o-8-bohr": 2.626,
}
MOLECULES = [*PUBLISHED, "ch2-8"]


def site(n: int, letters: dict[int, str]) -> np.ndarray:
    """Kronecker product with qubit 0 as the last factor."""
    matrix = np.eye(1)
    for q in reversed(range(n)):
        matrix = np.kron(matrix, PAULI[letters.get(q, "I")])
    return matrix


def product_energy(matrix: np.ndarray, n: int, rng: np.random.Generator, starts: int = 25) -> float:
    """Lowest product-state energy by gradient-free search over 2n Bloch angles, sharing nothing with the package."""

    def energy(angles: np.ndarray) -> float:
        state = np.ones(1)
        for theta, phi in angles.reshape(n, 2):
            state = np.kron(state, [math.cos(theta / 2), np.exp(1j * phi) * math.sin(theta / 2)])
        return float((state.conj() @ matrix @ state).real)

    runs = [minimize(energy, rng.uniform(0, 2 * math.pi, 2 * n), method="L-BFGS-B") for _ in range(starts)]
    return float(min(run.fun for run in runs))


# ---------------------------------------------------------------------- shipped molecules
@pytest.mark.parametrize("name", MOLECULES)
def test_molecule_matches_published_energy_and_diagonalisation(name: str) -> None:
    made = load_problem(name)
    levels = np.linalg.eigvalsh(made.hamiltonian.to_matrix())
    assert made.exact == pytest.approx(levels[0], abs=1e-10)
    assert made.exact == pytest.approx(made.provenance["casci"], abs=1e-8)
    assert made.exact == pytest.approx(made.provenance["sector_energy"], abs=1e-8)
    if name in PUBLISHED:
        assert made.exact == pytest.approx(PUBLISHED[name], abs=1e-6)
    if name in GAPS:
        assert 1e3 * (made.basis_state - made.exact) == pytest.approx(GAPS[name], abs=2e-3)
    assert made.name == name and made.unit == "hartree" and made.threshold == 1.6e-3
    # Hartree-Fock is a basis state of every encoding.
    assert np.abs(np.diag(made.hamiltonian.to_matrix()).real - made.provenance["hartree_fock"]).min() < 1e-7
    assert made.n_qubits == int(name.split("-")[1])


@pytest.mark.parametrize("name", ["h2-3"])
def test_product_state_against_independent_search(name: str) -> None:
    made = load_problem(name)
    found = product_energy(made.hamiltonian.to_matrix(), made.n_qubits, np.random.default_rng(4))
    assert made.product_state == pytest.approx(found, abs=1e-7)


def test_lih_needs_entanglement() -> None:
    for name in ("lih-4", "lih-6", "h2-2", "h2-3", "h2-4"):
        made = load_problem(name)
        assert not made.solved(made.product_state)


def test_h2_in_jordan_wigner_is_a_superposition_of_two_determinants() -> None:
    made = load_problem("h2-4")
    _, states = np.linalg.eigh(made.hamiltonian.to_matrix())
    weights = np.abs(states[:, 0]) ** 2
    assert np.flatnonzero(weights > 1e-12).tolist() == [0b0011, 0b1100]
    # X on the first determinant, then one rotation and three CNOTs that carry it to all four qubits.
    h = made.hamiltonian.to_matrix()
    angle = 2 * math.atan2(states[0b1100, 0].real, states[0b0011, 0].real)
    state = np.zeros(16)
    state[0b0000], state[0b0001] = math.cos(angle / 2), math.sin(angle / 2)
    for control, target in ((0, 1), (0, 2), (0, 3)):
        index = np.arange(16)
        state = state[np.where(index >> control & 1, index ^ 1 << target, index)]
    state = state[np.arange(16) ^ 0b0011]
    assert state @ h.real @ state == pytest.approx(made.exact, abs=1e-10)


# Terms, qubits after tapering and terms then; errors of the Hartree-Fock and of the best unrestricted determinant in
# millihartree; determinants that 1.6 mHa take. Those of LiH, BeH2, H6 and H4 at 1.5 angstrom were computed before by
# other code from other integrals.
COMPACT = {
    "lih-12": (631, 8, 558, 19.6, 19.6, 7),
    "lih-12-3.0": (631, 8, 558, 88.0, 10.8, 7),
    "beh2-14": (666, 9, 596, 34.4, 34.4, 11),
    "beh2-14-3.0": (666, 9, 596, 312.6, 47.2, 28),
    "h4-8": (185, 5, 132, 67.8, 67.8, 11),
    "h4-8-1.5": (185, 5, 132, 167.0, 63.4, 12),
    "h6-12": (919, 9, 919, 100.5, 99.1, 72),
    "h6-12-1.5": (919, 9, 919, 245.4, 87.3, 122),
    "h2o-12": (551, 8, 514, 49.4, 49.4, 22),
    "n2-12": (247, 7, 232, 126.0, 126.0, 31),
    "n2-12-1.8": (247, 7, 232, 442.2, 44.9, 34),
}


@pytest.mark.parametrize("name", COMPACT)
def test_compact_molecules_and_their_twins(name: str) -> None:
    whole, twin = load_problem(name), load_problem(f"{name}-tapered")
    terms, qubits, fewer, hartree_fock, unrestricted, determinants = COMPACT[name]
    assert (whole.n_qubits, len(whole.hamiltonian)) == (int(name.split("-")[1]), terms)
    assert (twin.n_qubits, len(twin.hamiltonian)) == (qubits, fewer)
    # The twin is made from the whole operator, without any chemistry: same electrons, other mapping, tapered.
    assert whole.molecule.tapering is None and twin.molecule.mapping == "parity"
    remade = twin.molecule.encode(whole.hamiltonian).terms
    assert {p for p, c in remade.items() if abs(c) > 1e-9} == set(twin.hamiltonian.terms)
    assert all(remade[p] == pytest.approx(c, abs=1e-9) for p, c in twin.hamiltonian.terms.items())
    assert twin.hamiltonian.ground_energy == pytest.approx(whole.exact, abs=1e-9)
    for made in (whole, twin):
        assert made.exact == pytest.approx(made.provenance["casci"], abs=1e-8)
        assert made.energy(made.reference_circuit) == pytest.approx(made.provenance["hartree_fock"], abs=1e-8)
        simple = made.triviality
        assert simple.determinants == determinants and not simple.trivial
        assert 1e3 * simple.unrestricted == pytest.approx(unrestricted, abs=0.06)
        assert 1e3 * made.error(made.provenance["hartree_fock"]) == pytest.approx(hartree_fock, abs=0.06)


def test_compact_names_follow_one_rule() -> None:
    """The plain name is the first distance; then the distance, then whether it is tapered."""
    compact = {name for name in list_problems() if name.endswith("-tapered")}
    assert {name for name in list_problems() if name.endswith("-jw")} == {f"{name}-jw" for name in compact}
    assert compact == {f"{name}-tapered" for name in COMPACT} and set(COMPACT) < set(list_problems())


def test_tapered_problems() -> None:
    whole, made = load_problem("h4-8-1.5"), load_problem("h4-8-1.5-tapered-jw")
    assert made.name == "h4-8-1.5-tapered-jw" and made.description == f"{whole.description}, tapered"
    assert made == whole.tapered(name=made.name) == Problem.from_json(made.to_json())
    assert (made.n_qubits, len(made.hamiltonian)) == (5, 132) and made.molecule.mapping == "jordan-wigner"
    assert made.exact == pytest.approx(whole.exact, abs=1e-9) and made.determinants == whole.determinants == 12
    assert made.energy(made.reference_circuit) == pytest.approx(whole.provenance["hartree_fock"], abs=1e-8)
    assert basis_states_needed(made.hamiltonian, made.threshold) == 12
    ring = load_problem("tfim-6").tapered()
    assert ring.name == "tfim-6-tapered" and ring.n_qubits == 5 and ring.exact == pytest.approx(tfim(6).exact)
    assert load_problem("tfim-6").tapered(sector=[-1]).exact > ring.exact
    for wrong, words in (
        (lambda: made.tapered(), "has no qubit left to taper"),
        (lambda: load_problem("lih-4").tapered(), "has no qubit left to taper"),
        (lambda: problem({"XI": 1.0, "ZI": 0.5, "IX": 0.25, "IZ": 0.125}).tapered(), "tapering needs a symmetry"),
        (lambda: problem({"ZZ": 1.0}).tapered(sector=[1]), "a sector is 1 or -1"),
    ):
        with pytest.raises(QasError, match=words):
            wrong()


@pytest.mark.parametrize("name", ["h4-8-tapered", "h4-8-1.5", "lih-4", "h2o-8"])
def test_determinants_that_accuracy_takes(name: str) -> None:
    """Against dense diagonalisation in the determinants of largest weight, one more at a time."""
    made = load_problem(name)
    assert made.references["determinants"] == made.determinants
    assert basis_states_needed(made.hamiltonian, made.threshold) == made.determinants
    matrix = made.hamiltonian.to_matrix()
    order = np.argsort(-np.round(abs(np.linalg.eigh(matrix)[1][:, 0]) ** 2, 10), kind="stable")
    errors = [np.linalg.eigvalsh(matrix[np.ix_(order[:k], order[:k])])[0] - made.exact for k in range(1, 15)]
    assert next(k for k, error in enumerate(errors, 1) if error <= made.threshold) == made.determinants


def test_triviality() -> None:
    for name, trivial in (("ch2-8", True), ("maxcut-4-url", True), ("tfim-6", False), ("lih-4", False)):
        assert load_problem(name).triviality.trivial is trivial
    singlet = load_problem("heisenberg-2").triviality
    assert singlet.determinants == 2 and singlet.unrestricted is None
    # More states than are diagonalized densely.
    many = tfim(9).triviality
    assert 400 < many.determinants < 512
    wide = problem({"Z" + "I" * 39: 1.0})
    with pytest.raises(TooLargeError, match="of custom .40 qubits"):
        wide.triviality  # noqa: B018


def test_reference_states_of_other_operators() -> None:
    made = problem({"ZI": 1.0, "IZ": -1.0, "ZZ": 0.25, "XX": 0.1}, name="tilted")
    assert made.molecule is None and made.determinant == "10"
    assert made.energy(made.reference_circuit) == made.basis_state == pytest.approx(-2.25)
    assert len(problem({"ZZ": -1.0}).reference_circuit) == 0
    with pytest.raises(TooLargeError, match="up to 28 qubits, got 30"):
        problem({"Z" * 30: 1.0}).determinant  # noqa: B018
    lying = dataclasses.replace(made, provenance=load_problem("lih-4").provenance)
    with pytest.raises(QasError, match="a molecule on 4 qubits, got an operator on 2"):
        lying.molecule  # noqa: B018


def test_known_values_are_kept_and_checked() -> None:
    made = Problem("mine", Hamiltonian({"ZZ": 1.0}), references={"determinants": 1, "unrestricted": -0.5})
    again = Problem.from_json(made.to_json())
    assert again.references["determinants"] == 1 and again.unrestricted == -0.5
    for wrong in ({"determinants": 0}, {"determinants": 1.5}, {"unrestricted": math.nan}, {"best": 1.0}):
        with pytest.raises(QasError):
            Problem("mine", Hamiltonian({"ZZ": 1.0}), references=wrong)


def test_units_of_length_are_named() -> None:
    for name in ("beh2-6", "ch2-8", "h2o-8"):
        plain, bohr = load_problem(name), load_problem(f"{name}-bohr")
        assert plain.provenance["geometry"] == bohr.provenance["geometry"]
        assert plain.provenance["geometry_unit"] == "angstrom" and bohr.provenance["geometry_unit"] == "bohr"
        assert "angstrom" in plain.provenance["note"] and "bohr" in bohr.provenance["note"]


# ---------------------------------------------------------------------- spin chains
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("n", [3, 4, 5])
def test_spin_chains_against_kronecker_products(n: int, periodic: bool) -> None:
    bonds = [(i, (i + 1) % n) for i in range(n if periodic else n - 1)]
    j, h = 0.7, -1.3
    zero = np.zeros((2**n, 2**n))
    ising = sum((j * site(n, {a: "Z", b: "Z"}) for a, b in bonds), zero)
    ising = sum((h * site(n, {a: "X"}) for a in range(n)), ising)
    np.testing.assert_allclose(
        tfim(n, coupling=j, field=h, periodic=periodic).hamiltonian.to_matrix(), ising, atol=1e-12
    )
    exchange = sum((j * site(n, {a: p, b: p}) for a, b in bonds for p in "XYZ"), zero)
    exchange = sum((h * site(n, {a: "Z"}) for a in range(n)), exchange)
    made = heisenberg(n, coupling=j, field=h, periodic=periodic)
    np.testing.assert_allclose(made.hamiltonian.to_matrix(), exchange, atol=1e-12)
    stabilizers = np.zeros((2**n, 2**n))
    for i in range(n):
        letters = {i: "X"}
        for k in (i - 1, i + 1):
            if periodic or 0 <= k < n:
                letters[k % n] = "Z"
        stabilizers = stabilizers - j * site(n, letters).real - h * site(n, {i: "X"})
    made = cluster(n, coupling=j, field=h, periodic=periodic)
    np.testing.assert_allclose(made.hamiltonian.to_matrix(), stabilizers, atol=1e-12)
    assert made.exact == pytest.approx(np.linalg.eigvalsh(stabilizers)[0], abs=1e-10)


@pytest.mark.parametrize(
    ("made", "exact", "product"),
    [
        (load_problem("tfim-8"), -10.2517, -10.0),
        (load_problem("heisenberg-8"), -14.6044, -9.0),
        (load_problem("cluster-8"), -8.0, -4.0),
        (load_problem("cluster-8-open"), -8.0, -4.0),
        (load_problem("heisenberg-5-open"), -8.711545, None),
        (tfim(6, field=1e-3, periodic=False), -5.000002, None),
    ],
    ids=lambda value: value.name if isinstance(value, Problem) else "",
)
def test_published_spin_energies(made: Problem, exact: float, product: float | None) -> None:
    assert made.exact == pytest.approx(exact, abs=5e-5 if product else 1e-6)
    if product is not None:
        assert made.product_state == pytest.approx(product, abs=1e-6)
    assert made.exact <= made.product_state <= made.basis_state + 1e-12
    assert made.unit == "J"


def test_tfim_ring_against_free_fermions() -> None:
    n = 12
    momenta = (2 * np.arange(n) + 1) * math.pi / n
    expected = -np.sqrt(1 + 0.5**2 - 2 * 0.5 * np.cos(momenta)).sum()
    assert tfim(n, field=0.5).exact == pytest.approx(expected, abs=1e-8)


def test_two_spins_have_one_bond() -> None:
    assert tfim(2) == load_problem("tfim-2") == tfim(2, periodic=False)
    assert tfim(2).hamiltonian.terms == {"ZZ": 1.0, "IX": 1.0, "XI": 1.0}
    assert cluster(2).exact == pytest.approx(-2.0)


def test_names_of_chains_tell_parameters_apart() -> None:
    made = [tfim(4), tfim(4, periodic=False), tfim(4, field=0.5), tfim(4, coupling=-1.0), heisenberg(4), cluster(4)]
    assert len({m.name for m in made}) == len(made)
    assert tfim(4, periodic=False) == load_problem("tfim-4-open") == load_problem(" TFIM-4-open ")


@pytest.mark.parametrize("family", [tfim, heisenberg, cluster])
@pytest.mark.parametrize(
    "options",
    [{"n": 1}, {"n": 0}, {"n": 21}, {"n": 4.0}, {"n": True}, {"n": "4"}]
    + [{"n": 4, "coupling": math.nan}, {"n": 4, "field": math.inf}, {"n": 4, "field": "1"}]
    + [{"n": 4, "coupling": 0, "field": 0}],
)
def test_bad_chains(family: object, options: dict[str, object]) -> None:
    with pytest.raises(QasError) as caught:
        family(**options)  # type: ignore[operator]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tfim-graph-4-1", "heisenberg-graph-5-3", "heisenberg-field-5-2-open"])
def test_spins_on_graphs_and_in_random_fields_against_kronecker_products(name: str) -> None:
    made, again = load_problem(name), load_problem(name)
    assert made == again and made.name == name and made.to_json() == again.to_json()
    n, fields = made.n_qubits, made.provenance["field"]
    bonds = made.provenance.get("edges", [(i, i + 1) for i in range(n - 1)])
    if "field" in name or "heisenberg" in name:
        assert len(set(fields)) == n and all(-1 <= h <= 1 for h in fields)
        expected = sum(site(n, {a: p, b: p}) for a, b in bonds for p in "XYZ")
        expected = expected + sum(h * site(n, {q: "Z"}) for q, h in enumerate(fields))
    else:
        assert fields == 1.0 and len(bonds) == 6
        expected = sum(site(n, {a: "Z", b: "Z"}) for a, b in bonds) + sum(site(n, {q: "X"}) for q in range(n))
    np.testing.assert_allclose(made.hamiltonian.to_matrix(), expected, atol=1e-12)
    other = load_problem(name.replace("-1", "-7").replace("-3", "-7").replace("-2", "-7"))
    assert n == 4 or other.hamiltonian != made.hamiltonian


def test_spins_of_a_graph_of_one_s_own() -> None:
    ring = tfim(nx.cycle_graph(5))
    assert ring.hamiltonian == tfim(5).hamiltonian and ring.name == "tfim-5-graph"
    assert heisenberg(nx.path_graph(4), field=2.0).hamiltonian == heisenberg(4, field=2.0, periodic=False).hamiltonian
    named = nx.Graph([("b", "a"), ("a", "c")])
    assert set(tfim(named, field=0.0).hamiltonian.terms) == {"IZZ", "ZZI"}
    assert heisenberg(3, field=[1, 1, 1]).hamiltonian == heisenberg(3).hamiltonian
    for wrong in (
        lambda: tfim(nx.DiGraph([(0, 1)])),
        lambda: tfim(nx.Graph([(0, 0), (0, 1)])),
        lambda: heisenberg(nx.path_graph(21)),
        lambda: heisenberg(nx.empty_graph(1)),
        lambda: heisenberg(3, field=[1.0, 2.0]),
        lambda: heisenberg(3, field=[1.0, 2.0, math.inf]),
        lambda: heisenberg(3, coupling=0.0, field=[0.0, 0.0, 0.0]),
        lambda: cluster(4, field=[1.0] * 4),  # type: ignore[arg-type]
        lambda: cluster(nx.path_graph(3)),  # type: ignore[arg-type]
    ):
        with pytest.raises(QasError) as caught:
            wrong()
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- max-cut
def cut_weight(graph: nx.Graph, side: dict[object, int]) -> float:
    return sum(w for a, b, w in graph.edges(data="weight", default=1.0) if side[a] != side[b])


@pytest.mark.parametrize("seed", range(4))
def test_maxcut_of_weighted_graphs_against_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = nx.Graph()
    nodes = ["d", "a", "c", "b", "e", 7][: 3 + seed]
    graph.add_nodes_from(nodes)
    for a, b in itertools.combinations(nodes, 2):
        if rng.random() < 0.8:
            graph.add_edge(a, b, weight=float(rng.normal()) + 0.5)
    made = maxcut(graph)
    cuts = [
        cut_weight(graph, dict(zip(nodes, bits, strict=True))) for bits in itertools.product((0, 1), repeat=len(nodes))
    ]
    assert made.exact == pytest.approx(-max(cuts))
    assert made.provenance["max_cut"] == pytest.approx(max(cuts))
    matrix = made.hamiltonian.to_matrix()
    assert np.linalg.eigvalsh(matrix)[0] == pytest.approx(-max(cuts))
    bits = made.provenance["best_cut"]
    assert cut_weight(graph, {node: int(bits[-1 - q]) for q, node in enumerate(nodes)}) == pytest.approx(max(cuts))
    assert matrix[int(bits, 2), int(bits, 2)].real == pytest.approx(-max(cuts))
    assert made.product_state == made.basis_state == made.exact and made.unit == "cut weight"


@pytest.mark.parametrize("n", [2, 3, 8, 9])
def test_seeded_graphs(n: int) -> None:
    made, again = load_problem(f"maxcut-{n}-5"), load_problem(f"maxcut-{n}-5")
    assert made == again and made.to_json() == again.to_json() and made.name == f"maxcut-{n}-5"
    graph = nx.Graph([(a, b) for a, b, _ in made.provenance["edges"]])
    assert nx.is_connected(graph) and len(graph) == n
    if n in (4, 8):
        assert set(dict(graph.degree).values()) == {3}
    assert made.exact == pytest.approx(np.linalg.eigvalsh(made.hamiltonian.to_matrix())[0])


def test_seeds_give_different_graphs_and_one_is_pinned() -> None:
    assert len({json.dumps(load_problem(f"maxcut-8-{seed}").provenance["edges"]) for seed in range(6)}) > 1
    edges = [(a, b) for a, b, _ in load_problem("maxcut-6-1").provenance["edges"]]
    assert edges == PINNED_6_1


PINNED_6_1 = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 4), (2, 5), (3, 4), (3, 5), (4, 5)]


def test_bad_graphs() -> None:
    loop = nx.Graph([(0, 0), (0, 1)])
    heavy = nx.Graph()
    heavy.add_edge(0, 1, weight=math.inf)
    text = nx.Graph()
    text.add_edge(0, 1, weight="2")
    empty = nx.empty_graph(3)
    bad = [loop, heavy, text, empty, nx.Graph(), nx.path_graph(1), nx.path_graph(21), nx.DiGraph([(0, 1)])]
    for graph in [*bad, nx.MultiGraph([(0, 1)]), [(0, 1)], None]:
        with pytest.raises(QasError) as caught:
            maxcut(graph)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("n", "edges", "best"), [(4, 4, 4), (8, 15, 12)])
def test_published_graphs_have_names(n: int, edges: int, best: int) -> None:
    made = load_problem(f" MaxCut-{n}-URL ")
    assert made == load_problem(f"maxcut-{n}-url") and made.name == f"maxcut-{n}-url" and made.n_qubits == n
    assert len(made.provenance["edges"]) == edges and made.exact == -best == -made.provenance["max_cut"]
    assert made.provenance["family"] == "maxcut" and "arXiv:2401.11576" in made.description
    assert made.basis_state == made.product_state == made.exact
    assert np.diag(made.hamiltonian.to_matrix()).real.min() == -best
    for name in ("maxcut-6-url", "maxcut-url", "maxcut-4-url-1", "maxcut-4"):
        with pytest.raises(QasError) as caught:
            load_problem(name)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- state preparation
def random_state(n: int, rng: np.random.Generator) -> np.ndarray:
    psi = rng.normal(size=2**n) + 1j * rng.normal(size=2**n)
    return psi / np.linalg.norm(psi)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_energy_of_a_target_is_minus_the_fidelity(n: int) -> None:
    rng = np.random.default_rng(n)
    target = random_state(n, rng)
    made = state_preparation(3j * target)
    np.testing.assert_allclose(made.hamiltonian.to_matrix(), -np.outer(target, target.conj()), atol=1e-13)
    assert made.exact == -1.0 and made.unit == "fidelity" and made.name == f"state-{n}"
    assert made.solved(-0.995) and not made.solved(-0.985)
    for _ in range(3):
        circuit = random_circuit(n, 12, rng)
        fidelity = abs(np.vdot(target, circuit_matrix(circuit)[:, 0])) ** 2
        assert make_simulator().expectation(circuit, made.hamiltonian) == pytest.approx(-fidelity, abs=1e-12)


def test_a_circuit_stands_for_the_state_it_prepares() -> None:
    circuit = Circuit(3, [("h", 0), ("cx", (0, 2)), ("ry", 1, 0.4), ("rz", 2, 0.7), ("cz", (1, 2))])
    made = state_preparation(circuit, name="mine")
    assert make_simulator().expectation(circuit, made.hamiltonian) == pytest.approx(-1.0, abs=1e-13)
    assert made.provenance["target"] == json.loads(json.dumps(circuit.to_list())) and made.name == "mine"
    again = Problem.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made and again.to_json() == made.to_json()


@pytest.mark.parametrize("seed", range(2))
def test_product_fidelity_of_two_qubits_is_the_largest_schmidt_coefficient(seed: int) -> None:
    psi = random_state(2, np.random.default_rng(seed))
    singular = np.linalg.svd(psi.reshape(2, 2), compute_uv=False)
    assert state_preparation(psi).product_state == pytest.approx(-(singular[0] ** 2), abs=1e-10)
    # Brute force: the best first qubit on a grid of its Bloch sphere, the second one follows.
    best = 0.0
    for theta in np.linspace(0, math.pi, 91):
        for phi in np.linspace(0, 2 * math.pi, 91):
            first = np.array([math.cos(theta / 2), np.exp(1j * phi) * math.sin(theta / 2)])
            best = max(best, float(np.linalg.norm(first.conj() @ psi.reshape(2, 2)) ** 2))
    assert -state_preparation(psi).product_state == pytest.approx(best, abs=2e-3)


def test_known_product_fidelities() -> None:
    w3 = np.zeros(8)
    w3[[1, 2, 4]] = 1.0
    assert state_preparation(w3).product_state == pytest.approx(-4 / 9, abs=1e-9)
    assert state_preparation(w3).basis_state == pytest.approx(-1 / 3)
    for n in (2, 3, 6):
        ghz = np.zeros(2**n)
        ghz[[0, -1]] = 1.0
        assert state_preparation(ghz).product_state == pytest.approx(-0.5, abs=1e-9)
        w = np.zeros(2**n)
        w[2 ** np.arange(n)] = 1.0
        assert state_preparation(w).product_state == pytest.approx(-((1 - 1 / n) ** (n - 1)), abs=1e-9)
    ring = cluster(4)
    _, vectors = np.linalg.eigh(ring.hamiltonian.to_matrix())
    assert state_preparation(vectors[:, 0]).product_state == pytest.approx(-1 / 4, abs=1e-9)
    rng = np.random.default_rng(0)
    product = np.ones(1)
    for _ in range(4):
        product = np.kron(product, random_state(1, rng))
    assert state_preparation(product).product_state == pytest.approx(-1.0, abs=1e-12)


def test_product_fidelity_against_independent_search() -> None:
    rng = np.random.default_rng(6)
    for n in (2, 3):
        psi = random_state(n, rng)
        found = product_energy(-np.outer(psi, psi.conj()), n, rng, starts=12)
        assert state_preparation(psi).product_state == pytest.approx(found, abs=1e-8)


def test_a_product_state_is_at_least_as_near_as_every_basis_state() -> None:
    """Three maxima of nearly the same height: 40 random starts end at the two lower ones, or creep towards the best."""
    psi = np.zeros(16)
    psi[[0b0000, 0b1111, 0b0101]] = 1.0, 1.0, 1.0001
    made = state_preparation(psi)
    assert made.product_state <= made.basis_state == pytest.approx(-(1.0001**2) / (psi @ psi), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_basis_states_as_targets(n: int) -> None:
    for index in (0, 2**n - 1):
        psi = np.zeros(2**n)
        psi[index] = -2.0
        made = state_preparation(psi)
        assert made.exact == made.product_state == made.basis_state == -1.0
        circuit = Circuit(n, [("x", q) for q in range(n)] if index else [])
        assert make_simulator().expectation(circuit, made.hamiltonian) == pytest.approx(-1.0, abs=1e-13)


@pytest.mark.parametrize("name", ["state-2-0", "state-3-5", "state-6-1"])
def test_seeded_targets(name: str) -> None:
    made, again = load_problem(name), load_problem(f" {name.upper()}")
    assert made == again and made.name == name and made.exact == -1.0
    assert made.product_state > -0.9, "a target needs entanglement"
    n, seed = map(int, name.split("-")[1:])
    circuit = Circuit(n, made.provenance["target"])
    assert made.provenance["seed"] == seed and made.provenance["family"] == "state"
    assert len(circuit) == 5 * n // 2 and circuit.depth <= 5 and circuit.two_qubit_gates
    assert all((g.qubits[1] - g.qubits[0]) % n == 1 for g in circuit if g.name == "cx")
    psi = circuit_matrix(circuit)[:, 0]
    np.testing.assert_allclose(made.hamiltonian.to_matrix(), -np.outer(psi, psi.conj()), atol=1e-12)


@pytest.mark.parametrize("noise", ["ibm-ourense"])
def test_noisy_fidelities_against_dense_matrices_and_aer(noise: str) -> None:
    from qas.noise import load_noise

    made, model = load_problem("state-3-2"), load_noise(noise)
    circuit = Circuit(3, [("ry", 0, 0.4), ("cx", (0, 1)), ("rx", 1, 1.1), ("cx", (1, 2)), ("rz", 2, 0.3), ("h", 0)])
    expected = dense_expectation(circuit, made.hamiltonian, model)
    clean = dense_expectation(circuit, made.hamiltonian)
    assert abs(expected - clean) > 1e-4
    for engine in ("pauli-transfer", "aer"):
        assert make_simulator(model, engine).expectation(circuit, made.hamiltonian) == pytest.approx(
            expected, abs=1e-10
        )
    assert make_simulator(None, "aer").expectation(circuit, made.hamiltonian) == pytest.approx(clean, abs=1e-10)


@pytest.mark.parametrize(
    "state",
    [[], [1.0], 1.0, None, "ab", [1, 2, 3], [[1, 0], [0, 1]], [0.0] * 4, [math.nan, 1], [math.inf, 0], [[1], [1, 2]]]
    + [np.ones(512), Circuit(9), {"00": 1.0}, [1e-14, 0.0]],
    ids=lambda state: str(np.shape(state)) if isinstance(state, np.ndarray) else str(state)[:20],
)
def test_bad_targets(state: object) -> None:
    with pytest.raises(QasError, match="target state") as caught:
        state_preparation(state)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "name", ["state-1-0", "state-9-0", "state-4", "state-4-x", "state-4-url", "state", "state--1-0"]
)
def test_bad_names_of_targets(name: str) -> None:
    with pytest.raises(QasError, match="state-N-SEED with N from 2 to 8"):
        load_problem(name)


# ---------------------------------------------------------------------- own problems
def test_problem_reads_every_form() -> None:
    from qiskit.quantum_info import SparsePauliOp

    terms = {"XX": 1.0, "IZ": 0.5}
    expected = Hamiltonian(terms)
    for source in (terms, list(terms.items()), expected, expected.to_matrix(), SparsePauliOp(list(terms), [1.0, 0.5])):
        made = problem(source, name="mine")
        assert made.n_qubits == 2
        np.testing.assert_allclose(made.hamiltonian.to_matrix(), expected.to_matrix(), atol=1e-12)
        assert made.exact == pytest.approx(np.linalg.eigvalsh(expected.to_matrix())[0])
    assert made.threshold == pytest.approx(1.5e-3)
    # A constant neither helps nor hurts, so it must not loosen what counts as success.
    assert problem(terms | {"II": -80.0}).threshold == pytest.approx(made.threshold)
    assert made.error(made.exact + 0.25) == pytest.approx(0.25)
    assert made.solved(made.exact + 1e-3) and not made.solved(made.exact + 2e-3)


@pytest.mark.parametrize(
    "source",
    [
        {},
        [],
        "XX",
        None,
        3,
        {0: 1.0},
        {"XX": "a"},
        {"XX": None},
        {"XX": 1j},
        {"XX": math.nan},
        {"XQ": 1.0},
        {"X": 1, "XX": 1},
    ]
    + [np.eye(3), np.array([[0, 1], [0, 0]]), np.array([["a", "b"], ["c", "d"]]), [("XX",)], {"XX": 10**400}],
    ids=str,
)
def test_bad_operators(source: object) -> None:
    with pytest.raises(QasError) as caught:
        problem(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"name": ""}, {"name": "../up"}, {"name": "a/b"}, {"name": 3}, {"name": ".hidden"}, {"name": "x" * 101}]
    + [{"threshold": 0.0}, {"threshold": -1}, {"threshold": math.nan}, {"threshold": "1"}, {"threshold": True}]
    + [{"exact": math.nan}, {"exact": "low"}, {"unit": None}, {"description": 3}],
)
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(QasError) as caught:
        problem({"ZZ": 1.0}, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_wrong_exact_energy_is_noticed() -> None:
    with pytest.raises(QasError, match="product state"):
        _ = problem({"ZZ": 1.0}, exact=-0.5).product_state


def test_large_operators_need_their_energy() -> None:
    large = problem({"Z" * 40: 1.0})
    with pytest.raises(TooLargeError):
        _ = large.exact
    given = problem({"Z" * 40: 1.0}, exact=-1.0)
    assert given.error(-0.5) == 0.5
    assert Problem.from_json(given.to_json()) == given
    assert "exact" not in large.to_json() and Problem.from_json(large.to_json()) == large


def test_problems_are_immutable_values() -> None:
    made = tfim(3)
    with pytest.raises(AttributeError):
        made.name = "other"  # type: ignore[misc]
    assert hash(made) == hash(tfim(3)) and made == tfim(3) != tfim(4)
    assert pickle.loads(pickle.dumps(made)) == made
    origin = {"list": [1]}
    kept = Problem("a", Hamiltonian({"Z": 1.0}), provenance=origin)
    origin["list"].append(2)
    assert kept.provenance == {"list": [1]}


# ---------------------------------------------------------------------- files
def test_json_keeps_every_bit() -> None:
    rng = np.random.default_rng(11)
    terms = {
        "".join(p): float(c) for p, c in zip(itertools.product("IXYZ", repeat=2), rng.normal(size=16) / 3, strict=True)
    }
    made = problem(terms, name="random", unit="meV", threshold=1 / 3, description="a line")
    back = Problem.from_json(json.loads(json.dumps(made.to_json())))
    assert back.hamiltonian.terms == made.hamiltonian.terms and back == made


@pytest.mark.parametrize("change", [
    {"format": "other"}, {"version": 2}, {"version": "1"}, {"version": True}, {"version": 0}, {"name": "a/b"},
    {"name": None}, {"terms": {}}, {"terms": []}, {"terms": {"QQ": 1.0}}, {"terms": {"ZZ": "1"}},
    {"terms": {"ZZ": math.nan}}, {"terms": {"ZZ": None}}, {"n_qubits": 3}, {"n_qubits": None}, {"exact": "x"},
    {"exact": None}, {"exact": math.inf}, {"exact": 5.0}, {"threshold": None}, {"threshold": -1.0}, {"unit": 3},
    {"provenance": []}, {"description": []},
], ids=str)  # fmt: skip
def test_malformed_files(change: dict[str, object]) -> None:
    data = load_problem("h2-2").to_json() | change
    with pytest.raises(QasError) as caught:
        Problem.from_json(data)
    assert "\n" not in str(caught.value)


def as_qpy(path: Path, operator: object, wires: list[int], n: int) -> Path:
    """QPY holds circuits only, so that an operator travels in the gate of its evolution."""
    from qiskit import QuantumCircuit, qpy
    from qiskit.circuit.library import PauliEvolutionGate

    circuit = QuantumCircuit(n)
    circuit.append(PauliEvolutionGate(operator), wires)
    with path.open("wb") as stream:
        qpy.dump(circuit, stream)
    return path


def test_problems_are_read_from_files(tmp_path: Path) -> None:
    from qiskit.quantum_info import SparsePauliOp

    terms = {"XX": 1.0, "IZ": 0.5}
    (tmp_path / "terms.json").write_text(json.dumps(terms))
    np.save(tmp_path / "My matrix.npy", Hamiltonian(terms).to_matrix())
    operator = SparsePauliOp(list(terms), list(terms.values()))
    as_qpy(tmp_path / "h2-2.qpy", operator, [0, 1], 2)
    tfim(3).save(tmp_path / "saved.JSON")
    for name, expected in (("terms.json", "terms"), ("My matrix.npy", "My-matrix"), ("h2-2.qpy", "file-h2-2")):
        for path in (tmp_path / name, f" {tmp_path / name} "):
            made = load_problem(path)
            assert isinstance(made, Problem) and made.name == expected, "never that of a shipped problem"
            assert made.hamiltonian.terms == pytest.approx(terms)
    assert load_problem(tmp_path / "saved.JSON") == tfim(3) == load_problem(tfim(3))
    placed = load_problem(as_qpy(tmp_path / "placed.qpy", [operator, operator], [2, 0], 3))
    assert isinstance(placed, Problem)
    np.testing.assert_allclose(
        placed.hamiltonian.to_matrix(), Hamiltonian({"XIX": 2.0, "IIZ": 0.0, "ZII": 1.0}).to_matrix(), atol=1e-12
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", "[]"), ("a.json", "{"), ("a.json", "{}"), ("a.json", '{"XX": "1"}'), ("a.json", '{"XX": NaN}')]
    + [("a.json", '{"QQ": 1}'), ("a.json", '{"format": "other"}'), ("a.qpy", "QISKIT"), ("a.npy", "x"), ("a.npy", "")],
)
def test_damaged_files(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(RunError, match="the problem file is missing"):
        load_problem(str(path))
    path.write_text(content)
    with pytest.raises(QasError, match=r"a\.(json|qpy|npy)") as caught:
        load_problem(str(path))
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- names
# What is one thing under one name is read from a file of the same kind, whatever the name.
WORDS = [word for word in PROBLEMS if type(PROBLEMS[word]).__name__ != "Single"]
WORDS += ["h2-2", "lih-4", "lih-12-tapered", "h4-8-tapered-jw", "beh2-6-bohr", "maxcut-4-url"]


@functools.cache
def example(word: str, folder: Path) -> BaseProblem:
    return load_problem(family(word).examples(folder)[0])


class TestRegistered(ProblemContract):
    """Every registered family; of those that are single problems, a few."""

    @pytest.fixture(params=WORDS)
    def problem(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BaseProblem:
        return example(request.param, tmp_path_factory.getbasetemp())

    @pytest.fixture
    def circuits(self, problem: BaseProblem) -> list[Circuit]:
        if problem.listed:
            return [problem.circuit(index) for index in range(4)]  # type: ignore[attr-defined]
        return super().circuits.__wrapped__(self, problem)  # type: ignore[attr-defined]


def test_families_say_what_they_are(tmp_path: Path) -> None:
    listed = list_problems()
    assert set(MOLECULES) < set(listed) and len(listed) == len(PROBLEMS)
    for word in PROBLEMS:
        its = family(word)
        assert its.word == word and listed[its.pattern] and "\n" not in listed[its.pattern]
        assert needs_file(f" {word.upper()}") == bool(its.takes)
        for name in {*its.small, *its.near([0]), *its.near([4, 1]), *its.near([10**6])}:
            assert name == its.pattern or load_problem(name).name == name, "only what exists is suggested"


def test_others_register_families() -> None:
    code = (
        "import qas\nfrom qas.problems import PROBLEMS, Family\n"
        "class Pair(Family):\n"
        "    pattern, about, small = 'pair-N', 'two of N', ('pair-2',)\n"
        "    def load(self, member): return qas.problem({'Z' * int(member): 1.0}, name=f'pair-{member}')\n"
        "PROBLEMS.register('pair', Pair())\n"
        "assert qas.load_problem('pair-3').n_qubits == 3 and qas.list_problems()['pair-N'] == 'two of N'\n"
        "PROBLEMS.register('bad', 3)\n"
        "try: qas.load_problem('bad-1')\n"
        "except qas.QasError as error: assert 'subclass of qas.problems.Family' in str(error)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("tfim0", "tfim-3"),
        ("stat-9-1", "state-3-1"),
        ("lih4", "lih-4"),
        ("LiH_6", "lih-6"),
        ("h2o8", "h2o-8"),
        ("tfim6", "tfim-6"),
        ("heisenburg-4", "heisenberg-4"),
    ],
)
def test_unknown_names_get_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{nearest}'"):
        load_problem(name)


@pytest.mark.parametrize("name", ["", "nothing-like-it", "../h2-2", "h2-2-open", "/etc/passwd", "*"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_problem(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "tfim-0",
        "tfim-1",
        "tfim",
        "tfim-",
        "tfim-6-closed",
        "tfim--6",
        "tfim-6.5",
        "tfim-²",
        "heisenberg-99",
        "cluster-x",
    ]
    + [
        "maxcut-4",
        "maxcut",
        "maxcut-1-0",
        "maxcut-99-0",
        "maxcut-4-x",
        "maxcut-4--1",
        "maxcut-4-1-1",
        "tfim-" + "9" * 5000,
    ],
)
def test_malformed_members_get_the_rule(name: str) -> None:
    with pytest.raises(QasError, match="are named .* with N from 2 to 20") as caught:
        load_problem(name)
    assert not isinstance(caught.value, UnknownNameError) and "\n" not in str(caught.value)
