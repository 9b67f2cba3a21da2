"""Bayesian optimization of architectures: local changes, trust region, ledger, shared studies."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import qas
from qas.agents import launch
from qas.agents.base import Search
from qas.agents.pool import ACQUISITIONS, SURROGATES
from qas.agents.pool.bo import STORAGE, BoAgent
from qas.agents.pool.ledger import FILE
from qas.circuits import Circuit
from qas.encoders import CircuitSpace
from qas.errors import QasError
from qas.meter import Meter
from qas.runs import HISTORY_COLUMNS, Run
from qas.simulators import make_simulator

State = optuna.trial.TrialState
SMALL = {"pool_size": 60, "features": "reduced", "initial": 6, "batch": 4}
MODES = ("open", "pool")
STEPS = 24


def run(out: Path, problem: Any = "h2-2", *, extra: Any = None, seed: int = 0, **limits: Any) -> Run:
    limits = limits or {"steps": STEPS}
    return qas.search(problem, agent="bo", options=SMALL | (extra or {}), out=out, seed=seed, report=False, **limits)


def record(found: Run) -> tuple[Any, ...]:
    """Everything a run found, except times."""
    front = [(r.circuit.to_list(), r.energy, r.evaluations) for r in found.front]
    return front, found.evaluations, found.history()[[n for n in HISTORY_COLUMNS if n != "seconds"]].tolist()


def trials(where: Path | str, owner: str | None = None) -> list[Any]:
    from qas.agents.pool.ledger import _open_storage

    storage = _open_storage(str(where))
    (name,) = optuna.get_all_study_names(storage)
    found = optuna.load_study(study_name=name, storage=storage).get_trials()
    return [t for t in found if owner is None or t.user_attrs.get("owner") == owner]


def check_ledger(found: Run, where: Path | str | None = None) -> None:
    """One complete trial for every architecture, in order, with the values of the history."""
    owner = None if where is None else (found.path / "study.owner").read_text().strip()
    known = trials(found.path / FILE if where is None else where, owner)
    complete = [t for t in known if t.state is State.COMPLETE]
    assert [t.user_attrs["number"] for t in complete] == list(range(found.architectures))
    assert all(t.state is State.COMPLETE for t in known)
    history = found.history()
    assert [t.value for t in complete] == pytest.approx(history["energy"], rel=1e-11, abs=1e-14)
    assert [t.user_attrs["metrics"]["gates"] for t in complete] == history["gates"].tolist()
    for trial in complete:
        circuit = Circuit.from_qasm(trial.user_attrs["qasm"])
        assert circuit.key == Circuit(*trial.user_attrs["circuit"]).key
        energy = make_simulator(found.noise).expectation(circuit, found.problem.hamiltonian)
        assert energy == pytest.approx(trial.value, abs=1e-9)


def call_at(count: int, action: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Do something right after the given number of architectures."""
    original = Meter.evaluate

    def evaluate(self: Meter, *args: Any, **kwargs: Any) -> Any:
        found = original(self, *args, **kwargs)
        if self.architectures == count:
            action()
        return found

    patch.setattr(Meter, "evaluate", evaluate)


class Killed(BaseException):
    """Stands in for the end of the process."""


def die() -> None:
    raise Killed


def killed(out: Path, count: int, *, checkpoint_every: float, **given: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Search, "checkpoint_every", checkpoint_every)
        call_at(count, die, patch)
        with pytest.raises(Killed):
            run(out, **given)


# ---------------------------------------------------------------------- ledger and resume
@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @functools.cache
    def make(mode: str) -> Run:
        return run(tmp_path_factory.mktemp("bo") / mode, extra={"mode": mode})

    return make


@pytest.mark.parametrize("mode", MODES)
def test_the_ledger_is_the_history(mode: str, finished: Any) -> None:
    check_ledger(finished(mode))


