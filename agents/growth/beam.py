"""Beam search: grow circuits by the gates that lower the energy most. Width 1 is greedy growth as in ADAPT-VQE."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import closing
from typing import Any, ClassVar, NotRequired, TypedDict

import numpy as np

from qas.agents.base import Agent, DrawnAhead, Search, restore_rng
from qas.checks import whole_number
from qas.circuits import Circuit, Gate
from qas.gates import gate_spec
from qas.guidance import Guide
from qas.schema import Count, Gates, RngState
from qas.vqe import Evaluation


class _State(TypedDict):
    rng: RngState
    beam: list[tuple[float, Gates]]
    pending: list[tuple[float, Gates]]
    position: Count
    chosen: NotRequired[list[tuple[Count, Count, float | None]]]


class BeamAgent(Agent):
    """Extends each kept circuit by every legal gate, and by every two-qubit gate followed by a one-qubit gate.

    A lone entangling gate rarely lowers the energy, so pairs are needed. Extensions are optimized and the best `width`
    different ones kept (ADAPT-VQE, Grimsley et al. 2019, selects by gradient, which a CNOT does not have). Where the
    gains of appended rotations are known in closed form (see `Guide.fitting`), they choose: extensions are then also a
    rotation between two equal two-qubit gates, which turns about a string of two letters, and only those are optimized
    that belong to the `strings` of largest gain. Where none of these gains anything, as at the determinant of a
    molecule, it is the fans of CX that are steepest (see `Guide`); where there are none, all extensions are. At full
    length, or when a level brings no gain, the search starts again from the empty circuit with new random start angles.

    Args:
        width: circuits kept on each level.
        strings: Pauli strings whose extensions of one circuit are optimized; 0: all extensions.
    """

    name: ClassVar[str] = "beam"
    about: ClassVar[str] = "grows circuits by the best gates; width 1 is greedy growth as in ADAPT-VQE"
    State: ClassVar[Any] = _State

    def __init__(self, *, width: int = 3, strings: int = 12) -> None:
        self.width = whole_number("width", width)
        self.strings = whole_number("strings", strings, 0)

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        self.rng = search.rng(1)
        self.drawn = DrawnAhead(self.rng)
        self._trying: deque[int] = deque()
        """Positions whose results are to come."""
        self.beam: list[tuple[float, Circuit]] = []
        self.pending: list[tuple[float, Circuit]] = []
        self.position = 0
        self.chosen: list[tuple[int, int, float | None]] = []
        """What is tried on this level: a circuit of the beam, an extension, and its first angle, if that is known."""
        self.guide = Guide.fitting(search.alphabet, search.meter) if self.strings else None
        gates = search.alphabet.moves.placed
        one = [g for g in gates if len(g.qubits) == 1]
        self.extensions: list[tuple[Gate, ...]] = [(g,) for g in gates]
        self.extensions += [(t, g) for t in gates if len(t.qubits) > 1 for g in one if g.qubits[0] in t.qubits]
        self._turning = self._extensions_by_string(self.guide) if self.guide is not None else []
        self._plain = len(self.extensions)
        """Extensions before the fans."""
        fans = []
        if self.guide is not None:
            fans = [way for each in self.guide.heads.values() for _, way in each.values()]
            fans += [ways[0] for _, ways in self.guide.trees.values()]
        self._fans = {way: self._plain + k for k, way in enumerate(fans)}
        self.extensions += [way.gates(0.0) for way in fans]

    def _extensions_by_string(self, guide: Guide) -> list[list[tuple[int, float]]]:
        """For each string of a guide the extensions that turn about it, or begin to, with the sign of their angle."""
        found: list[list[tuple[int, float]]] = []
        for ways in guide.ways:
            found.append([])
            for way in ways:
                for gates in dict.fromkeys((way.gates(0.0), way.gates(0.0)[:2])):
                    if gates not in self.extensions:
                        self.extensions.append(gates)
                    found[-1].append((self.extensions.index(gates), way.sign))
        return found

    def run(self) -> None:
        if not self.beam:
            self._restart()
        while True:
            if not self.chosen:
                self._choose()
            self.search.safe_point(self)
            with closing(self.meter.evaluate_many(self._grown(), self.rng)) as results:
                for found in results:
                    self._note(found)
                    self.search.safe_point(self)
            self.drawn.finish()
            self._advance()

    def _grown(self) -> Iterator[Circuit]:
        """The circuits that are still to be tried on this level."""
        self.drawn.mark()
        for position in range(self.position, len(self.chosen)):
            which, extension, angle = self.chosen[position]
            grown = self._extended(self.beam[which][1], self.extensions[extension], angle)
            if grown is not None:
                self._trying.append(position)
                yield grown
                self.drawn.mark()

    def _choose(self) -> None:
        """All extensions, or those of the strings of largest gain; a circuit's gains count as one evaluation."""
        self.chosen = []
        for which, (_, circuit) in enumerate(self.beam):
            gains, angles = np.zeros(0), np.zeros(0)
            if self.guide is not None:
                self.meter.spend()
                gains, angles = self.guide.append_gains(circuit)
            best = np.argsort(-gains, kind="stable")[: self.strings]
            best = best[gains[best] > 1e-10]
            tried: dict[int, float | None] = {
                index: sign * float(angles[string]) for string in best for index, sign in self._turning[string]
            }
            tried = tried or self._steepest_fans(circuit) or dict.fromkeys(range(self._plain))
            self.chosen += [(which, index, angle) for index, angle in tried.items()]

    def _steepest_fans(self, circuit: Circuit) -> dict[int, float | None]:
        """Fans at the end with their first angles, as many as strings; their slopes count as one evaluation."""
        if self.guide is None:
            return {}
        places, calls = self.guide.fans_behind(circuit)
        self.meter.spend_each(calls)
        places = sorted(places, key=lambda place: -place.promise)[: self.strings]
        return {self._fans[place.block.ways[0][0]]: self.guide.step(place.slopes[0]) for place in places}

    def _note(self, found: Evaluation) -> None:
        self.drawn.settle()
        self.position = self._trying.popleft() + 1
        self.pending.append((found.error, found.circuit))
        self.pending.sort(key=lambda item: item[0])
        del self.pending[8 * self.width :]

    def _restart(self) -> None:
        found = self.meter.evaluate(Circuit(self.search.problem.n_qubits), self.rng)
        self.beam, self.pending, self.position, self.chosen = [(found.error, found.circuit)], [], 0, []

    def _extended(self, circuit: Circuit, extension: tuple[Gate, ...], angle: float | None) -> Circuit | None:
        """None if it is too long, or no longer than a simpler one."""
        if len(circuit) + len(extension) > self.search.max_gates:
            return None
        grown = circuit
        for gate in extension:
            count = gate_spec(gate.name).n_angles
            angles = tuple(self.rng.normal(scale=0.1, size=count).tolist())
            if angle is not None and count == 1:
                angles = (angle,)
            grown = grown.insert(len(grown), Gate(gate.name, gate.qubits, angles))
        short = self.search.simplify(grown)
        if self.search.alphabet.native is not None:
            return short if circuit.key != short.key and len(short) <= self.search.max_gates else None
        if angle is not None:  # of two equal gates around a rotation the first may do nothing here
            return short if len(short) > len(circuit) else None
        return grown if len(short) == len(grown) else None

    def _advance(self) -> None:
        kept: list[tuple[float, Circuit]] = []
        for error, circuit in self.pending:
            # Extensions with equal errors differ in a gate that does nothing; one of them is enough.
            if all(abs(error - other) > 1e-9 + 1e-6 * abs(error) for other, _ in kept):
                kept.append((error, circuit))
        kept = kept[: self.width]
        gain = kept and kept[0][0] < self.beam[0][0] - 1e-10
        if gain:
            self.beam, self.pending, self.position, self.chosen = kept, [], 0, []
        else:
            self._restart()

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        def pack(items: list[tuple[float, Circuit]]) -> list[Any]:
            return [[error, circuit.to_list()] for error, circuit in items]

        state = {
            "rng": self.drawn.state,
            "beam": pack(self.beam),
            "pending": pack(self.pending),
            "position": self.position,
            "chosen": self.chosen,
        }
        return state, {}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        n = self.search.problem.n_qubits
        self.rng = restore_rng(state["rng"])
        self.drawn = DrawnAhead(self.rng)
        self.beam = [(error, Circuit(n, gates)) for error, gates in state["beam"]]
        self.pending = [(error, Circuit(n, gates)) for error, gates in state["pending"]]
        self.position = int(state["position"])
        self.chosen = [(int(which), int(extension), angle) for which, extension, angle in state.get("chosen", ())]
