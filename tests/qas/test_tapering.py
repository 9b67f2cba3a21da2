"""Symmetries of operators and tapering, against brute force over all Pauli strings and dense spectra."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qas.circuits import Circuit
from qas.errors import CircuitError, QasError, TooLargeError
from qas.gates import SEARCH_GATES
from qas.hamiltonians import Hamiltonian
from qas.problems import load_problem
from qas.tapering import Tapering, symmetries
from qas.testing import random_circuit

SEEDS = st.integers(0, 2**32 - 1)


def commute(first: str, second: str) -> bool:
    return sum("I" not in pair and pair[0] != pair[1] for pair in zip(first, second, strict=True)) % 2 == 0


def matrix(string: str) -> np.ndarray:
    return Hamiltonian({string: 1.0}).to_matrix()


def symmetric(seed: int, most: int = 4) -> Hamiltonian:
    """Random terms that commute with one or two random strings."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, most + 1))
    planted = ["".join([*rng.choice(list("IXYZ"), n - 1), rng.choice(list("XYZ"))]) for _ in range(rng.integers(1, 3))]
    drawn = ("".join(rng.choice(list("IXYZ"), n)) for _ in range(40))
    kept = [string for string in drawn if all(commute(string, each) for each in planted)]
    return Hamiltonian([(string, float(rng.normal())) for string in [*kept[:8], "I" * n]])


def largest_commuting(hamiltonian: Hamiltonian) -> int:
    """Rank of the largest group of commuting strings that commute with all terms, by exhaustive search."""
    n = hamiltonian.n_qubits
    everything = ("".join(letters) for letters in itertools.product("IXYZ", repeat=n))
    commutant = [s for s in everything if set(s) != {"I"} and all(commute(s, term) for term in hamiltonian.terms)]

    def grow(found: list[str], left: list[str]) -> int:
        best = len(found)
        for k, string in enumerate(left):
            rest = [s for s in left[k + 1 :] if commute(s, string)]
            best = max(best, grow([*found, string], rest))
        return best

    # A group of rank r has 2^r - 1 strings besides the identity.
    return (grow([], commutant) + 1).bit_length() - 1


@given(SEEDS)
@settings(deadline=None, max_examples=25)
def test_symmetries_commute_are_independent_and_as_many_as_there_are(seed: int) -> None:
    hamiltonian = symmetric(seed, most=3)
    found = symmetries(hamiltonian)
    assert all(commute(s, term) for s in found for term in hamiltonian.terms)
    assert all(commute(a, b) for a, b in itertools.combinations(found, 2))
    products = {
        tuple(sorted(pick)) for size in range(1, len(found) + 1) for pick in itertools.combinations(found, size)
    }
    for pick in products:
        product = np.linalg.multi_dot([np.eye(2**hamiltonian.n_qubits), *map(matrix, pick)])
        assert not np.allclose(abs(product), np.eye(len(product))) or abs(np.trace(product)) < 1e-9
    if len(hamiltonian) > 2:
        assert len(found) == largest_commuting(hamiltonian)


@given(SEEDS)
@settings(deadline=None, max_examples=40)
def test_sectors_together_have_the_spectrum(seed: int) -> None:
    hamiltonian = symmetric(seed)
    found = symmetries(hamiltonian)
    assert found
    if len(found) == hamiltonian.n_qubits:
        with pytest.raises(QasError, match="leaves at least one qubit"):
            Tapering.of(hamiltonian)
        return
    levels = []
    for signs in itertools.product((1, -1), repeat=len(found)):
        tapered = Tapering(found, signs).taper(hamiltonian)
        assert tapered.n_qubits == hamiltonian.n_qubits - len(found)
        levels.extend(np.linalg.eigvalsh(tapered.to_matrix()))
    np.testing.assert_allclose(np.sort(levels), np.linalg.eigvalsh(hamiltonian.to_matrix()), atol=1e-10)
    lowest = Tapering.of(hamiltonian).taper(hamiltonian)
    assert lowest.ground_energy == pytest.approx(hamiltonian.ground_energy, abs=1e-10)


