"""Agents on circuit pools: candidates obey the search, pools run out in order, what does not fit is refused."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qas
from qas.agents.pool.candidates import encoder_for, one_of_each, translate
from qas.circuits import Circuit
from qas.encoders import CircuitSpace, load_encoder
from qas.encoders.pools.pool import build_pool
from qas.encoders.pools.reduction import reduce_rows
from qas.encoders.pools.spaces import PADDING
from qas.errors import QasError, UnknownNameError
from qas.meter import Meter
from qas.runs import Run

PLAIN = {"pool_size": 60}
SMALL = PLAIN | {"features": "reduced"}
PLAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bo-open": ("bo", {**SMALL, "initial": 6}),
    "bo-pool": ("bo", {**SMALL, "initial": 6, "mode": "pool"}),
    "reinforce": ("reinforce", SMALL),
    "knn": ("knn", SMALL),
    "random": ("random", {**PLAIN, "encoder": "q2"}),
}
every_player = pytest.mark.parametrize("player", PLAYERS)


def run(player: str, out: Path, problem: Any = "h2-2", *, extra: Any = None, **settings: Any) -> Run:
    agent, options = PLAYERS[player]
    if agent == "random":
        n_qubits = (qas.load_problem(problem) if isinstance(problem, str) else problem).n_qubits
        options = options | {"encoder": f"q{n_qubits}"}
    settings = {"report": False} | settings
    return qas.search(problem, agent=agent, options=options | (extra or {}), out=out, **settings)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Circuit]:
    """Every circuit that is evaluated from here on."""
    circuits: list[Circuit] = []
    original = Meter.evaluate

    def watch(self: Meter, circuit: Circuit, *args: Any, **kwargs: Any) -> Any:
        circuits.append(circuit)
        return original(self, circuit, *args, **kwargs)

    monkeypatch.setattr(Meter, "evaluate", watch)
    return circuits


def pairs(circuits: list[Circuit]) -> set[tuple[int, ...]]:
    return {tuple(sorted(gate.qubits)) for circuit in circuits for gate in circuit if len(gate.qubits) == 2}


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Circuits of two qubits and at most 4 of the gates rx, cx."""
    space = CircuitSpace(2, ("rx", "cx"), max_gates=4, min_gates=2, max_depth=0)
    return build_pool(tmp_path_factory.mktemp("pools") / "p2", space, 150, seed=1).path


# ---------------------------------------------------------------------- candidates
def test_the_space_sets_gates_and_length(tmp_path: Path) -> None:
    found = run("knn", tmp_path / "run", steps=3)
    assert found.config["gates"] == ["rx", "ry", "rz", "cx"] and found.config["max_gates"] == 6


@every_player
def test_every_circuit_obeys_the_search(player: str, tmp_path: Path, seen: list[Circuit]) -> None:
    """Fewer gates, fewer pairs and a smaller length than the encoder's space has."""
    steps = 20
    found = run(
        player, tmp_path / "run", "tfim-4", steps=steps, max_gates=5,
        gates=["rx", "ry", "cx"], coupling=[(0, 1), (1, 2), (2, 3)],
    )  # fmt: skip
    circuits = seen[-steps:]
    assert found.architectures == steps == len(circuits)
    assert {gate.name for circuit in circuits for gate in circuit} <= {"rx", "ry", "cx"}
    assert pairs(circuits) <= {(0, 1), (1, 2), (2, 3)} and pairs(circuits)
    assert max(map(len, circuits)) <= 5
    space = load_encoder("q4").space
    for circuit in circuits:
        if player != "bo-open":
            space.row(circuit)  # or it is not of the space


def test_a_ring_without_coupled_pairs(tmp_path: Path, seen: list[Circuit]) -> None:
    """CNOT goes from a qubit to the next one in this space; the coupling has none of these pairs for qubit 3."""
    run("random", tmp_path / "run", "tfim-4", steps=15, coupling=[(0, 1), (1, 3), (1, 2)])
    assert pairs(seen[-15:]) == {(0, 1), (1, 2)}


