"""Shrinking and its rewriting rules: equal states, fewer gates, and an accuracy that is held."""

from __future__ import annotations

import json
import math
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit, qasm3
from qiskit.circuit.library import efficient_su2

import qas
from qas.circuits import Circuit, Gate
from qas.cli import main
from qas.errors import CircuitError, QasError
from qas.gates import EXCITATIONS, GATES, SEARCH_GATES
from qas.meter import Budget, Meter, SearchEnded
from qas.publishing import publish
from qas.rewriting import compress, native, peephole, resynthesize
from qas.shrinking import Shrinker, lowered, shrinking
from qas.simulators.interrupt import current, stop_when
from qas.testing import random_circuit
from qas.vqe import Evaluation, Evaluator

ROOT = Path(__file__).resolve().parents[2]
ROTATIONS = ("rx", "ry", "rz")


def overlap(a: Circuit, b: Circuit) -> float:
    """|⟨a|b⟩| of the two states, by dense matrices."""
    return float(abs(np.vdot(a.to_matrix()[:, 0], b.to_matrix()[:, 0])))


def inverse(circuit: Circuit) -> Circuit:
    """Of a circuit of rotations and CX."""
    gates = [Gate(g.name, g.qubits, tuple(-a for a in g.angles)) for g in reversed(circuit.gates)]
    return Circuit(circuit.n_qubits, gates)


def size(circuit: Circuit) -> tuple[int, int]:
    return circuit.two_qubit_gates, len(circuit)


# ---------------------------------------------------------------------- rules
@pytest.mark.parametrize("name", [*GATES, *EXCITATIONS])
def test_native_gates_make_the_same_states(name: str) -> None:
    """After gates that bring every basis state in; on qubits in descending order."""
    rng = np.random.default_rng(0)
    spec = GATES.get(name) or EXCITATIONS[name]
    start = random_circuit(4, 20, rng, gates=SEARCH_GATES)
    gate = Gate(name, tuple(range(3, 3 - spec.n_qubits, -1)), tuple(rng.normal(size=spec.n_angles).tolist()))
    circuit = Circuit(4, [*start, gate])
    lowered = native(circuit)
    assert set(lowered.counts) <= set(SEARCH_GATES)
    assert overlap(circuit, lowered) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("clifford", [False, True])
def test_rewriting_keeps_the_state_and_makes_nothing_larger(clifford: bool) -> None:
    """Random circuits; with multiples of π/2 many more rules apply."""
    rng = np.random.default_rng(1)
    shorter = 0
    for _ in range(40):
        n_qubits = int(rng.integers(1, 5))
        gates = SEARCH_GATES if n_qubits > 1 else ROTATIONS
        circuit = random_circuit(n_qubits, int(rng.integers(0, 40)), rng, gates=gates)
        if clifford:
            circuit = circuit.with_angles(rng.integers(0, 4, circuit.n_angles) * math.pi / 2)
        for rule in (peephole, resynthesize, compress):
            found = rule(circuit)
            assert overlap(circuit, found) == pytest.approx(1.0, abs=1e-10)
            assert found.two_qubit_gates <= circuit.two_qubit_gates
            assert rule is resynthesize or size(found) <= size(circuit)
            shorter += found.two_qubit_gates < circuit.two_qubit_gates
    assert shorter > 20


def test_gates_meet_across_others_that_they_commute_with() -> None:
    rng = np.random.default_rng(2)
    spread = random_circuit(3, 12, rng, gates=ROTATIONS)  # so that nothing is known to be in |0⟩
    pair = [("cx", (0, 1)), ("rz", 0, 0.3), ("cx", (0, 2)), ("rx", 1, 0.2), ("cx", (2, 1)), ("cx", (0, 1))]
    found = peephole(Circuit(3, [*spread, *pair]))
    assert found.count("cx") == 2, "the outer two go"
    wrap = [("cx", (0, 1)), ("cx", (1, 2)), ("rz", 0, 0.4), ("cx", (0, 1))]
    assert peephole(Circuit(3, [*spread, *wrap])).count("cx") == 2, "a wrapped CX is two"
    wrap = [("cx", (0, 1)), ("cx", (2, 0)), ("cx", (0, 1))]
    assert peephole(Circuit(3, [*spread, *wrap])).count("cx") == 2


