"""Circuits onto the coupled pairs of a device, and the problem's qubits to where they suit them.

Qiskit's transpiler does the routing. All qubits begin in |0⟩, so that it does not matter where a circuit begins, only
where its qubits are measured: a patch whose qubits are put into that order runs the routed circuit without a swap at
its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from qas.circuits import Circuit, Gate
from qas.devices import Device
from qas.errors import CircuitError
from qas.native import native

TRIALS = 20
"""Transpilations of a circuit, of which the one with the fewest two-qubit gates, then gates, is taken."""


class Routed(NamedTuple):
    """A circuit on a device, and where its qubits are."""

    circuit: Circuit
    """native gates, on coupled pairs of the device restricted to `order`"""
    order: tuple[int, ...]
    """the device's qubit on which each of the circuit's qubits is measured"""


def in_place(circuit: Circuit, device: Device) -> Circuit | None:
    """The circuit in native gates, qubit q of it on qubit q of the device; None: a pair of it is not coupled."""
    try:
        held = device.native
        return circuit if held is not None and all(map(held.has, circuit)) else native(circuit, device)
    except CircuitError:
        return None


def routed(circuit: Circuit, device: Device, *, moved: bool = True) -> Routed:
    """A circuit of a device's native gates that makes the same state, up to a global phase.

    Args:
        circuit: any, with as many qubits as the device.
        device: a connected patch.
        moved: qubits may end on any of the device's; otherwise each of them on that of its own number.
    """
    from qiskit import transpile

    everywhere = tuple(range(circuit.n_qubits))
    plain = circuit.decompose(from_zero=True).to_qiskit()
    made = [
        transpile(
            # Where a circuit ends can be pinned by pinning where its inverse begins.
            plain if moved else plain.inverse(),
            basis_gates=list(device.native_gates),
            coupling_map=[list(pair) for pair in device.directions],
            initial_layout=None if moved else list(everywhere),
            optimization_level=3,
            seed_transpiler=seed,
        )
        for seed in range(TRIALS)
    ]
    best = min(made, key=lambda each: (sum(len(gate.qubits) == 2 for gate in each.data), len(each.data)))
    if not moved:
        return Routed(native(Circuit.from_qiskit(best.inverse()), device), everywhere)
    order = everywhere if best.layout is None else tuple(best.layout.final_index_layout())
    number = {qubit: position for position, qubit in enumerate(order)}
    gates = [Gate(g.name, tuple(number[q] for q in g.qubits), g.angles) for g in Circuit.from_qiskit(best)]
    return Routed(Circuit(circuit.n_qubits, gates), order)


def arranged(
    circuits: Sequence[Circuit], device: Device, score: Callable[[Circuit, Device], float]
) -> tuple[list[Circuit], Device]:
    """Circuits on a device, and the device with its qubits in the order that suits one of them best.

    Each circuit is routed as suits itself; the order of the one with the lowest score is taken, and the others are
    routed to it.

    Args:
        circuits: at least one.
        device: a connected patch of as many qubits.
        score: of a circuit of native gates on the device in some order; called once for each circuit.
    """
    found = [routed(circuit, device) for circuit in circuits]
    scores = [score(each.circuit, device.restricted(each.order)) for each in found]
    order = found[scores.index(min(scores))].order
    chosen = device.restricted(order)
    return [
        each.circuit if each.order == order else routed(circuit, chosen, moved=False).circuit
        for each, circuit in zip(found, circuits, strict=True)
    ], chosen
