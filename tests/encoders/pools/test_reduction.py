"""Reduced forms: every rule by hand, and random circuits against dense states, in both directions."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from qas.circuits import Circuit, Gate
from qas.encoders.pools.reduction import reduce_rows, reduced_space
from qas.encoders.pools.spaces import PADDING, CircuitSpace
from qas.errors import CircuitError
from qas.gates import GATES, POOL_GATES, gate_spec
from qas.hamiltonians import Hamiltonian
from qas.optimizers import minimize
from qas.problems import state_preparation
from qas.simulators import make_simulator
from qas.simulators.dense import circuit_matrix
from qas.testing import random_hamiltonian

SIMULATOR = make_simulator()
WITHOUT_T = {
    "pool": POOL_GATES,
    "rotations": ("rx", "ry", "rz", "rxx", "ryy", "rzz", "x", "y", "z", "swap"),
    "ibm": ("sx", "rz", "x", "cx", "ry", "h"),
    "search": ("rx", "ry", "rz", "cx"),
    "phases": ("rx", "rz", "cz", "h", "s", "sdg", "z", "y"),
    "hops": ("h", "rx", "ry", "cx", "x", "ryy", "rxx", "sx"),
    "no cx": ("h", "ry", "rx", "rzz", "ryy", "cz", "x", "y", "swap"),
}
WITH_T = {
    "t": ("t", "tdg", "x", "y", "h", "cx", "ry", "rz", "swap", "rxx"),
    "t, cz": ("h", "ry", "rx", "rzz", "cz", "t", "x", "y"),
    "all": tuple(GATES),
}
FIXED = tuple(name for name, spec in GATES.items() if not spec.n_angles)
SETS = {**WITHOUT_T, **WITH_T}


@functools.cache
def free(n_qubits: int, gates: tuple[str, ...], max_gates: int) -> CircuitSpace:
    return CircuitSpace(n_qubits, gates, max_gates=max_gates, min_gates=0, max_depth=0, ring=())


def build(text: str, n: int) -> Circuit:
    """``"h0 cx01"`` as a circuit, angles 0."""
    gates = []
    for word in text.split():
        name = word.rstrip("0123456789")
        gates.append(Gate(name, tuple(map(int, word[len(name) :])), (0.0,) * gate_spec(name).n_angles))
    return Circuit(n, gates)


def check(before: str, after: str, n: int = 3) -> None:
    """The reduced form, up to the order of gates on different qubits."""
    space = free(n, tuple(GATES), 12)
    form = reduced_circuit(build(before, n), space)
    assert form.key == build(after, n).key, f"{before} -> {' '.join(names(form))}, expected {after}"


def names(circuit: Circuit) -> list[str]:
    return [f"{g.name}{''.join(map(str, g.qubits))}" for g in circuit]


def reduced_circuit(circuit: Circuit, space: CircuitSpace) -> Circuit:
    row = reduce_rows(space.row(circuit)[None], space)[0]
    return reduced_space(space).circuit(row)


def state(circuit: Circuit) -> np.ndarray:
    """Dense, from |0…0>."""
    return circuit_matrix(circuit)[:, 0]


def infidelity(circuit: Circuit, target: Hamiltonian, rng: np.random.Generator, starts: int = 80) -> float:
    """What is left when the circuit's angles are optimized towards -|ψ><ψ|."""
    objective = SIMULATOR.objective(circuit, target)
    best = math.inf
    for _ in range(starts if circuit.n_angles else 1):
        start = rng.uniform(-math.pi, math.pi, circuit.n_angles)
        best = min(best, 1.0 + minimize(objective, start, max_evaluations=400, tolerance=1e-10).fun)
        if best < 1e-6:
            break
    return best


def turned(circuit: Circuit, rng: np.random.Generator) -> Circuit:
    return circuit.with_angles(rng.uniform(-math.pi, math.pi, circuit.n_angles))