def test_blocks_on_two_qubits_take_three_cx_and_states_of_two_qubits_one() -> None:
    rng = np.random.default_rng(3)
    block = random_circuit(2, 60, rng, gates=SEARCH_GATES)
    assert block.count("cx") > 3
    assert compress(block).count("cx") == 1
    before = Circuit(3, [*random_circuit(3, 30, rng, gates=SEARCH_GATES), ("cx", (0, 2)), ("cx", (1, 2))])
    assert resynthesize(Circuit(3, [*before, *block])).count("cx") <= before.count("cx") + 3


def test_a_circuit_and_its_inverse_are_nothing() -> None:
    rng = np.random.default_rng(4)
    circuit = random_circuit(5, 60, rng, gates=SEARCH_GATES)
    assert len(compress(Circuit(5, [*circuit, *inverse(circuit)]))) == 0


# ---------------------------------------------------------------------- shrinking
def test_a_redundant_circuit_shrinks_to_the_ansatz_in_it() -> None:
    """Every state of two qubits takes one CX, here with noise gates before it and behind that cancel."""
    rng = np.random.default_rng(5)
    noise = random_circuit(2, 30, rng, gates=SEARCH_GATES)
    ansatz = random_circuit(2, 12, rng, gates=SEARCH_GATES)
    found = qas.shrink(Circuit(2, [*noise, *inverse(noise), *ansatz]), "h2-2", tolerance=1e-6)
    assert found.finished and size(found.best.circuit)[0] == 1
    assert found.best.gates <= 4
    assert found.best.error <= 1e-6


@pytest.fixture(scope="module")
def layered() -> Circuit:
    """LiH on four qubits by a circuit of Qiskit's library, read back from its OpenQASM 3."""
    ansatz = efficient_su2(4, reps=3, entanglement="circular").decompose()
    angles = np.random.default_rng(6).normal(scale=0.5, size=ansatz.num_parameters)
    return Circuit.from_qasm(qasm3.dumps(ansatz.assign_parameters(angles)))


def test_accuracy_is_held_and_nothing_grows(layered: Circuit) -> None:
    """Each circuit on the way, judged anew by dense matrices; the end has few CX."""
    problem = qas.load_problem("lih-4")
    matrix = problem.hamiltonian.to_matrix()
    accepted: list[Evaluation] = []
    found = qas.shrink(layered, problem, tolerance=1.6e-3, on_accept=accepted.append)
    assert found.finished and len(accepted) > 5
    for step in accepted:
        state = step.circuit.to_matrix()[:, 0]
        energy = float(np.vdot(state, matrix @ state).real)
        assert energy == pytest.approx(step.energy, abs=1e-9)
        assert energy - problem.exact <= 1.6e-3
        assert set(step.circuit.counts) <= set(SEARCH_GATES)
    counts = [step.circuit.two_qubit_gates for step in accepted]
    assert counts == sorted(counts, reverse=True) and counts[0] <= layered.two_qubit_gates
    assert found.best.two_qubit_gates == counts[-1] <= 5, "the best that is known has four"
    errors = [result.error for result in found.front]
    assert errors == sorted(errors, reverse=True), "more CX only where they bring something"
    again = qas.shrink(layered, problem, tolerance=1.6e-3)
    assert again.best.circuit == found.best.circuit and again.evaluations == found.evaluations


def test_excitations_are_lowered_and_shrunk() -> None:
    """A double excitation of a determinant needs no more than 3 CX from the start."""
    problem = qas.load_problem("h2-4")
    start = problem.reference_circuit
    occupied = [gate.qubits[0] for gate in start]
    virtual = [q for q in range(4) if q not in occupied]
    circuit = Circuit(4, [*start, ("double_excitation", (*occupied, *virtual), 0.1)])
    found = qas.shrink(circuit, problem, tolerance=1e-6)
    assert found.start.circuit.two_qubit_gates <= 3
    assert found.best.two_qubit_gates <= 3 and found.best.error <= 1e-6


