"""Circuits that a search begins with, where the caller hands some over."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from qas.agents.base import Search
from qas.best_known import atlas
from qas.checks import shortened
from qas.circuits import Circuit
from qas.devices import Device
from qas.errors import CircuitError, QasError
from qas.interop import read_circuit_file
from qas.problems import BaseProblem
from qas.routing import in_place, routed
from qas.runs import Run, load_run

ATLAS = "atlas"
"""Stands for the best known circuits of the problem."""
ROUTED = ", routed"
"""What is added to the source of circuits that were."""


class Beginning(NamedTuple):
    """Circuits to begin with, and where they are from."""

    circuits: list[Circuit]
    source: str
    """in words, without paths of this machine"""
    from_atlas: bool
    """they are the atlas's, or what a search made of these"""
    device: Device | None = None
    """on which they were found"""


def beginning(given: str | os.PathLike[str] | Circuit | Run, problem: BaseProblem) -> Beginning:
    """What a search for a problem begins with.

    Args:
        given: "atlas", a run or its folder (then all circuits of its front), an OpenQASM 3 file, or a circuit.
        problem: what is searched for; its number of qubits has to be that of the circuits.

    Raises:
        QasError: nothing can be read there, the atlas has nothing on the problem, or another number of qubits.
    """
    begun = _read(given, problem)
    for circuit in begun.circuits:
        if circuit.n_qubits != problem.n_qubits:
            raise QasError(
                f"{problem.name} has {problem.n_qubits} qubits, got circuits on {circuit.n_qubits}: {begun.source}"
            )
    return begun


def onto(
    begun: Beginning,
    device: Device,
    gates: Sequence[str],
    longest: int,
    score: Callable[[Circuit, Device], float],
    *,
    moved: bool,
    whole: bool = False,
    notice: Callable[[str], None] | None = None,
) -> tuple[Beginning, Device]:
    """The same beginning on a device, and the device with its qubits in the order in which the circuits are there.

    A run on the same qubits goes on in its own order. Otherwise, where a circuit has gates on pairs that are not
    coupled, all are routed (`qas.routing`): each as suits itself, to find the order that the one with the lowest score
    asks for, and then to that order; the best one is the last.

    Args:
        begun: what is given.
        device: the patch that is searched for.
        gates: of the device that may be used.
        longest: gates that a circuit of the search may have; longer ones have no say.
        score: of a circuit on the patch in some order.
        moved: the device's qubits may be taken in another order.
        whole: the circuits' matrices count, not only what becomes of |0…0⟩.
        notice: is told what takes long.

    Raises:
        CircuitError: the transpiler finds no way.
    """
    if moved and begun.device is not None and _same_qubits(begun.device, device):
        device = device.restricted([device.physical.index(qubit) for qubit in begun.device.physical])
    fitting = [
        found for circuit in begun.circuits if (found := in_place(circuit, device, gates, whole=whole)) is not None
    ]
    if len(fitting) == len(begun.circuits):
        return begun._replace(circuits=fitting), device
    if notice is not None:
        notice(f"{len(begun.circuits)} circuits are routed to {device.name}")
    if moved:
        entangled = [circuit for circuit in begun.circuits if circuit.two_qubit_gates]
        made = [
            each for each in (routed(c, device, gates, whole=whole) for c in entangled) if len(each.circuit) <= longest
        ]
        if made:
            device = device.restricted(min(made, key=lambda e: score(e.circuit, device.restricted(e.order))).order)
    placed = [
        in_place(c, device, gates, whole=whole) or routed(c, device, gates, moved=False, whole=whole).circuit
        for c in begun.circuits
    ]
    short = [circuit for circuit in placed if len(circuit) <= longest]
    if notice is not None and 0 < len(short) < len(placed):
        notice(
            f"{len(short)} of {len(placed)} circuits are begun with: the others are longer than {longest} gates there"
        )
    placed = sorted(short or placed, key=lambda circuit: score(circuit, device), reverse=True)
    source = begun.source if begun.source.endswith(ROUTED) else begun.source + ROUTED
    return begun._replace(circuits=placed, source=source), device


def _same_qubits(one: Device, other: Device) -> bool:
    return one.backend_name == other.backend_name and set(one.physical) == set(other.physical)


def _read(given: Any, problem: BaseProblem) -> Beginning:
    if isinstance(given, Circuit):
        return Beginning([given], "a circuit", False)
    if isinstance(given, Run):
        return _of_run(given)
    if not isinstance(given, (str, os.PathLike)):
        rule = "a search starts from atlas, a run, an OpenQASM file or a circuit"
        raise QasError(f"{rule}, got {shortened(given)}")
    if given == ATLAS:
        return Beginning([each.circuit for each in atlas(problem)], "the atlas", True)
    path = Path(given)
    if path.is_dir():
        return _of_run(load_run(path))
    return Beginning([read_circuit_file(path)], f"the file {path.name}", False)


def _of_run(run: Run) -> Beginning:
    if not run.front:
        raise QasError(f"the run to start from has no circuit yet: {run.path}")
    before = run.config.get("start") or {}
    source = f"a run of {run.agent}, seed {run.seed}" + (f", begun from {before['source']}" if before else "")
    return Beginning([result.circuit for result in run.front], source, bool(before.get("atlas")), run.device)


def start_circuits(given: str | list[Any], search: Search) -> list[Circuit]:
    """The circuits to begin a search with: of several those that fit it.

    Args:
        given: gates as `Circuit.to_list` gives them, or a list of such lists.
        search: what begins.

    Raises:
        QasError: none fits: they are on more qubits, longer, or made of other gates than those of the search.
    """
    if isinstance(given, str):
        raise QasError(f"what a search starts from is given as its start, not as an option of its agent: {given}")
    circuits = [Circuit(search.problem.n_qubits, gates) for gates in _separate(given)]
    known = [circuit for circuit in circuits if _of_its_gates(circuit, search)]
    if circuits and not known:
        search.alphabet.moves.tokens_of(min(circuits, key=len))  # says what does not fit
    if search.alphabet.native is not None:
        known = [search.simplify(circuit) for circuit in known]
    fitting = [circuit for circuit in known if len(circuit) <= search.max_gates]
    if known and not fitting:
        raise QasError(f"a start circuit has at most {search.max_gates} gates here, got {min(map(len, known))}")
    return fitting


def _separate(given: Sequence[Any]) -> list[list[Any]]:
    """The circuits of a list: of gates, which begin with a name, or of lists of gates."""
    several = bool(given) and not (given[0] and isinstance(given[0][0], str))
    return [list(gates) for gates in given] if several else [list(given)]


def written(circuit: Circuit, search: Search) -> Circuit | None:
    """A circuit as a search begins with it, on a device in native gates; None: other gates, or too many then."""
    if not _of_its_gates(circuit, search):
        return None
    made = circuit if search.alphabet.native is None else search.simplify(circuit)
    return made if len(made) <= search.max_gates else None


def _of_its_gates(circuit: Circuit, search: Search) -> bool:
    for alphabet in (search.alphabet, search.alphabet.moves):
        with suppress(CircuitError):
            alphabet.tokens_of(circuit)
            return True
    return False
