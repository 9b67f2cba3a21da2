"""Growth of native circuits: the rotation, anywhere, that lowers the energy most for its two-qubit gates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import numpy as np

from qas.agents.base import Search, restore_rng, rng_state
from qas.circuits import Circuit
from qas.guidance import Curvature, Guide, Place, Study, edited
from qas.problems import Problem
from qas.rewriting import native
from qas.schema import Count, Gates, RngState
from qas.vqe import Evaluation

_BESIDE = 3
"""Rotations on one qubit that are inserted with each: they cost no CX."""
_SHAKE = 0.1
"""Standard deviation, in radians, of what is added to all angles where nothing is won."""
_LEAST_WON = 1e-9
"""Of the error: what an insertion has to win."""


class InsertionState(TypedDict):
    """What a checkpoint holds of an `InsertionGrowth`."""

    rng: RngState
    round: Count
    found: tuple[Gates, float, float] | None


class InsertionGrowth:
    """Inserts rotations between two-qubit gates, one on one qubit with each, from the reference determinant on.

    Without one it begins with no gate. Like ADAPT-VQE, but at all places of the circuit and by gates of two CX. Of the
    most promising insertions (squared slope for each two-qubit gate) some are optimized, and the one that wins most
    energy for each two-qubit gate stays.

    Args:
        search: where.
        guide: knows the slopes.
        rng: draws.
        candidates: insertions that are optimized.
        choices: insertions among which a round after the first draws its first candidate.
        max_evaluations: of each circuit, from the inverse Hessian of the one before; None: the search's, from none.
    """

    def __init__(
        self,
        search: Search,
        guide: Guide,
        rng: np.random.Generator,
        *,
        candidates: int,
        choices: int,
        max_evaluations: int | None = None,
    ) -> None:
        self.search, self.guide, self.rng = search, guide, rng
        self.candidates, self.choices = candidates, choices
        self.max_evaluations = max_evaluations
        self.round = 0
        self.found: Evaluation | None = None

    def step(self) -> Evaluation | None:
        """Begin a round, or insert something; None: the round has ended, because nothing is won."""
        before = self.found
        self.found = self._begun() if before is None else self._longer(before)
        if self.found is None:
            self.round += 1
        return self.found

    def restart(self) -> None:
        """End the round."""
        self.round, self.found = self.round + 1, None

    def _begun(self) -> Evaluation:
        problem = self.search.problem
        begun = problem.reference_circuit if isinstance(problem, Problem) else Circuit(problem.n_qubits)
        return self.search.meter.evaluate(native(begun), self.rng, exact_start=True)

    def _longer(self, here: Evaluation) -> Evaluation | None:
        """The best of the most promising circuits; where none is better, of shaken ones, as that may be a saddle."""
        study = self.guide.study(here.circuit)
        self.search.meter.spend_each(study.evaluations)
        return self._best(here, self._promising(here.circuit, study)) or self._best(here, self._shaken(here, study))

    def _best(self, here: Evaluation, circuits: Iterator[Circuit]) -> Evaluation | None:
        best: tuple[float, Evaluation] | None = None
        known = None if self.max_evaluations is None else Curvature.of(here)
        for circuit in circuits:
            grown = self.search.simplify(circuit)
            if len(grown) > self.search.max_gates:
                continue
            found = self.search.meter.evaluate(
                grown,
                self.rng,
                exact_start=True,
                max_evaluations=self.max_evaluations,
                inverse_hessian=None if known is None else known.inherited(here.circuit, grown),
            )
            won = here.error - found.error
            if won > _LEAST_WON * abs(here.error):
                worth = won / max(1, found.circuit.two_qubit_gates - here.circuit.two_qubit_gates)
                best = max(best or (worth, found), (worth, found), key=lambda one: one[0])
        return best[1] if best else None

    def _promising(self, circuit: Circuit, study: Study) -> Iterator[Circuit]:
        found = study.entangling.found
        first = min(int(self.rng.geometric(0.5)) - 1, self.choices - 1) if self.round else 0
        beside = self._beside(study.local.found)
        for k in range(first, min(first + self.candidates, len(found))):
            yield edited(circuit, (), [self.guide.made(each, self.rng) for each in (found[k], *beside)])
        if not len(found) and beside:
            yield edited(circuit, (), [self.guide.made(each, self.rng) for each in beside])

    def _shaken(self, here: Evaluation, study: Study) -> Iterator[Circuit]:
        for choice in (study.entangling, study.local):
            for _ in range(self.candidates if len(choice.found) else 0):
                grown = edited(here.circuit, (), [self.guide.draw(choice, self.rng)])
                yield grown.with_angles(grown.angles + self.rng.normal(scale=_SHAKE, size=grown.n_angles))

    def _beside(self, found: Sequence[Place]) -> list[Place]:
        """The most promising rotations on one qubit, at different places."""
        chosen: dict[int, Place] = {}
        for k in range(len(found)):
            if len(chosen) == _BESIDE:
                break
            chosen.setdefault(found[k].position, found[k])
        return list(chosen.values())

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON-able, and arrays by name; `restore` takes both back."""
        here = self.found
        held = None if here is None else [here.circuit.to_list(), here.energy, here.error]
        known = None if here is None else Curvature.of(here)
        arrays = {} if known is None else {"growing": known.packed}
        return {"rng": rng_state(self.rng), "round": self.round, "found": held}, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Go on where `state` was taken."""
        self.rng, self.round = restore_rng(state["rng"]), int(state["round"])
        self.found = None
        if state["found"] is not None:
            gates, energy, error = state["found"]
            known = Curvature(arrays["growing"]).matrix() if "growing" in arrays else None
            circuit = Circuit(self.search.problem.n_qubits, gates)
            self.found = Evaluation(circuit, float(energy), float(error), 0, inverse_hessian=known)
