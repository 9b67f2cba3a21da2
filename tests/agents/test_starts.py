"""Searches that begin with given circuits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import qas
from qas.agents import resume, starts
from qas.circuits import Circuit
from qas.cli import main
from qas.comparison import gather
from qas.errors import QasError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> qas.Run:
    folder = tmp_path_factory.mktemp("starts") / "run"
    return qas.search("h2-2", evaluations=400, seed=1, out=folder, report=False)


def begun(out: Path, start: Any, **settings: Any) -> qas.Run:
    return qas.search("h2-2", **{"evaluations": 25, "start": start, "out": out, "report": False, **settings})


def test_from_a_run(run: qas.Run, tmp_path: Path) -> None:
    """The whole front is begun with, kept with the run, and enough to repeat it and to go on with it."""
    first = begun(tmp_path / "first", run)
    assert first.config["options"]["start"] == [result.circuit.to_list() for result in run.front]
    assert first.config["start"] == {"source": "a run of evolution, seed 1", "atlas": False, "circuits": len(run.front)}
    assert first.best.error <= run.best.error + 1e-12 < 1e-6
    again = begun(tmp_path / "again", str(run.path))
    assert again.config["start"] == first.config["start"]
    without = begun(tmp_path / "without", None, options=first.config["options"])
    for other in (again, without):
        assert other.history()["energy"].tolist() == first.history()["energy"].tolist()
    longer = resume(first.path, evaluations=60)
    assert longer.evaluations > first.evaluations and longer.config["start"] == first.config["start"]


def test_a_short_search_is_no_worse_than_what_it_begins_with(tmp_path: Path) -> None:
    """Each of several circuits is judged as it is before the best one is optimized further."""
    known = qas.atlas("lih-4")
    run = qas.search("lih-4", start="atlas", evaluations=len(known), out=tmp_path / "run", report=False, seed=0)
    assert run.best.error == pytest.approx(known.best.error, abs=1e-9)
    assert {result.two_qubit_gates for result in run.front} == {record.two_qubit_gates for record in known}


def test_from_circuits(run: qas.Run, tmp_path: Path) -> None:
    (tmp_path / "best.qasm").write_text(run.best.circuit.to_qasm())
    file = begun(tmp_path / "file", tmp_path / "best.qasm")
    circuit = begun(tmp_path / "circuit", run.best.circuit, agent="editor", evaluations=6)
    for other, source in ((file, "the file best.qasm"), (circuit, "a circuit")):
        assert other.config["start"]["source"] == source
        assert other.best.error <= run.best.error + 1e-10
    chained = begun(tmp_path / "chained", file)
    assert chained.config["start"]["source"] == "a run of evolution, seed 0, begun from the file best.qasm"


def test_on_a_device_circuits_are_as_long_as_they_become(tmp_path: Path) -> None:
    turns = [("sx", 0), ("rz", 0, 0.3), ("sx", 0)]
    settings = {"device": "fake_torino", "max_gates": 8}
    run = begun(tmp_path / "long", Circuit(2, [*turns, *turns, *turns, ("cz", (0, 1))]), **settings)
    assert run.config["start"]["source"] == "a circuit"
    both = [*turns, ("sx", 1), ("rz", 1, 0.3), ("sx", 1)]
    with pytest.raises(QasError, match=r"at most 8 gates here, got \d+"):
        begun(tmp_path / "longer", Circuit(2, [*both, ("cz", (0, 1))] * 3), **settings)


CHAIN = Circuit(4, [("x", 0), ("ry", 0, 0.3), ("cx", (0, 2)), ("cx", (2, 1)), ("ry", 1, 0.2), ("cx", (1, 3))])
"""Neighbours are 0-2-1-3: on a line in the usual order it needs swaps."""


def energies(run: qas.Run) -> tuple[float, float]:
    """Noise-free energy of what a search began with, by its own problem and device; and that of the circuit meant."""
    begun_with = Circuit(4, run.config["options"]["start"][0])
    device = run.device
    assert device is not None and device.native is not None and all(map(device.native.has, begun_with))
    return run.problem.energy(begun_with), run.problem.energy(CHAIN)


@pytest.mark.parametrize("order", ["free", "given", "coupling"])
def test_on_a_device_circuits_are_routed(order: str, tmp_path: Path) -> None:
    """The patch takes the order of the problem's qubits that suits the circuit, unless its order was given."""
    usual = qas.load_device("fake_torino").patch(4, "line").physical
    where: dict[str, Any] = {"patch": "line"}
    if order == "given":
        where = {"patch": usual[::-1]}
    if order == "coupling":
        where["coupling"] = [(0, 1), (1, 2), (2, 3)]
    settings = {"device": "fake_torino", "evaluations": 3, "agent": "evolution", "report": False, **where}
    run = qas.search("lih-4", start=CHAIN, out=tmp_path / "run", **settings)
    assert run.config["start"]["source"] == "a circuit, routed"
    start, meant = energies(run)
    assert start == pytest.approx(meant, abs=1e-9)
    two = Circuit(4, run.config["options"]["start"][0]).two_qubit_gates
    assert run.device is not None
    if order == "free":
        assert two == 3 and run.device.physical not in (usual, usual[::-1])
    else:
        assert two > 3 and run.device.physical == (usual if order == "coupling" else usual[::-1])
    again = resume(run.path, evaluations=6, report=False)
    assert again.device is not None and again.device.physical == run.device.physical


