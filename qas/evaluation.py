"""Judging one circuit: its energy on a device, exactly or from shots, beside what a perfect device would give."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qas.checks import whole_number
from qas.circuits import Circuit
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.hardware import PRIMITIVES, SHOTS, Execution, counts_of, estimated, load_backend, noise_of, place
from qas.mitigation.counting import Flips, check_invertible, mixed_error
from qas.mitigation.folding import folded
from qas.mitigation.recipe import (
    Counted,
    Exact,
    MitigatedEnergy,
    Mitigation,
    Source,
    mitigated_energy,
    observables_of,
    read_mitigation,
    simulated_counts,
)
from qas.noise import NoiseModel, load_noise
from qas.problems import BaseProblem, load_problem, require_hamiltonian

if TYPE_CHECKING:
    from qas.problems import Problem
    from qas.simulators import Objective, Simulator


@dataclass(frozen=True)
class EvaluationReport:
    """What a circuit achieves at its own angles. Energies and errors in the problem's unit."""

    circuit: Circuit
    problem: str
    """name of the problem"""
    noise: str | None
    """name of the noise model, None for a perfect device"""
    engine: str | None
    """simulator that was used; None if the problem is judged without one"""
    energy: float
    """under the noise; an estimate if shots were given"""
    error: float
    """energy minus the exact value; an estimate can fall below zero"""
    standard_error: float | None
    """of `energy`; None if it is exact"""
    noise_free_energy: float
    """exact value for a perfect device"""
    noise_free_error: float
    exact: float
    """lowest energy of the problem"""
    product_state: float | None
    """what one-qubit gates alone reach on a perfect device; None if that has no meaning for the problem"""
    threshold: float
    """error regarded as success"""
    unit: str
    shots: int | None
    seed: int
    mitigated: MitigatedEnergy | None = None
    """what mitigation makes of the energy; None without"""
    execution: Execution | None = None
    """where and how the circuit was run; None: in a simulation by `engine`"""

    @property
    def mitigated_error(self) -> float | None:
        """Mitigated energy minus the exact value; it can fall below zero."""
        return None if self.mitigated is None else self.mitigated.energy - self.exact

    @property
    def solved(self) -> bool:
        """Whether the error is at most the problem's threshold."""
        return self.error <= self.threshold

    @property
    def gates(self) -> int:
        return self.circuit.n_gates

    @property
    def two_qubit_gates(self) -> int:
        return self.circuit.two_qubit_gates

    @property
    def depth(self) -> int:
        return self.circuit.depth

    @property
    def counts(self) -> dict[str, int]:
        """Gate name -> how often it occurs."""
        return self.circuit.counts

    def to_json(self) -> dict[str, Any]:
        """JSON-able, with the circuit as OpenQASM 3."""
        names = (
            "problem", "noise", "engine", "energy", "error", "standard_error", "noise_free_energy", "noise_free_error",
            "exact", "product_state", "threshold", "solved", "unit", "shots", "seed", "gates", "two_qubit_gates",
            "depth", "counts",
        )  # fmt: skip
        found = {name: getattr(self, name) for name in names}
        if self.mitigated is not None:
            found["mitigated"] = self.mitigated.to_json() | {"error": self.mitigated_error}
        if self.execution is not None:
            found["execution"] = self.execution.to_json()
        return found | {"qasm": self.circuit.to_qasm()}


