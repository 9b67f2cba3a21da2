"""The alphabet: the one place that says which number stands for which gate on which qubits, and which may follow."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, SupportsIndex

import numpy as np

from qas.checks import shortened, whole_number
from qas.circuits import Circuit, Gate
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.gates import SEARCH_GATES, gate_spec
from qas.native import NATIVE_TOLERANCE, NativeGates, Simplifies, native_set, simplified

NONE = -1
"""Stands for no gate: a qubit without one in `last_of`, a token that another alphabet does not have."""

ORDERS = ("by-place", "by-kind")
"""The two numberings of tokens; checkpoints hold the first, pools and encoders the second."""

Pairs = tuple[tuple[int, int], ...]


class Alphabet:
    """Gates on the qubits they may act on, numbered: the letters that circuits are written in. Immutable, hashable.

    A number is a *token*; angles are no part of it. Symmetric gates have one token for each pair, and pairs that may
    not carry a gate have none. Excitations have one token for all orders of their qubits that differ only in the sign
    or the order of the angles. Environments call a token an action.

    Args:
        n_qubits: number of qubits, at least 1.
        gates: names from the gate tables; gates on more qubits than there are are left out.
        coupling: undirected pairs that may carry two-qubit gates; excitations act on qubits all coupled with each
            other. None: all.
        ring: two-qubit gates that act from qubit q to q+1 (mod n) only.
        order: ``"by-place"``: for each two-qubit kind, for each first qubit (control) c, for x = 1 .. n-1 the pair
            (c, (c+x) mod n), so that with one kind and no coupling CNOT has the number c(n-1) + (x-1); then excitations
            by the set of their qubits; then for each qubit, for each one-qubit kind. ``"by-kind"``: for each kind its
            qubits, or its sorted pairs. Kinds keep the order of `gates`.
        connected: whether the coupling must connect all qubits.
        directions: ordered pairs in which two-qubit gates may act, as a device calibrates them, symmetric gates being
            named in that order; they are the coupling where none is given. None: both orders of every pair.

    Raises:
        UnknownNameError: a name outside the gate table, or no such order.
        QasError: a malformed gate set, ring or coupling, a coupling that is not connected, or a gate without a place.

    References:
        Patel et al., "Curriculum reinforcement learning for quantum architecture search under hardware errors",
        ICLR 2024, arXiv:2402.03500 (by place); Sun et al., arXiv:2401.11576 (by kind, ring).
    """

    def __init__(
        self,
        n_qubits: int,
        gates: Sequence[str] = SEARCH_GATES,
        coupling: Iterable[Sequence[int]] | None = None,
        *,
        ring: Sequence[str] = (),
        order: str = "by-place",
        connected: bool = True,
        directions: Iterable[Sequence[int]] | None = None,
    ) -> None:
        self.n_qubits = n = whole_number("the number of qubits", n_qubits)
        several, one = split_gates(gates)
        two = tuple(name for name in several if gate_spec(name).primitive)
        self.gates: tuple[str, ...] = (gates,) if isinstance(gates, str) else tuple(gates)
        """The gate set, in the order given."""
        if order not in ORDERS:
            raise UnknownNameError("order of tokens", order, ORDERS)
        self.order = order
        self.directions = None if directions is None else _checked_directions(n, directions)
        """Sorted ordered pairs, or None for both orders of all."""
        coupling = self.directions if coupling is None else coupling
        self.coupling = None if coupling is None else checked_coupling(n, coupling, connected=connected)
        """Sorted pairs (low, high), or None for all."""
        self.ring: tuple[str, ...] = tuple(name for name in ([ring] if isinstance(ring, str) else ring) if n > 1)
        for name in self.ring:
            if name not in two:
                raise QasError(f"ring names two-qubit gates of the set ({', '.join(two) or 'none'}), got {name!r}")
        fitting = tuple(name for name in several if gate_spec(name).n_qubits <= n)
        if not fitting and not one:
            raise QasError(f"no gate of {', '.join(self.gates)} fits on {n} qubit(s)")
        place_of = {name: self._pairs(name) if name in two else self._sets(name) for name in fitting}
        places: list[tuple[str, tuple[int, ...]]]
        if order == "by-place":
            kinds = sorted(fitting, key=lambda name: name not in two)
            places = [(name, qubits) for name in kinds for qubits in place_of[name]]
            places += [(name, (q,)) for q in range(n) for name in one]
        else:
            known = [name for name in self.gates if name in one or name in fitting]
            alone = [(q,) for q in range(n)]
            places = [(k, p) for k in known for p in (alone if k in one else sorted(place_of[k]))]
        self.placed: tuple[Gate, ...] = tuple(Gate(k, qubits, (0.0,) * gate_spec(k).n_angles) for k, qubits in places)
        """Every gate on every place it may take, angles 0; a token is a position in this tuple."""
        self._token = {key: token for token, key in enumerate(places)}
        self._token |= {
            (name, tuple(qubits[k] for k in order)): token
            for (name, qubits), token in tuple(self._token.items())
            for order in same_orders(name)
        }
        width = max(len(g.qubits) for g in self.placed)
        self._touched = np.array([(*g.qubits, *g.qubits[-1:] * (width - len(g.qubits))) for g in self.placed])
        self.first = np.array([g.qubits[0] for g in self.placed], dtype=np.intp)
        """Token -> its first qubit (control), int64, shape (len(self),)."""
        self.last = np.array([g.qubits[-1] for g in self.placed], dtype=np.intp)
        """Token -> its last qubit (target; of a one-qubit gate the same as `first`), int64, shape (len(self),)."""
        self._numbers = np.arange(len(self.placed))

    def _pairs(self, name: str) -> list[tuple[int, int]]:
        """Where a two-qubit gate may act, by control."""
        n = self.n_qubits
        pairs = [(c, (c + x) % n) for c in range(n) for x in range(1, 2 if name in self.ring else n)]
        if self.coupling is not None:
            pairs = [(a, b) for a, b in pairs if (min(a, b), max(a, b)) in self.coupling]
        held = self.directions
        if held is not None and not gate_spec(name).symmetric:
            pairs = [pair for pair in pairs if pair in held]
        if gate_spec(name).symmetric:
            pairs = list(dict.fromkeys((min(a, b), max(a, b)) for a, b in pairs))
            pairs = [(b, a) if held is not None and (a, b) not in held and (b, a) in held else (a, b) for a, b in pairs]
        if not pairs:
            raise QasError(f"no coupled pair may carry {name}; leave it out of the gates or of ring")
        return pairs

    def _sets(self, name: str) -> list[tuple[int, ...]]:
        """Where an excitation may act: the first of equal orders of each set of qubits."""
        size = gate_spec(name).n_qubits
        orders = first_orders(name)
        sets = [
            chosen
            for chosen in itertools.combinations(range(self.n_qubits), size)
            if self.coupling is None or all(pair in self.coupling for pair in itertools.combinations(chosen, 2))
        ]
        if not sets:
            raise QasError(f"no {size} qubits that are all coupled may carry {name}; leave it out of the gates")
        return [tuple(chosen[k] for k in order) for chosen in sets for order in orders]

    @cached_property
    def native(self) -> NativeGates | None:
        """The gates as those of a device: rz, sx, x and one entangler on its pairs; None where there are others."""
        held = self.coupling if self.directions is None else self.directions
        if held is not None and self.directions is None:
            held = tuple(order for a, b in held for order in ((a, b), (b, a)))
        return native_set(self.gates, held)

    @cached_property
    def moves(self) -> Alphabet:
        """What circuits are changed by: this alphabet, or rotations and cx, cz on its pairs where it is native.

        A rotation is several native gates, so that circuits are edited with rotations and tidied afterwards.
        """
        if self.native is None:
            return self
        two = ("cx", "cz") if self.native.entangler and self.n_qubits > 1 else ()
        return Alphabet(self.n_qubits, ("rx", "ry", "rz", *two), self.coupling, connected=False)

    def simplified(self, circuit: Circuit, problem: Simplifies) -> Circuit:
        """As a search goes on with it (`qas.native.simplified`): native angles may move by `NATIVE_TOLERANCE`."""
        return simplified(circuit, problem, self.native, 1e-9 if self.native is None else NATIVE_TOLERANCE)

    @cached_property
    def kind(self) -> np.ndarray:
        """Token -> position of its gate in `gates`, int64, shape (len(self),)."""
        return np.array([self.gates.index(g.name) for g in self.placed])

    @cached_property
    def symmetric(self) -> np.ndarray:
        """Token -> whether its two qubits may be exchanged, bool, shape (len(self),); False for one-qubit gates."""
        return np.array([gate_spec(g.name).symmetric for g in self.placed])

    # ------------------------------------------------------------------ tokens and gates
    def __len__(self) -> int:
        return len(self.placed)

    def check(self, token: Any) -> int:
        """`token` as an int.

        Raises:
            QasError: not a whole number from 0 to ``len(self) - 1``.
        """
        try:
            number = operator.index(token)
        except TypeError:
            raise QasError(f"an action is a whole number, got {shortened(token)}") from None
        if not 0 <= number < len(self.placed):
            raise QasError(f"actions are numbered 0..{len(self.placed) - 1}, got {number}")
        return number

    def gate(self, token: SupportsIndex, angles: Sequence[float] | None = None) -> Gate:
        """The gate of a token, with these angles in radians (None: zeros).

        Raises:
            QasError: no such token, or the wrong number of angles.
        """
        gate = self.placed[self.check(token)]
        return gate if angles is None else Gate(gate.name, gate.qubits, tuple(float(a) for a in angles))

    def __contains__(self, gate: Gate) -> bool:
        """Whether it has the gate, whatever its angles."""
        return (gate.name, gate.qubits) in self._token

    def index(self, gate: Gate) -> int:
        """The token of a gate, whatever its angles.

        Raises:
            CircuitError: the alphabet has no such gate; the message says why.
        """
        try:
            return self._token[gate.name, gate.qubits]
        except KeyError:
            raise CircuitError(self._why_not(gate)) from None

    def _why_not(self, gate: Gate) -> str:
        if gate.name not in self.gates:
            return f"the gates are {', '.join(self.gates)}, got {gate.name}"
        if max(gate.qubits) >= self.n_qubits:
            return f"qubits are 0..{self.n_qubits - 1}, got {gate.name} on {','.join(map(str, gate.qubits))}"
        shown = ["-".join(map(str, g.qubits)) for g in self.placed if g.name == gate.name]
        places = " ".join(shown[:40]) + (f" and {len(shown) - 40} more places" if len(shown) > 40 else "")
        return f"{gate.name} may act on {places}, got {'-'.join(map(str, gate.qubits))}"

    def tokens_of(self, circuit: Circuit) -> list[int]:
        """The tokens of a circuit's gates, in their order.

        Raises:
            CircuitError: another number of qubits, or a gate outside the alphabet.
        """
        if circuit.n_qubits != self.n_qubits:
            raise CircuitError(f"the gates are on {self.n_qubits} qubits, got a circuit of {circuit.n_qubits}")
        return [self.index(gate) for gate in circuit.gates]

    def tokens_in(self, other: Alphabet) -> np.ndarray:
        """Token -> the token of the same gate in another alphabet, int64, shape (len(self),); -1 where it has none."""
        return np.array([other._token.get((g.name, g.qubits), NONE) for g in self.placed], dtype=np.int64)

    def coupled(self, pairs: Iterable[Sequence[int]]) -> np.ndarray:
        """Which tokens are left where only these pairs may carry two-qubit gates, bool, shape (len(self),).

        Raises:
            QasError: no list of pairs of different qubits.
        """
        held = set(checked_coupling(self.n_qubits, pairs, connected=False))
        return np.array([held.issuperset(itertools.combinations(sorted(g.qubits), 2)) for g in self.placed])

    def table(self, allowed: np.ndarray | None = None, *, either_order: bool = False) -> np.ndarray:
        """(kind, first qubit, last qubit) -> token, -1 where there is none; int64, shape (gates, n_qubits, n_qubits).

        Args:
            allowed: which tokens to enter, bool, shape (len(self),); None: all.
            either_order: a pair in the order that has no token stands for the other order.

        Raises:
            QasError: gates on more than two qubits.
        """
        if self._touched.shape[1] > 2:
            raise QasError(f"a table of pairs holds gates on one and two qubits, got {', '.join(self.gates)}")
        found = np.full((len(self.gates), self.n_qubits, self.n_qubits), NONE, dtype=np.int64)
        tokens = self._numbers if allowed is None else np.flatnonzero(allowed)
        turned = tokens[self.symmetric[tokens] | either_order]
        found[self.kind[turned], self.last[turned], self.first[turned]] = turned
        found[self.kind[tokens], self.first[tokens], self.last[tokens]] = tokens
        return found

    # ------------------------------------------------------------------ which tokens are redundant
    def last_of(self, circuit: Circuit) -> np.ndarray:
        """The token of the most recent gate on each qubit, int64, shape (n_qubits,); -1 where there is none.

        Raises:
            CircuitError: another number of qubits, or a gate outside the alphabet.
        """
        last = np.full(self.n_qubits, NONE, dtype=np.int64)
        for token in self.tokens_of(circuit):
            self.update(last, token)
        return last

    def update(self, last: np.ndarray, token: int) -> None:
        """Note in `last`, in place, that `token` was appended."""
        last[self._touched[token]] = token

    def legal(self, last: np.ndarray) -> np.ndarray:
        """Which tokens may follow, bool, shape (len(self),).

        A token is illegal exactly when the most recent gate on every qubit it touches is that token itself: a second
        CNOT undoes the first, a second rotation about the same axis only adds its angle.

        Args:
            last: as from `last_of`, shape (n_qubits,).
        """
        return (last[self._touched] != self._numbers[:, None]).any(axis=1)

    # ------------------------------------------------------------------ comparing, JSON
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alphabet) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.n_qubits, self.gates, self.coupling, self.directions, self.ring, self.order))

    def __repr__(self) -> str:
        pairs, sign = (self.coupling, "-") if self.directions is None else (self.directions, "→")
        coupling = "" if pairs is None else ", coupling " + " ".join(f"{a}{sign}{b}" for a, b in pairs)
        return f"Alphabet({self.n_qubits} qubits, {', '.join(self.gates)}{coupling}: {len(self)} placed gates)"

    def to_json(self) -> dict[str, Any]:
        """JSON-able description; `from_json` reads it back. Directions, a ring and the order by kind are told
        where there are."""
        coupling = None if self.coupling is None else [list(pair) for pair in self.coupling]
        told: dict[str, Any] = {"n_qubits": self.n_qubits, "gates": list(self.gates), "coupling": coupling}
        told |= {} if self.directions is None else {"directions": [list(pair) for pair in self.directions]}
        told |= {"ring": list(self.ring)} if self.ring else {}
        return told | ({"order": self.order} if self.order != ORDERS[0] else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Alphabet:
        """Read what `to_json` wrote.

        Raises:
            QasError: malformed data.
        """
        try:
            more = {name: data[name] for name in ("ring", "order", "directions") if name in data}
            return cls(data["n_qubits"], data["gates"], data["coupling"], connected=False, **more)
        except (KeyError, TypeError):
            raise QasError("an alphabet is described by n_qubits, gates and coupling") from None


def split_gates(gates: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names on several qubits and the names on one qubit, both in the order given.

    Raises:
        UnknownNameError: a name outside the gate table.
        QasError: no name, or one given twice.
    """
    names = (gates,) if isinstance(gates, str) else tuple(gates)
    sizes = {name: gate_spec(name).n_qubits for name in names}
    if not names:
        raise QasError("a gate set has at least one gate, got none")
    if len(sizes) < len(names):
        raise QasError(f"a gate set names every gate once, got {', '.join(names)}")
    return tuple(n for n in names if sizes[n] > 1), tuple(n for n in names if sizes[n] == 1)