@pytest.mark.parametrize("noise", ["ibm-mumbai", "ibm-ourense"])
def test_the_ledger_under_noise(noise: str, tmp_path: Path) -> None:
    found = run(tmp_path / "run", "tfim-4", noise=noise, steps=8)
    check_ledger(found)
    study = optuna.load_study(
        study_name=None, storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(found.path / FILE)))
    )  # fmt: skip
    assert study.study_name == f"tfim-4-{noise}-4q"
    assert study.best_value == pytest.approx(found.history()["energy"].min())


@pytest.mark.parametrize("mode", MODES)
def test_a_run_killed_before_its_first_checkpoint_ends_as_the_unbroken_one(
    mode: str, finished: Any, tmp_path: Path
) -> None:
    """Killed after a circuit was evaluated and before its trial was written."""
    killed(tmp_path / "run", 3, checkpoint_every=1e9, extra={"mode": mode})
    resumed = qas.agents.resume(tmp_path / "run", report=False)
    assert record(resumed) == record(finished(mode))
    check_ledger(resumed)


@pytest.mark.parametrize("mode", MODES)
def test_trials_newer_than_the_checkpoint_are_used(
    mode: str, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is of circuit 10, the ledger knows 19: the second time nothing is entered twice."""
    monkeypatch.setattr(Search, "checkpoint_every", 0.0)
    original = Search.checkpoint
    monkeypatch.setattr(Search, "checkpoint", lambda s, a: original(s, a) if s.meter.architectures <= 10 else None)
    call_at(20, die, monkeypatch)
    with pytest.raises(Killed):
        run(tmp_path / "run", extra={"mode": mode})
    monkeypatch.undo()
    assert len(trials(tmp_path / "run" / FILE)) == 19
    (tmp_path / "run").rename(tmp_path / "moved")
    resumed = qas.agents.resume(tmp_path / "moved", report=False)
    assert record(resumed) == record(finished(mode))
    check_ledger(resumed)


def test_many_interrupts_change_nothing(finished: Any, tmp_path: Path) -> None:
    """The surrogate is put together again after each of them, to the last bit."""
    for stop in (5, 13, 14, 22):
        with pytest.MonkeyPatch.context() as patch:
            call_at(stop, lambda: signal.raise_signal(signal.SIGINT), patch)
            found = run(tmp_path / "run") if stop == 5 else qas.agents.resume(tmp_path / "run", report=False)
        assert found.status == "interrupted" and found.architectures == stop
    found = qas.agents.resume(tmp_path / "run", report=False)
    assert record(found) == record(finished("open"))
    check_ledger(found)


def test_what_the_budget_cuts_short_is_pruned_unless_it_is_the_best(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", evaluations=200)
    states = set()
    for evaluations in (131, 3):
        part = run(tmp_path / f"part{evaluations}", evaluations=evaluations)
        *first, last = trials(part.path / FILE)
        assert all(t.state is State.COMPLETE for t in first)
        best = part.history()["energy"].min()
        assert (last.state is State.COMPLETE) == (last.value == pytest.approx(best, rel=1e-11))
        assert min(t.value for t in (*first, last) if t.state is State.COMPLETE) == pytest.approx(best, rel=1e-11)
        states.add(last.state)
        longer = qas.agents.resume(part.path, evaluations=200, report=False)
        assert record(longer) == record(whole)
        known = [t for t in trials(longer.path / FILE) if t.state is State.COMPLETE and "cut" not in t.user_attrs]
        wanted = [t for t in trials(whole.path / FILE) if t.state is State.COMPLETE and "cut" not in t.user_attrs]
        assert [t.value for t in known] == [t.value for t in wanted]
    assert states == {State.COMPLETE, State.PRUNED}


# ---------------------------------------------------------------------- inside
def agent(tmp_path: Path, **options: Any) -> BoAgent:
    from qas.runs import Recorder

    problem = qas.load_problem("h2-2")
    config = {
        "agent": "bo",
        "options": SMALL | options,
        "seed": 3,
        "budget": {"evaluations": 1000},
        "max_gates": 6,
        "gates": ["rx", "ry", "rz", "cx"],
        "evaluator": {},
    }
    (tmp_path / "run").mkdir()
    player = BoAgent(**config["options"])
    launch._build(config, problem, None, player, Recorder(tmp_path / "run"))
    return player


def seen(player: BoAgent, count: int) -> None:
    rng, circuits = np.random.default_rng(0), [player.space.circuit(row) for row in player.rows[:count]]
    circuits = [circuit.with_angles(rng.uniform(-3, 3, circuit.n_angles)) for circuit in circuits]
    player._note(circuits, 0.1 * np.arange(count))


def test_one_qubit_has_no_place_for_two_qubit_gates(tmp_path: Path) -> None:
    found = run(tmp_path, qas.problem({"X": 0.3, "Z": 0.4}), steps=8)
    assert found.best.energy == pytest.approx(-0.5, abs=1e-6)


def test_new_circuits_are_new(tmp_path: Path) -> None:
    player = agent(tmp_path)
    seen(player, 8)
    batch = player._new_circuits()
    rows = np.stack([player.space.row(circuit) for circuit in batch])
    keys = player._keys(rows)
    assert len(batch) == 4 == len(set(keys)) and not set(keys) & player._tried
    assert player.rules.permitted(rows).all()


def test_parents_are_the_newest_of_equals_and_small_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a plateau the search drifts; where few two-qubit gates are asked for, larger circuits are left alone."""
    player = agent(tmp_path)
    plateau = [Circuit(2, [("ry", 0, 0.1 * k)] + [("cx", (0, 1)), ("ry", 1, 0.3)] * (k % 2)) for k in range(1, 31)]
    player._note(plateau, np.zeros(30))
    chosen: list[Circuit] = []
    monkeypatch.setattr(player.changes, "several", lambda c, more, rng: chosen.append(c) or c)
    player._children(np.array([c.two_qubit_gates == 0 for c in player.circuits]), 0)
    assert {c.two_qubit_gates for c in chosen} == {0}
    assert {c.angles[0] for c in chosen} <= {c.angles[0] for c in plateau[-20:]}


def test_most_changed_circuits_begin_near_the_angles_of_their_parent(tmp_path: Path) -> None:
    player = agent(tmp_path)
    seen(player, 8)
    player.trying = player._new_circuits()
    rows = np.stack([player.space.row(circuit) for circuit in player.trying])
    assert player.circuits_of(rows[-2:]) == player.trying[-2:]
    assert player.start_angles(player.trying[0], 0).tolist() == player.trying[0].angles.tolist()
    parent = Circuit(2, [("ry", 0, 1.5), ("cx", (0, 1)), ("ry", 1, -2.5)])
    moved = np.array([player._begun(parent).angles - parent.angles for _ in range(200)])
    near = (np.abs(moved) < 0.5).all(axis=1).mean()
    assert 0.55 < near < 0.85


def test_when_every_reduced_form_is_known_the_search_goes_on(tmp_path: Path) -> None:
    """Of one gate on two qubits."""
    found = run(tmp_path / "run", max_gates=1, steps=20)
    assert found.architectures == 20
    check_ledger(found)


@pytest.mark.parametrize("mode", MODES)
def test_every_surrogate_and_acquisition_searches(mode: str, tmp_path: Path) -> None:
    surrogates = [name for name in SURROGATES if name != "botorch" or importlib.util.find_spec("botorch")]
    for surrogate, acquisition in zip(itertools.cycle(surrogates), ACQUISITIONS, strict=False):
        extra = {"surrogate": surrogate, "acquisition": acquisition, "mode": mode, "initial": 4}
        check_ledger(run(tmp_path / acquisition, extra=extra, steps=9))
    assert len(surrogates) <= len(ACQUISITIONS)


def test_an_instance_can_be_handed_over(tmp_path: Path) -> None:
    from qas.agents.pool.acquisitions import LevelSet

    named = run(tmp_path / "a", extra={"acquisition": "level-set:threshold=0.95"}, steps=12)
    options: dict[str, Any] = SMALL | {"acquisition": LevelSet(threshold=0.95)}
    player = BoAgent(**options)
    for name in ("b", "c"):  # and to several searches
        found = qas.search("h2-2", agent=player, out=tmp_path / name, steps=12, report=False)
        assert record(found) == record(named)


def test_a_password_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qas.agents.pool import ledger

    real = f"sqlite:///{tmp_path}/shared.db"
    opened: list[str] = []
    monkeypatch.setattr(
        ledger, "_open_storage", lambda where: opened.append(where) or optuna.storages.get_storage(real)
    )
    where = "postgresql://me:s3cr3t@host/db"
    found = run(tmp_path / "run", extra={"storage": where}, steps=4)
    assert all("s3cr3t" not in p.read_text() for p in found.path.rglob("*.json"))
    with pytest.raises(QasError, match="is not kept with the run: give the storage again") as caught:
        qas.agents.resume(found.path, steps=6, report=False)
    assert "\n" not in str(caught.value)
    assert qas.agents.resume(found.path, steps=6, options={"storage": where}, report=False).architectures == 6
    monkeypatch.setenv(STORAGE, where)
    assert qas.agents.resume(found.path, steps=8, report=False).architectures == 8
    assert set(opened) == {where} and "s3cr3t" not in (found.path / "config.json").read_text()


def test_options_of_older_runs_are_understood(tmp_path: Path) -> None:
    assert BoAgent.todays_options({"proposer": "dngo", "mode": "pool"}) == {"surrogate": "dngo", "mode": "pool"}
    with pytest.raises(QasError, match="Optuna's sampler"):
        BoAgent.todays_options({"proposer": "optuna"})


def test_leaving_the_pool_beats_drawing_from_it(tmp_path: Path) -> None:
    """Mean best error over seeds, the same number of circuits, a pool too small to hold a good one."""
    errors: dict[str, list[float]] = {"bo": [], "random": []}
    for seed in range(2):
        for name in errors:
            options = SMALL | {"batch": 8} if name == "bo" else {"pool_size": 60}
            found = qas.search(
                "tfim-4", agent=name, options=options | {"encoder": "q4"}, out=tmp_path / f"{name}{seed}", seed=seed,
                steps=60, report=False,
            )  # fmt: skip
            errors[name].append(found.best.error)
    assert np.mean(errors["bo"]) < 0.8 * np.mean(errors["random"]), errors


# ---------------------------------------------------------------------- shared studies
def shared(kind: str, folder: Path) -> str:
    return f"sqlite:///{folder}/shared.db" if kind == "sqlite" else str(folder / "shared.log")


def observed(where: str) -> list[Any]:
    return [(t.user_attrs["owner"], t.user_attrs["number"]) for t in trials(where)]


@pytest.mark.parametrize(("kind", "mode"), [("journal", "open"), ("sqlite", "pool")])
def test_a_second_run_learns_from_the_first(
    kind: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same seed and pool: without the first run's circuits the second would repeat them."""
    where = shared(kind, tmp_path)
    extra = {"mode": mode, "storage": where, "pool_size": 400}
    first = run(tmp_path / "a", steps=12, extra=extra)
    players: list[BoAgent] = []
    original = BoAgent.run

    def watch(self: BoAgent) -> None:
        players.append(self)
        original(self)

    monkeypatch.setattr(BoAgent, "run", watch)
    second = run(tmp_path / "b", steps=12, extra=extra)
    (player,) = players
    assert len(player.energies) >= 12 + 8, "those of the first run, and its own but for the batch in flight"
    assert set(first.history()["energy"].round(6)) <= set(player.energies.round(6))
    if mode == "pool":
        assert len(player.searcher.told[0]) >= 12
    check_ledger(first, where)
    check_ledger(second, where)
    forms = player._keys(np.stack([player.space.row(Circuit(*t.user_attrs["circuit"])) for t in trials(where)]))
    assert len(set(forms)) == 24, "nothing was evaluated twice"


@pytest.mark.parametrize("mode", MODES)
def test_runs_that_take_turns(mode: str, tmp_path: Path) -> None:
    """A whole run happens in the middle of another one; then both have all circuits in one study."""
    where = shared("journal", tmp_path)
    extra = {"mode": mode, "storage": where, "pool_size": 30}
    inner: list[Run] = []
    with pytest.MonkeyPatch.context() as patch:
        here = [True]  # the inner run comes by the same place
        call_at(7, lambda: here.pop() and inner.append(run(tmp_path / "b", steps=12, extra=extra)) if here else None,
                patch)  # fmt: skip
        outer = run(tmp_path / "a", steps=20, extra=extra)
    check_ledger(outer, where)
    check_ledger(inner[0], where)
    assert len(trials(where)) == 32


@pytest.mark.parametrize("mode", MODES)
def test_a_killed_run_in_a_shared_study(mode: str, finished: Any, tmp_path: Path) -> None:
    """Nobody else was there: it ends as if unbroken. Somebody was: what it had entered stays true."""
    where = shared("journal", tmp_path)
    extra = {"mode": mode, "storage": where}
    killed(tmp_path / "a", 13, checkpoint_every=0.0, extra=extra)
    assert [t.state for t in trials(where)].count(State.RUNNING) == 1
    resumed = qas.agents.resume(tmp_path / "a", report=False)
    assert record(resumed) == record(finished(mode))
    check_ledger(resumed, where)
    killed(tmp_path / "b", 13, checkpoint_every=1e9, extra=extra)
    third = run(tmp_path / "c", steps=8, extra=extra, seed=5)
    again = qas.agents.resume(tmp_path / "b", report=False)
    assert again.architectures == STEPS
    check_ledger(third, where)
    names = (tmp_path / "b" / "study.owner").read_text().strip()
    own = [t for t in trials(where, names) if t.state is State.COMPLETE]
    numbers = [t.user_attrs["number"] for t in own]
    assert set(numbers) == set(range(STEPS))
    energies = again.history()["energy"]
    for number in range(STEPS):
        values = [t.value for t in own if t.user_attrs["number"] == number]
        assert any(v == pytest.approx(energies[number], rel=1e-11) for v in values)
    for trial in own:
        circuit = Circuit.from_qasm(trial.user_attrs["qasm"])
        energy = make_simulator(None).expectation(circuit, again.problem.hamiltonian)
        assert energy == pytest.approx(trial.value, abs=1e-9)


def test_a_new_run_in_the_folder_of_an_old_one(tmp_path: Path) -> None:
    """As on two machines with the same folders: they are two runs all the same."""
    import shutil

    where = shared("journal", tmp_path)
    for seed in (0, 1):
        found = run(tmp_path / "run", steps=8, seed=seed, extra={"storage": where})
        check_ledger(found, where)
        shutil.rmtree(tmp_path / "run")
    assert len(trials(where)) == 16


@pytest.mark.parametrize("mode", MODES)
def test_a_pool_that_others_hold_entirely(mode: str, tmp_path: Path) -> None:
    """Every candidate is running elsewhere, for ever: the search still spends its budget."""
    where = shared("journal", tmp_path)
    player = agent(tmp_path, pool_size=4, storage=where)
    for number, row in enumerate(player.rows):
        player.ledger.begin(number, player.space.circuit(row))
    found = run(tmp_path / "b", steps=12, seed=3, extra={"mode": mode, "pool_size": 4, "storage": where}, max_gates=6)
    assert found.architectures == 12


def test_a_study_of_another_space_is_no_obstacle(tmp_path: Path) -> None:
    where = shared("journal", tmp_path)
    run(tmp_path / "a", "tfim-4", steps=6, extra={"storage": where, "study": "mine"})
    with pytest.warns(UserWarning, match="6 circuits that were judged by another problem"):
        found = run(tmp_path / "b", steps=6, extra={"storage": where, "study": "mine"})
    check_ledger(found, where)


def test_a_shared_study_keeps_problems_apart(tmp_path: Path) -> None:
    """Both are called custom; what differs by rounding only is the same problem."""
    extra = {"storage": shared("journal", tmp_path), "mode": "pool", "pool_size": 5, "initial": 2}
    problems = [qas.problem({"ZZ": weight, "XI": 0.5, "IX": 0.5}) for weight in (1.0, 1.0 + 1e-15, 100.0)]
    run(tmp_path / "0", problems[0], steps=3, extra=extra, max_gates=4)
    again = run(tmp_path / "1", problems[1], steps=2, extra=extra, max_gates=4)
    with pytest.warns(UserWarning, match="5 circuits that were judged by another problem"):
        other = run(tmp_path / "2", problems[2], steps=5, extra=extra, max_gates=4)
    assert again.architectures == 2 and other.architectures == 5 and other.best.energy < -50


def test_a_circuit_that_a_dead_run_held_is_asked_in_the_end(tmp_path: Path) -> None:
    where = shared("journal", tmp_path)
    player = agent(tmp_path, pool_size=5, storage=where)
    player.ledger.begin(0, player.space.circuit(player.rows[0]))
    extra = {"mode": "pool", "pool_size": 5, "storage": where}
    run(tmp_path / "heir", steps=5, seed=3, extra=extra, max_gates=6)
    asked = [json.dumps(trial.user_attrs["circuit"]) for trial in trials(where) if trial.state.is_finished()]
    assert len(set(asked)) == len(asked) == 5 and len(trials(where)) == 6


# ---------------------------------------------------------------------- input
BAD: list[tuple[dict[str, Any], str]] = [
    ({"mode": "opne"}, "did you mean 'open'"),
    ({"surrogate": "botorhc"}, "did you mean 'botorch'"),
    ({"surrogate": 3}, "must be"),
    ({"acquisition": "level-set:treshold=0.95"}, "did you mean 'threshold'"),
    ({"acquisition": "ei", "mode": "pool"}, "log-ei"),
    ({"batch": 0}, "batch"),
    ({"batch": 2.5}, "must be int"),
    ({"initial": 0}, "initial"),
    ({"batch": "5"}, "must be int"),
    ({"storage": 5}, "must be"),
    ({"storage": "study.db"}, "URL such as"),
    ({"storage": "postgresql://me:s3cr3t@127.0.0.1:1/db"}, "does not answer"),
    ({"storage": "sqlite:////nowhere/x.db"}, "does not answer"),
    ({"storage": "/nowhere/x.log"}, "does not answer"),
    ({"storages": "x"}, "did you mean 'storage'"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=[str(bad[0]) for bad in BAD])
def test_wrong_options_are_one_line_and_leave_no_folder(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(QasError, match=words) as caught:
        run(tmp_path / "run", extra=options)
    assert "\n" not in str(caught.value) and "s3cr3t" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_published_encoder(tmp_path: Path) -> None:
    """Where it has no decoder the search leaves the pool all the same: it changes circuits, not latents."""
    from qas.encoders import train

    space = CircuitSpace(2, ("rx", "cx"), max_gates=4, min_gates=2, max_depth=0)
    rows = space.sample(40, np.random.default_rng(0))
    folder = train(rows, space, model="url-v1", epochs=1, sizes={"d": 2}).save(tmp_path / "url")
    for mode in MODES:
        extra = {"encoder": str(folder), "mode": mode, "features": "latent"}
        check_ledger(run(tmp_path / mode, steps=8, extra=extra))


def test_open_mode_needs_no_encoder(tmp_path: Path) -> None:
    """Any number of qubits, and a device's own gates."""
    options = {name: value for name, value in SMALL.items() if name != "features"}
    found = qas.search("tfim-3", agent="bo", steps=12, options=options, out=tmp_path / "a", report=False)
    assert found.architectures == 12
    device = qas.devices.load_device("fake_brisbane")
    found = qas.search(
        "tfim-3", agent="bo", device=device, objective="noisy", steps=12, options=options,
        out=tmp_path / "b", report=False,
    )  # fmt: skip
    assert {gate.name for gate in found.best.circuit} <= set(device.native_gates)
