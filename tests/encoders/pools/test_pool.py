"""Pools on disk: labels against other optimizers, builds that were cut off, and files that were touched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import qas.files
from qas.circuits import Circuit
from qas.encoders.pools import pool as pools
from qas.encoders.pools.pool import Labels, LabelSettings, Pool, PoolError, PoolProgress, TabularProblem, build_pool
from qas.encoders.pools.spaces import CircuitSpace
from qas.errors import QasError, UnknownNameError
from qas.files import sha256
from qas.noise import load_noise
from qas.optimizers import minimize
from qas.problems import load_problem, problem
from qas.scores import entanglement_score, published_score
from qas.simulators import make_simulator
from qas.simulators.dense import dense_expectation

SPACE = CircuitSpace(2, ("x", "h", "rx", "ry", "u", "cx", "cz"), max_gates=5, min_gates=1, max_depth=0)
SIZE, SHARD, TASK = 50, 20, "h2-2"
SETTINGS = LabelSettings(starts=3, max_evaluations=60)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "SHARD", SHARD)


def build(folder: Path, **options: Any) -> Pool:
    return build_pool(folder, SPACE, SIZE, **{"seed": 3, "tasks": [TASK], "settings": SETTINGS, "jobs": 1, **options})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool") / "p"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, "SHARD", SHARD)
        build(folder)
    return folder


@pytest.fixture
def pool(built: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(built, tmp_path / "copy"))


@pytest.fixture
def labelled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Shards that are labelled from now on."""
    found: list[int] = []
    whole = pools._label_shard

    def counted(*arguments: Any) -> tuple[int, str, int]:
        found.append(arguments[-1])
        return whole(*arguments)

    monkeypatch.setattr(pools, "_label_shard", counted)
    return found


def manifest(folder: Path) -> dict[str, Any]:
    data = json.loads((folder / "manifest.json").read_text())
    assert isinstance(data, dict)
    return data


def write_manifest(folder: Path, data: dict[str, Any]) -> None:
    (folder / "manifest.json").write_text(json.dumps(data))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def assert_equal(one: Labels, other: Labels) -> None:
    np.testing.assert_array_equal(one.energies, other.energies)
    np.testing.assert_array_equal(one.evaluations, other.evaluations)
    assert len(one.angles) == len(other.angles)
    for a, b in zip(one.angles, other.angles, strict=True):
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------------- circuits
def test_circuits_are_distinct_and_of_the_space(built: Path) -> None:
    opened = Pool(built)
    assert len(opened) == SIZE and opened.tasks == [TASK] and opened.space == SPACE and opened.seed == 3
    assert len({opened.circuit(i).key for i in range(SIZE)}) == SIZE
    np.testing.assert_array_equal(opened.rows, SPACE.sample_unique(SIZE, np.random.default_rng(3)))
    assert "50 circuits" in repr(opened) and TASK in repr(opened)
    assert sorted(p.name for p in (built / "circuits").iterdir()) == [f"0000{i}.parquet" for i in range(3)]


def test_shards_are_readable_by_anyone(built: Path) -> None:
    import pyarrow.parquet as pq

    opened = Pool(built)
    table = pq.read_table(built / "circuits" / "00001.parquet").to_pydict()
    labels = pq.read_table(built / "labels" / TASK / "00001.parquet").to_pydict()
    found = opened.labels(TASK)
    for k in range(SHARD):
        circuit = opened.circuit(SHARD + k)
        assert (table["gates"][k], table["depth"][k]) == (len(circuit), circuit.depth)
        assert table["two_qubit_gates"][k] == circuit.two_qubit_gates
        assert labels["energy"][k] == found.best[SHARD + k] and labels["spread"][k] == found.spread[SHARD + k]
    placed = manifest(built)["placed"]
    assert [placed[token] for token in table["tokens"][0] if token >= 0] == [
        [g.name, *g.qubits] for g in opened.circuit(SHARD)
    ]


# ---------------------------------------------------------------------- labels
def test_labels_are_optimized_energies(built: Path) -> None:
    """Against another optimizer with more starts: never below the minimum, and almost always there."""
    opened, target = Pool(built), load_problem(TASK)
    labels = opened.labels(TASK)
    simulator, rng = make_simulator(), np.random.default_rng(0)
    found = []
    for i in range(SIZE):
        circuit = opened.circuit(i)
        objective = simulator.objective(circuit, target.hamiltonian)
        starts = rng.uniform(-np.pi, np.pi, (8 if circuit.n_angles else 1, circuit.n_angles))
        runs = [minimize(objective, s, method="rotosolve" if s.size else "l-bfgs", tolerance=1e-10) for s in starts]
        found.append(min(run.fun for run in runs))
    gap = labels.best - np.array(found)
    assert gap.min() > -1e-6 and (np.abs(gap) < 1e-6).mean() > 0.95
    assert len(np.unique(labels.best.round(6))) >= 5, "the labels must differ"
    assert labels.best.min() >= target.exact - 1e-9


