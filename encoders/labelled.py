"""Labelled pools by name; the pools themselves are imported when one is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from qas.problems import BaseProblem, Family


class LabelledPools(Family):
    """``labelled POOL:TASK``: circuits of a pool, judged by look-up of their labels."""

    pattern = "labelled POOL:TASK"
    about = "circuits of a labelled pool, judged by look-up, such as labelled pools/q4:state-4-0"
    formats: ClassVar = {"qas-labelled-pool": "qas.encoders.pools.pool:TabularProblem"}

    def load(self, member: str) -> BaseProblem:
        from qas.encoders.pools.pool import TabularProblem

        return TabularProblem.load(member)

    def near(self, numbers: list[int]) -> tuple[str, ...]:
        return (self.pattern,)

    def examples(self, folder: Path) -> tuple[str, ...]:
        from qas.encoders.pools.pool import LabelSettings, build_pool
        from qas.encoders.pools.spaces import CircuitSpace

        space = CircuitSpace(2, ("rx", "ry", "cx"), max_gates=3, min_gates=1)
        build_pool(folder / "labelled", space, 30, tasks=["tfim-2"], settings=LabelSettings(starts=2), jobs=1)
        return (f"labelled {folder / 'labelled'}:tfim-2",)
