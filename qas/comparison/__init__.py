"""Comparisons of runs: statistics over seeds, tables, figures, and one page of them."""

from __future__ import annotations

from qas.comparison.groups import Arm, Comparison, Group, gather
from qas.comparison.page import write_page
from qas.comparison.statistics import band, interval, paired, wilson

__all__ = ["Arm", "Comparison", "Group", "band", "gather", "interval", "paired", "wilson", "write_page"]
