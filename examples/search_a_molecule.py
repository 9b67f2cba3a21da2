"""Search a circuit for lithium hydride under the noise of a real device, look at it, and check it with Qiskit Aer."""

import qas

problem = qas.load_problem("lih-4")
run = qas.search(problem, agent="evolution", noise="ibm-mumbai", seconds=10, seed=0)

print(run.best.circuit)
print(
    f"exact {problem.exact:.6f} Ha, found {run.best.energy:.6f} Ha noisy, {run.best.noise_free_energy:.6f} noise-free"
)
for point in run.front:
    print(f"{point.two_qubit_gates} cx, {point.gates} gates: error {point.error:.2e} Ha")

check = qas.evaluate(run.best.circuit, problem, noise="ibm-mumbai", engine="aer", shots=20_000)
print(f"Aer, 20,000 shots a setting: {check.energy:.4f} ± {check.standard_error:.4f} Ha")
print(f"everything lies in {run.path}; open report.html there")
