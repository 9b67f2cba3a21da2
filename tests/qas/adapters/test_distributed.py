"""Adapters whose parameters are copied or sharded over processes compute and train as in one process."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn

pytest.importorskip("peft")
pytest.importorskip("torch.distributed.fsdp")

pytestmark = [pytest.mark.peft, pytest.mark.skipif(not dist.is_gloo_available(), reason="needs gloo")]

SETTINGS: dict[str, dict[str, Any]] = {
    "frames": {},
    "frames of 4 bits": {"bits": 4},
    "rotation of 6 bits": {"form": "rotation", "bits": 6},
    "taylor": {"circuit": "taylor"},
}
PRELOADED = ["torch.distributed.fsdp", "torch.distributed.checkpoint.state_dict", "peft", "qas.adapters.hf"]
WORLD = 2
STEPS = 3


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.value, self.out = nn.Linear(16, 16), nn.Linear(16, 12), nn.Linear(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(torch.tanh(self.query(x))[..., :12] * self.value(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(Block() for _ in range(2)), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def adapted(**settings: Any) -> Any:
    from peft import get_peft_model

    from qas.adapters.hf import CircuitAdapterConfig

    torch.manual_seed(0)
    model = get_peft_model(Net(), CircuitAdapterConfig(rank=4, target_modules=["query", "value", "head"], **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)


def examples(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 16, generator=generator), torch.randint(8, (8,), generator=generator)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, share: slice = slice(None)) -> None:
    """On the whole batch, or on one process's share of it."""
    for step in steps:
        x, y = examples(step)
        nn.functional.cross_entropy(model(x[share]), y[share]).backward()
        optimizer.step()
        optimizer.zero_grad()


