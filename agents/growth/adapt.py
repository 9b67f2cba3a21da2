"""ADAPT: grow a circuit by the operators that lower the objective fastest, all angles optimized after each."""

from __future__ import annotations

from typing import Any, ClassVar, TypedDict

import numpy as np

from qas.agents.base import Agent, Search, restore_rng, rng_state
from qas.agents.growth.grounds import RANKS, Ground, OperatorGround, StringGround
from qas.checks import finite_number, whole_number
from qas.circuits import Circuit
from qas.errors import QasError, UnknownNameError
from qas.excitations import POOLS
from qas.problems import BaseProblem, Problem
from qas.problems.protocols import GrownByStrings
from qas.schema import Count, Gates, RngState


class AdaptState(TypedDict):
    """What a checkpoint holds of an `AdaptAgent`."""

    rng: RngState
    circuit: Gates | None
    error: float | None
    round: Count


class AdaptAgent(Agent):
    """Appends the operator of largest slope, optimizes all angles, and goes on (ADAPT-VQE).

    A molecule or another Hamiltonian grows from a determinant by the operators of a pool, which are appended at angle
    0; the optimizer goes on with the inverse Hessian of the circuit before, larger by the new angles. Costs are those
    of the decomposed circuit. An adapter layer (``adapter-target``, ``adapter-gradient``) grows by Pauli rotations, by
    any of its 4^n strings. The slopes of all operators come from one pass and count as one evaluation.

    A round ends where no operator has a slope, nothing is won, or the circuit is full. Rounds after the first draw
    among the best operators instead of taking the best one, which is what makes them differ.

    Args:
        pool: a key of `qas.excitations.POOLS`; None: "qeb" for molecules, "pauli" for other Hamiltonians, and no
            choice for adapter layers.
        generalized: excitations between any orbitals, not from occupied to empty ones alone.
        start: determinant to start from, as bits over the spin orbitals of a molecule (see `qas.fermions.Molecule`)
            or over the qubits, the rightmost one number 0; None: `Problem.determinant`.
        rank: order of the operators, "gradient" or "gain": by the size of the slope, or by what the operator alone can
            win, in closed form.
        candidates: operators whose circuits are optimized before the lowest one is kept; 1 is ADAPT-VQE.
        layers: append with each operator all others, in their order, that act on other qubits (TETRIS-ADAPT).
        slope: a round ends where no slope is larger, problem's unit.
        choices: operators among which a round after the first draws; the chance falls with the rank.

    References:
        Grimsley et al., arXiv:1812.11173 (fermionic); Tang et al., arXiv:1911.10205 (qubit-ADAPT); Yordanov et al.,
        arXiv:2011.10540 (QEB, candidates); Anastasiou et al., arXiv:2209.10562 (TETRIS); Ramôa et al., arXiv:2401.05172
        (inverse Hessian kept), arXiv:2407.08696 (CEO).
    """

    name: ClassVar[str] = "adapt"
    about: ClassVar[str] = "ADAPT-VQE: grows by the operator of largest slope, from a pool of excitations or strings"
    State: ClassVar[Any] = AdaptState

    def __init__(
        self,
        *,
        pool: str | None = None,
        generalized: bool = False,
        start: str | None = None,
        rank: str = "gradient",
        candidates: int = 1,
        layers: bool = False,
        slope: float = 1e-6,
        choices: int = 4,
    ) -> None:
        if pool is not None and pool not in POOLS:
            raise UnknownNameError("operator pool", pool, POOLS)
        if rank not in RANKS:
            raise UnknownNameError("rank", rank, RANKS)
        self.pool, self.generalized, self.start, self.rank = pool, generalized, start, rank
        self.candidates = whole_number("candidates", candidates)
        self.layers = layers
        self.slope = finite_number("slope", slope, least=0)
        self.choices = whole_number("choices", choices)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"problem": "h2-4", "options": {"pool": "qubit"}}

    def defaults(self, problem: BaseProblem) -> dict[str, Any]:
        return self._ground(problem).defaults

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        self.ground = self._ground(search.problem)
        self.ground.prepare(search)
        self.rng = search.rng(1)
        self.round = 0
        self._begin()

    def _ground(self, problem: BaseProblem) -> Ground:
        if isinstance(problem, Problem):
            return OperatorGround(problem, self.pool, self.generalized, self.start, self.rank, self.slope)
        if not isinstance(problem, GrownByStrings) or not problem.has_slopes:
            raise QasError(
                "agent adapt needs a problem with a Hamiltonian, adapter-target FILE or adapter-gradient FILE, got "
                f"{problem.name}"
            )
        given = [name for name in ("pool", "start") if getattr(self, name) is not None]
        if given:
            raise QasError(f"{given[0]} is for problems with a Hamiltonian, got {problem.name}")
        return StringGround(problem)

    # ------------------------------------------------------------------ the loop
    def run(self) -> None:
        while True:
            self.search.safe_point(self)
            self.step()

    def step(self) -> None:
        """Begin a round, or append to its circuit."""
        if self.circuit is None:
            self._start()
        else:
            self._grow(self.circuit)

    def restart(self) -> None:
        """End the round."""
        self.round += 1
        self._begin()

    def _begin(self) -> None:
        """Before a round."""
        self.circuit: Circuit | None = None
        self.error = np.inf
        self.inverse: np.ndarray | None = None

    def _start(self) -> None:
        self.circuit = self.ground.start
        if self.ground.judges_start:
            self.error = self.meter.evaluate(self.circuit, self.rng, exact_start=True).error

    def _grow(self, circuit: Circuit) -> None:
        lowest = None
        for grown in self._longer(circuit) if self.ground.has_room(circuit) else ():
            if len(grown) <= self.search.max_gates:
                inverse = enlarged(self.inverse, grown.n_angles)
                found = self.meter.evaluate(grown, self.rng, exact_start=True, inverse_hessian=inverse)
                if lowest is None or found.error < lowest.error:
                    lowest = found
        if lowest is not None and lowest.error < self.error - 1e-12:
            self.circuit, self.error, self.inverse = lowest.circuit, lowest.error, lowest.inverse_hessian
        else:
            self.restart()

    def _longer(self, circuit: Circuit) -> list[Circuit]:
        """Circuits that are one operator, or one layer of them, longer; the first is the best by rank."""
        self.meter.spend()  # one pass through the circuit, as any other gradient
        order = self.ground.ranked(circuit)
        if not len(order):
            return []
        first = 0
        if self.round:
            weights = 0.5 ** np.arange(min(self.choices, len(order)))
            first = int(self.rng.choice(len(weights), p=weights / weights.sum()))
        leading = order[first : first + self.candidates]
        return [
            self.ground.grown(circuit, self._layer(int(pick), order) if self.layers else [pick]) for pick in leading
        ]

    def _layer(self, leading: int, order: np.ndarray) -> list[int]:
        """Operators on disjoint qubits, by rank after the leading one."""
        layer, taken = [leading], set(self.ground.qubits(leading))
        for pick in order.tolist():
            if taken.isdisjoint(self.ground.qubits(pick)):
                layer.append(pick)
                taken.update(self.ground.qubits(pick))
        return layer

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        state = {
            "rng": rng_state(self.rng),
            "circuit": None if self.circuit is None else self.circuit.to_list(),
            "error": None if np.isinf(self.error) else self.error,
            "round": self.round,
        }
        return state, {} if self.inverse is None else {"inverse_hessian": self.inverse}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.rng = restore_rng(state["rng"])
        held = state["circuit"]
        self.circuit = None if held is None else Circuit(self.search.problem.n_qubits, held)
        self.error = np.inf if state["error"] is None else float(state["error"])
        self.inverse = arrays.get("inverse_hessian")
        self.round = int(state["round"])


def enlarged(inverse: np.ndarray | None, size: int) -> np.ndarray | None:
    """An inverse Hessian with rows for angles at the end, which are taken to be as curved as the others on average.

    Args:
        inverse: shape (n, n), or None where nothing is known.
        size: number of angles, at least n.
    """
    if inverse is None or not len(inverse):
        return None
    known = len(inverse)
    larger = np.zeros((size, size))
    larger[:known, :known] = inverse
    new = np.arange(known, size)
    larger[new, new] = inverse.diagonal().mean()
    return larger
