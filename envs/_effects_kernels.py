"""Compiled kernels of `qas.envs.effects`: on a few qubits NumPy's calls cost ten times what they compute."""

# mypy: disallow-untyped-defs=False, check-untyped-defs=False

from __future__ import annotations

import math

from qas.simulators._compile import compiled
from qas.simulators._lanes import odd


@compiled()
def expectations(psi, x_masks, z_masks, values):
    """⟨P⟩ of Pauli strings, given by the masks of their letters X or Y and Z or Y, into `values`."""
    for k in range(len(values)):
        x, z = x_masks[k], z_masks[k]
        imaginary = odd(x & z)
        total = 0.0
        for i in range(len(psi)):
            a, b = psi[i ^ x], psi[i]
            if imaginary:
                part = a.imag * b.real - a.real * b.imag
            else:
                part = a.real * b.real + a.imag * b.imag
            total += -part if odd(i & z) else part
        quarter = 0
        for i in range(64):
            quarter += ((x & z) >> i) & 1
        values[k] = -total if quarter & 2 else total


@compiled()
def mark(values, starts, columns, weights, tokens, least, changed):
    """Set `changed` of each token of which a second moment exceeds \\|first moment\\|² by more than `least`.

    Args:
        starts: where the entries of each pair of moments begin, and their number.
        columns: which of `values` an entry multiplies.
        weights: real and imaginary part for the first moment, and for the second, shape (entries, 3).
    """
    for row in range(len(tokens)):
        real = imaginary = second = 0.0
        for entry in range(starts[row], starts[row + 1]):
            value = values[columns[entry]]
            real += weights[entry, 0] * value
            imaginary += weights[entry, 1] * value
            second += weights[entry, 2] * value
        if second - (real * real + imaginary * imaginary) > least:
            changed[tokens[row]] = True


@compiled()
def replace_zeros(angles, least, value):
    """Put `value` in the place of angles closer than `least` to a full turn; returns whether there were any."""
    found = False
    for i in range(len(angles)):
        turns = round(angles[i] / (2.0 * math.pi))
        if abs(angles[i] - 2.0 * math.pi * turns) < least:
            angles[i], found = value, True
    return found
