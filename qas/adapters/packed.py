"""What adapters store: float32 tensors, or with few bits one uint8 tensor, for a layer or for a whole model."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import zlib
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from qas.adapters.base import Adapter, check_tensors, traced
from qas.adapters.latents import keep_latents
from qas.adapters.quantize import (
    angle_codes,
    angles_from_codes,
    checked_bits,
    half_codes,
    pack_bits,
    packed_bytes,
    quantize_angles,
    to_half,
    unpack_bits,
)
from qas.errors import QasError

HEADER_BYTES = 12
"""Of a joint form: 8 of a digest of the layers, 4 of a checksum."""


class PackedAdapter(Adapter):
    """Angles (and singular values) with a stored form: float32 tensors, or with bits one uint8 tensor.

    The uint8 tensor holds lowest angle and step as float16, the singular values as float16, and the codes of the
    angles, several to a byte. Training moves exact values behind the codes; they stay with the state of the optimizer
    (`qas.adapters.latents`).
    """

    inbox: Inbox | None = None
    place = ""
    """the name of its layer there"""

    def __init__(self, in_features: int, out_features: int, start: Tensor, n_values: int, bits: int | None) -> None:
        super().__init__(in_features, out_features)
        self.bits = None if bits is None else checked_bits(bits)
        self.angles = nn.Parameter(start)
        self.values = nn.Parameter(torch.zeros(n_values)) if n_values else None
        self.n_angles, self.n_values = len(start), n_values
        if self.bits is not None:
            keep_latents(self)

    def __getstate__(self) -> dict[str, Any]:
        self.collect()  # a copy of one layer has no place for what waits for all
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.bits is not None:
            keep_latents(self)
        if self.inbox is not None:
            self.inbox.join(self.place, self)

    def __copy__(self) -> Self:
        """Shares parameters, inbox and bank, which know the original only, as a replica of DataParallel does."""
        twin = self.__class__.__new__(self.__class__)
        twin.__dict__.update(self.__dict__)
        return twin

    def train(self, mode: bool = True) -> Self:
        """As in torch; often called after loading, and `torch.compile` looks into no inbox."""
        self.collect()
        return super().train(mode)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **named: Any) -> None:
        with contextlib.suppress(QasError):  # what waits is older
            self.collect()
        super()._load_from_state_dict(state_dict, prefix, *args, **named)
        if f"{prefix}packed" in state_dict:
            self.collect()

    def _save_to_state_dict(self, *args: Any, **named: Any) -> None:
        with contextlib.suppress(QasError):  # bytes that are refused go along, to be refused where they are loaded
            self.collect()
        super()._save_to_state_dict(*args, **named)

    def collect(self) -> None:
        """Take over what was laid into the inbox.

        Raises:
            QasError: bytes of other layers, damaged ones, or parameters that are sharded.
        """
        if self.inbox is not None:
            self.inbox.collect()

    @property
    def is_whole(self) -> bool:
        """Whether all angles are here: not so between the passes of a module whose parameters are sharded."""
        return not is_sharded(self.angles) and len(self.angles) == self.n_angles

    # ------------------------------------------------------------------ what the layer computes with
    def wide_angles(self) -> Tensor:
        """The angles before they are quantized, float32 or float64."""
        self.collect()
        return _wide(self.angles)

    def wide_values(self) -> Tensor:
        """The singular values before they are quantized, float32 or float64."""
        assert self.values is not None
        self.collect()
        return _wide(self.values)

    def current_angles(self) -> Tensor:
        """Angles that the layer computes with, radians, float32 or float64; quantized where `bits` are set."""
        self.collect()
        return self.rounded("angles", self.angles)

    def current_values(self) -> Tensor:
        """Singular values that the layer computes with, before the scale."""
        assert self.values is not None
        self.collect()
        return self.rounded("values", self.values)

    def rounded(self, name: str, exact: Tensor) -> Tensor:
        """What stands for `exact` angles or values in the layer and in its stored form, float32 or float64."""
        exact = _wide(exact)
        if self.bits is None or not len(exact):
            return exact
        return quantize_angles(exact, self.bits) if name == "angles" else to_half(exact)

    # ------------------------------------------------------------------ stored form
    @property
    def stored_bits(self) -> int:
        if self.bits is None:
            return 32 * (self.n_angles + self.n_values)
        return self.bits * self.n_angles + 32 + 16 * self.n_values

    @property
    def meaning(self) -> str:
        """What stored bytes stand for: adapters that would read each other's as something else have another one."""
        return f"{self.bits} {self.n_angles} {self.n_values}"

    @property
    def packed_size(self) -> int:
        """Bytes of the uint8 tensor of few-bit angles."""
        assert self.bits is not None
        return 4 + 2 * self.n_values + packed_bytes(self.n_angles, self.bits)

    @torch.no_grad()
    def pack(self, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """As everywhere; or the stored form of other parameters, a `state` by name, of the same shapes.

        Raises:
            QasError: NaN or infinity, or parameters of which other processes hold the rest.
        """
        self.collect()
        parts = dict(self.named_parameters()) if state is None else state
        found = {}
        for name in ("angles", "values") if self.n_values else ("angles",):
            found[name] = _gathered(parts[name]).detach().to("cpu", torch.float32).clone()
            if not torch.isfinite(found[name]).all():
                raise QasError(f"{name} of an adapter must be finite to be stored, got NaN or infinity")
        if self.bits is None:
            return found
        pieces = [torch.zeros(4, dtype=torch.uint8)]
        codes = torch.zeros(0, dtype=torch.uint8)
        if self.n_angles:
            codes, low, step = angle_codes(found["angles"], self.bits)
            pieces = [torch.stack([low, step]).view(torch.uint8)]
        if "values" in found:
            pieces.append(half_codes(found["values"]).view(torch.uint8))
        return {"packed": torch.cat([*pieces, pack_bits(codes, self.bits)])}

    def unpack(self, tensors: Mapping[str, Tensor]) -> None:
        self.take(self.unpacked(tensors))

    def unpacked(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters that `pack` returned `tensors` of, by name, float32.

        Raises:
            QasError: as for `unpack`.
        """
        if self.bits is None:
            names = {"angles": self.n_angles} | ({"values": self.n_values} if self.n_values else {})
            check_tensors(tensors, {name: ((count,), torch.float32) for name, count in names.items()})
            return dict(tensors)
        check_tensors(tensors, {"packed": ((self.packed_size,), torch.uint8)})
        angles, values = self.decoded(tensors["packed"])
        return {"angles": angles} | ({"values": values} if self.n_values else {})

    @torch.no_grad()
    def take(self, values: Mapping[str, Tensor]) -> None:
        """Go on from other parameters, given by name."""
        for name, tensor in values.items():
            getattr(self, name).copy_(tensor)

    def decoded(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """What uint8 tensors stand for: angles and singular values, float32.

        Args:
            packed: of one or more adapters that differ in these only, shape (..., packed_size).

        Returns:
            Shapes (..., n_angles) and (..., n_values).

        Raises:
            QasError: a value that is not finite, or unused bits that are not 0.
        """
        assert self.bits is not None
        # Views of another type need aligned memory, which a part of a larger tensor need not have.
        codes = 4 + 2 * self.n_values
        halves = packed[..., :codes].clone(memory_format=torch.contiguous_format).view(torch.float16)
        if not torch.isfinite(halves).all():
            raise QasError("a stored adapter must be finite, got NaN or infinity")
        low, step, values = halves.split((1, 1, self.n_values), dim=-1)
        return angles_from_codes(unpack_bits(packed[..., codes:], self.bits, self.n_angles), low, step), values.float()


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def is_sharded(tensor: Tensor) -> bool:
    """Whether a parameter is only one process's part, as FSDP2 keeps it outside of its module's forward pass."""
    return hasattr(tensor, "device_mesh")


def _gathered(tensor: Tensor) -> Tensor:
    """Refuses a part of a parameter: bringing all together needs every process, and one alone may be here."""
    if is_sharded(tensor):
        raise QasError(
            "a sharded adapter is stored from a full state dict, made by all processes with "
            "torch.distributed.checkpoint.state_dict.get_model_state_dict and given as state_dict"
        )
    return tensor


# ---------------------------------------------------------------------- a whole model
class JointForm:
    """Few-bit adapters of one model as one uint8 tensor.

    A digest of the layers' names and of what their bytes stand for (`PackedAdapter.meaning`), a checksum of the rest
    (CRC-32), then what each layer stores, in the order of their names.

    Args:
        adapters: by the name of their layer, all with bits.
    """

    def __init__(self, adapters: Mapping[str, PackedAdapter]) -> None:
        self.sizes = {name: adapters[name].packed_size for name in sorted(adapters)}
        listed = "".join(f"{name} {adapters[name].meaning}\n" for name in self.sizes)
        self._digest = hashlib.blake2b(listed.encode(), digest_size=8, person=b"qas adapters 2").digest()

    @property
    def size(self) -> int:
        """Bytes."""
        return HEADER_BYTES + sum(self.sizes.values())

    def join(self, forms: Mapping[str, Tensor]) -> Tensor:
        """What each layer stores, in one tensor."""
        body = torch.cat([forms[name] for name in self.sizes])
        header = self._digest + zlib.crc32(body.numpy().tobytes()).to_bytes(4, "little")
        return torch.cat([torch.frombuffer(bytearray(header), dtype=torch.uint8), body])

    def split(self, joint: Tensor) -> dict[str, Tensor]:
        """The inverse of `join`.

        Raises:
            QasError: another type or shape, other layers, or damaged bytes.
        """
        rule = f"the angles of {len(self.sizes)} layers are {self.size} bytes of type torch.uint8"
        if joint.dtype != torch.uint8 or joint.shape != (self.size,):
            raise QasError(f"{rule}, got shape {tuple(joint.shape)} and type {joint.dtype}")
        header, body = joint[:HEADER_BYTES].numpy().tobytes(), joint[HEADER_BYTES:].contiguous()
        if header[:8] != self._digest:
            raise QasError(f"{rule}; these are of layers with other names or settings")
        if header[8:] != zlib.crc32(body.numpy().tobytes()).to_bytes(4, "little"):
            raise QasError(f"{rule}; these are damaged: their checksum is another")
        return dict(zip(self.sizes, body.split(list(self.sizes.values())), strict=True))


class Inbox:
    """A buffer of the first of some layers, where whoever loads tensors by name finds a place for their stored form.

    What ``load_state_dict`` lays there is taken over at once, what others do at the next use, copy or change of mode;
    then an empty tensor takes its place. What is refused stays, and is refused again: computing without it would be
    silent. A copy serves the adapters that are copied with it.

    Args:
        adapters: by the name of their layer, all with bits; they get this inbox.
        joint: whether the stored form is a `JointForm`; else it is that of the only adapter.
    """

    def __init__(self, adapters: Mapping[str, PackedAdapter], joint: bool = True) -> None:
        self._form = JointForm(adapters) if joint else None
        self._first = min(adapters)
        self._adapters: dict[str, PackedAdapter] = {}
        self._seen: tuple[Tensor | None, int] = None, 0
        """the buffer when it was empty; held, so that no other tensor can get its place in memory and seem the same"""
        first = adapters[self._first]
        size = first.packed_size if self._form is None else self._form.size
        first.register_buffer("packed", torch.zeros(size, dtype=torch.uint8, device=first.angles.device))
        for name, adapter in adapters.items():
            self.join(name, adapter)
        self._seen = first.get_buffer("packed"), version_of(first.get_buffer("packed"))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_adapters": {}, "_seen": (None, 0)}

    def join(self, name: str, adapter: PackedAdapter) -> None:
        """Take over for this adapter too, of the layer `name`."""
        adapter.inbox, adapter.place = self, name
        self._adapters[name] = adapter

    def collect(self) -> None:
        """Take over a stored form that was laid here."""
        if self._first not in self._adapters or traced() or not self._changed():
            return
        with _COLLECTING:
            if self._changed():  # no other thread has taken it over meanwhile
                self._read()

    def _changed(self) -> bool:
        buffer = self._adapters[self._first].get_buffer("packed")
        seen, version = self._seen
        return buffer.is_inference() or seen is not buffer or version != version_of(buffer)

    def _read(self) -> None:
        buffer = self._adapters[self._first].get_buffer("packed")
        if buffer.is_meta or any(adapter.angles.is_meta for adapter in self._adapters.values()):
            return  # until there is something to write to
        if bool(buffer.any()):
            if not all(adapter.is_whole for adapter in self._adapters.values()):
                raise QasError("few-bit adapters are loaded before their parameters are sharded")
            held = buffer.cpu()
            forms = dict.fromkeys(self._adapters, held) if self._form is None else self._form.split(held)
            read = {name: adapter.unpacked({"packed": forms[name]}) for name, adapter in self._adapters.items()}
            for name, adapter in self._adapters.items():
                adapter.take(read[name])
            with torch.inference_mode(False):  # another place, as that tensor may be the caller's own
                buffer = torch.zeros_like(buffer)
            self._adapters[self._first].packed = buffer
        self._seen = buffer, version_of(buffer)


_COLLECTING = threading.RLock()
"""One thread reads an inbox: another one would find it half emptied."""


def version_of(tensor: Tensor) -> int:
    """How often a tensor was changed in place; 0 for one made in inference mode, which does not count."""
    return 0 if tensor.is_inference() else tensor._version