# ---------------------------------------------------------------------- the claim
@pytest.mark.parametrize("name", SETS)
def test_reduced_forms_prepare_the_same_states_and_no_others(name: str) -> None:
    removed = 0
    for n, count in ((1, 6), (2, 12), (3, 8), (4, 1)):
        space = free(n, SETS[name], 6 + 2 * n)
        rng = np.random.default_rng([n, len(SETS[name])])
        rows = space.sample(count, rng)
        for row, short in zip(rows, reduce_rows(rows, space), strict=True):
            circuit, form = space.circuit(row), reduced_space(space).circuit(short)
            removed += len(circuit) - len(form)
            for one, other in ((circuit, form), (form, circuit)):
                psi = state(turned(one, rng))
                target = Hamiltonian.from_matrix(-np.outer(psi, psi.conj()), tolerance=1e-14)
                assert infidelity(other, target, rng) < 1e-6, (one is circuit, names(circuit), names(form))
    assert removed > 20, "the instances must have something to remove"


def test_fixed_gates_prepare_exactly_the_same_state() -> None:
    """No angles, no optimizer: overlap 1, so no exchange of qubits is left over."""
    for n, count in ((1, 60), (2, 100), (3, 100), (4, 30)):
        space = free(n, FIXED, 24)
        rows = space.sample(count, np.random.default_rng(n))
        for row, short in zip(rows, reduce_rows(rows, space), strict=True):
            circuit, form = space.circuit(row), reduced_space(space).circuit(short)
            assert abs(np.vdot(state(circuit), state(form))) == pytest.approx(1.0, abs=1e-12), names(circuit)


def test_swaps_exchange_no_qubits_of_the_result() -> None:
    problem = state_preparation([0.0, 1.0, 0.0, 0.0])
    space = free(2, ("rx", "swap"), 3)
    for gates, energy in (([("rx", 0), ("swap", 0, 1)], 0.0), ([("swap", 0, 1), ("rx", 0)], -1.0)):
        circuit = Circuit(2, [(g, tuple(q), *[0.1] * (g == "rx")) for g, *q in gates])
        for either in (circuit, reduced_circuit(circuit, space)):
            found = minimize(SIMULATOR.objective(either, problem.hamiltonian), [0.1], tolerance=1e-10)
            assert found.fun == pytest.approx(energy, abs=1e-8)


def test_equal_reduced_forms_reach_equal_energies() -> None:
    space = free(2, POOL_GATES, 6)
    rng = np.random.default_rng(3)
    rows = space.sample(3000, rng)
    groups: dict[bytes, list[np.ndarray]] = {}
    for row, short in zip(rows, reduce_rows(rows, space), strict=True):
        groups.setdefault(short.tobytes(), []).append(row)
    large = [g for g in groups.values() if len(g) >= 4 and space.circuit(g[0]).n_angles][:40]
    hamiltonian = random_hamiltonian(2, 15, rng)
    levels = set()
    assert len(large) >= 30
    for group in large:
        energies = []
        for row in group[:4]:
            circuit = space.circuit(row)
            objective = SIMULATOR.objective(circuit, hamiltonian)
            starts = rng.uniform(-math.pi, math.pi, (12 if circuit.n_angles else 1, circuit.n_angles))
            energies.append(min(minimize(objective, start, tolerance=1e-10).fun for start in starts))
        assert np.ptp(energies) < 1e-7, [names(space.circuit(row)) for row in group[:4]]
        levels.add(round(energies[0], 6))
    assert len(levels) > 5, "different forms must be able to differ"