@cache
def same_orders(name: str) -> tuple[tuple[int, ...], ...]:
    """Orders of a gate's qubits that leave it as it is, up to the sign and the order of its angles."""
    spec = gate_spec(name)
    orders = itertools.permutations(range(spec.n_qubits))
    if spec.primitive:
        return ((0, 1), (1, 0)) if spec.symmetric else (tuple(range(spec.n_qubits)),)
    own = _turned(name, tuple(range(spec.n_qubits)))
    return tuple(order for order in orders if _turned(name, order) == own)


@cache
def first_orders(name: str) -> tuple[tuple[int, ...], ...]:
    """One of each class of orders of an excitation's qubits that are not the same."""
    found: dict[frozenset[tuple[int, int]], tuple[int, ...]] = {}
    for order in itertools.permutations(range(gate_spec(name).n_qubits)):
        found.setdefault(_turned(name, order), order)
    return tuple(found.values())


def _turned(name: str, order: tuple[int, ...]) -> frozenset[tuple[int, int]]:
    """The pairs of states that an excitation turns, each with its sign relative to the first, on reordered qubits."""
    spec = gate_spec(name)
    full = (1 << spec.n_qubits) - 1
    signs = {}
    for state, weights in spec.exchanges:
        moved = sum((state >> k & 1) << q for k, q in enumerate(order))
        sign = -1 if moved & 1 else 1
        signs[min(moved, full - moved)] = sign * sum(weights) if spec.n_angles == 1 else 1
    first = signs[min(signs)]
    return frozenset((pair, sign * first) for pair, sign in signs.items())


