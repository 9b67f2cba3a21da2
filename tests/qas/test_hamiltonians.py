"""Hamiltonians: arrays, spectra and conversions against Qiskit, numpy and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from qas.errors import QasError, TooLargeError
from qas.hamiltonians import Hamiltonian
from qas.testing import random_hamiltonian

SEEDS = st.integers(0, 2**32 - 1)
PAULIS = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.array([[1, 0], [0, -1]]),
}


def kron_matrix(hamiltonian: Hamiltonian) -> np.ndarray:
    """Sum of Kronecker products, letter by letter."""
    total = np.zeros((2**hamiltonian.n_qubits,) * 2, dtype=complex)
    for string, coefficient in hamiltonian.terms.items():
        product = np.eye(1)
        for letter in string:
            product = np.kron(product, PAULIS[letter])
        total += coefficient * product
    return total


def draw(seed: int, most: int = 5) -> tuple[Hamiltonian, np.random.Generator]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, most + 1))
    return random_hamiltonian(n, int(rng.integers(1, min(4**n, 25) + 1)), rng), rng


# ---------------------------------------------------------------------- arrays
@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_matrix_is_the_sum_of_kronecker_products(seed):
    h, _ = draw(seed)
    np.testing.assert_allclose(h.to_matrix(), kron_matrix(h), atol=1e-13)


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_qiskit_round_trip_and_matrix(seed):
    pytest.importorskip("qiskit")
    h, _ = draw(seed)
    theirs = h.to_qiskit()
    np.testing.assert_allclose(theirs.to_matrix(), h.to_matrix(), atol=1e-13)
    assert Hamiltonian.from_qiskit(theirs) == h
    assert Hamiltonian.read(theirs) == h


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_xor_diagonals_act_as_the_matrix(seed):
    h, rng = draw(seed)
    psi = rng.normal(size=2**h.n_qubits) + 1j * rng.normal(size=2**h.n_qubits)
    xs, diagonals = h.xor_diagonals
    assert len(set(xs.tolist())) == len(xs) and diagonals.shape == (len(xs), len(psi))
    index = np.arange(len(psi))
    acted = sum(d * psi[index ^ x] for x, d in zip(xs, diagonals, strict=True))
    np.testing.assert_allclose(acted, kron_matrix(h) @ psi, atol=1e-12)


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_pauli_vector_places_every_coefficient(seed):
    h, _ = draw(seed)
    vector = h.pauli_vector
    assert vector.shape == (4**h.n_qubits,) and np.count_nonzero(vector) == len(h)
    for i in np.flatnonzero(vector):
        digits = [int(i) // 4**q % 4 for q in range(h.n_qubits)]
        string = "".join("IXYZ"[d] for d in reversed(digits))
        assert vector[i] == h.terms[string]
    too_large = Hamiltonian({"Z" * 14: 1.0})
    with pytest.raises(TooLargeError, match="13"):
        _ = too_large.pauli_vector


def slow_xor_diagonals(h: Hamiltonian) -> dict[int, np.ndarray]:
    """Entry by entry, from the matrix of Kronecker products."""
    matrix, index = kron_matrix(h), np.arange(2**h.n_qubits)
    return {int(x): matrix[index, index ^ x] for x in set(h.masks[0].tolist())}


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_xor_diagonals_entry_by_entry(seed):
    h, _ = draw(seed)
    masks, diagonals = h.xor_diagonals
    expected = slow_xor_diagonals(h)
    assert masks.tolist() == sorted(expected) and diagonals.dtype == np.complex128
    for x, diagonal in zip(masks.tolist(), diagonals, strict=True):
        np.testing.assert_allclose(diagonal, expected[x], atol=1e-13)


def test_strings_with_an_even_number_of_y_are_exactly_real():
    """A rounding error in i² would send every such operator down the slower complex path."""
    rng = np.random.default_rng(3)
    strings = ["YYII", "XYYZ", "YYYY", "ZIXX", "IIII", "YIIY"]
    _, diagonals = Hamiltonian(dict(zip(strings, rng.normal(size=6), strict=True))).xor_diagonals
    assert not diagonals.imag.any() and diagonals.real.any()
    _, odd = Hamiltonian({"YIII": 0.3, "XYYY": 0.7}).xor_diagonals
    assert not odd.real.any() and odd.imag.any()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_single_string_there_and_back(n):
    for letters in itertools.product("IXYZ", repeat=n):
        h = Hamiltonian({"".join(letters): -0.75})
        np.testing.assert_array_equal(h.to_matrix(), kron_matrix(h))
        again = Hamiltonian.from_matrix(h.to_matrix()).terms
        assert {s: c for s, c in again.items() if c} == {"".join(letters): -0.75}


def test_from_matrix_drops_only_what_rounding_left():
    rng = np.random.default_rng(4)
    psi = rng.normal(size=16) + 1j * rng.normal(size=16)
    psi /= np.linalg.norm(psi)
    h = Hamiltonian.from_matrix(np.outer(psi, psi.conj()), tolerance=1e-14)
    assert len(h) == 256
    np.testing.assert_allclose(kron_matrix(h), np.outer(psi, psi.conj()), atol=1e-14)
    small = Hamiltonian({"XX": 1.0, "ZZ": 1e-9, "YI": 1e-15})
    assert set(Hamiltonian.from_matrix(small.to_matrix()).terms) - {"II"} == {"XX", "ZZ"}
    given_matrix = small.to_matrix()
    kept = given_matrix.copy()
    Hamiltonian.from_matrix(given_matrix)
    np.testing.assert_array_equal(given_matrix, kept)


def test_masks_and_order_of_qubits():
    h = Hamiltonian({"XYZ": 1.0})
    assert [m.tolist() for m in h.masks] == [[0b110], [0b011]]
    zero = Hamiltonian({"IZ": 1.0}).to_matrix()
    np.testing.assert_array_equal(np.diag(zero).real, [1, -1, 1, -1])


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_from_matrix_inverts_to_matrix(seed):
    h, rng = draw(seed, most=4)
    again = Hamiltonian.from_matrix(h.to_matrix())
    assert set(again.terms) <= set(h.terms)
    for string, coefficient in h.terms.items():
        assert again.terms.get(string, 0.0) == pytest.approx(coefficient, abs=1e-11)
    dim = 2**h.n_qubits
    a = rng.normal(size=(dim, dim)) + 1j * rng.normal(size=(dim, dim))
    np.testing.assert_allclose(Hamiltonian.from_matrix(a + a.conj().T).to_matrix(), a + a.conj().T, atol=1e-11)


def test_equal_strings_are_added_and_zeros_dropped():
    h = Hamiltonian([("XX", 0.5), ("XX", 0.25), ("ZZ", 1.0), ("ZZ", -1.0), ("II", 0.0)])
    assert h.terms == {"II": 0.0, "XX": 0.75} and h.identity == 0.0
    assert Hamiltonian([("ZZ", 1.0), ("ZZ", -1.0)]).terms == {"II": 0.0}
    assert h == Hamiltonian({"XX": 0.75, "II": 0}) and hash(h) == hash(Hamiltonian({"XX": 0.75, "II": 0}))
    h.terms["XX"] = 9.0
    assert h.terms["XX"] == 0.75


# ---------------------------------------------------------------------- spectra
@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_ground_energy_of_small_operators(seed):
    h, _ = draw(seed)
    assert h.ground_energy == pytest.approx(np.linalg.eigvalsh(kron_matrix(h))[0], abs=1e-11)
    assert h.ground_energy <= h.product_state_energy + 1e-10 <= h.basis_state_energy + 2e-10
    assert h.basis_state_energy == pytest.approx(np.diag(kron_matrix(h)).real.min(), abs=1e-12)


@pytest.mark.parametrize(("n", "terms"), [(9, 25), (10, 12)])
def test_ground_energy_by_lanczos(n, terms):
    h = random_hamiltonian(n, terms, np.random.default_rng(n))
    assert h.ground_energy == pytest.approx(np.linalg.eigvalsh(h.to_matrix())[0], abs=1e-10)


@pytest.mark.parametrize(
    ("terms", "energy"),
    [
        ({"I" * 9: 0.0}, 0.0),
        ({"I" * 9: -1.5}, -1.5),
        ({"Z" * 9: 1.0}, -1.0),
        ({"I" * 9: 1e-9, "X" * 9: 1e-9}, 0.0),
        ({"I" * 8 + "Z": 1.0, "Z" + "I" * 8: -0.5}, -1.5),
        ({"I" * 9: 1e6, "Z" + "I" * 8: 1e-3}, 1e6 - 1e-3),
    ],
)
def test_lanczos_survives_degenerate_and_scaled_operators(terms, energy):
    assert Hamiltonian(terms).ground_energy == pytest.approx(energy, abs=1e-12 * max(1.0, abs(energy)))


@pytest.mark.parametrize("seed", range(2))
def test_product_state_energy_against_independent_minimisation(seed):
    h = random_hamiltonian(3, 12, np.random.default_rng(seed))
    matrix = kron_matrix(h)

    def energy(angles: np.ndarray) -> float:
        psi = np.ones(1, dtype=complex)
        for theta, phi in angles.reshape(-1, 2):
            psi = np.kron(psi, [math.cos(theta / 2), np.exp(1j * phi) * math.sin(theta / 2)])
        return float((psi.conj() @ matrix @ psi).real)

    rng = np.random.default_rng(99)
    best = min(minimize(energy, rng.uniform(0, 2 * math.pi, 6)).fun for _ in range(15))
    assert h.product_state_energy == pytest.approx(best, abs=1e-6)


def test_known_product_state_energies():
    bell = Hamiltonian({"XX": 1.0, "YY": 1.0, "ZZ": 1.0})
    assert bell.ground_energy == pytest.approx(-3.0) and bell.product_state_energy == pytest.approx(-1.0)
    field = Hamiltonian({"IX": 3.0, "ZI": 4.0, "IZ": 4.0})
    assert field.product_state_energy == pytest.approx(-9.0)
    assert field.basis_state_energy == pytest.approx(-8.0)
    assert Hamiltonian({"X": 1.0}).basis_state_energy == 0.0


# ---------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "at least one"),
        ({"": 1.0}, "same length"),
        ({"XX": 1.0, "X": 1.0}, "same length"),
        ({"XA": 1.0}, "letters I, X, Y, Z"),
        ({"xx": 1.0}, "letters I, X, Y, Z"),
        ({"X": 1j}, "real coefficients"),
        ({"X": math.nan}, "finite"),
        ({"X": math.inf}, "finite"),
        ({"X": complex(1, math.nan)}, "finite"),
        ({"X": complex(1, math.inf)}, "finite"),
        ({"X": "big"}, "finite"),
        ({"X": None}, "numbers"),
        ({0: 1.0}, "letters"),
    ],
)
def test_bad_terms_are_refused_in_one_line(terms, message):
    with pytest.raises(QasError, match=message) as error:
        Hamiltonian(terms)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 3)), "square"),
        (np.ones(4), "square"),
        (np.eye(3), "2\\^n rows"),
        (np.eye(1), "2\\^n rows"),
        (np.array([[0, 1], [0, 0]]), "Hermitian"),
        (np.array([[1j, 0], [0, 0]]), "Hermitian"),
        (np.array([[math.nan, 0], [0, 1]]), "finite"),
        ([["a", "b"], ["c", "d"]], "numbers"),
        ([[1, 2], [3]], "numbers"),
    ],
)
def test_bad_matrices_are_refused_in_one_line(matrix, message):
    with pytest.raises(QasError, match=message) as error:
        Hamiltonian.from_matrix(matrix)
    assert "\n" not in str(error.value)


def test_size_limits_and_foreign_objects():
    with pytest.raises(TooLargeError, match="12"):
        Hamiltonian({"Z" * 13: 1.0}).to_matrix()
    with pytest.raises(TooLargeError, match="12"):
        Hamiltonian.from_matrix(np.broadcast_to(np.complex128(0), (2**13, 2**13)))
    for thing in ("XX", 3, None):
        with pytest.raises(QasError, match="SparsePauliOp"):
            Hamiltonian.read(thing)
    h = Hamiltonian({"X": 1.0})
    assert Hamiltonian.read(h) is h and Hamiltonian.read([("X", 1.0)]) == h
    assert Hamiltonian.read({"X": 1.0}) == h and Hamiltonian.read(PAULIS["X"]) == h
    assert Hamiltonian.read([[0, 1], [1, 0]]) == h


def test_random_hamiltonian_obeys_its_arguments():
    h = random_hamiltonian(2, 16, np.random.default_rng(0))
    assert h.n_qubits == 2 and len(h) == 16
    assert h == random_hamiltonian(2, 16, np.random.default_rng(0))
    for n, terms in [(0, 1), (2, 0), (2, 17)]:
        with pytest.raises(QasError):
            random_hamiltonian(n, terms, np.random.default_rng(0))
