"""Batches whose rows go through different adapters: matrices of many adapters at once, one product for all rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import torch
from torch import Tensor

from qas.adapters.base import traced
from qas.adapters.circuit import FrameAdapter, RotationAdapter, angles_of, values_of
from qas.adapters.maps import FusedRotation, Layers
from qas.adapters.packed import PackedAdapter
from qas.checks import whole_number
from qas.errors import QasError

BASE = "__base__"
"""Name of a row that goes through the frozen layers alone, as in peft."""
KEPT = 32
"""Adapters whose matrices stay from one batch to the next, unless told otherwise."""

Base = Callable[[Tensor], Tensor]
Adapters = tuple[Any, ...]
"""Those of one name, for each layer; None where it has none."""


# ---------------------------------------------------------------------- what rows of one form compute
@dataclass(frozen=True)
class _Form(ABC):
    """Adapters of one layer that differ in parameters only; the first axis of tensors counts rows of the batch."""

    sides: tuple[int, int]
    bits: int | None
    maps: Any
    """of their angles; None: the adapters make their matrices by themselves"""

    def before(self, x: Tensor, matrices: tuple[Tensor, ...]) -> Tensor:
        """What goes into the frozen layer."""
        return x

    def after(self, out: Tensor, x: Tensor, matrices: tuple[Tensor, ...], base: Base) -> Tensor:
        """What comes out, from the frozen layer's `out`, which may be overwritten where no gradient is made."""
        return out

    @abstractmethod
    def shapes(self) -> list[tuple[int, ...]]:
        """of the matrices."""

    @abstractmethod
    def matrices(self, made: tuple[Tensor, ...], values: Tensor | None) -> tuple[Tensor, ...]:
        """What one adapter computes with, from its frames or blocks and its singular values."""

    def block(self, made: tuple[Tensor, ...], values: Tensor | None) -> Tensor:
        """Its matrices, one after the other in a vector."""
        return torch.cat([matrix.reshape(-1) for matrix in self.matrices(made, values)])


@dataclass(frozen=True)
class _Frames(_Form):
    rank: int
    scale: float
    kind: type

    def shapes(self) -> list[tuple[int, ...]]:
        rows, columns = self.sides
        return [(columns, self.rank), (self.rank, rows), (self.rank,)]  # V on its side: the product is faster so

    def matrices(self, made: tuple[Tensor, ...], values: Tensor | None) -> tuple[Tensor, ...]:
        assert values is not None
        u, v = made
        return u, v.mT, self.scale * values

    def after(self, out: Tensor, x: Tensor, matrices: tuple[Tensor, ...], base: Base) -> Tensor:
        u, v, values = (m.to(x.dtype) for m in matrices)
        inner = torch.bmm(_tokens(x), v.mT) * values[:, None]
        flat = _tokens(out)
        if flat.dtype != inner.dtype:
            return out + torch.bmm(inner, u.mT).to(out.dtype).reshape(out.shape)
        if torch.is_grad_enabled():
            return torch.baddbmm(flat, inner, u.mT).reshape(out.shape)
        return flat.baddbmm_(inner, u.mT).reshape(out.shape)


@dataclass(frozen=True)
class _Turned(_Form):
    side: str
    size: int
    rotation: FusedRotation

    def shapes(self) -> list[tuple[int, ...]]:
        return [(size, size) for size in self.rotation.sizes]

    def matrices(self, made: tuple[Tensor, ...], values: Tensor | None) -> tuple[Tensor, ...]:
        return made

    def before(self, x: Tensor, matrices: tuple[Tensor, ...]) -> Tensor:
        return self._rotate(x, matrices) if self.side == "input" else x

    def after(self, out: Tensor, x: Tensor, matrices: tuple[Tensor, ...], base: Base) -> Tensor:
        if self.side == "input":
            return out
        plain = out - base(x.new_zeros((1,) * (x.ndim - 1) + x.shape[-1:]))
        return out + (self._rotate(plain, matrices) - plain)

    def _rotate(self, x: Tensor, matrices: tuple[Tensor, ...]) -> Tensor:
        features = _tokens(x[..., : self.size]).mT.contiguous()
        turned = torch.vmap(self.rotation.turned)(matrices, features).mT.contiguous().view(*x.shape[:-1], self.size)
        return turned if self.size == x.shape[-1] else torch.cat([turned, x[..., self.size :]], dim=-1)


def _tokens(x: Tensor) -> Tensor:
    """Shape (rows, tokens, features)."""
    return x.reshape(len(x), -1, x.shape[-1])


def form_of(adapter: Any) -> _Form:
    """What rows compute with such an adapter."""
    common = (adapter.in_features, adapter.out_features), adapter.bits, getattr(adapter, "maps", None)
    if isinstance(adapter, RotationAdapter):
        return _Turned(*common, adapter.side, adapter.size, adapter.rotation)
    assert isinstance(adapter, FrameAdapter)
    return _Frames(*common, adapter.rank, adapter.scale, type(adapter))


