"""Programs of Pauli rotations against dense matrices: the map, its gradient, its tangent space."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import qas
from qas.adapters.architecture import Architecture, quantum_peft
from qas.adapters.program import (
    GATE_ANGLES,
    GATE_WIRES,
    ODD,
    Clifford,
    Program,
    Rotation,
    Tableau,
    commute,
    compile_program,
    lower,
    product,
)
from qas.errors import CircuitError, QasError

REAL = ("x", "z", "y", "h", "ry", "cx", "cz", "swap", "givens")
ALL = tuple(GATE_ANGLES)
Gates = list[tuple[str, tuple[int, ...]]]


# ---------------------------------------------------------------------- dense twins
def ry(theta: float) -> np.ndarray:
    c, s = math.cos(theta / 2), math.sin(theta / 2)
    return np.array([[c, -s], [s, c]])


ONE = {"x": np.array([[0, 1], [1, 0]]), "z": np.diag([1, -1]), "h": np.array([[1, 1], [1, -1]]) / math.sqrt(2)}
ONE["y"] = ONE["x"] @ ONE["z"]


def embedded(matrix: np.ndarray, wires: tuple[int, ...], n: int) -> np.ndarray:
    """A gate on n qubits, entry by entry; the first wire is the lowest bit of `matrix`."""
    found = np.zeros((1 << n, 1 << n), dtype=matrix.dtype)
    for column in range(1 << n):
        local = sum((column >> w & 1) << k for k, w in enumerate(wires))
        rest = column & ~sum(1 << w for w in wires)
        for row in range(1 << len(wires)):
            found[rest | sum((row >> k & 1) << w for k, w in enumerate(wires)), column] += matrix[row, local]
    return found


def givens(theta: float) -> np.ndarray:
    """exp(θ/2 (|10><01| - |01><10|)), the first qubit named being the left one of the kets."""
    generator = np.zeros((4, 4))
    first, second = 0b01, 0b10  # first qubit is the lowest bit
    generator[first, second], generator[second, first] = 1, -1
    return scipy.linalg.expm(theta / 2 * generator)


TWO = {
    "cx": np.eye(4)[[0, 3, 2, 1]],
    "cz": np.diag([1, 1, 1, -1]),
    "swap": np.eye(4)[[0, 2, 1, 3]],
}


def dense(gates: Gates, angles: np.ndarray, n: int, odd: int = 1) -> np.ndarray:
    """The map of real gates as a product of explicit matrices of the whole size."""
    found, rest = np.eye(odd << n), list(angles)
    for name, wires in gates:
        if name == "so":
            step = np.eye(odd << n)
            for a, b in itertools.combinations(range(odd), 2):
                theta = rest.pop(0) / 2
                turn = np.eye(odd)
                turn[a, a] = turn[b, b] = math.cos(theta)
                turn[a, b], turn[b, a] = -math.sin(theta), math.sin(theta)
                step = np.kron(turn, np.eye(1 << n)) @ step
        elif ODD in wires:
            q = max(wires)
            step = np.diag([(-1.0) ** ((i >> n) * (i >> q & 1)) for i in range(odd << n)])
        else:
            if name == "ry":
                local = ry(rest.pop(0))
            elif name == "givens":
                local = givens(rest.pop(0))
            else:
                local = ONE[name] if name in ONE else TWO[name]
            step = np.kron(np.eye(odd), embedded(local, wires, n))
        found = step @ found
    assert not rest
    return found


def string_matrix(sign: int, x: int, z: int, n: int) -> np.ndarray:
    """±X^x Z^z by Kronecker products, highest bit first."""
    factors = [
        np.linalg.matrix_power(np.array([[0, 1], [1, 0]]), x >> q & 1)
        @ np.linalg.matrix_power(np.diag([1, -1]), z >> q & 1)
        for q in reversed(range(n))
    ]
    return sign * functools.reduce(np.kron, factors, np.eye(1))


def random_gates(
    rng: np.random.Generator, n: int, count: int, names: tuple[str, ...] = REAL, odd: int = 1
) -> tuple[Gates, int]:
    """Gates and the number of their angles."""
    usable = [name for name in names if GATE_WIRES.get(name, 1) <= n] + (["so", "odd-cz"] if odd > 1 else [])
    gates: Gates = []
    for _ in range(count):
        name = usable[rng.integers(len(usable))]
        if name == "so":
            gates.append(("so", (ODD,)))
        elif name == "odd-cz":
            wires = (ODD, int(rng.integers(n)))
            gates.append(("cz", wires if rng.integers(2) else wires[::-1]))
        else:
            gates.append((name, tuple(rng.choice(n, GATE_WIRES.get(name, 1), replace=False).tolist())))
    return gates, sum(odd * (odd - 1) // 2 if g == "so" else GATE_ANGLES[g] for g, _ in gates)


def compiled(gates: Gates, n: int, odd: int = 1, absorb: bool = False) -> Program:
    ops, bits, angles = lower(gates, n, odd)
    return compile_program(ops, bits, angles, odd=odd, absorb_quarters=absorb)


# ---------------------------------------------------------------------- strings
@given(st.lists(st.integers(0, 15), min_size=4, max_size=4), st.booleans())
def test_products_and_commutation_of_strings_are_those_of_matrices(masks: list[int], minus: bool) -> None:
    a, b = (-1 if minus else 1, masks[0], masks[1]), (1, masks[2], masks[3])
    left, right = string_matrix(*a, 4), string_matrix(*b, 4)
    assert (string_matrix(*product(a, b), 4) == left @ right).all()
    assert commute(a, b) == bool((left @ right == right @ left).all())


@given(st.integers(0, 2**32 - 1))
def test_the_tableau_carries_strings_through_clifford_gates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 5))
    tableau, matrix = Tableau(n), np.eye(1 << n)
    for _ in range(8):
        if rng.integers(3):
            gates, _ = random_gates(rng, n, 1, ("x", "z", "cx", "cz", "swap"))
            tableau.follow(Clifford(*gates[0]))
            step = dense(gates, np.zeros(0), n)
        else:
            x, z = 0, 0
            while not (x & z).bit_count() & 1:  # antisymmetric
                x, z = (int(v) for v in rng.integers(0, 1 << n, 2))
            quarters = int(rng.integers(-5, 6))
            tableau.turn((1, x, z), quarters)
            step = scipy.linalg.expm(quarters * math.pi / 4 * string_matrix(1, x, z, n))
        matrix = step @ matrix
    x, z = (int(v) for v in rng.integers(0, 1 << n, 2))
    wanted = matrix.T @ string_matrix(1, x, z, n) @ matrix
    np.testing.assert_allclose(string_matrix(*tableau.image((1, x, z)), n), wanted, atol=1e-12)


# ---------------------------------------------------------------------- the map
@pytest.mark.parametrize("odd", [1, 3, 5, 7, 9, 11])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_programs_of_real_gates_are_products_of_dense_matrices(n: int, odd: int) -> None:
    rng = np.random.default_rng([n, odd])
    for _ in range(6):
        gates, count = random_gates(rng, n, int(rng.integers(0, 16)), odd=odd)
        angles = rng.uniform(-7, 7, count)
        program = compiled(gates, n, odd)
        assert (program.n_features, program.n_angles) == (odd << n, count)
        wanted = dense(gates, angles, n, odd)
        np.testing.assert_allclose(program.matrix(angles), wanted, atol=1e-12)
        columns = int(rng.integers(1, program.n_features + 1))
        skipped = program.apply_skeleton(program.columns(angles, columns))
        np.testing.assert_allclose(skipped[0], wanted[:, :columns], atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_complex_gates_act_by_the_real_embedding_of_their_unitary(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 4))
    names = tuple(name for name in ALL if name != "givens")
    gates, count = random_gates(rng, n, int(rng.integers(1, 12)), names)
    gates.append(("rz", (0,)))
    angles = rng.uniform(-7, 7, count + 1)
    rest = iter(angles)
    unitary = qas.Circuit(
        n, [(name, wires, [next(rest) for _ in range(GATE_ANGLES[name])]) for name, wires in gates]
    ).to_matrix()
    found = compiled(gates, n).matrix(angles)
    size = 1 << n
    complex_form = found[:size, :size] + 1j * found[size:, :size]
    block = np.block([[complex_form.real, -complex_form.imag], [complex_form.imag, complex_form.real]])
    np.testing.assert_allclose(found, block, atol=1e-12)
    overlap = np.vdot(complex_form, unitary) / size
    assert abs(abs(overlap) - 1) < 1e-12
    np.testing.assert_allclose(complex_form * overlap, unitary, atol=1e-12)


def test_a_real_circuit_is_the_matrix_of_the_circuit_itself() -> None:
    circuit = qas.Circuit(3, [("ry", 0, 0.3), ("h", 1), ("cx", (0, 2)), ("ry", 2, -1.1), ("swap", (1, 2)), ("z", 0)])
    program = Architecture.from_circuit(circuit).program
    np.testing.assert_allclose(program.matrix(circuit.angles), circuit.to_matrix(), atol=1e-12)


def test_each_rotation_is_the_exponential_of_its_string() -> None:
    rng = np.random.default_rng(3)
    for name in ("rx", "ry", "rz", "rxx", "ryy", "rzz"):
        ops, bits, _ = lower([(name, (1, 0)[: GATE_WIRES.get(name, 1)])], 2)
        (rotation,) = ops
        assert isinstance(rotation, Rotation)
        matrix = string_matrix(*rotation.string, bits)
        assert (matrix == -matrix.T).all()
        angle = rng.uniform(-3, 3)
        wanted = scipy.linalg.expm(angle / 2 * matrix)
        np.testing.assert_allclose(compile_program(ops, bits, 1).matrix([angle]), wanted, atol=1e-12)


def test_no_gates_are_the_identity() -> None:
    for n, odd in ((1, 1), (3, 1), (2, 5)):
        program = compiled([], n, odd)
        assert (program.matrix([]) == np.eye(odd << n)).all()
        assert program.tangent_rank == 0
        assert program.gradient(np.zeros((2, 0)), np.zeros((2, odd << n, 8)), np.zeros((2, odd << n, 8)), 1).shape == (
            2,
            0,
        )


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize("features", [64, 96, 704, 1024])
def test_columns_are_orthonormal(features: int, dtype: type, bound: float) -> None:
    architecture, _ = quantum_peft(features, 4)
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, (2, architecture.n_angles))
    found = architecture.program.columns(angles, 33, dtype)
    assert found.dtype == dtype
    for frame in found:
        assert np.abs(frame.T @ frame - np.eye(33)).max() <= bound


def test_two_bit_angles_give_an_integer_matrix_over_a_power_of_root_two() -> None:
    architecture, _ = quantum_peft(32, 3)
    angles = np.random.default_rng(1).integers(0, 4, architecture.n_angles) * np.pi / 2
    matrix = architecture.program.matrix(angles)
    smallest = np.abs(matrix[np.abs(matrix) > 1e-9]).min()
    power = round(-2 * math.log2(smallest))
    np.testing.assert_allclose(matrix * 2 ** (power / 2), np.round(matrix * 2 ** (power / 2)), atol=1e-10)


def test_the_determinant_of_the_published_circuit_is_one() -> None:
    for layers in (1, 2, 3):
        architecture, _ = quantum_peft(32, layers)
        angles = np.random.default_rng(layers).uniform(-3, 3, architecture.n_angles)
        assert np.linalg.det(architecture.program.matrix(angles)) == pytest.approx(1.0, abs=1e-10)


# ---------------------------------------------------------------------- gradients
@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_the_reverse_sweep_is_the_finite_difference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, odd = int(rng.integers(1, 5)), int(rng.choice([1, 1, 3, 5]))
    names = (*REAL, "rx", "t", "u") if odd == 1 else REAL
    gates, count = random_gates(rng, n, int(rng.integers(1, 14)), names, odd)
    program = compiled(gates, n, odd)
    columns = int(rng.integers(1, program.n_features + 1))
    angles = rng.uniform(-4, 4, (3, count))
    target = rng.normal(size=(3, program.n_features, columns))

    def loss(at: np.ndarray) -> float:
        return float((target * program.columns(at, columns)).sum())

    final = program.rotated(angles, columns)
    full = np.zeros_like(final)
    full[..., :columns] = target
    found = program.gradient(angles, final, full, columns)
    assert found.shape == angles.shape
    for b in range(3):
        for k in range(count):
            step = np.zeros_like(angles)
            step[b, k] = 1e-5
            assert found[b, k] == pytest.approx((loss(angles + step) - loss(angles - step)) / 2e-5, abs=2e-8)


def test_float32_gradients_are_those_of_float64() -> None:
    architecture, _ = quantum_peft(96, 2)
    rng = np.random.default_rng(0)
    angles, target = rng.uniform(-3, 3, (2, architecture.n_angles)), rng.normal(size=(2, 96, 8))
    found = []
    for dtype in (np.float32, np.float64):
        final = architecture.program.rotated(angles, 8, dtype)
        found.append(architecture.program.gradient(angles, final, target.astype(dtype), 8))
    np.testing.assert_allclose(found[0], found[1], atol=2e-5)


# ---------------------------------------------------------------------- tangent space
def jacobian_rank(program: Program, at: np.ndarray) -> int:
    """Rank of dR/dangles by central differences."""
    steps = np.eye(len(at)) * 1e-5
    rows = [(program.matrix(at + s) - program.matrix(at - s)).ravel() / 2e-5 for s in steps]
    return int(np.linalg.matrix_rank(np.array(rows), tol=1e-5)) if rows else 0


@pytest.mark.parametrize(
    ("n", "layers", "angles", "rank"),
    [(4, 1, 10, 10), (4, 2, 16, 12), (6, 1, 16, 16), (6, 2, 26, 20), (6, 3, 36, 20), (6, 6, 66, 20)],
)
def test_tangent_ranks_of_the_published_circuit_are_the_measured_ones(
    n: int, layers: int, angles: int, rank: int
) -> None:
    architecture, _ = quantum_peft(1 << n, layers)
    assert architecture.n_angles == angles == (2 * layers + 1) * n - 2 * layers
    assert architecture.tangent_rank == rank
    assert jacobian_rank(architecture.program, np.zeros(angles)) == rank
    random = np.random.default_rng(0).uniform(-np.pi, np.pi, angles)
    assert jacobian_rank(architecture.program, random) == angles


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_the_tangent_rank_is_the_rank_of_the_jacobian_at_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, odd = int(rng.integers(1, 4)), int(rng.choice([1, 1, 3, 5]))
    names = REAL if odd > 1 or rng.integers(2) else (*REAL, "rx", "rz", "s", "sx", "u", "rzz")
    gates, count = random_gates(rng, n, int(rng.integers(1, 14)), names, odd)
    program = compiled(gates, n, odd)
    assert compiled(gates, n, odd, absorb=True).tangent_rank == jacobian_rank(program, np.zeros(count))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_absorbed_quarter_turns_leave_the_map_relative_to_its_skeleton(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, odd = int(rng.integers(1, 4)), int(rng.choice([1, 3, 5]))
    gates, count = random_gates(rng, n, int(rng.integers(1, 14)), REAL, odd)
    angles = rng.uniform(-3, 3, count)
    found = compiled(gates, n, odd, absorb=True).matrix(angles)
    wanted = dense(gates, np.zeros(count), n, odd).T @ dense(gates, angles, n, odd)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_offsets_measure_angles_from_quarter_turns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, odd = int(rng.integers(1, 4)), int(rng.choice([1, 3]))
    gates, _ = random_gates(rng, n, int(rng.integers(1, 12)), REAL, odd)
    ops, bits, count = lower(gates, n, odd)
    offsets = rng.integers(-4, 5, count)
    program = compile_program(ops, bits, count, odd=odd, absorb_quarters=True, offsets=offsets.tolist())
    shifted = [isinstance(op, Rotation) and op.levels is None and op.coefficient == 1.0 for op in ops]
    held = np.zeros(count, dtype=bool)
    for op, moves in zip(ops, shifted, strict=True):
        if isinstance(op, Rotation) and op.slot is not None:
            held[op.slot] = moves
    start = np.where(held, offsets * np.pi / 2, 0.0)
    angles = rng.uniform(-3, 3, count)
    wanted = dense(gates, start, n, odd).T @ dense(gates, start + angles, n, odd)
    np.testing.assert_allclose(program.matrix(angles), wanted, atol=1e-12)


# ---------------------------------------------------------------------- refusals
def test_malformed_input_is_refused_in_one_line() -> None:
    program = compiled([("ry", (0,))], 1)
    for angles in (np.zeros(2), np.zeros((1, 1, 1))):
        with pytest.raises(CircuitError, match="has 1 angles"):
            program.columns(angles, 1)
    for columns in (0, 3):
        with pytest.raises(QasError, match="1 to 2 columns"):
            program.columns(np.zeros(1), columns)
    with pytest.raises(QasError, match="offsets are 1"):
        compile_program([Rotation((1, 1, 1), 0)], 1, 1, absorb_quarters=True, offsets=[1, 2])
    with pytest.raises(QasError, match="fixed rotations"):
        _ = compiled([("t", (0,)), ("ry", (0,))], 1, absorb=True).tangent_rank
    with pytest.raises(CircuitError, match="no gate 'magic'"):
        lower([("magic", (0,))], 1)
    with pytest.raises(CircuitError, match="power of two"):
        lower([("rx", (0,))], 1, 3)
