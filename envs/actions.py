"""The action table: the one place that says which number stands for which gate."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np

from qas.circuits import Circuit, Gate
from qas.encoders.layers import split_gates, whole_number
from qas.errors import CircuitError, QasError
from qas.gates import SEARCH_GATES, gate_spec

NO_GATE = -1
"""Entry of `last` for a qubit without a gate."""


class ActionTable:
    """Numbers for gates, shared by environment, mask and agents. Immutable and hashable.

    Two-qubit gates come first: for each kind, for each first qubit (control) c, for x = 1 .. n-1 the pair
    (c, (c+x) mod n), so that with one kind and no coupling CNOT has the number c(n-1) + (x-1). One-qubit gates follow:
    for each qubit, for each kind. Kinds keep the order of `gates`. Symmetric gates have one number for each pair, and
    pairs that are not coupled have none.

    Args:
        n_qubits: number of qubits, at least 1.
        gates: names from the gate table; two-qubit gates are left out on one qubit.
        coupling: undirected pairs that may carry two-qubit gates; None: all.

    Raises:
        UnknownNameError: a name outside the gate table.
        QasError: a malformed gate set, no action at all, or a coupling that is malformed or not connected.

    References:
        Patel et al., "Curriculum reinforcement learning for quantum architecture search under hardware errors",
        ICLR 2024, arXiv:2402.03500.
    """

    def __init__(
        self,
        n_qubits: int,
        gates: Sequence[str] = SEARCH_GATES,
        coupling: Iterable[Sequence[int]] | None = None,
    ) -> None:
        self.n_qubits = whole_number("the number of qubits", n_qubits)
        two, one = split_gates(gates)
        self.gates: tuple[str, ...] = (gates,) if isinstance(gates, str) else tuple(gates)
        """The gate set, in the order given."""
        self.coupling: tuple[tuple[int, int], ...] | None = None
        """Sorted pairs (low, high), or None for all."""
        if coupling is not None:
            self.coupling = _checked_coupling(self.n_qubits, coupling)
        keys: list[tuple[str, tuple[int, ...]]] = [
            (name, pair) for name in two for pair in self._pairs(gate_spec(name).symmetric)
        ]
        keys += [(name, (q,)) for q in range(self.n_qubits) for name in one]
        if not keys:
            raise QasError(f"no gate of {', '.join(self.gates)} fits on {self.n_qubits} qubit(s)")
        self._gates = tuple(Gate(name, qubits, (0.0,) * gate_spec(name).n_angles) for name, qubits in keys)
        self._index = {key: i for i, key in enumerate(keys)}
        for name in two:
            if gate_spec(name).symmetric:
                self._index |= {(name, q[::-1]): i for (other, q), i in tuple(self._index.items()) if other == name}
        self._first = np.array([g.qubits[0] for g in self._gates], dtype=np.intp)
        self._second = np.array([g.qubits[-1] for g in self._gates], dtype=np.intp)
        self._numbers = np.arange(len(self._gates))

    def _pairs(self, symmetric: bool) -> list[tuple[int, int]]:
        n = self.n_qubits
        pairs = [(c, (c + x) % n) for c in range(n) for x in range(1, n)]
        if self.coupling is not None:
            pairs = [(a, b) for a, b in pairs if (min(a, b), max(a, b)) in self.coupling]
        return [(a, b) for a, b in pairs if a < b] if symmetric else pairs

    def __len__(self) -> int:
        return len(self._gates)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ActionTable):
            return NotImplemented
        return self._gates == other._gates and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.n_qubits, self.gates, self.coupling))

    def __repr__(self) -> str:
        coupling = "" if self.coupling is None else ", coupling " + " ".join(f"{a}-{b}" for a, b in self.coupling)
        return f"ActionTable({self.n_qubits} qubits, {', '.join(self.gates)}{coupling}: {len(self)} actions)"

    # ------------------------------------------------------------------ numbers and gates
    def check(self, action: Any) -> int:
        """`action` as an int.

        Raises:
            QasError: not a whole number from 0 to ``len(self) - 1``.
        """
        try:
            number = operator.index(action)
        except TypeError:
            raise QasError(f"an action is a whole number, got {action!r}") from None
        if not 0 <= number < len(self._gates):
            raise QasError(f"actions are numbered 0..{len(self._gates) - 1}, got {number}")
        return number

    def gate(self, action: SupportsIndex, angles: Sequence[float] | None = None) -> Gate:
        """The gate of an action, with these angles in radians (None: zeros).

        Raises:
            QasError: no such action, or the wrong number of angles.
        """
        gate = self._gates[self.check(action)]
        return gate if angles is None else Gate(gate.name, gate.qubits, tuple(float(a) for a in angles))

    def index(self, gate: Gate) -> int:
        """The action of a gate, whatever its angles.

        Raises:
            CircuitError: the table has no such gate.
        """
        try:
            return self._index[gate.name, gate.qubits]
        except KeyError:
            where = f"{gate.name} on {','.join(map(str, gate.qubits))}"
            raise CircuitError(f"{self!r} has no {where}") from None

    # ------------------------------------------------------------------ which actions are redundant
    def last_of(self, circuit: Circuit) -> np.ndarray:
        """The action of the most recent gate on each qubit, int64, shape (n_qubits,); -1 where there is none.

        Raises:
            CircuitError: another number of qubits, or a gate outside the table.
        """
        if circuit.n_qubits != self.n_qubits:
            raise CircuitError(f"the action table is for {self.n_qubits} qubits, got a circuit of {circuit.n_qubits}")
        last = np.full(self.n_qubits, NO_GATE, dtype=np.int64)
        for gate in circuit.gates:
            self.update(last, self.index(gate))
        return last

    def update(self, last: np.ndarray, action: int) -> None:
        """Note in `last`, in place, that `action` was taken."""
        last[self._first[action]] = action
        last[self._second[action]] = action

    def legal(self, last: np.ndarray) -> np.ndarray:
        """Which actions may follow, bool, shape (len(self),).

        An action is illegal exactly when the most recent gate on every qubit it touches is that action itself: a
        second CNOT undoes the first, a second rotation about the same axis only adds its angle.

        Args:
            last: as from `last_of`, shape (n_qubits,).
        """
        return (last[self._first] != self._numbers) | (last[self._second] != self._numbers)

    # ------------------------------------------------------------------ JSON
    def to_json(self) -> dict[str, Any]:
        """JSON-able description; `from_json` reads it back."""
        coupling = None if self.coupling is None else [list(pair) for pair in self.coupling]
        return {"n_qubits": self.n_qubits, "gates": list(self.gates), "coupling": coupling}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ActionTable:
        """Read what `to_json` wrote.

        Raises:
            QasError: malformed data.
        """
        try:
            return cls(data["n_qubits"], data["gates"], data["coupling"])
        except (KeyError, TypeError):
            raise QasError("an action table is described by n_qubits, gates and coupling") from None


def _checked_coupling(n_qubits: int, coupling: Iterable[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    pairs = set()
    try:
        for item in coupling:
            a, b = (operator.index(q) for q in item)
            pairs.add((min(a, b), max(a, b)))
    except (TypeError, ValueError):
        raise QasError(f"a coupling is a list of pairs of qubits, got {coupling!r}") from None
    for a, b in pairs:
        if a < 0 or b >= n_qubits or a == b:
            raise QasError(f"a coupling pairs two different qubits of 0..{n_qubits - 1}, got {a}-{b}")
    reached = {0}
    for _ in range(n_qubits):
        reached |= {q for pair in pairs if reached & set(pair) for q in pair}
    if len(reached) < n_qubits:
        missing = min(set(range(n_qubits)) - reached)
        raise QasError(f"a coupling connects all qubits, got no path from qubit 0 to qubit {missing}")
    return tuple(sorted(pairs))
