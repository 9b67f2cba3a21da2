"""The atlas: what joins it and what does not, its files, the check by Qiskit, how runs stand to it."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qas
from qas.best_known import compare, fingerprint, known_problems, tolerance
from qas.best_known.comparison import Comparison
from qas.best_known.exports import export
from qas.best_known.fronts import FOLDER, all_fronts, read_front
from qas.best_known.gathering import candidates, join, named, of_run, submission
from qas.best_known.published import Published, published
from qas.best_known.records import Header, KnownCircuit, best_of, read_records, write_records
from qas.best_known.verification import Referee, verify
from qas.circuits import Circuit
from qas.cli import main
from qas.errors import QasError, RunError
from qas.problems import OperatorProblem, Problem
from qas.publishing import publish

EXACT = Circuit(2, [("ry", 0, 0.3), ("rx", 1, math.pi), ("cx", (0, 1))])
"""Two gates of angles too many to be anything but a test."""


def known(two: int, error: float, gates: int = 9, angles: int = 5, who: str = "") -> KnownCircuit:
    return KnownCircuit(two, gates, gates, angles, error, error - 1.0, {"agent": who}, "")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> qas.Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return qas.search("h2-2", evaluations=400, seed=1, out=folder, report=False)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of records in the place of the package's."""
    folder = tmp_path / "records"
    folder.mkdir()
    for place in ("fronts", "gathering"):
        monkeypatch.setattr(f"qas.best_known.{place}.FOLDER", folder)
    for function in ("_files", "all_fronts"):
        monkeypatch.setattr(f"qas.best_known.fronts.{function}.__defaults__", (folder,))
    monkeypatch.setattr(join, "__defaults__", (folder,))
    return folder


# ---------------------------------------------------------------------- what stays
def dominated(one: KnownCircuit, others: list[KnownCircuit]) -> bool:
    """The rule, said once more and slowly."""
    return any(
        other.two_qubit_gates < one.two_qubit_gates and other.error <= one.error + tolerance(other.error)
        for other in others
    )


def test_the_front_is_what_no_other_dominates() -> None:
    rng = np.random.default_rng(0)
    errors = [1e-2, 1e-3, 1e-3 + 5e-9, 1e-12, 3e-10]
    for _ in range(200):
        many = [
            known(int(rng.integers(6)), float(rng.choice(errors)), int(rng.integers(4)))
            for _ in range(int(rng.integers(1, 12)))
        ]
        front = best_of(many[:3], many[3:])
        assert [c.two_qubit_gates for c in front] == sorted({c.two_qubit_gates for c in front})
        assert not any(dominated(c, front) for c in front)
        for one in many:  # nothing is lost: each is as good as something that stayed
            assert any(
                c.two_qubit_gates <= one.two_qubit_gates and c.error <= one.error + tolerance(one.error) for c in front
            )
        assert best_of(front, many) == front


@pytest.mark.parametrize(
    ("offered", "stays"),
    [
        (known(3, 1e-3, who="new"), "old"),
        (known(3, 1e-3 - 5e-9, who="new"), "old"),  # lower by less than the tolerance
        (known(3, 1e-3 - 2e-8, who="new"), "new"),
        (known(3, 1e-3 + 5e-9, gates=8, who="new"), "new"),  # equal, with fewer gates
        (known(3, 1e-3, angles=4, who="new"), "new"),
        (known(3, 1.1e-3, gates=1, who="new"), "old"),
        (known(2, 1e-3, who="new"), "new"),
        (known(4, 1e-3 - 5e-9, who="new"), "old"),
    ],
)
def test_what_replaces_a_record(offered: KnownCircuit, stays: str) -> None:
    assert [c.found["agent"] for c in best_of([known(3, 1e-3, who="old")], [offered])] == [stays]


