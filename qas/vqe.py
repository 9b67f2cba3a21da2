"""From an architecture to a number: optimize the angles of a fixed circuit on a problem, under a noise model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Protocol

import numpy as np

from qas.checks import finite_number, whole_number
from qas.circuits import Circuit
from qas.noise import NoiseModel
from qas.problems import BaseProblem
from qas.simulators import Simulator


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One architecture with optimized angles."""

    circuit: Circuit
    energy: float
    """objective at the optimized angles, under the evaluator's noise, problem's unit"""
    error: float
    """energy minus the problem's exact value"""
    evaluations: int
    """calls of the objective this took; a gradient counts as one"""


class CircuitEvaluator(Protocol):
    """What environments and agents judge circuits with: an `Evaluator`, or a `qas.meter.Meter` that counts."""

    @property
    def problem(self) -> BaseProblem: ...
    @property
    def noise(self) -> NoiseModel | None: ...
    @property
    def shots(self) -> int | None: ...

    def evaluate(
        self,
        circuit: Circuit,
        rng: np.random.Generator,
        *,
        max_evaluations: int | None = None,
        exact_start: bool = False,
    ) -> Evaluation:
        """Optimize the angles of `circuit`, starting from its own."""
        ...

    def energy(self, circuit: Circuit) -> float:
        """Energy of a circuit at its own angles, exact, one evaluation."""
        ...


@dataclass
class Evaluator:
    """Optimizes angles and returns energies; stateless between calls, so one serves environment and agents alike.

    Args:
        problem: what is judged.
        noise: hardware noise, or None.
        engine: a name of `qas.simulators.list_engines`, a class or an instance; None for the fastest exact one.
        optimizer: a name of `qas.optimizers.list_optimizers`, or a function like theirs.
        max_evaluations: most evaluations one architecture may take.
        tolerance: energy that may be left unfound, problem's unit.
        start_noise: standard deviation, in radians, of what is added to inherited angles: it leaves saddle points.
        shots: measurements of each Pauli term, None for exact values.
        options: further options of the optimizer.

    Raises:
        TooLargeError: more qubits than the engine can hold.
        QasError: settings out of range, or noise, engine or shots where the problem takes none.
    """

    problem: BaseProblem
    noise: NoiseModel | None = None
    _: KW_ONLY
    engine: str | type[Simulator] | Simulator | None = None
    optimizer: str | Callable[..., Any] = "l-bfgs"
    max_evaluations: int = 200
    tolerance: float = 1e-9
    start_noise: float = 0.1
    shots: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        whole_number("max_evaluations", self.max_evaluations)
        finite_number("start_noise", self.start_noise, least=0)
        self.simulator = self.problem.simulator(self.noise, self.engine, self.shots)

    def evaluate(
        self,
        circuit: Circuit,
        rng: np.random.Generator,
        *,
        max_evaluations: int | None = None,
        exact_start: bool = False,
    ) -> Evaluation:
        """Optimize the angles of `circuit`, starting from its own.

        Args:
            circuit: architecture and start angles.
            rng: source of the start noise, and of shot noise.
            max_evaluations: overrides the evaluator's, if smaller.
            exact_start: leave the start angles as they are.
        """
        from qas.optimizers import minimize

        limit = self.max_evaluations if max_evaluations is None else min(self.max_evaluations, max_evaluations)
        start = np.array(circuit.angles)
        if self.start_noise and not exact_start and len(start):
            start = start + rng.normal(scale=self.start_noise, size=len(start))
        objective = self.problem.objective(circuit, self.simulator)
        result = minimize(
            objective,
            start,
            method=self.optimizer,
            max_evaluations=limit,
            tolerance=self.tolerance,
            shots=self.shots,
            rng=rng,
            **self.options,
        )
        tuned = circuit.with_angles(result.x) if len(start) else circuit
        energy = float(result.fun)
        return Evaluation(tuned, energy, self.problem.error(energy), int(result.nfev))

    def energy(self, circuit: Circuit) -> float:
        """Energy of a circuit at its own angles, exact, one evaluation."""
        return self.problem.energy(circuit, self.simulator)
