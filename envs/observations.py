"""What an agent sees of the circuit that it builds: kinds of observations, by name."""

from __future__ import annotations

import abc
import itertools
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from gymnasium import spaces

from qas.circuits import Circuit, Gate
from qas.errors import QasError
from qas.problems import Problem
from qas.registry import Registry

if TYPE_CHECKING:
    from qas.envs.builder import CircuitBuilderEnv

Observation = dict[str, np.ndarray]


class Observer(abc.ABC):
    """One kind of observation, of one environment.

    To add a kind, subclass and register it in `OBSERVATIONS`.

    Args:
        env: what is observed; its problem, alphabet and limits are known, nothing has been played.

    Raises:
        QasError: a problem or an engine that the observation is not made for.
    """

    space: spaces.Dict

    @abc.abstractmethod
    def __init__(self, env: CircuitBuilderEnv) -> None: ...

    def begin(self, circuit: Circuit) -> None:
        """A circuit is put in the place of the present one."""
        for gate in circuit.gates:
            self.append(gate)

    def append(self, gate: Gate) -> None:  # noqa: B027
        """A gate is appended; the angles of others may be new."""

    @abc.abstractmethod
    def observe(self, env: CircuitBuilderEnv) -> Observation:
        """The observation of the present circuit, an element of `space`."""


def _energies(env: CircuitBuilderEnv) -> dict[str, spaces.Space[Any]]:
    bound = env.energy_bound
    return {
        "energy": spaces.Box(-bound, bound, (1,), np.float32),
        "threshold": spaces.Box(0.0, bound, (1,), np.float32),
    }


def _seen_energies(env: CircuitBuilderEnv) -> Observation:
    bound = env.energy_bound
    relative, threshold = env.energy - env.zero_energy, env.curriculum.threshold
    return {
        "energy": np.array([max(-bound, min(bound, relative))], dtype=np.float32),
        "threshold": np.array([max(0.0, min(bound, threshold))], dtype=np.float32),
    }


class Layers(Observer):
    """The layer tensor of CRLQAS, energy and threshold.

    | key | space | meaning |
    |---|---|---|
    | circuit | MultiBinary, shape (max_gates, rows, n) | layer tensor of the circuit, see `LayerEncoding`; no angles |
    | energy | Box, float32, shape (1,) | energy of the circuit minus that of the state 0…0, both under the noise |
    | threshold | Box, float32, shape (1,) | error below which the episode is a success |

    Energies are in the problem's unit. The boxes are bounded by the problem's spread.
    """

    def __init__(self, env: CircuitBuilderEnv) -> None:
        self.encoding = env.encoding
        self.space = spaces.Dict({"circuit": spaces.MultiBinary(self.encoding.shape), **_energies(env)})

    def begin(self, circuit: Circuit) -> None:
        self._free = [0] * circuit.n_qubits
        self._tensor = self.encoding.empty()
        super().begin(circuit)

    def append(self, gate: Gate) -> None:
        layer = max(self._free[q] for q in gate.qubits)
        for q in gate.qubits:
            self._free[q] = layer + 1
        self.encoding.encode_gate_into(self._tensor, layer, gate)

    def observe(self, env: CircuitBuilderEnv) -> Observation:
        return {"circuit": self._tensor.copy(), **_seen_energies(env)}


