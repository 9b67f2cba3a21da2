"""Speed of the noise-free engine beside Qulacs: energies, and energies with all gradients, one thread on both sides.

    python benchmarks/statevector.py --check --out results/speed/statevector.json

Random circuits of rx, ry, rz and cx with their angles set anew in every call, as an optimizer does, on transverse-field
Ising chains; and LiH in its full minimal basis (12 qubits, 631 terms) after 60 gates. Last, ansätze of ADAPT-VQE (a
determinant and double excitations of qubits), whose excitations are gates of the engine, beside the same engine on what
they are decomposed into. Qulacs runs the circuit as a
`ParametricQuantumCircuit`; its gradient is `backprop`, to which its energy is added, since ours gives both. Energies
and gradients must agree to 1e-10 first. All calls are made in turn, so a busy machine slows both sides; medians.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "QULACS_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from timing import medians

import qas
from qas.circuits import Circuit
from qas.excitations import operator_pool
from qas.hamiltonians import Hamiltonian
from qas.simulators import make_simulator
from qas.simulators.statevector import StatevectorSimulator
from qas.testing import random_circuit

SIZES = (4, 6, 8, 10, 12, 14, 16)
GATE_SETS = {"complex": ["rx", "ry", "rz", "cx"], "real": ["ry", "ry", "cx"]}
SMALL = 8
REACH_SMALL, REACH_LARGE = 3.0, 1.0
LIH_GATES, LIH_REACH = 60, 1.5e-3
EXCITED, REACH_EXCITED = (("lih-12", 20), ("h6-12", 60), ("beh2-14", 60)), 5.0


class QulacsEnergy:
    """The same circuit and Hamiltonian for Qulacs, which rotates by exp(+iθP/2)."""

    def __init__(self, circuit: Circuit, hamiltonian: Hamiltonian) -> None:
        from qulacs import Observable, ParametricQuantumCircuit, QuantumState

        self.circuit = ParametricQuantumCircuit(circuit.n_qubits)
        for gate in circuit:
            if gate.name == "cx":
                self.circuit.add_CNOT_gate(*gate.qubits)
            else:
                getattr(self.circuit, f"add_parametric_{gate.name.upper()}_gate")(gate.qubits[0], -gate.angles[0])
        self.observable = Observable(circuit.n_qubits)
        for string, coefficient in hamiltonian.terms.items():
            letters = [f"{letter} {q}" for q, letter in enumerate(reversed(string)) if letter != "I"]
            self.observable.add_operator(coefficient, " ".join(letters))
        self.state = QuantumState(circuit.n_qubits)

    def _set(self, angles: list[float]) -> None:
        for k, angle in enumerate(angles):
            self.circuit.set_parameter(k, -angle)

    def energy(self, angles: list[float]) -> float:
        self._set(angles)
        return self._energy()

    def _energy(self) -> float:
        self.state.set_zero_state()
        self.circuit.update_quantum_state(self.state)
        return self.observable.get_expectation_value(self.state)

    def energy_and_gradient(self, angles: list[float]) -> tuple[float, list[float]]:
        self._set(angles)
        return self._energy(), self.circuit.backprop(self.observable)

    def gradient(self, angles: list[float]) -> np.ndarray:
        self._set(angles)
        return -np.array(self.circuit.backprop(self.observable))


def measure(label: str, circuit: Circuit, hamiltonian: Hamiltonian, seconds: float) -> dict[str, Any]:
    ours, theirs = make_simulator(engine="statevector"), QulacsEnergy(circuit, hamiltonian)
    angles = np.array(circuit.angles)
    numbers = angles.tolist()
    energy, gradient = ours.expectation_and_gradient(circuit, hamiltonian, angles)
    gap = max(abs(energy - theirs.energy(numbers)), np.abs(gradient - theirs.gradient(numbers)).max())
    gap = max(gap, abs(energy - ours.expectation(circuit, hamiltonian, angles)))
    if gap > 1e-10:
        raise SystemExit(f"{label}: the engines disagree by {gap:.2g}: nothing to compare")
    times = medians(
        {
            "energy": lambda: ours.expectation(circuit, hamiltonian, angles),
            "qulacs_energy": lambda: theirs.energy(numbers),
            "gradient": lambda: ours.expectation_and_gradient(circuit, hamiltonian, angles),
            "qulacs_gradient": lambda: theirs.energy_and_gradient(numbers),
        },
        seconds,
    )
    return {
        "label": label,
        "n_qubits": circuit.n_qubits,
        "n_gates": len(circuit),
        "n_angles": circuit.n_angles,
        "n_terms": len(hamiltonian),
        "gap": gap,
        "seconds": times,
        "energy_faster": times["qulacs_energy"] / times["energy"],
        "gradient_faster": times["qulacs_gradient"] / times["gradient"],
    }


class Decomposing(StatevectorSimulator):
    """The engine without gates for excitations."""

    runs_excitations = False


def adapt_circuit(problem: Any, count: int, rng: np.random.Generator) -> Circuit:
    """The reference determinant and so many double excitations from the QEB pool."""
    pool = [operator for operator in operator_pool(problem, "qeb") if len(operator.qubits) == 4]
    filled = [q for q in range(problem.n_qubits) if problem.molecule.occupations[-1 - q] == "1"]
    chosen = [pool[k].at(rng.normal(scale=0.1))[0] for k in rng.integers(len(pool), size=count)]
    return Circuit(problem.n_qubits, [*(("x", q) for q in filled), *chosen])


def measure_excitations(name: str, count: int, seed: int, seconds: float) -> dict[str, Any]:
    problem = qas.load_problem(name)
    circuit = adapt_circuit(problem, count, np.random.default_rng(seed))
    engines = {"": StatevectorSimulator(), "decomposed_": Decomposing()}
    found = [e.expectation_and_gradient(circuit, problem.hamiltonian) for e in engines.values()]
    gap = max(abs(found[0][0] - found[1][0]), np.abs(found[0][1] - found[1][1]).max())
    if gap > 1e-10:
        raise SystemExit(f"{name}: the two forms of excitations disagree by {gap:.2g}: nothing to compare")
    calls: dict[str, Callable[[], object]] = {}
    for kind, engine in engines.items():
        calls[f"{kind}energy"] = lambda e=engine: e.expectation(circuit, problem.hamiltonian)
        calls[f"{kind}gradient"] = lambda e=engine: e.expectation_and_gradient(circuit, problem.hamiltonian)
    times = medians(calls, seconds)
    faster = {f"{kind}_faster": times[f"decomposed_{kind}"] / times[kind] for kind in ("energy", "gradient")}
    label = f"{name}, {count} double excitations"
    return {"label": label, "n_qubits": circuit.n_qubits, "gap": gap, "seconds": times, **faster}


def excitation_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "",
        "| ansatz | energy | decomposed | faster | energy + gradient | decomposed | faster |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        t = {name: f"{1e6 * value:.0f} µs" for name, value in row["seconds"].items()}
        energy = f"{t['energy']} | {t['decomposed_energy']} | {row['energy_faster']:.1f}×"
        gradient = f"{t['gradient']} | {t['decomposed_gradient']} | {row['gradient_faster']:.1f}×"
        lines.append(f"| {row['label']} | {energy} | {gradient} |")
    return "\n".join(lines)


def lih() -> Hamiltonian:
    """LiH at 1.6 angstrom, STO-3G, all orbitals, Jordan-Wigner: 12 qubits, 631 terms (PySCF)."""
    return qas.molecule("Li 0 0 0; H 0 0 1.6", basis="sto-3g", mapping="jordan-wigner").hamiltonian


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| circuit | energy | Qulacs | faster | energy + gradient | Qulacs | faster |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        t = {name: f"{1e6 * value:.1f} µs" for name, value in row["seconds"].items()}
        lines.append(
            f"| {row['label']}, {row['n_gates']} gates | {t['energy']} | {t['qulacs_energy']} "
            f"| {row['energy_faster']:.1f}× "
            f"| {t['gradient']} | {t['qulacs_gradient']} | {row['gradient_faster']:.1f}× |"
        )
    return "\n".join(lines)


def missed(rows: list[dict[str, Any]], excited: list[dict[str, Any]]) -> list[str]:
    found = []
    for row in excited:
        for kind in ("energy", "gradient"):
            if row[f"{kind}_faster"] < REACH_EXCITED:
                found.append(f"{row['label']}: {kind} {row[f'{kind}_faster']:.2f}× decomposed, want {REACH_EXCITED:g}×")
    for row in rows:
        reach = REACH_SMALL if row["n_qubits"] <= SMALL else REACH_LARGE
        for kind in ("energy", "gradient"):
            if row[f"{kind}_faster"] < reach:
                found.append(f"{row['label']}: {kind} {row[f'{kind}_faster']:.2f}× Qulacs, wanted {reach:g}×")
        if row["n_terms"] == 631 and row["seconds"]["gradient"] > LIH_REACH:
            time_ms = 1e3 * row["seconds"]["gradient"]
            found.append(f"{row['label']}: energy + gradient {time_ms:.2f} ms, wanted {1e3 * LIH_REACH:g} ms")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each circuit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a number to reach is missed")
    args = parser.parse_args()
    molecule = lih()
    rows = []
    for kind, gates in GATE_SETS.items():
        for n_qubits in args.sizes:
            rng = np.random.default_rng([args.seed, n_qubits])
            circuit = random_circuit(n_qubits, 10 * n_qubits, rng, gates=gates)
            hamiltonian = qas.load_problem(f"tfim-{n_qubits}").hamiltonian
            rows.append(measure(f"{n_qubits} qubits, {kind}", circuit, hamiltonian, args.seconds))
        circuit = random_circuit(12, LIH_GATES, np.random.default_rng(args.seed), gates=gates)
        rows.append(measure(f"LiH, 12 qubits, 631 terms, {kind}", circuit, molecule, args.seconds))
    excited = [measure_excitations(name, count, args.seed, args.seconds) for name, count in EXCITED]
    print(table(rows), excitation_table(excited), sep="\n")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(
            json.dumps({"command": " ".join(sys.argv), "rows": rows, "excitations": excited}, indent=1) + "\n"
        )
    failures = missed(rows, excited)
    for line in failures:
        print("missed:", line, file=sys.stderr)
    return 1 if args.check and failures else 0


if __name__ == "__main__":
    sys.exit(main())
