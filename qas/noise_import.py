"""Noise models in and out of Qiskit Aer.

Qiskit is imported inside the functions, so that importing this module is cheap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np

from qas.checks import whole_number
from qas.errors import QasError
from qas.gates import GATES
from qas.noise import (
    TWO_QUBIT_GATES,
    Channel,
    NoiseModel,
    embed_pair,
    exchange_qubits,
    pauli_basis,
)

OPEN_ENDED_QUBITS = 16
"""Qubits described by `from_aer` when a model mixes all-qubit and local errors and no number is given."""

_IGNORED = frozenset({"id", "delay", "measure", "reset"})


# ---------------------------------------------------------------------- transfer matrices
def _basis_vectors(n_qubits: int) -> np.ndarray:
    """Column-stacked Pauli matrices as columns, complex128, shape (4**k, 4**k)."""
    return np.array([p.ravel(order="F") for p in pauli_basis(n_qubits)]).T


def _superoperator_ptm(superoperator: np.ndarray) -> np.ndarray:
    """PTM of a column-stacking superoperator as Qiskit's `SuperOp` holds it, float64, shape (4**k, 4**k)."""
    n_qubits = (len(superoperator).bit_length() - 1) // 2
    vectors = _basis_vectors(n_qubits)
    return (vectors.conj().T @ superoperator @ vectors).real / 2**n_qubits


def kraus_operators(ptm: np.ndarray) -> list[np.ndarray]:
    """Kraus operators of a PTM, each complex128, shape (2**k, 2**k).

    Qiskit's own conversion drops Choi eigenvalues below 1e-8, which is visible at our accuracy.
    """
    size = math.isqrt(len(ptm))
    basis = pauli_basis(size.bit_length() - 1)
    choi = np.einsum("ij,jba,icd->acbd", ptm, basis, basis).reshape(len(ptm), -1) / size
    values, vectors = np.linalg.eigh((choi + choi.conj().T) / 2)
    kept = values > 1e-15
    return [
        math.sqrt(value) * vector.reshape(size, size).T
        for value, vector in zip(values[kept], vectors.T[kept], strict=True)
    ]


def _is_identity(ptm: np.ndarray) -> bool:
    return bool(np.array_equal(ptm, np.eye(len(ptm))))


# ---------------------------------------------------------------------- from Aer
def from_aer(noise_model: Any, n_qubits: int | None = None, strict: bool = True) -> NoiseModel:
    """Read a `qiskit_aer.noise.NoiseModel` exactly.

    All-qubit errors act everywhere, except where a local error on the same gate replaces them, as in Aer. Errors on
    ``id``, ``delay``, ``measure`` and ``reset`` instructions, and on gates that are not in our gate table (such as
    ``ecr``), are left out: no circuit of ours can trigger them. A reset *inside* an error (Aer writes thermal
    relaxation with T2 <= T1 that way) is part of the channel and is read exactly.

    The order of the qubits of a symmetric gate (cz, swap, rxx, ryy, rzz) has no meaning here: an error on one order of
    a pair acts on the other order too, and where Aer has different errors for the two, that of (lower, higher) is read.
    Where every two-qubit error of the model is local, their pairs become the result's `coupling`.

    Args:
        noise_model: the model to read.
        n_qubits: number of qubits in use; errors on higher qubits are left out, and the result refuses higher qubits.
            None: any number; only where an all-qubit error and a local error meet on one gate, the result describes
            the first `OPEN_ENDED_QUBITS` qubits (or as many as the model mentions) and refuses higher ones.
        strict: refuse models under which circuits of ours would run with less noise than the model means, such as
            `qiskit_aer.noise.NoiseModel.from_backend`, whose errors sit on a device's native gates only.

    Raises:
        QasError: not an Aer noise model, an error on more than two qubits, a readout error on several qubits at once,
            or a custom noise pass other than relaxation during delays. With `strict` also: an error on a two-qubit gate
            outside our gate table, errors on one-qubit gates but none on rx and ry, a cx error in only one direction of
            a pair, or an error that depends on the order of a symmetric gate's qubits.
    """
    for field in ("_default_quantum_errors", "_local_quantum_errors", "_local_readout_errors"):
        if not hasattr(noise_model, field):
            raise QasError(f"from_aer reads a qiskit_aer.noise.NoiseModel, got {type(noise_model).__name__}")
    if n_qubits is not None:
        whole_number("the number of qubits of a noise model", n_qubits)
    _refuse_what_cannot_be_read(noise_model)
    everywhere = {g: e for g, e in noise_model._default_quantum_errors.items() if g not in _IGNORED}
    local = {g: e for g, e in noise_model._local_quantum_errors.items() if g not in _IGNORED}
    reader = _ErrorReader()
    model = NoiseModel("aer", n_qubits=n_qubits)
    if strict:
        _refuse_noise_on_foreign_gates(everywhere, local)
        _refuse_errors_of_one_order(everywhere, local, n_qubits, reader)

    mixed = [g for g in everywhere if local.get(g) and g in GATES]
    described = n_qubits
    if mixed and described is None:
        described = max(OPEN_ENDED_QUBITS, *(1 + q for g in mixed for pair in local[g] for q in pair))
        model = replace(model, n_qubits=described)
    for gate, error in everywhere.items():
        if gate not in GATES:
            continue
        places: list[tuple[int, ...]] | None = None
        if gate in mixed:
            assert described is not None
            own = set(local[gate])
            if GATES[gate].symmetric:
                own |= {p[::-1] for p in own}
            places = [p for p in permutations(range(described), GATES[gate].n_qubits) if p not in own]
        model = model.add(reader.channel(f"aer {gate}", error), gate, places)
    for gate, errors in local.items():
        for qubits, error in errors.items():
            if gate not in GATES or (described is not None and max(qubits) >= described):
                continue
            if GATES[gate].symmetric and qubits[0] > qubits[1] and qubits[::-1] in errors:
                continue
            channel = reader.channel(f"aer {gate} {','.join(map(str, qubits))}", error)
            model = model.add(channel, gate, [tuple(qubits)])
    model = replace(model, coupling=_coupling(everywhere, local, n_qubits))
    return _read_readout(model, noise_model)


