"""The torch engine beyond the contract: batches, autograd, layers, single precision, memory."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qas.circuits import Circuit
from qas.errors import CircuitError, QasError, TooLargeError, UnknownNameError
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel, list_noise, load_noise
from qas.optimizers import minimize
from qas.registry import recorded
from qas.simulators import make_simulator, torch_engine
from qas.simulators.torch_engine import SINGLE_RESOLUTION, TorchSimulator
from qas.testing import random_circuit, random_hamiltonian
from qas.testing.simulators import asymmetric_noise, covering_circuit, legal

SEED = 731_990_043
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]
NOISES = [None, asymmetric_noise()]
on_each_device = pytest.mark.parametrize("device", DEVICES)


def case(n_qubits: int, noise: NoiseModel | None, seed: int, n_terms: int = 12) -> tuple[Circuit, Hamiltonian, Any]:
    rng = np.random.default_rng([SEED, seed])
    circuit = covering_circuit(n_qubits, 25, noise, rng)
    return circuit, random_hamiltonian(n_qubits, min(n_terms, 4**n_qubits), rng), rng


# ---------------------------------------------------------------------- the compiled engines
@pytest.mark.parametrize("noise", [None, *sorted(list_noise())])
@on_each_device
def test_energies_gradients_and_terms_are_those_of_the_compiled_engines(device: str, noise: str | None) -> None:
    model = load_noise(noise)
    compiled, subject = make_simulator(noise), make_simulator(noise, f"torch:device={device}")
    for n_qubits in (1, 4, 5):
        if model is not None and model.n_qubits is not None and model.n_qubits < n_qubits:
            continue
        circuit, hamiltonian, _ = case(n_qubits, model, n_qubits)
        energy, gradient = compiled.expectation_and_gradient(circuit, hamiltonian)
        found, found_gradient = subject.expectation_and_gradient(circuit, hamiltonian)
        assert abs(found - energy) < 1e-10 and np.abs(found_gradient - gradient).max() < 1e-10
        terms = compiled.term_expectations(circuit, hamiltonian)
        assert np.abs(subject.term_expectations(circuit, hamiltonian) - terms).max() < 1e-10


@pytest.mark.parametrize("noise", NOISES)
@on_each_device
def test_a_batch_is_its_circuits_one_by_one(device: str, noise: NoiseModel | None) -> None:
    circuit, hamiltonian, rng = case(4, noise, 10)
    compiled, subject = make_simulator(noise), TorchSimulator(noise, device=device)
    angles = rng.uniform(-20, 20, size=(7, circuit.n_angles))
    single = [compiled.expectation_and_gradient(circuit, hamiltonian, row) for row in angles]
    energies, gradients = subject.gradients_batch(circuit, hamiltonian, angles)
    assert np.abs(energies - [e for e, _ in single]).max() < 1e-10
    assert np.abs(gradients - [g for _, g in single]).max() < 1e-10
    observables = [hamiltonian, Hamiltonian({"ZIII": 2.0, "IIII": 0.5}), Hamiltonian({"IIII": 0.25})]
    values = subject.expectations_batch(circuit, observables, angles)
    assert values.dtype == torch.float64 and values.device.type == device
    for column, observable in enumerate(observables):
        expected = [compiled.expectation(circuit, observable, row) for row in angles]
        assert np.abs(values[:, column].cpu().numpy() - expected).max() < 1e-10
    assert subject.expectation_batch(circuit, hamiltonian, angles[:0]).shape == (0,)


@pytest.mark.parametrize("noise", NOISES)
@on_each_device
def test_architectures_of_every_shape(device: str, noise: NoiseModel | None) -> None:
    """Untouched qubits, pairs that never meet, blocks that grow again, gates behind the last pair."""
    shapes: list[list[Any]] = [
        [],
        [("x", 2)],
        [("h", 3), ("cx", (3, 1)), ("ry", 3, 0.4)],
        [("cx", (0, 1)), ("ry", 1, 0.7), ("cx", (1, 0)), ("rx", 0, 0.2), ("rzz", (1, 0), 0.3), ("sx", 1)],
        [("ry", 0, 0.3), ("cx", (0, 1)), ("ry", 2, 0.8), ("rxx", (3, 2), 0.5), ("cx", (1, 2)), ("u", 3, 1.0, 2.0, 3.0)],
        [("ry", 3, 0.3), ("cx", (3, 0)), ("cx", (3, 1)), ("cx", (3, 2)), ("ry", 0, 1.1), ("swap", (0, 2))],
    ]
    hamiltonian = random_hamiltonian(4, 60, np.random.default_rng(SEED))
    rng = np.random.default_rng(SEED)
    for gates in shapes:
        circuit = legal(Circuit(4, gates), noise, rng)
        expected, gradient = make_simulator(noise).expectation_and_gradient(circuit, hamiltonian)
        energy, found = make_simulator(noise, f"torch:device={device}").expectation_and_gradient(circuit, hamiltonian)
        assert abs(energy - expected) < 1e-10 and np.allclose(found, gradient, rtol=0, atol=1e-10)


# ---------------------------------------------------------------------- autograd
@pytest.mark.parametrize("noise", NOISES)
@on_each_device
def test_first_and_second_derivatives_are_finite_differences(device: str, noise: NoiseModel | None) -> None:
    rng = np.random.default_rng(SEED)
    circuit = legal(random_circuit(3, 9, rng, gates=("rx", "u", "cx", "ryy", "h")), noise, rng)
    observables = [random_hamiltonian(3, 10, rng), Hamiltonian({"IZI": 1.0})]
    subject = TorchSimulator(noise, device=device)
    angles = torch.tensor(rng.uniform(-3, 3, size=(2, circuit.n_angles)), requires_grad=True)
    assert circuit.n_angles > 3

    def values(points: torch.Tensor) -> torch.Tensor:
        return subject.expectations_batch(circuit, observables, points)

    assert torch.autograd.gradcheck(values, angles)
    assert torch.autograd.gradgradcheck(values, angles)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("budget", [20_000, 2_000])
@on_each_device
def test_a_small_memory_gives_the_same_gradients(
    device: str, noise: NoiseModel | None, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit, hamiltonian, rng = case(4, noise, 30)
    angles = torch.tensor(rng.uniform(-3, 3, size=(5, circuit.n_angles)), requires_grad=True)
    weights = torch.tensor(rng.normal(size=5))

    def found() -> tuple[np.ndarray, np.ndarray, list[int]]:
        simulator = TorchSimulator(noise, device=device)
        strides: list[int] = []
        original = torch_engine._recorded
        with monkeypatch.context() as patch:
            patch.setattr(torch_engine, "_recorded", lambda p, m, s, a: strides.append(s) or original(p, m, s, a))
            energies = simulator.expectation_batch(circuit, hamiltonian, angles)
            (gradient,) = torch.autograd.grad(energies @ weights.to(energies), angles)
        return energies.detach().cpu().numpy(), gradient.numpy(), strides

    energies, gradient, strides = found()
    assert strides == [1], "one sweep for the whole batch"
    monkeypatch.setattr(TorchSimulator, "_budget", lambda _: budget)
    others, other, strides = found()
    assert len(strides) == 10 and max(strides) > 1, "each circuit alone, twice, with states made again"
    assert np.abs(others - energies).max() < 1e-12 and np.abs(other - gradient).max() < 1e-12


def test_gradients_come_inside_no_grad_and_inference_mode() -> None:
    circuit, hamiltonian, _ = case(3, None, 40)
    expected = make_simulator().expectation_and_gradient(circuit, hamiltonian)[1]
    for context in (torch.no_grad(), torch.inference_mode()):
        subject = TorchSimulator()
        with context:
            assert abs(subject.expectation(circuit, hamiltonian)) > 0
            assert np.abs(subject.expectation_and_gradient(circuit, hamiltonian)[1] - expected).max() < 1e-10
        assert np.abs(subject.expectation_and_gradient(circuit, hamiltonian)[1] - expected).max() < 1e-10


# ---------------------------------------------------------------------- hybrid models
def hybrid(noise: NoiseModel | None, dtype: torch.dtype, **settings: Any) -> nn.Module:
    """Classical layer, circuit whose data angles are interleaved with trained ones, classical layer."""
    torch.manual_seed(5)
    circuit = Circuit(
        3,
        [("ry", 0, 0.1), ("rx", 0, 0.2), ("ry", 1, 0.3), ("cx", (0, 1)), ("rzz", (2, 1), 0.4), ("rz", 1, 0.5)]
        + [("ry", 2, 0.6), ("cx", (2, 1)), ("ry", 1, 0.7)],
    )
    observables = [Hamiltonian({"ZII": 1.0, "IXI": 0.4}), Hamiltonian({"IZZ": 1.0}), Hamiltonian({"IYI": 1.0})]
    layer = TorchSimulator(noise, **settings).layer(circuit, observables, inputs=(4, 0))
    return nn.Sequential(nn.Linear(2, 2, dtype=dtype), layer, nn.Tanh(), nn.Linear(3, 1, dtype=dtype))


@pytest.mark.parametrize("noise", NOISES)
@on_each_device
def test_a_hybrid_model_has_the_gradients_of_finite_differences(device: str, noise: NoiseModel | None) -> None:
    model = hybrid(noise, torch.float64, device=device).to(device)
    data = torch.tensor(np.random.default_rng(3).normal(size=(2, 2, 2)), requires_grad=True, device=device)
    assert model(data).shape == (2, 2, 1)
    loss = model(data).square().sum()
    leaves = [data, *model.parameters()]
    gradients = torch.autograd.grad(loss, leaves)
    with torch.no_grad():
        for leaf, gradient in zip(leaves, gradients, strict=True):
            flat, step = leaf.view(-1), 1e-5
            for k in range(len(flat)):
                value = flat[k].item()
                ends = []
                for sign in (1, -1):
                    flat[k] = value + sign * step
                    ends.append(model(data).square().sum().item())
                flat[k] = value
                assert gradient.view(-1)[k].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


def test_data_and_trained_angles_stand_where_they_belong() -> None:
    layer = hybrid(None, torch.float64)[1]  # type: ignore[index]
    assert layer.angles.tolist() == [0.2, 0.3, 0.4, 0.6, 0.7] and layer.n_inputs == 2
    data = torch.tensor([[1.5, -2.5], [0.4, 0.1]], dtype=torch.float64)
    for row, values in zip(data.tolist(), layer(data), strict=True):
        angles = [row[1], 0.2, 0.3, 0.4, row[0], 0.6, 0.7]
        expected = [make_simulator().expectation(layer.circuit, o, angles) for o in layer.observables]
        assert values.tolist() == pytest.approx(expected, abs=1e-10)


@on_each_device
def test_layers_learn_keep_the_dtype_of_their_data_and_are_copied(device: str) -> None:
    model = hybrid(None, torch.float32, device=device).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    data = torch.linspace(-1, 1, 20, device=device)[:, None].expand(-1, 2)
    target = torch.sin(3 * data[:, :1])
    losses = []
    for _ in range(40):
        loss = (model(data) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert loss.dtype == torch.float32 and losses[-1] < 0.3 * losses[0]
    twin = hybrid(None, torch.float32, device=device).to(device)
    twin.load_state_dict(model.state_dict())
    for other in (twin, copy.deepcopy(model)):
        assert torch.equal(other(data), model(data))


def test_a_layer_without_data_and_a_layer_without_trained_angles() -> None:
    circuit, hamiltonian, _ = case(2, None, 50)
    energy = make_simulator().expectation(circuit, hamiltonian)
    subject = TorchSimulator()
    assert subject.layer(circuit, hamiltonian)().tolist() == pytest.approx([energy], abs=1e-10)
    full = subject.layer(circuit, hamiltonian, inputs=range(circuit.n_angles))
    assert list(full.angles.shape) == [0]
    assert full(torch.tensor(circuit.angles)).tolist() == pytest.approx([energy], abs=1e-10)


# ---------------------------------------------------------------------- single precision
@on_each_device
@pytest.mark.parametrize("noise", [None, "depolarizing", "ibm-mumbai"])
def test_single_precision_keeps_its_stated_error(device: str, noise: str | None) -> None:
    model = load_noise(noise)
    double, single = TorchSimulator(model), TorchSimulator(model, device=device, precision="single")
    worst = 0.0
    for n_qubits, n_gates in ((2, 30), (4, 200), (7, 150)):
        rng = np.random.default_rng([SEED, n_qubits])
        circuit = legal(random_circuit(n_qubits, n_gates, rng), model, rng)
        hamiltonian = random_hamiltonian(n_qubits, 12, rng)
        angles = rng.uniform(-300, 300, size=(4, circuit.n_angles))
        strings = [Hamiltonian({string: 1.0}) for string in hamiltonian.strings]
        found = single.expectations_batch(circuit, strings, angles).cpu().numpy()
        worst = max(worst, np.abs(found - double.expectations_batch(circuit, strings, angles).numpy()).max())
        gradients = [s.gradients_batch(circuit, hamiltonian, angles)[1] for s in (single, double)]
        bound = SINGLE_RESOLUTION * np.abs(hamiltonian.coefficients).sum()
        assert np.abs(gradients[0] - gradients[1]).max() < bound
    assert 1e-9 < worst < SINGLE_RESOLUTION, "single precision, and within its bound"


def test_minimizers_refuse_a_tolerance_below_single_precision() -> None:
    circuit, hamiltonian, _ = case(3, None, 60)
    objective = TorchSimulator(precision="single").objective(circuit, hamiltonian)
    with pytest.raises(QasError, match="at least the engine's resolution") as caught:
        minimize(objective, circuit.angles, max_evaluations=50)
    assert "\n" not in str(caught.value) and objective.nfev == 0
    reached = minimize(objective, circuit.angles, max_evaluations=50, tolerance=1e-3)
    exact = make_simulator().expectation(circuit, hamiltonian, reached.x)
    assert abs(reached.fun - exact) < objective.resolution < 1e-3


def test_other_number_formats_do_not_creep_in() -> None:
    circuit, hamiltonian, rng = case(4, None, 70)
    subject = TorchSimulator(precision="single")
    angles = torch.tensor(rng.normal(size=(3, circuit.n_angles)))
    expected = subject.expectation_batch(circuit, hamiltonian, angles)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(subject.expectation_batch(circuit, hamiltonian, angles), expected)
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(QasError, match="set_float32_matmul_precision"):
            subject.expectation(circuit, hamiltonian)
        TorchSimulator().expectation(circuit, hamiltonian)
    finally:
        torch.set_float32_matmul_precision("highest")


# ---------------------------------------------------------------------- settings and refusals
def test_settings_stand_behind_the_name_and_are_recorded() -> None:
    made = make_simulator("depolarizing", "torch:precision=single")
    assert isinstance(made, TorchSimulator) and made.resolution == SINGLE_RESOLUTION and made.noise is not None
    assert recorded(made) == {"name": "torch", "precision": "single"}
    again = make_simulator("depolarizing", {"name": "torch", "precision": "single"})
    third = pickle.loads(pickle.dumps(again))
    assert (third.precision, third.noise, third.device) == ("single", made.noise, "cpu")
    for engine, error, words in (
        ("torch:precision=half", QasError, "double or single, got 'half'"),
        ("torch:device=mps", QasError, "cpu or cuda, got 'mps'"),
        ("torch:device=3", QasError, "must be str"),
        ("torch:devise=cpu", UnknownNameError, "did you mean 'device'"),
        ("aer:device=cpu", QasError, "no settings"),
    ):
        with pytest.raises(error, match=words) as caught:
            make_simulator(None, engine)
        assert "\n" not in str(caught.value)


def test_cuda_that_is_not_there_says_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(QasError, match=r"asked for cuda, which torch .* does not see; there is cpu$") as caught:
        make_simulator(None, "torch:device=cuda")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(QasError, match=r"asked for cuda:1, .* there is cpu, cuda:0$"):
        make_simulator(None, "torch:device=cuda:1")


def test_what_does_not_fit_is_refused_with_the_memory_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "memory_limit", lambda: 1 << 30)
    for noise, fits, factor in ((None, 24, 48), ("depolarizing", 12, 24)):
        subject = make_simulator(noise, "torch")
        subject.check_size(fits)
        need = factor * (2.0 if noise is None else 4.0) ** (fits + 1) / 1e9
        with pytest.raises(TooLargeError, match=f"{need:.3g} GB in the torch engine, cpu has 1.07 GB"):
            subject.check_size(fits + 1)
    circuit = Circuit(8, [("cx", (k % 8, (k + 1 + k // 8) % 8)) for k in range(40)]).append("ry", 0, 0.3)
    monkeypatch.setattr(torch_engine, "memory_limit", lambda: 1 << 21)
    subject, hamiltonian = make_simulator("depolarizing", "torch"), Hamiltonian({"ZZZZZZZZ": 1.0})
    subject.expectation(circuit, hamiltonian)
    with pytest.raises(TooLargeError, match="gradient of .* blocks on 8 qubits keeps"):
        subject.expectation_and_gradient(circuit, hamiltonian)


def test_bad_batches_and_layers_are_refused_in_one_line() -> None:
    subject, circuit = TorchSimulator(), Circuit(2, [("rx", 0, 0.1), ("ry", 1, 0.2)])
    good, other = Hamiltonian({"ZZ": 1.0}), Hamiltonian({"Z": 1.0})
    layer = subject.layer(circuit, good, inputs=[0])
    bad: list[tuple[Any, str]] = [
        (lambda: subject.expectation_batch(circuit, good, [[0.1]]), r"shape \(batch, 2\)"),
        (lambda: subject.expectation_batch(circuit, good, torch.zeros(2)), r"shape \(batch, 2\)"),
        (lambda: subject.expectation_batch(circuit, good, torch.zeros(1, 2, dtype=torch.int64)), "int64"),
        (lambda: subject.expectation_batch(circuit, other, torch.zeros(1, 2)), "has 1"),
        (lambda: subject.expectations_batch(circuit, [], torch.zeros(1, 2)), "at least one"),
        (lambda: subject.layer(circuit, good, inputs=[2]), "from 0 to 1, got 2"),
        (lambda: subject.layer(circuit, good, inputs=[1, 1]), "of its own"),
        (lambda: subject.layer(circuit, other), "has 1"),
        (lambda: layer(torch.zeros(3, 2)), "takes 1 inputs"),
        (lambda: layer(), "takes 1 inputs"),
    ]
    for call, words in bad:
        with pytest.raises(QasError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert torch.isnan(
        subject.expectation_batch(circuit, good, torch.tensor([[np.nan, 0.0], [0.0, 0.0]]))
    ).tolist() == [
        True,
        False,
    ]
    with pytest.raises(CircuitError, match="couples only"):
        TorchSimulator(load_noise("ibm-ourense")).layer(Circuit(4, [("cx", (0, 3))]), Hamiltonian({"ZZZZ": 1.0}))


# ---------------------------------------------------------------------- insertions
@pytest.mark.parametrize("noise", [None, asymmetric_noise(), load_noise("ibm-ourense")])
@on_each_device
def test_insertion_gradients_and_gains_are_those_of_the_compiled_engines(device: str, noise: NoiseModel | None) -> None:
    compiled, subject = make_simulator(noise), TorchSimulator(noise, device=device)
    for n_qubits in (1, 3, 4):
        rng = np.random.default_rng([SEED, 80, n_qubits])
        circuit = legal(random_circuit(n_qubits, 9, rng), noise, rng)
        hamiltonian = random_hamiltonian(n_qubits, min(4**n_qubits, 15), rng)
        wide = ["".join(rng.choice(list("IXYZ"), size=n_qubits)) for _ in range(5)]
        for generators in (None, [*wide, "I" * n_qubits, Hamiltonian({"Y" * n_qubits: 0.5, "X" * n_qubits: -2.0})]):
            for chosen in (circuit, Circuit(n_qubits)):
                expected = compiled.insertion_gradients(chosen, hamiltonian, generators)
                found = subject.insertion_gradients(chosen, hamiltonian, generators)
                assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-10
        assert np.abs(subject.insertion_gradients(circuit, hamiltonian)).max() > 1e-3
        exchange = Hamiltonian({"Y" * (n_qubits - 1) + letter: 0.5 for letter in "YX"})
        for generators in (None, [*wide, "I" * n_qubits, exchange]):
            gains, angles = subject.append_gains(circuit, hamiltonian, generators)
            expected_gains, expected_angles = compiled.append_gains(circuit, hamiltonian, generators)
            assert np.abs(gains - expected_gains).max() < 1e-10
            turns = (angles - expected_angles) / (2 * np.pi)
            turns[-1] *= 1.0 if generators is None else np.sqrt(0.5)  # the eigenvalues of the exchange
            turns = turns[expected_gains > 1e-6]
            assert np.abs(turns - turns.round()).max(initial=0.0) < 1e-8


def test_insertion_gradients_in_a_small_memory_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = asymmetric_noise()
    circuit, hamiltonian, _ = case(4, noise, 90)
    expected = TorchSimulator(noise).insertion_gradients(circuit, hamiltonian)
    monkeypatch.setattr(TorchSimulator, "_budget", lambda _: 5 * 4**4 * 8)
    assert np.abs(TorchSimulator(noise).insertion_gradients(circuit, hamiltonian) - expected).max() < 1e-12
