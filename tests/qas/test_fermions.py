"""Electrons on qubits: against dense ladder operators, Qiskit Nature's encodings, and determinants one by one."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest

from qas.errors import QasError, UnknownNameError
from qas.fermions import MAPPINGS, Molecule, encoded, jordan_wigner
from qas.hamiltonians import Hamiltonian
from qas.problems import load_problem
from qas.tapering import Tapering

RNG = np.random.default_rng(5020)


def ladder(n: int, orbital: int) -> np.ndarray:
    """Annihilation operator of one of n spin orbitals; qubit 0 is the last factor."""
    factors = [np.eye(2)] * (n - 1 - orbital) + [np.array([[0, 1], [0, 0]])] + [np.diag([1, -1])] * orbital
    return functools.reduce(np.kron, factors)


def integrals(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Random real integrals of n spin orbitals with the symmetries that make a Hermitian operator."""
    one, two = RNG.normal(size=(n, n)), RNG.normal(size=(n,) * 4)
    return one + one.T, two + two.transpose(1, 0, 3, 2)


def molecular(n: int) -> Hamiltonian:
    """A random operator that conserves the electrons of each spin, as molecules do; n spatial orbitals."""
    one, two = np.zeros((2 * n,) * 2), np.zeros((2 * n,) * 4)
    spins = (slice(0, n), slice(n, None))
    for here in spins:
        one[here, here] = integrals(n)[0]
        for there in spins:
            two[here, here, there, there] = integrals(n)[1]
    return jordan_wigner(one, two)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_jordan_wigner_against_dense_ladder_operators(n: int) -> None:
    one, two = integrals(n)
    a = [ladder(n, orbital) for orbital in range(n)]
    expected = np.zeros((2**n, 2**n))
    for p, q in itertools.product(range(n), repeat=2):
        expected += one[p, q] * a[p].T @ a[q]
        for r, s in itertools.product(range(n), repeat=2):
            expected += 0.5 * two[p, q, r, s] * a[p].T @ a[r].T @ a[s] @ a[q]
    np.testing.assert_allclose(jordan_wigner(one, two).to_matrix(), expected, atol=1e-12)


def test_nothing_is_the_zero_operator() -> None:
    assert jordan_wigner(np.zeros((2, 2)), np.zeros((2,) * 4)).terms == {"II": 0.0}


@pytest.mark.chem
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_encodings_against_qiskit_nature(n: int) -> None:
    pytest.importorskip("qiskit_nature")
    from qiskit_nature.second_q.mappers import (
        BravyiKitaevMapper,
        InterleavedQubitMapper,
        JordanWignerMapper,
        ParityMapper,
    )
    from qiskit_nature.second_q.operators import FermionicOp

    moves = {}
    for _ in range(8):
        p, q, r, s = RNG.integers(0, 2 * n, size=4).tolist()
        for label in (f"+_{p} -_{q}", f"+_{p} +_{r} -_{s} -_{q}"):
            moves[label] = moves.get(label, 0.0) + float(RNG.normal())
    operator = FermionicOp(moves, num_spin_orbitals=2 * n)
    operator = (operator + operator.adjoint()).simplify()
    plain = Hamiltonian.from_qiskit(JordanWignerMapper().map(operator))
    for mapping, mapper in (
        ("jordan-wigner-interleaved", InterleavedQubitMapper(JordanWignerMapper())),
        ("parity-full", ParityMapper()),
        ("bravyi-kitaev", BravyiKitaevMapper()),
    ):
        expected = Hamiltonian.from_qiskit(mapper.map(operator)).terms
        found = encoded(plain, mapping).terms
        for string in set(expected) | set(found):
            assert found.get(string, 0.0) == pytest.approx(expected.get(string, 0.0), abs=1e-12), mapping


@pytest.mark.parametrize("taper", [False, True])
@pytest.mark.parametrize("mapping", MAPPINGS)
def test_determinants_and_operators_are_encoded_alike(mapping: str, taper: bool) -> None:
    """Matrix elements between determinants do not depend on how qubits hold them."""
    n, electrons = 3, (2, 1)
    operator = molecular(n)
    tapering = None
    if taper:
        whole = Molecule(n, *electrons, "parity-full" if mapping.startswith("parity") else mapping)
        tapering = Tapering.of(whole.encode(operator), determinant=whole.encode_determinant())
    molecule = Molecule(n, *electrons, mapping, tapering)
    fewer = len(tapering.strings) if tapering else {"parity": 2, "parity-single": 1}.get(mapping, 0)
    assert molecule.n_qubits == 2 * n - fewer and molecule.conserved_by(operator)
    inside = [
        beta + alpha
        for alpha, beta in itertools.product(map("".join, itertools.product("01", repeat=n)), repeat=2)
        if (alpha.count("1"), beta.count("1")) == electrons
    ]
    rows = [int(bits, 2) for bits in inside]
    columns = [int(molecule.encode_determinant(bits), 2) for bits in inside]
    assert len(set(columns)) == len(rows) == 9
    before = operator.to_matrix()[np.ix_(rows, rows)]
    after = molecule.encode(operator).to_matrix()[np.ix_(columns, columns)]
    if mapping == "jordan-wigner-interleaved":
        # Another order of the spin orbitals gives determinants other signs.
        assert np.allclose(np.diag(before), np.diag(after)) and np.allclose(abs(before), abs(after))
        np.testing.assert_allclose(np.linalg.eigvalsh(after), np.linalg.eigvalsh(before), atol=1e-10)
    else:
        np.testing.assert_allclose(after, before, atol=1e-12)