# ---------------------------------------------------------------------- what users compute with
def made_of(forms: Sequence[_Form], angles: Sequence[Tensor | None]) -> list[tuple[Tensor, ...]]:
    """Frames or blocks of circuits from the angles of each, computed in common batches; none where angles are None."""
    found: list[tuple[Tensor, ...]] = [()] * len(forms)
    alike: dict[tuple[Any, ...], list[int]] = {}
    for k, own in enumerate(angles):
        if own is not None:
            alike.setdefault((own.dtype, own.device, own.requires_grad), []).append(k)
    for numbers in alike.values():
        made = Layers([forms[k].maps for k in numbers])(cast("list[Tensor]", [angles[k] for k in numbers]))
        for k, matrices in zip(numbers, made, strict=True):
            found[k] = matrices
    return found


@dataclass(frozen=True)
class User:
    """One name: what its rows compute with in each layer, and what that was made from."""

    source: Any
    """equal to another one as long as the same would be made of it; None: serves one batch only"""
    parts: Sequence[tuple[_Form, Tensor] | None]
    """form and `_Form.block` for each layer, None where rows go through it unchanged"""


class UserCache(ABC):
    """Makes what users compute with, and keeps that of the names used last."""

    def __init__(self, kept: int = KEPT) -> None:
        self.kept = kept
        self._users: dict[str, User] = {}
        """those used last at the end"""
        self._forms: dict[_Form, _Form] = {}
        """one object for all that are equal"""

    @property
    def kept(self) -> int:
        """How many names' matrices stay; those of a batch are there together whatever their number."""
        return self._kept

    @kept.setter
    def kept(self, kept: int) -> None:
        self._kept = whole_number("the number of adapters kept", kept, 0)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_users": {}, "_forms": {}}

    @property
    def bytes_held(self) -> int:
        """Memory of the matrices that are kept."""
        return sum(part[1].nbytes for user in list(self._users.values()) for part in user.parts if part is not None)

    def forget(self, name: str) -> None:
        """Free the matrices of a name that will not come again; a batch that is being made may bring them back."""
        self._users.pop(name, None)

    @abstractmethod
    def _made(self, late: Mapping[str, Any]) -> dict[str, User]:
        """Users from their sources, for all of them at once."""

    def _served(self, sources: Mapping[str, Any]) -> dict[str, User]:
        """Users from their sources, kept or made now."""
        held = {name: user for name in sources if (user := self._users.get(name)) is not None}
        found = {name: user for name, user in held.items() if user.source == sources[name]}
        if late := {name: source for name, source in sources.items() if name not in found}:
            found |= self._made(late)
        for name, user in found.items():
            self._users.pop(name, None)
            if user.source is not None:
                self._users[name] = user
        for name in list(self._users)[: max(0, len(self._users) - self._kept)]:
            self._users.pop(name, None)  # another thread may have
        return found

    def _form(self, adapter: Any) -> _Form:
        form = form_of(adapter)
        return self._forms.setdefault(form, form)


# ---------------------------------------------------------------------- users whose adapters are modules
class _Modules:
    """Adapters of one name, and all their parameters at this time in a vector, None where no more is to be kept."""

    def __init__(self, adapters: Adapters) -> None:
        self.adapters = adapters
        self.present = [adapter for adapter in adapters if adapter is not None]
        trained = torch.is_grad_enabled() and any(p.requires_grad for a in self.present for p in a.parameters())
        self.scales = [getattr(adapter, "scale", None) for adapter in self.present]
        self.state = None if traced() or trained else self._state()

    def _state(self) -> Tensor:
        for adapter in {id(adapter.inbox): adapter for adapter in self.present}.values():
            adapter.collect()
        both = [tensor for adapter in self.present for tensor in (adapter.angles, adapter.values)]
        parts = [tensor.detach() for tensor in both if tensor is not None]
        return torch.cat([part.to(parts[0].device) for part in parts])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Modules) or (self.adapters, self.scales) != (other.adapters, other.scales):
            return False
        old, new = self.state, other.state
        if old is None or new is None or (old.device, old.dtype) != (new.device, new.dtype):
            return False
        return torch.equal(old, new)

    __hash__ = None  # type: ignore[assignment]


