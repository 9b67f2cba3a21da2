"""What a circuit found under noise is worth: raw, with readout inverted, extrapolated, and on a perfect device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from qas.checks import finite_number
from qas.circuits import Circuit
from qas.mitigation.objectives import Readout, Scored, ZeroNoise, spelled
from qas.problems import Problem
from qas.simulators import Simulator, make_simulator

_MOST_EVALUATIONS = 500
"""Of the objective, where angles are optimized again."""


@dataclass(frozen=True)
class Outcomes:
    """Energies of one circuit at its own angles but for the last, in the problem's unit, exact."""

    noisy: float
    """as the device measures it"""
    readout: float
    """with the readout inverted"""
    mitigated: float
    """extrapolated to no noise, readout inverted"""
    sigma: float
    """standard error of an estimate of `mitigated` from the shots of `by`"""
    by: str
    """the objective that `mitigated` and `sigma` are of, such as ``"zne:nodes=1-3"``"""
    reoptimized: float
    """on a perfect device, the angles optimized again for it"""

    def to_json(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcomes:
        numbers = {each.name: finite_number(each.name, data[each.name]) for each in fields(cls) if each.name != "by"}
        return cls(by=str(data["by"]), **numbers)


class Judge:
    """Finds the outcomes of circuits.

    Args:
        problem: what they are for.
        engine: of the device's noise.
        objective: of the search; where it extrapolates, so does this, else in the usual way.
    """

    def __init__(self, problem: Problem, engine: Simulator, objective: Scored) -> None:
        self.problem = problem
        self.engine = engine
        self.extrapolation = objective if isinstance(objective, ZeroNoise) else ZeroNoise()
        self._readout: Any = Readout().simulator(engine)
        self._mitigated: Any = self.extrapolation.simulator(engine)
        self._perfect = make_simulator()

    def __call__(self, circuit: Circuit) -> Outcomes:
        """The outcomes of a circuit.

        Raises:
            Interrupted: asked to stop in between.
        """
        from qas.optimizers import minimize

        operator = self.problem.hamiltonian
        found = self._mitigated.estimate(circuit, operator)
        best = minimize(
            self.problem.objective(circuit, self._perfect), circuit.angles, max_evaluations=_MOST_EVALUATIONS
        )
        return Outcomes(
            noisy=self.engine.expectation(circuit, operator),
            readout=self._readout.estimate(circuit, operator).mitigated,
            mitigated=found.mitigated,
            sigma=found.sigma,
            by=spelled(self.extrapolation),
            reoptimized=float(best.fun),
        )