def test_angles_reproduce_the_best_energy(built: Path) -> None:
    opened = Pool(built)
    labels, table = opened.labels(TASK), opened.table(TASK)
    np.testing.assert_array_equal(labels.best, labels.energies.min(axis=1))
    np.testing.assert_allclose(labels.spread, np.std(labels.energies, axis=1), atol=0)
    for i in range(SIZE):
        assert len(labels.angles[i]) == opened.circuit(i).n_angles
        energy = dense_expectation(table.circuit(i), labels.problem.hamiltonian)
        assert energy == pytest.approx(labels.best[i], abs=1e-10)


def test_every_start_and_every_evaluation_is_counted(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Pool(built)
    labels = opened.labels(TASK)
    assert labels.energies.shape == (SIZE, 3) and labels.settings == SETTINGS and labels.noise is None
    assert labels.problem == load_problem(TASK)
    free = np.array([not opened.circuit(i).n_angles for i in range(SIZE)])
    assert 3 <= free.sum() <= SIZE - 10
    assert (labels.evaluations[free] == 1).all() and (labels.spread[free] < 1e-15).all()
    assert (labels.evaluations[~free] >= 3).all() and (labels.evaluations[~free] <= 180).all()
    # The first shard again, with the starts as documented: uniform in [-π, π), each optimized on its own.
    seen: list[tuple[np.ndarray, float, int]] = []

    def watched(objective: Any, start: np.ndarray, **options: Any) -> Any:
        result = minimize(objective, start, **options)
        seen.append((start, result.fun, result.nfev))
        return result

    monkeypatch.setattr("qas.optimizers.minimize", watched)
    pools._label_shard(built, TASK, SETTINGS, manifest(built)["labels"][TASK]["identity"], 1, 0)
    first = int(np.flatnonzero(~free)[0])
    mine = seen[first : first + 3]
    assert [fun for _, fun, _ in mine] == labels.energies[first].tolist()
    assert sum(nfev for *_, nfev in mine) == labels.evaluations[first]
    starts = np.concatenate([start for start, *_ in seen])
    assert starts.min() < -2.5 and starts.max() > 2.5 and np.abs(starts).max() <= np.pi
    assert len(np.unique(starts)) == len(starts)


def test_more_starts_never_lie_higher(built: Path, tmp_path: Path) -> None:
    lone = build(tmp_path / "one", settings=LabelSettings(starts=1, max_evaluations=1)).labels(TASK)
    best = Pool(built).labels(TASK).best
    assert (lone.evaluations == 1).all()
    assert (lone.best >= best - 1e-9).all() and (lone.best > best + 1e-3).sum() > 10


def test_two_processes_make_the_same_pool(built: Path, tmp_path: Path) -> None:
    seen: list[PoolProgress] = []
    build(tmp_path / "p", jobs=2, on_progress=seen.append)
    assert files(tmp_path / "p") == files(built)
    assert [(p.task, p.size) for p in seen] == [("", SIZE)] + [(TASK, SIZE)] * 4
    assert seen[1].done == 0 and [p.done for p in seen] == sorted(p.done for p in seen) and seen[-1].done == SIZE


def test_another_seed_is_another_pool(built: Path, tmp_path: Path) -> None:
    other = build(tmp_path / "p", seed=4)
    assert (other.rows != Pool(built).rows).any()


def test_noisy_labels(pool: Path, labelled: list[int]) -> None:
    opened = build(pool, noise="depolarizing", settings=LabelSettings(starts=1, max_evaluations=40))
    name = f"{TASK}@{load_noise('depolarizing').name}"  # type: ignore[union-attr]
    assert opened.tasks == [TASK, name] and labelled == [0, 1, 2]
    labels, clean = opened.labels(name), opened.labels(TASK)
    assert labels.noise == load_noise("depolarizing") and labels.problem == clean.problem
    table = opened.table(name)
    for i in range(0, SIZE, 7):
        energy = dense_expectation(table.circuit(i), labels.problem.hamiltonian, labels.noise)
        assert energy == pytest.approx(labels.best[i], abs=1e-9)
    assert (labels.best - clean.best).max() > 1e-3


def test_own_problems_and_several_tasks(pool: Path, labelled: list[int]) -> None:
    mine = problem({"ZZ": 1.0, "XI": 0.5}, name="mine")
    opened = build(pool, tasks=[TASK, mine, "tfim-2"])
    assert opened.tasks == [TASK, "mine", "tfim-2"] and labelled == [0, 1, 2] * 2
    assert opened.labels("mine").problem == mine
    with pytest.raises(PoolError, match="labels of mine made with other settings"):
        build(pool, tasks=[problem({"ZZ": 1.0, "XI": 0.6}, name="mine")])
    with pytest.raises(QasError, match="two different tasks are called other"):
        build(pool, tasks=[problem({"ZZ": 1.0}, name="other"), problem({"XX": 1.0}, name="other")])


# ---------------------------------------------------------------------- builds that were cut off
def test_a_complete_pool_is_left_alone(pool: Path, labelled: list[int]) -> None:
    before = files(pool)
    build(pool)
    assert files(pool) == before and labelled == []


@pytest.mark.parametrize("forgotten", [[1], [0, 1, 2], None])
def test_shards_the_manifest_does_not_know_are_taken_over(
    pool: Path, built: Path, labelled: list[int], forgotten: list[int] | None
) -> None:
    data = manifest(pool)
    if forgotten is None:
        data["labels"] = {}
    else:
        for shard in forgotten:
            data["labels"][TASK]["shards"][shard] = None
    write_manifest(pool, data)
    if forgotten is not None:
        assert Pool(pool).tasks == []
        with pytest.raises(PoolError, match=rf"not complete \({len(forgotten)} of 3 shards are missing\)"):
            Pool(pool).labels(TASK)
    build(pool)
    assert labelled == [] and files(pool) == files(built)


def test_missing_shards_are_made_again_alone(pool: Path, built: Path, labelled: list[int]) -> None:
    data = manifest(pool)
    data["labels"][TASK]["shards"][2] = None
    write_manifest(pool, data)
    (pool / "labels" / TASK / "00002.parquet").unlink()
    build(pool)
    assert labelled == [2] and files(pool) == files(built)


@pytest.mark.parametrize("kept", [0, 3, 200, -9, -1])
def test_a_cut_shard_is_never_used(pool: Path, built: Path, labelled: list[int], kept: int) -> None:
    file = pool / "labels" / TASK / "00001.parquet"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(PoolError, match=r"cut short or was changed .*00001\.parquet"):
        Pool(pool).labels(TASK)
    data = manifest(pool)
    data["labels"][TASK]["shards"][1] = None
    write_manifest(pool, data)
    build(pool)
    assert labelled == [1] and files(pool) == files(built)


def test_a_changed_shard_is_never_used(pool: Path, built: Path) -> None:
    """One byte anywhere in a shard whose hash nobody knows: the labels are right all the same."""
    file, expected = pool / "labels" / TASK / "00001.parquet", Pool(built).labels(TASK)
    whole = file.read_bytes()
    data = manifest(pool)
    data["labels"][TASK]["shards"][1] = None
    for position in np.linspace(0, len(whole) - 1, 15).astype(int).tolist():
        damaged = bytearray(whole)
        damaged[position] ^= 0x24
        file.write_bytes(damaged)
        write_manifest(pool, data)
        assert_equal(build(pool).labels(TASK), expected)


def test_shards_of_another_task_are_not_taken_over(pool: Path, labelled: list[int]) -> None:
    """The name of the file says nothing: same folder, other settings."""
    data = manifest(pool)
    data["labels"] = {}
    write_manifest(pool, data)
    opened = build(pool, settings=LabelSettings(starts=3, max_evaluations=61))
    assert labelled == [0, 1, 2] and opened.labels(TASK).settings.max_evaluations == 61


def test_interrupted_builds_go_on(tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    whole = pools._label_shard

    def interrupted(*arguments: Any) -> tuple[int, str, int]:
        if len(done) % 2:
            done.append(-1)
            raise KeyboardInterrupt
        done.append(arguments[-1])
        return whole(*arguments)

    monkeypatch.setattr(pools, "_label_shard", interrupted)
    folder = tmp_path / "p"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            build(folder)
    build(folder)
    assert done == [0, -1, 1, -1, 2]
    assert files(folder) == files(built)


def test_a_build_cut_off_while_circuits_are_drawn(tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    whole, allowed = pools.write_atomic, [0]

    def once(path: Path, content: Any) -> None:
        if len(written) == allowed[0]:
            raise KeyboardInterrupt
        written.append(path)
        whole(path, content)

    for place in (pools, qas.files):
        monkeypatch.setattr(place, "write_atomic", once)
    for allowed[0] in (0, 2, 3):
        written.clear()
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "p", tasks=[])
        assert not (tmp_path / "p" / "manifest.json").exists()
        with pytest.raises(PoolError, match="no manifest"):
            Pool(tmp_path / "p")
    monkeypatch.undo()
    monkeypatch.setattr(pools, "SHARD", SHARD)
    # A kill between writing and renaming leaves a temporary file.
    (tmp_path / "p" / ".manifest.json.abc123").write_text("{")
    (tmp_path / "p" / "circuits" / ".00001.parquet.xyz").write_bytes(b"PAR1")
    build(tmp_path / "p")
    left = {name: content for name, content in files(tmp_path / "p").items() if not Path(name).name.startswith(".")}
    assert left == files(built)


_KILLED = """
import os, signal, sys
from pathlib import Path
import qas.files
from qas.encoders.pools import pool as pools
from qas.encoders.pools.spaces import CircuitSpace

def killed(progress):
    if progress.task and progress.done:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    pools.SHARD = 20
    space = CircuitSpace(2, ("x", "h", "rx", "ry", "u", "cx", "cz"), max_gates=5, min_gates=1, max_depth=0)
    settings = pools.LabelSettings(starts=3, max_evaluations=60)
    jobs = int(sys.argv[2])
    pools.build_pool(sys.argv[1], space, 50, seed=3, tasks=["h2-2"], settings=settings, jobs=jobs, on_progress=killed)
"""


@pytest.fixture
def killed_build(tmp_path: Path) -> Iterator[Path]:
    script = tmp_path / "build.py"
    script.write_text(_KILLED)
    # The pipe ends when the last process ends: workers must not outlive a parent that was killed.
    run = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "p"), "2"],
        capture_output=True,
        timeout=100,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    yield tmp_path / "p"


