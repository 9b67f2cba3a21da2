"""Guided evolution and beam: where they go, what is counted, and which of equal circuits stays."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import qas
from qas.agents import resume
from qas.agents.growth.evolution import EvolutionAgent, _Member
from qas.agents.growth.inserting import InsertionGrowth
from qas.alphabet import Alphabet
from qas.circuits import Circuit
from qas.errors import QasError
from qas.guidance import Guide
from qas.meter import Budget, Meter
from qas.testing.agents import call_at, found
from qas.vqe import Evaluator


def search(out: Path, problem: str, **settings: Any) -> qas.runs.Run:
    return qas.search(problem, agent="evolution", out=out, report=False, **settings)


def test_guidance_leaves_the_determinant_where_blind_changes_do_not(tmp_path: Path) -> None:
    given = {"evaluations": 1500, "seed": 0}
    guided = search(tmp_path / "guided", "h2-4", **given)
    blind = search(tmp_path / "blind", "h2-4", options={"guided": False}, **given)
    assert guided.best.error < 1e-8 and min(r.two_qubit_gates for r in guided.front if r.error < 1e-8) <= 3
    assert blind.best.error > 1e-3


def test_noise_and_a_coupling_are_kept_to(tmp_path: Path) -> None:
    run = search(tmp_path / "run", "h2-2", noise="ibm-mumbai", coupling=[(0, 1)], steps=25, seed=1)
    assert run.architectures == 25 and run.best.error < 0.2


def test_growth_goes_beyond_what_small_changes_reach_and_resumes_amid_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"evaluations": 4000, "seed": 0}
    amid: list[int] = []
    grow = EvolutionAgent._grow

    def growing(me: EvolutionAgent, growth: InsertionGrowth) -> None:
        grow(me, growth)
        amid.append(me.meter.architectures)

    monkeypatch.setattr(EvolutionAgent, "_grow", growing)
    grown = search(tmp_path / "grown", "heisenberg-6", **given)
    small = search(tmp_path / "small", "heisenberg-6", options={"grow": False}, **given)
    assert grown.best.error < 1e-3 * small.best.error
    call_at(amid[len(amid) // 2], lambda: signal.raise_signal(signal.SIGINT), monkeypatch)
    part = search(tmp_path / "part", "heisenberg-6", **given)
    monkeypatch.undo()
    assert part.status == "interrupted"
    assert found(resume(part.path, report=False)) == found(grown)


def test_a_study_counts_once_and_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, judged, paid = [], [], set()
    spend, take, pay = Meter.spend, Meter._counted, EvolutionAgent._pay

    def spending(self: Meter, evaluations: int = 1) -> None:
        spend(self, evaluations)
        counted.append(evaluations)

    def taking(self: Meter, found: Any, *rest: Any) -> Any:
        judged.append(found.evaluations)
        return take(self, found, *rest)

    def paying(self: EvolutionAgent, member: _Member, used: tuple[str, ...]) -> None:
        pay(self, member, used)
        paid.update((member, each) for each in used)

    monkeypatch.setattr(Meter, "spend", spending)
    monkeypatch.setattr(Meter, "_counted", taking)
    monkeypatch.setattr(EvolutionAgent, "_pay", paying)
    run = search(tmp_path / "run", "lih-4", steps=80, seed=0)
    assert run.evaluations == sum(counted) + sum(judged)
    assert sum(counted) == sum(member.spent[each] for member, each in paid) > 0


def test_a_budget_that_ends_within_a_study_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a study takes is several evaluations; the last of a budget may be any of them."""
    within: list[int] = []
    pay = EvolutionAgent._pay

    def paying(self: EvolutionAgent, member: _Member, used: tuple[str, ...]) -> None:
        before = self.meter.evaluations
        pay(self, member, used)
        within.extend(range(before + 1, self.meter.evaluations))

    monkeypatch.setattr(EvolutionAgent, "_pay", paying)
    given = {"seed": 0, "options": {"layers": 0, "grow": False}}  # nothing that asks for the share that is used
    whole = search(tmp_path / "whole", "heisenberg-5", evaluations=600, **given)
    assert whole.evaluations == 600 and len(within) > 10
    for budget in (within[0], within[-1]):
        part = search(tmp_path / str(budget), "heisenberg-5", evaluations=budget, **given)
        assert part.evaluations == budget
    monkeypatch.undo()
    assert found(resume(part.path, evaluations=600, report=False)) == found(whole), "and leaves no seam"


def test_of_equal_circuits_the_newer_one_stays() -> None:
    agent = EvolutionAgent()
    problem, alphabet = qas.load_problem("h2-4"), Alphabet(4)
    agent.guide, agent.cells = Guide.fitting(alphabet, Meter(Evaluator(problem))), {}
    agent.search = cast(Any, SimpleNamespace(alphabet=alphabet))
    old, new = (_Member(Circuit(4, [("ry", q, 0.3)]), 0.5) for q in (0, 1))
    longer = _Member(Circuit(4, [("ry", 0, 0.1), ("ry", 1, 0.1)]), 0.5)
    assert agent._insert(old)
    assert not agent._insert(new), "it takes the place, but leads to nothing new"
    assert agent.cells == {0: [new]}
    assert not agent._insert(longer) and agent.cells == {0: [new]}
    agent.guide = None
    assert not agent._insert(old) and agent.cells == {0: [new]}


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_lies_between_none_and_all(share: float) -> None:
    with pytest.raises(QasError, match="blind is a share between 0 and 1"):
        EvolutionAgent(blind=share)


def test_only_promising_strings_are_tried_on_a_level(tmp_path: Path) -> None:
    given: dict[str, Any] = {"evaluations": 3000, "seed": 0, "report": False}
    few, every = (
        qas.search("tfim-4", agent="beam", options={"strings": strings}, out=tmp_path / str(strings), **given)
        for strings in (12, 0)
    )
    assert few.best.error < every.best.error
    assert Budget(evaluations=3000).evaluations == few.evaluations == every.evaluations


LINE = [(q, q + 1) for q in range(3)]
# Below its determinant, |0000>, lie states that a rotation about XXXX reaches; on a line only trees of CX do.
DETERMINANT = qas.problem({"IIIZ": -1.0, "IIZI": -1.0, "IZII": -0.5, "ZIII": -0.5, "XXXX": 1.5}, name="determinant")


@pytest.mark.parametrize(
    ("problem", "error", "two", "coupling"),
    [("h2-4", 1e-10, 3, None), ("beh2-6-bohr", 1e-4, 5, None), (DETERMINANT, 1e-10, 3, LINE)],
    ids=["h2-4", "beh2-6-bohr", "determinant on a line"],
)
def test_a_beam_leaves_a_determinant_by_fans(
    problem: Any, error: float, two: int, coupling: Any, tmp_path: Path
) -> None:
    """There no string of one or two letters has a slope: double excitations are strings of four."""
    given: dict[str, Any] = {"agent": "beam", "evaluations": 1500, "seed": 0, "report": False, "coupling": coupling}
    run = qas.search(problem, out=tmp_path / "run", **given)
    assert run.best.error < error and run.best.two_qubit_gates <= two
    plain = qas.search(problem, out=tmp_path / "plain", options={"strings": 0}, **given)
    assert plain.best.error > 1e-3
    assert run.evaluations == plain.evaluations == 1500
