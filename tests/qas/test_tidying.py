"""Tidying a front: smaller circuits that are no worse, at a price that is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qas
from qas.agents import resume
from qas.circuits import Circuit
from qas.native import NativeGates
from qas.runs import Front
from qas.simplify import merge_runs
from qas.testing import random_circuit
from qas.testing.agents import found
from qas.tidying import Tidier
from qas.vqe import Evaluator

GATES = ("rx", "ry", "rz", "cx")


def front_of(evaluator: Evaluator, *circuits: Circuit) -> Front:
    front = Front()
    for number, circuit in enumerate(circuits):
        energy = evaluator.energy(circuit)
        front.add(circuit, energy, evaluator.problem.error(energy), number)
    return front


@pytest.mark.parametrize("noise", [None, "ibm-mumbai"])
def test_no_circuit_gets_worse_and_none_longer(noise: str | None) -> None:
    """Random circuits; energies against those of the circuits as they are."""
    evaluator = Evaluator(qas.load_problem("lih-4"), qas.load_noise(noise))
    rng = np.random.default_rng(5)
    for _ in range(10):
        circuit = random_circuit(4, 25, rng, gates=GATES)
        front = front_of(evaluator, circuit)
        tidier = Tidier(evaluator, GATES, 200)
        (error, energy, tidied, _), *_ = sorted(tidier(front).points, key=lambda point: point[0])
        assert len(tidied) <= len(circuit) and tidied.two_qubit_gates <= circuit.two_qubit_gates
        assert (np.abs(tidied.angles) <= np.pi).all() and {g.name for g in tidied} <= set(GATES)
        assert energy <= front.points[0][1] + 1e-10
        assert evaluator.energy(tidied) == pytest.approx(energy, abs=1e-10)
        assert error == pytest.approx(evaluator.problem.error(energy), abs=1e-10)
        assert tidier.evaluations <= 200
        assert front.points[0][2] == circuit, "the front itself is left as it is"


def test_tiny_rotations_go_where_others_make_up_for_them() -> None:
    evaluator = Evaluator(qas.load_problem("h2-2"), qas.load_noise("ibm-mumbai"))
    start = Circuit(2, [("ry", 0, 3.0), ("ry", 1, 0.1), ("cx", (0, 1)), ("rx", 0, 0.1), ("ry", 0, 0.1)])
    best = evaluator.evaluate(start, np.random.default_rng(0)).circuit
    padded = Circuit(2, [*best.gates, ("rz", 0, 1.9e-5), ("cx", (0, 1)), ("rx", 1, 4e-4)])
    front = front_of(evaluator, padded)
    tidied = Tidier(evaluator, GATES, 300)(front).best
    assert tidied is not None and tidied[1] < front.points[0][1] - 1e-6, "a gate less is noise less"
    assert all(abs(g.angles[0]) >= 1e-3 for g in tidied[2] if g.angles)


def test_native_gates_are_merged_exactly_before_angles_are_moved() -> None:
    evaluator, native = Evaluator(qas.load_problem("h2-2")), NativeGates("cz", None, True)
    near = ("rz", 0, np.pi / 2 + 3e-4)  # within NATIVE_TOLERANCE of an angle at which one pulse is enough
    start = Circuit(
        2, [("sx", 0), near, ("sx", 0), ("sx", 1), ("rz", 1, 0.3), ("rz", 1, 0.4), ("sx", 1), ("cz", (0, 1))]
    )
    tidier = Tidier(evaluator, ("rz", "sx", "x", "cz"), 100, native=native)
    merged, _ = tidier._merged(start, evaluator.energy(start) + 1e-3)
    assert len(merged) == 7 and near[2] in [gate.angles[0] for gate in merged if gate.angles]


def test_nothing_is_spent_without_an_allowance() -> None:
    evaluator = Evaluator(qas.load_problem("h2-2"))
    circuit = Circuit(2, [("ry", 0, 7.0), ("rx", 0, 0.2), ("ry", 0, -9.0), ("rx", 0, 1.0), ("cx", (0, 1))])
    tidier = Tidier(evaluator, GATES, 0)
    ((_, energy, tidied, _),) = tidier(front_of(evaluator, circuit)).points
    assert tidier.evaluations == 0 and len(tidied) == 5 and (np.abs(tidied.angles) <= np.pi).all()
    assert energy == pytest.approx(evaluator.energy(circuit), abs=1e-12)


def test_a_run_reports_a_tidy_front_and_goes_on_from_the_other(tmp_path: Path) -> None:
    def search(name: str, evaluations: int) -> qas.Run:
        return qas.search(
            "lih-4", agent="random", noise="ibm-mumbai", evaluations=evaluations, max_gates=20, seed=2,
            gates=["u", "ry", "rx", "cx"], out=tmp_path / name, report=False,
        )  # fmt: skip

    whole = search("whole", 2000)
    assert whole.evaluations == 2000 and 0 < whole.tidying <= 200
    for result in whole.front:
        assert (np.abs(result.circuit.angles) <= np.pi).all()
        assert merge_runs(result.circuit, ["u", "ry", "rx"]) is result.circuit
    part = search("part", 900)
    assert found(resume(part.path, evaluations=2000, report=False)) == found(whole)
