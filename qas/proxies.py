"""Proxies: what can be said of an architecture before any angle is trained. All are cheap, none needs a gradient."""

from __future__ import annotations

import math

import numpy as np

from qas.circuits import Circuit
from qas.errors import CircuitError, QasError
from qas.problems import BaseProblem, require_hamiltonian
from qas.simulators.statevector import StatevectorSimulator

BINS = 75
"""Bins of the histogram of fidelities (arXiv:1905.10876)."""


def haar_divergence(fidelities: np.ndarray, n_qubits: int, bins: int = BINS) -> float:
    """Kullback-Leibler divergence, in nats, of a histogram of fidelities from that of Haar-random states; at least 0.

    Haar-random pairs of dimension N have a fidelity in [l, u) with probability (1 - l)^(N-1) - (1 - u)^(N-1). From S
    independent fidelities of such states the result is about (bins - 1)/(2 S) instead of 0.

    Args:
        fidelities: |⟨ψ|φ⟩|² of pairs of states, any shape.
        n_qubits: number of qubits of the states.
        bins: number of bins of equal width on [0, 1].

    Raises:
        QasError: no fidelities, fidelities outside [0, 1] by more than rounding, or fewer than 2 bins.

    References:
        Sim, Johnson, Aspuru-Guzik, "Expressibility and entangling capability of parameterized quantum circuits for
        hybrid quantum-classical algorithms", Adv. Quantum Technol. 2, 1900070 (2019), arXiv:1905.10876, section 3.1.
    """
    values = np.asarray(fidelities, dtype=np.float64).ravel()
    if bins < 2:
        raise QasError(f"a histogram of fidelities has at least 2 bins, got {bins}")
    if not values.size or not (values.min() >= -1e-9 and values.max() <= 1 + 1e-9):
        raise QasError(
            f"fidelities lie in [0, 1], got {f'{values.min()} to {values.max()}' if values.size else 'none'}"
        )
    # A fidelity of exactly 1 often comes out a rounding below it; either way it is in the last bin.
    counts = np.bincount(np.minimum(np.maximum(values * bins, 0).astype(np.int64), bins - 1), minlength=bins)
    share = counts / counts.sum()
    found = share > 0
    return float(max(0.0, np.sum(share[found] * (np.log(share[found]) - _log_haar(n_qubits, bins)[found]))))


def _log_haar(n_qubits: int, bins: int) -> np.ndarray:
    """Logarithms of the Haar probabilities of the bins: the probabilities themselves underflow from 8 qubits."""
    power = 2.0**n_qubits - 1
    edges = np.arange(bins) / bins
    lower = power * np.log1p(-edges)
    upper = np.append(lower[1:], -np.inf)
    return lower + np.log1p(-np.exp(upper - lower))


def expressibility(
    circuit: Circuit, rng: np.random.Generator, samples: int = 200, *, simulator: StatevectorSimulator | None = None
) -> float:
    """How far the states a circuit reaches are from Haar-random ones, in nats; **lower is more expressive**.

    `haar_divergence` of the fidelities of all pairs among `samples` states with angles uniform in [0, 2π). A circuit
    without angles has (2**n - 1) ln 75, the most possible; 0 is Haar.

    Args:
        circuit: the architecture; its own angles are ignored.
        rng: source of the angles.
        samples: number of states, at least 2; they take samples · 2**n · 16 bytes.
        simulator: one to use again for many circuits.

    Raises:
        QasError: fewer than 2 samples.
        TooLargeError: more qubits than the simulator can hold.
    """
    if samples < 2:
        raise QasError(f"expressibility compares at least 2 states, got {samples}")
    engine = simulator or StatevectorSimulator()
    if not circuit.n_angles:
        return haar_divergence(np.ones(1), circuit.n_qubits)
    angles = rng.uniform(0, 2 * math.pi, (samples, circuit.n_angles))
    states = np.stack([engine.state(circuit, row) for row in angles])
    fidelities = np.abs(states @ states.conj().T) ** 2
    return haar_divergence(fidelities[np.triu_indices(samples, 1)], circuit.n_qubits)


def landscape_fluctuation(
    circuit: Circuit,
    problem: BaseProblem,
    rng: np.random.Generator,
    samples: int = 200,
    *,
    simulator: StatevectorSimulator | None = None,
) -> float:
    """Standard deviation of the energy over angles uniform in [0, 2π), divided by Σ|c_k| without the identity.

    Between 0 (a flat landscape: no angles, or a barren plateau) and 1.

    Args:
        circuit: the architecture; its own angles are ignored.
        problem: operator H = Σ c_k P_k on as many qubits.
        rng: source of the angles.
        samples: number of energies, at least 2; the relative error of the result is about 1/sqrt(2 samples).
        simulator: one to use again for many circuits.

    Raises:
        CircuitError: a circuit and a problem of different sizes.
        QasError: fewer than 2 samples, a problem without a Hamiltonian, or an operator that is a multiple of the
            identity.

    References:
        Zhang, Zhu, Wang, "Predicting quantum learnability from landscape fluctuation", arXiv:2406.11805.
    """
    hamiltonian = require_hamiltonian(problem, "the fluctuation of the landscape").hamiltonian
    if circuit.n_qubits != hamiltonian.n_qubits:
        raise CircuitError(f"the circuit has {circuit.n_qubits} qubits but the problem has {hamiltonian.n_qubits}")
    if samples < 2:
        raise QasError(f"a fluctuation is over at least 2 energies, got {samples}")
    norm = float(np.abs(hamiltonian.coefficients[np.any(hamiltonian.masks, axis=0)]).sum())
    if not norm > 0:
        raise QasError(f"a fluctuation needs an operator other than a multiple of the identity, got {problem.name}")
    if not circuit.n_angles:
        return 0.0
    engine = simulator or StatevectorSimulator()
    angles = rng.uniform(0, 2 * math.pi, (samples, circuit.n_angles))
    energies = np.array([engine.expectation(circuit, hamiltonian, row) for row in angles])
    return float(energies.std(ddof=1) / norm)


def relative_fluctuation(
    circuit: Circuit,
    problem: BaseProblem,
    rng: np.random.Generator,
    samples: int = 200,
    *,
    simulator: StatevectorSimulator | None = None,
) -> float:
    """`landscape_fluctuation` · sqrt(2 M), M the number of angles; larger is better.

    It is measured against a landscape known to be learnable, the mean of the cosines of all M angles, whose
    fluctuation is 1/sqrt(2 M). M counts angles, so a ``u`` gate counts three times.

    Raises:
        as `landscape_fluctuation`.

    References:
        Zhang, Zhu, Wang, "Predicting quantum learnability from landscape fluctuation", arXiv:2406.11805.
    """
    fluctuation = landscape_fluctuation(circuit, problem, rng, samples, simulator=simulator)
    return math.sqrt(2 * circuit.n_angles) * fluctuation
