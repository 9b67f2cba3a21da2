"""ADAPT: grow an adapter layer by the Pauli rotation that lowers the objective fastest, whatever its string."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from qas.agents.base import Agent, Search, restore_rng, rng_state
from qas.checks import whole_number
from qas.circuits import Circuit
from qas.errors import QasError
from qas.problems.protocols import GrownByStrings


class AdaptAgent(Agent):
    """Appends the rotation of largest slope among all 4^n strings, optimizes all angles, and goes on.

    For ``adapter-target`` the slope is that of the fit. For ``adapter-gradient`` it is the coefficient of a string that
    is not turned yet, and the first round is the best architecture there is. Selection by gradient is ADAPT-VQE
    (Grimsley et al. 2019, arXiv:1812.11173). The slopes of all strings come from one Walsh-Hadamard transform for each
    X mask. A string is reached by two-qubit gates that carry a RY to it; they stay in the circuit, because both
    problems leave the Clifford skeleton out, as rotations do. At full length, or where nothing is won, it starts anew
    and takes one of the `choices` best strings at random, which is what makes rounds differ.

    Args:
        choices: strings among which a round after the first draws; the chance falls with the rank.
    """

    name: ClassVar[str] = "adapt"
    about: ClassVar[str] = (
        "grows an adapter layer by the Pauli rotation of largest slope (adapter-target, adapter-gradient)"
    )

    def __init__(self, *, choices: int = 4) -> None:
        self.choices = whole_number("choices", choices)

    @classmethod
    def example(cls) -> dict[str, Any]:
        from qas.adapters.problems import matrix_problem

        rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(8, 8)))[0]
        return {"problem": matrix_problem(rotation, angles=8), "evaluator": {"max_evaluations": 30}}

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        problem = search.problem
        if not isinstance(problem, GrownByStrings) or not problem.has_slopes:
            raise QasError(
                f"agent adapt needs the problem adapter-target FILE or adapter-gradient FILE, got {problem.name}"
            )
        missing = {"ry", "cx", "cz"} - set(search.alphabet.gates)
        if missing or search.alphabet.coupling is not None:
            raise QasError("agent adapt needs the gates ry, cx and cz on all pairs of qubits")
        least = 1 + 3 * (problem.n_qubits - 1) // 2
        if search.max_gates < least:
            raise QasError(f"agent adapt needs at least {least} gates on {problem.n_qubits} qubits to turn any string")
        self.problem: GrownByStrings = problem
        self.rng = search.rng(1)
        self.round = 0
        self.circuit = Circuit(problem.n_qubits)
        self.error = np.inf

    def run(self) -> None:
        while True:
            self.search.safe_point(self)
            self._grow()

    def _grow(self) -> None:
        grown = self._longer() if self.circuit.n_angles < self.problem.angles else None
        if grown is not None and len(grown) <= self.search.max_gates:
            found = self.meter.evaluate(grown, self.rng, exact_start=True)
            if found.error < self.error - 1e-12:
                self.circuit, self.error = found.circuit, found.error
                return
        self.round += 1
        self.circuit, self.error = Circuit(self.search.problem.n_qubits), np.inf

    def _longer(self) -> Circuit:
        self.meter.spend()  # one pass through the layer, as any other gradient
        slopes = np.abs(self.problem.string_slopes(self.circuit))
        index = np.arange(len(slopes))
        turns = np.bitwise_count(index[:, None] & index) % 2 == 1
        slopes[~turns] = -1.0  # zero up to rounding, as may be those of rotations
        order = np.argsort(slopes, axis=None)[::-1][: min(self.choices, int(turns.sum())) if self.round else 1]
        weights = 0.5 ** np.arange(len(order))
        pick = int(order[self.rng.choice(len(order), p=weights / weights.sum())])
        return self.problem.with_string(self.circuit, divmod(pick, len(slopes)))

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        error = None if np.isinf(self.error) else self.error
        return {
            "rng": rng_state(self.rng),
            "circuit": self.circuit.to_list(),
            "error": error,
            "round": self.round,
        }, {}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.rng = restore_rng(state["rng"])
        self.circuit = Circuit(self.search.problem.n_qubits, state["circuit"])
        self.error = np.inf if state["error"] is None else float(state["error"])
        self.round = int(state["round"])
