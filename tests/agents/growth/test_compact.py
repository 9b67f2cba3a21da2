"""Agent compact: fewer CX than any published circuit, within the tolerance it is given, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import qas
from qas.errors import QasError
from qas.gates import SEARCH_GATES
from qas.runs import Run


def run_compact(out: Path, problem: Any = "h4-8", **settings: Any) -> Run:
    return qas.search(problem, agent="compact", out=out, report=False, **({"seed": 0} | settings))


def fewest(run: Run, error: float) -> Any:
    return min((r for r in run.front if r.error <= error), key=lambda r: (r.two_qubit_gates, r.gates))


def test_lithium_hydride_takes_few_cnots(tmp_path: Path) -> None:
    """Published: 52 CNOT (QEB-ADAPT-VQE, 1.598 mHa)."""
    run = run_compact(tmp_path / "run", "lih-12", evaluations=3000, options={"candidates": 10})
    best = fewest(run, 1.6e-3)
    assert best.two_qubit_gates <= 20
    assert set(best.circuit.counts) <= {*SEARCH_GATES, "x"}
    assert run.problem.energy(best.circuit) == pytest.approx(best.energy, abs=1e-9)


def test_hydrogen_takes_three_cnots_for_its_double_excitation(tmp_path: Path) -> None:
    run = run_compact(tmp_path / "run", "h2-4", evaluations=600, options={"tolerance": 1e-6})
    best = fewest(run, 1e-6)
    assert best.two_qubit_gates == 3
    assert best.error == pytest.approx(0.0, abs=1e-6)


def test_the_tolerance_is_kept_and_used(tmp_path: Path) -> None:
    counts = []
    for tolerance in (3e-2, 1e-3):
        options = {"tolerance": tolerance, "candidates": 3}
        run = run_compact(tmp_path / f"{tolerance}", "h4-8", evaluations=4000, options=options)
        counts.append(fewest(run, tolerance).two_qubit_gates)
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