@given(SEEDS)
@settings(deadline=None, max_examples=25)
def test_basis_states_keep_their_matrix_elements(seed: int) -> None:
    """Symmetries of Z alone: the tapered operator is a block of the whole one, without so much as a sign changed."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 6))
    strings = tuple({"".join(rng.choice(["I", "Z"], n)) for _ in range(2)} - {"I" * n})
    if not strings or len(strings) == n:
        return
    drawn = ["".join(rng.choice(list("IXYZ"), n)) for _ in range(60)]
    kept = [string for string in drawn if all(commute(string, each) for each in strings)]
    hamiltonian = Hamiltonian([(string, float(rng.normal())) for string in kept or ["I" * n]])
    tapering = Tapering(strings, tuple(rng.choice([1, -1], len(strings)).tolist()))
    whole, block = hamiltonian.to_matrix(), tapering.taper(hamiltonian).to_matrix()
    inside = []
    for bits in map("".join, itertools.product("01", repeat=n)):
        values = [(-1) ** sum(a == "Z" and b == "1" for a, b in zip(s, bits, strict=True)) for s in strings]
        if tuple(values) == tapering.sector:
            inside.append((int(bits, 2), int(tapering.determinant(bits), 2)))
        else:
            with pytest.raises(QasError, match="lies in the sector"):
                tapering.determinant(bits)
    rows, columns = np.array(inside).T
    assert sorted(columns.tolist()) == list(range(len(block)))
    np.testing.assert_allclose(block[np.ix_(columns, columns)], whole[np.ix_(rows, rows)], atol=1e-12)
    assert tapering.conserved_by(hamiltonian)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("tfim-7", ("X" * 7,)), ("heisenberg-6", ("Z" * 6,)), ("h2-4", ("ZIIZ", "IZIZ", "IIZZ"))],
)
def test_symmetries_of_known_models(name: str, expected: tuple[str, ...]) -> None:
    made = load_problem(name)
    assert symmetries(made.hamiltonian) == expected
    tapering = Tapering.of(made.hamiltonian)
    assert tapering.taper(made.hamiltonian).ground_energy == pytest.approx(made.exact, abs=1e-9)


def test_qubits_that_nothing_acts_on_are_dropped() -> None:
    idle = Hamiltonian({"IXXI": 1.0, "IZII": 0.5, "IIZI": 0.25})
    assert symmetries(idle) == ("ZIII", "IZZI", "IIIZ")
    tapering = Tapering.of(idle, determinant="0110")
    assert tapering.kept == (1,) and tapering.sector == (1, 1, 1)


@pytest.mark.parametrize("name", ["h2-4", "h4-8-1.5", "lih-12", "beh2-14"])
@pytest.mark.parametrize("size", [0, 1, 40])
def test_circuits_are_taken_to_all_qubits(name: str, size: int) -> None:
    """The whole problem's energy is that of the tapered one; qubits that do not move need no CX."""
    whole = load_problem(name)
    tapering = Tapering.of(whole.hamiltonian, determinant=whole.determinant)
    small = whole.tapered()
    gates = SEARCH_GATES if small.n_qubits > 1 else ("rx", "ry", "rz")
    more = random_circuit(small.n_qubits, size, np.random.default_rng(size), gates=gates)
    circuit = Circuit(small.n_qubits, [*small.reference_circuit, *more])
    found = tapering.embedded(circuit)
    assert found.n_qubits == whole.n_qubits
    assert whole.energy(found) == pytest.approx(small.energy(circuit), abs=1e-9)
    most = sum(string.count("Z") - 1 for string in tapering.strings)
    assert found.two_qubit_gates - circuit.two_qubit_gates <= (most if size else 0)


def test_circuits_of_other_sectors_and_sizes() -> None:
    """Where a sector flips a qubit, or a symmetry is a product of those before it; what is no circuit of the sector."""
    with pytest.raises(QasError, match="symmetries are of Z alone, got XX"):
        Tapering(("XX",), (1,)).embedded(Circuit(1))
    for strings, sector in ((("ZZII", "IZZZ"), (-1, 1)), (("ZZZZ", "IZZI"), (-1, -1)), (("ZIII",), (-1,))):
        tapering = Tapering(strings, sector)
        circuit = random_circuit(len(tapering.kept), 20, np.random.default_rng(0), gates=SEARCH_GATES)
        state = tapering.embedded(circuit).to_matrix()[:, 0]
        for string, sign in zip(strings, sector, strict=True):
            assert np.vdot(state, matrix(string) @ state).real == pytest.approx(sign)
    with pytest.raises(CircuitError, match="tapering leaves 3 qubits, got a circuit on 4"):
        tapering.embedded(Circuit(4))


def test_bad_input() -> None:
    asymmetric = Hamiltonian({"XI": 1.0, "ZI": 0.5, "IX": 0.25, "IZ": 0.125})
    tapering = Tapering(("ZZ",), (1,))
    for action, words in (
        (lambda: Tapering.of(asymmetric), "tapering needs a symmetry"),
        (lambda: Tapering.of(asymmetric, determinant="00"), "tapering needs a symmetry"),
        (lambda: Tapering.of(load_problem("tfim-3").hamiltonian, determinant="000"), "no value of the symmetry XXX"),
        (lambda: Tapering.of(load_problem("heisenberg-3").hamiltonian, determinant="00"), "a determinant is 3 bits"),
        (lambda: Tapering.of(load_problem("heisenberg-3").hamiltonian, sector=(1, 1)), "a sector is 1 or -1"),
        (lambda: Tapering(("ZZ",), (0,)), "a sector is 1 or -1"),
        (lambda: Tapering(("ZZ", "XI"), (1, 1)), "symmetries commute"),
        (lambda: Tapering(("ZZI", "IZZ", "ZIZ"), (1, 1, 1)), "independent"),
        (lambda: Tapering(("ZZ", "ZI"), (1, 1)), "at least one qubit"),
        (lambda: Tapering(("ZZ", "ZIZ"), (1, 1)), "as long"),
        (lambda: Tapering(("ZA",), (1,)), "letters"),
        (lambda: tapering.taper(Hamiltonian({"XI": 1.0})), "commute with its symmetries, got the term XI"),
        (lambda: tapering.taper(Hamiltonian({"ZZZ": 1.0})), "acts on 2 qubits, got an operator on 3"),
        (lambda: tapering.determinant("012"), "a determinant is 2 bits"),
    ):
        with pytest.raises(QasError, match=words) as caught:
            action()
        assert "\n" not in str(caught.value)
    with pytest.raises(TooLargeError, match="got 28; give the sector"):
        Tapering.of(Hamiltonian([("I" * k + "XX" + "I" * (28 - k), 1.0) for k in range(29)] + [("Z" * 30, 1.0)] + [
            ("I" * k + "ZZ" + "I" * (28 - k), 1.0) for k in range(29)]))  # fmt: skip
    with pytest.raises(TooLargeError, match="up to 62 qubits"):
        symmetries(Hamiltonian({"Z" * 63: 1.0}))
