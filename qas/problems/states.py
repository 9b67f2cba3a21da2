"""Preparation of quantum states."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from qas.checks import shortened
from qas.circuits import Circuit, Gate
from qas.errors import QasError
from qas.gates import POOL_GATES, gate_spec
from qas.hamiltonians import Hamiltonian
from qas.problems.families import Seeded
from qas.problems.hamiltonian import Problem

MAX_TARGET_QUBITS = 8
"""Largest target state: as an operator it has up to 4^n Pauli terms."""


def state_preparation(state: Any, *, name: str | None = None) -> Problem:
    r"""Preparation of a target state from |0…0⟩, :math:`H = -|\psi\rangle\langle\psi|`.

    The energy is minus the fidelity, so the error is the infidelity. `basis_state` and `product_state` tell how much of
    the target a basis state and a product state reach.

    Args:
        state: the target, shape (2**n,) with n from 1 to 8, index in Qiskit's order (qubit 0 least significant); a
            `Circuit` stands for the state it prepares. Normalized here.
        name: id; default ``state-<n>``.

    Raises:
        QasError: no vector of 2**n finite numbers, or the zero vector.
    """
    if isinstance(state, Circuit):
        from qas.simulators.statevector import StatevectorSimulator

        provenance: dict[str, Any] = {"target": state.to_list()}
        psi = StatevectorSimulator().state(state)
    else:
        provenance = {}
        try:
            psi = np.array(state, dtype=np.complex128)
        except (TypeError, ValueError):
            raise QasError(f"a target state is a vector of 2^n numbers, got {shortened(state)}") from None
    n = psi.size.bit_length() - 1
    if psi.ndim != 1 or not 1 <= n <= MAX_TARGET_QUBITS or psi.size != 1 << n:
        raise QasError(
            f"a target state is a vector of 2^n numbers with n from 1 to {MAX_TARGET_QUBITS}, got shape {psi.shape}"
        )
    norm = float(np.linalg.norm(psi))
    if not (math.isfinite(norm) and norm > 1e-12):
        raise QasError(f"a target state is finite and not zero, got a vector of norm {norm}")
    psi /= norm
    product = _product_fidelity(psi, n)
    return Problem(
        name=name or f"state-{n}",
        hamiltonian=Hamiltonian.from_matrix(-np.outer(psi, psi.conj()), tolerance=1e-14),
        unit="fidelity",
        threshold=0.01,
        description=f"preparation of a state of {n} qubits, H = -|ψ><ψ|, a product state reaches {product:.3f}",
        provenance={"family": "state", "formula": "H = -|ψ><ψ|", "n": n} | provenance,
        references={
            "exact": -1.0,
            "product_state": -product,
            "basis_state": -float((np.abs(psi) ** 2).max()),
        },
    )


def _product_fidelity(psi: np.ndarray, n: int, starts: int = 40) -> float:
    """Largest |<product|psi>|², by seeded starts of one-qubit-at-a-time maximization; a lower bound on the true one."""
    rng = np.random.default_rng(0)
    tensor = psi.reshape((2,) * n)
    best = float(np.abs(psi).max())  # a basis state is a product state, and random starts may miss it
    for _ in range(starts):
        factors = rng.normal(size=(n, 2)) + 1j * rng.normal(size=(n, 2))
        factors /= np.linalg.norm(factors, axis=1, keepdims=True)
        value = 0.0
        for _ in range(200):
            before = value
            for axis in range(n):
                rest = tensor
                for other in reversed(range(n)):
                    if other != axis:
                        rest = np.tensordot(rest, factors[other].conj(), axes=(other, 0))
                value = float(np.linalg.norm(rest))
                factors[axis] = rest / value if value > 1e-300 else factors[axis]
            if value - before < 1e-12:
                break
        best = max(best, value)
    return min(1.0, best**2)


def _random_target(n: int, seed: int) -> Problem:
    """The state of a random circuit of the kind that fills the published pools: 5n/2 gates, at most 5 layers.

    Most such circuits on few qubits entangle little or nothing; targets of which a product state reaches more than 0.9
    are drawn anew.
    """
    rng = np.random.default_rng([n, seed])
    kinds = [name for name in POOL_GATES if gate_spec(name).n_qubits <= n]
    while True:
        gates = []
        for _ in range(5 * n // 2):
            name = kinds[int(rng.integers(len(kinds)))]
            qubits: tuple[int, ...] = (int(rng.integers(n)),)
            if name == "cx":
                qubits = (qubits[0], (qubits[0] + 1) % n)
            elif gate_spec(name).n_qubits == 2:
                qubits = (qubits[0], (qubits[0] + int(rng.integers(1, n))) % n)
            angles = rng.uniform(0.0, 2.0 * np.pi, size=gate_spec(name).n_angles)
            gates.append(Gate(name, qubits, tuple(angles.tolist())))
        circuit = Circuit(n, gates)
        if circuit.depth <= 5 and circuit.two_qubit_gates:
            made = state_preparation(circuit, name=f"state-{n}-{seed}")
            if made.product_state > -0.9:
                break
    return replace(made, provenance=made.provenance | {"seed": seed})


RANDOM_STATES = Seeded(
    "state",
    _random_target,
    MAX_TARGET_QUBITS,
    f"state of a seeded random circuit, -|ψ><ψ|, N = 2 to {MAX_TARGET_QUBITS}",
    ("state-2-0", "state-3-1"),
)
