"""Circuits that a search begins with, where the caller hands one over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qas.agents.base import Search
from qas.circuits import Circuit
from qas.errors import CircuitError, QasError
from qas.interop import read_circuit_file
from qas.runs import load_run

Given = str | list[Any]
"""A run folder, an OpenQASM 3 file, or gates as `Circuit.to_list` gives them."""


def gates_of(given: Given) -> list[Any]:
    """The gates of a file, of a run's best circuit, or those that are given already.

    Raises:
        RunError, CircuitError: nothing can be read there.
    """
    if not isinstance(given, str):
        return list(given)
    path = Path(given)
    circuit = load_run(path).best.circuit if path.is_dir() else read_circuit_file(path)
    return circuit.to_list()


def start_circuit(given: Given, search: Search) -> Circuit:
    """The circuit to begin a search with.

    Raises:
        QasError: it is on more qubits, longer, or made of other gates than those of the search.
    """
    circuit = Circuit(search.problem.n_qubits, gates_of(given))
    if not fits(circuit, search):
        search.alphabet.moves.tokens_of(circuit)  # says what does not fit
        raise QasError(f"a start circuit has at most {search.max_gates} gates here, got {len(circuit)}")
    return circuit if search.alphabet.native is None else search.simplify(circuit)


def fits(circuit: Circuit, search: Search) -> bool:
    """Whether a search may begin with a circuit: by its gates, where they act, and how many there are."""
    for alphabet in (search.alphabet, search.alphabet.moves):
        try:
            alphabet.tokens_of(circuit)
        except CircuitError:
            continue
        return len(circuit) <= search.max_gates
    return False


def kept(options: Mapping[str, Any], names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Options with the start as gates, so that a run needs no other folder to go on; `names` are left as they are."""
    start = options.get("start")
    given = isinstance(start, str) and start not in names
    return dict(options) | ({"start": gates_of(start)} if given and start is not None else {})
