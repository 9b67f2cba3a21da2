"""The front of a finished search made tidy: angles wrapped, runs of one-qubit gates merged, tiny rotations dropped.

Only what a run reports is tidied. The front that a resumed run goes on from is left as the search made it, so that a
search that goes on is the unbroken one. The work comes after the budget, and its evaluations are told apart from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from qas.circuits import Circuit
from qas.native import NativeGates, simplified, with_rz
from qas.runs import Front, rounding
from qas.simplify import merge_runs, without_small_rotations, wrap_angles
from qas.simulators.interrupt import Interrupted, current, stop_when
from qas.vqe import Evaluator

SMALL = 1e-3
"""Rotations by less, in radians, are tried to be done without."""
_MOST_OF_ONE = 60


class Tidier:
    """Replaces the circuits of a front by smaller ones that are no worse.

    Angles come to lie in (-π, π]. Where simulators judge, runs of one-qubit gates are merged within the gate set, and
    rotations by less than `SMALL` dropped and the others optimized again. Each such replacement is judged before it is
    taken: its energy, under the noise if there is any, is no higher beyond rounding. A circuit that is smaller and a
    little worse is offered to the front beside the other. Estimates from shots stay as they are: without noise runs are
    merged, with noise angles are wrapped only.

    Args:
        evaluator: judges; its calls are counted in `evaluations`.
        gates: names that circuits may use.
        max_evaluations: most calls of the objective.
        seconds: longest time, or None.
        native: gates of the device that circuits consist of, or None.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        gates: Iterable[str],
        max_evaluations: int,
        seconds: float | None = None,
        native: NativeGates | None = None,
    ) -> None:
        self.native = native
        self.evaluator = evaluator
        self.gates = tuple(gates)
        self.max_evaluations = max_evaluations
        self.evaluations = 0
        self.seconds = seconds

    def __call__(self, front: Front) -> Front:
        """The tidied front; `front` itself is left as it is."""
        with stop_when(self.seconds):
            return self._tidied(front)

    def _tidied(self, front: Front) -> Front:
        problem, found = self.evaluator.problem, []
        for error, energy, circuit, count in sorted(front.points, key=lambda point: point[0]):
            for tidy, value in self._versions(circuit, energy):
                wrapped = wrap_angles(tidy)
                found.append((wrapped, value, error if value == energy else problem.error(value), count))
        tidied = Front(0.0)  # what the search kept is not lost to its margin
        for wrapped, value, error, count in sorted(found, key=lambda point: (point[0].two_qubit_gates, len(point[0]))):
            tidied.add(wrapped, value, error, count)
        return tidied

    def _versions(self, circuit: Circuit, energy: float) -> list[tuple[Circuit, float]]:
        """What takes the place of a circuit, and smaller ones that are a little worse."""
        exact = self.evaluator.shots is None
        others: list[tuple[Circuit, float]] = []
        before: Circuit | None = None
        if not self.evaluator.problem.simulated or not (exact or self.evaluator.noise is None):
            return [(circuit, energy)]
        with suppress(Interrupted):
            while self._left() > 0 and circuit is not before:
                before = circuit
                circuit, energy = self._merged(circuit, energy)
                if exact:
                    circuit, energy = self._without_small(circuit, energy, others)
        return [(circuit, energy), *others]

    def _left(self) -> int:
        """Evaluations that may still be made."""
        return 0 if current() else self.max_evaluations - self.evaluations

    def _merged(self, circuit: Circuit, energy: float) -> tuple[Circuit, float]:
        problem, short = self.evaluator.problem, circuit
        while True:
            if self.native is None:
                merged = merge_runs(problem.simplify(short), self.gates, whole=problem.whole_matrix)
            else:
                merged = with_rz(simplified(short, problem, self.native))
            if len(merged) == len(short):
                break
            short = merged
        estimated = self.evaluator.shots is not None
        if len(short) == len(circuit) or self._left() < 1 + estimated:
            return circuit, energy
        self.evaluations += 1 + estimated
        value = self.evaluator.energy(short)
        known = self.evaluator.energy(circuit) if estimated else energy
        if value > known + rounding(known):
            return circuit, energy
        return short, energy if estimated else value

    def _without(self, circuit: Circuit) -> list[Circuit]:
        """The circuit without all its small rotations, and without one each; in native gates without all."""
        if self.native is None:
            return without_small_rotations(circuit, SMALL)
        shorter = with_rz(simplified(circuit, self.evaluator.problem, self.native, SMALL))
        return [] if shorter is circuit else [shorter]

    def _without_small(
        self, circuit: Circuit, energy: float, others: list[tuple[Circuit, float]]
    ) -> tuple[Circuit, float]:
        for shorter in self._without(circuit):
            most = min(_MOST_OF_ONE, self._left())
            if most < 1:
                break
            found = self.evaluator.evaluate(shorter, np.random.default_rng(0), max_evaluations=most, exact_start=True)
            self.evaluations += found.evaluations
            if found.energy <= energy + rounding(energy):
                return found.circuit, found.energy
            others.append((found.circuit, found.energy))
        return circuit, energy
