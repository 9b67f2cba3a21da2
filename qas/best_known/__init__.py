"""The atlas: for problems with a name the best circuits that are known, and what papers report of the same problems.

`atlas` gives the front of a problem, `compare` says how a run stands to it. The records are files of the package, one a
problem, which ``scripts/atlas.py`` makes from runs and ``scripts/verify_atlas.py`` checks with Qiskit.
"""

from qas.best_known.comparison import Comparison, compare
from qas.best_known.fronts import KnownFront, atlas, known_problems
from qas.best_known.published import Published
from qas.best_known.records import KnownCircuit, fingerprint, tolerance

__all__ = [
    "Comparison", "KnownCircuit", "KnownFront", "Published", "atlas", "compare", "fingerprint", "known_problems",
    "tolerance",
]  # fmt: skip