# ---------------------------------------------------------------------- rule by rule
RULES = {
    "diagonal on |0>": [("z0 rz0 s0 sdg0 t0 tdg0", ""), ("x0 rz0 s0 t0", "x0"), ("rz0 rx0", "rx0")],
    "not diagonal on |0>": [(f"{g}0", f"{g}0") for g in ("h", "sx", "rx", "ry", "u", "x")],
    "swap renames": [
        ("swap01", ""),
        ("rx0 swap01", "rx1"),
        ("swap01 rx0", "rx0"),
        ("rx0 swap01 swap12", "rx2"),
        ("rx0 swap12 swap01", "rx1"),
        ("rx0 ry1 cx01 swap12", "rx0 ry2 cx02"),
        ("rx0 ry1 swap01 cx01", "rx1 ry0 cx01"),
        ("h0 t0 swap01 rx0", "h1 t1 rx0"),
        ("x0 swap01", "x1"),
    ],
    "controls on |0>": [("ry1 cx01", "ry1"), ("ry1 cz01", "ry1"), ("ry0 cz01", "ry0"), ("rz0 t0 ry1 cx01", "ry1")],
    "controls on |1>": [
        ("x0 ry1 cx01", "x0 ry1 cx01"),
        ("x0 ry1 cz01", "x0 ry1 cz01"),
        ("x1 ry0 cz01", "x1 ry0 cz01"),
        ("x1 ry1 cx10", "ry1 cx10"),  # the rotation takes the flip up, so the control is free
        ("x0 rx1 cx01 cx01", "x0 rx1"),
    ],
    "targets on |+>": [
        ("ry0 h1 cx01", "ry0 h1"),
        ("ry0 x1 h1 cx01", "ry0 x1 h1 cx01"),  # |->: the control feels it
        ("ry0 h1 cz01", "ry0 h1 cz01"),
        ("ry0 h1 t1 cx01", "ry0 h1 t1 cx01"),
        ("ry0 sx1 h1 cx01", "ry0 sx1 h1 cx01"),
    ],
    "paulis and one-qubit gates": [
        ("y0", "x0"),
        ("x0 y0", ""),
        ("x0 z0 x0", ""),
        ("h0 z0", "x0 h0"),
        ("h0 x0", "h0"),
        ("h0 y0", "x0 h0"),
        ("h0 s0 x0", "x0 h0 s0"),  # X S ~ S Y, and Y on |+> is Z
        ("h0 sdg0 y0", "h0 sdg0"),  # Y S† ~ S† X
        ("h0 s0 z0", "x0 h0 s0"),
        ("sx0 z0", "x0 sx0"),  # Z SX ~ SX Y
        ("sx0 x0", "x0 sx0"),
        ("h0 sx0 y0", "x0 h0 sx0"),  # Y SX ~ SX Z
        ("h0 sx0 x0", "h0 sx0"),
        ("h0 t0 z0", "x0 h0 t0"),
        ("h0 t0 x0", "h0 t0 x0"),
        ("h0 tdg0 y0", "x0 h0 tdg0 x0"),
        ("h0 t0 x0 x0", "h0 t0"),
        ("u0 x0", "u0"),
        ("t0 x0", "x0"),  # T vanishes, its X becomes a flip
        ("x0 t0 x0", ""),
    ],
    # After SX on |0>, Z and X are both one flip: SX X = X SX, and Z SX = SX Y.
    "paulis and rotations": [
        ("sx0 rx0 x0", "sx0 rx0"),
        ("sx0 rx0 y0", "x0 sx0 rx0"),
        ("sx0 rx0 z0", "x0 sx0 rx0"),
        ("h0 ry0 y0", "ry0"),
        ("sx0 ry0 x0", "x0 sx0 ry0"),
        ("sx0 ry0 y0", "sx0 ry0"),
        ("sx0 ry0 z0", "x0 sx0 ry0"),
        ("h0 rz0 x0", "h0 rz0"),
        ("h0 rz0 z0", "h0 rz0"),
        ("sx0 rz0 x0", "x0 sx0 rz0"),
        ("sx0 rz0 y0", "x0 sx0 rz0"),
    ],
    "paulis and two-qubit gates": [
        ("sx0 sx1 cx01 x0", "x0 x1 sx0 sx1 cx01"),
        ("sx0 sx1 cx01 x1", "x1 sx0 sx1 cx01"),
        ("sx0 sx1 cx01 z0", "x0 sx0 sx1 cx01"),
        ("sx0 sx1 cx01 z1", "x0 x1 sx0 sx1 cx01"),
        ("h0 h1 cz01 x0", "h0 x1 h1 cz01"),
        ("h0 h1 cz01 x1", "x0 h0 h1 cz01"),
        ("h0 h1 cz01 z0", "x0 h0 h1 cz01"),
        ("h0 h1 cz01 y0", "x0 h0 x1 h1 cz01"),
        ("h0 h1 cz01 x0 x1", "x0 h0 x1 h1 cz01"),
        ("h0 h1 rxx01 z0", "x0 h0 h1 rxx01"),
        ("h0 h1 ryy01 x0", "h0 h1 ryy01"),
        ("sx0 sx1 rzz01 x0", "x0 sx0 sx1 rzz01"),
        ("h0 h1 cz01 u0 x0", "h0 h1 cz01 u0"),  # nothing is left to move on
        ("h0 h1 cz01 u0 y0", "h0 h1 cz01 u0"),
    ],
    "hadamards": [
        ("h0 h0", ""),
        ("rx0 h0 h0", "rx0"),
        ("h0 rx0", "h0"),
        ("x0 h0 rx0", "x0 h0"),
        ("h0 ry0", "ry0"),
        ("h0 rz0", "h0 rz0"),
        ("sx0 h0 rx0", "sx0 h0 rx0"),
        ("sx0 h0 ry0", "sx0 h0 ry0"),
        ("t0 h0 ry0 rz0", "u0"),
    ],
    "rotations": [
        ("rx0 rx0", "rx0"),
        ("x0 ry0", "ry0"),
        ("rx0 rz0", "u0"),
        ("rx0 ry0", "u0"),
        ("sx0 rx0 rz0", "sx0 rx0 rz0"),
        ("sx0 rx0 rz0 rx0", "u0"),
        ("sx0 rx0 ry0 rz0", "u0"),
        ("u0 h0 t0 rx0 sx0", "u0"),
        ("h0 t0 sx0 u0", "u0"),
        ("u0 u0", "u0"),
        ("sx0 rx0 s0 rz0 rx0", "sx0 rx0 s0 rz0 rx0"),
    ],
    "hops over gates that commute": [
        ("rx0 h0 ry1 cx01 rz0", "rx0 h0 rz0 ry1 cx01"),
        ("h0 ry1 cx01 rz0 cx01", "h0 rz0 ry1"),
        ("h0 ry1 cx01 t0 cx01", "h0 t0 ry1"),
        ("ry0 sx1 cx01 rx1 cx01", "ry0 sx1 rx1"),
        ("ry0 ry1 cx01 sx1 cx01", "ry0 ry1 sx1"),
        ("ry0 ry1 cz01 rz0 rz1", "u0 u1 cz01"),
        ("ry0 ry1 rzz01 sdg0", "ry0 sdg0 ry1 rzz01"),
        ("ry0 ry1 rxx01 rx0", "u0 ry1 rxx01"),
        ("ry0 ry1 rxx01 sx1", "ry0 ry1 sx1 rxx01"),
        ("ry0 ry1 ryy01 ry1", "ry0 ry1 ryy01"),
        ("rzz01 rx0", "rzz01 rx0"),
        ("rxx01 rz0", "rxx01 rz0"),
        ("cx01 rx0", "rx0"),
        ("ry0 ry1 ry2 cx01 cz12 rz1", "ry0 ry1 ry2 cx01 rz1 cz12"),  # over one, not over the other
    ],
    "no hops over gates that do not": [
        ("ry0 ry1 cx01 rx0", "ry0 ry1 cx01 rx0"),
        ("ry0 ry1 cx01 rz1", "ry0 ry1 cx01 rz1"),
        ("ry0 ry1 cx01 ry0 ry1", "ry0 ry1 cx01 ry0 ry1"),
        ("ry0 ry1 cx01 h0 sx0", "ry0 ry1 cx01 h0 sx0"),
        ("ry0 ry1 cz01 rx0 sx1", "ry0 ry1 cz01 rx0 sx1"),
        ("ry0 ry1 rxx01 ry0 rz1", "ry0 ry1 rxx01 ry0 rz1"),
        ("ry0 ry1 ryy01 rx0 rz1", "ry0 ry1 ryy01 rx0 rz1"),
        ("ry0 ry1 rzz01 rx0 ry1", "ry0 ry1 rzz01 rx0 ry1"),
        ("ry0 ry1 cx01 h0 rz0", "ry0 ry1 cx01 h0 rz0"),
        ("ry0 ry1 cx01 u0", "ry0 ry1 cx01 u0"),
    ],
    "equal two-qubit gates": [
        ("ry0 ry1 cx01 cx01", "ry0 ry1"),
        ("ry0 ry1 cx01 cx10", "ry0 ry1 cx01 cx10"),
        ("ry0 ry1 cz01 cz10", "ry0 ry1"),
        ("ry0 ry1 rxx01 rxx10", "ry0 ry1 rxx01"),
        ("ry0 ry1 ryy01 swap01 ryy01", "ry1 ry0 ryy01"),
        ("ry0 ry1 rzz01 rxx01", "ry0 ry1 rzz01 rxx01"),
        ("ry0 ry1 cx01 rx0 cx01", "ry0 ry1 cx01 rx0 cx01"),
        ("ry0 ry1 ry2 cx01 cx12 cx01", "ry0 ry1 ry2 cx01 cx12 cx01"),
        ("ry0 ry1 ry2 cz01 cz12 cz01", "ry0 ry1 ry2 cz01 cz12 cz01"),
        ("ry0 ry1 cx01 swap01 cx01", "ry0 ry1 cx10 cx01"),
    ],
    "several rounds": [
        ("ry0 h1 cx01 h1 h1 cx01", "ry0 h1"),
        ("ry0 ry1 h0 cz01 cz01 h0 rx0", "u0 ry1"),
        ("x0 ry1 cz01 cz01 rx0", "rx0 ry1"),
        ("h0 cx12 h0 cx01 ry1", "ry1"),
    ],
}