class Graph(Observer):
    """The gates as nodes, and the wires between them, in the order of the circuit.

    | key | space | meaning |
    |---|---|---|
    | nodes | MultiBinary, shape (max_gates, kinds + ports · n) | kind of the gate, then qubit of each port; no angles |
    | edges | MultiBinary, shape (max_gates, max_gates) | [i, j]: gate j is the next one behind gate i on some qubit |
    | energy, threshold | Box, float32, shape (1,) | as of `Layers` |

    Rows of gates that are not there are zero.
    """

    def __init__(self, env: CircuitBuilderEnv) -> None:
        self.kinds = {name: k for k, name in enumerate(env.actions.gates)}
        self.n_qubits = env.problem.n_qubits
        ports = max(len(gate.qubits) for gate in env.actions.placed)
        self._shape = env.max_gates, len(self.kinds) + ports * self.n_qubits
        nodes, edges = spaces.MultiBinary(self._shape), spaces.MultiBinary((env.max_gates, env.max_gates))
        self.space = spaces.Dict({"nodes": nodes, "edges": edges, **_energies(env)})

    def begin(self, circuit: Circuit) -> None:
        self._last = [-1] * self.n_qubits
        self._length = 0
        self._nodes = np.zeros(self._shape, dtype=np.int8)
        self._edges = np.zeros((self._shape[0], self._shape[0]), dtype=np.int8)
        super().begin(circuit)

    def append(self, gate: Gate) -> None:
        row = self._length
        self._nodes[row, self.kinds[gate.name]] = 1
        for port, qubit in enumerate(gate.qubits):
            self._nodes[row, len(self.kinds) + port * self.n_qubits + qubit] = 1
            if self._last[qubit] >= 0:
                self._edges[self._last[qubit], row] = 1
            self._last[qubit] = row
        self._length += 1

    def observe(self, env: CircuitBuilderEnv) -> Observation:
        return {"nodes": self._nodes.copy(), "edges": self._edges.copy(), **_seen_energies(env)}


_DECADES = 8.0
"""Energies are told over so many powers of ten below their scale."""


class Ahead(Observer):
    """What each action would bring and cost, one row for each action; all columns dimensionless, from -1 to 1.

    | key | space | meaning |
    |---|---|---|
    | actions | Box, float32, shape (actions · len(features),) | a row of `features` for each action |
    | general | Box, float32, shape (len(general),) | see `general` |

    Gains are those of `LookAhead` at the present angles, for one more evaluation a step, on the engine that the angles
    are optimised on (a mitigated objective: without noise). Energies are divided by half of the problem's spread; those
    in decades are (8 + log10) / 8 of that, cut to 0 and 1. Once an episode has terminated no gains are computed.
    """

    own: ClassVar[tuple[str, ...]] = (
        "legal", "gain", "gain_decades", "gain_share", "slope", "curvature", "two_qubit_gates", "duration",
        "infidelity", "x_first", "y_first", "z_first", "x_last", "y_last", "z_last", "xx", "yy", "zz", "coupling",
        "field_first", "field_last", "gates_first", "gates_last",
    )  # fmt: skip
    """columns of every alphabet; a column for each kind of gate follows"""
    general: ClassVar[tuple[str, ...]] = (
        "energy", "missing_decades", "missing_to_threshold", "threshold_decades", "gates", "two_qubit_gates",
        "best_gain_decades",
    )  # fmt: skip
    """missing: how far the energy is above the target"""

    def __init__(self, env: CircuitBuilderEnv) -> None:
        from qas.envs.effects import costs_of, local_strings  # they bring the compiled simulators with them

        env.require_gains("observation lookahead")
        assert isinstance(env.problem, Problem)
        n, actions = env.problem.n_qubits, env.actions
        self.features = (*self.own, *(f"kind_{name}" for name in actions.gates))
        self.scale = env.problem.spread / 2 or 1.0
        first, last = actions.first, actions.last
        pairs = first != last
        column = {string: k for k, string in enumerate(local_strings(n))}

        def values(letter: str, *qubits: int) -> int:
            string = ["I"] * n
            for qubit in qubits:
                string[n - 1 - qubit] = letter
            return column["".join(string)]

        singles = [[values(p, q) for q in qubits] for qubits in (first.tolist(), last.tolist()) for p in "XYZ"]
        both = [[values(p, a, b) for a, b in zip(first.tolist(), last.tolist(), strict=True)] for p in "XYZ"]
        self._expectations = np.array(singles + both, dtype=np.int64).T
        self._pairs = np.where(pairs[:, None], 1.0, np.array([1.0] * 6 + [0.0] * 3)).astype(np.float32)
        self._table = np.zeros((len(actions), len(self.features)), dtype=np.float32)
        costs, at = costs_of(actions, env.evaluator.noise), self.features.index
        self._table[:, at("two_qubit_gates")] = costs.two_qubit_gates / max(1.0, costs.two_qubit_gates.max())
        self._table[:, at("duration")] = costs.duration
        self._table[:, at("infidelity")] = np.clip((5.0 + np.log10(np.maximum(costs.infidelity, 1e-5))) / 5.0, 0.0, 1.0)
        single, pair = _weights(env.problem)
        self._table[:, at("coupling")] = np.where(pairs, pair[first, last] / (pair.max() or 1.0), 0.0)
        self._table[:, at("field_first")] = single[first] / (single.max() or 1.0)
        self._table[:, at("field_last")] = single[last] / (single.max() or 1.0)
        self._table[np.arange(len(actions)), len(self.own) + actions.kind] = 1.0
        self.space = spaces.Dict(
            {
                "actions": spaces.Box(-1.0, 1.0, (self._table.size,), np.float32),
                "general": spaces.Box(-1.0, 1.0, (len(self.general),), np.float32),
            }
        )

    def begin(self, circuit: Circuit) -> None:
        self._gates = np.zeros(circuit.n_qubits)
        self._two = 0
        super().begin(circuit)

    def append(self, gate: Gate) -> None:
        self._gates[list(gate.qubits)] += 1
        self._two += len(gate.qubits) > 1

    def observe(self, env: CircuitBuilderEnv) -> Observation:
        rows = self._table.copy()
        gains, first, last = env.gains, env.actions.first, env.actions.last
        most = float(gains.gain.max())
        rows[:, 0] = env.action_masks()
        rows[:, 1] = gains.gain / self.scale
        rows[:, 2] = self._decades(gains.gain)
        rows[:, 3] = gains.gain / most if most > 0.0 else 0.0
        rows[:, 4] = gains.slope / self.scale
        rows[:, 5] = gains.curvature / self.scale
        rows[:, 9:18] = env.paulis[self._expectations] * self._pairs
        rows[:, 21:23] = np.stack([self._gates[first], self._gates[last]], axis=1) / env.max_gates
        missing, threshold = abs(env.energy - env.target), max(env.curriculum.threshold, 1e-300)
        general = (
            (env.energy - env.zero_energy) / self.scale,
            self._decades(missing),
            math.log10(max(missing / threshold, 1e-4)) / 4.0,
            self._decades(threshold),
            len(env.circuit) / env.max_gates,
            self._two / env.max_gates,
            self._decades(most),
        )
        return {
            "actions": np.clip(rows, -1.0, 1.0).ravel(),
            "general": np.clip(np.array(general, dtype=np.float32), -1.0, 1.0),
        }

    def _decades(self, energy: Any) -> Any:
        floor = 10.0**-_DECADES
        return np.clip(1.0 + np.log10(np.maximum(energy / self.scale, floor)) / _DECADES, 0.0, 1.0)