def test_a_run_keeps_its_order_and_only_what_fits_has_a_say(tmp_path: Path) -> None:
    """Circuits that any order suits, or that are too long, have no say; noise is that of the qubits in their order."""
    settings: dict[str, Any] = {"device": "fake_torino", "patch": "line", "report": False, "agent": "evolution"}
    product = Circuit(4, [("x", 0), ("ry", 0, 0.3)])
    (tmp_path / "chain.qasm").write_text(CHAIN.to_qasm())
    first = qas.search("lih-4", start=tmp_path / "chain.qasm", evaluations=2, out=tmp_path / "first", **settings)
    assert first.device is not None and first.noise is not None
    usual = qas.load_device("fake_torino").patch(4, "line")
    back = first.device.restricted([first.device.physical.index(qubit) for qubit in usual.physical])
    assert back.to_json() == usual.to_json() != first.device.to_json()
    assert first.noise.to_json() == first.device.noise().to_json()
    again = qas.search("lih-4", start=first, evaluations=len(first.front), out=tmp_path / "again", **settings)
    assert again.device is not None and again.device.physical == first.device.physical
    assert again.config["start"]["source"] == "a run of evolution, seed 0, begun from the file chain.qasm, routed"
    assert again.best.energy <= first.best.energy + 1e-12
    assert len(gather([first.path, again.path]).groups) == 1
    long = Circuit(4, [*CHAIN, *Circuit(4, [("ry", 2, 0.2), ("cx", (3, 0)), ("ry", 0, 0.1), ("cx", (1, 0))] * 6)])
    begun_with, device = starts.onto(
        starts.Beginning([product, CHAIN, long], "these", False), qas.load_device("fake_torino").patch(4, "line"),
        ["rz", "sx", "cz"], 40, lambda circuit, device: float(len(circuit)), moved=True,
    )  # fmt: skip
    assert device.physical == first.device.physical and len(begun_with.circuits) == 2
    assert [circuit.two_qubit_gates for circuit in begun_with.circuits] == [3, 0], "the best is the last"
    assert all(circuit.counts.keys() <= {"rz", "sx", "cz"} for circuit in begun_with.circuits)


def test_a_run_of_another_device(tmp_path: Path) -> None:
    """With another entangler, on pairs that are all coupled or none."""
    settings = {"agent": "evolution", "patch": "line", "report": False, "seed": 0}
    first = qas.search("lih-4", device="fake_fez", evaluations=300, out=tmp_path / "first", **settings)
    run = qas.search("lih-4", device="fake_brisbane", start=first, evaluations=30, out=tmp_path / "run", **settings)
    assert run.config["start"]["circuits"] == len(first.front)
    before = min(first.problem.energy(result.circuit) for result in first.front)
    begun_with = [Circuit(4, gates) for gates in run.config["options"]["start"]]
    assert min(map(run.problem.energy, begun_with)) == pytest.approx(before, abs=1e-9)
    assert run.device is not None and run.device.native is not None
    assert all(run.device.native.has(gate) for circuit in begun_with for gate in circuit)


def test_of_several_those_that_fit(run: qas.Run, tmp_path: Path) -> None:
    short = begun(tmp_path / "short", run, max_gates=2)
    assert all(len(result.circuit) <= 2 for result in short.front)
    with pytest.raises(QasError, match="at most 1 gates here"):
        begun(tmp_path / "none", Circuit(2, [("rx", 0, 0.1), ("rx", 1, 0.1)]), max_gates=1)


@pytest.mark.parametrize(
    ("start", "settings", "told"),
    [
        ("atlas", {"agent": "beam"}, "agent beam cannot begin with given circuits; these can: editor, evolution"),
        (Circuit(3), {}, "h2-2 has 2 qubits, got circuits on 3"),
        (Circuit(2), {"options": {"start": []}}, "given once"),
        (None, {"options": {"start": "best.qasm"}}, "start"),
        ("no such folder", {}, "is missing"),
        (Circuit(2), {"device": "fake_torino", "coupling": []}, "connect"),
        (7, {}, "a search starts from atlas, a run, an OpenQASM file or a circuit, got 7"),
    ],
)
def test_what_is_refused(start: Any, settings: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(QasError, match=told):
        begun(tmp_path / "run", start, **settings)
    assert not (tmp_path / "run").exists()


def test_the_command(run: qas.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", "h2-2", "--evaluations", "25", "--quiet", "--no-report", "--out", str(tmp_path / "run")]
    assert main([*words, "--start", str(run.path)]) == 0
    assert qas.load_run(tmp_path / "run").config["start"]["circuits"] == len(run.front)
    assert main(["search", "--resume", str(tmp_path / "run"), "--start", "atlas"]) == 2
    assert "--resume takes its settings from the run" in capsys.readouterr().err