@pytest.mark.parametrize("rule", RULES)
def test_rules_by_hand(rule: str) -> None:
    for before, after in RULES[rule]:
        check(before, after)


# ---------------------------------------------------------------------- shape of the result
@pytest.mark.parametrize("name", WITHOUT_T)
def test_a_reduced_form_is_its_own_reduced_form(name: str) -> None:
    for n in (1, 2, 3, 5):
        space = free(n, SETS[name], 14)
        target = reduced_space(space)
        forms = reduce_rows(space.sample(400, np.random.default_rng(n)), space)
        again = reduce_rows(forms, target)
        assert reduced_space(target).gates == target.gates
        np.testing.assert_array_equal(again[:, : target.max_gates], forms)
        assert (again[:, target.max_gates :] == PADDING).all()


@pytest.mark.parametrize("n", [1, 2, 4])
def test_with_t_gates_a_form_can_be_reduced_further_but_never_grows(n: int) -> None:
    space = free(n, WITH_T["t, cz"], 14)
    target = reduced_space(space)
    forms = reduce_rows(space.sample(400, np.random.default_rng(n)), space)
    again = reduce_rows(forms, target)
    assert ((again >= 0).sum(axis=1) <= (forms >= 0).sum(axis=1) + n).all()


@pytest.mark.parametrize("name", SETS)
def test_rows_are_canonical_rows_of_the_reduced_space(name: str) -> None:
    space = free(3, SETS[name], 12)
    target = reduced_space(space)
    rows = space.sample(100, np.random.default_rng(0))
    kept = rows.copy()
    forms = reduce_rows(rows, space)
    np.testing.assert_array_equal(rows, kept)
    assert forms.dtype == np.int16 and forms.shape == (100, target.max_gates)
    np.testing.assert_array_equal(target.canonical(forms), forms)
    assert not {"y", "z", "swap"} & set(target.gates) and {"x", "u"} <= set(target.gates)
    for form in forms:
        circuit = target.circuit(form)
        first = [g.name for q in range(3) for g in [next((g for g in circuit if q in g.qubits), None)] if g]
        assert not {"rz", "s", "sdg", "t", "tdg"} & set(first), names(circuit)
        np.testing.assert_array_equal(target.row(circuit), form)