def whole(model: nn.Module) -> dict[str, Tensor]:
    return {
        name.removeprefix("module."): (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def close(found: dict[str, Tensor], wanted: dict[str, Tensor], atol: float = 1e-5) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(
            found[name], tensor, atol=atol, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


def sharded(model: Any) -> Any:
    """A unit of FSDP2 for each block, and one for the rest."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (WORLD,))
    for block in model.base_model.model.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


# ---------------------------------------------------------------------- what every process does
def work(rank: int, folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=WORLD)
    share = slice(rank, None, WORLD)
    for settings in SETTINGS.values():
        model = adapted(**settings)
        train(model, optimizer_of(model), range(STEPS))
        wanted = whole(model)
        copied = nn.parallel.DistributedDataParallel(adapted(**settings))
        train(copied, optimizer_of(copied), range(STEPS), share)
        close(whole(copied), wanted)
        _train_sharded(settings, share, wanted)
    _resume(rank, share, Path(folder))
    _exchanged()
    _half()
    dist.barrier()
    dist.destroy_process_group()


def _train_sharded(settings: dict[str, Any], share: slice, wanted: dict[str, Tensor]) -> None:
    """Each block makes its matrices once a step; those of the rest, which stays whole, come with the first block's."""
    from qas.adapters.circuit import MapBank

    calls: list[int] = []
    compute = MapBank._compute
    MapBank._compute = lambda self: (calls.append(1), compute(self))[1]  # type: ignore[method-assign]
    try:
        model = sharded(adapted(**settings))
        train(model, optimizer_of(model), range(STEPS), share)
    finally:
        MapBank._compute = compute  # type: ignore[method-assign]
    close(whole(model), wanted)
    assert len(calls) == (0 if settings.get("circuit") == "taylor" else 2 * STEPS)


def _resume(rank: int, share: slice, folder: Path) -> None:
    """A full state dict is stored as that of one process is, and training goes on where it was, few bits or not."""
    from peft import PeftModel, get_peft_model_state_dict
    from torch.distributed.checkpoint import state_dict as states

    from qas.errors import QasError

    model = sharded(adapted(bits=4))
    optimizer = optimizer_of(model)
    train(model, optimizer, range(2), share)
    with pytest.raises(QasError, match="a sharded adapter is stored from a full state dict, made by all processes"):
        get_peft_model_state_dict(model)
    with pytest.raises(QasError, match="the parameters of this layer are sharded"):
        model.base_model.model.blocks[0].query.get_delta_weight("default")
    options = states.StateDictOptions(full_state_dict=True, cpu_offload=True)
    full = states.get_model_state_dict(model, options=options)
    kept = copy.deepcopy(
        states.get_optimizer_state_dict(model, optimizer, options=options)
    )  # counts of steps are shared
    if rank == 0:
        alone = adapted(bits=4)
        alone.load_state_dict(full)
        packed, wanted = get_peft_model_state_dict(model, full), get_peft_model_state_dict(alone)
        assert packed.keys() == wanted.keys() and all(packed[name].equal(wanted[name]) for name in wanted)
        model.save_pretrained(str(folder / "adapter"), state_dict=full)
    dist.barrier()
    torch.manual_seed(0)
    again = sharded(PeftModel.from_pretrained(Net(), str(folder / "adapter"), is_trainable=True))
    exact = whole(model)
    assert max(float((tensor - exact[name]).abs().max()) for name, tensor in whole(again).items()) > 0.1
    resumed = optimizer_of(again)
    options = states.StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    states.set_optimizer_state_dict(again, resumed, kept, options=options)
    train(again, resumed, range(2, 4), share)
    train(model, optimizer, range(2, 4), share)
    close(whole(again), whole(model), atol=1e-7)


def _exchanged() -> None:
    """FSDP2 puts new content behind the same parameters; where a look at it would cost, nothing is kept for long."""
    from qas.adapters import circuit

    readable, circuit.readable = circuit.readable, lambda _: False  # type: ignore[assignment]
    try:
        model, twin, (x, _) = sharded(adapted()), adapted(), examples(0)
        with torch.no_grad():
            for _ in range(2):
                torch.testing.assert_close(model(x), twin(x), atol=1e-5, rtol=0)
                for one in (model, twin):
                    for parameter in one.parameters():
                        parameter.mul_(0.9)
    finally:
        circuit.readable = readable


def _half() -> None:
    """Blocks of half precision leave adapters alone that are units of their own."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    from qas.adapters.packed import PackedAdapter

    model, twin, (x, _) = adapted(), adapted(), examples(0)
    seen: list[torch.dtype] = []
    for module in model.modules():
        if isinstance(module, PackedAdapter):
            fully_shard(module)
            module.register_forward_pre_hook(lambda module, _: seen.append(module.angles.dtype))
    for block in model.base_model.model.blocks:
        fully_shard(block, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16, output_dtype=torch.float32))
    torch.testing.assert_close(fully_shard(model)(x), twin(x), atol=0.05, rtol=0)
    assert seen == [torch.float32] * 5


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    # A server that has imported everything once: the processes are its forks.
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    torch.multiprocessing.start_processes(work, (str(tmp_path),), nprocs=WORLD, start_method="forkserver")


# ---------------------------------------------------------------------- parameters that come and go
def test_parameters_that_are_there_only_while_a_module_runs() -> None:
    """As ZeRO-3 keeps them: empty, but for the forward and the backward pass of their own module."""
    from qas.adapters.packed import PackedAdapter

    for settings in SETTINGS.values():
        wanted = adapted(**settings)
        model = adapted(**settings)
        stores: list[tuple[nn.Parameter, Tensor]] = []
        for module in model.modules():
            if isinstance(module, PackedAdapter):
                own = [(p, p.data.clone()) for p in module.parameters()]
                stores += own
                for parameter, _ in own:
                    parameter.data = torch.empty(0)

                def fill(*_: Any, own: Any = own) -> None:
                    for parameter, held in own:
                        parameter.data = held

                def empty(*_: Any, own: Any = own) -> None:
                    for parameter, _ in own:
                        parameter.data = torch.empty(0)

                module.register_forward_pre_hook(fill)
                module.register_forward_hook(empty)
                module.register_full_backward_pre_hook(fill)
        for step in range(2):
            x, y = examples(step)
            for one in (model, wanted):
                one.zero_grad()
                nn.functional.cross_entropy(one(x.requires_grad_()), y).backward()
            for (parameter, held), other in zip(
                stores,
                [p for m in wanted.modules() if isinstance(m, PackedAdapter) for p in m.parameters()],
                strict=True,
            ):
                assert parameter.grad is not None and other.grad is not None
                torch.testing.assert_close(parameter.grad, other.grad, atol=1e-6, rtol=0)
                for values, gradient in ((held, parameter.grad), (other.data, other.grad)):
                    values.sub_(0.1 * gradient)
