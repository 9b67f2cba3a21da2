"""Labelled pools by name; the pools themselves are imported when one is asked for."""

from __future__ import annotations

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
