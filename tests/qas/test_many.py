"""Many circuits at once: whatever the number of threads, the results are those of one after the other."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qas
from qas.agents.base import Search
from qas.agents.growth import evolution
from qas.circuits import Circuit
from qas.errors import CircuitError, QasError
from qas.hamiltonians import Hamiltonian
from qas.meter import Budget, Meter, SearchEnded
from qas.noise import load_noise
from qas.optimizers import minimize, minimize_many
from qas.problems import BaseProblem, load_problem
from qas.record import Record
from qas.simulators import Simulator, interrupt, make_simulator, workers
from qas.simulators.compiled import CompiledObjective
from qas.simulators.interrupt import Interrupted, stop_when
from qas.simulators.workers import in_order, in_worker, worker_count
from qas.testing.agents import found
from qas.testing.random import random_circuit, random_hamiltonian
from qas.vqe import Evaluation, Evaluator

NOISE = [None, "ibm-mumbai"]
COUNTS = [1, 2, 5]


def circuits(count: int, n_qubits: int = 4, seed: int = 0, gates: int = 14) -> list[Circuit]:
    """Random ones, the shortest without gates or without angles among them."""
    rng = np.random.default_rng(seed)
    alphabet = ("ry", "rz", "rx", "cx", "h")
    made = [Circuit(n_qubits), Circuit(n_qubits, [("h", 0), ("cx", (0, 1))])]
    return (made + [random_circuit(n_qubits, gates, rng, alphabet) for _ in range(count)])[:count]


def fresh(made: list[Circuit]) -> list[Circuit]:
    """The same circuits, nothing known of them yet."""
    return [Circuit(c.n_qubits, c.gates) for c in made]


def same(left: list[Evaluation], right: list[Evaluation]) -> bool:
    """Bit for bit."""
    return [(e.circuit, e.energy, e.error, e.evaluations) for e in left] == [
        (e.circuit, e.energy, e.error, e.evaluations) for e in right
    ]


@pytest.fixture(scope="module")
def problem() -> BaseProblem:
    return load_problem("lih-4")


# ---------------------------------------------------------------------- the threads
def test_results_come_in_order_and_items_are_taken_in_order() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for k in range(60):
            assert threading.current_thread() is threading.main_thread()
            taken.append(k)
            yield k

    def slow_first(k: int) -> tuple[int, str]:
        time.sleep(0.02 if k % 10 == 0 else 0.0)
        return k, threading.current_thread().name

    results = list(in_order(slow_first, items(), 5))
    assert [k for k, _ in results] == taken == list(range(60))
    assert {name for _, name in results} == {"qas-worker"}


def test_an_endless_source_is_taken_only_so_far_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        while True:
            taken.append(len(taken))
            yield taken[-1]

    results = in_order(lambda k: k, items(), 3, ahead=7)
    for k in range(100):
        assert next(results) == k
        assert len(taken) <= k + 1 + 7
    results.close()


@pytest.mark.parametrize("count", COUNTS)
def test_an_error_comes_at_its_turn(count: int) -> None:
    def odd(k: int) -> int:
        if k == 11:
            raise ZeroDivisionError
        return k

    got: list[int] = []
    with pytest.raises(ZeroDivisionError):
        got.extend(in_order(odd, range(50), count))
    assert got == list(range(11))

    def source() -> Iterator[int]:
        yield from range(6)
        raise KeyError("no more")

    got = []
    with pytest.raises(KeyError):
        for k in in_order(lambda k: k, source(), count):
            got.append(k)
    assert got == list(range(6))


def test_a_batch_that_is_left_stops_what_is_in_work() -> None:
    heard = threading.Event()

    def until_stopped(k: int) -> int:
        while k and not interrupt.current():
            time.sleep(0.001)
        if k:
            heard.set()
        return k

    results = in_order(until_stopped, range(4), 2)
    assert next(results) == 0
    begin = time.monotonic()
    results.close()
    assert heard.is_set() and time.monotonic() - begin < 30
    assert not interrupt.current(), "the caller was not asked to stop"


def test_workers_hear_what_their_owner_is_told() -> None:
    def until_stopped(k: int) -> str | None:
        while not interrupt.current():
            time.sleep(0.001)
        return interrupt.current().reason

    with stop_when(0.05):
        assert list(in_order(until_stopped, range(6), 3)) == ["deadline"] * 6
    assert list(in_order(lambda k: bool(interrupt.current()), range(6), 3)) == [False] * 6


def test_threads_are_used_again_and_none_is_started_inside_one() -> None:
    def inside(k: int) -> tuple[bool, int, list[int]]:
        return in_worker(), worker_count(4), list(in_order(lambda j: j + k, range(3), worker_count(4)))

    before = None
    for _ in range(5):
        assert list(in_order(inside, range(8), 2)) == [(True, 1, [k, k + 1, k + 2]) for k in range(8)]
        names = {thread.ident for thread in threading.enumerate() if thread.name == "qas-worker"}
        assert before is None or names == before
        before = names
    assert not in_worker()


def test_two_batches_may_be_open_at_once() -> None:
    first, second = in_order(lambda k: k, range(100), 2, ahead=2), in_order(lambda k: -k, range(100), 2, ahead=2)
    assert [next(g) for _ in range(100) for g in (first, second)] == [s * k for k in range(100) for s in (1, -1)]


def test_how_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in workers.LIMITS:
        monkeypatch.delenv(name, raising=False)
    most = workers.cores()
    assert worker_count() == most >= 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert worker_count() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    assert worker_count() == most
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert worker_count() == most
    assert worker_count(7) == 7
    assert worker_count(7, 1 << 60) == 1, "no more than the memory holds"
    with pytest.raises(QasError, match="workers"):
        worker_count(0)


def test_ctrl_c_in_a_batch_stops_its_workers() -> None:
    heard = threading.Event()

    def until_stopped(k: int) -> int:
        if k == 2:
            signal.raise_signal(signal.SIGINT)  # Python handles it in the main thread, which waits
        while not interrupt.current():
            time.sleep(0.001)
        heard.set()
        return k

    with pytest.raises(KeyboardInterrupt):
        list(in_order(until_stopped, range(5), 3))
    assert heard.is_set()
    assert list(in_order(lambda k: k, range(5), 3)) == list(range(5)), "the threads are still of use"


# ---------------------------------------------------------------------- simulators and optimizers
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("count", COUNTS)
def test_energies_of_many_circuits(noise: str | None, count: int) -> None:
    rng = np.random.default_rng(1)
    hamiltonian = random_hamiltonian(4, 20, rng)
    made = circuits(70)
    angles = [rng.normal(size=c.n_angles) if k % 3 else None for k, c in enumerate(made)]
    one = make_simulator(noise)
    expected = [one.expectation(c, hamiltonian, a) for c, a in zip(made, angles, strict=True)]
    many = make_simulator(noise).expectation_many(fresh(made), hamiltonian, angles, workers=count)
    assert many.dtype == np.float64 and many.tolist() == expected
    assert make_simulator(noise).expectation_many([], hamiltonian, workers=count).shape == (0,)
    turned = rng.normal(size=(9, made[5].n_angles))
    rows = one.expectation_many([made[5]] * 9, hamiltonian, turned, workers=count)
    assert rows.tolist() == [one.expectation(made[5], hamiltonian, row) for row in turned]


@pytest.mark.parametrize("count", COUNTS)
def test_wrong_circuits_among_many_energies(count: int) -> None:
    hamiltonian = Hamiltonian({"ZZZZ": 1.0})
    simulator = make_simulator()
    with pytest.raises(CircuitError, match="3 qubits"):
        simulator.expectation_many([*circuits(8), Circuit(3)], hamiltonian, workers=count)
    with pytest.raises(CircuitError, match="each of 8 circuits"):
        simulator.expectation_many(circuits(8), hamiltonian, [None] * 7, workers=count)
    with pytest.raises(QasError, match="workers"):
        simulator.expectation_many(circuits(8), hamiltonian, workers=0)


class Counted(Simulator):
    """An engine that is not ready for threads."""

    name = "counted"

    def __init__(self, noise: Any = None) -> None:
        super().__init__(noise)
        self.inner, self.threads = make_simulator(noise), set[str]()

    def expectation(self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Any = None) -> float:
        self.threads.add(threading.current_thread().name)
        return self.inner.expectation(circuit, hamiltonian, angles)

    def expectation_and_gradient(self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Any = None) -> Any:
        self.threads.add(threading.current_thread().name)
        return self.inner.expectation_and_gradient(circuit, hamiltonian, angles)

    def term_expectations(self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Any = None) -> np.ndarray:
        return self.inner.term_expectations(circuit, hamiltonian, angles)


def test_other_engines_work_in_the_callers_thread(problem: Any) -> None:
    engine = Counted()
    made = circuits(6)
    energies = engine.expectation_many(made, problem.hamiltonian, workers=3)
    np.testing.assert_array_equal(energies, make_simulator().expectation_many(made, problem.hamiltonian, workers=3))
    evaluator = Evaluator(problem, engine=engine, max_evaluations=5)
    assert evaluator.workers(4) == 1
    one = Evaluator(problem, engine=Counted(), max_evaluations=5)
    rngs = [np.random.default_rng(2) for _ in range(2)]
    many = list(evaluator.evaluate_many(made, rngs[0], workers=4))
    assert same(many, [one.evaluate(c, rngs[1]) for c in made])
    assert engine.threads == {threading.main_thread().name}
    for settings in ({"optimizer": "spsa", "shots": 100}, {"optimizer": "cobyla"}, {"options": {"memory": 3}}):
        assert Evaluator(problem, **settings).workers(4) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("count", COUNTS)
def test_minimizations_of_many_circuits(problem: Any, noise: str | None, count: int) -> None:
    rng = np.random.default_rng(3)
    made = circuits(40)
    starts = [rng.normal(size=c.n_angles) for c in made]

    def objectives() -> list[CompiledObjective]:
        simulator = make_simulator(noise)
        return [simulator.objective(c, problem.hamiltonian) for c in fresh(made)]  # type: ignore[misc]

    many, one = objectives(), objectives()
    results = minimize_many(many, starts, max_evaluations=30, workers=count)
    for k, (objective, start) in enumerate(zip(one, starts, strict=True)):
        expected = minimize(objective, start, max_evaluations=30)
        assert results[k].keys() == expected.keys()
        assert results[k].fun == expected.fun and results[k].x.tolist() == expected.x.tolist()
        assert (results[k].nfev, results[k].nit, results[k].message) == (expected.nfev, expected.nit, expected.message)
        assert (many[k].nfev, many[k].njev) == (objective.nfev, objective.njev)
        if len(start):
            assert results[k].jac.tolist() == expected.jac.tolist()


@pytest.mark.parametrize("count", COUNTS)
def test_one_objective_from_many_starts_counts_all(problem: Any, count: int) -> None:
    circuit = circuits(3)[2]
    objective = make_simulator().objective(circuit, problem.hamiltonian)
    starts = np.random.default_rng(4).normal(size=(60, circuit.n_angles))
    results = minimize_many([objective] * 60, starts, workers=count)
    assert objective.nfev == sum(result.nfev for result in results)
    bare = make_simulator().objective(Circuit(4), problem.hamiltonian)
    assert [r.nfev for r in minimize_many([bare] * 9, [[]] * 9, workers=count)] == [1] * 9


@pytest.mark.parametrize("count", COUNTS)
def test_what_many_minimizations_refuse(problem: Any, count: int) -> None:
    made = circuits(12)
    simulator = make_simulator()
    objectives = [simulator.objective(c, problem.hamiltonian) for c in made]
    starts = [np.array(c.angles) for c in made]
    for settings, message in (
        ({"tolerance": -1.0}, "tolerance"),
        ({"max_evaluations": 0}, "max_evaluations"),
        ({"method": "lbfgz"}, "lbfgz"),
        ({"memoryy": 3}, "no option"),
        ({"workers": 0}, "workers"),
    ):
        with pytest.raises(QasError, match=message):
            minimize_many(objectives, starts, **({"workers": count} | settings))  # type: ignore[arg-type]
    with pytest.raises(QasError, match="each of 12 objectives"):
        minimize_many(objectives, starts[:-1], workers=count)
    starts[7] = np.full_like(starts[7], np.nan)
    with pytest.raises(CircuitError, match="finite"):
        minimize_many(objectives, starts, workers=count)
    assert minimize_many([], [], workers=count) == []


def test_a_deadline_cuts_many_minimizations_short() -> None:
    """Each has its best point, or had no energy yet: then the first of those says so."""
    rng = np.random.default_rng(5)
    hamiltonian = random_hamiltonian(6, 20, rng)
    made = circuits(400, 6, gates=60)[2:]
    simulator = make_simulator("ibm-mumbai")
    objectives = [simulator.objective(c, hamiltonian) for c in made]
    minimize_many(objectives[:9], [np.array(o.circuit.angles) for o in objectives[:9]], max_evaluations=1, workers=2)
    with stop_when(0.05), pytest.raises(Interrupted):
        minimize_many(objectives, [np.array(o.circuit.angles) for o in objectives], tolerance=1e-14, workers=2)


def test_hammering_one_simulator_from_many_threads(problem: Any) -> None:
    """A new simulator each time, so that its library grows while others read it."""
    made = [c for k in range(6) for c in circuits(30, seed=k)]
    rng = np.random.default_rng(6)
    starts = [rng.normal(size=c.n_angles) for c in made]
    for noise in NOISE:
        expected = None
        for _ in range(4):
            simulator = make_simulator(noise)
            again = fresh(made)
            shared = [
                simulator.objective(c, problem.hamiltonian) for pair in zip(again, again, strict=True) for c in pair
            ]
            results = minimize_many(shared, [x for x in starts for _ in range(2)], max_evaluations=4, workers=8)
            energies = [result.fun for result in results]
            assert energies[::2] == energies[1::2]
            assert expected is None or energies == expected
            expected = energies


# ---------------------------------------------------------------------- evaluator
@pytest.mark.parametrize("noise", NOISE)
def test_evaluations_of_many_circuits(problem: BaseProblem, noise: str | None) -> None:
    """Also where making a circuit draws from the generator that the start noise comes from."""
    evaluator = Evaluator(problem, load_noise(noise), max_evaluations=40)

    def drawn(rng: np.random.Generator) -> Iterator[Circuit]:
        for circuit in circuits(50):
            yield circuit.with_angles(rng.normal(size=circuit.n_angles))

    rng = np.random.default_rng(7)
    expected = [evaluator.evaluate(c, rng) for c in drawn(rng)]
    each = [evaluator.evaluate(c, np.random.default_rng(k)) for k, c in enumerate(circuits(50))]
    exact = [evaluator.evaluate(c, rng, exact_start=True, max_evaluations=3) for c in circuits(20)]
    for count in COUNTS:
        other = np.random.default_rng(7)
        assert same(list(evaluator.evaluate_many(drawn(other), other, workers=count)), expected)
        assert other.bit_generator.state == rng.bit_generator.state
        own = [np.random.default_rng(k) for k in range(50)]
        assert same(list(evaluator.evaluate_many(circuits(50), own, workers=count)), each)
        many = evaluator.evaluate_many(circuits(20), other, exact_start=True, max_evaluations=3, workers=count)
        assert same(list(many), exact)


@pytest.mark.parametrize("count", COUNTS)
def test_a_circuit_that_is_refused_among_many(problem: BaseProblem, count: int) -> None:
    evaluator = Evaluator(problem, max_evaluations=10)
    made = circuits(30)
    made[20] = Circuit(3, [("ry", 0, 0.1)])
    got: list[Evaluation] = []
    with pytest.raises(CircuitError, match="3 qubits"):
        got.extend(evaluator.evaluate_many(made, np.random.default_rng(0), workers=count))
    assert len(got) == 20


# ---------------------------------------------------------------------- meter
def metered(
    problem: BaseProblem, budget: Budget | None, count: int, noise: str | None, **settings: Any
) -> tuple[list[Evaluation], Meter, bool]:
    """What a meter hands out up to the end of its budget, by `evaluate` if count is 0."""
    meter = Meter(Evaluator(problem, load_noise(noise), max_evaluations=50), budget, Record(problem))
    rng, got, ended = np.random.default_rng(8), list[Evaluation](), False
    try:
        if count:
            for each in meter.evaluate_many(circuits(80), rng, workers=count, **settings):
                got.append(each)
        else:
            for circuit in circuits(80):
                got.append(meter.evaluate(circuit, rng, **settings))
    except SearchEnded:
        ended = True
    return got, meter, ended


@pytest.mark.parametrize(
    ("budget", "noise"),
    [
        (None, None),
        (Budget(evaluations=1), None),
        (Budget(evaluations=333), "ibm-mumbai"),
        (Budget(steps=33), None),
        (Budget(steps=80), None),
        (Budget(steps=100, target=0.05), "ibm-mumbai"),
    ],
    ids=str,
)
def test_a_budget_ends_as_for_one_after_the_other(
    problem: BaseProblem, budget: Budget | None, noise: str | None
) -> None:
    for settings in ({}, {"tidy": True, "max_evaluations": 7, "exact_start": True}):
        expected, one, over = metered(problem, budget, 0, noise, **settings)
        for count in COUNTS:
            got, many, ended = metered(problem, budget, count, noise, **settings)
            assert same(got, expected) and ended == over
            assert (many.evaluations, many.architectures) == (one.evaluations, one.architectures)
            assert many.record is not None and one.record is not None
            assert many.record.state() == one.record.state()
    if budget is not None and budget.evaluations == 333:
        assert over and one.evaluations == 333


def test_nothing_is_begun_where_nothing_is_left(problem: BaseProblem) -> None:
    meter = Meter(Evaluator(problem), Budget(evaluations=3))
    meter.evaluations = 3
    with pytest.raises(SearchEnded):
        next(meter.evaluate_many(circuits(4), np.random.default_rng(0), workers=2))
    assert list(meter.evaluate_many([], np.random.default_rng(0), workers=2)) == []


def test_a_deadline_ends_a_metered_batch(problem: BaseProblem) -> None:
    """What is in work then is counted with the best angles it had, and nothing after it."""

    def endless() -> Iterator[Circuit]:
        while True:
            yield from circuits(40)[2:]

    meter = Meter(Evaluator(problem, load_noise("ibm-mumbai"), tolerance=1e-13), Budget(seconds=60))
    got: list[Evaluation] = []
    with stop_when(0.3), pytest.raises(SearchEnded):
        got.extend(meter.evaluate_many(endless(), np.random.default_rng(0), workers=2))
    assert meter.architectures == len(got) > 0
    assert meter.evaluations == sum(each.evaluations for each in got)


# ---------------------------------------------------------------------- searches
SEARCHES: list[dict[str, Any]] = [
    {"agent": "evolution", "steps": 30, "noise": "ibm-mumbai"},
    {"agent": "evolution", "evaluations": 3_000, "target": 2e-3},
    {"agent": "evolution", "problem": "h2-2", "steps": 60, "max_gates": 3},
    {"agent": "beam", "evaluations": 1201},
    {"agent": "random", "evaluations": 901},
]


@pytest.mark.parametrize("given", SEARCHES, ids=lambda given: "-".join(map(str, given.values())))
def test_a_search_finds_the_same_with_any_number_of_threads(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And goes on as the unbroken one from a checkpoint taken between results that are still to come."""
    settings = {"problem": "lih-4", "max_gates": 14, "seed": 1, "report": False} | given
    monkeypatch.setattr(evolution, "_WORTH_IT", 0)
    monkeypatch.setattr(workers, "cores", lambda: 1)
    whole = found(_search(settings, tmp_path / "one"))
    monkeypatch.setattr(workers, "cores", lambda: 3)
    assert found(_search(settings, tmp_path / "three")) == whole

    class Killed(BaseException):
        pass

    counted = Meter._counted

    def killing(self: Meter, *arguments: Any) -> Evaluation:
        result = counted(self, *arguments)
        if self.architectures == 25:
            raise Killed
        return result

    monkeypatch.setattr(Search, "checkpoint_every", 0.0)
    monkeypatch.setattr(Meter, "_counted", killing)
    with pytest.raises(Killed):
        _search(settings, tmp_path / "killed")
    monkeypatch.setattr(Meter, "_counted", counted)
    assert found(qas.agents.resume(tmp_path / "killed", report=False)) == whole


def _search(settings: dict[str, Any], out: Path) -> Any:
    arguments = dict(settings)
    return qas.search(arguments.pop("problem"), out=out, **arguments)
