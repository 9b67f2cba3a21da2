"""What both environments are told in the same words: where circuits run, of which gates, and how they are told of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qas.alphabet import Alphabet
from qas.devices import Device, native_gates_of
from qas.errors import QasError
from qas.mitigation.objectives import Scored
from qas.noise import NoiseModel, load_noise
from qas.patches import patch_for
from qas.problems import BaseProblem
from qas.vqe import CircuitEvaluator, Evaluator


def judged_by(
    problem: BaseProblem,
    *,
    noise: str | NoiseModel | None = None,
    device: str | Device | None = None,
    patch: str | Sequence[int] | None = None,
    objective: str | Mapping[str, Any] | type[Scored] | Scored | None = None,
    gates: Sequence[str] | None = None,
    coupling: Iterable[Sequence[int]] | None = None,
    directions: Iterable[Sequence[int]] | None = None,
    evaluator: CircuitEvaluator | None = None,
) -> tuple[CircuitEvaluator, Alphabet]:
    """What judges circuits, and the gates they may have; arguments as of `CircuitBuilderEnv`.

    Raises:
        UnknownNameError: an unknown noise, device or gate.
        QasError: arguments that do not fit together.
    """
    model = load_noise(noise)
    if device is not None:
        if model is not None or evaluator is not None:
            raise QasError("a device has its own noise: leave out noise and evaluator beside a device")
        part = patch_for(problem.n_qubits, device, patch)
        model, objective = part.noise(), problem.device_objective if objective is None else objective
        gates = native_gates_of(part, gates)
        directions = part.directions if directions is None else directions
    elif patch is not None:
        raise QasError(f"a patch is one of a device, got patch {patch!r} without a device")
    judge = _checked_evaluator(evaluator, problem, model, objective)
    pairs = _checked_coupling(coupling, judge.noise, problem.n_qubits)
    gates = problem.search_gates if gates is None else gates
    return judge, Alphabet(problem.n_qubits, gates, pairs, directions=directions)


def _checked_evaluator(
    evaluator: CircuitEvaluator | None, problem: BaseProblem, noise: NoiseModel | None, objective: Any
) -> CircuitEvaluator:
    if evaluator is None:
        evaluator = Evaluator(problem, noise, objective="noisy" if objective is None else objective)
    elif objective is not None:
        raise QasError("the objective is given by the evaluator; leave it out beside an evaluator")
    elif evaluator.problem != problem:
        raise QasError(f"the evaluator is for problem {evaluator.problem.name}, the environment for {problem.name}")
    elif noise is not None and noise != evaluator.noise:
        raise QasError("noise is given by the evaluator; leave it out beside an evaluator")
    known = None if evaluator.noise is None else evaluator.noise.n_qubits
    if evaluator.noise is not None and known is not None and known < problem.n_qubits:
        raise QasError(
            f"noise {evaluator.noise.name!r} describes {known} qubits, but {problem.name} has {problem.n_qubits}"
        )
    return evaluator


def _checked_coupling(coupling: Any, noise: NoiseModel | None, n_qubits: int) -> Any:
    """The pairs to use: those given if the device has them, else those of the device among the first qubits."""
    device = None if noise is None else noise.coupling
    if device is None:
        return coupling
    if coupling is None:
        return [pair for pair in device if max(pair) < n_qubits]
    pairs = [tuple(sorted(pair)) for pair in coupling]
    for pair in pairs:
        if pair not in device:
            known = " ".join(f"{a}-{b}" for a, b in sorted(device))
            raise QasError(f"the noise couples only {known}, got {'-'.join(map(str, pair))}")
    return pairs


def told(name: str, problem: BaseProblem, energy: float) -> str:
    """Energy and error of a circuit, in words."""
    unit = f" {problem.unit}" if problem.unit else ""
    return f"{name}: energy {energy:.6f}{unit}, error {problem.error(energy):.2e}"
