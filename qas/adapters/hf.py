"""Circuit adapters in Hugging Face peft: importing this module registers them.

peft keeps its methods in an enumeration that cannot be extended and in four dictionaries that can; everything that
touches those is in `register`.
"""

from __future__ import annotations

import copy
import enum
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D

from qas.adapters._peft import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
    SAFETENSORS_WEIGHTS_NAME,
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    WEIGHTS_NAME,
    AuxiliaryTrainingWrapper,
    BaseTuner,
    BaseTunerLayer,
    PeftConfig,
    _maybe_include_all_linear_layers,
    check_adapters_to_merge,
    get_pattern_key,
)
from qas.adapters.architecture import Architecture, Architectures, load_architecture
from qas.adapters.base import Adapter, DeltaAdapter
from qas.adapters.circuit import CircuitAdapter, RotationAdapter, TaylorAdapter, share_maps
from qas.adapters.mixed import MixedBank, Rows
from qas.adapters.packed import Inbox, JointForm, PackedAdapter
from qas.adapters.quantize import checked_bits
from qas.checks import whole_number
from qas.errors import QasError

SCHEMA_VERSION = 2
"""Of the adapter's config; a newer one is refused. In the files of version 1 each layer has a tensor of its own."""
FORMS = ("frames", "rotation")
START = 0.2
"""Standard deviation of singular values, or of a rotation's angles in radians, of a random start."""
MERGEABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Weights that adapters can be merged with; others are codes of a quantized layer."""


class CircuitPeftType(str, enum.Enum):  # noqa: UP042 - peft's status reads what stands behind the dot of str()
    """The one value that peft's own enumeration lacks; equal to its string, as peft's are."""

    QAS_CIRCUIT = "QAS_CIRCUIT"


PREFIX = "qas_circuit_"
_LAYERS = f"{PREFIX}adapters"


@dataclass
class CircuitAdapterConfig(PeftConfig):
    """Settings of circuit adapters, as peft stores them in ``adapter_config.json``.

    Raises:
        QasError: an unknown circuit or form, bits, rank or layers out of range, gates whose hash is not the one stored
            with them, or a config of a newer version.
    """

    circuit: Any = field(
        default="quantum-peft",
        metadata={
            "help": "quantum-peft, taylor, or an architecture: a run, a path of a run or OpenQASM file, a Circuit, or "
            "its JSON form, which is what is stored; a list of these for layers of several widths."
        },
    )
    layers: int = field(default=1, metadata={"help": "Layers of the named circuit; intrinsic rank of taylor."})
    rank: int = field(
        default=8, metadata={"help": "Columns of the frames; fewer in layers whose narrower side has fewer features."}
    )
    rank_pattern: dict[str, int] = field(
        default_factory=dict,
        metadata={"help": "Other ranks for some layers, by the end of their name or a regular expression for it."},
    )
    form: str = field(default="frames", metadata={"help": "frames: W + s U diag(l) V^T; rotation: W R."})
    side: str = field(default="input", metadata={"help": "Side of the layer that a rotation acts on."})
    scale: float | None = field(default=None, metadata={"help": "s; default the root of the width of the layer."})
    bits: int | None = field(default=None, metadata={"help": "Bits of an angle, 1 to 8; none: float32."})
    widths: dict[str, str] | None = field(
        default=None, metadata={"help": "How the architecture serves layers by their features; written, never read."}
    )
    schema_version: int = field(default=SCHEMA_VERSION, metadata={"help": "Version of these settings."})
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Names of the linear layers to adapt, a regular expression, or all-linear."}
    )
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Names of layers to leave out."})
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules that are trained as a whole and saved, such as a new head."}
    )
    layers_to_transform: list[int] | int | None = field(default=None, metadata={"help": "Numbers of blocks to adapt."})
    layers_pattern: list[str] | str | None = field(default=None, metadata={"help": "Name of the list of blocks."})
    init_weights: bool = field(
        default=True,
        metadata={"help": "True: nothing changes at the start; false: a random change, as tests of a set-up want it."},
    )
    bias: str = field(default="none", metadata={"help": "Biases that are trained too: none or all."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = CircuitPeftType.QAS_CIRCUIT  # type: ignore[assignment]
        if not isinstance(self.schema_version, int) or not 1 <= self.schema_version <= SCHEMA_VERSION:
            raise QasError(
                f"circuit adapters of version 1 to {SCHEMA_VERSION} can be read, got version {self.schema_version!r}"
            )
        if self.form not in FORMS:
            raise QasError(f"form is one of {', '.join(FORMS)}, got {self.form!r}")
        if self.bias not in ("none", "all"):
            raise QasError(f"bias is none or all, got {self.bias!r}")
        if not isinstance(self.init_weights, bool):
            raise QasError(f"init_weights is True or False, got {self.init_weights!r}")
        self.rank, self.layers = whole_number("rank", self.rank), whole_number("layers", self.layers, 0)
        if self.rank_pattern and self.form == "rotation":
            raise QasError("rank_pattern sets columns of frames; a rotation has none")
        self.rank_pattern = {key: whole_number(f"rank of {key}", r) for key, r in (self.rank_pattern or {}).items()}
        if self.bits is not None:
            self.bits = checked_bits(self.bits)
        self._found = None
        if self.circuit not in ("quantum-peft", "taylor"):
            self._found = load_architecture(self.circuit)
            self.circuit = self._found.to_json()
            self.widths = {}
        elif self.circuit == "taylor" and self.form == "rotation":
            raise QasError("the taylor map makes frames; a rotation needs a circuit")
        for name in ("target_modules", "exclude_modules"):
            if isinstance(getattr(self, name), list):
                setattr(self, name, set(getattr(self, name)))
        if self.layers_pattern and self.layers_to_transform is None:
            raise QasError("layers_pattern says where layers_to_transform count; give both")
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            # peft would adapt every block without a word.
            raise QasError(
                f"layers_to_transform needs target_modules as a list of names, got the text {self.target_modules!r}"
            )

    @classmethod
    def from_run(cls, run: Any, **settings: Any) -> CircuitAdapterConfig:
        """Settings with the best circuit of a run.

        Layers that are narrower than the circuit get its gates on their qubits, wider ones more axes
        (`Architecture.for_layer`); `widths` says so once a model is adapted.

        Args:
            run: a `qas.Run` or the path of its folder; a list of them for layers of several widths.
            settings: all others, such as ``rank``, ``bits``, ``target_modules``.
        """
        return cls(circuit=load_architecture(run).to_json(), **settings)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str, subfolder: str | None = None, **kwargs: Any
    ) -> CircuitAdapterConfig:
        """As in peft; the weights file in the same folder is checked here, before peft loads it.

        Raises:
            QasError: settings that cannot be used, or weights that are no complete safetensors file.
        """
        config = super().from_pretrained(pretrained_model_name_or_path, subfolder=subfolder, **kwargs)
        check_weights(os.path.join(pretrained_model_name_or_path, subfolder or ""))
        return cast(CircuitAdapterConfig, config)

    def architecture(self) -> Architecture | Architectures | None:
        """The gate lists; None for quantum-peft and taylor, which depend on the size of each layer."""
        return self._found  # one object for all layers: what is compiled for it is compiled once

    def rank_of(self, name: str, in_features: int, out_features: int) -> int:
        """Columns of the frames of the layer `name`; as many as its narrower side has features where that is fewer."""
        return min(self.rank_wanted(name), in_features, out_features)

    def rank_wanted(self, name: str) -> int:
        """The rank that these settings give the layer `name`, whatever its size."""
        return self.rank_pattern.get(get_pattern_key(list(self.rank_pattern), name), self.rank)

    def make(self, in_features: int, out_features: int, name: str = "") -> Adapter:
        """An adapter for the layer `name`.

        Raises:
            QasError: the settings do not fit a layer of this size.
        """
        rank = self.rank_of(name, in_features, out_features)
        if self.circuit == "taylor":
            return TaylorAdapter(
                in_features,
                out_features,
                intrinsic_rank=max(1, self.layers),
                rank=rank,
                scale=self.scale,
                bits=self.bits,
            )
        circuit = self.architecture() or "quantum-peft"
        self._tell_widths(in_features, out_features)
        if self.form == "rotation":
            return RotationAdapter(
                in_features, out_features, circuit, layers=self.layers, side=self.side, bits=self.bits
            )
        return CircuitAdapter(
            in_features,
            out_features,
            circuit,
            layers=self.layers,
            rank=rank,
            scale=self.scale,
            bits=self.bits,
        )

    def _tell_widths(self, in_features: int, out_features: int) -> None:
        if self._found is None or self.widths is None:
            return
        rotates = self.form == "rotation"
        sides = (in_features, out_features) if not rotates else (in_features if self.side == "input" else out_features,)
        for features in sides:
            self.widths[str(features)] = self._found.on_layer(features, exact=rotates)


def check_weights(folder: str | os.PathLike[str]) -> None:
    """Refuse an adapter folder on this machine whose weights are damaged, or a pickle, which may run code when read.

    Raises:
        QasError: it is one.
    """
    weights = os.path.join(folder, SAFETENSORS_WEIGHTS_NAME)
    if os.path.isfile(weights):
        try:
            with safe_open(weights, framework="pt"):
                return
        except SafetensorError as error:
            raise QasError(f"the adapter file is a complete safetensors file, got {weights}: {error}") from None
    if os.path.isfile(os.path.join(folder, WEIGHTS_NAME)):
        raise QasError(
            f"adapters are read from {SAFETENSORS_WEIGHTS_NAME}, never from a pickle, got {WEIGHTS_NAME} in {folder}"
        )


def layer_sides(layer: nn.Module) -> tuple[int, int]:
    """in_features and out_features.

    Raises:
        QasError: neither Linear nor Conv1D, or a Linear whose forward is never called.
    """
    if isinstance(layer, NonDynamicallyQuantizableLinear):
        raise QasError(
            "the out_proj of torch.nn.MultiheadAttention is read, never called, so an adapter would do nothing there; "
            "leave it out with exclude_modules"
        )
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, Conv1D):
        rows, columns = layer.weight.shape
        return rows, columns
    raise QasError(f"circuit adapters fit torch.nn.Linear and transformers' Conv1D, got {type(layer).__name__}")


class CircuitLayer(nn.Module, BaseTunerLayer):
    """A frozen Linear or Conv1D layer with circuit adapters, one for each adapter name."""

    adapter_layer_names = (_LAYERS,)
    other_param_names = ()
    _merged_as: Mapping[str, Mapping[str, Tensor]] = MappingProxyType({})
    """parameters that were merged; those of the adapter may be others by the time they are taken out again"""

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: CircuitAdapterConfig, name: str = "") -> None:
        super().__init__()
        self.base_layer = base_layer
        self.qas_circuit_adapters = nn.ModuleDict({})
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.in_features, self.out_features = layer_sides(self.get_base_layer())
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, name)

    def update_layer(self, adapter_name: str, config: CircuitAdapterConfig, name: str = "", **kwargs: Any) -> None:
        """Add an adapter, or replace the one of this name; `name` is that of the layer, for ranks that depend on it."""
        adapter = config.make(self.in_features, self.out_features, name)
        if not config.init_weights:
            _scatter(adapter)
        self.qas_circuit_adapters[adapter_name] = adapter
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        # Angles stay float32 whatever the layer computes in: an error of an angle is an error of the whole frame.
        if adapter_name not in self.qas_circuit_adapters:
            return
        adapter = self.qas_circuit_adapters[adapter_name]
        target = device if device is not None else self._stored_weight().device
        if any(p.is_meta for p in adapter.parameters()) or target.type == "meta":
            return
        self.qas_circuit_adapters[adapter_name] = adapter.to(device=target, dtype=torch.float32)

    def cast_adapter(self, adapter_name: str) -> None:
        """Store an adapter in the dtype of the layer; it still computes its matrices in single precision at least."""
        dtype = self._stored_weight().dtype
        if adapter_name in self.qas_circuit_adapters and dtype in MERGEABLE:
            self.qas_circuit_adapters[adapter_name].to(dtype=dtype)

    def _chosen(self, names: Iterable[str]) -> Iterator[tuple[str, Adapter]]:
        for name in names:
            if name in self.qas_circuit_adapters:
                yield name, cast(Adapter, self.qas_circuit_adapters[name])

    # ------------------------------------------------------------------ merging
    def _stored_weight(self) -> Tensor:
        return cast(Tensor, self.get_base_layer().weight).data

    def _weight(self) -> Tensor:
        """Shape (out_features, in_features), whichever way round the layer keeps it.

        Raises:
            QasError: a quantized layer.
        """
        weight = self._stored_weight()
        if weight.dtype not in MERGEABLE:
            raise QasError(f"adapters merge with weights of {', '.join(map(str, MERGEABLE))}, got {weight.dtype}")
        return weight.T if isinstance(self.get_base_layer(), Conv1D) else weight

    def _set_weight(self, weight: Tensor) -> None:
        layer = self.get_base_layer()
        layer.weight.data = (weight.T if isinstance(layer, Conv1D) else weight).contiguous()

    def merged_weight(self, adapter_names: Iterable[str]) -> Tensor:
        """The base weight with adapters put in one after the other, shape (out_features, in_features).

        Raises:
            QasError: NaN or infinity in it, or a quantized layer.
        """
        weight = self._weight()
        for name, adapter in self._chosen(adapter_names):
            weight = adapter.merged(weight)
            if not torch.isfinite(weight).all():
                # Begins as peft's own message does, for whoever looks for that.
                raise QasError(
                    f"NaNs detected in the merged weights. The adapter {name} seems to be broken; merging it would put "
                    "NaN or infinity into the weights"
                )
        return weight

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put adapters into the base weight; a result that is not finite is refused, with `safe_merge` or without.

        Until `unmerge`, the layer computes with the merged adapters alone, as in peft.

        Raises:
            QasError: as for `merged_weight`; the base weight is untouched then.
        """
        names = [name for name, _ in self._chosen(dict.fromkeys(check_adapters_to_merge(self, adapter_names)))]
        if names:
            self._set_weight(self.merged_weight(names))
            self.merged_adapters += names
            own = {n: {key: p.detach().clone() for key, p in a.named_parameters()} for n, a in self._chosen(names)}
            self._merged_as = {**self._merged_as, **own}

    def unmerge(self) -> None:
        """Take all merged adapters out of the base weight, as they were when they were merged."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        self._set_weight(self._plain_weight())
        self.merged_adapters.clear()
        self._merged_as = {}

    def _plain_weight(self) -> Tensor:
        """The base weight without merged adapters."""
        weight = self._weight()
        for name, adapter in self._chosen(reversed(self.merged_adapters)):
            with _holding(adapter, self._merged_as[name]):
                weight = adapter.unmerged(weight)
        return weight

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """What the adapter changes, in the shape of the base weight; that of Conv1D is (in_features, out_features).

        Raises:
            QasError: this layer has no such adapter.
        """
        if adapter_name not in self.qas_circuit_adapters:
            raise QasError(f"this layer has the adapters {', '.join(self.qas_circuit_adapters)}, got {adapter_name!r}")
        adapter = cast(Adapter, self.qas_circuit_adapters[adapter_name])
        if isinstance(adapter, DeltaAdapter):
            delta = adapter.delta_weight()
        else:
            weight = self._plain_weight()
            delta = adapter.merged(weight) - weight
        return delta.T if isinstance(self.get_base_layer(), Conv1D) else delta

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return all(isinstance(adapter, DeltaAdapter) for _, adapter in self._chosen([adapter_name]))

    # ------------------------------------------------------------------ computing
    def forward(self, x: Tensor, *args: Any, adapter_names: Sequence[str] | None = None, **kwargs: Any) -> Tensor:
        """The changed layer's output.

        Args:
            x: inputs, shape (..., in_features).
            adapter_names: for each of the rows, the first axis of `x`, the adapter that it goes through instead of the
                active ones, or ``"__base__"``.

        Raises:
            QasError: names that are unknown or not as many as rows, or merged adapters beside names.
        """
        if adapter_names is not None and self.merged:
            raise _refused_merged(self.merged_adapters)
        if self.disable_adapters:
            if self.merged:
                self.unmerge()
            return self.base_layer(x, *args, **kwargs)
        if self.merged:
            return self.base_layer(x, *args, **kwargs)

        def base(value: Tensor) -> Tensor:
            return self.base_layer(value, *args, **kwargs)

        if adapter_names is not None:
            table = cast("Mapping[str, Any]", self.qas_circuit_adapters)
            rows = adapter_names if isinstance(adapter_names, Rows) else MixedBank(0).rows(adapter_names, [table])
            return rows.through(table, x, base)
        layer: Callable[[Tensor], Tensor] = base
        for _, adapter in self._chosen(self.active_adapters):
            layer = _Beside(adapter, layer)
        return layer(x)

    def __repr__(self) -> str:
        return "qas." + super().__repr__()


@contextmanager
def _holding(adapter: Adapter, parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """An adapter with other parameters for a while."""
    if isinstance(adapter, PackedAdapter):
        adapter.collect()
    held = {name: parameter.data for name, parameter in adapter.named_parameters()}
    for name, parameter in adapter.named_parameters():
        parameter.data = parameters[name].to(parameter)
    try:
        yield
    finally:
        for name, parameter in adapter.named_parameters():
            parameter.data = held[name]


def _wrapped(module: nn.Module) -> Iterator[nn.Module]:
    """Circuit layers, and modules that peft trains as a whole; what is inside them is not looked at."""
    if isinstance(module, CircuitLayer | AuxiliaryTrainingWrapper):
        yield module
        return
    for child in module.children():
        yield from _wrapped(child)


def _refused_merged(names: Iterable[str]) -> QasError:
    # Begins as peft's own message does, for whoever looks for that.
    return QasError(
        "Cannot pass `adapter_names` when there are merged adapters, please call `unmerge_adapter` first, "
        f"got {', '.join(names)} merged"
    )


def _copies(settings: Mapping[str, Any]) -> int:
    """How often `generate` lays each row into a batch: for beams, or for several answers."""
    config = settings.get("generation_config")
    wanted = [settings.get(name) or getattr(config, name, None) or 1 for name in ("num_beams", "num_return_sequences")]
    return max(wanted)


def _give_names(module: nn.Module, args: Any, kwargs: dict[str, Any], rows: Rows, times: int) -> tuple[Any, Any]:
    """Before a module's forward: the names of its rows; an encoder's rows are not repeated for beams."""
    own = rows.repeated(times) if times > 1 and args and len(args[0]) == times * len(rows) else rows
    names = own if isinstance(module, CircuitLayer) else list(own)
    return args, kwargs | {"adapter_names": names}


def _scatter(adapter: Adapter) -> None:
    """Move an adapter off the start at which it changes nothing."""
    state = dict(adapter.named_parameters())
    with torch.no_grad():
        state.get("values", state["angles"]).normal_(std=START)


class _Beside:
    """An adapter around a layer, as one function."""

    def __init__(self, adapter: Adapter, layer: Callable[[Tensor], Tensor]) -> None:
        self.adapter, self.layer = adapter, layer

    def __call__(self, x: Tensor) -> Tensor:
        return self.adapter(x, self.layer)


class CircuitModel(BaseTuner):
    """peft's tuner for circuit adapters."""

    prefix: str = PREFIX
    tuner_layer_cls = CircuitLayer
    target_module_mapping = cast("dict[str, list[str]]", TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mixed = MixedBank()
        """what batches with ``adapter_names`` compute with; ``mixed.kept`` adapters stay ready between batches"""

    def inject_adapter(
        self,
        model: nn.Module,
        adapter_name: str,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        """As in peft, after a check that the settings fit every layer: a model is adapted as a whole or not at all.

        Raises:
            QasError: a layer that the settings do not fit; the model is untouched then.
        """
        try:
            if state_dict is not None and sum(PREFIX in key for key in state_dict) == 1:
                state_dict = None  # one tensor for all layers: its name tells nothing of the others
            self._check_layers(model, cast(CircuitAdapterConfig, self.peft_config[adapter_name]), state_dict)
            super().inject_adapter(model, adapter_name, autocast_adapter_dtype, low_cpu_mem_usage, state_dict)
        except Exception:
            if not any(True for _ in _stored_adapters(model, adapter_name)):
                del self.peft_config[adapter_name]  # the model may share this dictionary
            raise
        adapters = dict(_stored_adapters(model, adapter_name))
        share_maps(adapters.values())
        _lay_out(adapters, cast(CircuitAdapterConfig, self.peft_config[adapter_name]))

    def _check_layers(
        self, model: nn.Module, config: CircuitAdapterConfig, state_dict: dict[str, Tensor] | None
    ) -> None:
        prepared = self._prepare_adapter_config(copy.copy(config), self.get_model_config(model))
        prepared = _maybe_include_all_linear_layers(prepared, model)
        named = None if state_dict is None else {key.rsplit(f".{PREFIX}", 1)[0] for key in state_dict}
        inside = tuple(f"{key}." for key, module in model.named_modules() if isinstance(module, BaseTunerLayer))
        seen: set[tuple[int, int, int]] = set()
        clipped: dict[str, int] = {}
        for key, module in model.named_modules():
            chosen = self._check_target_module_exists(prepared, key) if named is None else key in named
            if not key or not chosen or key.startswith(inside):
                continue
            place = key
            try:
                sides = layer_sides(module.get_base_layer() if isinstance(module, BaseTunerLayer) else module)
                place = f"{key} ({sides[0]} to {sides[1]} features)"
                rank = config.rank_of(key, *sides)
                if config.form == "frames" and rank < config.rank_wanted(key):
                    clipped[key] = rank
                if (*sides, rank) not in seen:
                    seen.add((*sides, rank))
                    config.make(*sides, key)
            except QasError as error:
                raise QasError(f"{place}: {error}") from None
        if clipped:
            told = ", ".join(f"{key} has {rank}" for key, rank in clipped.items())
            warnings.warn(f"ranks are at most the narrower side of a layer: {told}", stacklevel=2)

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        config = cast(CircuitAdapterConfig, peft_config)
        if isinstance(target, CircuitLayer):
            target.update_layer(adapter_name, config, current_key)
            return
        layer = CircuitLayer(target, adapter_name, config, current_key)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        # Parameters are float32 unless somebody insists on those of the layer.
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
        if autocast_adapter_dtype:
            return
        for layer in self.model.modules():
            if isinstance(layer, CircuitLayer):
                layer.cast_adapter(adapter_name)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        names = kwargs.get("adapter_names")
        if names is None:
            yield
            return
        modules = list(_wrapped(self.model))
        layers = [module for module in modules if isinstance(module, CircuitLayer)]
        rows = self._rows(names, layers)
        if rows is names:  # users of a store have no heads of their own
            modules = cast("list[nn.Module]", layers)
        give = partial(_give_names, rows=rows, times=_copies(kwargs))
        handles = [module.register_forward_pre_hook(give, with_kwargs=True) for module in modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _rows(self, names: Sequence[str], layers: Sequence[CircuitLayer]) -> Rows:
        if self.training:  # a layer that is computed again in the backward pass would know of no names
            raise QasError("Cannot pass `adapter_names` when the model is in training mode; call eval() first")
        merged = dict.fromkeys(name for layer in layers for name in layer.merged_adapters)
        if merged:
            raise _refused_merged(merged)
        if isinstance(names, Rows):  # of a store, which has no modules for its users
            return names
        return self.mixed.rows(names, [cast("Mapping[str, Any]", layer.qas_circuit_adapters) for layer in layers])

    def delete_adapter(self, adapter_name: str) -> None:
        """As in peft; what batches with ``adapter_names`` kept of it goes too."""
        super().delete_adapter(adapter_name)
        self.mixed.forget(adapter_name)

    # ------------------------------------------------------------------ merging
    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """As in peft, in all layers or in none.

        Raises:
            QasError: an unknown adapter, NaN or infinity in a merged weight, or a quantized layer; all weights are
                untouched then.
        """
        self._check_merge(adapter_names)
        super().merge_adapter(adapter_names, safe_merge)

    def merge_and_unload(
        self, progressbar: bool = False, safe_merge: bool = False, adapter_names: list[str] | None = None
    ) -> nn.Module:
        """As in peft, in all layers or in none.

        Raises:
            QasError: as for `merge_adapter`; the model is untouched then.
        """
        self._check_merge(adapter_names)
        return super().merge_and_unload(progressbar, safe_merge, adapter_names)

    def _check_merge(self, adapter_names: list[str] | None) -> None:
        names = [adapter_names] if isinstance(adapter_names, str) else adapter_names
        for name in names or ():
            if name not in self.peft_config:
                raise QasError(f"adapters to merge are {', '.join(self.peft_config)}, got {name!r}")
        for module in self.model.modules():
            if isinstance(module, CircuitLayer):
                wanted = module.active_adapters if names is None else names
                module.merged_weight([name for name in wanted if name not in module.merged_adapters])

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Refused.

        Raises:
            QasError: always.
        """
        raise QasError(
            "a weighted sum of circuit adapters is no circuit; activate several with set_adapter, merge them, or "
            "convert each with peft.convert_to_lora and add those"
        )

    # ------------------------------------------------------------------ files
    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        """The tensors to save: those of `Adapter.pack`, few-bit angles of all layers in one uint8 tensor.

        Raises:
            QasError: adapters that are no circuits, NaN or infinity, sharded parameters, or a `state_dict` that holds
                only some tensors of a layer, other shapes, or few-bit angles of some layers only.
        """
        found = super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)
        adapters = _filed_adapters(model, adapter_name)
        forms: dict[str, dict[str, Tensor]] = {}
        for stem, adapter in adapters.items():
            own = {name: state_dict[stem + name] for name, _ in adapter.named_parameters() if stem + name in state_dict}
            for name in (*own, "packed"):
                found.pop(stem + name, None)
            if not own:
                continue
            for name, parameter in adapter.named_parameters():
                if name not in own or own[name].shape != parameter.shape:
                    got = tuple(own[name].shape) if name in own else "nothing"
                    raise QasError(f"a state dict holds {stem}{name} of shape {tuple(parameter.shape)}, got {got}")
            forms[stem] = adapter.pack(own)
        if forms and _is_joint(adapters, cast(CircuitAdapterConfig, config)):
            if len(forms) < len(adapters):
                missing = next(stem for stem in adapters if stem not in forms)
                raise QasError(f"few-bit angles are stored for all layers at once, got a state dict without {missing}")
            joint = JointForm(_by_layer(adapters))
            packed = joint.join({_layer(stem): form["packed"] for stem, form in forms.items()})
            return found | {f"{min(adapters, key=_layer)}packed": packed}
        return found | {stem + name: tensor for stem, form in forms.items() for name, tensor in form.items()}

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Tensors of a file under the names of the model's parameters, few-bit angles unpacked.

        Raises:
            QasError: adapters that are no circuits, or tensors that are missing, superfluous, of the wrong shape or not
                finite, or of other layers. The adapter of a `PeftModel` is taken off then if it does nothing yet; one
                that was trained stays as it is.
        """
        mapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        adapters = _filed_adapters(model, adapter_name)
        try:
            mapped = _split(_named(mapped, adapters, adapter_name), adapters, cast(CircuitAdapterConfig, config))
            bare = {_bare(key): key for key in mapped}
            used: set[str] = set()
            for stem, adapter in adapters.items():
                short = _bare(stem)
                own = {key.removeprefix(short): bare[key] for key in bare if key.startswith(short)}
                try:
                    read = adapter.unpacked({name: mapped[key].cpu() for name, key in own.items()})
                except QasError as error:
                    raise QasError(f"the adapter file does not fit {short.removesuffix('.')}: {error}") from None
                for key in own.values():
                    del mapped[key]
                fresh = {name: tensor.to(getattr(adapter, name).dtype) for name, tensor in read.items()}
                # An empty place, as what still waits there is older.
                fresh |= {name: torch.zeros_like(place, device="cpu") for name, place in adapter.named_buffers()}
                mapped |= {stem + name: tensor for name, tensor in fresh.items()}
                used |= {stem + name for name in fresh}
            left = [key for key in mapped if PREFIX in key and key not in used]
            if left:
                raise QasError(f"the adapter file has tensors that the model has no place for: {left[0]}")
        except QasError:
            _take_off(model, adapter_name)
            raise
        return mapped


def _stored_adapters(model: nn.Module, adapter_name: str) -> Iterator[tuple[str, PackedAdapter]]:
    """(prefix of its keys in the model's state dict, adapter) of all layers."""
    for name, module in model.named_modules():
        if isinstance(module, CircuitLayer) and adapter_name in module.qas_circuit_adapters:
            stem = f"{name}." if name else ""
            yield f"{stem}{_LAYERS}.{adapter_name}.", cast(PackedAdapter, module.qas_circuit_adapters[adapter_name])


def _filed_adapters(model: nn.Module, adapter_name: str) -> dict[str, PackedAdapter]:
    """Those that peft's files have a form for.

    Raises:
        QasError: adapters of another kind, as `qas.finetuning` has them.
    """
    found = dict(_stored_adapters(model, adapter_name))
    for stem, adapter in found.items():
        if not isinstance(adapter, PackedAdapter):
            raise QasError(f"peft's files hold circuits, got {type(adapter).__name__} in {_layer(stem)}")
    return found


def _bare(key: str) -> str:
    """A key or stem in the base model alone."""
    return key.removeprefix("base_model.model.")


def _layer(stem: str) -> str:
    """The name of the adapted layer in the base model."""
    return _bare(stem).rpartition(f"{_LAYERS}.")[0].removesuffix(".")


def packed_adapters(model: nn.Module, adapter_name: str) -> dict[str, PackedAdapter]:
    """The adapters of one name, by the names of their layers in the base model."""
    return _by_layer(dict(_stored_adapters(model, adapter_name)))


def _by_layer(adapters: Mapping[str, PackedAdapter]) -> dict[str, PackedAdapter]:
    return {_layer(stem): adapter for stem, adapter in adapters.items()}


def _has_few_bits(adapter: Adapter) -> bool:
    """Adapters of another package may store what they like."""
    return isinstance(adapter, PackedAdapter) and adapter.bits is not None


def _is_joint(adapters: Mapping[str, PackedAdapter], config: CircuitAdapterConfig) -> bool:
    """Whether all layers are stored in one tensor."""
    return config.schema_version > 1 and bool(adapters) and all(map(_has_few_bits, adapters.values()))


def _lay_out(adapters: Mapping[str, PackedAdapter], config: CircuitAdapterConfig) -> None:
    """Give few-bit adapters their inbox: transformers loads tensors by name alone."""
    named = {name: adapter for name, adapter in _by_layer(adapters).items() if _has_few_bits(adapter)}
    if _is_joint(adapters, config):
        Inbox(named)
    else:
        for name, adapter in named.items():
            Inbox({name: adapter}, joint=False)


def _named(mapped: dict[str, Tensor], adapters: Iterable[str], adapter_name: str) -> dict[str, Tensor]:
    """Puts the adapter's name into keys of packed tensors, which peft leaves out where the model has no such buffer."""
    places = {f"{_bare(stem).removesuffix(f'{adapter_name}.')}packed": f"{stem}packed" for stem in adapters}
    return {places.get(_bare(key), key): tensor for key, tensor in mapped.items()}


def _split(
    mapped: dict[str, Tensor], adapters: Mapping[str, PackedAdapter], config: CircuitAdapterConfig
) -> dict[str, Tensor]:
    """A file's tensors with those of all layers in one place of each layer's own; what is no such file stays."""
    keys = [key for key in mapped if PREFIX in key and key.endswith(".packed")]
    if len(keys) != 1 or not _is_joint(adapters, config):
        return mapped
    packed = mapped[keys[0]].cpu()
    if len(adapters) == 1 and packed.shape == (next(iter(adapters.values())).packed_size,):
        return mapped  # a single layer of version 1
    try:
        forms = JointForm(_by_layer(adapters)).split(packed)
    except QasError as error:
        raise QasError(f"the adapter file does not fit: {error}") from None
    rest = {key: tensor for key, tensor in mapped.items() if key != keys[0]}
    return rest | {f"{stem}packed": forms[_layer(stem)] for stem in adapters}


def _take_off(model: nn.Module, adapter_name: str) -> None:
    """Take an adapter that does nothing yet off a `PeftModel`; with the last one, the base model is as it was."""
    tuner = getattr(model, "base_model", None)
    if not isinstance(tuner, CircuitModel):
        return  # somebody else's module, who put the adapter there and knows of it
    if any(_trained(adapter) for _, adapter in _stored_adapters(model, adapter_name)):
        return
    if len(tuner.peft_config) > 1:
        cast(Any, model).delete_adapter(adapter_name)
    else:
        tuner.unload()


def _trained(adapter: Adapter) -> bool:
    """Whether it changes anything: the parameters that hold the zero of the start have left it."""
    state = dict(adapter.named_parameters())
    start = state.get("values", state["angles"])
    return not start.is_meta and bool(start.any())


def register() -> None:
    """Tell peft about circuit adapters; a second call changes nothing.

    ``peft.register_peft_method`` wants a member of peft's own enumeration, so the dictionaries it would fill are filled
    here. Models of mixed methods look in another one and stay without circuit adapters.
    """
    kind = cast(Any, CircuitPeftType.QAS_CIRCUIT)
    PEFT_TYPE_TO_CONFIG_MAPPING[kind] = CircuitAdapterConfig
    PEFT_TYPE_TO_TUNER_MAPPING[kind] = CircuitModel
    PEFT_TYPE_TO_PREFIX_MAPPING[kind] = PREFIX


def told_settings(config: PeftConfig, **changes: Any) -> dict[str, Any]:
    """Settings of peft as they stand in ``adapter_config.json``: JSON-able, by name, with `changes`."""
    told = config.to_dict() | changes
    return {key: sorted(value) if isinstance(value, set) else value for key, value in sorted(told.items())}


def adapter_bytes(folder: str | os.PathLike[str]) -> int:
    """Size of the weights file that ``save_pretrained`` wrote, bytes."""
    return os.path.getsize(os.path.join(folder, "adapter_model.safetensors"))


register()
