"""What every encoding of circuits must keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qas.circuits import Circuit
from qas.encoders.graphs import GraphBatch, load_encoding
from qas.encoders.pools.spaces import CircuitSpace
from qas.errors import CircuitError, QasError

SPACES = {
    "pool": CircuitSpace(4, max_gates=10),
    "coupling": CircuitSpace(4, ("rx", "h", "cx", "rzz"), max_gates=6, min_gates=0, coupling=[(0, 1), (1, 2)]),
    "one qubit": CircuitSpace(1, ("rx", "h"), max_gates=3, min_gates=0),
}


class EncodingContract:
    """An encoding that is known by name, or a class: subclass this and set `kind`, or give several by a fixture.

    ::

        class TestMine(EncodingContract):
            kind = MyEncoding
    """

    kind: Any
    """What `qas.encoders.load_encoding` takes beside a space."""

    @pytest.fixture(params=SPACES)
    def space(self, request: pytest.FixtureRequest) -> CircuitSpace:
        """The circuits to encode."""
        return SPACES[request.param]

    @pytest.fixture
    def encoding(self, space: CircuitSpace) -> Any:
        """The encoding under test."""
        return load_encoding(self.kind, space)

    @pytest.fixture
    def circuits(self, space: CircuitSpace) -> list[Circuit]:
        """Circuits of the space."""
        return [space.circuit(row) for row in space.sample(25, np.random.default_rng(0))]

    def test_single_circuits_come_back(self, encoding: Any, circuits: list[Circuit]) -> None:
        for circuit in circuits:
            angles = np.linspace(0.1, 0.9, circuit.n_angles)
            code = encoding.encode(circuit.with_angles(angles))
            decoded = encoding.decode(code)
            assert _equal(code, encoding.encode(circuit)), "angles are no part of an encoding"
            assert not decoded.angles.any()
            assert len(decoded) == len(circuit) and decoded.depth == circuit.depth
            if encoding.is_lossless:
                assert decoded.key == circuit.key
            assert encoding.decode(encoding.encode(decoded)).key == decoded.key

    def test_many_are_encoded_as_one_by_one(self, encoding: Any, space: CircuitSpace, circuits: list[Circuit]) -> None:
        rows = np.stack([space.row(circuit) for circuit in circuits])
        whole, again = encoding.encode_rows(rows), encoding.encode_rows(rows)
        assert len(whole) == len(rows) and len(encoding.encode_rows(rows[:0])) == 0
        for index in range(len(rows)):
            alone = encoding.encode_rows(rows[index : index + 1])
            for found, told, one in zip(_arrays(whole), _arrays(again), _arrays(alone), strict=True):
                np.testing.assert_array_equal(found, told)
                np.testing.assert_array_equal(found[index], one[0])

    def test_equal_architectures_have_equal_codes(self, encoding: Any, space: CircuitSpace) -> None:
        if space.n_qubits == 1:
            pytest.skip("no two gates on different qubits")
        first, second = (space.placed[token] for token in np.flatnonzero(space.first == space.last)[[0, 1]])
        one, other = (Circuit(space.n_qubits, gates) for gates in ((first, second), (second, first)))
        assert _equal(encoding.encode(one), encoding.encode(other))

    def test_what_the_space_does_not_hold_is_refused(self, encoding: Any, space: CircuitSpace) -> None:
        deep = Circuit(space.n_qubits, [space.placed[0]] * (space.max_gates + 1))
        for circuit in (Circuit(space.n_qubits + 1), Circuit(space.n_qubits, [("sdg", 0)]), deep):
            with pytest.raises(CircuitError) as caught:
                encoding.encode(circuit)
            assert "\n" not in str(caught.value)
        with pytest.raises(CircuitError):
            encoding.encode_rows(np.full((1, space.max_gates), space.n_tokens))

    def test_an_instance_passes_for_its_own_space_alone(self, encoding: Any, space: CircuitSpace) -> None:
        assert load_encoding(encoding, space) is encoding
        with pytest.raises(QasError, match="another space"):
            load_encoding(encoding, CircuitSpace(space.n_qubits + 1, max_gates=2))


def _arrays(codes: Any) -> list[np.ndarray]:
    return [codes.features, codes.adjacency, codes.lengths] if isinstance(codes, GraphBatch) else [np.asarray(codes)]


def _equal(one: Any, other: Any) -> bool:
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)
