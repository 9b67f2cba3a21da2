"""Search on three qubits of a calibrated device snapshot (needs the extra 'ibm')."""

from qiskit_ibm_runtime.fake_provider import FakeTorino

import qas

noise = qas.NoiseModel.from_backend(FakeTorino(), qubits=[10, 11, 12])
print(f"{noise.name} couples {sorted(noise.coupling)}")
run = qas.search("tfim-3-open", agent="evolution", noise=noise, evaluations=20_000, seed=0, report=False)
print(run.best.circuit)
print(f"exact {run.problem.exact:.5f}, noisy {run.best.energy:.5f}, noise-free {run.best.noise_free_energy:.5f}")