def test_a_killed_build_goes_on_and_leaves_no_process(killed_build: Path, built: Path, labelled: list[int]) -> None:
    known = [shard for shard, digest in enumerate(manifest(killed_build)["labels"][TASK]["shards"]) if digest]
    assert len(known) == 1, "the manifest knows what was reported"
    there = [k for k in range(3) if (killed_build / "labels" / TASK / f"{k:05d}.parquet").exists()]
    build(killed_build)
    assert labelled == [k for k in range(3) if k not in there]
    now = {name: data for name, data in files(killed_build).items() if not Path(name).name.startswith(".")}
    assert now == files(built)


# ---------------------------------------------------------------------- files that were touched
def refused(folder: Path, match: str, action: Any = None) -> None:
    def everything() -> None:
        opened = Pool(folder)
        _ = opened.rows
        opened.labels(TASK)

    with pytest.raises(PoolError, match=match) as caught:
        (action or everything)()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["circuits/00002.parquet", f"labels/{TASK}/00000.parquet"])
def test_shards_are_what_the_manifest_says(pool: Path, name: str) -> None:
    file = pool / name
    whole = file.read_bytes()
    for position in (0, len(whole) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[position] ^= 1
        file.write_bytes(changed)
        refused(pool, "cut short or was changed")
    file.write_bytes(whole[:-50])
    refused(pool, "cut short or was changed")
    shutil.copy(pool / Path(name).parent / "00001.parquet", file)
    refused(pool, "cut short or was changed")
    file.unlink()
    refused(pool, r"a shard is missing: .*parquet")


@pytest.mark.parametrize(
    ("name", "column", "kind", "words"),
    [
        ("circuits/00000.parquet", "tokens", None, "a column tokens of type fixed_size_list.*, got none"),
        ("circuits/00000.parquet", "tokens", pa.float64(), "a column tokens of type .*, got double"),
        (f"labels/{TASK}/00001.parquet", "angles", None, "a column angles of type list.*, got none"),
        (f"labels/{TASK}/00001.parquet", "evaluations", pa.string(), "a column evaluations of type int64, got string"),
        (f"labels/{TASK}/00001.parquet", "evaluations", pa.int64(), "a column evaluations of type int64, got missing"),
    ],
)
def test_shards_have_their_columns(pool: Path, name: str, column: str, kind: Any, words: str) -> None:
    """A shard of other columns, under the hash that it has then."""
    file, manifest = pool / name, pool / "manifest.json"
    table, old = pq.read_table(file), sha256(file.read_bytes())
    other = table.drop_columns([column])
    if kind is not None:
        other = other.append_column(column, pa.array([None] * len(table), kind))
    pq.write_table(other, file)
    manifest.write_text(manifest.read_text().replace(old, sha256(file.read_bytes())))
    refused(pool, words)


def test_a_build_does_not_label_damaged_circuits(pool: Path) -> None:
    file = pool / "circuits" / "00001.parquet"
    changed = bytearray(file.read_bytes())
    changed[100] ^= 1
    file.write_bytes(changed)
    refused(pool, "cut short or was changed", lambda: build(pool, tasks=["tfim-2"]))
    refused(pool, "not complete", lambda: Pool(pool).labels("tfim-2"))


def test_a_lost_shard_is_told_when_the_build_goes_on(pool: Path) -> None:
    (pool / "labels" / TASK / "00000.parquet").unlink()
    refused(pool, r"a shard is missing: .*00000\.parquet", lambda: build(pool))


def test_the_problem_of_labels_cannot_be_exchanged(pool: Path) -> None:
    file = pool / "labels" / TASK / "problem.json"
    text = file.read_text()
    data = json.loads(text)
    data["problem"]["terms"]["ZZ"] = 0.125
    for content in (json.dumps(data, indent=1), text.replace('"h2-2"', '"h2-9"'), "{", "{}", "[]", "\xff"):
        file.write_text(content)
        refused(pool, f"problem .*of {TASK}")
    file.unlink()
    refused(pool, f"problem of {TASK}")


def test_the_manifest_is_checked(pool: Path) -> None:
    whole = manifest(pool)
    entry = whole["labels"][TASK]
    changes: list[tuple[dict[str, Any], str]] = [
        ({"version": 2}, "newer version"),
        ({"version": "1"}, "a whole number from 1 to 1"),
        ({"format": "something"}, "of format 'qas-pool'"),
        ({"space": None}, "manifest of the pool is damaged"),
        ({"space": {**whole["space"], "n_qubits": 0}}, "manifest of the pool is damaged"),
        ({"size": "many"}, "manifest of the pool is damaged"),
        ({"size": 61}, "damaged.* 3 shards"),
        ({"size": 45}, "has 50 circuits, its manifest says 45"),
        ({"shard_size": 0}, "damaged"),
        ({"circuits": whole["circuits"][:2]}, "damaged.* 2 shards"),
        ({"circuits": whole["circuits"][::-1]}, "cut short or was changed"),
        ({"labels": [TASK]}, "manifest of the pool is damaged"),
        ({"labels": {TASK: None}}, "manifest of the pool is damaged"),
        ({"labels": {TASK: {}}}, "manifest of the pool (is damaged|lacks)"),
        ({"labels": {TASK: {**entry, "shards": entry["shards"][:2]}}}, "not complete"),
        ({"labels": {TASK: {**entry, "settings": {"starts": 0}}}}, "settings of h2-2 are damaged"),
        ({"labels": {TASK: {**entry, "settings": {"begin": 2}}}}, "settings of h2-2 are damaged"),
        (
            {"labels": {TASK: {**entry, "settings": {**entry["settings"], "starts": 1}}}},
            "settings of h2-2 were changed",
        ),
        ({"placed": whole["placed"][::-1]}, "stand for other gates"),
        ({"placed": 3}, "manifest of the pool is damaged"),
        ({"seed": 9}, "were changed"),
    ]
    for change, match in changes:
        write_manifest(pool, {**whole, **change})
        refused(pool, match)
    for name in ("space", "size", "seed", "shard_size", "circuits", "labels", "placed"):
        write_manifest(pool, {key: value for key, value in whole.items() if key != name})
        refused(pool, f"manifest of the pool lacks {name}")


@pytest.mark.parametrize("content", ["{", "[]", "null", ""])
def test_a_manifest_that_is_none(pool: Path, content: str) -> None:
    (pool / "manifest.json").write_text(content)
    with pytest.raises(QasError, match="manifest") as caught:
        Pool(pool)
    assert "\n" not in str(caught.value)


def test_another_pool_is_not_continued(pool: Path, tmp_path: Path) -> None:
    before = files(pool)
    larger = CircuitSpace(2, SPACE.gates, max_gates=6, min_gates=1, max_depth=0)
    for space, size, seed in [(larger, SIZE, 3), (SPACE, SIZE + 1, 3), (SPACE, SIZE, 4)]:
        refused(pool, "holds another pool .*seed 3", lambda s=space, n=size, k=seed: build_pool(pool, s, n, seed=k))
    for settings in (LabelSettings(4, 60), LabelSettings(3, 61), LabelSettings(3, 60, 1e-6)):
        refused(pool, f"labels of {TASK} made with other settings", lambda s=settings: build(pool, settings=s))
    assert files(pool) == before
    refused(pool, "no such pool folder", lambda: Pool(tmp_path / "nothing"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("text")
    refused(pool, "not a pool folder", lambda: Pool(tmp_path / "full"))
    refused(pool, "must be new or empty", lambda: build(tmp_path / "full"))
    refused(pool, "got a file", lambda: build(tmp_path / "full" / "thesis.tex"))
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_wrong_arguments(tmp_path: Path) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("tfim-3 has 3 qubits, the circuits of the pool 2", {"tasks": ["tfim-3"]}),
        ("did you mean 'tfim-2'", {"tasks": ["tfm-2"]}),
        ("unknown noise", {"noise": "loud"}),
        ("a seed is a whole number", {"seed": -1}),
        ("a seed is a whole number", {"seed": 1.5}),
    ]
    for match, options in wrong:
        with pytest.raises(QasError, match=match):
            build(tmp_path / "p", **options)
    for size in (0, True, 2.0):
        with pytest.raises(QasError, match="the number of circuits is a whole number of at least 1"):
            build_pool(tmp_path / "p", SPACE, size)  # type: ignore[arg-type]
    for settings in ({"starts": 0}, {"starts": True}, {"max_evaluations": 2.5}, {"tolerance": 0}):
        with pytest.raises(QasError):
            LabelSettings(**settings)  # type: ignore[arg-type]
    assert not (tmp_path / "p").exists()
    tiny = CircuitSpace(1, ("x",), max_gates=2)
    with pytest.raises(QasError, match="holds about 1 circuits"):
        build_pool(tmp_path / "p", tiny, 5)
    assert len(build_pool(tmp_path / "p", tiny, 1)) == 1, "the folder can be used for another pool"


# ---------------------------------------------------------------------- look-ups
def test_the_table_scores_every_circuit(built: Path) -> None:
    opened = Pool(built)
    target, labels = load_problem(TASK), opened.labels(TASK)
    table = opened.table(TASK)
    assert isinstance(table, TabularProblem) and len(table) == SIZE
    np.testing.assert_allclose(table.values, np.maximum(0.0, labels.best / target.exact), atol=1e-12)
    assert table.values.max() <= 1 + 1e-9
    np.testing.assert_array_equal(table.good, table.values >= 0.95)
    assert table.base_rate == table.good.sum() / SIZE and 0 < table.base_rate < 1
    entangled = opened.table(TASK, "entanglement")
    expected = (target.product_state - labels.best) / (target.product_state - target.exact)
    np.testing.assert_allclose(entangled.values, expected, atol=1e-9)
    assert entangled.base_rate < table.base_rate
    assert (table.score, entangled.score) == (published_score(target), entanglement_score(target))
    for i in range(SIZE):
        if not opened.circuit(i).two_qubit_gates:
            assert entangled.values[i] <= 1e-6, "product states get nothing"
    with pytest.raises(UnknownNameError, match="published"):
        opened.table(TASK, "publishd")
    with pytest.raises(UnknownNameError, match="did you mean 'h2-2'"):
        opened.table("h2-3")


def test_the_best_circuits(built: Path) -> None:
    table = Pool(built).table(TASK)
    top = table.top(10)
    assert table.values[top].tolist() == sorted(table.values, reverse=True)[:10]
    order = sorted(range(SIZE), key=lambda i: (-table.values[i], i))
    assert table.top(SIZE + 5).tolist() == order


def test_circuits_carry_their_angles(built: Path) -> None:
    table = Pool(built).table(TASK)
    simulator = make_simulator()
    for i in table.top(5).tolist():
        circuit = table.circuit(i)
        assert isinstance(circuit, Circuit) and circuit.key == Pool(built).circuit(i).key
        energy = simulator.expectation(circuit, table.labels.problem.hamiltonian)
        assert table.score(energy) == pytest.approx(table.values[i], abs=1e-12)
