"""Circuits onto the coupled pairs of a device, and the problem's qubits to where they suit them.

Qiskit's transpiler does the routing. Where all qubits begin in |0⟩ it does not matter where a circuit begins, only
where its qubits are measured: a patch whose qubits are put into that order runs the routed circuit without a swap at
its end. Where the whole matrix counts qubits have to come back to where they began: swaps along the coupling bring them
there, and of the orders of the patch's qubits that with the shortest circuit is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from qas.checks import one_line
from qas.circuits import Circuit, Gate
from qas.devices import Device
from qas.errors import CircuitError
from qas.native import native, native_set

TRIALS = 20
"""Transpilations of a circuit, of which the one with the fewest two-qubit gates, then gates, is taken."""
_ORDERS = 24
"""Most orders of a patch's qubits that are tried where the whole matrix counts: all of four qubits, some of more."""


class Routed(NamedTuple):
    """A circuit on a device, and where its qubits are."""

    circuit: Circuit
    """native gates, on coupled pairs of the device restricted to `order`"""
    order: tuple[int, ...]
    """the device's qubit on which each of the circuit's qubits is measured"""


def in_place(
    circuit: Circuit, device: Device, gates: Sequence[str] | None = None, *, whole: bool = False
) -> Circuit | None:
    """The circuit in native gates, qubit q of it on qubit q of the device; None: a pair of it is not coupled.

    Args:
        gates: of the device that may be used; None: all.
        whole: keep the whole matrix, not only what becomes of |0…0⟩.
    """
    held = native_set(gates or device.native_gates, device.directions) or device.native
    try:
        return (
            circuit
            if held is not None and all(map(held.has, circuit))
            else native(circuit, held or device, whole=whole)
        )
    except CircuitError:
        return None


def routed(
    circuit: Circuit, device: Device, gates: Sequence[str] | None = None, *, moved: bool = True, whole: bool = False
) -> Routed:
    """A circuit of a device's native gates that makes the same state, up to a global phase.

    Args:
        circuit: any, with as many qubits as the device.
        device: a connected patch.
        gates: of the device that may be used; None: all.
        moved: qubits may end on any of the device's; otherwise each of them on that of its own number.
        whole: keep the whole matrix, up to its phase: qubits end where they begin.

    Raises:
        CircuitError: the transpiler finds no way.
    """
    from qiskit import QiskitError, transpile

    everywhere = tuple(range(circuit.n_qubits))
    if whole:
        orders = _orders(circuit.n_qubits) if moved else [everywhere]
        tried = (_coming_back(circuit, device, gates, order) for order in orders)
        found = [each for each in tried if each is not None]
        if not found:
            raise CircuitError(f"no way to route the circuit to {device.name} so that its qubits come back")
        return min(found, key=lambda each: (each.circuit.two_qubit_gates, len(each.circuit)))
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
    return Routed(_renumbered(Circuit.from_qiskit(best), order), order)


def _orders(n_qubits: int) -> list[tuple[int, ...]]:
    """Orders of qubits to try, the present one first: all if they are few, else some at random."""
    present = tuple(range(n_qubits))
    if math.factorial(n_qubits) <= _ORDERS:
        return list(permutations(present))
    rng = np.random.default_rng(0)
    return [present, *(tuple(map(int, rng.permutation(n_qubits))) for _ in range(_ORDERS - 1))]


def _coming_back(
    circuit: Circuit, device: Device, gates: Sequence[str] | None, order: tuple[int, ...]
) -> Routed | None:
    """The circuit with its qubits on those of the device in this order, at its beginning and at its end.

    None where the transpiler takes the swaps that bring them back for another numbering once more.
    """
    import rustworkx
    from qiskit import QiskitError, transpile

    graph = rustworkx.PyGraph()
    graph.add_nodes_from(order)
    graph.add_edges_from_no_data([(a, b) for a, b in device.directions if a < b or (b, a) not in device.directions])
    there: dict[str, Any] = {
        "basis_gates": list(gates or device.native_gates),
        "coupling_map": [list(pair) for pair in device.directions] or None,
        "seed_transpiler": 0,
    }
    plain = circuit.decompose().to_qiskit()
    try:
        made = transpile(plain, initial_layout=list(order), optimization_level=3, **there)
        final = order if made.layout is None else made.layout.final_index_layout()
        moves = {at: order[q] for q, at in enumerate(final) if at != order[q]}
        for a, b in rustworkx.graph_token_swapper(graph, moves, 8, 0) if moves else ():
            for control, target in ((a, b), (b, a), (a, b)):
                made.cx(control, target)
        made = transpile(made, initial_layout=list(range(len(order))), optimization_level=1, **there)
    except QiskitError as error:
        raise CircuitError(f"no way to route the circuit to {device.name}: {one_line(error)}") from None
    back = _renumbered(Circuit.from_qiskit(made), order)
    back = in_place(back, device.restricted(order), gates, whole=True) or back
    overlap = np.vdot(circuit.to_matrix(), back.to_matrix()) / (1 << circuit.n_qubits)
    return Routed(back, order) if abs(overlap) > 1 - 1e-9 else None


def _renumbered(circuit: Circuit, order: Sequence[int]) -> Circuit:
    """A circuit on a device's qubits on the places that these have in an order."""
    number = {qubit: position for position, qubit in enumerate(order)}
    return Circuit(circuit.n_qubits, [Gate(g.name, tuple(number[q] for q in g.qubits), g.angles) for g in circuit])
