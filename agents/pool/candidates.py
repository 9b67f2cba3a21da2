"""Where the circuits come from that an agent chooses among.

All are rows of one `CircuitSpace`, and obey the gates, coupling and length of a search (`Rules`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qas.alphabet import NONE, Alphabet
from qas.encoders.pools.reduction import reduce_rows
from qas.encoders.pools.spaces import PADDING, CircuitSpace, distinct
from qas.errors import CircuitError, QasError

if TYPE_CHECKING:
    from qas.encoders.trained import TrainedEncoder


def encoder_for(name: str | None, n_qubits: int) -> TrainedEncoder:
    """The encoder of that name, or the shipped one for so many qubits.

    Raises:
        QasError: there is none, or it is for another number of qubits.
    """
    from qas.encoders import trained

    if name is None:
        name = f"q{n_qubits}"
        if name not in trained.list_encoders():
            raise QasError(
                f"encoders come with the package for 4 and 8 qubits, the problem has {n_qubits}; train one with qas "
                "pool build and qas encoder train, and name its folder with --encoder"
            )
        shipped = trained.SHIPPED / name  # goes before a folder of that name which happens to be here
        name = str(shipped) if shipped.is_dir() else name
    encoder = trained.load_encoder(name)
    if encoder.space.n_qubits != n_qubits:
        raise QasError(f"encoder {name} is for {encoder.space.n_qubits} qubits, the problem has {n_qubits}")
    return encoder


# ---------------------------------------------------------------------- what a search permits
class Rules:
    """Which circuits of a space a search permits.

    Args:
        space: the circuits' space.
        alphabet: gates and coupling of the search.
        max_gates: longest circuit.

    Raises:
        QasError: gates that the space does not have.
    """

    def __init__(
        self,
        space: CircuitSpace,
        alphabet: Alphabet,
        max_gates: int,
    ) -> None:
        placed = {gate.name for gate in alphabet.placed}  # on one qubit there is no place for a CX
        foreign = [name for name in alphabet.gates if name in placed and name not in space.gates]
        if foreign:
            raise QasError(f"the encoder knows the gates {', '.join(space.gates)}, got {foreign[0]}")
        self.space, self.max_gates = space, max_gates
        self.gates, self.coupling, self.directions = alphabet.gates, alphabet.coupling, alphabet.directions
        self.allowed = space.alphabet.tokens_in(alphabet) != NONE
        """Which placed gates of the space may be used, (n_tokens,)."""

    def permitted(self, rows: np.ndarray) -> np.ndarray:
        """Which circuits obey the search's gates, coupling and length, bool, shape (size,)."""
        fine = np.append(self.allowed, True)[rows].all(axis=1)  # -1, the padding, reads the last entry
        return fine & ((rows != PADDING).sum(axis=1) <= self.max_gates)

    def draw(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """At most `size` different circuits of the space; a small space may hold fewer.

        Raises:
            QasError: the coupling leaves no place for any gate.
        """
        space, most = self.space, min(self.space.max_gates, self.max_gates)
        gates = {space.placed[token].name for token in np.flatnonzero(self.allowed)}
        if not gates:
            raise QasError(f"the coupling leaves no place for {', '.join(self.gates)} in the encoder")
        coupling = self.coupling
        if coupling is not None and space.coupling is not None:
            coupling = tuple(pair for pair in coupling if pair in space.coupling)
        directions = self.directions
        if directions is not None and space.directions is not None:
            directions = tuple(pair for pair in directions if pair in space.directions)
        narrow = space
        if coupling is not None or len(gates) < len(space.gates) or most < space.max_gates:
            narrow = CircuitSpace(
                space.n_qubits,
                [name for name in space.gates if name in gates],
                max_gates=most,
                min_gates=min(space.min_gates, most),
                max_depth=space.max_depth,
                ring=[name for name in space.ring if name in gates],
                coupling=coupling if coupling is not None else space.coupling,
                directions=directions if directions is not None else space.directions,
            )
        return translate(distinct(narrow.sample(size, rng)), narrow, space)

    def of_pool(self, folder: str) -> np.ndarray:
        """The circuits of a pool folder that the search permits.

        Raises:
            QasError: the pool does not fit the space, or has fewer than two such circuits.
        """
        from qas.encoders.pools.pool import Pool

        found = Pool(folder)
        rows = translate(found.rows, found.space, self.space)
        rows = rows[self.permitted(rows)]
        if len(rows) < 2:
            raise QasError("the pool has fewer than 2 circuits with the gates, coupling and length of the search")
        return rows


def translate(rows: np.ndarray, source: CircuitSpace, target: CircuitSpace) -> np.ndarray:
    """Rows of one space as canonical rows of another.

    Raises:
        QasError: the target space does not hold the circuits; the message says what differs.
    """
    if source == target:
        return rows
    if source.n_qubits != target.n_qubits:
        raise QasError(f"the pool is for {source.n_qubits} qubits, the encoder for {target.n_qubits}")
    if source.max_gates > target.max_gates:
        raise QasError(f"the pool has circuits of {source.max_gates} gates, the encoder holds {target.max_gates}")
    if source.max_depth > target.max_depth:
        raise QasError(f"the pool has circuits of {source.max_depth} layers, the encoder holds {target.max_depth}")
    tokens = source.alphabet.tokens_in(target.alphabet)
    for token in np.flatnonzero(tokens == NONE):
        try:
            target.alphabet.index(source.placed[token])
        except CircuitError as error:
            raise QasError(f"the pool does not fit the encoder: {error}") from None
    wide = np.full((len(rows), target.max_gates), PADDING, dtype=np.int16)
    wide[:, : source.max_gates] = np.append(tokens, PADDING)[rows]
    return target.canonical(wide)


def one_of_each(rows: np.ndarray, space: CircuitSpace, *, noisy: bool = False) -> np.ndarray:
    """Indices, in order, of one circuit for every reduced form: the one with the fewest gates, of equals the first.

    Args:
        noisy: two-qubit gates count first, as they cost most on a device.
    """
    used = rows != PADDING
    gates = used.sum(axis=1)
    two = (used & (space.first[rows] != space.last[rows])).sum(axis=1)
    order = np.lexsort((gates, two)) if noisy else np.argsort(gates, kind="stable")
    _, first = np.unique(reduce_rows(rows, space)[order], axis=0, return_index=True)
    return np.sort(order[first])
