"""Agent adapt on Hamiltonians: published gate counts, exact energies, what it picks, and how it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import qas
from qas.agents.growth.adapt import AdaptAgent, enlarged
from qas.circuits import Circuit
from qas.excitations import operator_pool
from qas.meter import Meter
from qas.runs import Run
from qas.testing import AgentContract
from qas.vqe import Evaluator


def run_adapt(out: Path, problem: Any = "h4-8", **settings: Any) -> Run:
    return qas.search(problem, agent="adapt", out=out, report=False, **({"seed": 0, "evaluations": 400} | settings))


class TestTheContractHoldsForHamiltonians(AgentContract):
    agent = "adapt"
    settings: ClassVar[dict[str, Any]] = {
        "problem": "h2-4",
        "options": {"pool": "qubit", "candidates": 2, "layers": True},
    }


# ---------------------------------------------------------------------- published counts
@pytest.mark.parametrize(
    ("problem", "options", "error", "two_qubit_gates"),
    [
        # QEB-ADAPT-VQE of LiH at 1.546 Å: 52 CNOT (1.598 mHa), 65 with the steepest operator each time (1.51 mHa);
        # Yordanov et al., arXiv:2011.10540, tables of the code release.
        ("lih-12", {"candidates": 10}, 1.598e-3, 52),
        ("lih-12", {}, 1.510e-3, 65),
    ],
)
def test_published_counts_are_reproduced(
    problem: str, options: dict[str, Any], error: float, two_qubit_gates: int, tmp_path: Path
) -> None:
    run = run_adapt(tmp_path / "run", problem, target=1.6e-3, evaluations=2000, options=options)
    assert run.best.error == pytest.approx(error, abs=1e-6)
    assert run.best.circuit.two_qubit_gates == two_qubit_gates


@pytest.mark.parametrize("pool", ["fermionic", "qeb", "ceo", "ceo-mvp", "qubit"])
def test_every_pool_ends_at_the_energy_of_pyscf(pool: str, tmp_path: Path) -> None:
    from pyscf import fci, gto, scf

    mol = gto.M(atom="H 0 0 0; H 0 0 1; H 0 0 2; H 0 0 3", basis="sto-3g", verbose=0)
    exact = fci.FCI(scf.RHF(mol).run()).kernel()[0]
    run = run_adapt(tmp_path / "run", "h4-8", evaluations=4000, target=1e-5, options={"pool": pool})
    assert exact - 1e-8 <= run.best.energy <= exact + 1.1e-5
    errors = run.history()["error"][: run.history()["angles"].argmax() + 1]
    assert (np.diff(errors) < 0).all()


# ---------------------------------------------------------------------- what is picked
def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Circuit, list[Circuit]]]:
    seen: list[tuple[Circuit, list[Circuit]]] = []
    original = AdaptAgent._longer

    def watch(self: AdaptAgent, circuit: Circuit) -> list[Circuit]:
        seen.append((circuit, original(self, circuit)))
        return seen[-1][1]

    monkeypatch.setattr(AdaptAgent, "_longer", watch)
    return seen


@pytest.mark.parametrize("pool", ["qeb", "fermionic", "ceo"])
def test_the_first_candidate_is_the_steepest_by_finite_differences(
    pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched(monkeypatch)
    problem = qas.load_problem("h4-8")
    run_adapt(tmp_path / "run", problem, steps=4, evaluations=None, options={"pool": pool})
    for before, (after, *_) in seen:
        slopes = []
        for operator in operator_pool(problem, pool):
            up, down = (problem.energy(Circuit(8, (*before.gates, *operator.at(t)))) for t in (1e-4, -1e-4))
            slopes.append(abs(up - down) / 2e-4)
        added = after.gates[len(before) :]
        picked = [o for o in operator_pool(problem, pool) if o.gates == added]
        assert slopes[operator_pool(problem, pool).index(picked[0])] == pytest.approx(max(slopes), abs=1e-6)


def test_of_the_candidates_the_lowest_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, judged = watched(monkeypatch), dict[str, float]()
    evaluate = Meter.evaluate

    def noted(self: Meter, circuit: Circuit, *args: Any, **kwargs: Any) -> Any:
        found = evaluate(self, circuit, *args, **kwargs)
        judged[circuit.key] = found.error
        return found

    monkeypatch.setattr(Meter, "evaluate", noted)
    run_adapt(tmp_path / "run", steps=13, evaluations=None, options={"candidates": 4})
    assert [len(grown) for _, grown in seen] == [4, 4, 4]
    for (_, grown), (after, _) in zip(seen, seen[1:], strict=False):
        assert judged[after.key] == min(judged[circuit.key] for circuit in grown)


def test_a_layer_has_disjoint_qubits_and_nothing_more_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watched(monkeypatch)
    run_adapt(tmp_path / "run", steps=4, evaluations=None, options={"layers": True})
    sizes = []
    for before, (after, *_) in seen:
        added = after.gates[len(before) :]
        qubits = [q for gate in added for q in gate.qubits]
        assert len(qubits) == len(set(qubits))
        sizes.append(len(added))
    assert max(sizes) > 1


def test_rank_by_gain_takes_what_wins_most_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watched(monkeypatch)
    problem = qas.load_problem("h4-8")
    run_adapt(tmp_path / "run", problem, steps=2, evaluations=None, options={"rank": "gain"})
    angles = np.linspace(-np.pi / 2, np.pi / 2, 41)
    for before, (after, *_) in seen:
        gains = {
            o.gates: problem.energy(before) - min(problem.energy(Circuit(8, (*before.gates, *o.at(t)))) for t in angles)
            for o in operator_pool(problem, "qeb")
        }
        # A grid of 4.5 degrees misses a little of each minimum.
        assert gains[after.gates[len(before) :]] > max(gains.values()) - 4e-3


def test_a_round_starts_from_any_determinant(tmp_path: Path) -> None:
    run = run_adapt(tmp_path / "run", "h4-8", steps=1, evaluations=None, options={"start": "01010101"})
    problem = qas.load_problem("h4-8")
    assert problem.molecule is not None
    bits = problem.molecule.encode_determinant("01010101")
    assert run.best.energy == pytest.approx(problem.hamiltonian.diagonal[int(bits, 2)].real, abs=1e-10)


def test_spins_grow_by_two_qubit_strings(tmp_path: Path) -> None:
    run = run_adapt(tmp_path / "run", "heisenberg-4", evaluations=1500, target=1e-6)
    assert run.best.error <= 1e-6


# ---------------------------------------------------------------------- the inverse Hessian
def test_what_is_known_of_the_hessian_saves_evaluations() -> None:
    problem = qas.load_problem("h4-8")
    evaluator = Evaluator(problem, start_noise=0.0, max_evaluations=500)
    pool = operator_pool(problem, "qeb")
    doubles = [o for o in pool if len(o.qubits) == 4][:12]
    circuit = Circuit(8, (*problem.reference_circuit.gates, *(g for o in doubles for g in o.gates)))
    rng = np.random.default_rng(0)
    first = evaluator.evaluate(circuit, rng, exact_start=True)
    assert first.inverse_hessian is not None
    near = first.circuit.with_angles(first.circuit.angles + 0.05 * rng.normal(size=12))
    cold = evaluator.evaluate(near, rng, exact_start=True)
    warm = evaluator.evaluate(near, rng, exact_start=True, inverse_hessian=first.inverse_hessian)
    assert warm.energy == pytest.approx(cold.energy, abs=1e-8)
    assert warm.evaluations < cold.evaluations


def test_a_hessian_grows_by_curvatures_like_the_others() -> None:
    inverse = np.array([[2.0, 0.5], [0.5, 4.0]])
    larger = enlarged(inverse, 4)
    assert larger is not None
    assert np.array_equal(larger[:2, :2], inverse) and np.array_equal(larger[2:, 2:], 3.0 * np.eye(2))
    assert not larger[:2, 2:].any() and not larger[2:, :2].any()
    assert enlarged(None, 3) is None and enlarged(np.zeros((0, 0)), 1) is None
