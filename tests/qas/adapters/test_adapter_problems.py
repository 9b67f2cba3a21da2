"""Adapter problems: what they count and fit against brute force, their files, and searches on them."""

from __future__ import annotations

import functools
import itertools
import json
import math
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import safetensors.numpy
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import qas
from qas.adapters.architecture import Architecture, load_architecture, quantum_peft
from qas.adapters.circuit import CircuitAdapter
from qas.adapters.problems import (
    GOALS,
    MAX_ANGLES,
    AdapterProblem,
    carried_string,
    matrix_problem,
    read_matrix,
    string_energies,
    tangent_strings,
)
from qas.errors import CircuitError, QasError, RunError
from qas.problems import list_problems, load_problem, problem_from_json

GATES = ("ry", "ry", "ry", "h", "x", "y", "z", "cx", "cz", "swap")


def random_circuit(rng: np.random.Generator, n: int, count: int) -> qas.Circuit:
    gates: list[tuple[Any, ...]] = []
    for _ in range(count):
        name = GATES[rng.integers(len(GATES))]
        wires = rng.choice(n, 2 if name in ("cx", "cz", "swap") else 1, replace=False).tolist()
        gates.append((name, wires, [float(rng.uniform(-3, 3))] if name == "ry" else []))
    return qas.Circuit(n, gates)


def string(x: int, z: int, n: int) -> np.ndarray:
    """X^x Z^z by Kronecker products, highest bit first."""
    flip, sign = np.array([[0, 1], [1, 0]]), np.diag([1, -1])
    power = np.linalg.matrix_power
    parts = [power(flip, x >> q & 1) @ power(sign, z >> q & 1) for q in reversed(range(n))]
    return functools.reduce(np.kron, parts)


def matrix(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def orthogonal(n: int, seed: int = 0) -> np.ndarray:
    return np.asarray(scipy.stats.ortho_group.rvs(n, random_state=seed))


# ---------------------------------------------------------------------- directions
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_tangent_strings_are_the_derivatives_at_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 5))
    circuit = random_circuit(rng, n, int(rng.integers(1, 16)))
    zero = np.zeros(circuit.n_angles)
    start = circuit.with_angles(zero).to_matrix()
    for k, (x, z) in enumerate(tangent_strings(circuit)):
        shifted = zero.copy()
        shifted[k] = math.pi  # d RY(θ)/dθ at 0 is RY(π) / 2
        derivative = start.conj().T @ circuit.with_angles(shifted).to_matrix()
        overlap = np.vdot(string(x, z, n), derivative) / 2**n
        assert abs(abs(overlap) - 1) < 1e-9


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_count_of_the_published_circuit_is_the_published_rank(layers: int) -> None:
    architecture, _ = quantum_peft(64, layers)
    circuit = qas.Circuit(6, [(g, w, [0.5] if g == "ry" else []) for g, w in architecture.gates])
    assert len(set(tangent_strings(circuit))) == architecture.tangent_rank == (16 if layers == 1 else 20)
    problem = AdapterProblem("p", 6, angles=architecture.n_angles)
    missing = (architecture.n_angles - architecture.tangent_rank) / architecture.n_angles
    depth = problem.energy(circuit) - 2 * missing  # each is missing, and its angle is wasted
    assert 0 < depth < 0.005
    assert problem.solved(problem.energy(circuit)) == (layers == 1)


@pytest.mark.parametrize("angles", [1, 22, 50, 99, 100, 101, 500, 2016])
def test_success_means_that_less_than_one_direction_lacks(angles: int) -> None:
    problem = AdapterProblem("p", 6, angles=angles)
    assert problem.threshold is not None
    assert problem._depth_share < problem.threshold < 1 / angles
    assert 0 < problem._depth_share <= 0.005


