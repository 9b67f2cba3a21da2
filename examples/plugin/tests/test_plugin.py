"""What the package registers keeps the contracts of qas.testing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qas_example_plugin.agent import HillClimbAgent
from qas_example_plugin.problems import Ladder

import qas
from qas.cli import main
from qas.testing import AgentContract, ProblemContract


class TestHillClimb(AgentContract):
    agent = "hillclimb"


class TestLadder(ProblemContract):
    name = "ladder-2"


def test_both_are_found_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agents"]) == 0 and main(["problems"]) == 0
    listed = capsys.readouterr().out
    assert HillClimbAgent.about in listed and "patience=50" in listed and Ladder.about in listed


def test_energies_of_the_smallest_ladder() -> None:
    """Four spins in a ring, as two rungs make: -8, as for the ring of the package."""
    problem = qas.load_problem("ladder-2")
    assert np.isclose(problem.exact, qas.load_problem("heisenberg-4").exact)
    with pytest.raises(qas.QasError, match="ladder-N with N from 2 to 8"):
        qas.load_problem("ladder-99")


def test_it_climbs(tmp_path: Path) -> None:
    start = qas.search("ladder-2", agent="hillclimb", steps=1, out=tmp_path / "start")
    run = qas.search("ladder-2", agent=HillClimbAgent(patience=30), steps=150, seed=0, out=tmp_path / "run")
    assert run.best.error < start.best.error and run.config["agent"] == "hillclimb"