# ---------------------------------------------------------------------- fingerprints
def test_a_fingerprint_tells_changed_problems_and_not_rounding() -> None:
    problem = qas.load_problem("lih-4")
    assert isinstance(problem, Problem)
    terms = problem.hamiltonian.terms
    strings = list(terms)

    def other(change: dict[str, float]) -> str:
        return fingerprint(replace(problem, hamiltonian=qas.Hamiltonian({**terms, **change}), name="another"))

    assert other({}) == fingerprint(problem)
    assert other({string: weight * (1 + 4e-16) for string, weight in terms.items()}) == fingerprint(problem)
    assert other({strings[-1]: terms[strings[-1]] + 1e-6}) != fingerprint(problem)
    # Weights of few binary digits lie where decimals are rounded; there too rounding changes nothing.
    for power in range(1, 30):
        one, two = (
            replace(problem, hamiltonian=qas.Hamiltonian({"ZIII": 2.0**-power * (1 + shift)}), references={})
            for shift in (-2e-16, 2e-16)
        )
        assert fingerprint(one) == fingerprint(two)


def test_a_changed_problem_is_noticed() -> None:
    problem = named(known_problems()[0])
    string = "Z" * problem.n_qubits
    changed = replace(problem, hamiltonian=qas.Hamiltonian({**problem.hamiltonian.terms, string: 0.5}), references={})
    with pytest.raises(QasError, match="another problem"):
        qas.atlas(changed)
    with pytest.raises(QasError, match="unknown problem of the atlas"):
        qas.atlas("maxcut-4-0")


# ---------------------------------------------------------------------- files
def test_files_of_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = named("h2-2")
    record = KnownCircuit.judged(EXACT, problem, {"agent": "me"})
    path = write_records(tmp_path / "h2-2.jsonl", Header.of(problem), [record])
    assert read_records(path) == (Header.of(problem), [record])
    assert record.circuit == EXACT and record.angles.tolist() == EXACT.angles.tolist()
    many = [record] * 20
    monkeypatch.setattr("qas.best_known.records._LARGEST_PLAIN", 5_000)
    packed = write_records(tmp_path / "h2-2.jsonl", Header.of(problem), many)
    assert packed.suffix == ".gz" and not path.exists() and read_records(packed)[1] == many
    first = packed.read_bytes()
    assert write_records(tmp_path / "h2-2.jsonl", Header.of(problem), many).read_bytes() == first
    assert write_records(tmp_path / "h2-2.jsonl", Header.of(problem), [record]) == path and not packed.exists()
    text = path.read_text()
    for broken in (text[:-40], text.replace('"version": 1', '"version": 2'), "[]\n", text.replace(": 3", ": -3"), ""):
        path.write_text(broken)
        with pytest.raises(RunError):
            read_records(path)


def test_circuits_join(run: qas.Run, empty: Path, tmp_path: Path) -> None:
    """Runs, published fronts and submissions say the same, and nothing joins twice."""
    problem = named("h2-2")
    assert list(join([run.path])) == ["h2-2: 2 records, 2 of them new"]
    assert [front.problem for front in all_fronts(empty)] == ["h2-2"]
    front = qas.atlas("h2-2")
    assert front.best.error < 1e-9 and front.best.found["agent"] == "evolution" and front.best.found["seed"] == 1
    assert verify(front, problem) == []
    before = (empty / "h2-2.jsonl").read_bytes()
    published = publish(run.front, problem, tmp_path / "front")
    assert {line.rpartition(", ")[2] for line in join([published, empty / "h2-2.jsonl"])} == {"0 of them new"}
    assert (empty / "h2-2.jsonl").read_bytes() == before
    with pytest.raises(QasError, match="as good as all of this run's"):
        submission(run, tmp_path / "none")
    write_records(empty / "h2-2.jsonl", Header.of(problem), front.circuits[:1])
    path, taken = submission(run, tmp_path / "sent")
    assert [c.two_qubit_gates for c in taken] == [1]
    assert list(join([path])) == ["h2-2: 2 records, 1 of them new"]
    assert (empty / "h2-2.jsonl").read_bytes() == before


PAIR = Circuit(4, [("x", 0), ("x", 2), ("double_excitation", (0, 2, 1, 3), 0.2)])


