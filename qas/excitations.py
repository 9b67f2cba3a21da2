"""Pools of operators that ADAPT methods grow circuits from: excitations of a molecule, or Pauli strings.

Each operator is exp(-i Σ θ_k G_k / 2) as gates, with its generators G_k as sums of Pauli strings, so that engines can
tell its slope at any place of a circuit (`Simulator.insertion_gradients`). For excitations -iG/2 is T - T†, and θ the
amplitude of a unitary coupled cluster.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qas.circuits import Gate
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.fermions import Molecule
from qas.gates import gate_spec
from qas.hamiltonians import Hamiltonian
from qas.simulators.insertions import pauli_generators

POOLS = {
    "fermionic": "single and double excitations of electrons",
    "qeb": "single and double excitations of qubits, without the signs of electrons",
    "ceo": "coupled exchange of two double excitations of the same four qubits by one angle, and single ones",
    "ceo-mvp": "coupled exchange of two double excitations of the same four qubits by two angles, and single ones",
    "qubit": "the Pauli strings of the excitations of qubits, each by itself",
    "pauli": "all Pauli strings on one and two qubits",
}
"""Kinds of pools; all but the last one need a molecule."""

Excitation = tuple[tuple[int, ...], tuple[int, ...]]
"""Spin orbitals that electrons are taken from, and as many that they are given to."""


@dataclass(frozen=True)
class Operator:
    """One element of a pool: exp(-i Σ θ_k G_k / 2)."""

    name: str
    gates: tuple[Gate, ...]
    """what it is made of, at angles 0"""
    generators: tuple[Hamiltonian, ...]
    """G_k, one for each angle of the gates, in their order"""

    @property
    def qubits(self) -> tuple[int, ...]:
        """Qubits that the gates act on, sorted."""
        return tuple(sorted({q for gate in self.gates for q in gate.qubits}))

    def at(self, *angles: float) -> tuple[Gate, ...]:
        """The gates at these angles, radians.

        Raises:
            CircuitError: another number of angles than of generators.
        """
        if len(angles) != len(self.generators):
            raise CircuitError(f"{self.name} takes {len(self.generators)} angle(s), got {len(angles)}")
        rest = list(angles)
        made = []
        for gate in self.gates:
            own, rest = rest[: len(gate.angles)], rest[len(gate.angles) :]
            made.append(Gate(gate.name, gate.qubits, tuple(own)) if own else gate)
        return tuple(made)


def operator_pool(problem: Any, kind: str = "qeb", *, generalized: bool = False) -> list[Operator]:
    """The pool of a kind for a problem.

    Excitations conserve the numbers of electrons of both spins. Where a mapping or tapering leaves no qubit for each
    spin orbital, all pools of excitations are the Pauli strings that these consist of there, each by itself, without
    those that leave the tapered sector.

    Args:
        problem: with `n_qubits`; for excitations with `molecule`, as of `qas.molecule` and the shipped molecules.
        kind: a key of `POOLS`.
        generalized: excitations from any orbitals to any others, not from occupied ones of the reference determinant to
            empty ones alone.

    Raises:
        UnknownNameError: no such kind.
        QasError: excitations for a problem that is no molecule, or a molecule without any.

    References:
        Grimsley et al., Nat. Commun. 10, 3007 (2019), https://arxiv.org/abs/1812.11173 (fermionic); Yordanov et al.,
        Commun. Phys. 4, 228 (2021), https://arxiv.org/abs/2011.10540 (QEB); Tang et al., PRX Quantum 2, 020310 (2021),
        https://arxiv.org/abs/1911.10205 (strings); Ramôa et al., https://arxiv.org/abs/2407.08696 (CEO).
    """
    if kind not in POOLS:
        raise UnknownNameError("operator pool", kind, POOLS)
    if kind == "pauli":
        return [_string_operator(string) for string in pauli_generators(problem.n_qubits)]
    molecule: Molecule | None = getattr(problem, "molecule", None)
    if molecule is None:
        name = getattr(problem, "name", type(problem).__name__)
        raise QasError(f"the {kind} pool excites electrons of a molecule, got {name}; 'pauli' is for any problem")
    chosen = list(excitations(molecule, generalized=generalized))
    if not chosen:
        raise QasError(f"{molecule.n_electrons} electrons in {molecule.n_orbitals} orbitals have no excitations")
    places = _places(molecule)
    if places is None:
        return _strings_of(_mapped(molecule, chosen, signed=kind == "fermionic"))
    if kind == "fermionic":
        return [_fermionic(excitation, places) for excitation in chosen]
    if kind == "qubit":
        return _strings_of(g for e in chosen for g in _qubit_excitation(e, places).generators)
    if kind == "qeb":
        return [_qubit_excitation(excitation, places) for excitation in chosen]
    return [*_singles(chosen, places), *_coupled(chosen, molecule, places, several=kind == "ceo-mvp")]


def excitations(molecule: Molecule, *, generalized: bool = False) -> Iterator[Excitation]:
    """Single, then double excitations that conserve the number of electrons of each spin; each pair T, T† once.

    Spin orbitals are those of `Molecule`: alpha first. All four of a double excitation are different.
    """
    n = molecule.n_spin_orbitals
    filled = {p for p in range(n) if molecule.occupations[n - 1 - p] == "1"}
    for size in (1, 2):
        groups = list(itertools.combinations(range(n), size))
        for taken, given in itertools.product(groups, repeat=2):
            one_way = taken < given if generalized else filled.issuperset(taken) and filled.isdisjoint(given)
            if one_way and not set(taken) & set(given) and _spin(taken, molecule) == _spin(given, molecule):
                yield taken, given


def _spin(orbitals: Iterable[int], molecule: Molecule) -> int:
    """Number of beta orbitals."""
    return sum(p >= molecule.n_orbitals for p in orbitals)


def _places(molecule: Molecule) -> list[int] | None:
    """Spin orbital -> its qubit; None where qubits stand for other things."""
    n = molecule.n_orbitals
    if molecule.tapering is not None:
        return None
    if molecule.mapping == "jordan-wigner":
        return list(range(2 * n))
    if molecule.mapping == "jordan-wigner-interleaved":
        return [2 * (p % n) + p // n for p in range(2 * n)]
    return None


# ---------------------------------------------------------------------- generators
def generators_of(gate: Gate, n_qubits: int) -> tuple[Hamiltonian, ...]:
    """G_k with gate = exp(-i Σ θ_k G_k / 2) for an excitation, one for each of its angles.

    Raises:
        CircuitError: a gate that is no excitation.
    """
    spec = gate_spec(gate.name)
    if spec.primitive:
        raise CircuitError(f"generators are those of an excitation, got {gate.name}")
    sums: list[dict[str, float]] = [{} for _ in gate.angles]
    for letters in itertools.product("XY", repeat=spec.n_qubits):
        if letters.count("Y") % 2 == 0:
            continue
        string = ["I"] * n_qubits
        for qubit, letter in zip(gate.qubits, letters, strict=True):
            string[n_qubits - 1 - qubit] = letter
        for state, weights in spec.exchanges:
            # |1⟩⟨0| is (X - iY) / 2 and |0⟩⟨1| is (X + iY) / 2; 2i (T - T†) takes -4 times the imaginary part.
            ys = [k for k, letter in enumerate(letters) if letter == "Y"]
            phase = (-1) ** sum(1 - (state >> k & 1) for k in ys) * (-1) ** (len(ys) // 2)
            for terms, weight in zip(sums, weights, strict=True):
                terms["".join(string)] = terms.get("".join(string), 0.0) - 4.0 * phase * weight / 2**spec.n_qubits
    return tuple(Hamiltonian(terms) for terms in sums)


def _signs(excitation: Excitation, places: Sequence[int]) -> tuple[int, list[int]]:
    """Of a product of ladder operators in the Jordan-Wigner encoding: its sign, and the qubits whose Z it has.

    The operators are a†_a a_i and a†_a a†_b a_j a_i.
    """
    taken, given = ([places[p] for p in part] for part in excitation)
    own = sorted([*taken, *given])
    between = [q for q in range(own[0], own[-1]) if q not in own and sum(p > q for p in own) % 2]
    state, swaps = set(taken), 0
    for q in taken:
        state.remove(q)
        swaps += sum(p < q for p in state)
    for q in reversed(given):
        swaps += sum(p < q for p in state)
        state.add(q)
    return (-1) ** swaps, between


def _mapped(molecule: Molecule, chosen: Iterable[Excitation], *, signed: bool) -> Iterator[Hamiltonian]:
    """Generators on the qubits of the problem, without those that its tapering forbids."""
    places = list(range(molecule.n_spin_orbitals))
    for excitation in chosen:
        operator = _fermionic(excitation, places) if signed else _qubit_excitation(excitation, places)
        for generator in operator.generators:
            if molecule.conserved_by(generator):
                yield molecule.encode(generator)


# ---------------------------------------------------------------------- operators
def _name(excitation: Excitation) -> str:
    return " → ".join(",".join(map(str, part)) for part in excitation)


def _excitation_gate(taken: Sequence[int], given: Sequence[int]) -> Gate:
    return Gate("single_excitation" if len(taken) == 1 else "double_excitation", (*taken, *given), (0.0,))


def _qubit_excitation(excitation: Excitation, places: Sequence[int]) -> Operator:
    taken, given = ([places[p] for p in part] for part in excitation)
    gate = _excitation_gate(taken, given)
    return Operator(_name(excitation), (gate,), generators_of(gate, len(places)))


def _fermionic(excitation: Excitation, places: Sequence[int]) -> Operator:
    """A qubit excitation whose sign the parity of the qubits between decides: CZ before and after it."""
    taken, given = ([places[p] for p in part] for part in excitation)
    sign, between = _signs(excitation, places)
    gate = _excitation_gate(taken, given) if sign > 0 else _excitation_gate(given, taken)
    (plain,) = generators_of(gate, len(places))
    terms = {}
    for string, weight in plain.terms.items():
        letters = list(string)
        for q in between:
            letters[len(places) - 1 - q] = "Z"
        terms["".join(letters)] = weight
    ladder = [Gate("cx", pair) for pair in itertools.pairwise(between)]
    turn = [Gate("cz", (between[-1], gate.qubits[-1]))] if between else []
    gates = (*ladder, *turn, gate, *turn, *reversed(ladder))
    return Operator(_name(excitation), gates, (Hamiltonian(terms),))


def _singles(chosen: Iterable[Excitation], places: Sequence[int]) -> list[Operator]:
    return [_qubit_excitation(excitation, places) for excitation in chosen if len(excitation[0]) == 1]


def _coupled(
    chosen: Iterable[Excitation], molecule: Molecule, places: Sequence[int], *, several: bool
) -> Iterator[Operator]:
    """Pairs of double excitations on the same spin orbitals, for each set that one of the chosen acts on."""
    for orbitals in dict.fromkeys(tuple(sorted(sum(e, ()))) for e in chosen if len(e[0]) == 2):
        i, *others = orbitals
        partners = [
            j
            for j in others
            if 2 * _spin((i, j), molecule) == _spin(orbitals, molecule)  # as many beta electrons on both sides
        ]
        for j, b in itertools.combinations(partners, 2):
            (a,) = set(others) - {j, b}
            first, second = _name(((i, j), (a, b))), _name(((i, b), (a, j)))
            orders = [("mvp_ceo", "; ", (i, j, a, b))]
            if not several:
                orders = [("ovp_ceo", " + ", (i, j, a, b)), ("ovp_ceo", " - ", (j, i, b, a))]
            for gate_name, link, order in orders:
                angles = (0.0,) * gate_spec(gate_name).n_angles
                gate = Gate(gate_name, tuple(places[p] for p in order), angles)
                yield Operator(f"{first}{link}{second}", (gate,), generators_of(gate, len(places)))


# ---------------------------------------------------------------------- Pauli strings
_TO_Z = {"X": ("h",), "Y": ("sdg", "h"), "Z": ()}
_FROM_Z = {"X": ("h",), "Y": ("h", "s"), "Z": ()}


def pauli_rotation(string: str, angle: float = 0.0) -> tuple[Gate, ...]:
    """exp(-iθP/2) of a Pauli string as gates: CNOTs into one qubit, its rotation, and back.

    Raises:
        QasError: a string of other letters than I, X, Y, Z, or of I alone.
    """
    letters = {q: letter for q, letter in enumerate(reversed(string)) if letter != "I"}
    if not letters or not set(string) <= set("IXYZ"):
        raise QasError(f"a rotation is about a Pauli string that is not the identity, got {string!r}")
    root = max(letters, key=lambda q: (letters[q] in "YZ" or len(letters) == 1, q))
    turn = letters[root] == "X" and len(letters) > 1
    others = [q for q in letters if q != root]
    before = [Gate(name, (q,)) for q in others for name in _TO_Z[letters[q]]]
    after = [Gate(name, (q,)) for q in others for name in _FROM_Z[letters[q]]]
    hadamard = [Gate("h", (root,))] if turn else []
    ladder = [Gate("cx", (q, root)) for q in others]
    rotation = Gate("rz" if turn else f"r{letters[root].lower()}", (root,), (angle,))
    return (*before, *hadamard, *ladder, rotation, *reversed(ladder), *hadamard, *after)


def _string_operator(string: str) -> Operator:
    return Operator(string, pauli_rotation(string), (Hamiltonian({string: 1.0}),))


def _strings_of(generators: Iterable[Hamiltonian]) -> list[Operator]:
    """Every string of some sums once, in their order."""
    return [
        _string_operator(string)
        for string in dict.fromkeys(s for g in generators for s in g.strings)
        if set(string) != {"I"}
    ]