_Everywhere = Mapping[str, Any]
_Local = Mapping[str, Mapping[tuple[int, ...], Any]]


def _coupling(everywhere: _Everywhere, local: _Local, n_qubits: int | None) -> frozenset[tuple[int, int]] | None:
    """Pairs with a two-qubit error, if there are any and all of them are local."""
    pairs = {(min(q), max(q)) for errors in local.values() for q in errors if len(q) == 2}
    if not pairs or any(error.num_qubits == 2 for error in everywhere.values()):
        return None
    return frozenset(pair for pair in pairs if n_qubits is None or max(pair) < n_qubits)


def _refuse_noise_on_foreign_gates(everywhere: _Everywhere, local: _Local) -> None:
    sizes = {gate: error.num_qubits for gate, error in everywhere.items()}
    sizes |= {gate: len(next(iter(errors))) for gate, errors in local.items() if errors}
    foreign = sorted(gate for gate, size in sizes.items() if size == 2 and gate not in GATES)
    if foreign:
        raise QasError(
            f"from_aer would lose the errors on {', '.join(foreign)}, which no circuit here contains; read a device "
            "with NoiseModel.from_backend, or pass strict=False"
        )
    single = sorted(gate for gate, size in sizes.items() if size == 1)
    if single and not {"rx", "ry"} & set(single):
        raise QasError(
            f"the model has errors on {', '.join(single)} but none on rx and ry, which would run free of noise; read "
            "a device with NoiseModel.from_backend, or pass strict=False"
        )


def _refuse_errors_of_one_order(
    everywhere: _Everywhere, local: _Local, n_qubits: int | None, reader: _ErrorReader
) -> None:
    """Refuse asymmetric gates with an error in one direction only, symmetric ones with an error for each."""
    for gate in TWO_QUBIT_GATES:
        orders = [(gate, everywhere[gate], everywhere[gate])] if gate in everywhere else []
        for pair, error in local.get(gate, {}).items():
            if n_qubits is not None and max(pair) >= n_qubits:
                continue
            other = local[gate].get(pair[::-1])
            if other is not None:
                orders.append((f"{gate} on {pair} and {pair[::-1]}", error, other))
            elif not GATES[gate].symmetric and gate not in everywhere:
                raise QasError(
                    f"{gate} has an error on {pair} but none on {pair[::-1]}, which would run free of noise; add one, "
                    "or pass strict=False"
                )
        if GATES[gate].symmetric:
            for what, one, other in orders:
                turned = exchange_qubits(reader.channel(what, other).ptm)
                if not np.allclose(reader.channel(what, one).ptm, turned, rtol=0, atol=1e-12):
                    raise QasError(
                        f"the order of the qubits of {gate} has no meaning here, but the error on {what} depends on "
                        "it; make it symmetric, or pass strict=False"
                    )


def _refuse_what_cannot_be_read(noise_model: Any) -> None:
    from qiskit.circuit import Delay

    if getattr(noise_model, "_nonlocal_quantum_errors", None):
        raise QasError("from_aer reads errors on a gate's own qubits, got a nonlocal error")
    local = [(g, e) for g, errors in noise_model._local_quantum_errors.items() for e in errors.values()]
    for gate, error in [*noise_model._default_quantum_errors.items(), *local]:
        if error.num_qubits > 2:
            raise QasError(f"from_aer reads errors on 1 or 2 qubits, got {error.num_qubits} after {gate}")
    for noise_pass in noise_model._custom_noise_passes:
        # NoiseModel.from_backend always adds relaxation during delays; our circuits have none.
        kinds = getattr(noise_pass, "_ops", ())
        if not kinds or any(kind is not Delay for kind in kinds):
            raise QasError(f"from_aer cannot read a custom noise pass, got {type(noise_pass).__name__}")


