"""The torch engine: batches of circuits on CPU or GPU, differentiable as a part of larger models."""

from __future__ import annotations

import functools
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qas.circuits import Circuit
from qas.errors import CircuitError, QasError, TooLargeError
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel
from qas.simulators.base import Asked, Simulator, check_angles
from qas.simulators.workers import memory_limit

if TYPE_CHECKING:
    from torch import Tensor

    from qas.simulators._torch_insertions import Places
    from qas.simulators._torch_sweep import Observables, Program
    from qas.simulators.insertions import Curves
    from qas.simulators.torch_layer import CircuitLayer

SINGLE_RESOLUTION = 1e-5
"""Error bound of ⟨P⟩ in single precision, up to 10 qubits and some hundred gates; random circuits stayed below 1e-6."""

CPU_BUDGET = 1 << 30
"""Most bytes that a batch may keep for its gradient on the CPU; beyond it parts of the batch are computed again."""

CPU_PORTION = 1 << 24
"""Bytes of states and small matrices that the CPU works on at a time; more would leave its caches."""

CPU_TAPE = 1 << 26
"""The same with what is kept for the gradient."""


class TorchSimulator(Simulator):
    """Expectation values of many angle vectors at once, as differentiable torch functions of the angles.

    Without noise states are amplitudes, 2**n complex numbers; with noise Pauli vectors, 4**n real ones. All gates that
    follow each other on one pair of qubits act as one small matrix, made for the whole batch; qubits join the state
    when a gate first touches them. Gradients come from an adjoint sweep (Jones and Gacon, arXiv:2009.02823) over these
    matrices and torch's own differentiation inside them, which also gives second derivatives.

    Angles are read in double precision. With ``precision="single"`` states are float32 or complex64, and the values of
    one Pauli string are off by at most `SINGLE_RESOLUTION`; minimizers refuse a tolerance below it (`resolution`).

    Args:
        noise: a noise model, or None for a perfect device.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``.
        precision: ``"double"`` or ``"single"``.

    Raises:
        QasError: a device that is not there, or another precision.
    """

    name = "torch"
    about = "torch: batches of angles on CPU or CUDA, differentiable, with and without noise"
    idle = True

    def __init__(self, noise: NoiseModel | None = None, *, device: str = "cpu", precision: str = "double") -> None:
        super().__init__(noise)
        if precision not in ("double", "single"):
            raise QasError(f"the precision is double or single, got {precision!r}")
        from qas.simulators._torch_sweep import Place

        self.device, self.precision = str(device), precision
        self._place = Place(_checked_device(self.device), noise is not None, precision == "single")
        self.resolution = 0.0 if precision == "double" else SINGLE_RESOLUTION
        self._observables: OrderedDict[tuple[int, ...], tuple[Sequence[Hamiltonian], Any]] = OrderedDict()
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), device=self.device, precision=self.precision), (self.noise,)

    # ------------------------------------------------------------------ single circuits
    def expectation(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> float:
        import torch

        values = check_angles(circuit, hamiltonian, angles)
        with torch.no_grad():
            return float(self._values(circuit, [hamiltonian], torch.tensor(values)[None])[0, 0])

    def expectation_and_gradient(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> tuple[float, np.ndarray]:
        energies, gradients = self.gradients_batch(
            circuit, hamiltonian, check_angles(circuit, hamiltonian, angles)[None]
        )
        return float(energies[0]), gradients[0]

    def term_expectations(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> np.ndarray:
        import torch

        values = torch.tensor(check_angles(circuit, hamiltonian, angles))[None]
        with torch.no_grad():
            if self.noise is None:
                return self._values(circuit, _terms(hamiltonian), values)[0].cpu().numpy()
            program = self._program(circuit)
            state = program.state(program.maps(values.to(self._place.device)), 1)[0]
            return state[self._place.indices(hamiltonian.pauli_index)].to(torch.float64).cpu().numpy()

    # ------------------------------------------------------------------ what inserting would bring
    def _insertion_slopes(self, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
        """With noise by dense matrices of states and gradients: all Pauli strings in one product."""
        circuit, hamiltonian, generators, angles, positions, channels = asked
        import torch

        from qas.simulators._torch_insertions import Costs, Slopes

        strings = generators.expanded.strings
        values, costs = np.zeros((len(positions), len(strings))), np.zeros((len(positions), len(generators.strings)))
        if values.size:
            with torch.inference_mode(False), torch.no_grad():
                places = self._places(circuit, hamiltonian, angles)
                lost = Costs(channels, costs.shape[1], circuit.n_qubits)
                found = places.at(positions.tolist(), [Slopes(strings, self._place), lost])
                values, costs = (rows.cpu().numpy() for rows in found)
        return generators.expanded.values(values, len(generators.strings)), costs

    def _append_curves(self, asked: Asked) -> tuple[Curves, np.ndarray, np.ndarray]:
        circuit, hamiltonian, generators, angles, _, channels = asked
        import torch

        from qas.simulators._torch_insertions import Costs, Slopes, falls, sum_curves
        from qas.simulators.insertions import Curves

        strings = Curves(np.zeros(0), np.zeros(0))
        with torch.inference_mode(False), torch.no_grad():
            places = self._places(circuit, hamiltonian, angles)
            if generators.strings:
                slope = Slopes(generators.strings, self._place)(places.state, places.gradient)
                terms = self.term_expectations(circuit, hamiltonian, angles) if self.noise is None else np.zeros(0)
                strings = Curves(slope.cpu().numpy(), falls(places, generators.strings, terms, hamiltonian))
            lost = Costs(channels, len(generators.strings), circuit.n_qubits)(places.state, places.gradient)
            sums = sum_curves(places, generators.sums, generators.scales, hamiltonian)
            return strings, sums, lost.cpu().numpy()

    def _places(self, circuit: Circuit, hamiltonian: Hamiltonian, angles: np.ndarray) -> Places:
        """States between the gates; the budget says how many are kept."""
        import torch

        from qas.simulators._torch_insertions import Places

        self._check_matmul()
        self._program(circuit)  # refuses what does not fit
        keep = int(self._budget() // (self._item() * self._place.size**circuit.n_qubits))
        points = torch.tensor(angles, device=self._place.device)[None]
        return Places(circuit, self.noise, self._place, hamiltonian, points, keep)

    # ------------------------------------------------------------------ batches
    def expectation_batch(self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Any) -> Tensor:
        """Energies of one architecture at many angle vectors, differentiable.

        Args:
            circuit: the architecture; its own angles are not used.
            hamiltonian: on the same number of qubits.
            angles: radians, tensor or array, shape (batch, n_angles).

        Returns:
            Shape (batch,), on the device and with the floating dtype of `angles` where these are a tensor, else
            float64 on the engine's device. Angles that are not finite give NaN.

        Raises:
            CircuitError: sizes that differ, or a gate the device does not have.
            TooLargeError: more than the memory holds.
        """
        return self.expectations_batch(circuit, [hamiltonian], angles)[:, 0]

    def expectations_batch(self, circuit: Circuit, observables: Sequence[Hamiltonian], angles: Any) -> Tensor:
        """As `expectation_batch`, for several observables in one sweep: shape (batch, n_observables)."""
        import torch

        given = angles if isinstance(angles, torch.Tensor) else torch.tensor(np.asarray(angles, dtype=np.float64))
        if given.ndim != 2 or given.shape[1] != circuit.n_angles or not given.is_floating_point():
            raise CircuitError(
                f"a batch of angles is real and of shape (batch, {circuit.n_angles}), got {given.dtype} of shape "
                f"{tuple(given.shape)}"
            )
        points = given
        if circuit.lowering is not None:
            offsets, matrix = (
                torch.tensor(part).to(given) for part in (circuit.lowering.offsets, circuit.lowering.matrix())
            )
            circuit, points = circuit.lowering.circuit, offsets + given @ matrix.T
        values = self._values(circuit, observables, points)
        return values.to(given.device, given.dtype) if given is angles else values

    def gradients_batch(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Energies, float64, shape (batch,), and gradients, shape (batch, n_angles), at angles of that shape."""
        import torch

        found = []
        rows = torch.tensor(np.asarray(angles, dtype=np.float64))
        with torch.inference_mode(False), torch.enable_grad():
            run = circuit if circuit.lowering is None else circuit.lowering.circuit
            each = self._each(self._program(run), self._observable([hamiltonian]), recorded=True)
            for part in rows.split(self._recordable(each)):
                points = part.clone().requires_grad_()
                energies = self.expectation_batch(circuit, hamiltonian, points)
                gradients = torch.zeros_like(points)
                if energies.requires_grad and points.numel():
                    (gradients,) = torch.autograd.grad(energies.sum(), points)
                found.append((energies.detach().cpu().numpy(), gradients.numpy()))
        energies, gradients = zip(*found, strict=True)
        return np.concatenate(energies), np.concatenate(gradients)

    def layer(
        self, circuit: Circuit, observables: Hamiltonian | Sequence[Hamiltonian], *, inputs: Iterable[int] = ()
    ) -> CircuitLayer:
        """The circuit as a `torch.nn.Module`; see `qas.simulators.torch_layer.CircuitLayer`.

        Args:
            circuit: its angles are where the trainable ones start.
            observables: one operator or several, on the same number of qubits.
            inputs: positions among the angles, from 0, that data take; the others are trainable.
        """
        from qas.simulators.torch_layer import CircuitLayer

        return CircuitLayer(self, circuit, observables, inputs)

    # ------------------------------------------------------------------ evaluation
    def _values(self, circuit: Circuit, observables: Sequence[Hamiltonian], angles: Tensor) -> Tensor:
        """Float64, shape (batch, n_observables), on the engine's device."""
        import torch

        for observable in observables:
            if observable.n_qubits != circuit.n_qubits:
                raise CircuitError(
                    f"the circuit has {circuit.n_qubits} qubits but the Hamiltonian has {observable.n_qubits}"
                )
        if not observables:
            raise QasError("a batch of expectation values needs at least one observable, got none")
        self._check_matmul()
        with torch.inference_mode(False):
            program, measured = self._program(circuit), self._observable(observables)
        angles = angles.to(self._place.device)
        if not len(angles):
            return torch.zeros(0, len(observables), dtype=torch.float64, device=self._place.device)
        with torch.autocast(self._place.device.type, enabled=False):
            return self._in_portions(program, measured, angles)

    def _in_portions(self, program: Program, measured: Observables, angles: Tensor) -> Tensor:
        """A batch in parts that the caches hold; parts whose states would not fit in memory are made again."""
        import torch
        from torch.utils.checkpoint import checkpoint

        state = self._item() * self._place.size**program.n_qubits
        budget = self._budget()
        if not (torch.is_grad_enabled() and angles.requires_grad):
            fast = CPU_PORTION if self._place.device.type == "cpu" else math.inf
            portion = int(max(1, min(fast, budget) // self._each(program, measured, recorded=False)))
            return torch.cat([_plain(program, measured, part) for part in angles.split(portion)])
        each = self._each(program, measured, recorded=True)
        stride = 1
        if each > budget:
            stride = math.isqrt(max(1, len(program.steps) - 1)) + 1
            needed = state * (2 * stride + 5)
            if needed > self._memory():
                raise TooLargeError(
                    f"the gradient of {len(program.steps)} blocks on {program.n_qubits} qubits keeps "
                    f"{needed / 1e9:.3g} GB, {self.device} has {self._memory() / 1e9:.3g} GB"
                )
        run = functools.partial(_recorded, program, measured, stride)
        parts = angles.split(self._recordable(each))
        if each * len(angles) <= budget:
            return torch.cat([run(part) for part in parts])
        return torch.cat([checkpoint(run, part, use_reentrant=False) for part in parts])

    def _recordable(self, each: int) -> int:
        """Number of circuits recorded at once, where one takes `each` bytes: as memory holds, or the CPU's caches."""
        fast = CPU_TAPE if self._place.device.type == "cpu" else math.inf
        return int(max(1, min(fast, self._budget()) // each))

    def _each(self, program: Program, measured: Observables, *, recorded: bool) -> int:
        """Bytes that one circuit of a batch takes, with what its gradient keeps."""
        kept, small = program.numbers()
        numbers = 3 * (self._place.size**program.n_qubits + measured.gathered) + small
        return self._item() * (2 * numbers + small + kept if recorded else numbers)

    def _item(self) -> int:
        return (8 if self.noise is not None else 16) // (2 if self.precision == "single" else 1)

    def _budget(self) -> int:
        """Bytes that one batch may take."""
        if self._place.device.type == "cpu":
            return min(CPU_BUDGET, memory_limit() // 4)
        import torch

        device = self._place.device
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, and not in use
        return (torch.cuda.mem_get_info(device)[0] + held) // 2

    def _memory(self) -> int:
        if self._place.device.type == "cpu":
            return memory_limit()
        import torch

        return torch.cuda.get_device_properties(self._place.device).total_memory

    def _check_matmul(self) -> None:
        import torch

        if self.precision == "single" and torch.get_float32_matmul_precision() != "highest":
            raise QasError(
                "single precision needs torch.set_float32_matmul_precision('highest'), got "
                f"{torch.get_float32_matmul_precision()!r}"
            )

    # ------------------------------------------------------------------ what is remembered
    def check_size(self, n_qubits: int) -> None:
        """Refuse registers that do not fit.

        Raises:
            TooLargeError: with the memory it would need (three states) and the limit.
        """
        needed = 3.0 * self._item() * float(self._place.size) ** n_qubits
        if needed > self._memory():
            kind = "noisy" if self.noise is not None else "pure"
            raise TooLargeError(
                f"{n_qubits} {kind} qubits need {needed / 1e9:.3g} GB in the torch engine, {self.device} has "
                f"{self._memory() / 1e9:.3g} GB"
            )

    def _program(self, circuit: Circuit) -> Program:
        """The architecture on the engine's device. The circuit carries it along, and so do its copies.

        Raises:
            TooLargeError: more qubits than memory holds.
            CircuitError: more qubits than the noise describes, or a gate that it refuses.
        """
        held = circuit.__dict__.get("_torch_program")
        if held is not None and held[0] is self:
            return held[1]
        from qas.simulators._torch_sweep import Program

        self.check_size(circuit.n_qubits)
        if self.noise is not None:
            self.noise.check_register(circuit.n_qubits)
        program = Program(circuit, self.noise, self._place)
        circuit.__dict__["_torch_program"] = (self, program)
        return program

    def _observable(self, observables: Sequence[Hamiltonian]) -> Observables:
        """The operators as tensors; the last few are remembered."""
        from qas.simulators._torch_sweep import AmplitudeObservables, PauliObservables

        key = tuple(map(id, observables))
        with self._lock:
            found = self._observables.get(key)
            if found is None:
                kind = AmplitudeObservables if self.noise is None else PauliObservables
                found = self._observables[key] = (tuple(observables), kind(observables, self._place))
                if len(self._observables) > 8:
                    self._observables.popitem(last=False)
        return found[1]


def _plain(program: Program, measured: Observables, angles: Tensor) -> Tensor:
    return measured.values(program.state(program.maps(angles), len(angles)))


def _recorded(program: Program, measured: Observables, stride: int, angles: Tensor) -> Tensor:
    from qas.simulators._torch_sweep import Sweep

    return Sweep.apply(program, measured, stride, len(angles), *program.maps(angles))  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=8)
def _terms(hamiltonian: Hamiltonian) -> tuple[Hamiltonian, ...]:
    return tuple(Hamiltonian({string: 1.0}) for string in hamiltonian.strings)


def _checked_device(name: str) -> Any:
    """The torch device of that name.

    Raises:
        QasError: it is neither the CPU nor CUDA, or not there.
    """
    import torch

    there = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count() if torch.cuda.is_available() else 0))]
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise QasError(f"the torch engine runs on cpu or cuda, got {name!r}")
    if device.type == "cuda" and len(there) < 2 + (device.index or 0):
        version = f"torch {torch.__version__}"
        raise QasError(
            f"the torch engine was asked for {name}, which {version} does not see; there is {', '.join(there)}"
        )
    return device
