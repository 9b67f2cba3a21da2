"""Agent compact: fewer CX than any published circuit, within the tolerance it is given, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import qas
from qas.agents.base import Search
from qas.agents.growth.evolution import EvolutionAgent
from qas.agents.launch import resume
from qas.errors import QasError
from qas.gates import EXCITATIONS, SEARCH_GATES
from qas.runs import Run


def run_compact(out: Path, problem: Any = "h4-8", **settings: Any) -> Run:
    return qas.search(problem, agent="compact", out=out, report=False, **({"seed": 0} | settings))


class Killed(BaseException):
    pass


def fewest(run: Run, error: float) -> Any:
    return min((r for r in run.front if r.error <= error), key=lambda r: (r.two_qubit_gates, r.gates))


def test_lithium_hydride_takes_few_cnots(tmp_path: Path) -> None:
    """Published: 52 CNOT (QEB-ADAPT-VQE, 1.598 mHa). Judged on all qubits; most was searched on eight."""
    run = run_compact(tmp_path / "run", "lih-12", evaluations=10_000)
    best = fewest(run, 1.6e-3)
    assert best.two_qubit_gates <= 11
    for result in run.front:
        assert result.circuit.n_qubits == 12 and set(result.circuit.counts) <= {*SEARCH_GATES, "x", *EXCITATIONS}
        assert run.problem.energy(result.circuit) == pytest.approx(result.energy, abs=1e-9)
    assert set(best.circuit.counts) <= {*SEARCH_GATES, "x"}


def test_a_tapered_molecule_takes_fewer_than_its_excitations(tmp_path: Path) -> None:
    """Where growth by excitations alone ends at ten CNOT or more."""
    run = run_compact(tmp_path / "run", "lih-12-tapered", evaluations=12_000)
    assert fewest(run, 1.6e-3).two_qubit_gates <= 6


@pytest.mark.parametrize("left_out", [{"insertions": 0}, {"evolve": False}, {"taper": False}])
def test_each_step_can_be_left_out(left_out: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bred: list[int] = []
    step = EvolutionAgent.step
    monkeypatch.setattr(EvolutionAgent, "step", lambda me: (bred.append(me.search.problem.n_qubits), step(me))[1])
    run = run_compact(tmp_path / "run", "h2-4", evaluations=2_500, options={"tolerance": 1e-6, **left_out})
    assert fewest(run, 1e-6).two_qubit_gates <= 3
    expected = {"insertions": {1}, "evolve": set(), "taper": {4}}
    assert set(bred) == expected[next(iter(left_out))], "h2 on four qubits has three symmetries"


CHAIN: dict[str, Any] = {"problem": "h4-8", "evaluations": 4000, "options": {"tolerance": 1e-3, "candidates": 3}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_compact(tmp_path_factory.mktemp("compact") / "whole", **CHAIN)


def test_a_search_stopped_inside_a_shrink_goes_on_there(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a checkpoint between two steps of shrinking; the resumed run ends as the unbroken one."""
    checkpoint, shrinking = Search.checkpoint, []

    def watched(me: Search, agent: Any) -> None:
        checkpoint(me, agent)
        held = agent.state()[0]["shrinker"]
        if held is not None and held["part"]:
            shrinking.append(held)
            raise Killed

    monkeypatch.setattr(Search, "checkpoint_every", 0.0)
    monkeypatch.setattr(Search, "checkpoint", watched)
    with pytest.raises(Killed):
        run_compact(tmp_path / "run", **CHAIN)
    monkeypatch.undo()
    resumed = resume(tmp_path / "run", report=False)
    assert shrinking and [(r.circuit, r.energy) for r in resumed.front] == [(r.circuit, r.energy) for r in whole.front]
    assert resumed.evaluations == whole.evaluations


def test_hydrogen_takes_three_cnots_for_its_double_excitation(tmp_path: Path) -> None:
    run = run_compact(tmp_path / "run", "h2-4", evaluations=600, options={"tolerance": 1e-6})
    best = fewest(run, 1e-6)
    assert best.two_qubit_gates == 3
    assert best.error == pytest.approx(0.0, abs=1e-6)


def test_the_tolerance_is_kept_and_used(whole: Run, tmp_path: Path) -> None:
    loose = run_compact(tmp_path / "loose", **CHAIN | {"options": CHAIN["options"] | {"tolerance": 3e-2}})
    counts = []
    for run, tolerance in ((loose, 3e-2), (whole, 1e-3)):
        counts.append(fewest(run, tolerance).two_qubit_gates)
        assert run.problem.error(run.problem.energy(fewest(run, tolerance).circuit)) <= tolerance
    assert counts[0] < counts[1]


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ("adapter-8", {}, "agent compact needs a problem with a Hamiltonian"),
    ("h2-4", {"noise": "ibm-mumbai"}, "takes no noise"),
    ("h2-4", {"options": {"tolerance": 0.0}}, "tolerance"),
    ("h2-4", {"options": {"candidates": 0}}, "candidates is a whole number of at least 1, got 0"),
    ("h2-4", {"gates": ["x", "single_excitation", "double_excitation"]}, "needs the gates rx, ry, rz, cx"),
]


@pytest.mark.parametrize(("problem", "settings", "words"), REFUSED, ids=[r[2][:14] for r in REFUSED])
def test_what_it_cannot_do_is_refused_in_one_line(
    problem: Any, settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(QasError, match=words) as caught:
        run_compact(tmp_path / "run", problem, **({"evaluations": 10} | settings))
    assert "\n" not in str(caught.value)