@pytest.mark.parametrize("player", ["bo-open", "knn"])
def test_a_space_with_a_coupling_of_its_own(player: str, tmp_path: Path, seen: list[Circuit]) -> None:
    """A coupling of the search that goes beyond that of the encoder: both hold."""
    from qas.encoders import train

    space = CircuitSpace(3, ("ry", "cz"), max_gates=4, min_gates=1, max_depth=0, coupling=[(0, 1), (1, 2)])
    rows = space.sample(40, np.random.default_rng(0))
    folder = train(rows, space, epochs=1, profile_walks=0, sizes={"width": 8, "d": 2}).save(tmp_path / "q3")
    seen.clear()
    extra = {"encoder": str(folder)}
    found = run(player, tmp_path / "run", "h2-3", steps=12, coupling=[(0, 2), (1, 2)], extra=extra)
    assert found.architectures == 12 and pairs(seen[-12:]) <= {(1, 2)}
    seen.clear()
    run(player, tmp_path / "all", "h2-3", steps=12, extra=extra)
    assert pairs(seen[-12:]) <= {(0, 1), (1, 2)}


def test_a_coupling_that_leaves_no_gate(tmp_path: Path) -> None:
    from qas.encoders import train

    space = CircuitSpace(3, ("ry", "cz"), max_gates=4, max_depth=0, coupling=[(0, 1)])
    rows = space.sample(40, np.random.default_rng(0))
    folder = train(rows, space, epochs=1, profile_walks=0, sizes={"width": 8, "d": 2}).save(tmp_path / "q3")
    with pytest.raises(QasError, match="leaves no place for cz"):
        run("knn", tmp_path / "run", "h2-3", steps=2, gates=["cz"], coupling=[(0, 2), (1, 2)],
            extra={"encoder": str(folder)})  # fmt: skip
    assert not (tmp_path / "run").exists()


@every_player
def test_a_pool_that_fits(player: str, pool: Path, tmp_path: Path, seen: list[Circuit]) -> None:
    from qas.encoders.pools.pool import Pool

    found = run(player, tmp_path / "run", steps=20, extra={"pool": str(pool)})
    keys = {Pool(pool).circuit(i).key for i in range(150)}
    inside = [circuit.key in keys for circuit in seen[-20:]]
    assert found.architectures == 20
    # In open mode a layer of rotations comes first.
    assert all(inside) if player != "bo-open" else inside[1] and not all(inside)


def test_pools_that_do_not_fit(pool: Path, tmp_path: Path) -> None:
    def refused(words: str, folder: Path | str, **settings: Any) -> None:
        with pytest.raises(QasError, match=words) as caught:
            run("bo-pool", tmp_path / "run", **{"steps": 5} | settings, extra={"pool": str(folder)})
        assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()

    def made(name: str, *args: Any, **kwargs: Any) -> Path:
        return build_pool(tmp_path / name, CircuitSpace(*args, **kwargs), 30).path

    refused("1 of 2 gates|the gates", made("gates", 2, ("h", "cx"), max_gates=4, max_depth=0))
    refused("7 gates, the encoder holds 6", made("long", 2, ("rx", "cx"), max_gates=7, max_depth=0))
    refused("3 qubits", made("wide", 3, ("rx", "cx"), max_gates=4))
    refused("fewer than 2 circuits", pool, gates=["ry", "cx"], max_gates=1)
    refused("no such pool", tmp_path / "nowhere")
    refused("not a pool", tmp_path)


def test_translation_keeps_circuits() -> None:
    source = CircuitSpace(3, ("cx", "rz", "rx"), max_gates=4, min_gates=0, max_depth=4)
    target = CircuitSpace(3, ("h", "rx", "rz", "cx"), max_gates=6, ring=(), max_depth=0)
    rows = source.sample(50, np.random.default_rng(0))
    moved = translate(rows, source, target)
    for row, other in zip(rows, moved, strict=True):
        assert source.circuit(row).key == target.circuit(other).key
    assert np.array_equal(target.canonical(moved), moved)
    assert translate(rows, source, source) is rows
    with pytest.raises(QasError, match="does not fit"):
        translate(rows, source, CircuitSpace(3, ("rx", "cx"), max_gates=6, max_depth=0))
    with pytest.raises(QasError, match="layers"):
        translate(rows, source, CircuitSpace(3, ("rx", "rz", "cx"), max_gates=6, max_depth=2))


