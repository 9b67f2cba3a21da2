"""Circuits judged by their whole matrix: what they make of one half of maximally entangled pairs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from qas.circuits import Circuit, Gate
from qas.errors import CircuitError
from qas.hamiltonians import Hamiltonian
from qas.idle import DIGITS
from qas.noise import NoiseModel
from qas.simulators.base import Angles, Objective, Simulator
from qas.simulators.insertions import Generator, pauli_generators


class ChoiSimulator(Simulator):
    """Observables of a circuit's Choi state, by an engine with twice as many qubits.

    Qubit q of the circuit is one of a pair (|00> + |11>) / √2, whose other one is number n + q. The circuit acts on the
    first n qubits of 2n, and Hamiltonians on all of them (Choi, Linear Algebra Appl. 10, 285, 1975; Jamiołkowski, Rep.
    Math. Phys. 3, 275, 1972). Pairs are made, kept and measured without noise: what noise there is is that of the
    circuit's gates, and of its qubits that wait, from the first gate of any of them to the end.

    Args:
        engine: simulates circuits of 2n qubits, under `on_first` of the noise where there is any.
    """

    runs_excitations = True  # the engine takes them out, where it does not
    idle = True
    measured = False

    def __init__(self, engine: Simulator) -> None:
        super().__init__(engine.noise)
        self.engine = engine
        self.name = engine.name
        self.linear, self.resolution = engine.linear, engine.resolution

    @property
    def sweeps(self) -> bool:  # type: ignore[override]
        return self.engine.sweeps

    @property
    def kind(self) -> type[Simulator]:
        return self.engine.kind

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.engine,)

    def check_size(self, n_qubits: int) -> None:
        self.engine.check_size(2 * n_qubits)

    def _paired(self, circuit: Circuit, hamiltonian: Hamiltonian) -> Circuit:
        """The gates that make n pairs, and behind them the circuit, which carries it along, also at other angles.

        Raises:
            CircuitError: a Hamiltonian that does not act on twice as many qubits, or noise for another number of them.
        """
        n = circuit.n_qubits
        if hamiltonian.n_qubits != 2 * n:
            raise CircuitError(
                f"what is observed of a circuit's whole matrix acts on twice its {n} qubits, got {hamiltonian.n_qubits}"
            )
        if isinstance(self.noise, _OnFirst) and self.noise.noisy != n:
            raise CircuitError(f"this engine's noise is that of {self.noise.noisy} qubits, got {n}")
        found: Circuit | None = circuit.__dict__.get("_paired")
        if found is None:
            found = circuit.__dict__["_paired"] = Circuit(2 * n, (*_pairs(n), *circuit.pattern))
        return found

    def objective(self, circuit: Circuit, hamiltonian: Hamiltonian) -> Objective:
        """Of the circuit behind its pairs, which has the same angles."""
        return self.engine.objective(self._paired(circuit, hamiltonian), hamiltonian)

    def expectation(self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Angles = None) -> float:
        return self.engine.expectation(self._paired(circuit, hamiltonian), hamiltonian, _chosen(circuit, angles))

    def expectation_and_gradient(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Angles = None
    ) -> tuple[float, np.ndarray]:
        return self.engine.expectation_and_gradient(
            self._paired(circuit, hamiltonian), hamiltonian, _chosen(circuit, angles)
        )

    def term_expectations(self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Angles = None) -> np.ndarray:
        return self.engine.term_expectations(self._paired(circuit, hamiltonian), hamiltonian, _chosen(circuit, angles))

    def _expectations(
        self, pairs: list[tuple[Circuit, Any]], hamiltonian: Hamiltonian, workers: int | None
    ) -> list[float]:
        behind = [(self._paired(circuit, hamiltonian), _chosen(circuit, angles)) for circuit, angles in pairs]
        return self.engine._expectations(behind, hamiltonian, workers)

    # ------------------------------------------------------------------ what inserting and deleting would bring
    def insertion_gradients(  # type: ignore[override]
        self,
        circuit: Circuit,
        hamiltonian: Hamiltonian,
        generators: Sequence[Generator] | None = None,
        angles: Angles = None,
        *,
        positions: Sequence[int] | None = None,
        costs: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        first = 2 * circuit.n_qubits
        places = range(len(circuit) + 1) if positions is None else positions
        found: np.ndarray | tuple[np.ndarray, np.ndarray] = self.engine.insertion_gradients(  # type: ignore[call-overload]
            self._paired(circuit, hamiltonian),
            hamiltonian,
            _widened(circuit.n_qubits, generators),
            _chosen(circuit, angles),
            positions=[first + place for place in places],
            costs=costs,
        )
        return found

    def append_gains(  # type: ignore[override]
        self,
        circuit: Circuit,
        hamiltonian: Hamiltonian,
        generators: Sequence[Generator] | None = None,
        angles: Angles = None,
        *,
        costs: bool = False,
    ) -> tuple[np.ndarray, ...]:
        found: tuple[np.ndarray, ...] = self.engine.append_gains(  # type: ignore[call-overload]
            self._paired(circuit, hamiltonian),
            hamiltonian,
            _widened(circuit.n_qubits, generators),
            _chosen(circuit, angles),
            costs=costs,
        )
        return found

    def deletion_costs(
        self,
        circuit: Circuit,
        hamiltonian: Hamiltonian,
        angles: Angles = None,
        inverse_hessian: np.ndarray | None = None,
    ) -> np.ndarray:
        behind = self._paired(circuit, hamiltonian)
        return self.engine.deletion_costs(behind, hamiltonian, _chosen(circuit, angles), inverse_hessian)


@functools.cache
def _pairs(n_qubits: int) -> tuple[Gate, ...]:
    return tuple(gate for q in range(n_qubits) for gate in (Gate("h", (n_qubits + q,)), Gate("cx", (n_qubits + q, q))))


def _chosen(circuit: Circuit, angles: Angles) -> Sequence[float] | np.ndarray:
    """Its own unless others are given: what is behind the pairs may be at yet others."""
    return circuit.angles if angles is None else angles


def _widened(n_qubits: int, generators: Sequence[Generator] | None) -> tuple[Generator, ...]:
    return _on_twice(n_qubits, pauli_generators(n_qubits) if generators is None else tuple(generators))


@functools.lru_cache(maxsize=64)
def _on_twice(n_qubits: int, generators: tuple[Generator, ...]) -> tuple[Generator, ...]:
    """The generators on the first half of twice as many qubits."""
    more = "I" * n_qubits
    return tuple(
        more + each if isinstance(each, str) else Hamiltonian({more + s: weight for s, weight in each.terms.items()})
        for each in generators
    )


# ---------------------------------------------------------------------- noise
@dataclass(frozen=True, repr=False)
class _OnFirst(NoiseModel):
    """A noise model whose later qubits, as many as there may be, are free of it."""

    base: NoiseModel = field(kw_only=True)
    """what its gates and channels are asked of: it may be scaled"""
    noisy: int = field(kw_only=True)
    """number of qubits with noise"""

    def __post_init__(self) -> None:
        pass  # made of a model that was checked

    def check(self, gate: str, qubits: tuple[int, ...]) -> None:
        if max(qubits) < self.noisy:
            self.base.check(gate, qubits)

    def channel(self, gate: str, qubits: tuple[int, ...]) -> np.ndarray | None:
        return self.base.channel(gate, qubits) if max(qubits) < self.noisy else None

    def idle_channels(self, circuit: Circuit) -> list[list[tuple[int, np.ndarray]]] | None:
        """As of the model, and from the beginning on each qubit waits for its first gate: its state may be any."""
        if self.idle is None:
            return None
        waits, begins = self.idle.schedule(circuit)
        longest = max(begins)
        for qubit, begin in enumerate(begins[: self.noisy]):
            seconds = round(longest - begin, DIGITS)
            if seconds > 0.0:
                waits[2 * qubit + 1].append((qubit, seconds))  # after the second of the gates that make its pair
        return self.idle.channels_of(waits)


def on_first(noise: NoiseModel, n_qubits: int) -> NoiseModel:
    """The noise of gates and of waiting on the first n of 2n qubits, none on the others, and none of readout.

    Raises:
        CircuitError: the model describes fewer qubits.
    """
    noise.check_register(n_qubits)
    idle = noise.idle
    if idle is not None:
        if n_qubits > idle.n_qubits:
            raise CircuitError(f"idle noise describes {idle.n_qubits} qubits, got {n_qubits}")
        free = (np.inf,) * n_qubits
        durations = {place: time for place, time in idle.durations.items() if max(place[1]) < n_qubits}
        idle = replace(idle, t1=idle.t1[:n_qubits] + free, t2=idle.t2[:n_qubits] + free, durations=durations)
    return _OnFirst(noise.name, noise.rules, {}, noise.coupling, None, idle, base=noise, noisy=n_qubits)
