r"""From gates to products of Pauli rotations: what a circuit does as a real orthogonal matrix.

A *string* is the signed real matrix ±X^x Z^z on n bits, masks x and z (bit q for qubit q): it sends basis vector i to
±(-1)^|i & z| times basis vector i ^ x. RY(θ) is exp(θ/2 XZ); every gate of a real circuit is a rotation exp(θ/2 A) of
an antisymmetric string A, or permutes and signs basis vectors, or both. Gates with complex entries act on N/2 complex
features through the real embedding [[Re, -Im], [Im, Re]]: one more bit, the highest, on which i is XZ. Global phases
are dropped.

Where n_features = 2^n m with odd m > 1, an odd axis of m levels stands above the bits: index = level 2^n + bits. Its
gates are `so`, a product of m(m-1)/2 Givens rotations, and `cz` with a qubit, the sign (-1)^(bit · level).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from qas.errors import CircuitError, QasError

Masks = tuple[int, int, int]
"""sign, x, z"""
ODD = -1
"""The number of the odd axis among the wires of a gate."""


@dataclass(frozen=True)
class Rotation:
    """exp(φ/2 A), A an antisymmetric string; or a rotation between two levels of the odd axis.

    φ is `angle` where `slot` is None, else ``coefficient * angles[slot]``. Between levels (a, b) the generator takes
    level a to level b by the string S and back by -Sᵀ: a Givens rotation where S is the identity.
    """

    string: Masks
    slot: int | None
    coefficient: float = 1.0
    angle: float = 0.0
    parity: bool = False
    """the string changes its sign on odd levels"""
    levels: tuple[int, int] | None = None


@dataclass(frozen=True)
class Clifford:
    """A signed permutation of the basis: x, z, cx, cz, swap on bits, or cz between the odd axis and a bit."""

    name: str
    wires: tuple[int, ...]


def product(a: Masks, b: Masks) -> Masks:
    """The string A B."""
    sign = -1 if (a[2] & b[1]).bit_count() & 1 else 1
    return a[0] * b[0] * sign, a[1] ^ b[1], a[2] ^ b[2]


def commute(a: Masks, b: Masks) -> bool:
    """Whether two strings commute."""
    return not ((a[1] & b[2]).bit_count() + (a[2] & b[1]).bit_count()) & 1


# ---------------------------------------------------------------------- gates
_REAL_CLIFFORDS = ("x", "z", "cx", "cz", "swap")
_REAL = {*_REAL_CLIFFORDS, "y", "h", "ry", "givens", "so"}
_QUARTERS = {"s": ("Z", 1), "sdg": ("Z", -1), "sx": ("X", 1)}
_EIGHTHS = {"t": 1, "tdg": -1}
_AXES = {"rx": "X", "ry": "Y", "rz": "Z", "rxx": "XX", "ryy": "YY", "rzz": "ZZ"}
GATE_ANGLES = {"rx": 1, "ry": 1, "rz": 1, "rxx": 1, "ryy": 1, "rzz": 1, "u": 3, "givens": 1} | dict.fromkeys(
    (*_REAL_CLIFFORDS, "ecr", "y", "h", *_QUARTERS, *_EIGHTHS), 0
)
"""Gates on qubits that a layer may have -> number of angles; `givens` is exp(θ/2 (|10><01| - |01><10|))."""
GATE_WIRES = dict.fromkeys(("cx", "cz", "ecr", "swap", "rxx", "ryy", "rzz", "givens"), 2)
"""Gates on more than one wire."""


def is_real(names: Iterable[str]) -> bool:
    """Whether gates of these names have real matrices (y up to a phase)."""
    return all(name in _REAL for name in names)


def _axis(letters: str, wires: tuple[int, ...], ancilla: int | None) -> Masks:
    """-i P as a real string; `ancilla` is the bit that stands for i, None if it must not be needed."""
    x = sum(1 << q for q, letter in zip(wires, letters, strict=True) if letter in "XY")
    z = sum(1 << q for q, letter in zip(wires, letters, strict=True) if letter in "YZ")
    # -i P = -i · i^(number of Y) X^x Z^z
    power = (3 + letters.count("Y")) % 4
    sign, imaginary = (1, -1)[power >> 1], power & 1
    if not imaginary:
        return sign, x, z
    assert ancilla is not None  # `lower` has one where a gate is complex
    # The bit that carries i is the highest: i = XZ on it, and XZ commutes with strings on other bits.
    return sign, x | 1 << ancilla, z | 1 << ancilla


def lower(
    gates: Sequence[tuple[str, tuple[int, ...]]], n_qubits: int, odd: int = 1
) -> tuple[list[Rotation | Clifford], int, int]:
    """Rotations and signed permutations of gates in their order.

    Args:
        gates: (name, wires) on qubits 0 .. n_qubits-1; wire `ODD` is the odd axis.
        n_qubits: number of qubits.
        odd: levels of the odd axis, 1 for none.

    Returns:
        Operations, number of bits (one more than qubits if a gate is complex), number of angles.

    Raises:
        CircuitError: an unknown gate, or complex gates beside an odd axis.
    """
    real = is_real(name for name, _ in gates)
    ancilla = None if real else n_qubits
    ops: list[Rotation | Clifford] = []
    slots = 0
    for name, wires in gates:
        if name == "so":
            pairs = [(a, b) for a in range(odd) for b in range(a + 1, odd)]
            for a, b in pairs:
                ops.append(Rotation((1, 0, 0), slots, levels=(a, b)))
                slots += 1
        elif name in _REAL_CLIFFORDS:
            ops.append(Clifford(name, wires))
        elif name == "y":  # i X Z
            ops += [Clifford("z", wires), Clifford("x", wires)]
        elif name == "h":  # RY(π/2) Z
            ops += [Clifford("z", wires), Rotation(_axis("Y", wires, None), None, angle=math.pi / 2)]
        elif name in _QUARTERS:
            letter, sign = _QUARTERS[name]
            ops.append(Rotation(_axis(letter, wires, ancilla), None, angle=sign * math.pi / 2))
        elif name == "ecr":  # X on the first qubit after RZX(π/2)
            ops += [Rotation(_axis("ZX", wires, ancilla), None, angle=math.pi / 2), Clifford("x", wires[:1])]
        elif name in _EIGHTHS:
            ops.append(Rotation(_axis("Z", wires, ancilla), None, angle=_EIGHTHS[name] * math.pi / 4))
        elif name in _AXES:
            ops.append(Rotation(_axis(_AXES[name], wires, ancilla), slots))
            slots += 1
        elif name == "u":  # u(θ, φ, λ) = RZ(φ) RY(θ) RZ(λ); angles in the gate's own order
            for letter, slot in (("Z", 2), ("Y", 0), ("Z", 1)):
                ops.append(Rotation(_axis(letter, wires, ancilla), slots + slot))
            slots += 3
        elif name == "givens":
            # Half a rotation about each of two commuting strings: Y X and X Y, with opposite signs.
            a, b = wires
            first = (1, 1 << a | 1 << b, 1 << a)
            second = (1, 1 << a | 1 << b, 1 << b)
            ops.append(Rotation(first, slots, 0.5))
            ops.append(Rotation(second, slots, -0.5))
            slots += 1
        else:
            raise CircuitError(f"an adapter layer has no gate {name!r}; it knows {', '.join(sorted(GATE_ANGLES))}")
    if odd > 1 and not real:
        raise CircuitError("gates with complex entries need a power of two of features")
    return ops, n_qubits + (not real), slots


# ---------------------------------------------------------------------- Clifford gates out of the way
class Tableau:
    """The images C^-1 A C of strings under a growing Clifford map C (Aaronson and Gottesman, quant-ph/0406196).

    Real strings only, so a sign is all the phase there is. The odd axis stands for one more bit, the highest and, as
    wire `ODD`, the last of the lists: Z on it is the sign (-1)^level, and a Givens rotation between levels of different
    parity has the generator XZ on it (-XZ from an odd level to an even one).
    """

    def __init__(self, n_bits: int) -> None:
        self.x: list[Masks] = [(1, 1 << q, 0) for q in range(n_bits + 1)]
        self.z: list[Masks] = [(1, 0, 1 << q) for q in range(n_bits + 1)]

    def image(self, string: Masks) -> Masks:
        """C^-1 A C."""
        sign, x, z = string
        result: Masks = (sign, 0, 0)
        for q in range(len(self.x)):
            if x >> q & 1:
                result = product(result, self.x[q])
        for q in range(len(self.z)):
            if z >> q & 1:
                result = product(result, self.z[q])
        return result

    def follow(self, gate: Clifford) -> None:
        """C becomes gate · C."""
        name, wires = gate.name, gate.wires
        a, b = wires[0], wires[-1]
        if name == "x":
            self.z[a] = (-self.z[a][0], *self.z[a][1:])
        elif name == "z":
            self.x[a] = (-self.x[a][0], *self.x[a][1:])
        elif name == "cx":
            self.x[a], self.z[b] = product(self.x[a], self.x[b]), product(self.z[a], self.z[b])
        elif name == "cz":
            self.x[a], self.x[b] = product(self.x[a], self.z[b]), product(self.z[a], self.x[b])
        else:
            for column in (self.x, self.z):
                column[a], column[b] = column[b], column[a]

    def turn(self, string: Masks, quarters: int) -> None:
        """C becomes exp(quarters π/4 A) · C for an antisymmetric string A."""
        quarters %= 4
        image = self.image(string)
        for column in (self.x, self.z):
            for q, held in enumerate(column):
                if commute(held, image):
                    continue
                # exp(-k π/4 A) B exp(k π/4 A) = B exp(k π/2 A) where A and B anticommute, and A A = -1
                if quarters == 1:
                    column[q] = product(held, image)
                elif quarters == 2:
                    column[q] = (-held[0], held[1], held[2])
                elif quarters == 3:
                    turned = product(held, image)
                    column[q] = (-turned[0], turned[1], turned[2])

    def carried(self, op: Rotation) -> Rotation:
        """C^-1 exp(φ/2 A) C."""
        odd = 1 << len(self.x) - 1
        if op.levels is None:
            sign, x, z = self.image(op.string)
            return replace(op, string=(sign, x, z & ~odd), parity=bool(z & odd))
        a, b = op.levels
        if not (a ^ b) & 1:
            return op  # equal signs on both levels: nothing tells them apart
        sign, x, z = self.image((1, odd, odd))
        if a & 1 and not z & odd:
            sign = -sign  # from an odd level -XZ and -X are meant; -X alone has the sign the other way round
        return replace(op, string=(sign, x & ~odd, z & ~odd))


def _quarters(op: Rotation) -> int | None:
    """How many quarter turns a rotation by a fixed angle is; None if its angle is free or not a multiple of π/2."""
    if op.slot is not None or op.levels is not None:
        return None
    count = round(op.angle / (math.pi / 2))
    return count if abs(op.angle - count * math.pi / 2) < 1e-15 * max(1, abs(count)) else None


def takes_offset(op: Rotation | Clifford) -> bool:
    """Whether an operation can be measured from another angle: a quarter turn more must be a Clifford gate."""
    return isinstance(op, Rotation) and op.slot is not None and op.levels is None and op.coefficient == 1.0


@dataclass(frozen=True)
class Program:
    """R(angles) = S · Π exp(φ_k/2 A_k): rotations in the order they act, then a signed permutation S.

    Attributes:
        n_bits: n of 2^n.
        odd: levels of the odd axis, 1 for none.
        rotations: of all gates, strings already carried through the Clifford gates before them.
        n_angles: number of free angles.
        skeleton: the signed permutation S, as gates in their order; empty where quarter turns are absorbed.
    """

    n_bits: int
    odd: int
    rotations: tuple[Rotation, ...]
    n_angles: int
    skeleton: tuple[Clifford, ...]

    @property
    def n_features(self) -> int:
        return self.odd << self.n_bits

    @cached_property
    def permutation(self) -> tuple[np.ndarray, np.ndarray]:
        """S as (source, sign): row i of S X is ``sign[i] * X[source[i]]``; int64 and int8, shape (n_features,)."""
        source = np.arange(self.n_features)
        sign = np.ones(self.n_features, dtype=np.int8)
        index = np.arange(self.n_features)
        bits, levels = index & ((1 << self.n_bits) - 1), index >> self.n_bits
        for gate in self.skeleton:
            name, wires = gate.name, gate.wires
            moved = index
            if ODD in wires:
                (q,) = (w for w in wires if w != ODD)
                sign = np.where((bits >> q & 1) & (levels & 1), -sign, sign)
            elif name == "z":
                sign = np.where(bits >> wires[0] & 1, -sign, sign)
            elif name == "cz":
                sign = np.where((bits >> wires[0]) & (bits >> wires[1]) & 1, -sign, sign)
            elif name == "x":
                moved = index ^ 1 << wires[0]
            elif name == "cx":
                moved = index ^ (bits >> wires[0] & 1) << wires[1]
            else:
                differ = (bits >> wires[0] ^ bits >> wires[1]) & 1
                moved = index ^ (differ << wires[0] | differ << wires[1])
            source, sign = source[moved], sign[moved].astype(np.int8)
        return source, sign

    @cached_property
    def strings(self) -> np.ndarray:
        """Masks (x, z, parity, level_a, level_b) of the rotations with free angles, int64, shape (n, 5)."""
        rows = [
            (r.string[1], r.string[2], int(r.parity), *(r.levels or (-1, -1)))
            for r in self.rotations
            if r.slot is not None
        ]
        return np.array(rows, dtype=np.int64).reshape(-1, 5)

    @cached_property
    def tangent_rank(self) -> int:
        """Rank of dR/dangles at angles zero.

        Different strings are linearly independent, so the rank is the number of different ones where each angle turns
        one string; with shared angles it is the rank of the coefficients.

        Raises:
            QasError: rotations by fixed angles, which turn the strings before them into sums of strings.
        """
        if any(r.slot is None for r in self.rotations):
            raise QasError("the tangent space at angles zero is counted in strings only without fixed rotations")
        columns: dict[tuple[int, ...], int] = {}
        table = np.zeros((self.n_angles, len(self.rotations)))
        for r, row in zip(self.rotations, self.strings.tolist(), strict=True):
            column = columns.setdefault(tuple(row), len(columns))
            table[r.slot, column] += r.coefficient * r.string[0]
        if all(np.count_nonzero(table, axis=1) <= 1):
            return int(np.count_nonzero(table.any(axis=0)))
        return int(np.linalg.matrix_rank(table))

    # ------------------------------------------------------------------ numbers
    @cached_property
    def _ops(self) -> np.ndarray:
        rows = []
        for r in self.rotations:
            a, b = r.levels or (-1, -1)
            rows.append((a, b, r.string[1], r.string[2], int(r.parity), 0, 0))
        return np.array(rows, dtype=np.int64).reshape(-1, 7)

    def operations(self, columns: int) -> np.ndarray:
        """The rotations as the kernels read them, for a start from the first `columns` columns of the identity."""
        known = self._operations.get(columns)
        if known is not None:
            return known
        ops = self._ops.copy()
        size = 1 << self.n_bits
        rows = size if columns > size else 1 << max(0, columns - 1).bit_length()
        levels = -(-columns // size)
        for op in ops:
            if op[0] >= 0:
                levels = max(levels, int(op[:2].max()) + 1)
            rows = max(rows, 1 << int(op[2]).bit_length())
            op[5], op[6] = rows, levels
        self._operations[columns] = ops
        return ops

    @cached_property
    def _operations(self) -> dict[int, np.ndarray]:
        return {}

    def half_angles(self, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """cos and signed sin of φ/2, shapes (batch, n_rotations), from angles (batch, n_angles)."""
        padded = angles if self.n_angles else np.zeros((len(angles), 1))
        phi = padded[:, self._slots] * self._coefficients + self._fixed
        return np.cos(phi / 2), np.sin(phi / 2) * self._signs

    @cached_property
    def _slots(self) -> np.ndarray:
        # Fixed rotations read some angle and multiply it by zero; without any angle there is nothing to read.
        return np.array([r.slot or 0 for r in self.rotations], dtype=np.int64)

    @cached_property
    def _coefficients(self) -> np.ndarray:
        return np.array([r.coefficient if r.slot is not None else 0.0 for r in self.rotations])

    @cached_property
    def _fixed(self) -> np.ndarray:
        return np.array([r.angle for r in self.rotations])

    @cached_property
    def _signs(self) -> np.ndarray:
        return np.array([float(r.string[0]) for r in self.rotations])

    def columns(self, angles: np.ndarray, columns: int, dtype: type = np.float64) -> np.ndarray:
        """First `columns` columns of S^-1 R, shape (batch, n_features, columns), from angles (batch, n_angles)."""
        return self.rotated(angles, columns, dtype)[..., :columns]

    def rotated(self, angles: np.ndarray, columns: int, dtype: type = np.float64) -> np.ndarray:
        """As `columns`, with columns of zeros up to the width that `gradient` wants back."""
        from qas.adapters._kernels import LANES, rotate

        angles = self._batch(angles)
        if not 1 <= columns <= self.n_features:
            raise QasError(f"a map of {self.n_features} features has 1 to {self.n_features} columns, got {columns}")
        width = -(-columns // LANES) * LANES
        state: np.ndarray = np.zeros((len(angles), self.n_features, width), dtype=dtype)
        state[:, np.arange(columns), np.arange(columns)] = 1
        if self.rotations:
            cosines, sines = self.half_angles(angles)
            rotate(
                self.operations(columns),
                self.n_bits,
                cosines.astype(dtype),
                sines.astype(dtype),
                state.reshape(-1),
                self.n_features,
                width,
            )
        return state

    def gradient(self, angles: np.ndarray, final: np.ndarray, cotangent: np.ndarray, columns: int) -> np.ndarray:
        """dL/dangles, float64 (batch, n_angles).

        Args:
            angles: as `rotated` had them.
            final: what `rotated` returned; used up.
            cotangent: dL/dfinal, same shape and dtype, zero beyond `columns`; used up.
            columns: as `rotated` had it.
        """
        from qas.adapters._kernels import rotate_back

        angles = self._batch(angles)
        result = np.zeros((len(angles), self.n_angles))
        if not self.n_angles:
            return result
        cosines, sines = self.half_angles(angles)
        each = np.zeros((len(angles), len(self.rotations)))
        rotate_back(
            self.operations(columns),
            self.n_bits,
            cosines.astype(final.dtype),
            sines.astype(final.dtype),
            final.reshape(-1),
            cotangent.reshape(-1),
            self.n_features,
            final.shape[2],
            each,
        )
        np.add.at(result.T, self._slots, (each * self._signs * self._coefficients).T)
        return result

    def _batch(self, angles: np.ndarray) -> np.ndarray:
        array = np.asarray(angles, dtype=np.float64)
        array = array[None] if array.ndim == 1 else array
        if array.ndim != 2 or array.shape[1] != self.n_angles:
            raise CircuitError(f"the layer's circuit has {self.n_angles} angles, got an array of shape {array.shape}")
        return array

    def apply_skeleton(self, rows: np.ndarray) -> np.ndarray:
        """S X for X of shape (..., n_features, columns)."""
        source, sign = self.permutation
        return rows[..., source, :] * sign[:, None].astype(rows.dtype)

    def matrix(self, angles: Sequence[float] | np.ndarray) -> np.ndarray:
        """R, float64, shape (n_features, n_features)."""
        return self.apply_skeleton(self.columns(np.asarray(angles), self.n_features))[0]


def compile_program(
    ops: Sequence[Rotation | Clifford],
    n_bits: int,
    n_angles: int,
    *,
    odd: int = 1,
    absorb_quarters: bool = False,
    offsets: Sequence[int] | None = None,
) -> Program:
    """Carry all signed permutations behind the rotations.

    Args:
        ops: as from `lower`.
        n_bits, n_angles, odd: as from and for `lower`.
        absorb_quarters: carry rotations by fixed multiples of π/2 along too. They end in a Clifford map that is no
            signed permutation and is left out: the program is then C^-1 R for the whole Clifford skeleton C.
        offsets: quarter turns added to each angle, shape (n_angles,): angles zero then stand for angles
            ``offsets * π/2`` of the gates, where `takes_offset`; needs `absorb_quarters`.

    Raises:
        QasError: offsets without `absorb_quarters`, or not one for each angle.
    """
    if offsets is not None and (not absorb_quarters or len(offsets) != n_angles):
        raise QasError(f"offsets are {n_angles} quarter turns, to be absorbed with the others, got {len(offsets)}")
    tableau = Tableau(n_bits)
    rotations: list[Rotation] = []
    skeleton: list[Clifford] = []
    for op in ops:
        if isinstance(op, Clifford):
            tableau.follow(op)
            skeleton.append(op)
            continue
        count = _quarters(op) if absorb_quarters else None
        if count is not None:
            tableau.turn(op.string, count)
            continue
        rotations.append(tableau.carried(op))
        if offsets is not None and takes_offset(op):
            assert op.slot is not None
            tableau.turn(op.string, int(offsets[op.slot]))
    return Program(n_bits, odd, tuple(rotations), n_angles, () if absorb_quarters else tuple(skeleton))