@pytest.mark.parametrize(
    ("circuit", "cost"),
    [
        (PAIR, 3),
        (Circuit(4, [("ry", 0, 0.4), ("cx", (0, 1)), ("cz", (1, 2)), ("ry", 2, 0.1)]), 2),
        (Circuit(4, [("rx", 0, 0.4), ("rzz", (0, 1), 0.7), ("rx", 1, 0.3)]), 2),
        (Circuit(4, [("ry", 0, 0.4), ("rxx", (0, 1), 0.7), ("ryy", (1, 2), 0.3), ("ecr", (2, 3))]), 5),
        (Circuit(4, [("ry", 0, 0.4), ("u", 1, 0.4, 0.1, 0.3), ("swap", (0, 1)), ("h", 1)]), 3),
    ],
    ids=["excitation", "cx and cz", "rzz", "rxx, ryy and ecr", "swap"],
)
def test_what_acts_on_two_qubits_is_counted_in_cx(circuit: Circuit, cost: int, run: qas.Run, empty: Path) -> None:
    """In records, in what joins, and in how a run compares, whatever its own front counts."""
    problem = named("h2-4")
    record = KnownCircuit.judged(circuit, problem, {})
    assert set(record.circuit.counts) <= {"rx", "ry", "rz", "cx", "cz", "x"} and record.two_qubit_gates == cost
    assert record.energy == pytest.approx(problem.energy(circuit), abs=1e-12)
    assert Referee(problem).faults(record) == []
    result = qas.runs.Result(circuit, record.energy, record.error, record.energy, record.error, 1)
    same = replace(run, problem=problem, front=[result])
    ((_, offered),) = [of_run(same)]
    assert [each.two_qubit_gates for each in offered] == [cost]
    write_records(empty / "h2-4.jsonl", Header.of(problem), offered)
    compared = compare(same)
    assert compared is not None and compared.differences == (0.0,) * (cost + 1)


def test_a_definition_hides_no_gates() -> None:
    problem = named("h2-2")
    text = "gate two a, b { cx a, b; cx b, a; }\nqubit[2] q;\ntwo q[0], q[1];\n"
    text = f'OPENQASM 3.0;\ninclude "stdgates.inc";\n{text}'
    energy = problem.energy(Circuit(2))
    hidden = KnownCircuit(1, 1, 1, 0, problem.error(energy), energy, {}, text)
    (fault,) = Referee(problem).faults(hidden)
    assert "CX and CZ are counted, got two" in fault
    assert KnownCircuit.judged(hidden.circuit, problem, {}).two_qubit_gates == 2


# ---------------------------------------------------------------------- the check by Qiskit
def test_what_qiskit_refuses() -> None:
    problem = named("h2-2")
    good = KnownCircuit.judged(EXACT, problem, {})
    referee = Referee(problem)
    assert referee.faults(good) == [] and referee.ground_energy() == pytest.approx(problem.exact, abs=1e-10)
    wrong: dict[str, tuple[str, Any]] = {
        "energy": ("energy", good.energy + 2e-9),
        "error": ("error", good.error - 2e-9),
        "two_qubit_gates": ("two_qubit_gates", 0),
        "gates": ("gates", 4),
        "depth": ("depth", 1),
        "n_angles": ("n_angles", 1),
        "parse": ("qasm", good.qasm.replace("ry(", "ry((")),
        "qubits": ("qasm", good.qasm.replace("qubit[2]", "qubit[3]")),
    }
    for word, (name, value) in wrong.items():
        (fault,) = referee.faults(replace(good, **{name: value}))
        assert word in fault
    front = [replace(good, two_qubit_gates=two, error=error) for two, error in ((1, 1e-3), (2, 1e-3), (2, 1e-4))]
    header = Header.of(problem)
    told = verify(qas.best_known.KnownFront(header, tuple(front)), problem, most=1)
    assert any("2 CX is dominated by 1 CX" in line for line in told) and any("stands behind" in line for line in told)
    told = verify(qas.best_known.KnownFront(replace(header, hamiltonian="0", exact=0.0), (good,)), problem)
    assert len(told) == 2 and "another Hamiltonian" in told[0] and "exact" in told[1]


