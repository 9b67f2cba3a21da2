"""Runs: the front against brute force, folders from disk, and files that are never half written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qas
from qas.circuits import Circuit
from qas.errors import RunError
from qas.files import to_json
from qas.runs import HISTORY_COLUMNS, VERSION, Front, Recorder, Result, Run, envelope, load_run, lowest_error


def _circuit(two: int, one: int) -> Circuit:
    return Circuit(2, [("cx", (0, 1))] * two + [("rx", 0, 0.1)] * one)


_offers = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 20), st.floats(-1e-3, 1.0, allow_nan=False)), min_size=1, max_size=40
)


def _filled(offers: list[tuple[int, int, float]], margin: float = 0.0) -> Front:
    front = Front(margin)
    for count, (two, one, error) in enumerate(offers):
        front.add(_circuit(two, one), error - 1.0, error, count)
    return front


# ---------------------------------------------------------------------- front
@settings(deadline=None, max_examples=60)
@given(_offers)
def test_front_against_brute_force(offers: list[tuple[int, int, float]]) -> None:
    front = _filled(offers)
    held = {(c.two_qubit_gates, len(c)): error for error, _, c, _ in front.points}
    best: dict[tuple[int, int], float] = {}
    for two, one, error in offers:
        size = (two, two + one)
        best[size] = min(best.get(size, np.inf), error)
    slack = 1e-9
    for (two, gates), error in held.items():
        assert error >= best[two, gates] - slack
        assert all(e > error - slack for (t, g), e in best.items() if t <= two and g <= gates)
    # Whatever was left out is matched by something that is no larger.
    for (two, gates), error in best.items():
        assert any(t <= two and g <= gates and e <= error + slack for (t, g), e in held.items())


@settings(deadline=None, max_examples=30)
@given(_offers)
def test_front_with_margin(offers: list[tuple[int, int, float]]) -> None:
    front = _filled(offers, margin=1e-3)
    points = [(c.two_qubit_gates, len(c), error) for error, _, c, _ in front.points]
    for two, gates, error in points:
        for t, g, e in points:
            if (t, g) != (two, gates) and t <= two and g <= gates:
                assert error < e
    best = front.best
    lowest = min(error for *_, error in offers)
    assert best is not None and lowest <= best[0] <= lowest + 1e-12 + 1e-3 * abs(lowest)


@settings(deadline=None, max_examples=30)
@given(_offers)
def test_front_survives_json(offers: list[tuple[int, int, float]]) -> None:
    front = _filled(offers, margin=1e-3)
    again = Front.from_json(json.loads(to_json(front.to_json())))
    assert again.points == front.points


def test_front_refuses_nan_and_repeats() -> None:
    front = Front()
    assert front.best is None and front.points == []
    assert not front.add(_circuit(0, 1), float("nan"), float("nan"), 1)
    assert front.add(_circuit(0, 1), 0.5, 0.5, 1)
    assert not front.add(_circuit(0, 1), 0.5, 0.5, 2)
    assert front.add(_circuit(0, 1), 0.4, 0.4, 3)
    assert len(front) == 1


@settings(deadline=None, max_examples=40)
@given(_offers)
def test_envelope_against_brute_force(offers: list[tuple[int, int, float]]) -> None:
    results = [Result(_circuit(two, one), e, e, e, e, 0) for two, one, e in offers]
    kept = envelope(results)
    for first, second in zip(kept, kept[1:], strict=False):
        assert first.two_qubit_gates < second.two_qubit_gates and first.error > second.error
    for two in range(13):
        below = [r.error for r in results if r.two_qubit_gates <= two]
        found = [r.error for r in kept if r.two_qubit_gates <= two]
        assert not below or min(below) <= min(found) <= min(below) + 1e-11


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_energies_equal_up_to_rounding_the_smaller_circuit_wins(order: tuple[int, int]) -> None:
    """9 gates, 6 of them on two qubits, at -2.2e-16 are no better than 6 gates, 3 on two qubits, at +2.2e-16."""
    large, small = (6, 3, -2.2e-16), (3, 3, 2.2e-16)
    offers = [(large, small)[i] for i in order]
    front = _filled(offers, margin=1e-3)
    assert len(front) == 1 and front.best is not None and front.best[2].two_qubit_gates == 3
    results = [Result(_circuit(two, one), e - 100.0, e, e, e, 0) for two, one, e in offers]
    assert lowest_error(results).gates == 6
    assert [r.gates for r in envelope(results)] == [6]


# ---------------------------------------------------------------------- writing a run
def test_recorder_wants_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="new or empty"):
        Recorder(tmp_path).create({})
    with pytest.raises(RunError, match="new or empty"):
        Recorder(tmp_path / "file").create({})
    assert (tmp_path / "file").read_text() == "mine"


def test_no_space_for_the_history(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run")
    recorder.create({})
    recorder.close()
    recorder._stream = open("/dev/full", "a")  # noqa: SIM115
    recorder.row((1, 0.1, -1.0, 0.1, 2, 1, 1, 0.1))
    with pytest.raises(RunError, match="no space left"):
        recorder.flush()
    with pytest.raises(RunError, match="no space left"):
        recorder.close()


# ---------------------------------------------------------------------- runs
@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return qas.search("h2-2", agent="evolution", noise="ibm-mumbai", steps=30, seed=1, out=folder, report=False)


def test_load_run_gives_the_same_run(run: Run) -> None:
    again = load_run(run.path)
    assert again == run and again.best == run.best
    assert again.status == "finished" and again.architectures == 30 and again.seed == 1 and again.agent == "evolution"
    assert again.problem == qas.load_problem("h2-2") and again.noise == qas.load_noise("ibm-mumbai")
    assert str(run.path) in repr(run)


def test_energies_of_a_run_are_reproducible(run: Run) -> None:
    for result in run.front:
        noisy = qas.evaluate(result.circuit, run.problem, noise=run.noise)
        assert noisy.energy == pytest.approx(result.energy, abs=1e-10)
        assert noisy.noise_free_energy == pytest.approx(result.noise_free_energy, abs=1e-10)
        assert result.error == pytest.approx(result.energy - run.problem.exact)
    assert qas.Circuit.from_qasm((run.path / "best.qasm").read_text()) == run.best.circuit


def test_history(run: Run) -> None:
    rows = run.history()
    assert rows.dtype.names == HISTORY_COLUMNS
    assert 0 < len(rows) < run.architectures == 30, "evolution begins without noise, and notes nothing of that"
    assert rows["evaluations"][-1] == run.evaluations
    assert (np.diff(rows["best_error"]) <= 0).all()
    assert rows["best_error"][-1] == pytest.approx(run.best.error, rel=1e-2)


def _copy(run: Run, target: Path) -> Path:
    import shutil

    return Path(shutil.copytree(run.path, target))


def test_history_with_half_a_last_line(run: Run, tmp_path: Path) -> None:
    folder = _copy(run, tmp_path / "run")
    text = (folder / "history.csv").read_text()
    (folder / "history.csv").write_text(text[: text.rindex(",")])
    assert (load_run(folder).history() == run.history()[:-1]).all()
    (folder / "history.csv").write_text(text.splitlines()[0][:5])
    assert len(load_run(folder).history()) == 0
    (folder / "history.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RunError, match="damaged"):
        load_run(folder).history()
    (folder / "history.csv").unlink()
    with pytest.raises(RunError, match="is missing"):
        load_run(folder).history()


def test_missing_and_newer_runs(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run folder"):
        load_run(tmp_path / "nothing")
    with pytest.raises(RunError, match="not a run folder"):
        load_run(tmp_path)
    with pytest.raises(RunError, match="got a file"):
        load_run(run.path / "config.json")
    folder = _copy(run, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"version": VERSION + 1}))
    with pytest.raises(RunError, match="newer version"):
        load_run(folder)
    for name, value in [("agent", 3), ("budget", None), ("problem", []), ("evaluator", "x"), ("noise", 1)]:
        (folder / "config.json").write_text(json.dumps(config | {name: value}))
        with pytest.raises(RunError, match=f"damaged at {name}"):
            load_run(folder)
    del config["gates"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="lacks gates"):
        load_run(folder)


@pytest.mark.parametrize("content", ["[]", "5", "{}", '{"status": "finished", "evaluations": "x"}', "{"])
def test_damaged_summary(run: Run, tmp_path: Path, content: str) -> None:
    folder = _copy(run, tmp_path / "run")
    (folder / "summary.json").write_text(content)
    with pytest.raises(RunError, match="summary"):
        load_run(folder)


@pytest.mark.parametrize("content", ["{", "[]\n", '{"energy": null}\n', "5\n", "\x00\n"])
def test_damaged_front(run: Run, tmp_path: Path, content: str) -> None:
    folder = _copy(run, tmp_path / "run")
    (folder / "circuits.jsonl").write_text(content)
    with pytest.raises(RunError, match="front"):
        load_run(folder)


def test_a_run_killed_early_has_no_circuit(run: Run, tmp_path: Path) -> None:
    folder = _copy(run, tmp_path / "run")
    for name in ("circuits.jsonl", "summary.json", "best.qasm"):
        (folder / name).unlink()
    early = load_run(folder)
    assert early.status == "running" and early.front == [] and "none" in repr(early)
    with pytest.raises(RunError, match="no circuit yet"):
        _ = early.best


def test_equal_seeds_give_equal_runs(run: Run, tmp_path: Path) -> None:
    again = qas.search(
        "h2-2", agent="evolution", noise="ibm-mumbai", steps=30, seed=1, out=tmp_path / "run", report=False
    )
    assert again.front == run.front


def test_a_front_read_back_decides_as_the_one_that_was_saved() -> None:
    rng = np.random.default_rng(41)
    for _ in range(60):
        kept = Front()
        restored: Front | None = None
        for k in range(80):
            gates = [("cx", (0, 1))] * int(rng.integers(5)) + [("x", 0)] * int(rng.integers(8))
            error = float(10 ** rng.uniform(-3.002, -3))  # many are equal within the margin
            kept.add(Circuit(2, gates), error, error, k)
            if restored is not None:
                restored.add(Circuit(2, gates), error, error, k)
            if k == 40:
                restored = Front.from_json(kept.to_json())
        assert restored is not None and restored.to_json() == kept.to_json()
