"""What an estimate costs: standard errors as objectives predict them, against the spread of experiments in Aer.

python benchmarks/sampling_cost.py            # table
python benchmarks/sampling_cost.py --check    # fails where they differ by more than 10 %

Every measurement setting of every strength of the noise is run in Aer, readout flips included, and its shots are cut
into experiments. Folded circuits are written out gate by gate.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import qas
from qas.circuits import Circuit
from qas.hamiltonians import Hamiltonian
from qas.mitigation import Scored, make_objective, scaled
from qas.mitigation.sampling import groups_of
from qas.noise import NoiseModel
from qas.simulators import make_simulator
from qas.simulators.aer import AerSimulator, _with_measurement

OBJECTIVES = ("noisy:kappa=1", "readout", "zne:nodes=1-3", "zne:nodes=1-3,scale=fold", "zne:nodes=1-2,fit=exponential")


def outcomes(circuit: Circuit, strings: list[str], noise: NoiseModel, shots: int, seed: int) -> np.ndarray:
    """What was read, as numbers, shape (shots,)."""
    engine = AerSimulator(noise)
    setting = _with_measurement(engine._parametrized(circuit, None)[0], strings)
    memory = engine._backend(circuit).run(setting, shots=shots, seed_simulator=seed, memory=True).result().get_memory()
    return np.array([int(word, 2) for word in memory])


def shot_values(hamiltonian: Hamiltonian, group: list[int], noise: NoiseModel, inverted: bool) -> np.ndarray:
    """What each outcome counts in the energy of a group, shape (2**n,)."""
    n = hamiltonian.n_qubits
    signs = 1.0 - 2.0 * (np.arange(1 << n)[:, None] >> np.arange(n) & 1)
    if inverted:
        p01, p10 = noise.readout_flips(n).T
        signs = (signs - (p10 - p01)) / (1 - p01 - p10)
    measured = hamiltonian.letters[group] != 0
    return sum(
        coefficient * np.where(row, signs, 1.0).prod(axis=1)
        for coefficient, row in zip(hamiltonian.coefficients[group], measured, strict=True)
    )  # type: ignore[return-value]


def spread(
    circuit: Circuit, hamiltonian: Hamiltonian, noise: NoiseModel, objective: Scored, experiments: int, seed: int
) -> tuple[float, float]:
    """(predicted, found) standard error of the estimate."""
    scored = objective.simulator(make_simulator(noise))
    recipe, nodes = scored.recipe, scored.nodes  # type: ignore[attr-defined]
    share = scored.observable(hamiltonian).measured.share  # type: ignore[attr-defined]
    found = np.full((experiments, len(nodes)), hamiltonian.identity)
    folded = getattr(objective, "scale", "") == "fold"
    for k, (node, part) in enumerate(zip(nodes, recipe.shares, strict=True)):
        times = int(node.noise.factor) if folded else 1
        run = Circuit(circuit.n_qubits, [g for g in circuit for _ in range(times if len(g.qubits) == 2 else 1)])
        model = noise if folded else scaled(noise, node.noise.factor)
        for g, group in enumerate(groups_of(hamiltonian)):
            shots = max(1, round(objective.shots * part * share[g]))
            strings = [hamiltonian.strings[term] for term in group]
            read = outcomes(run, strings, model, shots * experiments, seed + 1000 * k + g)
            values = shot_values(hamiltonian, group, noise, recipe.inverted)
            found[:, k] += values[read].reshape(experiments, shots).mean(axis=1)
    if recipe.exponential:
        limit = hamiltonian.identity
        estimates = limit + np.sign(found[0, 0] - limit) * np.exp(np.log(np.abs(found - limit)) @ recipe.fit)
    else:
        estimates = found @ recipe.fit
    return scored.estimate(circuit, hamiltonian).sigma, float(estimates.std(ddof=1))  # type: ignore[attr-defined]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail where they differ by more than 10 %%")
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--shots", type=int, default=3000, help="of one experiment, all settings together")
    parser.add_argument("--problem", default="lih-4")
    parser.add_argument("--device", default="fake_marrakesh", help="beside ibm-mumbai")
    arguments = parser.parse_args()
    problem = qas.load_problem(arguments.problem)
    n = problem.n_qubits
    device = qas.load_device(arguments.device).patch(n, shape="line").noise()
    line = [("ry", q, 0.3) for q in range(n)] + [("cx", (q, q + 1)) for q in range(n - 1)]
    rng = np.random.default_rng(0)
    start = Circuit(n, (line + [("rx", q, 0.2) for q in range(n)]) * 2)
    far = 0
    print("noise                objective                    predicted (mHa)  found (mHa)  ratio")
    for noise in (qas.load_noise("ibm-mumbai"), device):
        assert noise is not None
        for text in OBJECTIVES:
            objective = make_objective(f"{text}{',' if ':' in text else ':'}shots={arguments.shots}")
            circuit = qas.Evaluator(problem, noise, objective=objective).evaluate(start, rng).circuit
            expected, found = spread(circuit, problem.hamiltonian, noise, objective, arguments.experiments, 7)
            far += abs(found / expected - 1) > 0.1
            row = f"{noise.name[:20]:20} {text:28} {1e3 * expected:15.3f}  {1e3 * found:11.3f}"
            print(f"{row}  {found / expected:5.3f}", flush=True)
    return int(arguments.check and far > 0)


if __name__ == "__main__":
    sys.exit(main())