@pytest.mark.parametrize("name", known_problems())
def test_shipped_records(name: str) -> None:
    """A sample of each front; ``scripts/verify_atlas.py`` checks all."""
    front = qas.atlas(name)
    assert front.header.problem == name
    if front.header.n_qubits <= 8:
        assert verify(front, named(name), most=1) == []
    for point in front.ahead:
        assert point in front.published


def test_scripts_agree(run: qas.Run, empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scripts = Path(__file__).parents[2] / "scripts"
    add, check = (runpy.run_path(str(scripts / name))["main"] for name in ("atlas.py", "verify_atlas.py"))
    assert add([str(run.path), "--folder", str(empty)]) == 0
    assert check(["--folder", str(empty)]) == 0
    path = empty / "h2-2.jsonl"
    path.write_text(path.read_text().replace('"error": 0.0', '"error": 0.1'))
    assert check(["--folder", str(empty)]) == 1
    assert "claimed" in capsys.readouterr().out
    assert add([str(empty), "--folder", str(empty)]) == 2
    for nothing in (["h2-3"], ["--sample", "0"], ["--folder", str(empty / "none")]):
        capsys.readouterr()
        assert check(["--folder", str(empty), *nothing]) == 2, "what checks nothing does not pass"
        assert capsys.readouterr().err.count("\n") == 1


def test_a_target_unitary_is_judged_by_its_matrix(tmp_path: Path) -> None:
    """Qiskit refuses a circuit that makes the target's state of |0…0⟩ alone, and a run of one joins the atlas."""
    front = qas.atlas("toffoli-3")
    problem = qas.load_problem("toffoli-3")
    assert isinstance(problem, OperatorProblem) and not verify(front, problem) and front.solving is not None
    record, referee = front.solving, Referee(problem)
    dead = KnownCircuit.judged(Circuit(3, [("rz", 0, 1.0), *record.circuit]), problem, {})
    assert dead.error > 0.1 and dead.gates == record.gates + 1, "nothing is dropped that only |0…0⟩ allows"
    assert referee.faults(dead) == [] and len(referee.faults(replace(dead, error=record.error))) == 1
    run = qas.search("qft-2", evaluations=1500, seed=0, out=tmp_path / "run", report=False)
    empty = tmp_path / "atlas"
    empty.mkdir()
    assert all(line.startswith("qft-2: ") for line in join([run.path], empty))
    (known,) = all_fronts(empty)
    assert verify(known, named("qft-2")) == [] and known.best.error < 1e-6


def test_published_points_are_of_problems() -> None:
    lines = (FOLDER / "published.jsonl").read_text().splitlines()
    for point in map(json.loads, lines):
        assert isinstance(qas.load_problem(point["problem"]), OperatorProblem)
        assert point["error"] > 0 and point["source"] and point["method"]


def test_what_is_said_of_published_points() -> None:
    """The front page tells the smallest count that papers report, and the atlas holds the fronts it is said to hold."""
    root = Path(__file__).parents[2]
    rows = re.findall(r"^\| (LiH|BeH2|H6), .*\|(.*)\|$", (root / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == 3
    for molecule, told in rows:
        stem, stretched = {"LiH": ("lih-12", "3.0"), "BeH2": ("beh2-14", "3.0"), "H6": ("h6-12", "1.5")}[molecule]
        fewest = [
            min(point.two_qubit_gates or math.inf for point in published(name) if point.error <= 1.6e-3)
            for name in (stem, f"{stem}-{stretched}")
        ]
        assert [int(count.replace(",", "")) for count in re.findall(r"\d[\d,]*", told)] == fewest
    fronts = {path.parent.name for path in (root / "results" / "compact").glob("*/front.json")}
    assert len(fronts) >= 15 and fronts <= set(known_problems())


def test_a_front_is_asked() -> None:
    """Which circuit has at most so many gates, which solves, and which published points are ahead."""

    def point(error: float, two: int | None) -> Published:
        return Published("h2-2", error, False, two, None, None, "method", "paper")

    reached = (point(2e-3, 3), point(1e-2, 0), point(1e-4, 9), point(1e-4, None), point(1e-3 * (1 - 5e-6), 4))
    ahead = (point(1.9e-3, 3), point(5e-3, 0), point(5e-5, 9), point(5e-5, None), point(1e-3 * (1 - 5e-5), 5))
    circuits = known(0, 1e-2), known(3, 2e-3), known(4, 1e-3), known(7, 1e-4)
    front = qas.best_known.KnownFront(Header.of(named("h2-2")), circuits, reached + ahead)
    assert front.ahead == ahead and front.header.threshold == 1.6e-3
    assert front.solving is circuits[2] and front.best is circuits[3]
    assert [front.at(two) for two in (0, 2, 3, 6, 7, 90)] == [circuits[k] for k in (0, 0, 1, 2, 3, 3)]
    beyond = replace(front, circuits=circuits[1:2])
    assert beyond.at(2) is None and beyond.solving is None


def test_circuits_of_another_hamiltonian_do_not_join(run: qas.Run, empty: Path, tmp_path: Path) -> None:
    """A run, a published front or a file whose problem has the name, and records from before a problem changed."""
    problem = named("h2-2")
    terms = problem.hamiltonian.terms | {"ZZ": 0.5}
    changed = replace(problem, hamiltonian=qas.Hamiltonian(terms), references={})
    path = write_records(tmp_path / "h2-2.jsonl", replace(Header.of(problem), hamiltonian=fingerprint(changed)), [])
    for offer in (
        lambda: of_run(replace(run, problem=changed)),
        lambda: list(candidates(publish(run.front, changed, tmp_path / "front"))),
        lambda: list(candidates(path)),
    ):
        with pytest.raises(QasError, match="the Hamiltonian is not that of h2-2"):
            offer()
    lower = replace(KnownCircuit.judged(EXACT, problem, {}), two_qubit_gates=0, error=-1.0)
    write_records(empty / "h2-2.jsonl", replace(Header.of(problem), hamiltonian="before"), [lower])
    told = list(join([run.path]))
    assert told == ["h2-2: the problem has changed, its 1 records go", "h2-2: 2 records, 2 of them new"]
    assert verify(qas.atlas("h2-2"), problem) == []


def test_what_qiskit_disagrees_on_is_not_offered(run: qas.Run, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Referee, "faults", lambda self, record: [f"{record.two_qubit_gates} CX: wrong"])
    with pytest.raises(QasError, match="not every circuit reproduces: 0 CX: wrong"):
        submission(run, empty / "sent")
    assert not (empty / "sent").exists()


def test_headers_are_checked() -> None:
    problem = named("h2-2")
    header, good = Header.of(problem), KnownCircuit.judged(EXACT, problem, {})
    for change, word in (
        ({"unit": "eV"}, "2 qubits in eV"),
        ({"n_qubits": 3}, "3 qubits in hartree"),
        ({"threshold": 1e-2}, "threshold 0.01 claimed"),
        ({"hamiltonian": "0"}, "another Hamiltonian"),
    ):
        (fault,) = verify(qas.best_known.KnownFront(replace(header, **change), (good,)), problem, most=1)  # type: ignore[arg-type]
        assert word in fault
    lower = replace(problem, references={"exact": problem.exact - 1e-6})
    claimed = replace(good, error=lower.error(good.energy))
    (fault,) = verify(qas.best_known.KnownFront(Header.of(lower), (claimed,)), lower)
    assert fault.startswith("exact energy")


# ---------------------------------------------------------------------- runs beside it
@pytest.mark.parametrize(
    ("differences", "line"),
    [
        ((0.0, 0.0, 0.0), "equals the best known front"),
        (
            (0.0,) * 6 + (0.0, -3.1e-5, 0.0, 2e-4, 1e-4),
            "equals the best known front up to 6 CX and at 8 CX; improves it at 7 CX by 3.1e-05 Ha; behind from 9 CX "
            "on by up to 0.0002 Ha",
        ),
        ((math.inf, -1e-3), "improves the best known front from 1 CX on by 0.001 Ha; behind without CX"),
        ((1e-3, 2e-3), "behind the best known front by up to 0.002 Ha"),
        ((0.0, 5.0), "equals the best known front without CX; behind from 1 CX on by 5 Ha"),
    ],
)
def test_comparisons_in_words(differences: tuple[float, ...], line: str) -> None:
    assert Comparison(differences, "hartree").line == line
    assert Comparison(differences, "hartree", True).line == f"{line} (begun from the atlas)"


def test_runs_are_compared(run: qas.Run, empty: Path, tmp_path: Path) -> None:
    assert compare(run) is None
    list(join([run.path]))
    found = compare(run)
    assert found is not None and found.line == "equals the best known front" and not found.improves
    first = replace(run, front=[result for result in run.front if not result.two_qubit_gates])
    behind = compare(first)
    assert behind is not None and behind.differences[0] == 0 and behind.differences[1] > 1e-3
    again = qas.search("h2-2", start="atlas", evaluations=60, out=tmp_path / "again")
    begun = compare(again)
    assert begun is not None and begun.begun_from_atlas and begun.line.endswith("(begun from the atlas)")
    assert "Beside the atlas it equals" in (tmp_path / "again" / "report.html").read_text()
    ((_, circuits),) = candidates(again.path)
    assert {c.found["begun_from"] for c in circuits} == {"the atlas"}


def test_under_noise_noise_free_errors_are_compared(run: qas.Run, empty: Path) -> None:
    list(join([run.path]))
    shifted = [replace(result, error=result.error + 0.1, energy=result.energy + 0.1) for result in run.front]
    found = compare(replace(run, noise=qas.load_noise("ibm-mumbai"), front=shifted))
    assert found is not None and found.line == "equals the best known front"


# ---------------------------------------------------------------------- the command line
def test_the_command(run: qas.Run, empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str, code: int = 0) -> str:
        assert main(["atlas", *words]) == code
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    list(join([run.path]))
    assert json.loads(told("--json", "h2-2"))["problem"] == json.loads(told("show", "h2-2", "--json"))["problem"]
    front = qas.atlas("h2-2")
    assert "h2-2" in told() and json.loads(told("--json"))[0]["records"] == len(front)
    assert told("h2-2") == told("show", "h2-2")
    assert told("h2-2", "--cx", "5", "--qasm") == front.best.qasm == told("h2-2", "--qasm")
    assert "error" in told("show", "h2-2", "--cx", "0")
    data = json.loads(told("show", "h2-2", "--cx", "1", "--json"))
    assert Circuit(2, data["circuit"]) == front.best.circuit
    assert "lih-4" in told("lih-4", code=2) and told("export", "--out", str(tmp_path / "all.txt"), code=2)
    told("export", "--out", str(tmp_path / "all.csv"))
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + len(front)
    assert export([front], tmp_path / "all.jsonl") == len(front)
    larger = read_front(FOLDER / "beh2-14-3.0.jsonl")
    assert export([larger], tmp_path / "larger.csv") == len(larger) + len(larger.published)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "larger.csv").read_text())))
    assert [float(row["error"]) for row in rows] == [each.error for each in [*larger, *larger.published]]
    assert [row["bound"] for row in rows] == [""] * len(larger) + ["True"] * len(larger.published)
    write_records(empty / "h2-2.jsonl", front.header, front.circuits[:1])
    out = told("submit", str(run.path), "--out", str(tmp_path / "sent"))
    assert "scripts/atlas.py" in out and len(read_front(tmp_path / "sent" / "h2-2.jsonl")) == 1
