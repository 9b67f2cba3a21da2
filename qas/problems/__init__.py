"""Problems: what a circuit is judged on. Mostly a Hamiltonian, what is known about it, and where both come from."""

from qas.problems.base import BaseProblem, OperatorProblem, require_operator
from qas.problems.families import (
    MAX_QUBITS,
    MOLECULES,
    PROBLEMS,
    Family,
    list_problems,
    load_problem,
    needs_file,
    problem_from_json,
)
from qas.problems.graphs import maxcut
from qas.problems.hamiltonian import (
    CHEMICAL_ACCURACY,
    FORMAT,
    VERSION,
    Problem,
    problem,
    require_hamiltonian,
)
from qas.problems.spins import cluster, heisenberg, tfim
from qas.problems.states import MAX_TARGET_QUBITS, state_preparation
from qas.problems.unitaries import MAX_UNITARY_QUBITS, UnitaryProblem, unitary

__all__ = [
    "CHEMICAL_ACCURACY",
    "FORMAT",
    "MAX_QUBITS",
    "MAX_TARGET_QUBITS",
    "MAX_UNITARY_QUBITS",
    "MOLECULES",
    "PROBLEMS",
    "VERSION",
    "BaseProblem",
    "Family",
    "OperatorProblem",
    "Problem",
    "UnitaryProblem",
    "cluster",
    "heisenberg",
    "list_problems",
    "load_problem",
    "maxcut",
    "needs_file",
    "problem",
    "problem_from_json",
    "require_hamiltonian",
    "require_operator",
    "state_preparation",
    "tfim",
    "unitary",
]