def test_one_of_each_reduced_form() -> None:
    space = CircuitSpace(2, ("x", "rx", "rz", "cx"), max_gates=3, min_gates=0, max_depth=0)
    rows = space.sample(400, np.random.default_rng(0))
    kept = one_of_each(rows, space)
    reduced = reduce_rows(rows, space)
    assert len(np.unique(reduced[kept], axis=0)) == len(kept) == len(np.unique(reduced, axis=0))
    sizes = (rows != PADDING).sum(axis=1)
    for index in kept:
        same = (reduced == reduced[index]).all(axis=1)
        assert sizes[index] == sizes[same].min() and index == np.flatnonzero(same & (sizes == sizes[index]))[0]


@pytest.mark.parametrize("screen", ["expressibility", "fluctuation"])
def test_a_screen_keeps_a_share(screen: str, tmp_path: Path, seen: list[Circuit]) -> None:
    extra = {"screen": screen, "screen_keep": 0.1, "pool_size": 40}
    run("random", tmp_path / "run", steps=30, extra=extra)
    assert len({c.key for c in seen[-30:]}) <= 4


# ---------------------------------------------------------------------- pools that run out
@every_player
def test_an_exhausted_pool_begins_anew(player: str, tmp_path: Path, seen: list[Circuit]) -> None:
    found = run(player, tmp_path / "run", steps=25, extra={"pool_size": 3})
    keys = [c.key for c in seen[-25:]]
    assert found.architectures == 25
    if player == "bo-open":
        assert len(set(keys)) > 3, "it leaves the pool"
    else:
        counts = np.unique(keys, return_counts=True)[1]
        assert len(counts) <= 3 and counts.max() - counts.min() <= 1, "in rounds"


def test_several_starts_count_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qas.agents.pool.agent import KnnAgent

    values: list[float] = []
    original = KnnAgent.learn

    def watch(self: KnnAgent, rows: np.ndarray, told: list[float]) -> None:
        values.extend(told)
        original(self, rows, told)

    monkeypatch.setattr(KnnAgent, "learn", watch)
    found = run("knn", tmp_path / "run", steps=60, extra={"starts": 3})
    assert found.architectures == 60 and len(values) >= 16
    energies = found.history()["energy"]
    at, all_angles = 0, found.history()["angles"]
    for value in values:
        count = 3 if all_angles[at] else 1
        assert -value == pytest.approx(energies[at : at + count].min(), abs=1e-9)
        at += count


def test_rewards_of_reinforce_are_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qas.agents.pool.reinforce import ReinforceAgent

    values = []
    original = ReinforceAgent.value

    def watch(self: ReinforceAgent, found: Any) -> float:
        values.append((original(self, found), found.energy, self.search.problem))
        return values[-1][0]

    monkeypatch.setattr(ReinforceAgent, "value", watch)
    run("reinforce", tmp_path / "run", steps=20)
    for value, energy, problem in values:
        mixed = problem.hamiltonian.identity
        assert 0 <= value <= 1 + 1e-9
        assert value == pytest.approx(max(0.0, (energy - mixed) / (problem.exact - mixed)))


def test_reinforce_on_a_constant(tmp_path: Path) -> None:
    """Every circuit has the exact energy, and the way down from the mixed state is none."""
    found = run("reinforce", tmp_path / "run", qas.problem({"II": 0.5}, name="constant"), steps=20)
    assert found.architectures == 20 and found.best.error == pytest.approx(0)


