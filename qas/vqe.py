"""From an architecture to a number: optimize the angles of a fixed circuit on a problem, under a noise model."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from itertools import repeat
from typing import Any, NamedTuple, Protocol

import numpy as np

from qas.checks import finite_number, whole_number
from qas.circuits import Circuit
from qas.mitigation.objectives import Scored, make_objective, scored_by
from qas.noise import NoiseModel
from qas.problems import BaseProblem
from qas.simulators import Simulator
from qas.simulators.workers import in_order, worker_count


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
    inverse_hessian: np.ndarray | None = field(default=None, compare=False, repr=False)
    """estimate at the optimized angles, shape (n_angles, n_angles), where the optimizer makes one"""
    settled: bool = field(default=True, compare=False)
    """the optimization ended before its limit"""


class CircuitEvaluator(Protocol):
    """What environments and agents judge circuits with: an `Evaluator`, or a `qas.meter.Meter` that counts."""

    @property
    def problem(self) -> BaseProblem: ...
    @property
    def noise(self) -> NoiseModel | None: ...
    @property
    def shots(self) -> int | None: ...
    @property
    def simulator(self) -> Any: ...

    def evaluate(
        self,
        circuit: Circuit,
        rng: np.random.Generator,
        *,
        max_evaluations: int | None = None,
        exact_start: bool = False,
        inverse_hessian: np.ndarray | None = None,
    ) -> Evaluation:
        """Optimize the angles of `circuit`, starting from its own."""
        ...

    def evaluate_many(
        self,
        circuits: Iterable[Circuit],
        rng: np.random.Generator | Iterable[np.random.Generator],
        *,
        max_evaluations: int | None = None,
        exact_start: bool = False,
        inverse_hessians: Iterable[np.ndarray | None] | None = None,
        workers: int | None = None,
        ahead: int | None = None,
    ) -> Generator[Evaluation, None, None]:
        """What `evaluate` says of one circuit after the other, on all cores."""
        ...

    def energy(self, circuit: Circuit) -> float:
        """Energy of a circuit at its own angles, exact, one evaluation."""
        ...

    def spend(self, evaluations: int = 1) -> None:
        """Count evaluations that are made elsewhere, such as a sweep of gradients."""
        ...


class Job(NamedTuple):
    """One architecture whose angles are to be optimized; all that is random about it has been drawn."""

    circuit: Circuit
    start: np.ndarray
    """angles to start from, radians, float64, shape (n_angles,)"""
    limit: int
    """most evaluations"""
    rng: np.random.Generator
    """for shots and methods that draw"""
    inverse_hessian: np.ndarray | None = None
    """what is known of it at the start"""


@dataclass
class Evaluator:
    """Optimizes angles and returns energies; stateless between calls, so one serves environment and agents alike.

    Args:
        problem: what is judged.
        noise: hardware noise, or None.
        objective: what counts as energy under the noise: a name of `qas.mitigation.list_objectives`, with settings as
            in ``"zne:nodes=1-3-5"`` if it has any, a class or an instance.
        engine: a name of `qas.simulators.list_engines`, a class or an instance; None for the fastest exact one.
        optimizer: a name of `qas.optimizers.list_optimizers`, or a function like theirs.
        max_evaluations: most evaluations one architecture may take.
        tolerance: energy that may be left unfound, problem's unit.
        start_noise: standard deviation, in radians, of what is added to inherited angles: it leaves saddle points.
        shots: measurements of each Pauli term, None for exact values.
        options: further options of the optimizer.

    Raises:
        TooLargeError: more qubits than the engine can hold.
        QasError: settings out of range, noise, engine, shots or an objective where the problem takes none, or shots
            beside a mitigated objective, which has its own.
    """

    problem: BaseProblem
    noise: NoiseModel | None = None
    _: KW_ONLY
    objective: str | Mapping[str, Any] | type[Scored] | Scored = "noisy"
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
        self.objective = make_objective(self.objective)
        self.engine_under_noise = self.problem.simulator(self.noise, self.engine, self.shots)
        self.simulator = scored_by(self.objective, self.engine_under_noise, self.shots)
        if self.simulator is not self.engine_under_noise:
            self.simulator.check_size(self.problem.n_qubits)

    def evaluate(
        self,
        circuit: Circuit,
        rng: np.random.Generator,
        *,
        max_evaluations: int | None = None,
        exact_start: bool = False,
        inverse_hessian: np.ndarray | None = None,
    ) -> Evaluation:
        """Optimize the angles of `circuit`, starting from its own.

        Args:
            circuit: architecture and start angles.
            rng: source of the start noise, and of shot noise.
            max_evaluations: overrides the evaluator's, if smaller.
            exact_start: leave the start angles as they are.
            inverse_hessian: what is known of it at the start; see `qas.optimizers.minimize`.
        """
        job = self.job(circuit, rng, max_evaluations, exact_start)
        return self.optimize(job._replace(inverse_hessian=inverse_hessian))

    def evaluate_many(
        self,
        circuits: Iterable[Circuit],
        rng: np.random.Generator | Iterable[np.random.Generator],
        *,
        max_evaluations: int | None = None,
        exact_start: bool = False,
        inverse_hessians: Iterable[np.ndarray | None] | None = None,
        workers: int | None = None,
        ahead: int | None = None,
    ) -> Generator[Evaluation, None, None]:
        """What `evaluate` says of one circuit after the other; the compiled engines work on several at once.

        Circuits are taken, and their start noise is drawn, in their order and in this thread, so that the results are
        those of `evaluate` for any number of workers, also where making a circuit draws from the same generator. Other
        engines, optimizers and shots work on one after the other. Close the generator to stop what is not done.

        Args:
            circuits: architectures and start angles; taken as they are needed, so that there may be endlessly many.
            rng: a generator for all, or one for each circuit.
            max_evaluations, exact_start: as of `evaluate`, for every circuit.
            inverse_hessians: one for each circuit, taken after it; None: nothing is known of any.
            workers: threads; None: one for each core that the process may use; 1: one core, also for large circuits.
            ahead: circuits taken beyond the one whose result comes next; None: 16 for each thread.

        Yields:
            An `Evaluation` for each circuit, in order.
        """
        jobs = self.jobs(circuits, rng, lambda: max_evaluations, exact_start, inverse_hessians)
        return self.optimized(jobs, workers, ahead)

    # ------------------------------------------------------------------ in two steps
    def workers(self, workers: int | None = None) -> int:
        """How many circuits this evaluator works on at once: 1 where the order in which it draws matters.

        Raises:
            QasError: workers below 1.
        """
        from qas.optimizers import runs_in_threads

        if not self.problem.simulated or worker_count(workers) == 1:
            return 1
        objective = self.problem.objective(Circuit(self.problem.n_qubits), self.simulator)
        if not runs_in_threads(objective, self.optimizer, self.shots, self.options):
            return 1
        return worker_count(workers, objective.scratch)

    def job(
        self, circuit: Circuit, rng: np.random.Generator, max_evaluations: int | None = None, exact_start: bool = False
    ) -> Job:
        """What `optimize` is to do, the start noise drawn; arguments as of `evaluate`."""
        limit = self.max_evaluations if max_evaluations is None else min(self.max_evaluations, max_evaluations)
        start = np.array(circuit.angles)
        if self.start_noise and not exact_start and len(start):
            start = start + rng.normal(scale=self.start_noise, size=len(start))
        return Job(circuit, start, limit, rng)

    def jobs(
        self,
        circuits: Iterable[Circuit],
        rng: np.random.Generator | Iterable[np.random.Generator],
        max_evaluations: Callable[[], int | None],
        exact_start: bool,
        inverse_hessians: Iterable[np.ndarray | None] | None = None,
    ) -> Iterator[Job]:
        """Jobs of many circuits, each made when it is asked for."""
        rngs = repeat(rng) if isinstance(rng, np.random.Generator) else rng
        inverses = repeat(None) if inverse_hessians is None else inverse_hessians
        for circuit, generator, known in zip(circuits, rngs, inverses, strict=False):
            job = self.job(circuit, generator, max_evaluations(), exact_start)
            yield job._replace(inverse_hessian=known)

    def optimized(
        self, jobs: Iterable[Job], workers: int | None = None, ahead: int | None = None
    ) -> Generator[Evaluation, None, None]:
        """The jobs done, in order; arguments as of `evaluate_many`."""
        from qas.optimizers import MOST_TOGETHER

        return in_order(
            self.optimize,
            jobs,
            self.workers(workers),
            one_core=workers == 1,
            ahead=ahead,
            together=self.optimize_together,
            most_together=MOST_TOGETHER,
        )

    def optimize(self, job: Job) -> Evaluation:
        """Do a job; where `workers` says more than 1, in any thread."""
        from qas.optimizers import minimize

        result = minimize(
            self.problem.objective(job.circuit, self.simulator),
            job.start,
            method=self.optimizer,
            max_evaluations=job.limit,
            tolerance=self.tolerance,
            shots=self.shots,
            rng=job.rng,
            inverse_hessian=job.inverse_hessian,
            **self.options,
        )
        return self._evaluation(job, result)

    def optimize_together(self, jobs: list[Job]) -> list[Evaluation | Exception]:
        """What `optimize` returns or raises for each of a few short jobs, in one call of compiled code."""
        from qas.optimizers import minimize_together

        found: list[Any] = []
        tasks = []
        for job in jobs:
            try:
                objective = self.problem.objective(job.circuit, self.simulator)
                tasks.append((objective, job.start, job.limit, job.inverse_hessian))
                found.append(None)
            except Exception as error:  # raised at the job's turn
                found.append(error)
        results = iter(minimize_together(tasks, self.tolerance))
        for k, job in enumerate(jobs):
            if found[k] is None:
                result = next(results)
                found[k] = result if isinstance(result, Exception) else self._evaluation(job, result)
        return found

    def _evaluation(self, job: Job, result: Any) -> Evaluation:
        tuned = job.circuit.with_angles(result.x) if len(job.start) else job.circuit
        energy = float(result.fun)
        curvature = result.get("hess_inv")
        known = curvature if isinstance(curvature, np.ndarray) else None
        return Evaluation(tuned, energy, self.problem.error(energy), int(result.nfev), known, result.nfev < job.limit)

    def spend(self, evaluations: int = 1) -> None:
        """Nothing: a `qas.meter.Meter` counts."""

    def energy(self, circuit: Circuit) -> float:
        """Energy of a circuit at its own angles, exact, one evaluation."""
        return self.problem.energy(circuit, self.simulator)