@settings(deadline=None, max_examples=45)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["tangent", "gradient", "widths"]))
def test_simplified_circuits_have_the_same_energy(seed: int, goal: str) -> None:
    rng = np.random.default_rng(seed)
    circuit = random_circuit(rng, 3 if goal == "widths" else 2, int(rng.integers(0, 24)))
    circuit = circuit.with_angles(np.where(rng.integers(2, size=circuit.n_angles), 0.0, circuit.angles))
    if goal == "widths":
        problem = AdapterProblem("p", 3, angles=6, narrower=(2,))
    else:
        problem = AdapterProblem("p", 2, goal, 3, None if goal == "tangent" else matrix(4, 4))
    short = problem.simplify(circuit, 1e-7)
    assert problem.energy(short) == problem.energy(circuit)
    assert problem.lower_bound <= problem.energy(circuit) <= problem.lower_bound + problem.spread


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_several_widths_are_the_mean_over_the_layers_that_the_circuit_is_cut_to(seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = random_circuit(rng, 4, int(rng.integers(1, 30)))
    problem = load_problem("adapter-16+8+4-11")
    assert isinstance(problem, AdapterProblem) and problem.widths == (4, 3, 2)
    assert [problem.asked(q) for q in problem.widths] == [11, 8, 4]  # 22, 15 and 8 of 22
    found = []
    for q in problem.widths:
        gates = [(n, w, [0.5] if n == "ry" else []) for n, w in Architecture.from_circuit(circuit).cut(q).gates]
        alone = AdapterProblem("p", q, angles=problem.asked(q))
        short = alone.simplify(qas.Circuit(q, gates))
        depth = short.depth / (short.depth + alone.angles)
        found.append(alone.energy(short) + (problem._depth_share - alone._depth_share) * depth)
    assert problem.energy(circuit) == pytest.approx(np.mean(found), abs=1e-12)
    assert problem_from_json(json.loads(json.dumps(problem.to_json()))) == problem


def test_a_search_serves_all_widths(tmp_path: Path) -> None:
    run = qas.search("adapter-8+4-6", agent="evolution", evaluations=1000, seed=0, out=tmp_path / "run", report=False)
    assert run.best.error < run.problem.threshold, "every direction counts at both widths"
    for features, angles in ((8, 6), (4, 3)):
        fitted, _ = load_architecture(run.path).for_layer(features)
        assert fitted.tangent_rank == fitted.n_angles == angles
    with pytest.raises(QasError, match="narrower ones for the goal gradient"):
        AdapterProblem("p", 3, "gradient", matrix=matrix(8, 8), narrower=(2,))
    for narrower in ((3,), (1,), (2.5,)):
        with pytest.raises(QasError, match="qubits of a narrower layer is a whole number from 2 to 2"):
            AdapterProblem("p", 3, narrower=narrower)  # type: ignore[arg-type]


def test_a_rotation_by_a_small_angle_is_a_direction_all_the_same() -> None:
    circuit = qas.Circuit(2, [("ry", 0, 0.0), ("cx", (0, 1)), ("ry", 1, 1e-12)])
    assert AdapterProblem("p", 2, angles=2).simplify(circuit, 1e-7) is circuit
    fit = matrix_problem(orthogonal(4))
    assert len(fit.simplify(circuit, 1e-7)) == 1


def test_angles_do_not_matter_where_directions_count() -> None:
    problem = AdapterProblem("p", 3, angles=5)
    circuit = random_circuit(np.random.default_rng(1), 3, 12)
    objective = problem.objective(circuit)
    value, slope = objective.value_and_gradient(circuit.angles)
    assert value == objective(np.zeros(circuit.n_angles)) and not slope.any()
    assert (objective.nfev, objective.njev) == (2, 1)


# ---------------------------------------------------------------------- gradients
@pytest.mark.parametrize("n", [2, 3, 4])
def test_string_energies_are_traces(n: int) -> None:
    a = matrix(2**n, 2**n, seed=n)
    skew = (a - a.T) / 2
    found = string_energies(skew)
    norm = float((skew**2).sum()) * 2**n
    for x, z in itertools.product(range(2**n), repeat=2):
        assert found[x, z] == pytest.approx(np.trace(string(x, z, n).T @ skew) ** 2 / norm, abs=1e-12)
    assert found.sum() == pytest.approx(1.0)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_no_circuit_aligns_better_than_the_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, asked = int(rng.integers(2, 4)), int(rng.integers(1, 7))
    problem = matrix_problem(rng.normal(size=(2**n, 2**n)), goal="gradient", angles=asked)
    circuit = random_circuit(rng, n, int(rng.integers(0, 14)))
    different = set(tangent_strings(problem.simplify(circuit)))
    a = problem.matrix
    assert a is not None
    skew = (a - a.T) / 2
    captured = sum(np.trace(string(x, z, n).T @ skew) ** 2 for x, z in different) / (2**n * (skew**2).sum())
    if len(different) <= asked:
        assert captured <= problem.best_alignment + 1e-12
    energy = problem.energy(circuit)
    assert energy >= 0
    if len(different) == len(tangent_strings(problem.simplify(circuit))) <= asked:
        assert energy == pytest.approx(1 - captured / problem.best_alignment, abs=1e-12)


def test_the_bound_is_reached_by_a_gradient_of_one_direction() -> None:
    problem = matrix_problem(string(1, 1, 2), goal="gradient", angles=1)
    assert problem.best_alignment == pytest.approx(1.0)
    assert problem.energy(qas.Circuit(2, [("ry", 0, 0.0)])) == pytest.approx(0.0, abs=1e-12)
    assert problem.energy(qas.Circuit(2, [("ry", 1, 0.0)])) == pytest.approx(1.0)
    assert problem.energy(qas.Circuit(2)) == pytest.approx(1.0)


def test_the_alignment_is_the_first_order_change_of_the_loss() -> None:
    # L(W R) with G = dL/dW: dL/dangle = tr(A^T P) / 2 with A the skew part of W^T G.
    rng = np.random.default_rng(0)
    w, g = rng.normal(size=(5, 8)), rng.normal(size=(5, 8))
    circuit = qas.Circuit(3, [("ry", 0, 0.0), ("cx", (0, 2)), ("ry", 2, 0.0), ("cz", (1, 2)), ("ry", 1, 0.0)])
    problem = matrix_problem(w.T @ g, goal="gradient", angles=3)
    start, slopes = circuit.to_matrix().real, []
    for k in range(3):
        step = 1e-6 * np.eye(3)[k]
        ends = [(g * (w @ (start.T @ circuit.with_angles(s).to_matrix().real))).sum() for s in (step, -step)]
        slopes.append((ends[0] - ends[1]) / 2e-6)
    a = problem.matrix
    assert a is not None
    share = 4 * np.sum(np.square(slopes)) / (8 * (((a - a.T) / 2) ** 2).sum())
    assert problem.energy(circuit) == pytest.approx(1 - share / problem.best_alignment, abs=1e-8)


# ---------------------------------------------------------------------- fits
def relative(circuit: qas.Circuit, angles: np.ndarray) -> np.ndarray:
    """C^-1 R(angles) for C = R(0), real because the phases of y cancel."""
    start = circuit.with_angles(np.zeros(circuit.n_angles)).to_matrix()
    found = start.conj().T @ circuit.with_angles(angles).to_matrix()
    assert np.abs(found.imag).max() < 1e-12
    return found.real


def random_fit(rng: np.random.Generator, seed: int) -> tuple[AdapterProblem, qas.Circuit, Any]:
    """A problem, a circuit, and the value of its angles by dense matrices."""
    n = int(rng.integers(2, 5))
    size, asked = 2**n, int(rng.integers(1, 7))
    circuit = random_circuit(rng, n, int(rng.integers(1, 12)))
    surplus = min(1.0, max(0, circuit.n_angles - asked) / asked)
    if rng.integers(2) or n < 4:
        target = orthogonal(size, seed)
        problem = matrix_problem(target, angles=asked)
        assert problem.orthogonal
        return problem, circuit, lambda a: 1 - abs(np.sum(target * relative(circuit, a))) / size + surplus
    target = rng.normal(size=(int(rng.integers(9, 17)), int(rng.integers(2, 20))))
    problem = matrix_problem(target, angles=asked)
    assert not problem.orthogonal
    rank = min(8, *target.shape)
    padded = np.vstack([target, np.zeros((size - len(target), target.shape[1]))])
    best = (np.linalg.svd(target, compute_uv=False)[:rank] ** 2).sum()
    return (
        problem,
        circuit,
        lambda a: 1 - (np.square(relative(circuit, a)[:, :rank].T @ padded)).sum() / best + surplus,
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_fits_are_traces_and_projections_with_exact_gradients(seed: int) -> None:
    problem, circuit, slow = random_fit(np.random.default_rng(seed), seed)
    objective = problem.objective(circuit)
    value, slope = objective.value_and_gradient(circuit.angles)
    assert value == pytest.approx(slow(circuit.angles), abs=1e-10)
    assert value == objective(circuit.angles)
    assert -1e-12 <= value <= problem.spread
    for k in range(circuit.n_angles):
        step = 1e-6 * np.eye(circuit.n_angles)[k]
        wanted = (slow(circuit.angles + step) - slow(circuit.angles - step)) / 2e-6
        assert slope[k] == pytest.approx(wanted, abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_slopes_are_derivatives_in_the_angle_of_a_carried_rotation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem, circuit, _ = random_fit(rng, seed)
    problem = AdapterProblem("p", problem.qubits, "fit", 6, problem.matrix)
    circuit = qas.Circuit(circuit.n_qubits, circuit.gates[:5])
    slopes = problem.objective(circuit).slopes(circuit.angles)  # type: ignore[attr-defined]
    x = z = 0
    while not (x & z).bit_count() & 1:
        x, z = (int(v) for v in rng.integers(0, 2**circuit.n_qubits, 2))
    gates, qubit = carried_string(circuit, (x, z))
    assert len(gates) <= 3 * (circuit.n_qubits - 1) / 2
    longer = qas.Circuit(circuit.n_qubits, (*circuit.gates, *gates, ("ry", qubit, 0.0)))
    assert tangent_strings(longer)[-1] == (x, z)
    _, gradient = problem.objective(longer).value_and_gradient(longer.angles)
    assert abs(gradient[-1]) == pytest.approx(abs(slopes[x, z]), abs=1e-10)
    assert np.abs(slopes[0]).max() < 1e-12  # diagonal strings are symmetric


def test_a_circuit_fits_its_own_matrix_and_its_negative() -> None:
    circuit = random_circuit(np.random.default_rng(5), 3, 14)
    target = relative(circuit, circuit.angles)
    for sign in (1, -1):
        problem = matrix_problem(sign * target, angles=circuit.n_angles)
        assert problem.energy(circuit) == pytest.approx(0.0, abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_simplified_circuits_fit_as_well(seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = random_circuit(rng, 2, int(rng.integers(0, 20)))
    circuit = circuit.with_angles(np.where(rng.integers(2, size=circuit.n_angles), 0.0, circuit.angles))
    problem = matrix_problem(orthogonal(4), angles=int(rng.integers(1, 7)))
    assert problem.energy(problem.simplify(circuit)) == pytest.approx(problem.energy(circuit), abs=1e-9)


def test_complex_and_wrongly_sized_circuits_are_refused() -> None:
    for problem in (
        AdapterProblem("p", 2),
        matrix_problem(orthogonal(4)),
        matrix_problem(matrix(4, 4), goal="gradient"),
    ):
        with pytest.raises(CircuitError, match="about circuits of 2 qubits, got 3"):
            problem.objective(qas.Circuit(3))
        with pytest.raises(CircuitError, match="real gates"):
            problem.energy(qas.Circuit(2, [("rx", 0, 0.1)]))
        with pytest.raises(QasError, match="without a simulator"):
            problem.simulator(shots=10)


# ---------------------------------------------------------------------- names
def test_names_give_problems_of_their_size() -> None:
    for n in range(2, 13):
        problem = load_problem(f"adapter-{1 << n}")
        assert isinstance(problem, AdapterProblem)
        assert (problem.n_qubits, problem.angles) == (n, min(7 * n - 6, 2 ** (n - 1) * (2**n - 1)))
    assert load_problem(" Adapter-64-9 ").name == "adapter-64-9"
    assert {"adapter-N", "adapter-target FILE", "adapter-gradient FILE"} <= set(list_problems())


BAD_NAMES = [
    ("adapter-3", "power of two from 4 to 4096"),
    ("adapter-8+8", "M another"),
    ("adapter-8+6", "power of two"),
    ("adapter-8+", "adapter-N"),
    ("adapter-2", "power of two"),
    ("adapter-8192", "power of two"),
    ("adapter-", "adapter-N"),
    ("adapter-64-", "adapter-N-ANGLES"),
    ("adapter-64-0", "ANGLES at least 1"),
    ("adapter-64--1", "adapter-N-ANGLES"),
    ("adapter-064", "adapter-N"),
    ("adapter-６４", "adapter-N"),
    ("adapter-64-99999", "independent angles .* from 1 to 2016, got 99999"),
    ("adapter-4096-8000000", f"from 1 to {MAX_ANGLES}, got 8000000"),
    ("adapter-target", "needs FILE behind its name"),
    ("adapter-gradient ", "needs FILE behind its name"),
    ("adapter-else", "adapter-N"),
]


@pytest.mark.parametrize(("name", "message"), BAD_NAMES)
def test_malformed_names_are_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(QasError, match=message) as caught:
        load_problem(name)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- matrices
BAD_MATRICES: list[tuple[Any, str, str]] = [
    (np.zeros((4, 4)), "fit", "not all zero"),
    (np.full((4, 4), np.nan), "fit", "finite"),
    (np.full((4, 4), np.inf), "gradient", "finite"),
    (np.ones(4), "fit", "two sides of 2 to 1024, got shape"),
    (np.ones((1, 4)), "fit", "two sides"),
    (np.ones((2, 2, 2)), "fit", "two sides"),
    (np.ones((1025, 2)), "fit", "two sides of 2 to 1024"),
    (np.ones((4, 4)) * 1j, "fit", "real numbers, got ndarray of complex128"),
    (np.array([["1", "2"], ["3", "4"]]), "fit", "real numbers"),
    ([[1, 2], [3]], "fit", "real numbers, got list"),
    (None, "fit", "real numbers, got NoneType"),
    (matrix(4, 5), "gradient", "square with a power of two of rows"),
    (matrix(6, 6), "gradient", "square with a power of two of rows"),
    (matrix(2, 2), "gradient", "at least 4"),
    (matrix(4, 4) + matrix(4, 4).T, "gradient", "skew part of the gradient is zero"),
    (matrix(8, 8), "fit", "any frame holds all of this one, shape \\(8, 8\\)"),
    (matrix(5, 9), "fit", "any frame holds"),
    (orthogonal(12), "fit", "orthogonal target has 2.n rows for n qubits, here 16, got 12"),
    (matrix(16, 3), "tangent", "needs no matrix"),
    (matrix(16, 3), "else", "one of tangent, gradient, fit"),
]


@pytest.mark.parametrize(("given_matrix", "goal", "message"), BAD_MATRICES)
def test_matrices_that_mean_nothing_are_refused(given_matrix: Any, goal: str, message: str) -> None:
    with warnings.catch_warnings(), pytest.raises(QasError, match=message) as caught:
        warnings.simplefilter("error")
        matrix_problem(given_matrix, goal=goal)
    assert "\n" not in str(caught.value)


def test_tensors_that_need_a_gradient_are_refused_and_others_are_matrices() -> None:
    import torch

    tensor = torch.from_numpy(matrix(16, 3))
    assert matrix_problem(tensor) == matrix_problem(matrix(16, 3))
    with pytest.raises(QasError, match="real numbers, got Tensor"):
        matrix_problem(tensor.requires_grad_())


@pytest.mark.parametrize("angles", [-1, 7, 1.5, True, "3"])
def test_angles_out_of_range_are_refused(angles: Any) -> None:
    with pytest.raises(QasError, match="number of independent angles .* from 1 to 6"):
        AdapterProblem("p", 2, angles=angles)


@pytest.mark.parametrize("qubits", [1, 0, 13, 2.0, True, None])
def test_qubits_out_of_range_are_refused(qubits: Any) -> None:
    with pytest.raises(QasError, match="from 2 to 12"):
        AdapterProblem("p", qubits)


# ---------------------------------------------------------------------- files
def written(folder: Path, array: np.ndarray, suffix: str) -> Path:
    path = folder / f"delta w{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    elif suffix == ".csv":
        np.savetxt(path, array, delimiter=",", fmt="%.17g")
    else:
        safetensors.numpy.save_file({"w": array}, path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".safetensors"])
@pytest.mark.parametrize(("word", "array"), [("target", matrix(16, 3)), ("gradient", matrix(8, 8))])
def test_problems_of_files_go_through_json(tmp_path: Path, suffix: str, word: str, array: np.ndarray) -> None:
    problem = load_problem(f"adapter-{word} {written(tmp_path, array, suffix)}")
    assert isinstance(problem, AdapterProblem)
    assert problem.name == f"adapter-{word}-delta-w"
    np.testing.assert_array_equal(problem.matrix, array)
    found = problem_from_json(json.loads(json.dumps(problem.to_json())))
    assert found == problem and hash(found) == hash(problem)
    assert isinstance(found, AdapterProblem)
    np.testing.assert_array_equal(found.matrix, array)
    circuit = random_circuit(np.random.default_rng(0), problem.n_qubits, 9)
    assert found.energy(circuit) == problem.energy(circuit)


def test_files_of_the_wrong_kind_are_refused_in_one_line(tmp_path: Path) -> None:
    files: dict[str, bytes] = {"a.npy": b"nonsense", "a.csv": b"x,y\n1,2\n", "b.csv": b"", "c.csv": b"1,2\n3\n"}
    files |= {"a.safetensors": b"\x00" * 20, "a.txt": b"1 2", "a.npz": b"PK"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    np.save(tmp_path / "object.npy", np.array([[None, 1]], dtype=object), allow_pickle=True)
    safetensors.numpy.save_file({"a": matrix(4, 4), "b": matrix(4, 4)}, tmp_path / "two.safetensors")
    for path in [*sorted(tmp_path.iterdir()), tmp_path, tmp_path / "missing.npy"]:
        with pytest.raises(RunError) as caught:
            read_matrix(path)
        assert "\n" not in str(caught.value)
        with pytest.raises(QasError):
            load_problem(f"adapter-target {path}")


@pytest.mark.parametrize("goal", GOALS)
def test_json_reads_back_equal(goal: str) -> None:
    array = {"tangent": None, "gradient": matrix(8, 8), "fit": orthogonal(8)}[goal]
    problem = AdapterProblem("p", 3, goal, 5, array, threshold=0.02, description="d", provenance={"a": [1]})
    found = AdapterProblem.from_json(json.loads(json.dumps(problem.to_json())))
    assert found == problem and found.to_json() == problem.to_json()


DAMAGE: list[tuple[dict[str, Any], str]] = [
    ({"format": "else"}, "JSON object of format"),
    ({"version": 3}, "newer version"),
    ({"version": True}, "got True"),
    ({"n_qubits": "3"}, "damaged at n_qubits"),
    ({"goal": "x"}, "one of tangent"),
    ({"angles": 10**9}, "independent angles"),
    ({"matrix": None}, "damaged"),
    ({"matrix": {"shape": [8, 8], "float64": "!"}}, "damaged"),
    ({"matrix": {"shape": [8, 8], "float64": ""}}, "damaged"),
    ({"matrix": {"shape": [10**12, 8], "float64": "AAAAAAAAAAA="}}, "damaged"),
    ({"provenance": 3}, "damaged"),
    ({"threshold": -1.0}, "threshold is a finite number above 0"),
    ({"name": "../x"}, "problem name"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_damaged_json_is_refused(damage: dict[str, Any], message: str) -> None:
    data = matrix_problem(matrix(8, 8), goal="gradient").to_json()
    with pytest.raises(QasError, match=message):
        AdapterProblem.from_json(data | damage)


# ---------------------------------------------------------------------- searches
def test_a_search_finds_a_direction_for_every_angle_and_its_run_makes_an_adapter(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = qas.search("adapter-16-12", agent="evolution", steps=1500, seed=0, report=False, out=folder)
    architecture = load_architecture(run)
    assert architecture.n_angles == architecture.tangent_rank == 12
    assert run.problem.solved(run.best.energy)
    again = qas.load_run(folder)
    assert again.problem == run.problem and again.best.circuit == run.best.circuit
    assert run.problem.energy(again.best.circuit) == pytest.approx(again.best.energy, abs=1e-12)
    assert load_architecture(folder) == architecture
    adapter = CircuitAdapter(16, 16, folder, rank=4)
    assert adapter.architecture == architecture and len(adapter.angles) == 24


@pytest.mark.parametrize("agent", ["random", "evolution"])
def test_recorded_energies_are_those_of_the_recorded_circuits(tmp_path: Path, agent: str) -> None:
    run = qas.search("adapter-8", agent=agent, steps=150, seed=1, report=False, out=tmp_path / "run")
    for result in run.front:
        assert run.problem.energy(result.circuit) == pytest.approx(result.energy, abs=1e-12)


def test_a_fit_is_searched_with_its_angles(tmp_path: Path) -> None:
    circuit = qas.Circuit(2, [("ry", 0, 0.7), ("cx", (0, 1)), ("ry", 1, -1.2)])
    problem = matrix_problem(relative(circuit, circuit.angles))
    run = qas.search(problem, agent="evolution", steps=200, seed=0, report=False, out=tmp_path / "run")
    assert run.best.error < 0.05
    assert problem.energy(run.best.circuit) == pytest.approx(run.best.energy, abs=1e-9)


@pytest.mark.parametrize("goal", GOALS)
def test_the_environment_builds_circuits_for_each_goal(goal: str) -> None:
    array = {"tangent": None, "gradient": matrix(8, 8), "fit": orthogonal(8)}[goal]
    problem: Any = load_problem("adapter-8") if goal == "tangent" else matrix_problem(array, goal=goal)
    env = gymnasium.make("qas/CircuitBuilder-v0", problem=problem)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    for _ in range(5):
        mask = env.unwrapped.action_masks()  # type: ignore[attr-defined]
        observation, reward, terminated, truncated, _ = env.step(int(np.flatnonzero(mask)[0]))
        assert env.observation_space.contains(observation) and np.isfinite(float(reward))
        if terminated or truncated:
            break
    env.close()