# ---------------------------------------------------------------------- under noise
@every_player
def test_named_noise_and_inspection(player: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from qas.cli import main

    found = run(player, tmp_path / "run", noise="ibm-mumbai", evaluations=150)
    assert found.evaluations == 150 and found.noise is not None
    assert main(["inspect", str(found.path)]) == 0
    assert "ibm-mumbai" in capsys.readouterr().out


# ---------------------------------------------------------------------- what a resumed run needs
def test_a_resumed_run_needs_its_pool_and_encoder(tmp_path: Path, tiny_encoders: Path) -> None:
    space = CircuitSpace(2, ("rx", "cx"), max_gates=4, min_gates=2, max_depth=0)
    folder = build_pool(tmp_path / "pool", space, 60, seed=1).path
    encoder = Path(shutil.copytree(tiny_encoders / "q2", tmp_path / "encoder"))
    extra = {"pool": str(folder), "encoder": str(encoder)}
    _checkpoint_now(tmp_path / "live", extra)
    shutil.rmtree(folder)
    with pytest.raises(QasError, match="no such pool"):
        qas.agents.resume(tmp_path / "live", steps=40)
    build_pool(folder, space, 60, seed=2)
    with pytest.raises(QasError, match="pool of the run has changed"):
        qas.agents.resume(tmp_path / "live", steps=40)
    shutil.rmtree(folder)
    build_pool(folder, space, 60, seed=1)
    qas.agents.resume(tmp_path / "live", steps=12, report=False)
    other = load_encoder(encoder)
    for parameter in other.module.parameters():
        parameter.data.mul_(1.01)
    other.save(encoder)
    with pytest.raises(QasError, match="another encoder"):
        qas.agents.resume(tmp_path / "live", steps=40)


def _checkpoint_now(out: Path, extra: dict[str, Any]) -> None:
    """A run interrupted after a few circuits."""
    with pytest.MonkeyPatch.context() as patch:
        original = Meter.evaluate

        def evaluate(self: Meter, *args: Any, **kwargs: Any) -> Any:
            if self.architectures == 5:
                signal.raise_signal(signal.SIGINT)
            return original(self, *args, **kwargs)

        patch.setattr(Meter, "evaluate", evaluate)
        assert run("knn", out, steps=30, extra=extra).status == "interrupted"


# ---------------------------------------------------------------------- input
def test_encoders_by_qubits(tiny_encoders: Path) -> None:
    assert encoder_for(None, 4).space.n_qubits == 4
    with pytest.raises(QasError, match="4 and 8 qubits, the problem has 6"):
        encoder_for(None, 6)
    with pytest.raises(QasError, match="q2 is for 2 qubits, the problem has 4"):
        encoder_for("q2", 4)
    with pytest.raises(UnknownNameError, match="q2"):
        encoder_for("q22", 2)


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("knn", {"encoder": "q44"}, "did you mean 'q4'"),
    ("knn", {"encoder": "q4"}, "for 4 qubits, the problem has 2"),
    ("knn", {"encoder": 4}, "must be"),
    ("knn", {"features": "reducd"}, "did you mean 'reduced'"),
    ("knn", {"screen": "fluctuations"}, "did you mean 'fluctuation'"),
    ("knn", {"screen_keep": 0.0}, "above 0"),
    ("knn", {"pool_size": 1}, "at least 2"),
    ("knn", {"pool_size": 2.5}, "must be int"),
    ("knn", {"pool_size": True}, "must be int"),
    ("knn", {"starts": 0}, "at least 1"),
    ("knn", {"storage": "sqlite:///x.db"}, "no setting|storage"),
    ("knn", {"pool": ["a"]}, "must be"),
    ("random", {"pool_sise": 3, "encoder": "q2"}, "did you mean 'pool_size'"),
    ("reinforce", {"mode": "pool"}, "mode"),
]


@pytest.mark.parametrize(("agent", "options", "words"), BAD, ids=[str(bad[1]) for bad in BAD])
def test_wrong_options_are_one_line_and_leave_no_folder(
    agent: str, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(QasError, match=words) as caught:
        qas.search("h2-2", agent=agent, options=options, steps=3, out=tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["encoder.json", "weights.safetensors"])
def test_a_damaged_encoder(name: str, tiny_encoders: Path, tmp_path: Path) -> None:
    for number, share in enumerate((0.0, 0.5)):
        folder = Path(shutil.copytree(tiny_encoders / "q2", tmp_path / str(number)))
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(share * len(data))])
        with pytest.raises(QasError) as caught:
            qas.search("h2-2", agent="knn", options={"encoder": str(folder)}, steps=3, out=tmp_path / "run")
        assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_noise_counts_two_qubit_gates_first() -> None:
    space = CircuitSpace(2, max_gates=4, min_gates=0, max_depth=0)
    many = space.row(Circuit(2, [("z", 0), ("z", 0), ("z", 0), ("ry", 1, 0.0)]))
    few = space.row(Circuit(2, [("cx", (0, 1)), ("ry", 1, 0.0)]))  # its control is still |0>
    rows = np.stack([many, few])
    assert len(np.unique(reduce_rows(rows, space), axis=0)) == 1
    assert one_of_each(rows, space).tolist() == [1]
    assert one_of_each(rows, space, noisy=True).tolist() == [0]