def _read_readout(model: NoiseModel, noise_model: Any) -> NoiseModel:
    def flips(error: Any) -> tuple[float, float]:
        table = np.asarray(error.probabilities, dtype=np.float64)
        if table.shape != (2, 2):
            raise QasError(f"from_aer reads readout errors of single qubits, got a table of shape {table.shape}")
        return float(table[0, 1]), float(table[1, 0])

    if noise_model._default_readout_error is not None:
        model = model.add_readout(*flips(noise_model._default_readout_error))
    for qubits, error in noise_model._local_readout_errors.items():
        pair = flips(error)
        if model.n_qubits is None or qubits[0] < model.n_qubits:
            model = model.add_readout(*pair, [qubits[0]])
    return model


class _ErrorReader:
    """Turns Aer `QuantumError`s into channels; remembers the matrices of the instructions it has met."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], np.ndarray] = {}

    def channel(self, name: str, error: Any) -> Channel:
        total = np.zeros((4**error.num_qubits,) * 2)
        for circuit, probability in zip(error.circuits, error.probabilities, strict=True):
            step = np.eye(len(total))
            for instruction in circuit.data:
                places = [circuit.find_bit(bit).index for bit in instruction.qubits]
                step = self._embedded(instruction.operation, places, error.num_qubits) @ step
            total += probability * step
        return Channel(name, total)

    def _embedded(self, operation: Any, places: list[int], n_qubits: int) -> np.ndarray:
        key = (operation.name, n_qubits, *places, *(_hashable(p) for p in operation.params))
        if key not in self._known:
            self._known[key] = self._read(operation, places, n_qubits)
        return self._known[key]

    @staticmethod
    def _read(operation: Any, places: list[int], n_qubits: int) -> np.ndarray:
        from qiskit.quantum_info import SuperOp

        local = _superoperator_ptm(SuperOp(operation).data)
        if len(places) == n_qubits:
            return exchange_qubits(local) if places == [1, 0] else local
        identity = np.eye(4)
        return embed_pair(local, identity) if places == [0] else embed_pair(identity, local)


def _hashable(parameter: Any) -> Any:
    return parameter.tobytes() if isinstance(parameter, np.ndarray) else parameter


# ---------------------------------------------------------------------- to Aer
def to_aer(model: NoiseModel, n_qubits: int) -> Any:
    """The model as a `qiskit_aer.noise.NoiseModel` for circuits of our gates on `n_qubits` qubits.

    Every gate and every choice of qubits gets its channel as a local error, and every qubit its readout error. Idle
    noise acts in the delays of a circuit, which is to be scheduled.
    Circuits must reach Aer untranspiled: a compiled gate has another name, and so another error. Aer cannot refuse
    gates outside `coupling`; they run without noise there.

    Raises:
        QasError: fewer than 1 qubit, or more than the model describes.
    """
    if n_qubits < 1:
        raise QasError(f"a noise model describes at least 1 qubit, got {n_qubits}")
    model.check_register(n_qubits)
    uses = []
    for gate, spec in GATES.items():
        for qubits in permutations(range(n_qubits), spec.n_qubits):
            ordered = (min(qubits), max(qubits))
            if len(qubits) == 1 or model.coupling is None or ordered in model.coupling:
                uses.append((gate, qubits))
    result = aer_noise(model, n_qubits, uses)
    if model.idle is not None:
        from qiskit.circuit import Delay
        from qiskit_aer.noise import RelaxationNoisePass

        times = list(zip(model.idle.t1, model.idle.t2, strict=True))[:n_qubits]
        t1s, t2s = [t1 for t1, _ in times], [min(t2, 2 * t1) for t1, t2 in times]
        result._custom_noise_passes.append(RelaxationNoisePass(t1s=t1s, t2s=t2s, dt=None, op_types=Delay))
    return result


def aer_noise(model: NoiseModel, n_qubits: int, uses: Iterable[tuple[str, tuple[int, ...]]]) -> Any:
    """As `to_aer`, with errors only for the gates on qubits named in `uses`: much faster for one circuit.

    Raises:
        CircuitError: a gate that the model refuses.
    """
    from qiskit.quantum_info import Kraus
    from qiskit_aer.noise import NoiseModel as AerNoiseModel
    from qiskit_aer.noise import QuantumError, ReadoutError

    result = AerNoiseModel(basis_gates=list(GATES))
    errors: dict[bytes, Any] = {}
    for gate, qubits in uses:
        ptm = model.channel(gate, qubits)
        if ptm is None or _is_identity(ptm):
            continue
        key = ptm.tobytes()
        if key not in errors:
            errors[key] = QuantumError(Kraus(kraus_operators(ptm)))
            # Aer would drop noise weaker than 1e-8 as ideal, and takes most of the time to find that out.
            errors[key].ideal = lambda: False
        result.add_quantum_error(errors[key], gate, list(qubits), warnings=False)
    for error in errors.values():
        del error.ideal
    for qubit, (p01, p10) in enumerate(model.readout_flips(n_qubits)):
        if p01 or p10:
            result.add_readout_error(ReadoutError([[1 - p01, p01], [p10, 1 - p10]]), [qubit], warnings=False)
    return result