@pytest.mark.parametrize("name", SETS)
def test_the_order_of_independent_gates_does_not_matter(name: str) -> None:
    space = free(4, SETS[name], 16)
    rng = np.random.default_rng(1)
    rows = space.sample(200, rng)
    shuffled = rows.copy()
    for row in shuffled:
        for _ in range(40):
            i = int(rng.integers(15))
            a, b = row[i], row[i + 1]
            if b >= 0 and not {space.first[a], space.last[a]} & {space.first[b], space.last[b]}:
                row[i], row[i + 1] = b, a
    assert (shuffled != rows).any(axis=1).mean() > 0.5
    np.testing.assert_array_equal(reduce_rows(shuffled, space), reduce_rows(rows, space))


def test_each_row_is_reduced_alone_and_always_the_same() -> None:
    space = free(3, tuple(GATES), 12)
    rows = space.sample(120, np.random.default_rng(2))
    forms = reduce_rows(rows, space)
    np.testing.assert_array_equal(reduce_rows(rows, space), forms)
    np.testing.assert_array_equal(reduce_rows(rows[::-2], space), forms[::-2])
    for row, form in zip(rows[:20], forms[:20], strict=True):
        np.testing.assert_array_equal(reduce_rows(row[None].astype(np.int64), space)[0], form)