def _weights(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Sums of |coefficients| of the terms on each qubit, shape (n,), and on each pair, shape (n, n)."""
    n = problem.n_qubits
    single, pair = np.zeros(n), np.zeros((n, n))
    for string, weight in problem.hamiltonian.terms.items():
        qubits = [q for q in range(n) if string[n - 1 - q] != "I"]
        single[qubits] += abs(weight)
        for a, b in itertools.permutations(qubits, 2):
            pair[a, b] += abs(weight)
    return single, pair


OBSERVATIONS = Registry("observations", "observation", {"layers": Layers, "lookahead": Ahead, "graph": Graph})
"""Name -> `Observer` class; the first is the default."""


def list_observations() -> dict[str, str]:
    """Observation name -> one line about it."""
    return {name: OBSERVATIONS.about(name) for name in OBSERVATIONS}


def load_observer(observation: str | type[Observer], env: CircuitBuilderEnv) -> Observer:
    """An observer of an environment.

    Raises:
        UnknownNameError: no such observation; the nearest name is suggested.
        QasError: something that is no observation, or one that does not fit the problem.
    """
    kind: Any = OBSERVATIONS[observation] if isinstance(observation, str) else observation
    if not (isinstance(kind, type) and issubclass(kind, Observer)):
        raise QasError(f"an observation is a name or an Observer class, got {observation!r}")
    return kind(env)
