"""Immutable circuits: a list of gates on a number of qubits, with the angles they carry."""

from __future__ import annotations

import hashlib
import math
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from qas.checks import sequence, shortened
from qas.errors import CircuitError
from qas.gates import GATES, gate_spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from qas.decomposition import Lowering


MOST_QUBITS = 10_000


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate: its name, the qubits it acts on, and its angles in radians.

    Raises:
        UnknownNameError: the name is not in `qas.gates.GATES`.
        CircuitError: wrong number of qubits or angles, a repeated or negative qubit, an angle that is not finite.
    """

    name: str
    qubits: tuple[int, ...]
    angles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        spec = gate_spec(self.name)
        if type(self.qubits) is not tuple or type(self.angles) is not tuple:
            raise CircuitError(f"qubits and angles of a gate are tuples, got {self.qubits!r} and {self.angles!r}")
        if len(self.qubits) != spec.n_qubits:
            raise CircuitError(f"{self.name} acts on {spec.n_qubits} qubit(s), got {self.qubits}")
        if len(self.angles) != spec.n_angles:
            raise CircuitError(f"{self.name} takes {spec.n_angles} angle(s), got {len(self.angles)}")
        if spec.n_qubits > 1 and len(set(self.qubits)) < spec.n_qubits:
            number = {2: "two", 4: "four"}[spec.n_qubits]
            raise CircuitError(f"{self.name} needs {number} different qubits, got {self.qubits}")
        for qubit in self.qubits:
            if type(qubit) is not int:
                raise CircuitError(f"a qubit is an int, got {qubit!r} in {self.name}")
            if qubit < 0:
                raise CircuitError(f"qubits are numbered from 0, got {qubit} in {self.name}")
        for angle in self.angles:
            if not math.isfinite(angle):
                raise CircuitError(f"angles must be finite, got {angle} in {self.name} on {self.qubits}")

    def with_angles(self, angles: tuple[float, ...]) -> Gate:
        """The same gate with other angles, finite and as many; they are not checked."""
        copy = object.__new__(Gate)
        for name, value in (("name", self.name), ("qubits", self.qubits), ("angles", angles)):
            object.__setattr__(copy, name, value)
        return copy

    def __str__(self) -> str:
        angles = f"({', '.join(f'{a:.6g}' for a in self.angles)})" if self.angles else ""
        return f"{self.name}{angles} {','.join(map(str, self.qubits))}"


def _as_gate(item: Gate | Sequence[Any]) -> Gate:
    if isinstance(item, Gate):
        return item
    try:
        name, qubits, *angles = item
        qubits = (qubits,) if isinstance(qubits, (int, np.integer)) else qubits
        if len(angles) == 1 and isinstance(angles[0], (list, tuple, np.ndarray)):
            angles = list(angles[0])
        parts = str(name), tuple(operator.index(q) for q in qubits), tuple(float(a) for a in angles)
    except (TypeError, ValueError, OverflowError):
        raise CircuitError(f"a gate is (name, qubits, angles), got {shortened(item)}") from None
    return Gate(*parts)


class Circuit:
    """A fixed architecture with its angles. Immutable and hashable; qubit 0 is the least significant bit.

    Args:
        n_qubits: number of qubits, 1 to `MOST_QUBITS`.
        gates: `Gate` objects or tuples such as ``("rx", 0, 0.3)`` and ``("cx", (0, 1))``.

    Raises:
        CircuitError: a qubit out of range or a malformed gate.
    """

    def __init__(self, n_qubits: int, gates: Iterable[Gate | Sequence[Any]] = ()) -> None:
        try:
            n_qubits = operator.index(n_qubits)
        except TypeError:
            raise CircuitError(f"the number of qubits is a whole number, got {shortened(n_qubits)}") from None
        if not 1 <= n_qubits <= MOST_QUBITS:
            raise CircuitError(f"a circuit has 1 to {MOST_QUBITS} qubits, got {n_qubits}")
        self._n_qubits = n_qubits
        self._gates = tuple([g if type(g) is Gate else _as_gate(g) for g in sequence("gates of a circuit", gates)])
        for gate in self._gates:
            qubits = gate.qubits
            if qubits[0] >= n_qubits or qubits[-1] >= n_qubits or (len(qubits) > 2 and max(qubits) >= n_qubits):
                raise CircuitError(f"qubit out of range: {gate} in a circuit of {n_qubits} qubits (0..{n_qubits - 1})")

    @property
    def n_qubits(self) -> int:
        return self._n_qubits

    @property
    def gates(self) -> tuple[Gate, ...]:
        return self._gates

    def __len__(self) -> int:
        return len(self.pattern)

    def __iter__(self) -> Iterator[Gate]:
        return iter(self._gates)

    def __getitem__(self, index: int) -> Gate:
        return self._gates[index]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Circuit):
            return NotImplemented
        return self._n_qubits == other._n_qubits and self._gates == other._gates

    def __hash__(self) -> int:
        return hash((self._n_qubits, self._gates))

    def __reduce__(self) -> tuple[Any, ...]:
        return Circuit, (self._n_qubits, self._gates)  # what else it carries is derived, some of it of one process

    # ------------------------------------------------------------------ angles
    @cached_property
    def angles(self) -> np.ndarray:
        """All angles in gate order, radians, float64, shape (n_angles,); read-only."""
        array = np.array([a for g in self._gates for a in g.angles], dtype=np.float64)
        array.flags.writeable = False
        return array

    @property
    def n_angles(self) -> int:
        return len(self.angles)

    def with_angles(self, angles: Sequence[float] | np.ndarray) -> Circuit:
        """The same architecture with other angles, shape (n_angles,).

        Raises:
            CircuitError: no numbers, another count of them, or one that is not finite.
        """
        try:
            values = np.asarray(angles)
            if values.dtype.kind not in "fiu":
                raise TypeError
            values = values.astype(np.float64, copy=False).ravel()
        except (TypeError, ValueError, OverflowError):
            raise CircuitError(f"angles are real numbers, got {shortened(angles)}") from None
        if len(values) != self.n_angles:
            raise CircuitError(f"the circuit has {self.n_angles} angles, got {len(values)}")
        if not np.isfinite(values).all():
            raise CircuitError("angles must be finite, got NaN or infinity")
        copy = object.__new__(Circuit)
        known = copy.__dict__
        known.update(self.__dict__)  # whatever is known of the architecture holds for the copy too
        known.setdefault("_pattern", known.get("_gates"))
        known.pop("_gates", None)
        known["angles"] = values = values.copy()
        values.flags.writeable = False
        return copy

    def __getattr__(self, name: str) -> Any:
        # Only for what a circuit does not hold: a search looks at the gates of few of the circuits it optimizes.
        if name != "_gates" or "_pattern" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        numbers = self.angles.tolist()
        gates, position = [], 0
        for gate in self._pattern:
            count = len(gate.angles)
            if count:
                gate = gate.with_angles(tuple(numbers[position : position + count]))
                position += count
            gates.append(gate)
        self._gates = tuple(gates)
        return self._gates

    @property
    def pattern(self) -> tuple[Gate, ...]:
        """The gates, at angles that may be others: those of `gates` are made when they are asked for."""
        return self.__dict__.get("_pattern") or self._gates

    # ------------------------------------------------------------------ editing (all return a new circuit)
    def append(self, name: str, qubits: int | Sequence[int], *angles: float) -> Circuit:
        """The circuit with one more gate at its end."""
        return Circuit(self._n_qubits, (*self._gates, _as_gate((name, qubits, *angles))))

    def extended(self, gate: Gate) -> Circuit:
        """As `append`, of a gate; what is known of the shorter circuit is not found out anew for the longer one.

        Raises:
            CircuitError: a qubit out of range.
        """
        if max(gate.qubits) >= self._n_qubits:
            raise CircuitError(f"qubit out of range: {gate} in a circuit of {self._n_qubits} qubits")
        longer = object.__new__(Circuit)
        known, here = longer.__dict__, self.__dict__
        known["_n_qubits"], known["_pattern"] = self._n_qubits, (*self.pattern, gate)
        known["angles"] = values = np.array([*self.angles.tolist(), *gate.angles], dtype=np.float64)
        values.flags.writeable = False
        if "lowering" in here and self.lowering is None and gate.name in GATES:
            known["lowering"] = None
            if "two_qubit_gates" in here:
                known["two_qubit_gates"] = self.two_qubit_gates + (len(gate.qubits) == 2)
        known["_shorter"] = here.get("_compiled")  # of an engine, see `CompiledSimulator.compiled`
        return longer

    def insert(self, index: int, gate: Gate) -> Circuit:
        """The circuit with `gate` before position `index`."""
        return Circuit(self._n_qubits, (*self._gates[:index], gate, *self._gates[index:]))

    def _position(self, index: int) -> int:
        """`index` counted from 0; negative values count from the end."""
        if not -len(self) <= index < len(self):
            raise CircuitError(f"the circuit has {len(self)} gates, got position {index}")
        return index % len(self)

    def delete(self, index: int) -> Circuit:
        """The circuit without the gate at `index`.

        Raises:
            CircuitError: no gate at that position.
        """
        index = self._position(index)
        return Circuit(self._n_qubits, (*self._gates[:index], *self._gates[index + 1 :]))

    def replace(self, index: int, gate: Gate) -> Circuit:
        """The circuit with `gate` in the place of the gate at `index`.

        Raises:
            CircuitError: no gate at that position, or a qubit out of range.
        """
        index = self._position(index)
        return Circuit(self._n_qubits, (*self._gates[:index], gate, *self._gates[index + 1 :]))

    # ------------------------------------------------------------------ excitations
    @cached_property
    def lowering(self) -> Lowering | None:
        """A circuit with excitations in primitive gates; None for one of primitive gates, which is run as it is."""
        if all(gate.name in GATES for gate in self.pattern):
            return None
        from qas.decomposition import lower

        return lower(self)

    def decompose(self, gates: Iterable[str] | None = None, *, from_zero: bool = False) -> Circuit:
        """An equal circuit without excitations: they become {rx, ry, rz, cx}, in as few CX as is known.

        Args:
            gates: names that may be used: other gates are rewritten too, and runs of one-qubit gates merged. None: all
                but excitations stay as they are.
            from_zero: keep what the circuit makes of |0…0⟩, not its whole matrix. Excitations get cheaper where the
                state before them occupies few basis states; one of a determinant takes 3 CX instead of 13. Where the
                circuit is a determinant (X gates) with excitations only, they share what they flip, too.

        Returns:
            The circuit itself where nothing changes. Matrix and state are the same up to a global phase.

        Raises:
            UnknownNameError: a name outside the gate table.
            CircuitError: a gate that cannot be made of `gates`.
        """
        plain = self
        if self.lowering is not None and from_zero:
            from qas.preparation import decomposed_from_zero

            plain = decomposed_from_zero(self)
        elif self.lowering is not None:
            plain = self.lowering.circuit.with_angles(self.lowering.angles(self.angles))
        if gates is None:
            return plain
        from qas.simplify import rewritten

        return rewritten(plain, [gate_spec(name).name for name in gates], whole=not from_zero)

    # ------------------------------------------------------------------ measures
    @cached_property
    def moments(self) -> tuple[int, ...]:
        """For each gate the layer it falls into when every gate moves as early as it can; counted from 0."""
        free = [0] * self._n_qubits
        layers = []
        for gate in self.pattern:
            first, last = gate.qubits[0], gate.qubits[-1]
            layer = max(free[first], free[last])
            if len(gate.qubits) > 2:
                layer = max(free[q] for q in gate.qubits)
                for qubit in gate.qubits:
                    free[qubit] = layer + 1
            free[first] = free[last] = layer + 1
            layers.append(layer)
        return tuple(layers)

    @property
    def depth(self) -> int:
        """Number of layers of gates that can run at the same time, excitations decomposed."""
        run = self if self.lowering is None else self.lowering.circuit
        return 1 + max(run.moments, default=-1)

    @property
    def n_gates(self) -> int:
        """Number of gates that are run: of all, excitations decomposed."""
        return len(self if self.lowering is None else self.lowering.circuit)

    @property
    def counts(self) -> dict[str, int]:
        """How often each gate name occurs, as the circuit is written."""
        return dict(sorted(Counter(g.name for g in self.pattern).items()))

    def count(self, name: str) -> int:
        """How often gate `name` occurs, as the circuit is written.

        Raises:
            UnknownNameError: no such gate.
        """
        gate_spec(name)
        return sum(g.name == name for g in self.pattern)

    @cached_property
    def two_qubit_gates(self) -> int:
        """Number of gates on two qubits, excitations decomposed."""
        run = self if self.lowering is None else self.lowering.circuit
        return sum(len(g.qubits) == 2 for g in run.pattern)

    @cached_property
    def key(self) -> str:
        """Canonical key of the architecture, angles left out.

        Two circuits have the same key exactly when one becomes the other by reordering gates on disjoint qubits (the
        Foata normal form of the gate sequence: earliest layers, sorted inside each layer) and by exchanging the two
        qubits of symmetric gates.
        """
        rows = [
            (layer, tuple(sorted(g.qubits)) if gate_spec(g.name).symmetric else g.qubits, g.name)
            for layer, g in zip(self.moments, self.pattern, strict=True)
        ]
        rows.sort()
        return hashlib.blake2b(repr((self._n_qubits, rows)).encode(), digest_size=16).hexdigest()

    # ------------------------------------------------------------------ conversions
    def to_list(self) -> list[list[Any]]:
        """JSON-able gate list ``[[name, [qubits], [angles]], …]``; `Circuit(n_qubits, list)` reads it back."""
        return [[g.name, list(g.qubits), list(g.angles)] for g in self._gates]

    def to_matrix(self) -> np.ndarray:
        """Dense unitary, shape (2**n, 2**n); meant for checks up to about 10 qubits."""
        from qas.simulators.dense import circuit_matrix

        return circuit_matrix(self)

    def to_qiskit(self) -> Any:
        """The circuit as a `qiskit.QuantumCircuit` of n qubits."""
        from qas.interop import to_qiskit

        return to_qiskit(self)

    @classmethod
    def from_qiskit(cls, circuit: Any) -> Circuit:
        """Read a bound `qiskit.QuantumCircuit`; composite gates are unrolled into the gate table.

        Raises:
            CircuitError: unbound parameters, measurements, classical control, or gates outside the table.
        """
        from qas.interop import from_qiskit

        return from_qiskit(circuit)

    def to_qasm(self, physical: Sequence[int] | None = None) -> str:
        """OpenQASM 3 text; angles are written so that they read back bit for bit.

        Args:
            physical: device qubit of each qubit, written as ``$5``; None: a register.

        Raises:
            CircuitError: not as many different physical qubits as the circuit has.
        """
        from qas.interop import to_qasm

        return to_qasm(self, physical)

    def to_cirq(self) -> Any:
        """The circuit as a `cirq.Circuit` on ``cirq.LineQubit(0)``, …; needs the extra ``cirq``."""
        from qas.export import to_cirq

        return to_cirq(self)

    def to_pennylane(self) -> list[Any]:
        """The circuit as a list of PennyLane operators on wires 0, …; needs the extra ``pennylane``."""
        from qas.export import to_pennylane

        return to_pennylane(self)

    @classmethod
    def from_qasm(cls, text: str) -> Circuit:
        """Read OpenQASM 3 text.

        Raises:
            CircuitError: malformed text, measurements, classical control, or gates outside the table.
        """
        from qas.interop import from_qasm

        return from_qasm(text)

    # ------------------------------------------------------------------ drawing
    def __str__(self) -> str:
        from qas.drawing import draw_text

        return draw_text(self)

    def __repr__(self) -> str:
        return (
            f"Circuit({self._n_qubits} qubits, {len(self)} gates, {self.two_qubit_gates} two-qubit, "
            f"{self.n_angles} angles, depth {self.depth})"
        )

    def draw(self, style: str = "text", *, title: str | None = None) -> str | Figure:
        """Draw as ``"text"`` (str) or ``"mpl"`` (matplotlib Figure)."""
        from qas.drawing import draw_figure, draw_text

        if style == "text":
            return draw_text(self)
        if style == "mpl":
            return draw_figure(self, title=title)
        raise CircuitError(f"style is 'text' or 'mpl', got {style!r}")
