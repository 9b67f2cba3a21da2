"""Agent adapt: its slopes and carried strings against dense matrices, its budget, resuming, and what it refuses."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.stats import ortho_group

import qas
from qas.adapters.problems import carried_string, matrix_problem, relative_program, tangent_strings
from qas.agents.growth.adapt import AdaptAgent
from qas.circuits import Circuit, Gate
from qas.errors import QasError
from qas.meter import Meter
from qas.problems.protocols import GrownByStrings
from qas.runs import Run

N = 8
EVALUATIONS = 600


@functools.cache
def target(kind: str = "orthogonal", size: int = N) -> Any:
    """A fit of a random rotation, or of a random matrix by a frame."""
    matrix = ortho_group.rvs(size, random_state=3) if kind == "orthogonal" else None
    if matrix is None:
        matrix = np.random.default_rng(3).normal(size=(2 * size, 3))
    return matrix_problem(matrix, angles=8, name=kind)


def run_adapt(out: Path, problem: Any = None, **settings: Any) -> Run:
    settings = {"evaluations": EVALUATIONS, "seed": 0, "report": False, "evaluator": {"max_evaluations": 30}} | settings
    if "steps" in settings:
        settings["evaluations"] = None
    return qas.search(problem or target(), agent="adapt", out=out, **settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_adapt(tmp_path_factory.mktemp("adapt") / "run")


# ---------------------------------------------------------------------- dense twins
PAULI = {
    (0, 0): np.eye(2),
    (1, 0): np.array([[0.0, 1], [1, 0]]),
    (0, 1): np.diag([1.0, -1]),
    (1, 1): np.array([[0.0, -1], [1, 0]]),  # X Z
}
ONE = {
    "x": PAULI[1, 0],
    "z": PAULI[0, 1],
    "h": np.array([[1.0, 1], [1, -1]]) / np.sqrt(2),
}


def string(x: int, z: int, n: int) -> np.ndarray:
    """X^x Z^z, qubit 0 rightmost."""
    return functools.reduce(np.kron, [PAULI[x >> q & 1, z >> q & 1] for q in reversed(range(n))])


def dense(gate: Gate, n: int) -> np.ndarray:
    """The matrix of a gate with real entries, from its action on basis states."""
    size = 1 << n
    if gate.name in ONE or gate.name == "ry":
        (q,) = gate.qubits
        small = ONE.get(gate.name)
        if small is None:
            c, s = np.cos(gate.angles[0] / 2), np.sin(gate.angles[0] / 2)
            small = np.array([[c, -s], [s, c]])
        return functools.reduce(np.kron, [small if p == q else np.eye(2) for p in reversed(range(n))])
    a, b = gate.qubits
    matrix = np.zeros((size, size))
    for i in range(size):
        first, second = i >> a & 1, i >> b & 1
        j = i ^ first << b if gate.name == "cx" else i
        if gate.name == "swap" and first != second:
            j = i ^ (1 << a | 1 << b)
        matrix[j, i] = -1.0 if gate.name == "cz" and first and second else 1.0
    return matrix


def matrix(gates: Any, n: int) -> np.ndarray:
    return functools.reduce(lambda found, gate: dense(gate, n) @ found, gates, np.eye(1 << n))


def random_circuit(n: int, length: int, rng: np.random.Generator, names: tuple[str, ...]) -> Circuit:
    gates = []
    for name in rng.choice(names, length):
        qubits = rng.permutation(n)[: 2 if name in ("cx", "cz", "swap") else 1].tolist()
        gates.append(Gate(str(name), tuple(qubits), (float(rng.uniform(-3, 3)),) if name == "ry" else ()))
    return Circuit(n, gates)


CLIFFORD = ("cx", "cz", "h", "swap", "x", "z")


def antisymmetric(n: int) -> list[tuple[int, int]]:
    return [(x, z) for x, z in itertools.product(range(1 << n), repeat=2) if (x & z).bit_count() % 2]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_carried_string_is_turned_by_one_more_ry(n: int) -> None:
    """S G RY(θ) with the skeleton S in front: behind it, the rotation by the string itself, up to a sign."""
    rng = np.random.default_rng(n)
    for x, z in antisymmetric(n):
        circuit = random_circuit(n, 12, rng, CLIFFORD)
        gates, qubit = carried_string(circuit, (x, z))
        assert len(gates) <= 3 * (n - 1) // 2 and all(g.name in ("cx", "cz") for g in gates)
        skeleton = matrix((*circuit.gates, *gates), n)
        turned = skeleton.T @ dense(Gate("ry", (qubit,), (0.7,)), n) @ skeleton
        # RY(θ) is exp(θ/2 XZ) in real numbers.
        wanted = [expm(sign * 0.35 * string(x, z, n)) for sign in (1, -1)]
        assert min(np.abs(turned - w).max() for w in wanted) < 1e-12


def test_a_carried_string_is_that_of_the_new_angle() -> None:
    """Rotations in between change nothing: the string is carried through the skeleton, where angles are zero."""
    rng = np.random.default_rng(9)
    for x, z in antisymmetric(3):
        circuit = random_circuit(3, 10, rng, (*CLIFFORD, "ry"))
        gates, qubit = carried_string(circuit, (x, z))
        grown = Circuit(3, (*circuit.gates, *gates, Gate("ry", (qubit,), (0.0,))))
        assert relative_program(grown).rotations[-1].string[1:3] == (x, z)


@pytest.mark.parametrize("kind", ["orthogonal", "frame"])
def test_slopes_are_the_derivatives_in_one_more_rotation(kind: str) -> None:
    """Against finite differences of appending exp(θ/2 A) to the dense matrix of the layer."""
    problem, rng = target(kind), np.random.default_rng(1)
    n = problem.n_qubits
    circuit = random_circuit(n, 14, rng, ("ry", "cx", "cz"))
    objective = problem.objective(circuit)
    slopes = objective.slopes(circuit.angles)
    skeleton = matrix(circuit.with_angles(np.zeros(circuit.n_angles)).gates, n)
    layer = skeleton.T @ matrix(circuit.gates, n)

    def value(found: np.ndarray) -> float:
        if kind == "orthogonal":
            return 1 - abs(np.trace(problem.matrix.T @ found)) / len(found)
        best = np.linalg.svd(problem.matrix, compute_uv=False)[:8]
        return 1 - float((problem.matrix.T @ found[:, :3]).__pow__(2).sum() / (best**2).sum())

    assert value(layer) == pytest.approx(objective(circuit.angles), abs=1e-12)
    step = 1e-5
    for x, z in itertools.product(range(1 << n), repeat=2):
        if (x & z).bit_count() % 2 == 0:
            assert slopes[x, z] == pytest.approx(0.0, abs=1e-12)
        elif rng.uniform() < 0.5:
            a = string(x, z, n)
            up, down = (value(expm(sign * step / 2 * a) @ layer) for sign in (1, -1))
            assert slopes[x, z] == pytest.approx((up - down) / (2 * step), abs=1e-8)


@pytest.mark.parametrize("kind", ["orthogonal", "frame"])
def test_the_slope_of_a_string_is_the_gradient_of_the_angle_that_carries_it(kind: str) -> None:
    problem, rng = target(kind), np.random.default_rng(2)
    n = problem.n_qubits
    circuit = random_circuit(n, 6, rng, ("ry", "cx", "cz"))
    slopes = problem.objective(circuit).slopes(circuit.angles)
    strings = antisymmetric(n)
    for x, z in (strings[i] for i in rng.choice(len(strings), 12, replace=False)):
        gates, qubit = carried_string(circuit, (x, z))
        grown = Circuit(n, (*circuit.gates, *gates, Gate("ry", (qubit,), (0.0,))))
        _, gradient = problem.objective(grown).value_and_gradient(np.array(grown.angles))
        assert abs(gradient[-1]) == pytest.approx(abs(slopes[x, z]), abs=1e-12)


# ---------------------------------------------------------------------- search
def test_the_first_round_takes_the_steepest_string_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Circuit, Circuit]] = []
    original = AdaptAgent._longer

    def watch(self: AdaptAgent, circuit: Circuit) -> list[Circuit]:
        grown = original(self, circuit)
        seen.append((circuit, grown[0]))
        return grown

    monkeypatch.setattr(AdaptAgent, "_longer", watch)
    run_adapt(tmp_path / "run", steps=6)
    monkeypatch.undo()
    for number, (before, after) in enumerate(seen):
        assert before.n_angles == number and after.gates[: len(before)] == before.gates
        slopes = np.abs(target().objective(before).slopes(np.array(before.angles)))
        x, z = relative_program(after).rotations[-1].string[1:3]
        assert slopes[x, z] == pytest.approx(slopes.max(), abs=1e-12) and slopes[x, z] > 1e-6


def test_every_step_lowers_the_error_until_the_circuit_is_full(finished: Run) -> None:
    history = finished.history()
    first = history["error"][:8]
    assert history["angles"][:8].tolist() == list(range(1, 9)) and (np.diff(first) < 0).all()
    assert history["angles"][8] == 1, "then anew"
    assert history["angles"].max() == 8
    assert finished.best.error == pytest.approx(history["error"].min(), rel=1e-4)
    assert finished.problem.energy(finished.best.circuit) == pytest.approx(finished.best.error, abs=1e-9)


def test_rounds_differ(finished: Run) -> None:
    history = finished.history()
    full = history["error"][history["angles"] == 8]
    assert len(full) > 2 and len(np.unique(full.round(6))) == len(full)


def test_slopes_count_as_one_evaluation_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slopes, others = [], []
    fit = type(target().objective(Circuit(3)))
    original, evaluate = fit.slopes, Meter.evaluate

    def count(self: Any, angles: np.ndarray) -> np.ndarray:
        slopes.append(1)
        return original(self, angles)

    def judged(self: Meter, *args: Any, **kwargs: Any) -> Any:
        found = evaluate(self, *args, **kwargs)
        others.append(found.evaluations)
        return found

    monkeypatch.setattr(fit, "slopes", count)
    monkeypatch.setattr(Meter, "evaluate", judged)
    run = run_adapt(tmp_path / "run", evaluations=300)
    assert run.evaluations == 300 == len(slopes) + sum(others)
    assert len(slopes) - len(others) in (0, 1)


def test_it_finds_what_strings_can_reach(tmp_path: Path) -> None:
    """A product of three rotations by strings, in any order the agent likes."""
    product = functools.reduce(
        np.matmul, [expm(t * string(x, z, 3)) for t, x, z in ((0.4, 7, 1), (0.3, 2, 3), (0.2, 4, 5))]
    )
    run = run_adapt(tmp_path / "run", matrix_problem(product, angles=6, name="product"), evaluations=800)
    assert run.best.error < 2e-3


def test_what_it_needs_of_a_problem_has_a_name() -> None:
    assert isinstance(target(), GrownByStrings) and target().has_slopes
    assert not isinstance(qas.load_problem("h2-2"), GrownByStrings)
    assert not qas.load_problem("adapter-8").has_slopes


# ---------------------------------------------------------------------- edges
@pytest.mark.parametrize("choices", [1, 4, 1000])
def test_targets_without_a_slope_end_all_the_same(choices: int, tmp_path: Path) -> None:
    """At a diagonal target all slopes vanish, those of symmetric strings, which no gate turns, like the others."""
    for name, diagonal in (("identity", [1.0, 1, 1, 1]), ("signs", [1.0, 1, 1, -1])):
        problem = matrix_problem(np.diag(diagonal), angles=2, name=name)
        run = run_adapt(tmp_path / name, problem, evaluations=200, options={"choices": choices})
        assert run.evaluations == 200
        assert run.best.error == pytest.approx(1 - sum(diagonal) / 4, abs=1e-9)


@pytest.mark.parametrize("gates", [4, 5, 9])
def test_short_circuits_end_at_a_budget_of_steps(gates: int, tmp_path: Path) -> None:
    run = run_adapt(tmp_path / "run", steps=12, max_gates=gates)
    assert run.architectures == 12 and run.history()["gates"].max() <= gates


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ("adapter-8", {}, "Hamiltonian, adapter-target FILE or adapter-gradient FILE, got adapter-8"),
    (None, {"options": {"pool": "qeb"}}, "pool is for problems with a Hamiltonian"),
    ("heisenberg-4", {"options": {"pool": "fermionic"}}, "excites electrons of a molecule, got heisenberg-4"),
    ("h2-4", {"options": {"pool": "ucc"}}, "unknown operator pool 'ucc'"),
    ("h2-4", {"options": {"rank": "size"}}, "unknown rank 'size'"),
    ("h2-4", {"options": {"start": "0111"}}, "electrons"),
    ("h2-4", {"options": {"start": "01"}}, "a determinant is 4 bits, one for each spin orbital"),
    ("heisenberg-4", {"options": {"start": "01a1"}}, "the start is 4 bits for heisenberg-4, got '01a1'"),
    ("h2-4", {"options": {"pool": "pauli"}}, "no operator of the pauli pool has a slope at the start"),
    ("h2-4", {"gates": ["x", "ry", "cx"]}, "the qeb pool needs the gates x, single_excitation, double_excitation"),
    ("h2-4", {"coupling": [(0, 1), (1, 2), (2, 3)]}, "no 4 qubits that are all coupled may carry double_excitation"),
    (None, {"gates": ["ry", "cx"]}, "needs the gates ry, cx and cz on all pairs"),
    (None, {"coupling": [(0, 1), (1, 2)]}, "on all pairs of qubits"),
    (None, {"options": {"choices": 0}}, "choices is a whole number of at least 1, got 0"),
    (None, {"options": {"choices": 1.5}}, "choices of the agent adapt must be int"),
    (None, {"options": {"width": 2}}, "width"),
    (None, {"max_gates": 3}, "at least 4 gates on 3 qubits"),
    (None, {"noise": "ibm-mumbai"}, "takes no noise"),
]


@pytest.mark.parametrize(("problem", "settings", "words"), REFUSED, ids=[f"{r[0]}-{r[2][:14]}" for r in REFUSED])
def test_what_it_cannot_do_is_refused_in_one_line(
    problem: Any, settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(QasError, match=words) as caught:
        run_adapt(tmp_path / "run", problem, **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_found_circuit_tunes_a_layer(finished: Run) -> None:
    from qas.adapters.circuit import RotationAdapter

    adapter = RotationAdapter(N, N, finished)
    assert len(adapter.angles) == finished.best.circuit.n_angles


def test_of_a_gradient_the_first_round_turns_the_strings_that_carry_most(tmp_path: Path) -> None:
    matrix = np.random.default_rng(31).normal(size=(8, 8))
    problem = matrix_problem(matrix, goal="gradient", angles=7)
    run = qas.search(problem, agent="adapt", steps=7, out=tmp_path / "run", report=False)
    assert run.best.error == pytest.approx(0.0, abs=1e-12)
    assert run.best.circuit.n_angles == 7 and len(set(tangent_strings(run.best.circuit))) == 7
