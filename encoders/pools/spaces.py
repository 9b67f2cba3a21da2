"""Circuit spaces: which architectures a pool may hold, and those architectures as rows of small integers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np

from qas.alphabet import Alphabet, split_gates
from qas.checks import whole_number
from qas.circuits import Circuit
from qas.errors import CircuitError, QasError
from qas.estimates import affordable
from qas.gates import POOL_GATES, gate_spec
from qas.schema import Count, Positive, Qubits, conform

PADDING = -1
"""Fills a row behind its last gate."""

_CHUNK = 20_000
_BYTES, _SECONDS = 8, 2e-8
"""What a gate takes at least while circuits are drawn."""


class SpaceTold(TypedDict):
    """A `CircuitSpace` in a file."""

    n_qubits: Qubits
    gates: list[str]
    max_gates: Positive
    min_gates: Count
    max_depth: Count
    ring: list[str]
    coupling: list[tuple[Count, Count]] | None
    directions: NotRequired[list[tuple[Count, Count]] | None]


class CircuitSpace:
    """All circuits of at most `max_gates` gates of some kinds, within a depth, on allowed pairs of qubits. Immutable.

    Inside, an architecture is a *row* of int16 *tokens*, shape (max_gates,): each token is the number of a gate placed
    on its qubits (`placed`), -1 fills the row behind the last gate. Rows in canonical order (`canonical`) are equal
    exactly when `Circuit.key` is.

    Args:
        n_qubits: number of qubits, at least 1.
        gates: names the circuits may use; two-qubit gates are left out on one qubit.
        max_gates: most gates of a circuit, at least 1.
        min_gates: fewest gates that `sample` draws; default `max_gates`.
        max_depth: most layers (`Circuit.depth`); default ceil(2 max_gates / n_qubits), which is 5 for the published
            spaces; 0 for no limit.
        ring: two-qubit gates that act from qubit q to q+1 (mod n) only; default CNOT as published, none with a
            coupling.
        coupling: undirected pairs that may carry two-qubit gates; None: all.
        directions: ordered pairs in which two-qubit gates may act; see `qas.alphabet.Alphabet`.

    Raises:
        UnknownNameError: a name outside the gate table.
        QasError: sizes out of range, a malformed gate set or coupling, or a gate that no pair may carry.

    References:
        Sun, Wu, Ma, Tresp, "Quantum architecture search with unsupervised representation learning", arXiv:2401.11576.
    """

    def __init__(
        self,
        n_qubits: int,
        gates: Sequence[str] = POOL_GATES,
        *,
        max_gates: int,
        min_gates: int | None = None,
        max_depth: int | None = None,
        ring: Sequence[str] | None = None,
        coupling: Iterable[Sequence[int]] | None = None,
        directions: Iterable[Sequence[int]] | None = None,
    ) -> None:
        self.n_qubits = n = whole_number("the number of qubits", n_qubits)
        if n > 64:
            raise QasError(f"a circuit space has at most 64 qubits, got {n}")
        two, one = split_gates(gates)
        for name in two:
            if not gate_spec(name).primitive:
                raise QasError(f"a space of circuits holds gates on one and two qubits, got {name}")
        self.max_gates = whole_number("max_gates", max_gates, 1, 2**15 - 1)  # rows are int16
        self.min_gates = self.max_gates if min_gates is None else whole_number("min_gates", min_gates, 0)
        if self.min_gates > self.max_gates:
            raise QasError(f"min_gates is at most max_gates ({self.max_gates}), got {self.min_gates}")
        depth = -(-2 * self.max_gates // n) if max_depth is None else whole_number("max_depth", max_depth, 0)
        self.max_depth = min(depth, self.max_gates) or self.max_gates
        if ring is None:
            ring = ("cx",) if coupling is None and directions is None and "cx" in two else ()
        kept = gates if n > 1 or not one else one
        self.alphabet = Alphabet(n, kept, coupling, ring=ring, order="by-kind", connected=False, directions=directions)
        """Gates on their places; tokens are its numbers."""
        self.gates, self.coupling, self.ring = self.alphabet.gates, self.alphabet.coupling, self.alphabet.ring
        self.directions = self.alphabet.directions
        self.placed, self.n_tokens = self.alphabet.placed, len(self.alphabet)
        self.kind, self.symmetric = self.alphabet.kind, self.alphabet.symmetric
        self.first, self.last = self.alphabet.first, self.alphabet.last

    # ------------------------------------------------------------------ rows
    def layers(self, rows: np.ndarray) -> np.ndarray:
        """For each gate the layer it falls into (`Circuit.moments`), int16, shape of `rows`; -1 at padding."""
        from qas.encoders.pools._layers import layers_of

        return layers_of(np.ascontiguousarray(self.check_rows(rows)), self.first, self.last, self.n_qubits)

    def canonical(self, rows: np.ndarray) -> np.ndarray:
        """Rows with their gates in canonical order: by layer, then by first qubit; int16, same shape."""
        rows = self.check_rows(rows)
        layers = self.layers(rows).astype(np.int64)
        order = np.where(rows == PADDING, np.iinfo(np.int64).max, layers * self.n_qubits + self.first[rows])
        return np.take_along_axis(rows, np.argsort(order, axis=1, kind="stable"), axis=1)

    def check_rows(self, rows: Any) -> np.ndarray:
        """`rows` as int16, shape (size, max_gates).

        Raises:
            CircuitError: another shape, a number that is no token, or padding before the last gate.
        """
        try:
            array = np.asarray(rows)
        except ValueError:
            raise CircuitError(f"rows are whole numbers of shape (size, {self.max_gates}), got a ragged list") from None
        if array.ndim != 2 or array.shape[1] != self.max_gates or array.dtype.kind not in "iu":
            raise CircuitError(
                f"rows are whole numbers of shape (size, {self.max_gates}), got {array.dtype} of shape {array.shape}"
            )
        if array.size and (array.min() < PADDING or array.max() >= self.n_tokens):
            bad = array.min() if array.min() < PADDING else array.max()
            raise CircuitError(f"tokens of this space are -1..{self.n_tokens - 1}, got {bad}")
        if np.any((array[:, :-1] == PADDING) & (array[:, 1:] != PADDING)):
            raise CircuitError("padding stands behind the last gate of a row, got a gate behind padding")
        return array.astype(np.int16, copy=False)

    def row(self, circuit: Circuit) -> np.ndarray:
        """The canonical row of a circuit, int16, shape (max_gates,); angles are dropped.

        Raises:
            CircuitError: the space does not hold the circuit; the message says why.
        """
        if len(circuit) > self.max_gates:
            raise CircuitError(f"circuits of the space have at most {self.max_gates} gates, got {len(circuit)}")
        if circuit.depth > self.max_depth:
            raise CircuitError(f"circuits of the space have at most {self.max_depth} layers, got {circuit.depth}")
        row = np.full((1, self.max_gates), PADDING, dtype=np.int16)
        row[0, : len(circuit)] = self.alphabet.tokens_of(circuit)
        return self.canonical(row)[0]

    def circuit(self, row: Any) -> Circuit:
        """The circuit of a row, angles 0."""
        return Circuit(self.n_qubits, [self.placed[token] for token in np.asarray(row).tolist() if token != PADDING])

    # ------------------------------------------------------------------ drawing circuits
    def sample(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Random circuits in canonical order, int16, shape (size, max_gates); architectures may repeat.

        The number of gates is uniform from min_gates to max_gates; each gate has a uniform kind, then a uniform place
        among those it may take. Circuits that are too deep are drawn anew as a whole.

        Raises:
            QasError: almost no random circuit is within the depth.
        """
        size = whole_number("the number of circuits", size, 0)
        numbers = max(size, _CHUNK) * self.max_gates
        affordable(
            f"{size} circuits of {self.max_gates} gates take", memory=_BYTES * numbers, seconds=_SECONDS * numbers
        )
        kinds = [np.flatnonzero(self.kind == k) for k in range(len(self.gates))]
        counts = np.array([len(tokens) for tokens in kinds])
        table = np.zeros((len(kinds), counts.max()), dtype=np.int16)
        for k, tokens in enumerate(kinds):
            table[k, : len(tokens)] = tokens
        kept: list[np.ndarray] = []
        found = drawn = 0
        while found < size:
            shape = (_CHUNK, self.max_gates)
            kind = rng.integers(len(kinds), size=shape)
            rows = table[kind, (rng.random(shape) * counts[kind]).astype(np.int64)]
            length = rng.integers(self.min_gates, self.max_gates + 1, size=(_CHUNK, 1))
            rows[np.arange(self.max_gates) >= length] = PADDING
            rows = rows[self.layers(rows).max(axis=1, initial=-1) < self.max_depth]
            kept.append(rows)
            found, drawn = found + len(rows), drawn + _CHUNK
            if drawn >= 100 * _CHUNK and found < 1e-4 * drawn:
                raise QasError(
                    f"of {drawn:,} random circuits of {self.min_gates} to {self.max_gates} gates only {found:,} have "
                    f"at most {self.max_depth} layers; allow more depth or fewer gates"
                )
        rows = np.concatenate(kept)[:size] if kept else np.zeros((0, self.max_gates), dtype=np.int16)
        return self.canonical(rows)

    def sample_unique(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Random circuits, no architecture twice, canonical, int16, shape (size, max_gates).

        Raises:
            QasError: the space seems to hold fewer circuits.
        """
        rows = np.zeros((0, self.max_gates), dtype=np.int16)
        fruitless = 0
        while len(rows) < size:
            before = len(rows)
            more = self.sample(max(_CHUNK, (size - before) * 11 // 10), rng)
            rows = distinct(np.concatenate([rows, more]))
            fruitless = 0 if len(rows) > before else fruitless + 1
            if fruitless >= 5:
                raise QasError(f"a pool of {size:,} was asked for, but the space holds about {len(rows):,} circuits")
        return rows[:size]

    # ------------------------------------------------------------------ comparing, JSON
    def __eq__(self, other: object) -> bool:
        return isinstance(other, CircuitSpace) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.n_qubits, self.gates, self.max_gates, self.max_depth))

    def __repr__(self) -> str:
        sizes = f"{self.min_gates} to {self.max_gates}" if self.min_gates < self.max_gates else f"{self.max_gates}"
        return (
            f"CircuitSpace({self.n_qubits} qubits, {sizes} gates of {', '.join(self.gates)}, depth <= "
            f"{self.max_depth}, {self.n_tokens} placed gates)"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-able description; `from_json` reads it back."""
        return {
            "n_qubits": self.n_qubits,
            "gates": list(self.gates),
            "max_gates": self.max_gates,
            "min_gates": self.min_gates,
            "max_depth": self.max_depth,
            "ring": list(self.ring),
            "coupling": None if self.coupling is None else [list(pair) for pair in self.coupling],
        } | ({} if self.directions is None else {"directions": [list(pair) for pair in self.directions]})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CircuitSpace:
        """Read what `to_json` wrote.

        Raises:
            QasError: malformed data.
        """
        conform(data, SpaceTold, "the circuit space", error=QasError)
        return cls(**{name: value for name, value in data.items() if name in SpaceTold.__annotations__})


def distinct(rows: np.ndarray) -> np.ndarray:
    """The first occurrence of every row, in order."""
    packed = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first = np.unique(packed, return_index=True)
    return rows[np.sort(first)]
