"""The part of an architecture that matters: equal reduced forms reach equal energies on every problem.

With free angles and a register that starts in |0…0>, most of a random circuit does nothing. SWAPs and Pauli gates move
to the start of the circuit, where the former vanish and the latter leave at most a flipped qubit; rotations take up
Pauli gates by a shift of their angle; gates that commute with what stands before them move back until they merge with
another gate or vanish on the initial state; three rotations in a row are any one-qubit gate.
"""

from __future__ import annotations

import functools

import numpy as np

from qas.encoders.pools.spaces import PADDING, CircuitSpace
from qas.simulators._compile import compiled

_KINDS = (
    "x",
    "y",
    "z",
    "h",
    "s",
    "sdg",
    "t",
    "tdg",
    "sx",
    "rx",
    "ry",
    "rz",
    "u",
    "cx",
    "cz",
    "ecr",
    "swap",
    "rxx",
    "ryy",
    "rzz",
)
_X, _Y, _Z, _H, _S, _SDG, _T, _TDG, _SX, _RX, _RY, _RZ, _U, _CX, _CZ, _ECR, _SWAP, _RXX, _RYY, _RZZ = range(len(_KINDS))


@functools.lru_cache(maxsize=64)
def reduced_space(space: CircuitSpace) -> CircuitSpace:
    """The space of the reduced forms of a space's circuits: any pair of qubits, no depth limit, no Y, Z and SWAP.

    It can hold more gates than `space`: a flipped initial qubit counts as an X gate.
    """
    kept = tuple(name for name in space.gates if name not in ("x", "y", "z", "swap", "u"))
    most = space.max_gates * (2 if {"t", "tdg"} & set(space.gates) else 1) + space.n_qubits
    return CircuitSpace(space.n_qubits, ("x", *kept, "u"), max_gates=most, min_gates=0, max_depth=0, ring=())


def reduce_rows(rows: np.ndarray, space: CircuitSpace) -> np.ndarray:
    """Reduced forms, canonical rows of `reduced_space(space)`, int16, shape (size, its max_gates).

    For every angle setting of a circuit there are angles of its reduced form that prepare the same state from |0…0> up
    to a global phase, and the other way round: both reach the same energies on every problem. Qubits are not exchanged:
    SWAPs move to the start, where they leave |0…0> alone, and rename the qubits of the gates they pass.

    Equal forms prepare equal states; the converse does not hold, since T, S and SX gates are neither merged nor
    cancelled. Without T gates a reduced form is its own reduced form.

    Raises:
        CircuitError: rows that are not of this space.
    """
    rows = space.check_rows(rows)
    target = reduced_space(space)
    kind = np.array([_KINDS.index(name) for name in space.gates])[space.kind]
    place = np.full((len(_KINDS), space.n_qubits, space.n_qubits), PADDING, dtype=np.int16)
    place[[_KINDS.index(name) for name in target.gates]] = target.alphabet.table()
    reduced = np.full((len(rows), target.max_gates), PADDING, dtype=np.int16)
    reduce_all(np.ascontiguousarray(rows), kind, space.first, space.last, space.n_qubits, place, reduced)
    return target.canonical(reduced)


@compiled()
def reduce_all(rows, kind, first, last, n, place, reduced):  # type: ignore[no-untyped-def]
    most = reduced.shape[1] + n + 1
    k, a, b = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    ko, ao, bo = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    flipped = np.zeros(n, np.bool_)
    for r in range(rows.shape[0]):
        begin = _to_the_start(rows[r], kind, first, last, n, k, a, b, flipped)
        size = most - begin
        for i in range(size):
            k[i], a[i], b[i] = k[begin + i], a[begin + i], b[begin + i]
        idle = 0
        while idle < 2:  # gates that moved back can meet others in the next round
            kept = 0
            for i in range(size):
                kept = _add(k[i], a[i], b[i], ko, ao, bo, kept, flipped)
            idle = idle + 1 if kept == size else 0
            size = kept
            for i in range(size):
                k[i], a[i], b[i] = ko[i], ao[i], bo[i]
        position = 0
        for q in range(n):
            if flipped[q]:
                reduced[r, position] = place[_X, q, q]
                position += 1
        for i in range(size):
            reduced[r, position] = place[k[i], a[i], b[i]]
            position += 1