# ---------------------------------------------------------------------- sizes
@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_longest_forms_fit(n: int) -> None:
    """T gates with a Pauli behind each of them leave an X each; nothing of such a circuit can be dropped."""
    space = free(n, ("h", "t", "tdg", "x", "y", "swap"), 40)
    texts = ["h{q} " + "t{q} x{q} " * 15, "h{q} t{q} " * 15 + "x{q}", "h{q} tdg{q} y{q} " * 10, "t{q} " * 30 + "x{q}"]
    for text in texts:
        words = " ".join(text.format(q=q) for q in range(n)).split()[:40]
        circuit = build(" ".join(words), n)
        form = reduced_circuit(circuit, space)
        assert abs(np.vdot(state(circuit), state(form))) == pytest.approx(1.0, abs=1e-12)
    # The X that a Pauli leaves behind a T is not pushed any further.
    assert names(reduced_circuit(build("h0 " + "t0 " * 38 + "x0", n), space)) == ["h0", *["t0"] * 38, "x0"]
    paired = reduced_circuit(build("h0 " + "t0 x0 " * 19, n), space)
    assert names(paired) == ["h0", *["t0", "x0"] * 19]


def test_forms_that_grow() -> None:
    """One Pauli spreads over all qubits, and each T it meets leaves an X behind: more gates than before."""
    layer = "t0 t1 t2 t3 cx23 cx12 cx01 x0 "
    circuit = build("h0 h1 h2 h3 " + layer * 4, 4)
    space = free(4, ("h", "t", "x", "cx"), len(circuit))
    form = reduced_circuit(circuit, space)
    assert (len(circuit), len(form)) == (36, 48)
    assert abs(np.vdot(state(circuit), state(form))) == pytest.approx(1.0, abs=1e-12)


def test_as_many_gates_as_the_reduced_space_holds() -> None:
    """Every gate can turn into two, and every qubit can be flipped: nothing may be written past the end."""
    space = free(2, ("h", "sx", "t", "tdg", "x", "z", "cx", "cz"), 60)
    target = reduced_space(space)
    assert target.max_gates == 122
    rows = space.sample(3000, np.random.default_rng(4))
    kinds = [space.gates.index(name) for name in ("h", "t", "x")]
    tokens = np.flatnonzero(np.isin(space.kind, kinds))
    dense = tokens[np.random.default_rng(5).integers(len(tokens), size=(3000, 60))].astype(np.int16)
    for drawn in (rows, dense):
        forms = reduce_rows(drawn, space)
        assert (forms >= 0).sum(axis=1).max() <= 122
        for row, form in zip(drawn[:40], forms[:40], strict=True):
            overlap = np.vdot(state(space.circuit(row)), state(target.circuit(form)))
            assert abs(overlap) == pytest.approx(1.0, abs=1e-11)


def test_edge_shapes() -> None:
    space = free(2, POOL_GATES, 4)
    assert reduce_rows(np.zeros((0, 4), dtype=np.int16), space).shape == (0, 6)
    assert (reduce_rows(np.full((3, 4), PADDING), space) == PADDING).all()
    single = CircuitSpace(1, ("rz", "cx"), max_gates=1)
    assert (reduce_rows(single.sample(5, np.random.default_rng(0)), single) == PADDING).all()
    large = CircuitSpace(20, POOL_GATES, max_gates=30)
    rows = large.sample(50, np.random.default_rng(0))
    assert reduce_rows(rows, large).max() < reduced_space(large).n_tokens
    with pytest.raises(CircuitError, match="tokens of this space"):
        reduce_rows(np.full((1, 4), space.n_tokens), space)