def evaluate(
    circuit: Circuit,
    problem: str | BaseProblem,
    *,
    noise: str | NoiseModel | None = None,
    shots: int | None = None,
    engine: str | type[Simulator] | Simulator | None = None,
    backend: Any = None,
    layout: Sequence[int] | None = None,
    transpile_level: int | None = None,
    primitive: str | None = None,
    submit: bool = False,
    mitigate: str | Mitigation | None = None,
    seed: int = 0,
) -> EvaluationReport:
    """The energy of a circuit at its own angles.

    Without `shots` the energy is exact. With shots it is an estimate, and what is drawn depends on the engine: ``aer``
    samples bit strings, `shots` for each group of terms that share a measurement setting, readout flips included. The
    compiled engines add to each Pauli term a normal deviate of variance (1 - ⟨P⟩²)/shots, as if each term were measured
    on its own with `shots` measurements (see `qas.optimizers.shots.SampledObjective`). The noise-free energy is always
    exact, and comes from Aer too if that is the engine.

    Args:
        circuit: architecture and angles.
        problem: a name of `qas.list_problems` or a `Problem`.
        noise: a name of `qas.list_noise`, a `NoiseModel`, or None for a perfect device.
        shots: measurements, or None for the exact value.
        engine: a name of `qas.simulators.list_engines`, a `Simulator` class or an instance; None: the fastest exact.
        mitigate: steps of mitigation, as `qas.mitigation.read_mitigation` reads them: ``"readout,symmetry,zne"``. Shots
            are then those of all settings at all strengths of the noise together, and bit strings are drawn.
        backend: a name or object of `qas.hardware.load_backend`: the energy is measured there by Qiskit's primitives.
        layout: device qubit of each qubit of the circuit; None: the backend's best patch.
        transpile_level: 0 (as it stands, the default) to 3.
        primitive: ``"sampler"``, `shots` in all (default 100,000), bit strings counted here; or ``"estimator"``, the
            backend's own, `shots` for each setting. Default: sampler; of Aer without shots and mitigation the exact
            estimator.
        submit: whether the circuit may leave this machine.
        seed: fixes what the shots draw.

    Raises:
        UnknownNameError: unknown problem, noise, engine, backend or step of mitigation.
        CircuitError: circuit and problem differ in size, or the device lacks a gate of the circuit.
        TooLargeError: more qubits than the engine can hold.
        QasError: shots or seed out of range, or noise, engine or shots where the problem takes none.
    """
    if not isinstance(circuit, Circuit):
        raise QasError(f"a Circuit is evaluated, got {type(circuit).__name__} (see Circuit.from_qiskit, .from_qasm)")
    target = load_problem(problem) if isinstance(problem, str) else problem
    if not isinstance(target, BaseProblem):
        raise QasError(f"problem is a name or a Problem, got {type(problem).__name__}")
    if circuit.n_qubits != target.n_qubits:
        raise CircuitError(
            f"the circuit has {circuit.n_qubits} qubits, but problem {target.name} needs {target.n_qubits}"
        )
    seed = whole_number("seed", seed, 0)
    if shots is not None:
        shots = whole_number("shots", shots)
    model = load_noise(noise)
    recipe = None if mitigate is None else read_mitigation(mitigate)
    if backend is None and not (layout is None and transpile_level is None and primitive is None and not submit):
        raise QasError("layout, transpile level, primitive and submit go with a backend, got none")
    simulator = None if backend is not None else target.simulator(model, engine, shots)
    standard_error, mitigated, execution = None, None, None
    if backend is not None:
        if engine is not None:
            raise QasError("a circuit is run by an engine or on a backend, got both")
        asked = _Asked(backend, layout, transpile_level or 0, primitive, submit)
        mitigated, energy, standard_error, execution = _measured(circuit, target, asked, recipe, model, shots, seed)
    elif recipe is not None:
        mitigated = _mitigated(circuit, target, recipe, model, engine, shots, seed)
        energy, standard_error = mitigated.steps[0].energy, mitigated.steps[0].standard_error if shots else None
    elif shots is None:
        energy = target.energy(circuit, simulator)
    else:
        objective = require_hamiltonian(target, "an estimate from shots").objective(circuit, simulator)
        energy, standard_error = _estimate(objective, shots, seed)
    if model is None and shots is None and recipe is None and backend is None:
        noise_free = energy
    else:
        ours = engine is None or simulator is None or simulator.name in ("statevector", "pauli-transfer")
        noise_free = target.energy(
            circuit, target.simulator(engine=None if ours or simulator is None else simulator.kind)
        )
    assert target.threshold is not None
    return EvaluationReport(
        circuit=circuit,
        problem=target.name,
        noise=None if model is None else model.name,
        engine=None if simulator is None else simulator.name,
        energy=float(energy),
        error=float(target.error(energy)),
        standard_error=None if standard_error is None else float(standard_error),
        noise_free_energy=float(noise_free),
        noise_free_error=float(target.error(noise_free)),
        exact=target.exact,
        product_state=target.product_state,
        threshold=target.threshold,
        unit=target.unit,
        shots=shots,
        seed=seed,
        mitigated=mitigated,
        execution=execution,
    )


class _Asked(NamedTuple):
    """How a backend is to run a circuit; see `evaluate`."""

    backend: Any
    layout: Sequence[int] | None
    transpile_level: int
    primitive: str | None
    submit: bool


