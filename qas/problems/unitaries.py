"""Circuits for a target matrix: the whole unitary counts, not only what becomes of |0…0⟩."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np

from qas.checks import finite_array
from qas.circuits import Circuit
from qas.errors import CircuitError, QasError
from qas.files import array_from_text, array_to_text, check_versioned, read_array, versioned
from qas.hamiltonians import Hamiltonian
from qas.problems.base import OperatorProblem
from qas.problems.families import Family, Seeded, Single
from qas.schema import Positive, Qubits, conform

if TYPE_CHECKING:
    from qas.noise import NoiseModel
    from qas.simulators.base import Objective, Simulator

FORMAT, VERSION = "qas-unitary-problem", 1
MAX_UNITARY_QUBITS = 4
"""Largest target: its Choi state is one of twice as many qubits, as an operator of up to 16^n Pauli terms."""
EXACT = 1e-6
"""Infidelity of a circuit that counts as the target: far below what the best hardware loses in one gate."""
_UNITARY = 1e-6


class _Matrix(TypedDict):
    side: Positive
    complex128: str


class _Told(TypedDict):
    name: str
    n_qubits: Qubits
    unit: str
    threshold: float
    description: str
    provenance: dict[str, Any]
    target: _Matrix


@dataclass(frozen=True, eq=False)
class UnitaryProblem(OperatorProblem):
    r"""A target unitary V, up to its phase.

    The energy of a circuit U is minus its process fidelity (entanglement fidelity),
    :math:`-|\mathrm{tr}(V^\dagger U)|^2/4^n`, and its error the infidelity. That of a gate averaged over all states is
    :math:`2^n/(2^n+1)` times as large (Nielsen, Phys. Lett. A 303, 249, 2002). Under noise it is the fidelity of the
    process that the noisy circuit is.
    It is that of the circuit's Choi state, so that all that works on expectation values works here; see
    `qas.simulators.choi`.

    Raises:
        QasError: `target` is no unitary matrix of 1 to 4 qubits, to 1e-6.
    """

    name: str
    target: np.ndarray = field(repr=False)
    """complex128, shape (2**n, 2**n), index in Qiskit's order; the nearest unitary matrix to the one given"""
    unit: str = "fidelity"
    threshold: float | None = EXACT
    """Infidelity regarded as success."""
    description: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        matrix = finite_array("a target unitary", self.target, complex_too=True)
        n = len(matrix).bit_length() - 1 if matrix.ndim == 2 else 0
        if not 1 <= n <= MAX_UNITARY_QUBITS or matrix.shape != (1 << n, 1 << n):
            rule = f"a target unitary has 2^n rows and columns with n from 1 to {MAX_UNITARY_QUBITS}"
            raise QasError(f"{rule}, got shape {matrix.shape}")
        left, values, right = np.linalg.svd(matrix)
        if np.abs(values - 1.0).max() > _UNITARY:
            away = float(np.abs(values - 1.0).max())
            raise QasError(f"a target unitary has singular values of 1, got one that is off by {away:.3g}")
        # A matrix that is unitary to the last digits stays as it is, so that files keep every bit.
        near = np.abs(values - 1.0).max() < 1e-14
        target = np.array(matrix if near else left @ right, dtype=np.complex128)
        target.flags.writeable = False
        object.__setattr__(self, "target", target)
        super().__post_init__()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnitaryProblem) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.name, self.target.tobytes()))

    def __str__(self) -> str:
        return f"{self.name}: {self.description or self.summary}"

    # ------------------------------------------------------------------ what is known
    @property
    def n_qubits(self) -> int:
        return len(self.target).bit_length() - 1

    @cached_property
    def hamiltonian(self) -> Hamiltonian:  # type: ignore[override]
        """Minus the projector on the target's Choi state, on 2n qubits; see `qas.simulators.choi.ChoiSimulator`."""
        # Row k·2^n + j of the vector is ⟨j|V|k⟩: pairs in front, the circuit's qubits lowest.
        choi = self.target.T.ravel() / np.sqrt(len(self.target))
        return Hamiltonian.from_matrix(-np.outer(choi, choi.conj()), tolerance=1e-14)

    @property
    def exact(self) -> float:
        return -1.0

    @property
    def lower_bound(self) -> float:
        return -1.0

    @property
    def mixed_energy(self) -> float:
        """Minus 1/4^n: what a qubit of which nothing is left keeps, and the mean over all unitaries."""
        return -(0.25**self.n_qubits)

    @property
    def spread(self) -> float:
        return 1.0

    @cached_property
    def product_state(self) -> float:
        """Minus the fidelity that one-qubit gates alone reach, by seeded local searches: an upper bound on the best."""
        return -_product_fidelity(self.target)

    @cached_property
    def basis_state(self) -> float:
        """Minus the fidelity that X gates alone reach."""
        index = np.arange(len(self.target))
        overlaps = [np.abs(self.target[index ^ mask, index].sum()) for mask in index]
        return -(float(max(overlaps) / len(index)) ** 2)

    @property
    def summary(self) -> str:
        return f"unitary matrix of {len(self.target)} rows"

    @property
    def max_gates(self) -> int:
        """A third more than a generic target takes: a rotation for each of its 4^n - 1 parameters, and CX between them.

        Of CX (4^n - 3n - 1) / 4 is what counting parameters asks for (Shende, Markov and Bullock, Phys. Rev. A 69,
        062321, 2004).
        """
        parameters = (1 << 2 * self.n_qubits) - 1
        return max(super().max_gates, 4 * (parameters + (parameters - 3 * self.n_qubits + 3) // 4) // 3)

    # ------------------------------------------------------------------ how a circuit is judged
    def simulator(self, noise: NoiseModel | None = None, engine: Any = None, shots: int | None = None) -> Simulator:
        """The engine of that name, or the fastest exact one, for the circuit's Choi state.

        Raises:
            UnknownNameError: no such engine.
            TooLargeError: more qubits than the engine can hold.
            QasError: shots, noise for a noise-free engine, or an engine that was made with noise.
        """
        from qas.simulators import Simulator, make_simulator
        from qas.simulators.choi import ChoiSimulator, on_first

        if shots is not None:
            raise QasError(f"{self.name} is judged by a process fidelity, which is exact, and takes no shots")
        if isinstance(engine, ChoiSimulator):
            engine = engine.engine
        if isinstance(engine, Simulator) and engine.noise is not None:
            raise QasError(f"{self.name} takes noise and the name of an engine, not an engine made with noise")
        made = ChoiSimulator(make_simulator(None if noise is None else on_first(noise, self.n_qubits), engine))
        made.check_size(self.n_qubits)
        return made

    def objective(self, circuit: Circuit, simulator: Simulator | None = None) -> Objective:
        if circuit.n_qubits != self.n_qubits:
            raise CircuitError(f"{self.name} is about circuits of {self.n_qubits} qubits, got {circuit.n_qubits}")
        return (simulator or self.simulator()).objective(circuit, self.hamiltonian)

    # ------------------------------------------------------------------ files
    def to_json(self) -> dict[str, Any]:
        names = ("name", "n_qubits", "unit", "threshold", "description", "provenance")
        data = versioned(FORMAT, VERSION, {name: getattr(self, name) for name in names})
        return data | {"target": {"side": len(self.target), "complex128": array_to_text(self.target, "<c16")}}

    @classmethod
    def from_json(cls, data: Any) -> UnitaryProblem:
        data = check_versioned(data, FORMAT, VERSION, "a unitary problem")
        told = dict(conform(data, _Told, "the unitary problem", error=QasError))
        side = told["target"]["side"]
        told_target = told["target"]["complex128"]
        target = array_from_text(told_target, "<c16", (side, side), "the target of the unitary problem")
        if side != 1 << told["n_qubits"]:
            raise QasError(f"n_qubits is {told['n_qubits']} but the target has {side} rows")
        names = ("name", "unit", "threshold", "description", "provenance")
        return cls(target=target, **{name: told[name] for name in names})


def unitary(target: Any, *, name: str | None = None, threshold: float = EXACT) -> UnitaryProblem:
    """Circuits for a unitary matrix, up to its phase.

    Args:
        target: shape (2**n, 2**n), n from 1 to 4, index in Qiskit's order (qubit 0 least significant); or a `Circuit`.
        name: id; default ``unitary-<n>``.
        threshold: infidelity regarded as success.

    Raises:
        QasError: no such matrix, to 1e-6, or something else.
    """
    provenance: dict[str, Any] = {"family": "unitary"}
    if isinstance(target, Circuit):
        if target.n_qubits > MAX_UNITARY_QUBITS:
            raise QasError(f"a target unitary is one of 1 to {MAX_UNITARY_QUBITS} qubits, got {target.n_qubits}")
        provenance |= {"target": target.to_list()}
        target = target.to_matrix()
    elif hasattr(target, "num_qubits"):
        raise QasError(f"a target is a matrix or a Circuit, got {type(target).__name__} (see Circuit.from_qiskit)")
    made = UnitaryProblem(name or "unitary", target, threshold=threshold, provenance=provenance)
    return replace(
        made,
        name=name or f"unitary-{made.n_qubits}",
        description=f"a unitary of {made.n_qubits} qubits, one-qubit gates reach {-made.product_state:.3f}",
    )


def _product_fidelity(target: np.ndarray, starts: int = 10) -> float:
    """Largest |tr(V† U)|² / 4^n over products U of one-qubit gates, by seeded starts of one gate at a time."""
    n = len(target).bit_length() - 1
    rng = np.random.default_rng(0)
    tensor = target.conj().reshape((2,) * 2 * n)  # an axis for each qubit's row, highest qubit first; then the columns
    best = 0.0
    for start in range(starts):
        gates = [np.eye(2) if not start else _polar(rng.normal(size=(2, 2, 2)) @ (1, 1j)) for _ in range(n)]
        value = 0.0
        for _ in range(200):
            before = value
            for axis in range(n):
                rest = tensor
                for other in reversed(range(n)):
                    if other != axis:
                        columns = rest.ndim // 2
                        rest = np.tensordot(rest, gates[other], axes=((other, columns + other), (0, 1)))
                gates[axis] = _polar(rest.conj())
                value = float(np.abs((rest * gates[axis]).sum()))
            if value - before < 1e-12:
                break
        best = max(best, value / len(target))
    return min(1.0, best**2)


def _polar(matrix: np.ndarray) -> np.ndarray:
    """The nearest unitary matrix."""
    left, _, right = np.linalg.svd(matrix)
    return np.asarray(left @ right)


# ---------------------------------------------------------------------- names
def _permutation(n: int, moved: dict[int, int]) -> np.ndarray:
    """Basis states that go to others, the rest where they are."""
    matrix = np.eye(1 << n)
    for state, image in moved.items():
        matrix[:, state] = 0.0
        matrix[image, state] = 1.0
    return matrix


def _fourier(n: int) -> np.ndarray:
    index = np.arange(1 << n)
    return np.asarray(np.exp(2j * np.pi * np.outer(index, index) / len(index)) / np.sqrt(len(index)))


_NAMED: dict[str, tuple[Any, str]] = {
    "toffoli-3": (partial(_permutation, 3, {3: 7, 7: 3}), "Toffoli gate, qubits 0 and 1 control an X on 2"),
    "toffoli-4": (partial(_permutation, 4, {7: 15, 15: 7}), "Toffoli gate of three controls, 0 to 2, on 3"),
    "fredkin-3": (partial(_permutation, 3, {3: 5, 5: 3}), "Fredkin gate, qubit 0 controls a swap of 1 and 2"),
    "peres-3": (
        partial(_permutation, 3, {1: 3, 3: 5, 5: 7, 7: 1}),
        "Peres gate, a Toffoli gate on qubit 2 and then CX from 0 to 1",
    ),
    "qft-2": (partial(_fourier, 2), "Fourier transform of 2 qubits"),
    "qft-3": (partial(_fourier, 3), "Fourier transform of 3 qubits"),
    "qft-4": (partial(_fourier, 4), "Fourier transform of 4 qubits"),
}


def _named(name: str) -> UnitaryProblem:
    make, about = _NAMED[name]
    return UnitaryProblem(name, make(), description=about, provenance={"family": "unitary", "formula": about})


TOFFOLI_3, TOFFOLI_4, FREDKIN_3, PERES_3, QFT_2, QFT_3, QFT_4 = (
    Single(name, partial(_named, name), about) for name, (_, about) in _NAMED.items()
)


def _random_target(n: int, seed: int) -> UnitaryProblem:
    """A unitary drawn from Haar's measure (Mezzadri, Notices AMS 54, 592, 2007)."""
    rng = np.random.default_rng([n, seed])
    q, r = np.linalg.qr(rng.normal(size=(1 << n, 1 << n, 2)) @ np.array([1, 1j]))
    made = unitary(q * (np.diag(r) / np.abs(np.diag(r))), name=f"unitary-{n}-{seed}")
    return replace(made, provenance=made.provenance | {"seed": seed})


RANDOM_UNITARIES = Seeded(
    "unitary",
    _random_target,
    MAX_UNITARY_QUBITS,
    f"random unitary from Haar's measure, N = 2 to {MAX_UNITARY_QUBITS}",
    ("unitary-2-0", "unitary-3-1"),
)


class UnitaryFile(Family):
    """``unitary-target FILE``: a matrix in a file."""

    pattern = "unitary-target FILE"
    about = "the unitary matrix in FILE (.npy)"
    formats: ClassVar = {FORMAT: UnitaryProblem}

    def load(self, member: str) -> UnitaryProblem:
        path = Path(member)
        if path.suffix.lower() != ".npy":
            raise QasError(f"a target unitary is read from .npy, got {path.name!r}")
        name = re.sub(r"[^A-Za-z0-9._+-]+", "-", path.stem)[:60] or "matrix"
        return unitary(read_array(path, "the file of a target unitary"), name=f"unitary-target-{name}")

    def near(self, numbers: list[int]) -> tuple[str, ...]:
        return (self.pattern,)

    def examples(self, folder: Path) -> tuple[str, ...]:
        path = folder / "unitary.npy"
        np.save(path, _fourier(2))
        return (f"{self.word} {path}",)


UNITARY_FILE = UnitaryFile()
