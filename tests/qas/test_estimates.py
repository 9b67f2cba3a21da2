"""Sizes that no machine has are refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qas.cli import main
from qas.encoders.pools.spaces import CircuitSpace
from qas.errors import TooLargeError
from qas.estimates import affordable, free_memory

SEARCH = ("search", "h2-2", "--quiet", "--no-report", "--steps", "1", "--agent")
CALLS: list[tuple[tuple[str, ...], str]] = [
    ((*SEARCH, "random", "--max-gates", "1" + "0" * 19), "max_gates is a whole number from 1 to"),
    ((*SEARCH, "ddqn", "-o", "envs=1000000000"), "envs is a whole number from 1 to"),
    ((*SEARCH, "sb3", "-o", 'settings={"n_steps": 1000000000000}'), "steps of MaskablePPO take at least"),
    (("search", "lih-4", "--quiet", "--steps", "1", "--agent", "knn", "-o", "pool_size=100000000000"), "GB are free"),
    (("pool", "build", "--quiet", "--qubits", "2", "--gates", "3", "--size", "100000000000"), "GB are free"),
    (("pool", "build", "--qubits", "2", "--gates", "1000000"), "max_gates is a whole number from 1 to 32767"),
    (("pool", "build", "--qubits", "2", "--gates", "3", "--task", "tfim-2", "--starts", "100000000"), "at least"),
    (("backbone", "train", "digits-tiny", "--examples", "1000000000"), "days, and a day is the most"),
]


@pytest.mark.parametrize(("words", "told"), CALLS, ids=[" ".join(words[-2:]) for words, _ in CALLS])
def test_the_figure_is_told(words: tuple[str, ...], told: str, tmp_path: Path, capsys: Any) -> None:
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert told in err and err.count("\n") == 1 and not out
    assert not (tmp_path / "out").exists()


def test_what_is_affordable_passes() -> None:
    affordable("a step takes", memory=free_memory() / 4, seconds=3600)
    with pytest.raises(TooLargeError, match=r"it takes at least 2 days, and a day is the most; give less"):
        affordable("it takes", seconds=2 * 86_400, instead="give less")
    with pytest.raises(TooLargeError, match="GB are free"):
        CircuitSpace(2, ("ry", "cx"), max_gates=1000).sample(10**12, np.random.default_rng(0))