def test_reference_determinant() -> None:
    assert Molecule(4, 3, 1).occupations == "00010111" == Molecule(4, 3, 1).encode_determinant()
    assert Molecule(2, 1, 1, "parity").encode_determinant() == "01"
    assert Molecule(3, 0, 0).occupations == "000000" and Molecule(2, 2, 2).occupations == "1111"


@pytest.mark.parametrize("name", ["lih-12-tapered", "beh2-14-3.0-tapered", "h6-12-1.5", "h2-3", "h2o-8-bohr"])
def test_problems_know_their_electrons(name: str) -> None:
    made = load_problem(name)
    assert made.molecule.n_qubits == made.n_qubits and made.molecule.n_alpha == made.molecule.n_beta
    assert made.energy(made.reference_circuit) == pytest.approx(made.provenance["hartree_fock"], abs=1e-8)
    # Moving an electron across irreps leaves the sector, moving a pair does not.
    n = made.molecule.n_orbitals
    pair = number_conserving_pair(2 * n, (0, n), (made.molecule.n_alpha, n + made.molecule.n_beta))
    assert made.molecule.conserved_by(pair)
    assert made.molecule.encode(pair).n_qubits == made.n_qubits


def number_conserving_pair(n: int, holes: tuple[int, int], particles: tuple[int, int]) -> Hamiltonian:
    """i (T - T†) of the double excitation from two spin orbitals to two others."""
    a = {orbital: _annihilate(n, orbital) for orbital in (*holes, *particles)}
    move = _times(_times(_adjoint(a[particles[0]]), _adjoint(a[particles[1]])), _times(a[holes[1]], a[holes[0]]))
    total: dict[str, complex] = {}
    for string, weight in move.items():
        total[string] = total.get(string, 0) + 1j * weight
    for string, weight in _adjoint(move).items():
        total[string] = total.get(string, 0) - 1j * weight
    return Hamiltonian({string: weight for string, weight in total.items() if abs(weight) > 1e-12})


def _annihilate(n: int, orbital: int) -> dict[str, complex]:
    head, tail = "I" * (n - 1 - orbital), "Z" * orbital
    return {f"{head}X{tail}": 0.5, f"{head}Y{tail}": 0.5j}


def _adjoint(sum_: dict[str, complex]) -> dict[str, complex]:
    return {string: complex(weight).conjugate() for string, weight in sum_.items()}


def _times(left: dict[str, complex], right: dict[str, complex]) -> dict[str, complex]:
    product: dict[str, complex] = {}
    table = {"XY": ("Z", 1j), "YZ": ("X", 1j), "ZX": ("Y", 1j), "YX": ("Z", -1j), "ZY": ("X", -1j), "XZ": ("Y", -1j)}
    for (a, u), (b, v) in itertools.product(left.items(), right.items()):
        letters, weight = "", u * v
        for pair in map("".join, zip(a, b, strict=True)):
            letter, phase = ("I", 1) if pair[0] == pair[1] else table.get(pair, (pair.replace("I", ""), 1))
            letters, weight = letters + letter, weight * phase
        product[letters] = product.get(letters, 0) + weight
    return product


def test_bad_input() -> None:
    molecule, tapered = Molecule(4, 2, 2), load_problem("h4-8-tapered").molecule
    assert tapered is not None
    single = Hamiltonian({"XIIIIIII": 1.0})
    cases: list[tuple[Any, str]] = [
        (lambda: Molecule(2, 3, 0), "2 orbitals hold up to 2 electrons of each spin, got 3 alpha"),
        (lambda: Molecule(2, 1, -1), "got 1 alpha and -1 beta"),
        (lambda: Molecule(2, 1, 1, tapering=Tapering(("ZZ",), (1,))), "4 spin orbitals take a tapering of 4 qubits"),
        (lambda: molecule.encode_determinant("00110111"), "2 alpha and 2 beta electrons, got 3 and 2"),
        (lambda: molecule.encode_determinant("0011"), "a determinant is 8 bits"),
        (lambda: molecule.encode_determinant("0011001x"), "a determinant is 8 bits"),
        (lambda: tapered.encode_determinant("00110101"), "lies in the sector"),
        (lambda: tapered.encode(single), "commute with its symmetries, got the term"),
        (lambda: molecule.encode(Hamiltonian({"XX": 1.0})), "8 spin orbitals acts on 8 qubits, got 2"),
        (lambda: Molecule.from_provenance({"family": "molecule"}), "the provenance of a molecule has"),
        (lambda: Molecule.from_provenance({"family": "molecule", "active_electrons": 2, "spin": 0} | {
            "active_orbitals": [0, 1], "mapping": "parity", "tapering": 3}), "the provenance of a molecule has"),
    ]  # fmt: skip
    for action, words in cases:
        with pytest.raises(QasError, match=words) as caught:
            action()
        assert "\n" not in str(caught.value)
    with pytest.raises(UnknownNameError, match="jordan-wigner"):
        Molecule(2, 1, 1, "jordan-wigne")
    assert not tapered.conserved_by(single) and Molecule.from_provenance({}) is None
