"""The Optuna ledger: what a study holds after kills, resumes and neighbours; storages that do not answer."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from qas.agents.pool.ledger import FILE, Entry, Ledger, without_password
from qas.circuits import Circuit
from qas.encoders import CircuitSpace
from qas.errors import QasError
from qas.vqe import Evaluation

ONE = Circuit(2, [("ry", (0,), (0.0,)), ("cx", (0, 1))])
TWO = Circuit(2, [("rx", (1,), (0.0,))])
State = optuna.trial.TrialState
open_ledger = partial(Ledger, space=CircuitSpace(2, ("rx", "ry", "cx"), max_gates=4, max_depth=0))


def evaluated(circuit: Circuit, energy: float = -1.0) -> Evaluation:
    return Evaluation(circuit.with_angles([0.5] * circuit.n_angles), energy, 0.1, 7)


def trials(where: str | Path, study: str = "s") -> list[Any]:
    from qas.agents.pool.ledger import _open_storage

    return optuna.load_study(study_name=study, storage=_open_storage(str(where))).get_trials()


def storage_of(kind: str, folder: Path) -> str | None:
    return {"own": None, "journal": str(folder / "shared.log"), "sqlite": f"sqlite:///{folder}/shared.db"}[kind]


def file_of(kind: str, folder: Path) -> str:
    return storage_of(kind, folder) or str(folder / FILE)


every_kind = pytest.mark.parametrize("kind", ["own", "journal", "sqlite"])


@every_kind
def test_one_trial_for_one_circuit(kind: str, tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, "s", storage_of(kind, tmp_path))
    ledger.begin(0, ONE)
    assert [t.state for t in trials(file_of(kind, tmp_path))] == ([] if kind == "own" else [State.RUNNING])
    ledger.finish(evaluated(ONE, -1.25))
    (trial,) = trials(file_of(kind, tmp_path))
    assert trial.state is State.COMPLETE and trial.value == -1.25
    assert trial.params == {"gates": 2, "two_qubit_gates": 1, "depth": 2, "rx": 0, "ry": 1, "cx": 1}
    assert trial.user_attrs["metrics"]["gates"] == 2 and trial.user_attrs["number"] == 0
    assert Circuit.from_qasm(trial.user_attrs["qasm"]) == evaluated(ONE).circuit
    assert Circuit(*trial.user_attrs["circuit"]) == ONE
    assert trial.datetime_complete >= trial.datetime_start


@every_kind
def test_a_resumed_run_finds_its_trials(kind: str, tmp_path: Path) -> None:
    """Number 0 was entered, 1 was in flight, 2 is another circuit than before."""
    where = storage_of(kind, tmp_path)
    ledger = open_ledger(tmp_path, "s", where)
    for number, circuit in enumerate((ONE, ONE, TWO)):
        ledger.begin(number, circuit)
        if number != 1:
            ledger.finish(evaluated(circuit, -number))
    again = open_ledger(tmp_path, "s", where)
    for number, circuit in enumerate((ONE, ONE, ONE)):
        again.begin(number, circuit)
        again.finish(evaluated(circuit, -10.0))
    found = trials(file_of(kind, tmp_path))
    assert all(trial.state is State.COMPLETE for trial in found)
    assert sorted((t.user_attrs["number"], t.value) for t in found) == [(0, 0), (1, -10), (2, -10), (2, -2)]


@every_kind
def test_what_a_budget_cut_short_is_entered_anew(kind: str, tmp_path: Path) -> None:
    where = storage_of(kind, tmp_path)
    ledger = open_ledger(tmp_path, "s", where)
    ledger.begin(0, ONE)
    ledger.finish(evaluated(ONE, -0.5), cut=True)
    ledger.begin(1, TWO)
    ledger.finish(None, cut=True)
    first = trials(file_of(kind, tmp_path))
    assert [(t.state, t.value) for t in first] == [(State.PRUNED, -0.5), (State.PRUNED, None)][: 1 + (kind != "own")]
    again = open_ledger(tmp_path, "s", where)
    again.begin(0, ONE)
    again.finish(evaluated(ONE, -0.75))
    assert [t.value for t in trials(file_of(kind, tmp_path)) if t.state is State.COMPLETE] == [-0.75]


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_runs_hear_of_each_other(kind: str, tmp_path: Path) -> None:
    where = storage_of(kind, tmp_path)
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    a, b = (open_ledger(folder, "s", where) for folder in folders)
    a.begin(0, ONE)
    assert b.others(set()) == [Entry(0, ONE, None)] and a.others(set()) == []
    a.finish(evaluated(ONE, -2.0))
    b.begin(0, TWO)
    b.finish(evaluated(TWO, -3.0), cut=True)
    assert b.others(set()) == [Entry(0, evaluated(ONE, -2.0).circuit, -2.0)], (
        "the same number of another run is another circuit"
    )
    assert b.others({0}) == []
    assert a.others(set()) == [], "a value that the budget cut short is none"
    os.rename(folders[0], tmp_path / "moved")
    moved = open_ledger(tmp_path / "moved", "s", where)
    assert moved.others(set()) == [] and len(b.others(set())) == 1, "a run keeps its name when its folder moves"
    folders[0].mkdir()
    fresh = open_ledger(folders[0], "s", where)
    fresh.begin(0, ONE)
    assert fresh.others(set()) == [Entry(0, evaluated(ONE, -2.0).circuit, -2.0)], (
        "a new run in an old place is another run"
    )


def test_a_moved_run_with_a_ledger_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    ledger = open_ledger(tmp_path / "a", "s", None)
    ledger.begin(0, ONE)
    ledger.finish(evaluated(ONE))
    os.rename(tmp_path / "a", tmp_path / "b")
    again = open_ledger(tmp_path / "b", "s", None)
    again.begin(0, ONE)
    again.finish(evaluated(ONE))
    assert len(trials(tmp_path / "b" / FILE)) == 1 and again.others(set()) == []


@pytest.mark.parametrize("left", [1, 20, 200])
def test_half_a_line_is_dropped(left: int, tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, "s", None)
    for number, circuit in enumerate((ONE, TWO)):
        ledger.begin(number, circuit)
        ledger.finish(evaluated(circuit))
    path = tmp_path / FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:left])
    again = open_ledger(tmp_path, "s", None)
    for number, circuit in enumerate((ONE, TWO)):
        again.begin(number, circuit)
        again.finish(evaluated(circuit))
    assert [t.user_attrs["number"] for t in trials(path)] == [0, 1]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_storage_whose_tables_another_run_is_making_is_opened_a_moment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, waited = optuna.create_study, []
    told: list[Exception] = [IntegrityError("", None, ValueError("UNIQUE")), OperationalError("", None, ValueError())]
    told[1].args = ("table studies already exists",)

    def create_after_others(**settings: Any) -> Any:
        if told:
            raise told.pop()
        return create(**settings)

    monkeypatch.setattr("qas.agents.pool.ledger.time.sleep", waited.append)
    monkeypatch.setattr(optuna, "create_study", create_after_others)
    where = f"sqlite:///{tmp_path}/x.db"
    ledger = open_ledger(tmp_path, "s", where)
    ledger.begin(0, ONE)
    assert len(trials(where)) == 1 and len(waited) == 2
    told += [IntegrityError("", None, ValueError("UNIQUE"))] * 30
    with pytest.raises(QasError, match="does not answer: IntegrityError"):
        open_ledger(tmp_path, "s", where)


def test_strange_trials_are_left_alone(tmp_path: Path) -> None:
    """Trials that somebody added by hand, or that failed."""
    where = f"sqlite:///{tmp_path}/x.db"
    study = optuna.create_study(storage=where, study_name="s")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    study.tell(study.ask(), state=State.FAIL)
    study.ask()
    ledger = open_ledger(tmp_path, "s", where)
    assert ledger.others(set()) == []
    ledger.begin(0, ONE)
    ledger.finish(evaluated(ONE))
    assert len(trials(where)) == 4


@every_kind
def test_what_the_budget_cut_short_counts_if_it_is_the_best(kind: str, tmp_path: Path) -> None:
    where = storage_of(kind, tmp_path)
    ledger = open_ledger(tmp_path, "s", where)
    ledger.begin(0, ONE)
    ledger.finish(evaluated(ONE, -2.0), cut=True, best=True)
    (trial,) = trials(file_of(kind, tmp_path))
    assert trial.state is State.COMPLETE and trial.value == -2.0
    again = open_ledger(tmp_path, "s", where)
    again.begin(0, ONE)
    again.finish(evaluated(ONE, -2.5))
    assert [t.value for t in trials(file_of(kind, tmp_path))] == [-2.0, -2.5], "with a larger budget it is entered anew"


# ---------------------------------------------------------------------- storages that do not answer
SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("study.db", "URL such as"),
        ("", "URL such as"),
        (f"postgresql:/me:{SECRET}@host/db", "URL such as"),
        ("nodialect://x", "nodialect"),
        (f"postgres://me:{SECRET}@127.0.0.1:1/db", "does not answer"),
        (f"postgresql://me:{SECRET}@127.0.0.1:1/db", "does not answer"),
        (f"postgresql+psycopg2://me:{SECRET}@127.0.0.1:1/db", "does not answer"),
        (f"mysql://me:{SECRET}", "does not answer"),
        (f"mysql://me@host/db?password={SECRET}", "does not answer"),
        (f"postgresql://me:{SECRET}%40x@host:port/db", "does not answer"),
        (f"nonsense://me:{SECRET}@:/@:", "does not answer"),
        ("sqlite:////nowhere/at/all.db", "unable to open"),
        ("/nowhere/at/all.log", "No such file"),
        ("redis://127.0.0.1:1", "does not answer"),
    ],
)
def test_a_storage_that_does_not_answer(where: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(QasError, match=words) as caught:
        open_ledger(tmp_path, "s", where)
    assert "\n" not in str(caught.value) and SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "its text may hold the password"
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_storage(tmp_path: Path) -> None:
    (tmp_path / "folder.log").mkdir()
    (tmp_path / "text.log").write_text("hello\nworld\nagain\n")
    (tmp_path / "text.db").write_text("hello " * 1000)
    for where in (tmp_path / "folder.log", tmp_path / "text.log", f"sqlite:///{tmp_path}/text.db"):
        with pytest.raises(QasError, match="does not answer") as caught:
            open_ledger(tmp_path, "s", str(where))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("directions", [["maximize"], ["minimize", "minimize"]])
def test_a_study_of_another_kind(directions: list[str], tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path}/x.db"
    optuna.create_study(storage=where, study_name="s", directions=directions)
    with pytest.raises(QasError, match="does not minimize"):
        open_ledger(tmp_path, "s", where)


def test_a_storage_that_stops_answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_ledger(tmp_path, "s", str(tmp_path / "x.log"))
    ledger.begin(0, ONE)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("server closed the connection\nunexpectedly")

    monkeypatch.setattr("optuna.storages.journal.JournalFileBackend.append_logs", refuse)
    monkeypatch.setattr("optuna.storages.journal.JournalFileBackend.read_logs", refuse)
    for act in (
        lambda: ledger.finish(evaluated(ONE)),
        lambda: ledger.begin(1, TWO),
        lambda: ledger.others(set()),
    ):
        with pytest.raises(QasError, match="does not answer: RuntimeError: server closed") as caught:
            act()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ("postgresql://me:s3cr3t@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me:p@s:s/w@host/db", "postgresql://me:***@host/db"),
        ("mysql://me@host/db?x=1&password=s3cr3t&y=2", "mysql://me@host/db?x=1&password=***&y=2"),
        ("postgresql://me:s3cr3t", "postgresql://me:***"),
        ("me:s3cr3t@host/db", "me:***@host/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("sqlite:///a/b.db", "sqlite:///a/b.db"),
        ("runs/study.log", "runs/study.log"),
    ],
)
def test_passwords_are_hidden(where: str, shown: str) -> None:
    assert without_password(where) == shown
