"""Exact resumption of few-bit training: the values behind the codes stay with the state of the optimizer.

A few-bit adapter is stored as codes, so a checkpoint of it alone has lost what training has added up below one step of
the grid. After each step of a torch optimizer the exact parameters are therefore put among what it keeps of them
(beside the momenta), where its state dict carries them into any checkpoint; they share the parameters' memory. Before
the first step after such a state was loaded they come back, if they round to what the layer computes with: until then
that is all that counts, as gradients go straight through the rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

if TYPE_CHECKING:
    from qas.adapters.packed import PackedAdapter

KEY = "latent"
"""Of the exact values in what an optimizer keeps of a parameter."""

_watched: WeakKeyDictionary[PackedAdapter, dict[str, Tensor]] = WeakKeyDictionary()
"""Few-bit adapters and what was put into optimizers for them."""


def keep_latents(adapter: PackedAdapter) -> None:
    """From now on the exact values of this adapter stay with the state of its optimizer."""
    _watched[adapter] = {}
    _hook()


@cache
def _hook() -> None:
    register_optimizer_step_pre_hook(_restore)
    register_optimizer_step_post_hook(_put)


def _optimized(optimizer: Optimizer) -> Iterator[tuple[PackedAdapter, str, Tensor]]:
    """(adapter, name, parameter) of what the optimizer moves."""
    moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for adapter in list(_watched):
        for name, parameter in (("angles", adapter.angles), ("values", adapter.values)):
            if parameter is not None and id(parameter) in moved:
                yield adapter, name, parameter


@torch.no_grad()
def _restore(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for adapter, name, parameter in _optimized(optimizer):
        exact = optimizer.state.get(parameter, {}).get(KEY)
        if exact is None or exact is _watched[adapter].get(name) or exact.shape != parameter.shape:
            continue
        if torch.equal(*(adapter.rounded(name, _whole(values)) for values in (exact, parameter))):
            parameter.copy_(exact)


def _put(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for adapter, name, parameter in _optimized(optimizer):
        if parameter.grad is not None:  # others have no state yet, and must not seem to have one
            optimizer.state[parameter][KEY] = _watched[adapter][name] = parameter.detach()


def _whole(values: Tensor) -> Tensor:
    """All entries of a parameter of which this process may hold a part only."""
    return values.full_tensor() if hasattr(values, "full_tensor") else values