def _measured(
    circuit: Circuit,
    problem: BaseProblem,
    asked: _Asked,
    recipe: Mitigation | None,
    noise: NoiseModel | None,
    shots: int | None,
    seed: int,
) -> tuple[MitigatedEnergy | None, float, float | None, Execution]:
    """Mitigated energy if asked for, energy as measured, its standard error, and how it was run."""
    target = require_hamiltonian(problem, "a measurement on a backend")
    if noise is not None and asked.backend != "aer":
        raise QasError("a backend has its own noise, got a noise model; only aer takes one")
    if asked.primitive is not None and asked.primitive not in PRIMITIVES:
        raise UnknownNameError("primitive", asked.primitive, PRIMITIVES)
    if asked.primitive == "estimator" and recipe is not None:
        raise QasError("mitigation needs counted bit strings: the primitive sampler, got estimator")
    backend = load_backend(asked.backend, noise, n_qubits=target.n_qubits, submit=asked.submit)
    placed = place(circuit, backend, asked.layout, asked.transpile_level)
    exact = asked.backend == "aer" and shots is None and recipe is None and asked.primitive != "sampler"
    primitive = asked.primitive or ("estimator" if exact else "sampler")
    execution = Execution(backend.name, primitive, placed.start, placed.level, placed.before, placed.after)
    if primitive == "estimator":
        energy, error = estimated(placed, backend, target.hamiltonian, None if exact else shots or SHOTS, seed)
        return None, energy, error, execution
    steps = recipe or Mitigation()
    if steps.extrapolation is not None and steps.extrapolation.learns:
        # What the network is trained on is simulated: a device would have to run all of it.
        simulator = target.simulator(noise_of(backend, placed.start, noise))
        steps = _prepared(steps, circuit, target, simulator, shots or SHOTS, seed)
    observables = observables_of(target, steps)
    counts = partial(counts_of, placed, backend, seed=seed)
    source = Counted(steps, observables, counts, shots or SHOTS, equal=True)
    found = mitigated_energy(target, steps, source, observables)
    _warn(found)
    return (found if recipe else None), found.steps[0].energy, found.steps[0].standard_error, execution


def _prepared(
    recipe: Mitigation, circuit: Circuit, problem: Problem, simulator: Simulator, shots: int | None, seed: int
) -> Mitigation:
    """The recipe with its extrapolation made ready for a circuit, by values that a simulator tells."""
    if recipe.extrapolation is None:
        return recipe

    def measure(other: Circuit, scale: float) -> float:
        return simulator.expectation(folded(other, scale), problem.hamiltonian)

    spread = mixed_error(problem.hamiltonian, shots // len(recipe.nodes) or 1) if shots else 0.0
    made = recipe.extrapolation.prepared(circuit, problem.hamiltonian, recipe.nodes, measure, spread, seed)
    return replace(recipe, extrapolation=made)


def _warn(found: MitigatedEnergy) -> None:
    if found.fallback:
        warnings.warn(f"{found.recipe}: a straight line was fitted instead, {found.fallback}", stacklevel=4)


def _mitigated(
    circuit: Circuit,
    problem: BaseProblem,
    recipe: Mitigation,
    noise: NoiseModel | None,
    engine: Any,
    shots: int | None,
    seed: int,
) -> MitigatedEnergy:
    """The energy in a simulation, as measured and mitigated."""
    target = require_hamiltonian(problem, "mitigation")
    observables = observables_of(target, recipe)
    flips = np.zeros((target.n_qubits, 2)) if noise is None else noise.readout_flips(target.n_qubits)
    if recipe.readout:
        check_invertible(flips)
    unflipped = None if noise is None else replace(noise, readout={})
    simulators = (target.simulator(noise, engine), target.simulator(unflipped, engine))
    recipe = _prepared(recipe, circuit, target, simulators[recipe.readout], shots, seed)
    source: Source
    if shots is None:
        source = Exact(circuit, simulators)
    else:
        if engine not in (None, "pauli-transfer"):
            raise QasError("mitigation draws its shots from the engine pauli-transfer, or on a backend, got an engine")
        rng = np.random.default_rng(seed)
        source = Counted(recipe, observables, simulated_counts(circuit, noise, rng), shots, Flips.known(flips))
    found = mitigated_energy(target, recipe, source, observables)
    _warn(found)
    return found


def _estimate(objective: Objective, shots: int, seed: int) -> tuple[float, float]:
    """Energy at the circuit's own angles from shots, and its standard error."""
    circuit, simulator = objective.circuit, objective.simulator
    sample = getattr(simulator, "sample", None)
    if sample is not None:
        return sample(circuit, objective.hamiltonian, shots, seed)
    from qas.optimizers.shots import SampledObjective

    sampled = SampledObjective(objective, shots, np.random.default_rng(seed))
    energy = sampled(circuit.angles)
    return energy, sampled.standard_deviation(objective.terms(circuit.angles))