def _checked_directions(n_qubits: int, pairs: Iterable[Sequence[int]]) -> Pairs:
    """Ordered pairs, sorted.

    Raises:
        QasError: no list of pairs of different qubits.
    """
    listed = list(pairs)
    checked_coupling(n_qubits, listed, connected=False)
    return tuple(sorted({(operator.index(a), operator.index(b)) for a, b in listed}))


def checked_coupling(n_qubits: int, pairs: Iterable[Sequence[int]], *, connected: bool) -> Pairs:
    """A coupling as sorted pairs (low, high).

    Raises:
        QasError: no list of pairs of different qubits, or, if asked for, pairs that do not connect all qubits.
    """
    found = set()
    try:
        for pair in pairs:
            a, b = (operator.index(qubit) for qubit in pair)
            found.add((min(a, b), max(a, b)))
    except (TypeError, ValueError):
        raise QasError(f"a coupling is a list of pairs of qubits, got {shortened(pairs)}") from None
    for a, b in found:
        if a < 0 or b >= n_qubits or a == b:
            raise QasError(f"a coupling pairs two different qubits of 0..{n_qubits - 1}, got {a}-{b}")
    if connected:
        reached = {0}
        for _ in range(n_qubits):
            reached |= {q for pair in found if reached & set(pair) for q in pair}
        if len(reached) < n_qubits:
            missing = min(set(range(n_qubits)) - reached)
            raise QasError(f"a coupling connects all qubits, got no path from qubit 0 to qubit {missing}")
    return tuple(sorted(found))
