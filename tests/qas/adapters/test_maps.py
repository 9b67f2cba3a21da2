"""Differentiable maps against dense matrices: frames, their gradients, and fused rotations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qas.adapters.architecture import Architecture, quantum_peft
from qas.adapters.maps import (
    BlocksMap,
    ColumnsMap,
    FusedRotation,
    LayerMap,
    Layers,
    _full_precision,
    relative_rotation,
)
from qas.adapters.program import GATE_WIRES, ODD
from qas.errors import QasError

REAL = ("ry", "ry", "h", "x", "y", "z", "cx", "cz", "swap", "givens")
COMPLEX = ("rx", "rz", "u", "s", "sx", "t", "rzz", "ryy", "ecr")


def random_architecture(rng: np.random.Generator, n: int, count: int, odd: int = 1) -> Architecture:
    names = REAL + (COMPLEX if odd == 1 and rng.integers(2) else ()) + (("so", "odd") if odd > 1 else ())
    gates: list[tuple[str, tuple[int, ...]]] = []
    while len(gates) < count:
        name = names[rng.integers(len(names))]
        if name == "so":
            gates.append(("so", (ODD,)))
        elif name == "odd":
            gates.append(("cz", (ODD, int(rng.integers(n)))))
        elif GATE_WIRES.get(name, 1) <= n:
            gates.append((name, tuple(rng.choice(n, GATE_WIRES.get(name, 1), replace=False).tolist())))
    return Architecture(n, tuple(gates), odd)


def random_angles(rng: np.random.Generator, *shape: int, scale: float = 3.0) -> Tensor:
    return torch.from_numpy(rng.uniform(-scale, scale, shape))


FIXED = {
    "x": [[0, 1], [1, 0]],
    "z": [[1, 0], [0, -1]],
    "y": [[0, -1], [1, 0]],  # up to the phase i
    "h": [[math.sqrt(0.5), math.sqrt(0.5)], [math.sqrt(0.5), -math.sqrt(0.5)]],
    "cx": [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]],
    "cz": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, -1]],
    "swap": [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]],
}


def embedded(matrix: Tensor, wires: tuple[int, ...], n: int, odd: int) -> Tensor:
    """A gate on every level of the odd axis, the first wire being the lowest bit of `matrix`."""
    rest = [q for q in range(n) if q not in wires]
    order = [*wires, *rest]  # of bits, lowest first, in kron(1, matrix)
    place = torch.tensor([sum((i >> q & 1) << order.index(q) for q in range(n)) for i in range(1 << n)])
    whole = torch.kron(torch.eye(1 << len(rest), dtype=matrix.dtype), matrix)[place][:, place]
    return torch.kron(torch.eye(odd, dtype=matrix.dtype), whole)


def plane(theta: Tensor, a: int, b: int, size: int) -> Tensor:
    """A Givens rotation by θ/2 that takes a to b."""
    found = torch.eye(size, dtype=torch.float64).clone()
    found[a, a] = found[b, b] = torch.cos(theta / 2)
    found[a, b], found[b, a] = -torch.sin(theta / 2), torch.sin(theta / 2)
    return found


def gate_by_gate(architecture: Architecture, angles: Tensor) -> Tensor:
    """The matrix of real gates as a product of dense matrices that autograd differentiates."""
    n, odd = architecture.n_qubits, architecture.odd
    found = torch.eye(odd << n, dtype=torch.float64)
    rest = list(angles)
    for name, wires in architecture.gates:
        if name == "so":
            for a in range(odd):
                for b in range(a + 1, odd):
                    turn = plane(rest.pop(0), a, b, odd)
                    found = torch.kron(turn, torch.eye(1 << n, dtype=torch.float64)) @ found
        elif ODD in wires:
            signs = [(-1.0) ** ((i >> n) * (i >> max(wires) & 1)) for i in range(odd << n)]
            found = torch.tensor(signs, dtype=torch.float64)[:, None] * found
        else:
            if name == "ry":
                gate = plane(rest.pop(0), 0, 1, 2)
            elif name == "givens":  # the first wire is the left one of |10><01|, and the lowest bit here
                gate = plane(rest.pop(0), 2, 1, 4)
            else:
                gate = torch.tensor(FIXED[name], dtype=torch.float64)
            found = embedded(gate, wires, n, odd) @ found
    return found


def orthonormal_columns(angles: Tensor, architecture: Architecture, columns: int) -> Tensor:
    """First columns of the matrices of a batch, each with angles of its own."""
    layers = Layers([[ColumnsMap(architecture, columns, architecture.size)]] * len(angles))
    return torch.stack([matrix for (matrix,) in layers(angles.unbind())])


# ---------------------------------------------------------------------- columns
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_columns_and_gradients_are_those_of_dense_autograd(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, odd = int(rng.integers(1, 4)), int(rng.choice([1, 1, 3, 5]))
    names = [g for g in REAL if GATE_WIRES.get(g, 1) <= n]
    architecture = Architecture(
        n,
        tuple(
            (g := names[rng.integers(len(names))], tuple(rng.choice(n, GATE_WIRES.get(g, 1), replace=False).tolist()))
            for _ in range(int(rng.integers(0, 10)))
        )
        + ((("so", (ODD,)), ("cz", (ODD, 0)), ("ry", (0,)), ("so", (ODD,))) if odd > 1 else ()),
        odd,
    )
    columns = int(rng.integers(1, architecture.size + 1))
    angles = random_angles(rng, 2, architecture.n_angles).requires_grad_()
    target = torch.from_numpy(rng.normal(size=(2, architecture.size, columns)))
    found = orthonormal_columns(angles, architecture, columns)
    wanted = torch.stack([gate_by_gate(architecture, row)[:, :columns] for row in angles])
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=0)
    if not architecture.n_angles:
        return
    (slow,) = torch.autograd.grad((wanted * target).sum(), angles)
    (fast,) = torch.autograd.grad((found * target).sum(), angles)
    torch.testing.assert_close(fast, slow, atol=1e-10, rtol=0)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


def by_torch(subject: LayerMap, angles: Tensor, targets: list[Tensor]) -> list[tuple[list[Tensor], Tensor]]:
    """Matrices and gradients of the torch path: by autograd, and undoing blocks."""
    found = []
    leaf = angles.detach().requires_grad_()
    outputs = subject.by_torch(leaf)
    loss = sum(((out * target).sum() for out, target in zip(outputs, targets, strict=True)), torch.zeros(()))
    found.append((outputs, torch.autograd.grad(loss.to(leaf), leaf)[0]))
    with torch.no_grad():
        outputs = subject.by_torch(angles)
    found.append((outputs, subject.torch_gradient(angles, outputs, targets)))
    return found


@pytest.mark.parametrize("device", DEVICES)
@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**32 - 1))
def test_both_paths_make_the_same_matrices_and_gradients(device: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    odd = int(rng.choice([1, 1, 3, 7]))
    architecture = random_architecture(rng, int(rng.integers(1, 7)), int(rng.integers(0, 24)), odd)
    if not architecture.n_angles:
        return
    fused = FusedRotation(architecture.operations, architecture.n_bits, odd, int(rng.integers(3, 7)))
    rows, columns = (int(rng.integers(1, architecture.size + 1)) for _ in range(2))
    for subject in (ColumnsMap(architecture, columns, rows), BlocksMap(fused)):
        angles = random_angles(rng, 3, subject.n_angles)
        targets = [torch.from_numpy(rng.normal(size=(3, *shape))) for shape in subject.shapes]
        outputs, kept = subject.by_kernel(angles.numpy())
        slope = subject.kernel_gradient(angles.numpy(), kept, np.arange(3), targets)
        for found, gradient in by_torch(subject, angles.to(device), [target.to(device) for target in targets]):
            for one, other in zip(found, outputs, strict=True):
                torch.testing.assert_close(one.cpu(), other, atol=1e-12, rtol=0)
            torch.testing.assert_close(gradient.cpu(), torch.from_numpy(slope), atol=1e-10, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_in_single_precision_the_paths_differ_by_rounding(device: str) -> None:
    for features, layers in ((4096, 1), (4096, 3), (576, 2), (1536, 1)):
        subject = ColumnsMap(quantum_peft(features, layers)[0], 8, features)
        rng = np.random.default_rng(features)
        angles = random_angles(rng, 2, subject.n_angles).float()
        target = [torch.from_numpy(rng.normal(size=(2, features, 8)) / features**0.5).float()]
        (wanted,), kept = subject.by_kernel(angles.numpy())
        slope = torch.from_numpy(subject.kernel_gradient(angles.numpy(), kept, np.arange(2), target)).float()
        for (found,), gradient in by_torch(subject, angles.to(device), [t.to(device) for t in target]):
            assert float((found.detach().cpu() - wanted).abs().max()) < 1e-6
            torch.testing.assert_close(gradient.cpu(), slope, atol=3e-6, rtol=1e-5)


def test_layers_are_made_together_and_asked_for_alone() -> None:
    """Layers of several shapes, of which a backward pass asks for a few at a time."""
    rng = np.random.default_rng(0)
    maps: list[list[LayerMap]] = [
        [ColumnsMap(quantum_peft(n, 1)[0], 3, n) for n in sides] for sides in ((16, 16), (16, 12), (12, 16), (16, 16))
    ]
    fused = FusedRotation(quantum_peft(32, 1)[0].operations, 5, 1, 3)
    maps.insert(2, [BlocksMap(fused)])
    vectors = [random_angles(rng, sum(one.n_angles for one in own)).requires_grad_() for own in maps]
    spent = bytearray(len(maps))
    together = Layers(maps)(vectors, spent)
    alone = [Layers([own])([vector])[0] for own, vector in zip(maps, vectors, strict=True)]
    for first in (2, 0, 4):
        asked = [k for k in (first, first + 1) if k < len(maps)]
        for k in asked:
            for one, other in zip(together[k], alone[k], strict=True):
                assert one.equal(other)
        losses = [sum((part[..., 0].sin().sum() for part in one[k][:2]), torch.zeros(())) for one in (together, alone)
                  for k in asked]  # fmt: skip
        found = torch.autograd.grad(sum(losses[: len(asked)], torch.zeros(())), vectors, allow_unused=True)
        wanted = torch.autograd.grad(sum(losses[len(asked) :], torch.zeros(())), vectors, allow_unused=True)
        for one, other in zip(found, wanted, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
    assert spent == bytearray([1] * 5)


def test_gradcheck_passes() -> None:
    architecture, _ = quantum_peft(12, 1)
    angles = random_angles(np.random.default_rng(0), 2, architecture.n_angles).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: orthonormal_columns(a, architecture, 5), angles)


def test_a_second_backward_pass_finds_the_same_gradient() -> None:
    architecture, _ = quantum_peft(32, 2)
    angles = random_angles(np.random.default_rng(0), 1, architecture.n_angles).requires_grad_()
    loss = orthonormal_columns(angles, architecture, 4)[0, 3].sum()
    (first,) = torch.autograd.grad(loss, angles, retain_graph=True)
    (second,) = torch.autograd.grad(loss, angles)
    assert torch.equal(first, second)


def test_angles_changed_in_place_before_the_backward_pass_do_not_change_the_gradient() -> None:
    architecture, _ = quantum_peft(32, 2)
    angles = random_angles(np.random.default_rng(0), 1, architecture.n_angles).requires_grad_()
    (wanted,) = torch.autograd.grad(orthonormal_columns(angles, architecture, 4)[0, 3].sum(), angles)
    loss = orthonormal_columns(angles, architecture, 4)[0, 3].sum()
    with torch.no_grad():
        angles.add_(1.0)
    (found,) = torch.autograd.grad(loss, angles)
    assert torch.equal(found, wanted)


def test_columns_have_the_precision_of_the_angles_and_a_meta_twin() -> None:
    architecture, _ = quantum_peft(64, 1)
    for dtype in (torch.float32, torch.float64):
        angles = torch.zeros(3, architecture.n_angles, dtype=dtype)
        assert orthonormal_columns(angles, architecture, 2).dtype == dtype
    found = orthonormal_columns(torch.zeros(3, architecture.n_angles, device="meta"), architecture, 2)
    assert found.device.type == "meta" and found.shape == (3, 64, 2)


def test_malformed_angles_are_refused() -> None:
    architecture = quantum_peft(8)[0]
    with pytest.raises(QasError, match="float32 or float64, got torch.float16"):
        orthonormal_columns(torch.zeros(1, architecture.n_angles, dtype=torch.float16), architecture, 2)
    with pytest.raises(QasError, match=f"have {architecture.n_angles} angles, got {architecture.n_angles + 1}"):
        orthonormal_columns(torch.zeros(1, architecture.n_angles + 1), architecture, 2)
    for columns in (0, 9):
        with pytest.raises(QasError, match="1 to 8 columns"):
            orthonormal_columns(torch.zeros(1, architecture.n_angles), architecture, columns)


# ---------------------------------------------------------------------- fused rotations
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_fused_rotations_are_the_map_and_its_transpose(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, odd = int(rng.integers(1, 6)), int(rng.choice([1, 1, 3, 5]))
    architecture = random_architecture(rng, n, int(rng.integers(0, 20)), odd)
    fused = FusedRotation(architecture.operations, architecture.n_bits, odd, int(rng.integers(1, 7)))
    angles = random_angles(rng, architecture.n_angles)
    matrix = torch.from_numpy(architecture.program.matrix(angles.numpy()))
    x = torch.from_numpy(rng.normal(size=(architecture.size, 3)))
    torch.testing.assert_close(fused(angles, x), matrix @ x, atol=1e-11, rtol=0)
    torch.testing.assert_close(fused(angles, x, inverse=True), matrix.T @ x, atol=1e-11, rtol=0)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_gradients_of_fused_rotations_are_those_of_columns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, odd = int(rng.integers(1, 5)), int(rng.choice([1, 3]))
    architecture = random_architecture(rng, n, 12, odd)
    if not architecture.n_angles:
        return
    fused = FusedRotation(architecture.operations, architecture.n_bits, odd, 3)
    angles = random_angles(rng, architecture.n_angles).requires_grad_()
    x = torch.from_numpy(rng.normal(size=(architecture.size, 4))).requires_grad_()
    target = torch.from_numpy(rng.normal(size=(architecture.size, 4)))
    whole = orthonormal_columns(angles[None], architecture, architecture.size)[0]
    for inverse in (False, True):
        slow = torch.autograd.grad(
            (((whole.T if inverse else whole) @ x) * target).sum(), (angles, x), retain_graph=True
        )
        fast = torch.autograd.grad((fused(angles, x, inverse=inverse) * target).sum(), (angles, x))
        for a, b in zip(fast, slow, strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**32 - 1))
def test_relative_rotations_start_at_the_identity_and_keep_the_tangent_space(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, odd = int(rng.integers(1, 4)), int(rng.choice([1, 3]))
    architecture = random_architecture(rng, n, int(rng.integers(1, 14)), odd)
    relative = relative_rotation(architecture.operations, architecture.n_bits, odd, 3)
    eye = torch.eye(architecture.size, dtype=torch.float64)
    zero = torch.zeros(architecture.n_angles, dtype=torch.float64)
    torch.testing.assert_close(relative(zero, eye), eye, atol=1e-12, rtol=0)
    if not architecture.n_angles:
        return
    found = torch.autograd.functional.jacobian(lambda a: relative(a, eye), zero).reshape(-1, architecture.n_angles)
    wanted = torch.autograd.functional.jacobian(
        lambda a: orthonormal_columns(a[None], architecture, architecture.size), zero
    ).reshape(-1, architecture.n_angles)
    assert torch.linalg.matrix_rank(found, atol=1e-8) == torch.linalg.matrix_rank(wanted, atol=1e-8)


def test_signed_permutations_alone_start_exactly_at_the_identity() -> None:
    architecture, _ = quantum_peft(96, 3)
    relative = relative_rotation(architecture.operations, architecture.n_bits, architecture.odd)
    x = torch.randn(96, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(relative(torch.zeros(architecture.n_angles), x), x)


def test_a_layer_of_the_published_circuit_takes_few_passes() -> None:
    for n, passes in ((6, 1), (10, 2), (12, 3)):
        architecture, _ = quantum_peft(1 << n)
        assert len(FusedRotation(architecture.operations, n)) <= passes
        assert all(b.shape[1] <= 64 for b in FusedRotation(architecture.operations, n).blocks)


def test_no_tokens_and_no_gates_are_fine() -> None:
    assert FusedRotation([], 3)(torch.zeros(0), torch.ones(8, 2)).equal(torch.ones(8, 2))
    architecture = Architecture(8, tuple(("cx", (q, (q + 3) % 8)) for q in range(8)) + (("ry", (0,)),))
    fused = FusedRotation(architecture.operations, 8, block_bits=2)
    assert fused(torch.zeros(1), torch.zeros(256, 0)).shape == (256, 0)
    assert fused(torch.zeros(1), torch.zeros(256, 0), inverse=True).shape == (256, 0)


def test_rotations_keep_norms_in_float32_and_float64() -> None:
    architecture, _ = quantum_peft(1024, 3)
    fused = FusedRotation(architecture.operations, 10)
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        angles = random_angles(np.random.default_rng(0), architecture.n_angles, scale=math.pi).to(dtype)
        matrix = fused(angles, torch.eye(1024, dtype=dtype))
        assert float((matrix.T @ matrix - torch.eye(1024, dtype=dtype)).abs().max()) <= bound


@pytest.mark.parametrize("switch", ["highest", "high", "medium", "new"])
def test_tensor_float_32_is_off_for_a_while_whichever_switch_set_it(switch: str) -> None:
    matmul = torch.backends.cuda.matmul
    if switch == "new" and not hasattr(matmul, "fp32_precision"):
        pytest.skip("torch before 2.9")
    try:
        if switch == "new":
            matmul.fp32_precision = "tf32"
        else:
            torch.set_float32_matmul_precision(switch)
        with _full_precision(torch.device("cuda")):
            assert not matmul.allow_tf32
        if switch == "new":
            assert matmul.fp32_precision == "tf32"
        else:
            assert torch.get_float32_matmul_precision() == switch
    finally:
        torch.set_float32_matmul_precision("highest")
