"""The layer tensor: layout, round trip, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qas.alphabet import split_gates
from qas.circuits import Circuit, Gate
from qas.encoders import LayerEncoding
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.gates import GATES, SEARCH_GATES
from qas.testing import random_circuit

GATE_SETS = [SEARCH_GATES, ("cz", "rx", "h"), ("rzz", "cx", "u"), ("rz", "sx"), ("swap", "cx"), tuple(GATES)]


def test_layout() -> None:
    encoding = LayerEncoding(3, max_layers=5)
    assert encoding.shape == (5, 6, 3)
    circuit = Circuit(3, [("rx", 0, 0.1), ("ry", 0, 0.2), ("cx", (0, 2)), ("rz", 1, 0.3), ("cx", (2, 1))])
    tensor = encoding.encode(circuit)
    assert tensor.dtype == np.int8
    # rows: CNOT with target 0, 1, 2 (column: control), then RX, RY, RZ (column: qubit)
    assert np.argwhere(tensor).tolist() == [[0, 3, 0], [0, 5, 1], [1, 4, 0], [2, 2, 0], [3, 1, 2]]
    assert encoding.decode(tensor).to_list() == [
        ["rx", [0], [0.0]],
        ["rz", [1], [0.0]],
        ["ry", [0], [0.0]],
        ["cx", [0, 2], []],
        ["cx", [2, 1], []],
    ]


def test_published_input_sizes() -> None:
    for n, layers, size in [
        (2, 40, 401),
        (3, 40, 721),
        (4, 40, 1121),
        (6, 70, 3781),
        (8, 250, 22001),
        (10, 350, 45501),
    ]:
        assert np.prod(LayerEncoding(n, max_layers=layers).shape) + 1 == size


@given(st.integers(1, 5), st.integers(0, 25), st.sampled_from(GATE_SETS), st.integers(0, 2**32))
def test_round_trip(n: int, size: int, gates: tuple[str, ...], seed: int) -> None:
    if n == 1 and not split_gates(gates)[1]:
        return
    circuit = random_circuit(n, size, np.random.default_rng(seed), gates)
    encoding = LayerEncoding(n, gates, max_layers=max(1, size))
    tensor = encoding.encode(circuit)
    assert tensor.sum() == size
    decoded = encoding.decode(tensor)
    assert encoding.is_lossless and decoded.key == circuit.key
    assert not decoded.angles.any()
    np.testing.assert_array_equal(encoding.encode(decoded), tensor)


@given(st.integers(2, 5), st.integers(0, 25), st.integers(0, 2**32))
def test_gate_by_gate(n: int, size: int, seed: int) -> None:
    circuit = random_circuit(n, size, np.random.default_rng(seed), SEARCH_GATES)
    encoding = LayerEncoding(n, max_layers=30)
    tensor = encoding.empty()
    for layer, gate in zip(circuit.moments, circuit.gates, strict=True):
        encoding.encode_gate_into(tensor, layer, gate)
    np.testing.assert_array_equal(tensor, encoding.encode(circuit))


def test_symmetric_gates_have_one_entry() -> None:
    encoding = LayerEncoding(3, ("cz", "cx"), max_layers=2)
    a, b = (encoding.encode(Circuit(3, [("cz", pair)])) for pair in [(0, 2), (2, 0)])
    np.testing.assert_array_equal(a, b)
    a, b = (encoding.encode(Circuit(3, [("cx", pair)])) for pair in [(0, 2), (2, 0)])
    assert (a != b).any()


def test_decode_takes_gates_in_later_layers() -> None:
    encoding = LayerEncoding(2, max_layers=4)
    tensor = encoding.empty()
    encoding.encode_gate_into(tensor, 3, Gate("rx", (0,), (0.0,)))
    assert encoding.decode(tensor).key == Circuit(2, [("rx", 0, 0.0)]).key


@pytest.mark.parametrize(
    ("circuit", "message"),
    [
        (Circuit(3), "3"),
        (Circuit(2, [("rx", 0, 0.1)] * 4), "depth 4"),
        (Circuit(2, [("h", 0)]), "got h"),
    ],
)
def test_circuits_that_do_not_fit(circuit: Circuit, message: str) -> None:
    with pytest.raises(CircuitError, match=message) as caught:
        LayerEncoding(2, max_layers=3).encode(circuit)
    assert "\n" not in str(caught.value)


def test_gates_that_do_not_fit() -> None:
    encoding = LayerEncoding(2, max_layers=3)
    for layer, gate in [
        (3, Gate("cx", (0, 1))),
        (-1, Gate("cx", (0, 1))),
        (0, Gate("cx", (0, 2))),
        (0, Gate("x", (0,))),
    ]:
        with pytest.raises(CircuitError):
            encoding.encode_gate_into(encoding.empty(), layer, gate)


def test_malformed_tensors() -> None:
    encoding = LayerEncoding(2, max_layers=3)
    twice, loop, half = encoding.empty(), encoding.empty(), encoding.empty() + 0.5
    twice[0, 2, 0] = twice[0, 1, 0] = 1
    loop[0, 0, 0] = 1
    for tensor, message in [
        (twice, "more than one gate on qubit 0"),
        (loop, "two different qubits"),
        (half, "only 0 and 1"),
        (np.zeros((3, 5)), "shape"),
        ([[1], [2, 3]], "array of numbers"),
        (None, "only 0 and 1|shape"),
    ]:
        with pytest.raises(CircuitError, match=message):
            encoding.decode(tensor)


def test_malformed_encodings() -> None:
    with pytest.raises(UnknownNameError, match="rx"):
        LayerEncoding(2, ("rxs",), max_layers=3)
    for n, gates, layers in [
        (0, SEARCH_GATES, 3),
        (2, (), 3),
        (2, ("rx", "rx"), 3),
        (2, SEARCH_GATES, 0),
        (1.5, "rx", 1),
    ]:
        with pytest.raises(QasError):
            LayerEncoding(n, gates, max_layers=layers)  # type: ignore[arg-type]