class MixedBank(UserCache):
    """Matrices of adapters that rows of batches go through; those of the names used last stay.

    Where gradients are wanted, or torch follows what is computed, matrices are made anew for each batch.
    """

    def rows(self, names: Iterable[str], tables: Sequence[Mapping[str, Any]]) -> Rows:
        """What the rows of a batch go through.

        Args:
            names: of the adapter of each row, or `BASE`.
            tables: the adapters of each layer by name; a name may be missing in some.

        Raises:
            QasError: a name that no layer knows, or adapters that are no circuits.
        """
        names = list(names)
        users = {}
        for name in dict.fromkeys(names):
            if name != BASE:
                users[name] = tuple(own[name] if name in own else None for own in tables)  # noqa: SIM401 - no get
        unknown = [str(name) for name, adapters in users.items() if not any(a is not None for a in adapters)]
        if unknown:
            known = ", ".join(dict.fromkeys(name for table in tables for name in table))
            raise QasError(
                f"Trying to infer with non-existing adapter(s): {', '.join(sorted(unknown))}; there are {known}"
            )
        for name, adapters in users.items():
            other = next((a for a in adapters if not isinstance(a, PackedAdapter | None)), None)
            if other is not None:
                raise QasError(f"rows of a batch go through circuits, got {type(other).__name__} for {name}")
        found = self._served({name: _Modules(adapters) for name, adapters in users.items()})
        return Rows(names, {id(table): k for k, table in enumerate(tables)}, found)

    def _made(self, late: Mapping[str, _Modules]) -> dict[str, User]:
        found = {}
        for lasting in (False, True):
            group = {name: own for name, own in late.items() if (own.state is not None) == lasting}
            with torch.set_grad_enabled(torch.is_grad_enabled() and not lasting):
                made = iter(self._parts([adapter for own in group.values() for adapter in own.present]))
            for name, own in group.items():
                parts = [None if adapter is None else next(made) for adapter in own.adapters]
                found[name] = User(own if lasting else None, parts)
        return found

    def _parts(self, adapters: Sequence[Any]) -> list[tuple[_Form, Tensor]]:
        forms = [self._form(adapter) for adapter in adapters]
        circuits = [adapter for adapter, form in zip(adapters, forms, strict=True) if form.maps is not None]
        angles = iter(angles_of(circuits))
        made = made_of(forms, [None if form.maps is None else next(angles) for form in forms])
        each = zip(adapters, forms, made, values_of(adapters), strict=True)
        return [(form, form.block(own or adapter.frames(), values)) for adapter, form, own, values in each]


# ---------------------------------------------------------------------- rows of a batch
@dataclass(frozen=True)
class _Part:
    """Rows of a batch whose adapters in one layer have one form."""

    form: _Form
    rows: Tensor | None
    """their numbers; None: all, in order"""
    matrices: tuple[Tensor, ...]

    def of(self, x: Tensor) -> Tensor:
        return x if self.rows is None else x.index_select(0, self.rows)

    def into(self, x: Tensor, own: Tensor) -> Tensor:
        return own if self.rows is None else x.index_copy(0, self.rows, own)


class Rows(Sequence[str]):
    """Names of the adapters of a batch, one for each row, and what they compute with."""

    def __init__(self, names: Sequence[str], places: Mapping[int, int | None], users: Mapping[str, User]) -> None:
        self._names, self._places, self._users = list(names), places, users

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: Any) -> Any:
        return self._names[row]

    def repeated(self, times: int) -> Rows:
        """Each row several times in succession, as a beam search lays them out."""
        return Rows([name for name in self._names for _ in range(times)], self._places, self._users)

    def through(self, table: Mapping[str, Any], x: Tensor, base: Base) -> Tensor:
        """The layer's output, each row through the adapter of its name.

        Args:
            table: the adapters of the layer by name, one of those given to `MixedBank.rows`.
            x: inputs, shape (rows, ..., in_features).
            base: the frozen layer.

        Raises:
            QasError: another number of rows, or a layer that they were not made for.
        """
        if not x.ndim or len(x) != len(self):
            count = len(x) if x.ndim else 0
            raise QasError(
                "Length of `adapter_names` should be the same as the number of inputs, but got "
                f"{len(self)} and {count} respectively."
            )
        if id(table) not in self._places:
            raise QasError(
                "rows of a batch are made for the layers of one model, got a layer of another, or one adapted later"
            )
        place = self._places[id(table)]
        parts = [] if place is None else self._parts(place, x.device)
        for part in parts:
            rows = part.of(x)
            turned = part.form.before(rows, part.matrices)
            if turned is not rows:
                x = part.into(x, turned)
        out = base(x)
        for part in parts:
            rows = part.of(out)
            changed = part.form.after(rows, part.of(x), part.matrices, base)
            if changed is not rows:
                out = part.into(out, changed)
        return out

    def _parts(self, layer: int, device: torch.device) -> list[_Part]:
        alike: dict[int, tuple[_Form, list[int], list[Tensor]]] = {}
        for row, name in enumerate(self._names):
            part = self._users[name].parts[layer] if name in self._users else None
            if part is not None:
                form, block = part
                _, rows, own = alike.setdefault(id(form), (form, [], []))
                rows.append(row)
                own.append(block)
        found = []
        for form, rows, own in alike.values():
            blocks = torch.stack(own).to(device)
            sizes = [prod(shape) for shape in form.shapes()]
            matrices = [
                part.reshape(len(rows), *shape)
                for part, shape in zip(blocks.split(sizes, 1), form.shapes(), strict=True)
            ]
            whole = len(rows) == len(self)
            found.append(_Part(form, None if whole else torch.tensor(rows, device=device), tuple(matrices)))
        return found
