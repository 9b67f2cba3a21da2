"""Gate lists of adapter layers: sizes they fit, counts, JSON, and what is refused."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qas
from qas.adapters.architecture import (
    ARCHITECTURES,
    MAX_ODD,
    VERSION,
    Architecture,
    Architectures,
    layout,
    load_architecture,
    quantum_peft,
)
from qas.adapters.circuit import frame_architecture
from qas.adapters.program import ODD
from qas.errors import CircuitError, QasError, RunError, UnknownNameError

REAL = Architecture(3, (("ry", (0,)), ("cx", (0, 2)), ("ry", (2,)), ("cz", (1, 2)), ("ry", (1,))))
COMPLEX = Architecture(2, (("rx", (0,)), ("cx", (0, 1)), ("rz", (1,))))


# ---------------------------------------------------------------------- layouts
@given(st.integers(2, 100_000))
def test_a_layout_is_mixed_radix_or_the_next_power_of_two(features: int) -> None:
    place = layout(features)
    bits = next(k for k in range(20) if features % 2 ** (k + 1))
    odd = features // 2**bits
    if odd <= 11 and bits:
        assert (place.n_qubits, place.odd, place.size) == (bits, odd, features)
    else:
        assert place.odd == 1 and place.size / 2 < features <= place.size


@given(st.integers(2, 5_000))
def test_an_exact_layout_is_the_largest_that_fits(features: int) -> None:
    place = layout(features, exact=True)
    best = max(m << k for m in range(1, MAX_ODD + 1, 2) for k in range(1, 13) if m << k <= features)
    assert place.size == best and place.features == features and place.n_qubits >= 1


@pytest.mark.parametrize("features", [1, 0, -4, 2.0, True, "8", None])
def test_a_layer_has_features_and_one_that_is_turned_has_two(features: Any) -> None:
    with pytest.raises(QasError, match="a whole number of at least 2"):
        layout(features, exact=True)
    if features == 1 and features is not True:
        assert layout(features).size == 2
        for circuit in ("quantum-peft", REAL):
            assert frame_architecture(circuit, 1).n_qubits == 1
    else:
        with pytest.raises(QasError, match="a whole number of at least 1"):
            layout(features)


# ---------------------------------------------------------------------- the published circuit
@pytest.mark.parametrize("qubits", range(1, 13))
@pytest.mark.parametrize("layers", [0, 1, 2, 5])
def test_the_published_circuit_has_the_published_number_of_angles(qubits: int, layers: int) -> None:
    architecture, place = quantum_peft(1 << qubits, layers)
    assert architecture.n_angles == (2 * layers + 1) * qubits - 2 * layers
    assert (place.n_qubits, place.size, architecture.size) == (qubits, 1 << qubits, 1 << qubits)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_the_published_circuit_is_the_brickwork_of_pennylane(layers: int) -> None:
    # SimplifiedTwoDesign: initial layer (M), weights (L, M-1, 2); each pair CZ and then RY on both.
    n = 5
    wanted: list[tuple[str, tuple[int, ...]]] = [("ry", (q,)) for q in range(n)]
    for _ in range(layers):
        for block in ([(0, 1), (2, 3)], [(1, 2), (3, 4)]):
            wanted += [("cz", pair) for pair in block]
            wanted += [("ry", (q,)) for pair in block for q in pair]
    architecture, _ = quantum_peft(32, layers)
    assert list(architecture.gates) == wanted
    assert architecture.n_angles == n + layers * (n - 1) * 2


def test_an_odd_axis_is_turned_in_the_place_of_a_qubit() -> None:
    architecture, place = quantum_peft(768, 1)
    assert (place.n_qubits, place.odd, architecture.odd) == (8, 3, 3)
    turns = sum(name == "so" for name, _ in architecture.gates)
    plain = (2 + 1) * 9 - 2  # nine wires
    assert architecture.n_angles == plain - turns + turns * 3


@pytest.mark.parametrize("layers", [-1, 1.0, True, "2", None])
def test_layers_are_counted_in_whole_numbers(layers: Any) -> None:
    with pytest.raises(QasError, match="layers is a whole number"):
        quantum_peft(8, layers)


# ---------------------------------------------------------------------- layers that fit
@pytest.mark.parametrize(
    ("architecture", "features", "exact", "size"),
    [
        (REAL, 8, False, 8),
        (REAL, 8, True, 8),
        (REAL, 5, False, 8),
        (REAL, 24, True, 24),
        (REAL, 88, False, 88),
        (COMPLEX, 8, True, 8),
        (COMPLEX, 7, False, 8),
    ],
)
def test_an_architecture_fits_its_own_size_odd_multiples_and_smaller_layers(
    architecture: Architecture, features: int, exact: bool, size: int
) -> None:
    fitted, place = architecture.for_layer(features, exact=exact)
    assert (fitted.size, place.size, place.features) == (size, size, features)
    if size == architecture.size:
        assert fitted is architecture
        return
    added = fitted.gates[len(architecture.gates) :]
    assert fitted.gates[: len(architecture.gates)] == architecture.gates
    assert added == (("so", (-1,)), *(("cz", (-1, q)) for q in range(3)), ("so", (-1,)))
    m = fitted.odd
    assert fitted.n_angles == architecture.n_angles + m * (m - 1)
    # The layer is truly coupled: no Kronecker factor of levels.
    angles = np.random.default_rng(0).uniform(-3, 3, fitted.n_angles)
    blocks = fitted.program.matrix(angles).reshape(m, 8, m, 8).transpose(0, 2, 1, 3).reshape(m * m, 64)
    assert np.linalg.matrix_rank(blocks, tol=1e-9) > 1


@pytest.mark.parametrize(
    ("architecture", "features", "exact", "qubits", "odd", "size"),
    [
        (REAL, 16, False, 4, 1, 16),
        (REAL, 768, True, 8, 3, 768),
        (REAL, 9, False, 4, 1, 16),  # padded
        (REAL, 104, False, 7, 1, 128),  # 13 is too large a factor
        (REAL, 104, True, 5, 3, 96),  # the last 8 features stay as they are
        (COMPLEX, 24, False, 4, 1, 32),
        (COMPLEX, 24, True, 3, 1, 16),
        (COMPLEX, 64, True, 5, 1, 64),
    ],
)
def test_wider_layers_get_more_axes_coupled_to_those_below(
    architecture: Architecture, features: int, exact: bool, qubits: int, odd: int, size: int
) -> None:
    fitted, place = architecture.for_layer(features, exact=exact)
    assert (fitted.n_qubits, fitted.odd, fitted.size, place.size, place.features) == (qubits, odd, size, size, features)
    assert fitted.gates[: len(architecture.gates)] == architecture.gates
    more = qubits - architecture.n_qubits
    assert fitted.n_angles == architecture.n_angles + 2 * more + odd * (odd - 1)
    if size > 128:
        return
    angles = np.random.default_rng(0).uniform(-3, 3, fitted.n_angles)
    matrix = fitted.program.matrix(angles)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(size), atol=1e-12)
    # No Kronecker factor: the blocks of the new axes differ by more than a number.
    m = odd << more
    low = architecture.size if architecture is REAL else 1 << architecture.n_qubits
    if architecture is REAL:
        blocks = matrix.reshape(m, low, m, low).transpose(0, 2, 1, 3).reshape(m * m, low * low)
        assert np.linalg.matrix_rank(blocks, tol=1e-9) > 1
    assert (np.abs(matrix[:, :2]) > 1e-9).sum() > low, "the first columns reach the new rows"


WIDE = Architecture(5, (*REAL.gates, ("ry", (4,)), ("cz", (0, 3)), ("cx", (4, 1)), ("ry", (0,)), ("ry", (3,))))


@pytest.mark.parametrize("features", [2, 3, 4, 6, 7, 8, 12, 16])
@pytest.mark.parametrize("exact", [False, True])
def test_on_narrower_layers_the_gates_on_the_lowest_qubits_are_left(features: int, exact: bool) -> None:
    fitted, place = WIDE.for_layer(features, exact=exact)
    assert place == layout(features, exact=exact), "as the published circuit is laid out"
    assert (fitted.size, fitted.odd) == (place.size, place.odd)
    cut = WIDE.cut(place.n_qubits)
    assert fitted.gates[: len(cut.gates)] == cut.gates
    # The same gates in the wide register: R on the lowest qubits, nothing on the others.
    alone = Architecture(5, cut.gates)
    angles = np.random.default_rng(0).uniform(-3, 3, cut.n_angles)
    small = cut.program.matrix(angles)
    np.testing.assert_allclose(alone.program.matrix(angles), np.kron(np.eye(32 // len(small)), small), atol=1e-12)


def test_rotations_that_become_neighbours_in_a_cut_are_one() -> None:
    gates = (("ry", (0,)), ("cz", (0, 2)), ("ry", (0,)), ("cx", (0, 1)), ("cz", (1, 2)), ("cx", (0, 1)), ("ry", (1,)))
    assert Architecture(3, gates).cut(2).gates == (("ry", (0,)), ("ry", (1,)))
    assert Architecture(3, gates).for_layer(4)[0].n_angles == 2


def test_a_cut_keeps_gates_that_do_nothing_to_the_first_column_alone() -> None:
    gates = (("cz", (0, 1)), ("cx", (0, 1)), ("ry", (0,)), ("cz", (1, 2)), ("ry", (1,)))
    assert Architecture(3, gates).cut(2).gates == (*gates[:3], gates[4])


def test_complex_gates_are_cut_with_the_bit_that_they_need() -> None:
    for features, exact in ((4, False), (3, False), (7, True), (4, True)):
        fitted, place = COMPLEX.for_layer(features, exact=exact)
        assert (fitted.n_qubits, fitted.n_bits, place.size) == (1, 2, 4) and fitted.gates == COMPLEX.gates[:1]
    for features, exact in ((2, False), (3, True), (2, True)):
        with pytest.raises(CircuitError, match=f"layers of at least {4 if exact else 3} features, got {features}"):
            COMPLEX.for_layer(features, exact=exact)
    with pytest.raises(CircuitError, match="lowest 1 of 2 qubits, and of this circuit these have no angles"):
        Architecture(2, (("ry", (1,)),)).for_layer(2)


@pytest.mark.parametrize(
    ("features", "exact", "words"),
    [
        (8, False, "3 qubits, 3 angles"),
        (7, False, "3 qubits, 3 angles, first 7 rows"),
        (4, False, "2 of 3 qubits, 2 angles"),
        (32, False, "3 qubits and 2 more, 7 angles"),
        (48, False, "3 qubits and 1 more and 3 levels, 11 angles"),
        (100, True, "3 qubits and 2 more and 3 levels, 13 angles, first 96 features"),
    ],
)
def test_what_is_done_for_a_layer_is_told(features: int, exact: bool, words: str) -> None:
    assert REAL.on_layer(features, exact=exact) == words


# ---------------------------------------------------------------------- several widths
def test_each_layer_gets_the_widest_that_is_not_cut_else_the_narrowest() -> None:
    several = load_architecture([WIDE, REAL.to_json()])
    assert isinstance(several, Architectures) and several.members == (REAL, WIDE)
    for features, exact, member in (
        (4, False, REAL), (8, False, REAL), (16, False, REAL), (17, False, WIDE), (17, True, REAL), (24, False, WIDE),
        (32, True, WIDE), (96, False, WIDE),
    ):  # fmt: skip
        assert several.for_layer(features, exact=exact) == member.for_layer(features, exact=exact)
        assert several.on_layer(features, exact=exact) == member.on_layer(features, exact=exact)
    assert several.description_bits == REAL.description_bits + WIDE.description_bits
    assert load_architecture(json.loads(json.dumps(several.to_json()))) == several == load_architecture(several)
    assert load_architecture([several, quantum_peft(12)[0]]).for_layer(12)[0].odd == 3
    assert load_architecture([REAL]) is REAL
    with pytest.raises(CircuitError, match="layers of different widths, got 8 and 8"):
        load_architecture([REAL, REAL])
    with pytest.raises(QasError, match="an adapter architecture is"):
        load_architecture({"format": "qas-adapter-architectures", "version": 1, "members": [{}, {}]})


def test_an_architecture_with_an_odd_axis_fits_one_size() -> None:
    architecture, _ = quantum_peft(12)
    assert architecture.for_layer(12)[0] is architecture
    with pytest.raises(CircuitError, match="for layers of 12 features, got 11"):
        architecture.for_layer(11)


# ---------------------------------------------------------------------- measures
def test_bits_of_the_description_are_counted() -> None:
    assert quantum_peft(64, 3)[0].description_bits == 16
    # five gates, each one of: ry on 3 wires, cx on 6 ordered pairs, cz on 3 pairs
    assert REAL.description_bits == math.ceil(5 * math.log2(3 + 6 + 3)) + 16
    assert Architecture(3, ()).description_bits == 16
    assert REAL.for_layer(24)[0].description_bits == REAL.description_bits


def test_a_name_alone_does_not_make_a_description_short() -> None:
    named = Architecture(3, REAL.gates, name="quantum-peft-1")
    assert named.description_bits == REAL.description_bits > 16
    assert Architecture(3, REAL.gates, name="quantum-peft-9999999999").description_bits == REAL.description_bits


def test_complex_gates_take_one_bit_more() -> None:
    assert (COMPLEX.n_bits, COMPLEX.size, COMPLEX.n_angles) == (3, 8, 2)
    assert (REAL.n_bits, REAL.size, REAL.n_angles) == (3, 8, 3)


# ---------------------------------------------------------------------- JSON
@pytest.mark.parametrize("architecture", [REAL, COMPLEX, quantum_peft(88, 2)[0], Architecture(1, ())])
def test_json_reads_back_equal(architecture: Architecture) -> None:
    data = json.loads(json.dumps(architecture.to_json()))
    found = Architecture.from_json(data)
    assert found == architecture and found.hash == architecture.hash and found.name == architecture.name
    assert load_architecture(data) == architecture
    assert pickle.loads(pickle.dumps(found)) == copy.deepcopy(found) == architecture


def test_the_hash_is_that_of_the_gates() -> None:
    assert Architecture(3, REAL.gates, name="other").hash == REAL.hash
    for other in (Architecture(4, REAL.gates), Architecture(3, REAL.gates[::-1]), Architecture(3, REAL.gates, 3)):
        assert other.hash != REAL.hash


DAMAGE: list[tuple[dict[str, Any], str]] = [
    ({"format": "else"}, "JSON object of format"),
    ({"version": VERSION + 1}, "newer version of this program"),
    ({"version": True}, "got True"),
    ({"version": "1"}, "got '1'"),
    ({"hash": "0" * 32}, "have hash .*, got"),
    ({"hash": None}, "damaged at hash"),
    ({"n_qubits": 4}, "have hash"),
    ({"n_qubits": None}, "damaged"),
    ({"n_qubits": 0}, "damaged at n_qubits"),
    ({"n_qubits": 25}, "1 to 20 qubits"),
    ({"odd": 2}, "odd number of levels"),
    ({"odd": 10**9 + 1}, "odd number of levels up to 11"),
    ({"gates": None}, "damaged"),
    ({"gates": [["ry", 0.5]]}, "damaged"),
    ({"gates": [["ry"]]}, "acts on 1 wire"),
    ({"gates": [[]]}, "a name and its wires"),
    ({"gates": "ry"}, "damaged at gates"),
    ({"gates": [["ry", 3]]}, "wires are qubits 0..2"),
    ({"gates": [["ry", -2]]}, "wires are qubits"),
    ({"gates": [["ry", -1]]}, "only so and cz act on the odd axis"),
    ({"gates": [["so", 0]]}, "so acts on the odd axis"),
    ({"gates": [["cz", 1, 1]]}, "acts on 2 wire"),
    ({"gates": [["ryy", 0, 1], ["rx", 0]], "odd": 3}, "complex entries"),
    ({"gates": [["ccx", 0, 1, 2]]}, "unknown gate of an adapter 'ccx'"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_damaged_json_is_refused(damage: dict[str, Any], message: str) -> None:
    with pytest.raises(QasError, match=message) as caught:
        Architecture.from_json(REAL.to_json() | damage)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["version", "gates", "n_qubits", "odd", "name", "hash"])
def test_json_with_a_missing_entry_is_refused(key: str) -> None:
    data = REAL.to_json()
    del data[key]
    with pytest.raises(QasError):
        Architecture.from_json(data)


@pytest.mark.parametrize("data", [None, [], "x" * 500, {}, 3])
def test_json_that_is_no_architecture_is_refused(data: Any) -> None:
    with pytest.raises(QasError, match="JSON object of format") as caught:
        Architecture.from_json(data)
    assert len(str(caught.value)) < 200


# ---------------------------------------------------------------------- sources
def test_a_circuit_gives_its_gates_without_angles(tmp_path: Path) -> None:
    circuit = qas.Circuit(3, [(name, wires, [0.5][: name.startswith("r")]) for name, wires in REAL.gates])
    assert load_architecture(circuit).gates == REAL.gates
    path = tmp_path / "found.qasm"
    path.write_text(circuit.to_qasm())
    found = load_architecture(path)
    assert found.gates == REAL.gates and found.name == "found"
    assert load_architecture(str(path)) == found
    assert load_architecture(found) is found


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_named_architectures_have_no_gates_before_the_layer_is_known(name: str) -> None:
    with pytest.raises(QasError, match=f"{name} has gates for each size of layer and none of its own"):
        load_architecture(name)


def test_other_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'quantum-peft'"):
        load_architecture("quantum-pef")
    with pytest.raises(RunError, match="no such run folder or OpenQASM file"):
        load_architecture(tmp_path / "missing.qasm")
    with pytest.raises(RunError, match="no such run folder"):
        load_architecture(f"{tmp_path}/missing")
    with pytest.raises(QasError):
        load_architecture(tmp_path)
    for source in (None, 3, [], [3], b"run"):
        with pytest.raises(QasError, match="a circuit, a run, a path or its JSON form"):
            load_architecture(source)
    (tmp_path / "bad.qasm").write_text("OPENQASM 3; nonsense")
    with pytest.raises(QasError):
        load_architecture(tmp_path / "bad.qasm")


def test_wires_of_the_odd_axis_are_checked() -> None:
    Architecture(2, (("so", (ODD,)), ("cz", (ODD, 1))), 5)
    with pytest.raises(CircuitError, match="only so and cz"):
        Architecture(2, (("cx", (ODD, 1)),), 5)
    with pytest.raises(CircuitError, match="only so and cz"):
        Architecture(2, (("so", (ODD,)),))
