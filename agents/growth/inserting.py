"""Growth of native circuits: the rotation, anywhere, that lowers the energy most for its two-qubit gates."""

from __future__ import annotations

from typing import Any

import numpy as np

from qas.agents.base import Search, restore_rng, rng_state
from qas.agents.growth.guidance import Guide, edited
from qas.circuits import Circuit
from qas.problems import Problem
from qas.rewriting import native
from qas.vqe import Evaluation

_LEAST_WON = 1e-9
"""Of the error: what an insertion has to win."""


class InsertionGrowth:
    """Inserts rotations between two-qubit gates, one on one qubit with each, from the reference determinant on.

    Like ADAPT-VQE, but at all places of the circuit and by gates of two CX. Of the most promising insertions (squared
    slope for each two-qubit gate) some are optimized, and the one that wins most energy for each two-qubit gate stays.

    Args:
        search: where.
        guide: knows the slopes.
        rng: draws.
        candidates: insertions that are optimized.
        choices: insertions among which a round after the first draws its first candidate.
    """

    def __init__(self, search: Search, guide: Guide, rng: np.random.Generator, candidates: int, choices: int) -> None:
        self.search, self.guide, self.rng = search, guide, rng
        self.candidates, self.choices = candidates, choices
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
        assert isinstance(problem, Problem)
        return self.search.meter.evaluate(native(problem.reference_circuit), self.rng, exact_start=True)

    def _longer(self, here: Evaluation) -> Evaluation | None:
        meter, best = self.search.meter, None
        study = self.guide.study(here.circuit)
        for _ in range(study.evaluations):  # one by one, so that a budget ends where it is used up
            meter.spend()
        promising = list(study.entangling.found) or list(study.local.found)
        beside = list(study.local.found)[:1]
        first = min(int(self.rng.geometric(0.5)) - 1, self.choices - 1) if self.round else 0
        for chosen in promising[first : first + self.candidates]:
            inserted = [self.guide.made(each, self.rng) for each in (chosen, *beside)]
            grown = self.search.simplify(edited(here.circuit, (), inserted))
            if len(grown) > self.search.max_gates:
                continue
            found = meter.evaluate(grown, self.rng, exact_start=True)
            won = here.error - found.error
            if won > _LEAST_WON * abs(here.error):
                worth = won / max(1, found.circuit.two_qubit_gates - here.circuit.two_qubit_gates)
                best = max(best or (worth, found), (worth, found), key=lambda one: one[0])
        return best[1] if best else None

    # ------------------------------------------------------------------ state
    def state(self) -> dict[str, Any]:
        """JSON-able; `restore` takes it back. What is known of the curvature is given up."""
        held = None if self.found is None else [self.found.circuit.to_list(), self.found.energy, self.found.error]
        return {"rng": rng_state(self.rng), "round": self.round, "found": held}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.rng, self.round = restore_rng(state["rng"]), int(state["round"])
        self.found = None
        if state["found"] is not None:
            gates, energy, error = state["found"]
            self.found = Evaluation(Circuit(self.search.problem.n_qubits, gates), float(energy), float(error), 0)
