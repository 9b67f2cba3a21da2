"""A problem that is no Hamiltonian goes through environment, agents, runs, reports and command line like any other."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import qas
from qas.agents.launch import resume
from qas.circuits import Circuit
from qas.cli import main
from qas.encoders import CircuitSpace
from qas.encoders.pools.pool import build_pool
from qas.encoders.pools.screens import screen
from qas.envs import MovingThreshold, load_curriculum
from qas.envs.builder import CircuitBuilderEnv
from qas.errors import CircuitError, QasError, TooLargeError, UnknownNameError
from qas.files import check_versioned, versioned
from qas.optimizers import minimize
from qas.page import product_state
from qas.problems import PROBLEMS, BaseProblem, Family, Problem, list_problems, load_problem, problem_from_json
from qas.proxies import landscape_fluctuation
from qas.runs import Run, load_run
from qas.scores import load_score
from qas.simulators import BaseObjective, Simulator
from qas.testing import ProblemContract
from qas.vqe import Evaluator

Capture = pytest.CaptureFixture[str]
Matrix = tuple[tuple[float, ...], ...]
FORMAT = "qas-test-alignment"


class AlignmentObjective(BaseObjective):
    """``1 - |Tr(Rᵀ Q)| / N`` with Q the matrix of the circuit, which is linear in the matrix of each RY."""

    def __init__(self, circuit: Circuit, target: np.ndarray) -> None:
        super().__init__(circuit)
        self.target = target

    def _overlap(self, angles: np.ndarray) -> float:
        matrix = self.circuit.with_angles(angles).to_matrix()
        assert np.abs(matrix.imag).max() < 1e-12
        return float(np.sum(self.target * matrix.real)) / len(self.target)

    def _value(self, angles: np.ndarray) -> float:
        return 1.0 - abs(self._overlap(angles))

    def _value_and_gradient(self, angles: np.ndarray) -> tuple[float, np.ndarray]:
        overlap = self._overlap(angles)
        # d RY(θ)/dθ = RY(θ + π) / 2
        slopes = [self._overlap(np.asarray(angles) + np.pi * unit) / 2 for unit in np.eye(self.n_angles)]
        return 1.0 - abs(overlap), -np.sign(overlap) * np.array(slopes)


@dataclass(frozen=True)
class Alignment(BaseProblem):
    """How well the orthogonal matrix of a circuit fits a target, up to its sign."""

    name: str
    target: Matrix
    unit: str = ""
    threshold: float | None = 0.01
    description: str = "fit of an orthogonal matrix"
    provenance: dict[str, Any] = field(default_factory=dict, hash=False)

    lower_bound = 0.0
    mixed_energy = 1.0
    spread = 1.0
    exact = 0.0

    @property
    def n_qubits(self) -> int:
        return len(self.target).bit_length() - 1

    @property
    def summary(self) -> str:
        return f"target of {len(self.target)} rows"

    @property
    def search_gates(self) -> tuple[str, ...]:
        return ("ry", "cx")

    @property
    def max_gates(self) -> int:
        return 7

    def objective(self, circuit: Circuit, simulator: Simulator | None = None) -> AlignmentObjective:
        foreign = set(circuit.counts) - set(self.search_gates)
        if circuit.n_qubits != self.n_qubits:
            raise CircuitError(f"{self.name} is about circuits of {self.n_qubits} qubits, got {circuit.n_qubits}")
        if foreign:
            raise CircuitError(f"an orthogonal matrix is made of ry and cx, got {min(foreign)}")
        return AlignmentObjective(circuit, np.array(self.target))

    def to_json(self) -> dict[str, Any]:
        data = {"name": self.name, "threshold": self.threshold, "target": [list(row) for row in self.target]}
        return versioned(FORMAT, 1, data)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Alignment:
        check_versioned(data, FORMAT, 1, "an alignment")
        return cls(data["name"], tuple(tuple(row) for row in data["target"]), threshold=data["threshold"])


class Alignments(Family):
    pattern = "alignment-N"
    about = "fit of an orthogonal matrix on N qubits"
    small = ("alignment-2",)
    formats: ClassVar = {FORMAT: Alignment}

    def load(self, member: str) -> Alignment:
        if member != "2":
            raise self.wrong(member)
        return made()


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PROBLEMS, "_things", dict(PROBLEMS._things))
    PROBLEMS.register("alignment", Alignments)


def made(name: str = "alignment-2") -> Alignment:
    circuit = Circuit(2, [("cx", (0, 1)), ("ry", 0, 0.7), ("ry", 1, -1.1), ("cx", (1, 0)), ("ry", 0, 2.0)])
    return Alignment(name, tuple(tuple(row) for row in circuit.to_matrix().real.tolist()))


def fails(capsys: Capture, *words: str) -> str:
    """The error line of a command that must fail as input does."""
    capsys.readouterr()
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("qas: error: ") and err.count("\n") == 1
    return err


# ---------------------------------------------------------------------- the problem itself
class TestAlignment(ProblemContract):
    name = "alignment-2"


def test_common_fields_are_checked() -> None:
    target = made().target
    for change, words in (
        ({"name": "a b"}, "a problem name"),
        ({"unit": 3}, "the unit"),
        ({"description": None}, "the description"),
        ({"threshold": 0.0}, "above 0"),
        ({"threshold": None}, "finite number"),
        ({"provenance": {"a": object()}}, "JSON-able"),
    ):
        with pytest.raises(QasError, match=words):
            Alignment(**({"name": "fit", "target": target} | change))  # type: ignore[arg-type]


def test_what_a_problem_may_lack() -> None:
    problem = made()
    assert problem.product_state is None and problem.basis_state is None and product_state(problem) is None
    assert problem.simulator() is None
    assert problem.error(0.25) == 0.25 and problem.solved(0.005) and not problem.solved(0.02)


def test_optimizers_take_its_objective() -> None:
    problem = made()
    circuit = Circuit(2, [("cx", (0, 1)), ("ry", 0, 0.6), ("ry", 1, -1.0), ("cx", (1, 0)), ("ry", 0, 1.9)])
    for method in ("l-bfgs", "adam", "cobyla"):
        found = minimize(problem.objective(circuit), circuit.angles, method=method, rng=0, tolerance=1e-12)
        assert found.fun == pytest.approx(0.0, abs=1e-6)


def test_gates_that_do_nothing_to_the_state_stay() -> None:
    circuit = Circuit(2, [("cx", (0, 1)), ("ry", 0, 0.3), ("ry", 0, -0.3)])
    assert len(made().simplify(circuit)) == 1
    assert len(load_problem("h2-2").simplify(circuit)) == 0
    tilted = Circuit(2, [("ry", 0, 1e-5)])
    assert len(made().simplify(tilted)) == 1 and len(made().simplify(tilted, 1e-4)) == 0


def test_formats_are_told_apart() -> None:
    assert problem_from_json(json.loads(json.dumps(made().to_json()))) == made()
    assert problem_from_json(load_problem("h2-2").to_json()) == load_problem("h2-2")
    for data in (None, {}, {"format": "other"}, {"format": ["x"]}):
        with pytest.raises(QasError, match="a problem file is a JSON object of format 'qas-problem'"):
            problem_from_json(data)


def test_hooks_of_a_hamiltonian() -> None:
    problem = qas.problem({"II": 1.5, "ZZ": -1.0, "XI": 0.25, "IX": -0.25}, name="small")
    assert isinstance(problem, Problem) and isinstance(problem, BaseProblem)
    assert (problem.lower_bound, problem.mixed_energy, problem.spread) == (0.0, 1.5, 3.0)
    assert problem.summary == "4 Pauli terms" and problem.search_gates == ("rx", "ry", "rz", "cx")
    assert problem.max_gates == 40 and load_problem("tfim-5").max_gates == 70
    circuit = Circuit(2, [("ry", 0, 0.3), ("cx", (0, 1))])
    simulator = problem.simulator()
    assert problem.energy(circuit) == simulator.expectation(circuit, problem.hamiltonian)
    assert problem.energy(circuit, problem.simulator(engine="aer")) == pytest.approx(problem.energy(circuit))
    with pytest.raises(UnknownNameError, match="statevector"):
        problem.simulator(engine="state")
    with pytest.raises(TooLargeError):
        load_problem("tfim-14").simulator(qas.load_noise("ibm-mumbai"))


# ---------------------------------------------------------------------- environment
def test_environment() -> None:
    from gymnasium.utils.env_checker import check_env

    env = CircuitBuilderEnv("alignment-2", max_gates=6)
    assert env.actions.gates == ("ry", "cx")
    check_env(env, skip_render_check=True)
    rng = np.random.default_rng(0)
    for _ in range(5):
        env.reset(seed=int(rng.integers(100)))
        done = False
        while not done:
            action = rng.choice(np.flatnonzero(env.action_masks()))
            observation, _, terminated, truncated, info = env.step(action)
            assert observation in env.observation_space
            assert info["energy"] == pytest.approx(made().energy(info["circuit"]), abs=1e-12)
            done = terminated or truncated


def test_curricula() -> None:
    moving = load_curriculum("moving", made())
    assert isinstance(moving, MovingThreshold)
    assert moving.target == 0.0 and moving.threshold == pytest.approx(0.03) and moving.success_switch > 1.0
    assert load_curriculum("moving-lower-bound", made()).threshold == 1.0


# ---------------------------------------------------------------------- searches
OPTIONS: dict[str, dict[str, Any]] = {
    "ddqn": {"hidden": [16], "batch_size": 8, "learn_after": 10, "target_every": 5, "memory": 60},
    "evolution": {"population": 3},
    "random": {},
}
EVALUATIONS = 200


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """agent -> a finished run with its report; made once."""

    @functools.cache
    def make(agent: str) -> Run:
        given = {"options": OPTIONS[agent], "evaluations": EVALUATIONS, "report": agent == "evolution"}
        return qas.search(made(), agent=agent, out=tmp_path_factory.mktemp("runs") / agent, **given)

    return make


@pytest.mark.parametrize("agent", OPTIONS)
def test_agents(agent: str, finished: Any) -> None:
    run = finished(agent)
    assert run.problem == made() and run.evaluations == EVALUATIONS
    assert run.config["gates"] == ["ry", "cx"] and run.config["max_gates"] == 7
    assert run.history()["gates"].max() <= 7
    for result in run.front:
        assert result.energy == result.error == result.noise_free_energy
        assert made().energy(result.circuit) == pytest.approx(result.energy, abs=1e-9)
    if agent == "evolution":
        page = (run.path / "report.html").read_text()
        assert "target of 4 rows" in page and "product state" not in page


@pytest.mark.parametrize("agent", OPTIONS)
def test_a_run_goes_on(agent: str, finished: Any, tmp_path: Path) -> None:
    def settings(out: str, evaluations: int) -> dict[str, Any]:
        return {"agent": agent, "options": OPTIONS[agent], "out": tmp_path / out, "evaluations": evaluations}

    qas.search(made(), **settings("broken", 90), report=False)
    again = resume(tmp_path / "broken", evaluations=EVALUATIONS, report=False)
    whole = finished(agent)
    assert again.evaluations == EVALUATIONS
    assert [r.circuit.to_list() for r in again.front] == [r.circuit.to_list() for r in whole.front]


def test_evolution_finds_the_target(tmp_path: Path) -> None:
    run = qas.search(made(), agent="evolution", evaluations=6000, target=1e-6, out=tmp_path / "run", report=False)
    assert run.best.error <= 1e-6


def test_agents_of_pools(encoders: Path, tmp_path: Path) -> None:
    settings = {"gates": ["ry", "cx"], "options": {"pool_size": 60}, "steps": 40, "report": False}
    run = qas.search("alignment-2", agent="knn", out=tmp_path / "run", **settings)
    assert run.architectures == 40
    for result in run.front:
        assert made().energy(result.circuit) == pytest.approx(result.energy, abs=1e-9)


# ---------------------------------------------------------------------- what it refuses
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"noise": "ibm-mumbai"}, "got noise"),
        ({"evaluator": {"engine": "aer"}}, "got engine"),
        ({"evaluator": {"shots": 10, "optimizer": "spsa"}}, "got shots"),
        ({"noise": "ibm-mumbai", "evaluator": {"engine": "aer"}}, "got noise and engine"),
        ({"gates": ["rx", "cx"]}, "made of ry and cx, got rx"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(QasError, match=words) as caught:
        qas.search(made(), agent="random", steps=3, out=tmp_path / "run", **settings)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_an_evaluator_refuses_them_too() -> None:
    with pytest.raises(QasError, match="judged without a simulator and takes no noise, engine or shots, got shots"):
        Evaluator(made(), shots=10)


def test_what_needs_a_hamiltonian_says_so(tmp_path: Path) -> None:
    space = CircuitSpace(2, ("ry", "cx"), max_gates=4, max_depth=0)
    rng = np.random.default_rng(0)
    rows = space.sample(5, rng)
    needs = "needs a problem with a Hamiltonian, got alignment-2"
    with pytest.raises(QasError, match=needs):
        landscape_fluctuation(Circuit(2, [("ry", 0, 0.3)]), made(), rng)
    with pytest.raises(QasError, match=needs):
        screen("fluctuation", rows, space, made(), rng, 0.5)
    for score in ("published", "entanglement"):
        with pytest.raises(QasError, match=needs):
            load_score(score, made())
    with pytest.raises(QasError, match=needs):
        build_pool(tmp_path / "pool", space, 5, tasks=[made()])
    assert not (tmp_path / "pool").exists()


# ---------------------------------------------------------------------- command line
def test_inspect(capsys: Capture, finished: Any) -> None:
    run = finished("evolution")
    assert main(["inspect", str(run.path)]) == 0
    text = capsys.readouterr().out
    assert "fit of an orthogonal matrix" in text and "front" in text
    assert "product state" not in text and "--engine" not in text
    assert main(["inspect", str(run.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["problem"] == "alignment-2" and told["product_state"] is None and told["exact"] == 0.0
    assert main(["inspect", str(run.path), "--front"]) == 0
    assert main(["inspect", str(run.path), "--qasm"]) == 0


def test_evaluate(capsys: Capture, finished: Any) -> None:
    run = finished("evolution")
    report = qas.evaluate(run.best.circuit, run.problem)
    assert report.energy == report.noise_free_energy == pytest.approx(run.best.energy, abs=1e-9)
    assert report.engine is None and report.product_state is None and report.noise is None
    capsys.readouterr()
    assert main(["evaluate", str(run.path)]) == 0
    text = capsys.readouterr().out
    assert f"{run.best.energy:.8f}" in text and "alignment-2, exact" in text and "engine" not in text
    assert main(["evaluate", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["engine"] is None
    for words, given in (("--noise ibm-mumbai", "noise"), ("--shots 10", "shots"), ("--engine aer", "engine")):
        assert f"got {given}" in fails(capsys, "evaluate", str(run.path), *words.split())


def test_continue_on_the_command_line(capsys: Capture, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    qas.search(made(), agent="random", steps=5, out=folder, report=False)
    assert main(["search", "--resume", str(folder), "--steps", "9", "--quiet", "--no-report"]) == 0
    assert load_run(folder).architectures == 9 and "alignment-2" in capsys.readouterr().out


def test_a_problem_with_a_file(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "My dW.npy"
    np.save(path, np.random.default_rng(0).normal(size=(4, 4)))
    words = ["--agent", "random", "--steps", "3", "--quiet", "--no-report", "--out"]
    assert main(["search", "adapter-gradient", str(path), *words, str(tmp_path / "run")]) == 0
    assert "adapter-gradient-My-dW" in capsys.readouterr().out
    assert load_problem(f" Adapter-Gradient  {path} ") == load_run(tmp_path / "run").problem


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("search adapter-target --agent random", "adapter-target needs FILE behind its name"),
        ("search h2-2 dW.npy", "the problem file is missing: h2-2 dW.npy"),
        ("search adapter-gradient a.npy b.npy", "unexpected argument 'b.npy'"),
        ("search adapter-target dW.npy --resume somewhere", "leave out PROBLEM"),
    ],
)
def test_wrong_files(capsys: Capture, words: str, message: str) -> None:
    assert message in fails(capsys, *words.split())


def test_families_with_a_file_are_listed(capsys: Capture) -> None:
    assert {"adapter-N", "adapter-target FILE", "adapter-gradient FILE"} < set(list_problems())
    assert main(["problems"]) == 0
    assert "adapter-target FILE" in capsys.readouterr().out