@pytest.mark.parametrize("circuit", [Circuit(1), Circuit(1, [("ry", 0, 3.0)]), Circuit(1, [("h", 0)])])
def test_one_qubit_and_no_gates(circuit: Circuit) -> None:
    problem = qas.problem({"Z": -1.0}, exact=-1.0)
    found = qas.shrink(circuit, problem, tolerance=2.5)
    assert found.finished and found.best.gates == 0


def test_moves_find_what_deletions_alone_do_not() -> None:
    """From the circuit at which deletions alone end."""
    rng = np.random.default_rng(0)
    layer = [(name, q) for name in ("ry", "rz") for q in range(4)]
    ring = [("cx", (q, (q + 1) % 4)) for q in range(4)]
    gates = [g for _ in range(4) for g in (*((n, q, float(rng.normal())) for n, q in layer), *ring)]
    alone = qas.shrink(Circuit(4, gates), "lih-4")
    moved = qas.shrink(alone.best.circuit, "lih-4", moves=10)
    assert moved.finished and moved.best.two_qubit_gates < alone.best.two_qubit_gates
    assert moved.best.error <= qas.load_problem("lih-4").threshold


def test_a_budget_keeps_the_best_so_far(layered: Circuit) -> None:
    problem = qas.load_problem("lih-4")
    found = qas.shrink(layered, problem, tolerance=1.6e-3, evaluations=2500)
    assert not found.finished and found.evaluations <= 2500
    assert found.best.two_qubit_gates <= layered.two_qubit_gates and found.best.error <= 1.6e-3
    meter = Meter(Evaluator(problem), Budget(evaluations=2500))
    with pytest.raises(SearchEnded):
        list(shrinking(layered, meter, 1.6e-3, np.random.default_rng(0)))
    assert meter.evaluations <= 2500


