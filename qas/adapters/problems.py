"""What an architecture of adapter layers is searched for: directions to move in, a gradient, or a target matrix."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NotRequired, TypedDict

import numpy as np

from qas.adapters.program import Program, compile_program, lower
from qas.checks import one_line, whole_number
from qas.circuits import Circuit, Gate
from qas.errors import CircuitError, QasError, RunError
from qas.files import (
    array_from_text,
    array_to_text,
    check_versioned,
    read_array,
    read_tensors,
    read_text,
    versioned,
)
from qas.problems import BaseProblem, Family, load_problem
from qas.schema import Count, Positive, Qubits, conform
from qas.simplify import simplify
from qas.simulators.base import BaseObjective, Simulator

FORMAT = "qas-adapter-problem"
VERSION = 2
"""Schema version of `AdapterProblem.to_json`; 2 knows narrower layers."""
GOALS = ("tangent", "gradient", "fit")
MAX_QUBITS = 12
MAX_ANGLES = 1 << 12
"""Most angles that a search can aim at: the longest circuits it tries are about twice as long."""
MAX_MATRIX = 1 << 10
"""Largest side of a matrix in a file: its numbers travel in the run folder."""
FRAME_RANK = 8
"""Columns of the frame that a target without orthogonal columns is fitted with."""
_DEPTH_SHARE = 0.005
_ORTHOGONAL = 1e-4


class _Matrix(TypedDict):
    shape: tuple[Positive, Positive]
    float64: str


class _Told(TypedDict):
    name: str
    n_qubits: Qubits
    goal: str
    angles: Count
    threshold: float | None
    description: str
    provenance: dict[str, Any]
    matrix: NotRequired[_Matrix]
    narrower: NotRequired[list[Qubits]]


@dataclass(frozen=True, eq=False)
class AdapterProblem(BaseProblem):
    r"""How well a circuit, seen as a real orthogonal N x N matrix R(angles), serves as an adapter layer.

    Goals (all without unit; 0 is the bound that errors are counted from):

    - ``tangent``: how many directions the angles reach to first order around angles zero, counted as different Pauli
      strings carried through the Clifford skeleton: (missing of `angles` + angles that repeat a string or are more
      than asked for) / `angles`, after neighbours that merge or cancel have done so; plus for depth at most 0.005 and
      a quarter of a direction. With `narrower` layers, the mean of this over all widths: a layer of fewer qubits gets
      the circuit's gates on the lowest ones, and asks for its share of the angles.
    - ``gradient``: the share of a gradient's energy that those strings do not carry, Σ_k tr(P_kᵀA)² / (N ‖A‖²) over
      different strings, A the skew part of `matrix` (the derivative of the loss in a right rotation), relative to the
      best `angles` strings of all; repeated and surplus angles cost as above.
    - ``fit``: angles are optimized; R is taken relative to its Clifford skeleton. For an orthogonal `matrix` Q:
      1 - |tr(QᵀR)| / N. For any other matrix T: the share of what a frame of 8 columns can hold of T that the first 8
      columns U of R do not, 1 - ‖UᵀT‖² / Σ_k σ_k². Angles beyond `angles` cost 1 / `angles` each, at most 1.

    Raises:
        QasError: sizes out of range, narrower layers for another goal, an unknown goal, a matrix that is missing, not
            finite or zero, a gradient without a skew part, or a target that every circuit fits.
    """

    name: str
    qubits: int
    goal: str = "tangent"
    angles: int = 0
    """angles aimed at; 0: as many as Quantum-PEFT's circuit of 3 layers has, 7n - 6"""
    matrix: np.ndarray | None = None
    """float64, shape (N, N) or, to fit, (rows, columns) with at most N rows"""
    unit: str = ""
    threshold: float | None = None
    """Error regarded as success; default: less than one direction lacks, or 0.05."""
    description: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    narrower: tuple[int, ...] = ()
    """qubits of the narrower layers that the circuit is to serve too, most first"""

    def __post_init__(self) -> None:
        n = whole_number("the number of qubits of an adapter architecture", self.qubits, 2, MAX_QUBITS)
        if self.goal not in GOALS:
            raise QasError(f"the goal of an adapter problem is one of {', '.join(GOALS)}, got {self.goal!r}")
        most = (1 << n) * ((1 << n) - 1) // 2
        what = f"the number of independent angles in rotations of {1 << n} features"
        angles = whole_number(what, self.angles or min(most, 7 * n - 6), 1, min(most, MAX_ANGLES))
        object.__setattr__(self, "angles", angles)
        if self.narrower and self.goal != "tangent":
            raise QasError(f"a matrix is about one width of layers, got narrower ones for the goal {self.goal}")
        widths = [whole_number("the number of qubits of a narrower layer", q, 2, n - 1) for q in self.narrower]
        object.__setattr__(self, "narrower", tuple(sorted(set(widths), reverse=True)))
        if self.threshold is None:
            known = 0.5 / (angles * len(self.widths)) + self._depth_share
            object.__setattr__(self, "threshold", known if self.goal == "tangent" else 0.05)
        if self.goal == "tangent":
            if self.matrix is not None:
                raise QasError("counting directions needs no matrix")
        else:
            object.__setattr__(self, "matrix", self._checked())
        super().__post_init__()

    def _checked(self) -> np.ndarray:
        size = 1 << self.qubits
        matrix = _numbers(self.matrix)
        if matrix.ndim != 2 or not np.isfinite(matrix).all() or not matrix.any():
            raise QasError("a gradient or target is a matrix of finite numbers, not all zero")
        if matrix.shape[0] > size or (self.goal == "gradient" and matrix.shape != (size, size)):
            wanted = f"shape ({size}, {size})" if self.goal == "gradient" else f"at most {size} rows"
            raise QasError(f"the matrix of this problem has {wanted}, got shape {matrix.shape}")
        if self.goal == "gradient" and np.abs(matrix - matrix.T).max() <= 1e-12 * np.abs(matrix).max():
            raise QasError("the skew part of the gradient is zero: no rotation changes the loss to first order")
        if self.goal == "fit":
            _check_target(matrix, size)
        matrix.flags.writeable = False
        return matrix

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AdapterProblem) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.name, self.qubits, self.goal, self.angles))

    def __str__(self) -> str:
        return f"{self.name}: {self.description}"

    # ------------------------------------------------------------------ what is known
    @property
    def n_qubits(self) -> int:
        return self.qubits

    @property
    def exact(self) -> float:
        return 0.0

    @property
    def lower_bound(self) -> float:
        return 0.0

    @property
    def mixed_energy(self) -> float:
        return 1.0

    @property
    def spread(self) -> float:
        return 2.0 + _DEPTH_SHARE

    @property
    def _depth_share(self) -> float:
        # Depth decides between circuits of equal directions, and never makes up for one.
        return min(_DEPTH_SHARE, 0.25 / (self.angles * len(self.widths)))

    @property
    def summary(self) -> str:
        if self.goal == "fit":
            assert self.matrix is not None
            kind = "orthogonal" if self.orthogonal else f"frame of {self.rank} columns for"
            return f"{kind} {self.matrix.shape[0]} x {self.matrix.shape[1]} matrix"
        return f"{' and '.join(str(1 << q) for q in self.widths)} features, {self.angles} angles"

    @property
    def widths(self) -> tuple[int, ...]:
        """Qubits of all layers that the circuit is to serve, most first."""
        return (self.qubits, *self.narrower)

    def asked(self, qubits: int) -> int:
        """Angles that a layer of so many qubits asks for: in proportion to 7n - 6, as far as there are so many."""
        share = round(self.angles * (7 * qubits - 6) / (7 * self.qubits - 6))
        return max(1, min(share, (1 << qubits) * ((1 << qubits) - 1) // 2))

    @property
    def search_gates(self) -> tuple[str, ...]:
        return ("ry", "cz", "cx")

    @property
    def max_gates(self) -> int:
        if self.goal != "tangent":
            return self.angles * (1 + 3 * self.qubits // 2)  # enough for any strings
        # Between two useful rotations of a qubit lies an entangler, and each serves two qubits.
        return math.ceil(1.25 * (self.angles + max(0, self.angles - self.qubits) / 2)) + 2

    @cached_property
    def orthogonal(self) -> bool:
        """Whether the target is an orthogonal N x N matrix."""
        matrix = self.matrix
        return matrix is not None and len(matrix) == 1 << self.qubits and _is_orthogonal(matrix)

    @property
    def rank(self) -> int:
        """Columns of the frame that is fitted."""
        assert self.matrix is not None
        return min(FRAME_RANK, *self.matrix.shape)

    @cached_property
    def string_energies(self) -> np.ndarray:
        """Share of the gradient's skew part in each string X^x Z^z, shape (N, N), sums to 1."""
        assert self.matrix is not None
        return string_energies((self.matrix - self.matrix.T) / 2)

    @cached_property
    def best_alignment(self) -> float:
        """Share that the best `angles` strings carry together: the upper bound of every architecture."""
        return float(np.sort(self.string_energies, axis=None)[-self.angles :].sum())

    @cached_property
    def _padded(self) -> np.ndarray:
        assert self.matrix is not None
        return np.pad(self.matrix, ((0, (1 << self.qubits) - len(self.matrix)), (0, 0)))

    @cached_property
    def _best_capture(self) -> float:
        return float((np.linalg.svd(self._padded, compute_uv=False)[: self.rank] ** 2).sum())

    # ------------------------------------------------------------------ how a circuit is judged
    def objective(self, circuit: Circuit, simulator: Simulator | None = None) -> BaseObjective:
        if circuit.n_qubits != self.qubits:
            raise CircuitError(f"{self.name} is about circuits of {self.qubits} qubits, got {circuit.n_qubits}")
        if self.goal == "fit":
            return _Fit(self, circuit)
        return _Directions(self, circuit)

    @property
    def has_slopes(self) -> bool:
        """Whether rotations by strings have slopes: where a matrix is fitted or aligned with."""
        return self.goal != "tangent"

    def string_slopes(self, circuit: Circuit) -> np.ndarray:
        """Derivatives of the energy in one more rotation by each string, at the circuit's own angles, shape (N, N)."""
        return self.objective(circuit).slopes(circuit.angles)  # type: ignore[attr-defined]

    def with_string(self, circuit: Circuit, string: tuple[int, int]) -> Circuit:
        """The circuit with one more RY at angle 0 that turns a given string; see `carried_string`."""
        return with_string(circuit, string)

    def simplify(self, circuit: Circuit, angle_tolerance: float = 1e-9) -> Circuit:
        """A circuit of the same energy without trivially redundant gates; `circuit` itself if there are none.

        Where directions count, rotations by small angles stay: the energy is that of an architecture. Where angles
        beyond those asked for count, all stay.
        """
        if self.goal == "fit":
            return circuit if circuit.n_angles > self.angles else super().simplify(circuit, angle_tolerance)
        return simplify(circuit, angle_tolerance=0.0, whole=True)

    # ------------------------------------------------------------------ files
    def to_json(self) -> dict[str, Any]:
        names = ("name", "n_qubits", "goal", "angles", "threshold", "description", "provenance")
        data = versioned(FORMAT, VERSION, {name: getattr(self, name) for name in names})
        if self.narrower:
            data["narrower"] = list(self.narrower)
        if self.matrix is not None:
            data["matrix"] = {"shape": list(self.matrix.shape), "float64": array_to_text(self.matrix, "<f8")}
        return data

    @classmethod
    def from_json(cls, data: Any) -> AdapterProblem:
        data = check_versioned(data, FORMAT, VERSION, "an adapter problem")
        told = dict(conform(data, _Told, "the adapter problem", error=QasError))
        matrix = None
        if "matrix" in told:
            text, shape = told["matrix"]["float64"], told["matrix"]["shape"]
            matrix = array_from_text(text, "<f8", shape, "the matrix of the adapter problem")
        names = ("name", "goal", "angles", "threshold", "description", "provenance")
        sizes = {"qubits": told["n_qubits"], "narrower": tuple(told.get("narrower", ()))}
        return cls(**sizes, matrix=matrix, **{name: told[name] for name in names})


class _Directions(BaseObjective):
    """Goals that look at strings only: no angle matters. Neighbours that merge or cancel do so before the count."""

    def __init__(self, problem: AdapterProblem, circuit: Circuit) -> None:
        super().__init__(circuit)
        self.problem = problem
        self._known: float | None = None

    def _value(self, angles: np.ndarray) -> float:
        if self._known is None:
            self._known = self._count()
        return self._known

    def _value_and_gradient(self, angles: np.ndarray) -> tuple[float, np.ndarray]:
        return self._value(angles), np.zeros(self.n_angles)

    def slopes(self, angles: np.ndarray) -> np.ndarray:
        """Root of the share of each string X^x Z^z that no angle turns yet, shape (N, N); 0 for the others."""
        found = np.sqrt(self.problem.string_energies)
        for x, z in tangent_strings(self.circuit):
            found[x, z] = 0.0
        return found

    def _count(self) -> float:
        problem = self.problem
        if problem.goal == "gradient":
            strings, wasted = _different(problem.simplify(self.circuit), problem.angles)
            captured = sum(float(problem.string_energies[x, z]) for x, z in strings)
            return max(0.0, 1.0 - captured / problem.best_alignment) + wasted
        return sum(self._lacking(qubits) for qubits in problem.widths) / len(problem.widths)

    def _lacking(self, qubits: int) -> float:
        """Share of the directions that a layer of so many qubits lacks, surplus and depth counted."""
        asked = self.problem.asked(qubits)
        circuit = self.problem.simplify(lowest(self.circuit, qubits))
        strings, wasted = _different(circuit, asked)
        depth = circuit.depth
        return max(0, asked - len(strings)) / asked + wasted + self.problem._depth_share * depth / (depth + asked)


def _different(circuit: Circuit, asked: int) -> tuple[set[tuple[int, int]], float]:
    """The different strings, and angles that repeat one or are more than asked for, as a share of these."""
    strings = tangent_strings(circuit)
    different = set(strings)
    return different, min(1.0, (len(strings) - min(len(different), asked)) / asked)


class _Fit(BaseObjective):
    """Fit of a matrix by R(angles), or of its column space by the first columns."""

    def __init__(self, problem: AdapterProblem, circuit: Circuit) -> None:
        super().__init__(circuit)
        self.program = relative_program(circuit)
        self.columns = self.program.n_features if problem.orthogonal else problem.rank
        self.problem = problem
        self._surplus = min(1.0, max(0, self.program.n_angles - problem.angles) / problem.angles)

    def _forward(self, angles: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, columns of R, and the derivative of the value in them."""
        target = self.problem._padded
        final = self.program.rotated(angles, self.columns)
        found = final[0, :, : self.columns]
        if self.problem.orthogonal:
            overlap, size = float((target * found).sum()), len(found)
            return 1.0 - abs(overlap) / size + self._surplus, final, -math.copysign(1.0, overlap) * target / size
        inside = target.T @ found
        best = self.problem._best_capture
        return 1.0 - float((inside**2).sum()) / best + self._surplus, final, -2.0 * (target @ inside) / best

    def _value(self, angles: np.ndarray) -> float:
        return self._forward(angles)[0]

    def _value_and_gradient(self, angles: np.ndarray) -> tuple[float, np.ndarray]:
        value, final, slope = self._forward(angles)
        cotangent = np.zeros_like(final)
        cotangent[0, :, : self.columns] = slope
        return value, self.program.gradient(angles, final, cotangent, self.columns)[0]

    def slopes(self, angles: np.ndarray) -> np.ndarray:
        """Derivative of the value in the angle of one more rotation by each string X^x Z^z at the end, shape (N, N).

        Zero for symmetric strings, which are no rotations. One Walsh-Hadamard transform for each x.
        """
        _, final, slope = self._forward(angles)
        # d value = <slope, A R> / 2 = tr(Aᵀ slope Rᵀ) / 2, and A sees the skew part of a matrix only.
        product = slope @ final[0, :, : self.columns].T
        return string_coefficients((product - product.T) / 2) / 2


def relative_program(circuit: Circuit) -> Program:
    """What a circuit does as an adapter layer: C^-1 R(angles) for its Clifford skeleton C = R(0).

    Raises:
        CircuitError: gates that need another bit for the imaginary part.
    """
    ops, bits, angles = lower([(g.name, g.qubits) for g in circuit.gates], circuit.n_qubits)
    if bits != circuit.n_qubits:
        raise CircuitError("adapter problems judge circuits with real gates: ry, x, z, h, cx, cz, swap")
    return compile_program(ops, bits, angles, absorb_quarters=True)


def lowest(circuit: Circuit, qubits: int) -> Circuit:
    """The gates on the lowest qubits alone, as narrower layers get them (`Architecture.cut`)."""
    if qubits == circuit.n_qubits:
        return circuit
    return Circuit(qubits, [gate for gate in circuit if max(gate.qubits) < qubits])


def tangent_strings(circuit: Circuit) -> list[tuple[int, int]]:
    """For each angle the string (x, z) that it turns to first order around angles zero, signs left out.

    Raises:
        CircuitError: as `relative_program`.
    """
    return [(r.string[1], r.string[2]) for r in relative_program(circuit).rotations]


def carried_string(circuit: Circuit, string: tuple[int, int]) -> tuple[list[Gate], int]:
    """Gates behind which one more RY turns a given string, and the qubit of that RY.

    The skeleton so far carries the string X^x Z^z to its end, where cx and cz take it down to a single Y: at most
    3 (n - 1) / 2 gates.

    Args:
        circuit: gates of `qas.adapters.program` without an odd axis and without complex ones.
        string: masks (x, z), antisymmetric.
    """
    x, z = string
    for gate in circuit.gates:
        a, b = gate.qubits[0], gate.qubits[-1]
        if gate.name == "cx":
            x, z = x ^ (x >> a & 1) << b, z ^ (z >> b & 1) << a
        elif gate.name == "cz":
            z ^= (x >> a & 1) << b | (x >> b & 1) << a
        elif gate.name == "h":
            swapped = (x ^ z) & 1 << a
            x, z = x ^ swapped, z ^ swapped
        elif gate.name == "swap":
            x, z = (m ^ (((m >> a ^ m >> b) & 1) * (1 << a | 1 << b)) for m in (x, z))
    letters = {q: (x >> q & 1, z >> q & 1) for q in range(circuit.n_qubits)}
    gates = []
    last, *others = [q for q, letter in letters.items() if letter == (1, 1)]
    for first, second in zip(others[::2], others[1::2], strict=True):
        gates.append(Gate("cx", (first, second)))  # Y Y becomes X Z
        letters[first], letters[second] = (1, 0), (0, 1)
    for q, letter in letters.items():
        if q != last and letter == (1, 0):
            gates.append(Gate("cx", (last, q)))
        elif q != last and letter == (0, 1):
            gates.append(Gate("cz", (last, q)))
    return gates, last


def with_string(circuit: Circuit, string: tuple[int, int]) -> Circuit:
    """The circuit with one more RY at angle 0 that turns a given string; arguments as of `carried_string`."""
    gates, qubit = carried_string(circuit, string)
    return Circuit(circuit.n_qubits, (*circuit.gates, *gates, Gate("ry", (qubit,), (0.0,))))


def string_energies(skew: np.ndarray) -> np.ndarray:
    r"""tr((X^x Z^z)ᵀ A)² / (N ‖A‖²) for all strings, shape (N, N), from a skew matrix A; they sum to 1.

    One Walsh-Hadamard transform for each x, O(N² log N) in all.

    A is not zero.
    """
    return string_coefficients(skew) ** 2 / (len(skew) * float((skew**2).sum()))


def string_coefficients(matrix: np.ndarray) -> np.ndarray:
    r"""tr((X^x Z^z)ᵀ M) for all strings, shape (N, N), row x and column z, from a square matrix M."""
    from qas.hamiltonians import walsh_hadamard

    index = np.arange(len(matrix))
    table = np.array([matrix[index ^ x, index] for x in range(len(matrix))])
    walsh_hadamard(table)
    return table


# ---------------------------------------------------------------------- matrices
def _numbers(matrix: Any) -> np.ndarray:
    """A float64 copy.

    Raises:
        QasError: something else than real numbers in rows of equal length.
    """
    try:
        array = np.asarray(matrix)
        if array.dtype.kind not in "biuf":
            raise TypeError
        return np.array(array, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a torch tensor that needs a gradient
        raise QasError(f"a target or gradient is a matrix of real numbers, got {_kind(matrix)}") from None


def _kind(value: Any) -> str:
    kind = type(value).__name__
    return f"{kind} of {value.dtype}" if hasattr(value, "dtype") else kind


def _is_orthogonal(matrix: np.ndarray) -> bool:
    if matrix.shape[0] != matrix.shape[1]:
        return False
    return bool(np.abs(matrix.T @ matrix - np.eye(len(matrix))).max() < _ORTHOGONAL)


def _check_target(matrix: np.ndarray, size: int) -> None:
    """Refuse targets whose best frame is any frame.

    Raises:
        QasError: an orthogonal matrix with fewer rows than `size`, or any other matrix with as many rows as the frame
            has columns.
    """
    rows, columns = matrix.shape
    if _is_orthogonal(matrix):
        if rows != size:
            raise QasError(f"an orthogonal target has 2^n rows for n qubits, here {size}, got {rows}")
    elif rows <= min(FRAME_RANK, columns):
        raise QasError(
            f"a target has more than {FRAME_RANK} rows, or more rows than columns, or is orthogonal: any frame holds "
            f"all of this one, shape {matrix.shape}"
        )


# ---------------------------------------------------------------------- names and files
class Directions(Family):
    """``adapter-N``, ``adapter-N+M`` and ``adapter-N-ANGLES``: distinct tangent directions."""

    pattern = "adapter-N"
    about = (
        f"architecture of adapter layers of N = 2^n features (n = 2 to {MAX_QUBITS}): distinct tangent directions; "
        "adapter-N+M for layers of M features too, adapter-N-ANGLES for another number of angles"
    )
    small = ("adapter-4", "adapter-8-9", "adapter-8+4")
    formats: ClassVar = {FORMAT: AdapterProblem}

    @property
    def rule(self) -> str:
        sizes = f"N a power of two from 4 to {1 << MAX_QUBITS}, M another and ANGLES at least 1"
        others = "adapter-target FILE, adapter-gradient FILE, or adapter --model DIR"
        return f"adapter-N, adapter-N+M or adapter-N-ANGLES with {sizes}, {others}"

    def load(self, member: str) -> AdapterProblem:
        match = re.fullmatch(r"([1-9]\d{0,5}(?:\+[1-9]\d{0,5})*)(?:-([1-9]\d{0,6}))?", member, flags=re.ASCII)
        sizes = [int(size) for size in match[1].split("+")] if match else []
        possible = all(not size & (size - 1) and 4 <= size <= 1 << MAX_QUBITS for size in sizes)
        if not match or not possible or len(set(sizes)) < len(sizes):
            raise self.wrong(member)
        return directions_problem([size.bit_length() - 1 for size in sizes], int(match[2] or 0))

    def near(self, numbers: list[int]) -> tuple[str, ...]:
        known = numbers and 4 <= numbers[0] <= 1 << MAX_QUBITS and not numbers[0] & (numbers[0] - 1)
        return (f"adapter-{numbers[0]}",) if known else self.small


def directions_problem(qubits: Iterable[int], angles: int = 0) -> AdapterProblem:
    """Distinct directions for layers of 2^n features, each n once; ``adapter-N+M-ANGLES`` by name.

    Args:
        qubits: the numbers n.
        angles: of the widest, as of `AdapterProblem`.

    Raises:
        QasError: none, or numbers out of range.
    """
    most, *narrower = sorted(set(qubits), reverse=True) or [0]
    name = "+".join(str(1 << q) for q in (most, *narrower)) + (f"-{angles}" if angles else "")
    made = AdapterProblem(
        f"adapter-{name}", most, angles=angles, narrower=tuple(narrower), provenance={"family": "adapter"}
    )
    told = " and ".join(str(1 << q) for q in made.widths)
    about = f"architecture of adapter layers of {told} features with {made.angles} angles, distinct directions"
    return replace(made, description=about)


class MatrixFile(Family):
    """``adapter-target FILE`` or ``adapter-gradient FILE``: a matrix in a file."""

    def __init__(self, word: str, goal: str, about: str) -> None:
        self.pattern, self.about, self._goal = f"{word} FILE", about, goal

    def load(self, member: str) -> AdapterProblem:
        path = Path(member)
        return matrix_problem(read_matrix(path), goal=self._goal, name=path.stem)

    def near(self, numbers: list[int]) -> tuple[str, ...]:
        return (self.pattern,)

    def examples(self, folder: Path) -> tuple[str, ...]:
        path = folder / "matrix.npy"
        np.save(path, np.random.default_rng(0).normal(size=(16, 16)))
        return (f"{self.word} {path}",)


TARGET_FILE = MatrixFile("adapter-target", "fit", "fit of a matrix in FILE (.npy, .csv, .safetensors)")
GRADIENT_FILE = MatrixFile("adapter-gradient", "gradient", "alignment with a gradient matrix in FILE")


def load_adapter_problem(name: str) -> AdapterProblem:
    """The problem of a name such as ``adapter-64`` or ``adapter-target dW.npy``, as `qas.load_problem` finds it.

    Raises:
        QasError: malformed, a file that cannot be read, or a problem of another kind.
    """
    found = load_problem(name)
    if not isinstance(found, AdapterProblem):
        raise QasError(f"{found.name} is no adapter problem; their names begin with adapter-")
    return found


def matrix_problem(matrix: Any, *, goal: str = "fit", angles: int = 0, name: str = "matrix") -> AdapterProblem:
    """Fit of a target matrix, or alignment with a gradient.

    Args:
        matrix: for ``goal="fit"`` any matrix; for ``"gradient"`` square, side a power of two from 4, WᵀG for rotated
            inputs or G Wᵀ for rotated outputs, G the derivative of the loss in the weight W.
        goal: "fit" or "gradient".
        angles: as of `AdapterProblem`.
        name: part of the problem's name; what cannot be part of a name becomes ``-``.

    Raises:
        QasError: a matrix that does not fit.
    """
    array = _numbers(matrix)
    if array.ndim != 2 or not min(array.shape) >= 2 or max(array.shape) > MAX_MATRIX:
        raise QasError(f"a target or gradient has two sides of 2 to {MAX_MATRIX}, got shape {array.shape}")
    rows = len(array)
    if goal == "gradient" and (array.shape != (rows, rows) or rows & (rows - 1) or rows < 4):
        raise QasError(f"a gradient is square with a power of two of rows, at least 4, got shape {array.shape}")
    word = {"fit": "target", "gradient": "gradient"}.get(goal, goal)
    clean = re.sub(r"[^A-Za-z0-9._+-]+", "-", name)[:60] or "matrix"
    return AdapterProblem(
        f"adapter-{word}-{clean}",
        max(2, (rows - 1).bit_length()),
        goal,
        angles,
        array,
        description=f"{'fit of' if goal == 'fit' else 'alignment with'} a {array.shape[0]} x {array.shape[1]} matrix",
        provenance={"family": f"adapter-{word}"},
    )


def read_matrix(path: Path) -> np.ndarray:
    """The matrix in a .npy, .csv or .safetensors file (there: its only tensor).

    Raises:
        RunError: no such file, or one that cannot be read as a matrix.
    """
    suffix = path.suffix.lower()
    what = "the matrix file"
    if suffix == ".npy":
        return read_array(path, what)
    if suffix == ".csv":
        text = read_text(path, what)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of an empty file NumPy only warns
                return np.loadtxt(io.StringIO(text), delimiter=",", ndmin=2)
        except (ValueError, Warning) as error:
            raise RunError(f"{what} is damaged: {path}: {one_line(error)}") from None
    if suffix == ".safetensors":
        tensors = list(read_tensors(path, what).values())
        if len(tensors) != 1:
            raise RunError(f"a matrix file holds one tensor, got {len(tensors)}: {path}")
        return tensors[0]
    raise RunError(f"a matrix is read from .npy, .csv or .safetensors, got {path.name!r}")