@compiled()
def _to_the_start(row, kind, first, last, n, k, a, b, flipped):  # type: ignore[no-untyped-def]
    """Move SWAPs and Pauli gates to the start, from the last gate to the first; returns where the gates begin."""
    place = np.arange(n)
    x, z = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    position = len(k)
    for i in range(len(row) - 1, -1, -1):
        if row[i] < 0:
            continue
        g, p, q = kind[row[i]], place[first[row[i]]], place[last[row[i]]]
        if g == _SWAP:
            place[first[row[i]]], place[last[row[i]]] = q, p
            continue
        if g in (_X, _Y, _Z):
            x[p] ^= g != _Z
            z[p] ^= g != _X
            continue
        if g == _U:
            x[p] = z[p] = False
        elif g == _RX:
            x[p] = False
        elif g == _RZ:
            z[p] = False
        elif g == _RY:
            if x[p]:
                x[p] = False
                z[p] ^= True
        elif g == _H:
            x[p], z[p] = z[p], x[p]
        elif g in (_S, _SDG):
            z[p] ^= x[p]
        elif g == _SX:
            x[p] ^= z[p]
        elif (g in (_T, _TDG)) and x[p]:
            x[p] = False
            position -= 1
            k[position], a[position], b[position] = _X, p, p
        elif g == _CX:
            x[q] ^= x[p]
            z[p] ^= z[q]
        elif g == _CZ:
            z[q] ^= x[p]
            z[p] ^= x[q]
        elif g == _ECR:
            turned = x[p] ^ z[q]
            x[q] ^= turned
            z[p] ^= turned
        position -= 1
        k[position], a[position], b[position] = g, p, q
    for q in range(n):
        flipped[q] = x[q]
    return position


@compiled()
def _before(w, position, a, b):  # type: ignore[no-untyped-def]
    """Position of the last gate on wire w before `position`, or -1."""
    j = position - 1
    while j >= 0 and a[j] != w and b[j] != w:
        j -= 1
    return j


@compiled()
def _delete(j, k, a, b, kept):  # type: ignore[no-untyped-def]
    for i in range(j, kept - 1):
        k[i], a[i], b[i] = k[i + 1], a[i + 1], b[i + 1]
    return kept - 1


@compiled()
def _insert(j, g, p, q, k, a, b, kept):  # type: ignore[no-untyped-def]
    for i in range(kept, j, -1):
        k[i], a[i], b[i] = k[i - 1], a[i - 1], b[i - 1]
    k[j], a[j], b[j] = g, p, q
    return kept + 1


@compiled()
def _diagonal(g):  # type: ignore[no-untyped-def]
    return g in (_RZ, _S, _SDG, _T, _TDG)


@compiled()
def _commutes(g, w, other, p, q):  # type: ignore[no-untyped-def]
    """Whether the one-qubit gate g on wire w commutes with the two-qubit gate `other` on (p, q), its sign aside."""
    if _diagonal(g):
        return other in (_CZ, _RZZ) or (other == _CX and w == p) or (other == _ECR and w == p and g == _RZ)
    if g in (_RX, _SX):
        return other == _RXX or (other in (_CX, _ECR) and w == q)
    return g == _RY and other == _RYY


@compiled()
def _add(g, p, q, k, a, b, kept, flipped):  # type: ignore[no-untyped-def]
    """Add one gate to a reduced circuit; returns its new size."""
    if p != q:
        return _add_pair(g, p, q, k, a, b, kept, flipped)
    position = kept
    while True:
        j = _before(p, position, a, b)
        if j < 0:
            if _diagonal(g):
                return kept
            if g == _X:
                flipped[p] = not flipped[p]
                return kept
            if g in (_RX, _RY, _U):
                flipped[p] = False
            return _insert(0, g, p, p, k, a, b, kept)
        if a[j] != b[j]:
            if not _commutes(g, p, k[j], a[j], b[j]):
                return _insert(j + 1, g, p, p, k, a, b, kept)
            position = j
            continue
        other, rotation = k[j], _RX <= g <= _RZ
        if other == _U or (other == g and rotation):
            return kept
        if g == _H and other == _H:
            return _delete(j, k, a, b, kept)
        earlier = _before(p, j, a, b)
        # Two rotations about different axes reach every state from |0>; three reach every one-qubit gate.
        third = earlier < 0 or (a[earlier] == b[earlier] and _RX <= k[earlier] <= _RZ)
        if rotation and _RX <= other <= _RZ and third:
            g = _U
        if g == _U:
            kept = _delete(j, k, a, b, kept)
            position = j
            continue
        if earlier < 0 and other == _H:
            if g == _RX:
                return kept  # |+> and |-> are its eigenstates
            if g == _RY:
                # From |+> and from |0> it reaches the same circle of states.
                kept = _delete(j, k, a, b, kept)
                position = j
                continue
        return _insert(j + 1, g, p, p, k, a, b, kept)


@compiled()
def _add_pair(g, p, q, k, a, b, kept, flipped):  # type: ignore[no-untyped-def]
    i, j = _before(p, kept, a, b), _before(q, kept, a, b)
    if g == _CX and i < 0 and not flipped[p]:
        return kept
    if g == _CX and j >= 0 and k[j] == _H and _before(q, j, a, b) < 0:
        return kept if not flipped[q] else _insert(kept, g, p, q, k, a, b, kept)
    if g == _CZ and ((i < 0 and not flipped[p]) or (j < 0 and not flipped[q])):
        return kept
    if g != _CX and g != _ECR and p > q:
        p, q = q, p
    if i >= 0 and i == j and k[i] == g and a[i] == p and b[i] == q:
        # Self-inverse gates cancel, equal rotations merge.
        return _delete(i, k, a, b, kept) if g in (_CX, _CZ, _ECR) else kept
    return _insert(kept, g, p, q, k, a, b, kept)