def test_a_shrinker_goes_on_from_its_state(layered: Circuit) -> None:
    """From every pause, through JSON: the same circuits follow, for the same evaluations."""
    rng = np.random.default_rng(0)
    meter = Meter(Evaluator(qas.load_problem("lih-4"), start_noise=0.0))
    start = lowered(layered, meter, 1.6e-3, rng)
    pauses: list[tuple[str, dict[str, Any], int, int]] = []
    ends: list[Circuit] = []

    def pause() -> None:
        pauses.append((json.dumps(shrinker.state()), rng.bit_generator.state, meter.evaluations, len(ends)))

    shrinker = Shrinker(start, meter, 1.6e-3, rng, moves=2, pause=pause)
    for found in shrinker.run():
        ends.append(found.circuit)
    assert {json.loads(state)["part"] for state, *_ in pauses} >= {0, 1, 8, 9, 10, 11}
    total = meter.evaluations
    for state, drawn, spent, passed in pauses[len(pauses) // 8 :: max(1, len(pauses) // 4)]:
        rng = np.random.default_rng()
        rng.bit_generator.state = drawn
        again = Shrinker(start, Meter(meter.evaluator), 1.6e-3, rng)
        again.restore(json.loads(state))
        assert [found.circuit for found in again.run()] == ends[passed:]
        assert again.meter.evaluations == total - spent


@pytest.mark.parametrize("after", [3, 40, 150])
def test_a_deadline_ends_it_wherever_it_comes(layered: Circuit, after: int) -> None:
    """No architecture is begun after it, whatever is being done."""
    meter = Meter(Evaluator(qas.load_problem("lih-4"), start_noise=0.0))
    counted = meter._counted

    def watched(*arguments: Any) -> Evaluation:
        found = counted(*arguments)
        if meter.architectures == after:
            current().request("deadline")
        return found

    meter._counted = watched  # type: ignore[method-assign]
    with stop_when(), pytest.raises(SearchEnded):
        list(shrinking(layered, meter, 1.6e-3, np.random.default_rng(0), moves=5))
    assert meter.architectures == after


def test_ctrl_c_keeps_the_best_so_far(layered: Circuit) -> None:
    accepted: list[Evaluation] = []

    def press(found: Evaluation) -> None:
        accepted.append(found)
        if len(accepted) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    found = qas.shrink(layered, "lih-4", tolerance=1.6e-3, on_accept=press)
    assert found.interrupted and not found.finished and 4 <= len(accepted) <= 5
    assert found.best.two_qubit_gates == accepted[-1].circuit.two_qubit_gates
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the program hears it again"


def test_what_cannot_be_shrunk_is_refused(layered: Circuit) -> None:
    with pytest.raises(QasError, match="misses the tolerance to begin with"):
        qas.shrink(Circuit(4), "lih-4", tolerance=1e-4)
    with pytest.raises(CircuitError, match="has 30 qubits, but problem lih-4 needs 4"):
        qas.shrink(Circuit(30), "lih-4")
    with pytest.raises(QasError, match="tolerance"):
        qas.shrink(layered, "lih-4", tolerance=0.0)
    with pytest.raises(QasError, match="give a larger one"):
        qas.shrink(layered, "lih-4", tolerance=1e-3, evaluations=3)
    with pytest.raises(QasError, match="give a larger one"):
        qas.shrink(layered, "lih-4", tolerance=1e-3, seconds=1e-6)


# ---------------------------------------------------------------------- command line and referee
REFEREE = ROOT / "scripts" / "referee.py"


def referee(capsys: pytest.CaptureFixture[str], *folders: Path) -> tuple[int, str, str]:
    """Exit code and what is printed, without the start of a process."""
    code: int = runpy.run_path(str(REFEREE))["main"](list(map(str, folders)))
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def published(layered: Circuit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shrunk")
    (folder / "circuit.qasm").write_text(layered.to_qasm())
    words = ["shrink", str(folder / "circuit.qasm"), "--problem", "lih-4", "--quiet", "-o", str(folder / "front")]
    assert main(words) == 0
    return folder / "front"


def test_the_referee_confirms_what_was_written(published: Path) -> None:
    told = subprocess.run([sys.executable, REFEREE, published], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    rows = json.loads((published / "front.json").read_text())["circuits"]
    assert "all claims are true" in told.stdout and all(row["file"] in told.stdout for row in rows)
    text = (published / rows[0]["file"]).read_text()
    circuit = qasm3.loads(text)
    assert min(row["gates"] for row in rows if row["cnots"] == rows[0]["cnots"]) == rows[0]["gates"]
    assert circuit.count_ops()["cx"] == rows[0]["cnots"]
    assert Circuit.from_qasm(text).two_qubit_gates == rows[0]["cnots"]


def test_the_referee_tells_false_claims_and_unreadable_folders(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    front = json.loads((published / "front.json").read_text())
    for name in ("energy", "error", "cnots", "cnot_depth", "parameters", "gates", "exact"):
        folder = tmp_path / name
        folder.mkdir()
        for path in published.iterdir():
            (folder / path.name).write_text(path.read_text())
        changed = json.loads(json.dumps(front))
        place = changed if name == "exact" else changed["circuits"][-1]
        place[name] -= 1e-6 if isinstance(place[name], float) else 1
        (folder / "front.json").write_text(json.dumps(changed))
        folders.append(folder)
    code, out, _ = referee(capsys, published, *folders)
    assert code == 1 and out.count("FALSE") == len(folders)
    assert all(f"FALSE: {name.replace('exact', 'exact energy')} " in out for name in (f.name for f in folders))
    measured = folders[0] / front["circuits"][0]["file"]
    measured.write_text(measured.read_text() + "bit c;\nc = measure q[0];\n")
    code, _, err = referee(capsys, folders[0])
    assert code == 2 and "gates alone is needed, got measure" in err
    measured.unlink()
    code, _, err = referee(capsys, folders[0])
    assert code == 2 and len(err.splitlines()) == 1


def test_publishing_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QasError, match="at least one circuit"):
        publish([], qas.load_problem("h2-2"), tmp_path / "front")
    assert not (tmp_path / "front").exists()


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["missing.qasm", "--problem", "lih-4"], "does not exist"),
        (["missing"], "no such run"),
        (["here.qasm"], "add --problem"),
        (["here.qasm", "--problem", "lih-4"], "30 qubits"),
        (["here.qasm", "--problem", "lih-4", "--tolerance", "no"], "positive number"),
    ],
)
def test_bad_words_end_in_one_line(
    words: list[str], rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.qasm").write_text(qasm3.dumps(QuantumCircuit(30)))
    assert main(["shrink", *words]) == 2
    told = capsys.readouterr()
    assert not told.out and len(told.err.splitlines()) == 1 and rule in told.err
