"""Few-bit adapters of many users on one model: all as packed bytes, those used last as matrices.

A module for each user and layer would take longer to make, and more memory, than what is in it. Here a model carries
one adapter, the pattern of all; a batch is given the matrices of its users, computed from their bytes for all layers
and users at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from qas.adapters.hf import CircuitAdapterConfig, CircuitLayer, packed_adapters, told_settings
from qas.adapters.mixed import BASE, KEPT, Rows, User, UserCache, made_of
from qas.adapters.packed import HEADER_BYTES, JointForm
from qas.checks import shortened
from qas.errors import QasError
from qas.files import new_folder, read_tensors, write_atomic, write_json

CONFIG, WEIGHTS = "adapter_config.json", "adapters.safetensors"


class AdapterStore(UserCache, MutableMapping[str, bytes]):
    """Packed adapters by the name of their user, served in batches that mix users::

        store = AdapterStore(model)              # a PeftModel with one few-bit circuit adapter
        store["alice"] = store.packed()          # what the model's own adapter holds now
        store["bob"] = packed                    # or the bytes of the one tensor in his adapter_model.safetensors
        model(**inputs, adapter_names=store.rows(["alice", "bob", "alice"]))

    All have the settings of the model's adapter: they differ in angles and singular values. A head that is trained as
    a whole, or biases, are not theirs, stay those of the model, and are not saved with them.

    Args:
        model: what `get_peft_model` returned for a `CircuitAdapterConfig` with ``bits``, or any model with such layers.
        adapter_name: the adapter that is the pattern.
        kept: users whose matrices stay from one batch to the next.

    Raises:
        QasError: no such adapter, one that is not packed, or the taylor map.
    """

    def __init__(self, model: nn.Module, adapter_name: str = "default", *, kept: int = KEPT) -> None:
        super().__init__(kept)
        named = packed_adapters(model, adapter_name)
        if not named:
            raise QasError(f"a store needs a model with the circuit adapter {adapter_name!r}, got none")
        if any(not hasattr(adapter, "maps") or adapter.bits is None for adapter in named.values()):
            raise QasError("a store holds circuits of few bits: the adapter's settings need bits, and no taylor map")
        self._joint = JointForm(named)
        self._pattern: list[Any] = [named[name] for name in self._joint.sizes]
        tables = [m.qas_circuit_adapters for m in model.modules() if isinstance(m, CircuitLayer)]
        numbers = {id(adapter): k for k, adapter in enumerate(self._pattern)}
        self._tables = [
            (table, numbers[id(table[adapter_name])] if adapter_name in table else None) for table in tables
        ]
        """of all adapted layers, with their numbers among those of the pattern; None: rows go through them unchanged"""
        self.model, self.adapter_name = model, adapter_name
        alike: dict[tuple[int, int, int], list[int]] = {}
        for number, adapter in enumerate(self._pattern):
            alike.setdefault((adapter.bits, adapter.n_angles, adapter.n_values), []).append(number)
        self._alike = list(alike.values())
        """numbers of layers whose bytes are read in the same way"""
        self._bytes: dict[str, bytes] = {}

    # ------------------------------------------------------------------ bytes
    @property
    def size(self) -> int:
        """Bytes of one user."""
        return self._joint.size

    def packed(self) -> bytes:
        """What the model's own adapter holds now.

        Raises:
            QasError: NaN or infinity in it.
        """
        forms = {name: a.pack()["packed"] for name, a in zip(self._joint.sizes, self._pattern, strict=True)}
        return self._joint.join(forms).numpy().tobytes()

    def __getitem__(self, user: str) -> bytes:
        return self._bytes[user]

    def __setitem__(self, user: str, packed: bytes) -> None:
        if not isinstance(user, str) or user in ("", BASE, "__metadata__"):
            raise QasError(f"users are named by text other than {BASE}, got {shortened(user)}")
        if not isinstance(packed, bytes | bytearray) or len(packed) != self.size:
            got = f"{len(packed)} bytes" if isinstance(packed, bytes | bytearray) else type(packed).__name__
            raise QasError(f"an adapter of this model is {self.size} bytes, got {got} for {shortened(user)}")
        try:
            row = _rows([packed])
            self._joint.split(row[0])
            self._decoded(row)
        except QasError as error:
            raise QasError(f"the adapter of {shortened(user)} does not fit: {error}") from None
        self._bytes[user] = bytes(packed)

    def __delitem__(self, user: str) -> None:
        del self._bytes[user]
        self.forget(user)

    def __iter__(self) -> Iterator[str]:
        return iter(self._bytes)

    def __len__(self) -> int:
        return len(self._bytes)

    @property
    def bytes_packed(self) -> int:
        """Of all users."""
        return self.size * len(self)

    # ------------------------------------------------------------------ batches
    @torch.no_grad()
    def rows(self, users: Iterable[str]) -> Rows:
        """What the rows of a batch go through, for ``adapter_names=``.

        Args:
            users: the user of each row, or ``"__base__"`` for the model without adapter.

        Raises:
            QasError: an unknown user.
        """
        users = list(users)
        wanted = {user: self._bytes.get(user) for user in dict.fromkeys(users) if user != BASE}
        unknown = [user for user, packed in wanted.items() if packed is None]
        if unknown:
            raise QasError(f"the store has {len(self)} users, and not {shortened(unknown[0])}")
        found = self._served(wanted)
        return Rows(users, {id(table): k for table, k in self._tables}, found)

    def _made(self, late: Mapping[str, bytes]) -> dict[str, User]:
        count, device = len(self._pattern), self._pattern[0].angles.device
        forms = [self._form(adapter) for adapter in self._pattern]
        angles, values = zip(*self._decoded(_rows(late.values()).to(device)), strict=True)
        made = made_of(forms * len(late), [own[k] for k in range(len(late)) for own in angles])
        found = {}
        for k, (user, packed) in enumerate(late.items()):
            own = zip(forms, made[k * count : (k + 1) * count], values, strict=True)
            found[user] = User(packed, [(form, form.block(frames, each[k])) for form, frames, each in own])
        return found

    def _decoded(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Angles and singular values of each layer, one row for each user.

        Raises:
            QasError: bytes that no adapter can have.
        """
        parts = rows[:, HEADER_BYTES:].split(list(self._joint.sizes.values()), dim=1)
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for numbers in self._alike:
            both = self._pattern[numbers[0]].decoded(torch.stack([parts[number] for number in numbers]))
            found |= zip(numbers, zip(*both, strict=True), strict=True)
        return [found[number] for number in range(len(parts))]

    # ------------------------------------------------------------------ files
    def save(self, folder: str | os.PathLike[str]) -> int:
        """Write all users to a new or empty folder: ``adapter_config.json``, which is peft's, and
        ``adapters.safetensors``, the bytes of each user under his name. Heads and biases are not in it.

        Returns:
            Bytes of both files.

        Raises:
            RunError: the folder holds files already, or cannot be written.
        """
        from safetensors.torch import save

        told = told_settings(cast(Any, self.model).peft_config[self.adapter_name], inference_mode=True)
        path = Path(folder)
        with new_folder(path, "the adapters"):
            write_json(path / CONFIG, told)
            write_atomic(path / WEIGHTS, save({user: _rows([packed])[0] for user, packed in self.items()}))
        return sum((path / name).stat().st_size for name in (CONFIG, WEIGHTS))

    @classmethod
    def load(cls, model: nn.Module, folder: str | os.PathLike[str], *, kept: int = KEPT) -> AdapterStore:
        """The users of a folder on their base model, which gets the adapter that is their pattern; heads are its own.

        Raises:
            QasError: a folder that is missing or damaged, or adapters that do not fit the model.
        """
        from peft import get_peft_model

        path = Path(folder)
        tensors = read_tensors(path / WEIGHTS, "the adapters")
        config = CircuitAdapterConfig.from_pretrained(str(path))
        store = cls(get_peft_model(cast(Any, model), config).eval(), kept=kept)
        store.update({user: tensors[user].tobytes() for user in sorted(tensors)})
        return store


def _rows(packed: Iterable[bytes]) -> Tensor:
    """Bytes of several users, uint8, one row each."""
    return torch.stack([torch.frombuffer(bytearray(own), dtype=torch.uint8) for own in packed])
