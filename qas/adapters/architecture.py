"""Architectures of adapter layers: gate lists without angles, and the layer sizes they fit."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

from qas.adapters.program import (
    GATE_ANGLES,
    GATE_WIRES,
    ODD,
    Clifford,
    Program,
    Rotation,
    compile_program,
    is_real,
    lower,
)
from qas.checks import shortened, whole_number
from qas.circuits import Circuit
from qas.errors import CircuitError, QasError, RunError, UnknownNameError
from qas.files import check_versioned, versioned
from qas.schema import Positive, Qubits, conform
from qas.simplify import simplify

FORMAT = "qas-adapter-architecture"
SEVERAL = "qas-adapter-architectures"
VERSION = 1
"""Schema version of `Architecture.to_json` and `Architectures.to_json`; a newer one is refused."""
MAX_ODD = 11
"""Largest odd factor of a layer size that gets its own axis; m costs m(m-1)/2 angles."""
MAX_LAYERS = 999
"""Of a named architecture, whose description has 16 bits."""
MAX_QUBITS = 20
ARCHITECTURES = {
    "quantum-peft": "brickwork of RY and CZ, the Pauli parametrization of Quantum-PEFT (arXiv:2503.05431)",
    "taylor": "truncated exponential of a low-rank skew matrix, Quantum-PEFT's other map; no circuit",
}


@dataclass(frozen=True)
class Layout:
    """How the features of a layer are laid out: index = level * 2**n_qubits + bits."""

    features: int
    n_qubits: int
    odd: int = 1

    @property
    def size(self) -> int:
        """Rows of the map; where it has more than the layer, frames keep the first `features` rows."""
        return self.odd << self.n_qubits


def layout(features: int, *, exact: bool = False) -> Layout:
    """The layout of a layer: mixed radix 2^n m where the odd factor m is at most 11, else padded to a power of two.

    Args:
        features: size of the layer.
        exact: no padding (rotations need it): the largest 2^n m of at most `features`, which are at least 2.

    Raises:
        QasError: too few features, or no whole number.
    """
    features = whole_number("the number of features of an adapted layer", features, 2 if exact else 1)
    bits = (features & -features).bit_length() - 1
    odd = features >> bits
    if odd <= MAX_ODD and bits:
        return Layout(features, bits, odd)
    if not exact:
        return Layout(features, max(1, (features - 1).bit_length()))
    size, m = max((m << int(math.log2(features / m)), m) for m in range(1, MAX_ODD + 1, 2) if 2 * m <= features)
    return Layout(features, (size // m).bit_length() - 1, m)


class _Told(TypedDict):
    name: str
    n_qubits: Qubits
    odd: Positive
    gates: list[list[str | int]]
    hash: str


class _Several(TypedDict):
    members: list[dict[str, Any]]


@dataclass(frozen=True)
class Architecture:
    """Gates of an adapter layer in the order they act, angles left out. Immutable.

    Attributes:
        n_qubits: number of qubits.
        gates: (name, wires); names as in `qas.adapters.program.GATE_ANGLES`, and on the odd axis (wire -1) ``so`` and
            ``cz``.
        odd: levels of the odd axis, at most 11; 1 for none.
        name: where it comes from, for lists.

    Raises:
        UnknownNameError: a gate that adapters do not have.
        CircuitError: sizes out of range, wires that do not fit, or complex gates beside an odd axis.
    """

    n_qubits: int
    gates: tuple[tuple[str, tuple[int, ...]], ...]
    odd: int = 1
    name: str = "custom"

    def __post_init__(self) -> None:
        if not 1 <= self.n_qubits <= MAX_QUBITS:
            raise CircuitError(f"an adapter circuit has 1 to {MAX_QUBITS} qubits, got {self.n_qubits}")
        if not 1 <= self.odd <= MAX_ODD or self.odd % 2 == 0:
            raise CircuitError(f"the odd axis has an odd number of levels up to {MAX_ODD}, got {self.odd}")
        for name, wires in self.gates:
            if name not in GATE_ANGLES and name != "so":
                raise UnknownNameError("gate of an adapter", name, [*GATE_ANGLES, "so"])
            wanted = GATE_WIRES.get(name, 1)
            if len(wires) != wanted or len(set(wires)) != wanted:
                raise CircuitError(f"{name} acts on {wanted} wire(s), got {wires}")
            on_odd = ODD in wires
            if on_odd and (self.odd == 1 or name not in ("so", "cz")):
                raise CircuitError(f"only so and cz act on the odd axis of a layer that has one, got {name} on {wires}")
            if name == "so" and not on_odd:
                raise CircuitError(f"so acts on the odd axis (wire {ODD}), got {wires}")
            if any(w != ODD and not 0 <= w < self.n_qubits for w in wires):
                raise CircuitError(f"wires are qubits 0..{self.n_qubits - 1}, got {name} on {wires}")
        if self.odd > 1 and not is_real(name for name, _ in self.gates):
            raise CircuitError(f"gates with complex entries have no odd axis beside them, got one of {self.odd} levels")

    @classmethod
    def from_circuit(cls, circuit: Circuit, name: str = "circuit") -> Architecture:
        """The gates of a circuit; their angles are left behind."""
        return cls(circuit.n_qubits, tuple((g.name, g.qubits) for g in circuit.gates), name=name)

    # ------------------------------------------------------------------ measures
    @cached_property
    def _lowered(self) -> tuple[list[Rotation | Clifford], int, int]:
        return lower(self.gates, self.n_qubits, self.odd)

    @property
    def operations(self) -> list[Rotation | Clifford]:
        """Rotations and signed permutations of the gates in their order."""
        return self._lowered[0]

    @property
    def n_bits(self) -> int:
        """log2 of the real dimension without the odd axis: one more than the qubits if a gate is complex."""
        return self._lowered[1]

    @property
    def n_angles(self) -> int:
        return self._lowered[2]

    @property
    def size(self) -> int:
        """Rows of the map."""
        return self.odd << self.n_bits

    @cached_property
    def program(self) -> Program:
        """The map itself, R(angles)."""
        ops, bits, angles = self._lowered
        return compile_program(ops, bits, angles, odd=self.odd)

    @cached_property
    def relative_program(self) -> Program:
        """C^-1 R(angles) for the Clifford skeleton C = R(0): the identity at angles zero."""
        ops, bits, angles = self._lowered
        return compile_program(ops, bits, angles, odd=self.odd, absorb_quarters=True)

    @property
    def tangent_rank(self) -> int:
        """Dimension of what the angles reach to first order around angles zero; at best `n_angles`.

        Raises:
            QasError: fixed gates that are no Clifford gates (t, tdg).
        """
        return self.relative_program.tangent_rank

    @cached_property
    def description_bits(self) -> int:
        """Bits that tell this gate list from all others of its length over its kinds of gates; 16 for a named one.

        Gates on the odd axis are left out: `for_layer` adds the same ones everywhere.
        """
        layers = self.name.removeprefix("quantum-peft-")
        if re.fullmatch(r"\d{1,3}", layers, re.ASCII) and self == quantum_peft(self.size, int(layers))[0]:
            return 16
        n = self.n_qubits
        kinds = {name for name, wires in self.gates if ODD not in wires}
        pairs = n * (n - 1)
        places = {name: pairs if name in ("cx", "givens") else pairs // 2 for name in GATE_WIRES}
        choices = sum(places.get(kind, n) for kind in kinds)
        length = sum(ODD not in wires for _, wires in self.gates)
        return math.ceil(length * math.log2(max(2, choices))) + 16

    # ------------------------------------------------------------------ layers
    def for_layer(self, features: int, *, exact: bool = False) -> tuple[Architecture, Layout]:
        """This architecture on a layer of `features`: cut for a narrower layer, with more axes for a wider one.

        An architecture of n bits fits 2^n features. For layers of half as many or fewer (with `exact`, fewer than 2^n)
        it is `cut` to the qubits that `layout` gives them. On wider layers it turns the lowest n bits, and every
        further axis (qubits first, then an odd one of m up to 11 levels) is turned, coupled to every qubit below it by
        bit parity, and turned again: 2^(n+k) m features, two angles for each of k qubits and m(m-1) for the odd axis.
        A size of no such form is padded to the next power of two, of which the layer keeps the first rows; `exact`
        takes the largest 2^(n+k) m below instead, and the layer keeps the features beyond it as they are.

        Raises:
            CircuitError: 2 features for complex gates, a cut that leaves no angles, or other features than those of an
                architecture that has an odd axis already.
        """
        fitted, place = _fitted(self, features, exact)
        return self if fitted == self else fitted, place

    def cut(self, n_qubits: int) -> Architecture:
        """The gates on the lowest qubits alone, in their order; rotations that become neighbours are one.

        Unlike the first rows of the wider matrix, this is an orthogonal matrix again.

        Raises:
            CircuitError: fewer than one qubit, or an odd axis.
        """
        gates = [(name, wires) for name, wires in self.gates if all(0 <= w < n_qubits for w in wires)]
        if self.odd > 1 or n_qubits < 1:
            raise CircuitError("an architecture of qubits alone is cut to at least one of them")
        # Any angles that add up to no multiple of a turn.
        whole = Circuit(n_qubits, [(name, wires, [1.0] * GATE_ANGLES[name]) for name, wires in gates])
        left = simplify(whole, angle_tolerance=0.0, whole=True)
        return Architecture(n_qubits, tuple((g.name, g.qubits) for g in left), name=self.name)

    def on_layer(self, features: int, *, exact: bool = False) -> str:
        """What `for_layer` does for a layer, in words: ``"7 of 8 qubits, 43 angles"``."""
        fitted, place = self.for_layer(features, exact=exact)
        kept, more = min(self.n_qubits, fitted.n_qubits), fitted.n_qubits - self.n_qubits
        words = f"{kept} of {self.n_qubits} qubits" if more < 0 else f"{kept} qubits"
        words += f" and {more} more" if more > 0 else ""
        words += f" and {fitted.odd} levels" if fitted.odd > 1 else ""
        words += f", {fitted.n_angles} angles"
        if place.size == features:
            return words
        return words + (f", first {features} rows" if place.size > features else f", first {place.size} features")

    # ------------------------------------------------------------------ JSON
    @cached_property
    def hash(self) -> str:
        """Of wires and gates, 32 hexadecimal digits."""
        text = json.dumps([self.n_qubits, self.odd, [[name, list(wires)] for name, wires in self.gates]])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """JSON-able; `from_json` reads it back."""
        gates = [[name, *wires] for name, wires in self.gates]
        about = {"name": self.name, "n_qubits": self.n_qubits, "odd": self.odd, "gates": gates, "hash": self.hash}
        return versioned(FORMAT, VERSION, about)

    @classmethod
    def from_json(cls, data: Any) -> Architecture:
        """Read what `to_json` wrote.

        Raises:
            QasError: no such object, a newer version, malformed gates, or a hash that is not that of the gates.
        """
        data = check_versioned(data, FORMAT, VERSION, "an adapter architecture")
        conform(data, _Told, "the adapter architecture", error=QasError)
        found = cls(data["n_qubits"], _gates_of(data["gates"]), data["odd"], data["name"])
        if data["hash"] != found.hash:
            raise QasError(f"the gates of the architecture have hash {found.hash}, got {shortened(data['hash'])}")
        return found


def _gates_of(told: list[list[Any]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    for gate in told:
        if [type(part) for part in gate] != [str, *[int] * (len(gate) - 1)]:
            raise QasError(f"a gate of an adapter architecture is a name and its wires, got {shortened(gate)}")
    return tuple((name, tuple(wires)) for name, *wires in told)


@functools.lru_cache(maxsize=256)
def _fitted(architecture: Architecture, features: int, exact: bool) -> tuple[Architecture, Layout]:
    n = architecture.n_bits
    if architecture.odd > 1:
        if features != architecture.size:
            raise CircuitError(f"the architecture is for layers of {architecture.size} features, got {features}")
        return architecture, Layout(features, n, architecture.odd)
    if features >= (1 << n if exact else (1 << n - 1) + 1):
        return _widened(architecture, features, exact)
    imaginary = n - architecture.n_qubits
    bits = features.bit_length() - 1 if exact else (features - 1).bit_length()
    qubits = bits - 1 if imaginary else layout(features, exact=exact).n_qubits
    if qubits < 1:
        raise CircuitError(
            "complex gates take two real features for each amplitude and fit layers of at least "
            f"{4 if exact else 3} features, got {features}"
        )
    cut = architecture.cut(qubits)
    if architecture.n_angles and not cut.n_angles:
        raise CircuitError(
            f"a layer of {features} features takes the gates on the lowest {qubits} of {architecture.n_qubits} qubits, "
            "and of this circuit these have no angles"
        )
    return _widened(cut, features, exact)


def _widened(architecture: Architecture, features: int, exact: bool) -> tuple[Architecture, Layout]:
    n = architecture.n_bits
    most_odd = MAX_ODD if n == architecture.n_qubits else 1
    sizes = [(m << k, m, k) for m in range(1, most_odd + 1, 2) for k in range(n, MAX_QUBITS + 1)]
    fitting = [found for found in sizes if found[0] == features]
    if not fitting and exact:
        fitting = [max(found for found in sizes if found[0] <= features)]
    _, odd, bits = fitting[0] if fitting else (0, 1, max(1, (features - 1).bit_length()))
    qubits = architecture.n_qubits + bits - n
    gates = list(architecture.gates)
    for axis in (*range(architecture.n_qubits, qubits), *([ODD] if odd > 1 else [])):
        turn = ("so" if axis == ODD else "ry", (axis,))
        below = range(qubits if axis == ODD else axis)
        gates += [turn, *(("cz", (axis, q)) for q in below), turn]
    if len(gates) > len(architecture.gates):
        architecture = Architecture(qubits, tuple(gates), odd, architecture.name)
    return architecture, Layout(features, bits, odd)


# ---------------------------------------------------------------------- several at once
@dataclass(frozen=True)
class Architectures:
    """Architectures of several widths that serve one model, each layer by the one that fits it best.

    A layer gets the widest of those that need not be cut for it, or else the narrowest, cut
    (`Architecture.for_layer`).

    Attributes:
        members: of different sizes, the narrowest first.

    Raises:
        CircuitError: fewer than two, or two of one size.
    """

    members: tuple[Architecture, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(sorted(self.members, key=lambda one: one.size)))
        sizes = [one.size for one in self.members]
        if len(set(sizes)) < max(2, len(sizes)):
            raise CircuitError(
                "several architectures of one model are for layers of different widths, got "
                + " and ".join(map(str, sizes))
            )

    @property
    def name(self) -> str:
        return ", ".join(one.name for one in self.members)

    @property
    def description_bits(self) -> int:
        """As of `Architecture`, of all together."""
        return sum(one.description_bits for one in self.members)

    def chosen(self, features: int, *, exact: bool = False) -> Architecture:
        """The member that serves a layer."""
        least = [one.size if exact or one.odd > 1 else one.size // 2 + 1 for one in self.members]
        fitting = [
            one
            for one, size in zip(self.members, least, strict=True)
            if (features == size if one.odd > 1 else features >= size)
        ]
        return fitting[-1] if fitting else self.members[0]

    def for_layer(self, features: int, *, exact: bool = False) -> tuple[Architecture, Layout]:
        """As of the member that serves it."""
        return self.chosen(features, exact=exact).for_layer(features, exact=exact)

    def on_layer(self, features: int, *, exact: bool = False) -> str:
        """As of the member that serves it."""
        return self.chosen(features, exact=exact).on_layer(features, exact=exact)

    def to_json(self) -> dict[str, Any]:
        """JSON-able; `from_json` reads it back."""
        return versioned(SEVERAL, VERSION, {"members": [one.to_json() for one in self.members]})

    @classmethod
    def from_json(cls, data: Any) -> Architectures:
        """Read what `to_json` wrote.

        Raises:
            QasError: no such object, a newer version, or a member that `Architecture.from_json` refuses.
        """
        data = check_versioned(data, SEVERAL, VERSION, "a list of adapter architectures")
        conform(data, _Several, "the list of adapter architectures", error=QasError)
        return cls(tuple(Architecture.from_json(one) for one in data["members"]))


# ---------------------------------------------------------------------- named and found ones
def quantum_peft(features: int, layers: int = 1, *, exact: bool = False) -> tuple[Architecture, Layout]:
    r"""Quantum-PEFT's Pauli circuit on the layout of a layer.

    A layer of RY, then `layers` times: CZ on even pairs of neighbours, RY on both wires of each pair, the same on odd
    pairs (arXiv:2503.05431; the order in a layer is that of PennyLane's `SimplifiedTwoDesign`). An odd axis is the last
    wire, `so` in the place of RY. (2L+1) q - 2L angles on q qubits.
    """
    layers = whole_number("layers", layers, 0, MAX_LAYERS)
    place = layout(features, exact=exact)
    wires = [*range(place.n_qubits), *([ODD] if place.odd > 1 else [])]

    def turn(wire: int) -> tuple[str, tuple[int, ...]]:
        return ("so", (ODD,)) if wire == ODD else ("ry", (wire,))

    gates = [turn(w) for w in wires]
    for _ in range(layers):
        for first in (0, 1):
            pairs = list(zip(wires[first::2], wires[first + 1 :: 2], strict=False))
            gates += [("cz", pair) for pair in pairs]
            gates += [turn(w) for pair in pairs for w in pair]
    return Architecture(place.n_qubits, tuple(gates), place.odd, f"quantum-peft-{layers}"), place


def load_architecture(source: Any) -> Architecture | Architectures:
    """The architecture of a circuit, a run, a run folder, an OpenQASM file or a JSON form; several of a list of those.

    Args:
        source: an `Architecture` or `Architectures`; a `Circuit`; a `qas.Run`; the path of a run folder or of an
            OpenQASM 3 or 2 file; a mapping as `to_json` makes it; or a list of these, for layers of several widths.

    Raises:
        QasError: nothing of the kind, a name whose gates depend on the layer, a file that cannot be read, or two
            of a list for one width.
    """
    if isinstance(source, (list, tuple)) and len(source) > 1:
        members: list[Architecture] = []
        for one in map(load_architecture, source):
            members += one.members if isinstance(one, Architectures) else [one]
        return Architectures(tuple(members))
    if isinstance(source, (list, tuple)) and source:
        return load_architecture(source[0])
    if isinstance(source, (Architecture, Architectures)):
        return source
    if isinstance(source, Mapping) and source.get("format") == SEVERAL:
        return Architectures.from_json(source)
    if isinstance(source, Circuit):
        return Architecture.from_circuit(source)
    if isinstance(source, Mapping):
        return Architecture.from_json(source)
    if hasattr(source, "best") and hasattr(source, "front"):
        return Architecture.from_circuit(source.best.circuit, f"run {source.problem.name}-{source.agent}")
    if not isinstance(source, (str, os.PathLike)):
        raise QasError(
            f"an adapter architecture is a circuit, a run, a path or its JSON form, got {type(source).__name__}"
        )
    path = Path(source)
    if str(source) in ARCHITECTURES:
        raise QasError(f"{source} has gates for each size of layer and none of its own; a run or a circuit is needed")
    if path.is_dir():
        from qas.runs import load_run

        return load_architecture(load_run(path))
    if path.suffix.lower() in (".qasm", ".qasm3") and path.exists():
        from qas.interop import read_circuit_file

        return Architecture.from_circuit(read_circuit_file(path), path.stem)
    if os.sep in str(source) or path.suffix:
        raise RunError(f"no such run folder or OpenQASM file: {source}")
    if difflib.get_close_matches(str(source).lower(), ARCHITECTURES, cutoff=0.7):
        raise UnknownNameError("adapter architecture", source, ARCHITECTURES)
    raise RunError(f"an adapter architecture is the path of a run folder or an OpenQASM file, got {source}")
