"""Noisy energies of native circuits against Qiskit Aer's own models of many devices, with and without waiting qubits.

    python benchmarks/devices.py --check --out results/devices/engine.json

Needs the extra ibm. For each fake backend: the calibration is read by `qas.Device` and, from the backend's own target,
by `qiskit_aer.noise.NoiseModel.from_backend`; random native circuits on patches of several qubits are judged by the
pauli-transfer engine and by Aer's density matrix, as they stand and with the delays of Qiskit's as-late-as-possible
schedule, in which Aer's model relaxes qubits. `--check` fails where any energy differs by more than 1e-9, or on fewer
than 12 devices.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qas.devices import Device, fake_backend
from qas.files import write_json
from qas.simulators import make_simulator
from qas.testing import random_hamiltonian
from qas.testing.devices import aer_energies, part_of, random_native_circuit

DEVICES = (
    "fake_torino",
    "fake_fez",
    "fake_marrakesh",
    "fake_brisbane",
    "fake_sherbrooke",
    "fake_kyiv",
    "fake_peekskill",
    "fake_prague",
    "fake_mumbai",
    "fake_montreal",
    "fake_guadalupe",
    "fake_cairo",
    "fake_lagos",
    "fake_manila",
)
ACCURACY = 1e-9


def measured(name: str, n_circuits: int, n_gates: int, rng: np.random.Generator) -> dict[str, Any]:
    backend = fake_backend(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which pairs of the device do not work
        device = Device.from_backend(backend)
    largest = {"as it stands": 0.0, "with delays": 0.0}
    effect = 0.0
    for k in range(n_circuits):
        shape, which = ("line", "best")[k % 2], ("best", "median")[k // 2 % 2]
        patch = device.patch(3 + k % 3, shape, which)
        noise = replace(patch.noise(), readout={})
        circuit = random_native_circuit(patch, n_gates, rng)
        hamiltonian = random_hamiltonian(patch.n_qubits, 30, rng)
        expected = aer_energies(part_of(backend.target, patch.physical), circuit, hamiltonian)
        for kind, model, energy in zip(largest, (replace(noise, idle=None), noise), expected, strict=True):
            ours = make_simulator(noise=model).expectation(circuit, hamiltonian)
            largest[kind] = max(largest[kind], abs(ours - energy))
        effect = max(effect, abs(expected[0] - expected[1]))
    found = {"qubits": device.n_qubits, "entangler": device.entangler, "date": device.date, "source": device.source}
    return found | {"largest difference": largest, "largest effect of waiting": effect}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", nargs="+", default=list(DEVICES))
    parser.add_argument("--circuits", type=int, default=4, help="of each device")
    parser.add_argument("--gates", type=int, default=30, help="of each circuit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = {}
    for name in arguments.devices:
        rng = np.random.default_rng([arguments.seed, *name.encode()])
        rows[name] = measured(name, arguments.circuits, arguments.gates, rng)
        print(name, rows[name], flush=True)
        if arguments.out is not None:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(arguments.out, rows)
    worst = max(value for row in rows.values() for value in row["largest difference"].values())
    print(f"{len(rows)} devices, largest difference {worst:.2g}")
    return 1 if arguments.check and (worst > ACCURACY or len(rows) < 12) else 0


if __name__ == "__main__":
    sys.exit(main())
