"""Circuits onto the coupled pairs of a device, and the problem's qubits to where they suit them.

Qiskit's transpiler does the routing. All qubits begin in |0⟩, so that it does not matter where a circuit begins, only
where its qubits are measured: a patch whose qubits are put into that order runs the routed circuit without a swap at
its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from qas.checks import one_line
from qas.circuits import Circuit, Gate
from qas.devices import Device
from qas.errors import CircuitError
from qas.native import native, native_set

TRIALS = 20
"""Transpilations of a circuit, of which the one with the fewest two-qubit gates, then gates, is taken."""


class Routed(NamedTuple):
    """A circuit on a device, and where its qubits are."""

    circuit: Circuit
    """native gates, on coupled pairs of the device restricted to `order`"""
    order: tuple[int, ...]
    """the device's qubit on which each of the circuit's qubits is measured"""


def in_place(circuit: Circuit, device: Device, gates: Sequence[str] | None = None) -> Circuit | None:
    """The circuit in native gates, qubit q of it on qubit q of the device; None: a pair of it is not coupled.

    Args:
        gates: of the device that may be used; None: all.
    """
    held = native_set(gates or device.native_gates, device.directions) or device.native
    try:
        return circuit if held is not None and all(map(held.has, circuit)) else native(circuit, held or device)
    except CircuitError:
        return None


def routed(circuit: Circuit, device: Device, gates: Sequence[str] | None = None, *, moved: bool = True) -> Routed:
    """A circuit of a device's native gates that makes the same state, up to a global phase.

    Args:
        circuit: any, with as many qubits as the device.
        device: a connected patch.
        gates: of the device that may be used; None: all.
        moved: qubits may end on any of the device's; otherwise each of them on that of its own number.

    Raises:
        CircuitError: the transpiler finds no way.
    """
    from qiskit import QiskitError, transpile

    everywhere = tuple(range(circuit.n_qubits))
    plain = circuit.decompose(from_zero=True).to_qiskit()
    try:
        made = [
            transpile(
                # Where a circuit ends can be pinned by pinning where its inverse begins.
                plain if moved else plain.inverse(),
                basis_gates=list(gates or device.native_gates),
                coupling_map=[list(pair) for pair in device.directions] or None,
                initial_layout=None if moved else list(everywhere),
                optimization_level=3,
                seed_transpiler=seed,
            )
            for seed in range(TRIALS)
        ]
    except QiskitError as error:
        raise CircuitError(f"no way to route the circuit to {device.name}: {one_line(error)}") from None
    best = min(made, key=lambda each: (sum(len(gate.qubits) == 2 for gate in each.data), len(each.data)))
    if not moved:
        back = Circuit.from_qiskit(best.inverse())
        return Routed(in_place(back, device, gates) or back, everywhere)
    order = everywhere if best.layout is None else tuple(best.layout.final_index_layout())
    number = {qubit: position for position, qubit in enumerate(order)}
    turned = [Gate(g.name, tuple(number[q] for q in g.qubits), g.angles) for g in Circuit.from_qiskit(best)]
    return Routed(Circuit(circuit.n_qubits, turned), order)
