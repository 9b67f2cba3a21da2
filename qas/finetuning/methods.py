"""Ways to adapt a frozen model, all attached through peft: circuits, their rivals, and the two ends of the scale."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import nn

from qas.adapters.architecture import MAX_LAYERS, Architecture, Architectures
from qas.adapters.base import Adapter
from qas.adapters.circuit import share_maps
from qas.adapters.hf import BaseTunerLayer, CircuitAdapterConfig, PeftConfig, layer_sides
from qas.adapters.quantize import checked_bits
from qas.adapters.training import ANGLES, REST
from qas.checks import finite_number, shortened, whole_number
from qas.errors import QasError
from qas.finetuning import METHODS
from qas.finetuning.stored import (
    Gaussian,
    Halves,
    Part,
    RandomSubspaceAdapter,
    Stored,
    Trained,
    Values,
    random_matrix,
)

TARGETS = (("q_proj", "v_proj"), ("query", "value"), ("q_lin", "v_lin"), ("c_attn",), ("q", "v"))
"""Names of query and value layers in the usual families; the first that a model has are adapted by default."""
_NAME = "default"


def _scale(scale: Any) -> float:
    if finite_number("scale", scale) == 0:
        raise QasError(f"scale is a finite number other than 0, got {scale!r}")
    return float(scale)


def _targets(targets: Any) -> tuple[str, ...]:
    if isinstance(targets, str) or not targets or not all(isinstance(t, str) and t for t in targets):
        raise QasError(f"targets are names of linear layers, got {shortened(targets)}")
    return tuple(targets)


_CHECKS = {
    "bits": checked_bits,
    "rank": lambda rank: whole_number("rank", rank),
    "layers": lambda layers: whole_number("layers", layers, 0, MAX_LAYERS),
    "size": lambda size: whole_number("size", size),
    "scale": _scale,
    "targets": _targets,
}


class Method:
    """A way to adapt a model. Options are keywords of the constructor, kept under their own names.

    Subclasses say what peft is to inject (`config`) and how an injected layer starts and is stored (`start`).

    Attributes:
        learning_rate: that of the adapter where the caller names none.
        takes_circuit: whether it needs an architecture, and takes one.
        injects: whether peft injects anything; `config` and `start` are not called otherwise.
        peft_names: name in the stored form of a layer -> peft's; empty: peft itself knows what to store; None: it has
            no such form.
        targets: last parts of the names of the linear layers to adapt; None: queries and values.
    """

    learning_rate: ClassVar[float] = 3e-2  # what tuning on validation splits chose for most methods
    takes_circuit: ClassVar[bool] = False
    injects: ClassVar[bool] = True
    peft_names: ClassVar[Mapping[str, str] | None] = None
    targets: tuple[str, ...] | None = None

    def _keep(self, **options: Any) -> None:
        for name, value in options.items():
            setattr(self, name, None if value is None else _CHECKS[name](value))

    @property
    def name(self) -> str:
        """As registered, else that of the class."""
        return METHODS.name_of(self) or type(self).__name__

    def config(self, circuit: Architecture | Architectures | None, targets: str) -> PeftConfig:
        """The settings of what peft is to inject.

        Args:
            circuit: an architecture if the method takes one.
            targets: regular expression that the names of the layers match, for ``target_modules``.
        """
        raise NotImplementedError

    def check(self, in_features: int, out_features: int) -> None:
        """Refuse a layer of a size that the options do not fit, before the model is changed.

        Raises:
            QasError: it is one.
        """

    def start(self, layer: Any, config: PeftConfig, seed: int) -> Part:
        """Give an injected layer its first parameters, and say how it is stored.

        Args:
            layer: peft's layer; the global generator of torch was seeded with `seed` for it.
            config: what was injected.
            seed: 0 to 2^31 - 1, of this layer.
        """
        raise NotImplementedError

    def parts(self, model: nn.Module, layers: Iterable[str], config: PeftConfig | None, seed: int) -> dict[str, Part]:
        """Start every layer; what is stored, by name of the layer."""
        found: dict[str, Part] = {}
        for number, name in enumerate(layers):
            own = int(np.random.default_rng([seed, 1, number]).integers(2**31))
            torch.manual_seed(own)
            found[name] = self.start(model.get_submodule(name), cast(PeftConfig, config), own)
        return found


# ---------------------------------------------------------------------- circuits
class _Circuit(Method):
    """What `CircuitAdapterConfig` stands for, with the options of the method as its settings."""

    learning_rate = ANGLES
    fixed: ClassVar[dict[str, Any]] = {}
    peft_names: ClassVar[Mapping[str, str] | None] = MappingProxyType({})

    def config(self, circuit: Architecture | Architectures | None, targets: str) -> PeftConfig:
        own = {name: value for name, value in vars(self).items() if name != "targets"}
        given: dict[str, Any] = {} if circuit is None else {"circuit": circuit}
        return CircuitAdapterConfig(**self.fixed, **given, **own, target_modules=targets)

    def start(self, layer: Any, config: PeftConfig, seed: int) -> Part:
        layer.update_layer(_NAME, config)
        return cast(Adapter, layer.qas_circuit_adapters[_NAME])


class Searched(_Circuit):
    """frames from a found circuit (a run, an OpenQASM file)"""

    takes_circuit = True

    def __init__(
        self,
        *,
        bits: int | None = None,
        rank: int = 8,
        scale: float | None = None,
        targets: Iterable[str] | None = None,
    ) -> None:
        self._keep(bits=bits, rank=rank, scale=scale, targets=targets)


class SearchedRotation(_Circuit):
    """rotation of the inputs by a found circuit"""

    takes_circuit = True
    fixed: ClassVar = {"form": "rotation"}

    def __init__(self, *, bits: int | None = None, targets: Iterable[str] | None = None) -> None:
        self._keep(bits=bits, targets=targets)


class QuantumPeft(_Circuit):
    """frames from Quantum-PEFT's Pauli circuit (arXiv:2503.05431)"""

    def __init__(
        self,
        *,
        bits: int | None = None,
        rank: int = 8,
        layers: int = 1,
        scale: float | None = None,
        targets: Iterable[str] | None = None,
    ) -> None:
        self._keep(bits=bits, rank=rank, layers=layers, scale=scale, targets=targets)


class QuantumPeftRotation(_Circuit):
    """rotation of the inputs by the same circuit"""

    fixed: ClassVar = {"form": "rotation"}

    def __init__(self, *, bits: int | None = None, layers: int = 1, targets: Iterable[str] | None = None) -> None:
        self._keep(bits=bits, layers=layers, targets=targets)


class Taylor(QuantumPeft):
    """frames from Quantum-PEFT's Taylor map"""

    learning_rate = REST  # its entries are no angles
    fixed: ClassVar = {"circuit": "taylor"}


# ---------------------------------------------------------------------- rivals
class Lora(Method):
    """LoRA (arXiv:2106.09685), stored in float16"""

    learning_rate = 1e-2
    peft_names: ClassVar[Mapping[str, str] | None] = MappingProxyType({"down": "lora_A.weight", "up": "lora_B.weight"})
    bits: int | None = None
    rank: int
    scale: float | None

    def __init__(self, *, rank: int = 8, scale: float | None = None, targets: Iterable[str] | None = None) -> None:
        self._keep(rank=rank, scale=scale, targets=targets)

    def config(self, circuit: Architecture | Architectures | None, targets: str) -> PeftConfig:
        from peft import LoraConfig

        alpha = self.rank if self.scale is None else self.rank * self.scale
        return LoraConfig(r=self.rank, lora_alpha=alpha, target_modules=targets)  # type: ignore[arg-type]

    def check(self, in_features: int, out_features: int) -> None:
        whole_number("rank", self.rank, 1, min(in_features, out_features))

    def start(self, layer: Any, config: PeftConfig, seed: int) -> Part:
        layer.reset_lora_parameters(_NAME, True)
        down, up = layer.lora_A[_NAME], layer.lora_B[_NAME]
        if self.bits is None:
            return Stored({"up": Values(up, "weight", Halves()), "down": Values(down, "weight", Halves())})
        # The published start: zeros would all get the code below zero.
        nn.init.trunc_normal_(up.weight, std=1e-3, a=-2e-3, b=2e-3)
        form = Gaussian(self.bits)
        return Stored({"up": Values(up, "weight", form), "down": Values(down, "weight", form)})


class BiLora(Lora):
    """few-bit LoRA (arXiv:2307.16867): both matrices are quantized in training"""

    learning_rate = Method.learning_rate
    peft_names = None

    def __init__(
        self, *, bits: int = 1, rank: int = 8, scale: float | None = None, targets: Iterable[str] | None = None
    ) -> None:
        self._keep(bits=bits, rank=rank, scale=scale, targets=targets)


class Vera(Method):
    """fixed random matrices, trained scales (VeRA, arXiv:2310.11454), stored in float16"""

    rank: int
    scale: float | None

    def __init__(self, *, rank: int = 8, scale: float | None = None, targets: Iterable[str] | None = None) -> None:
        self._keep(rank=rank, scale=scale, targets=targets)

    def config(self, circuit: Architecture | Architectures | None, targets: str) -> PeftConfig:
        from peft import VeraConfig

        return VeraConfig(r=self.rank, target_modules=targets, save_projection=False)

    check = Lora.check  # type: ignore[assignment]

    def start(self, layer: Any, config: PeftConfig, seed: int) -> Part:
        from peft.tuners._buffer_dict import BufferDict

        # peft's matrices depend on torch's generator, and all layers share them; these are the same on every machine.
        a = random_matrix(seed, self.rank, layer.in_features)
        b = random_matrix(seed, layer.out_features, self.rank, a.numel())
        layer.vera_A = BufferDict({_NAME: a if self.scale is None else self.scale * a}, persistent=False)
        layer.vera_B = BufferDict({_NAME: b}, persistent=False)
        layer.reset_vera_parameters(_NAME)
        values = {"b": layer.vera_lambda_b, "d": layer.vera_lambda_d}
        return Stored({name: Values(owner, _NAME, Halves()) for name, owner in values.items()}, seed)


@dataclass
class _SubspaceConfig(CircuitAdapterConfig):
    """peft's settings of random subspaces, which need no tuner of their own."""

    size: int = 64
    seed: int = 0

    def make(self, in_features: int, out_features: int, name: str = "") -> Adapter:
        scale = 1.0 if self.scale is None else self.scale
        return RandomSubspaceAdapter(in_features, out_features, self.size, self.seed, bits=self.bits, scale=scale)


class RandomSubspace(_Circuit):
    """as many parameters in a random subspace (intrinsic dimension, arXiv:1804.08838)"""

    peft_names = None
    learning_rate = Method.learning_rate

    def __init__(
        self,
        *,
        bits: int | None = None,
        size: int = 64,
        scale: float | None = None,
        targets: Iterable[str] | None = None,
    ) -> None:
        self._keep(bits=bits, size=size, scale=scale, targets=targets)

    def config(self, circuit: Architecture | Architectures | None, targets: str) -> PeftConfig:
        own = {name: value for name, value in vars(self).items() if name != "targets"}
        return _SubspaceConfig(**own, target_modules=targets)

    def start(self, layer: Any, config: PeftConfig, seed: int) -> Part:
        return super().start(layer, replace(cast(_SubspaceConfig, config), seed=seed), seed)


class Peft(Method):
    """Any method of peft, given as its settings; all that it trains is stored in float32.

    Args:
        config: ``target_modules`` default to queries and values.
    """

    learning_rate = 1e-2

    def __init__(self, config: PeftConfig) -> None:
        given = getattr(config, "target_modules", None)
        self._config = config
        self.targets = None if given is None or isinstance(given, str) else tuple(sorted(given))

    @property
    def name(self) -> str:
        return str(getattr(self._config.peft_type, "value", self._config.peft_type))

    def config(self, circuit: Architecture | Architectures | None, targets: str) -> PeftConfig:
        return replace(self._config, target_modules=targets)  # type: ignore[call-arg]

    def parts(self, model: nn.Module, layers: Iterable[str], config: PeftConfig | None, seed: int) -> dict[str, Part]:
        return {"": Trained({name: p for name, p in body(model).items() if p.requires_grad})}


# ---------------------------------------------------------------------- the ends of the scale
class LinearProbe(Method):
    """the head alone"""

    injects = False

    def parts(self, model: nn.Module, layers: Iterable[str], config: PeftConfig | None, seed: int) -> dict[str, Part]:
        return {}


class Full(Method):
    """all weights"""

    learning_rate = 1e-3
    injects = False

    def parts(self, model: nn.Module, layers: Iterable[str], config: PeftConfig | None, seed: int) -> dict[str, Part]:
        model.requires_grad_(True)
        return {"": Trained(body(model))}


def make_method(given: Any, **options: Any) -> Method:
    """What a caller gave as the method: a name, a class, an instance, or settings of peft.

    Raises:
        UnknownNameError: no such name, or no such option.
        QasError: something else.
    """
    return cast(Method, METHODS.make(Peft(given) if isinstance(given, PeftConfig) else given, Method, **options))


def list_methods() -> dict[str, str]:
    """Name -> one line about it."""
    return {name: METHODS.about(name) for name in METHODS}


# ---------------------------------------------------------------------- on a model
def trained_head(model: nn.Module) -> nn.Module | None:
    """The part that is trained as a new head, ``model.head``; None for models that keep theirs."""
    return cast("nn.Module | None", getattr(model, "head", None))


def body(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters but those of the head."""
    head = trained_head(model)
    left_out = set() if head is None else {id(p) for p in head.parameters()}
    return {name: p for name, p in model.named_parameters() if id(p) not in left_out}


def target_layers(model: nn.Module, targets: tuple[str, ...] | None) -> dict[str, tuple[int, int]]:
    """Linear layers by name -> (in_features, out_features), in the order of the model.

    Args:
        model: its head is left out, as it is trained anyway.
        targets: last parts of their names; None: queries and values under their usual names.

    Raises:
        QasError: a target that no layer has, or none and no usual name.
    """
    head = trained_head(model)
    left_out = set() if head is None else set(head.modules())
    linear = {}
    for name, layer in model.named_modules():
        try:
            if layer not in left_out:
                linear[name] = layer_sides(layer)
        except QasError:
            continue  # no linear layer, or one that is never called
    known = {name.rpartition(".")[2] for name in linear}
    chosen = targets or next((family for family in TARGETS if set(family) <= known), None)
    if chosen is None:
        raise QasError("the query and value layers of this model have no usual names; name layers with --targets")
    for target in chosen:
        if target not in known:
            raise QasError(f"no linear layer to adapt is named {target}; the model has {', '.join(sorted(known))}")
    return {name: sides for name, sides in linear.items() if name.rpartition(".")[2] in chosen}


def attach(
    model: nn.Module, method: Method, circuit: Architecture | Architectures | None = None, *, seed: int = 0
) -> dict[str, Part]:
    """Freeze a model and let peft put adapters into its target layers, in place.

    Args:
        model: anything with linear layers.
        method: what is attached.
        circuit: of the methods that take one.
        seed: of the start; layer number i starts from random numbers of its own.

    Returns:
        Name of the layer -> what is stored of it, in the order of the model; the name is empty where it is the whole.

    Raises:
        QasError: a target that no layer has, options that fit no layer, a circuit that is missing or superfluous, or a
            model that carries adapters; the model is as it was then.
    """
    from peft import get_peft_model

    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise QasError("the model carries adapters already; take them off with detach")
    if method.takes_circuit and circuit is None:
        raise QasError(f"method {method.name} needs a run or an OpenQASM file")
    if circuit is not None and not method.takes_circuit:
        takers = " and ".join(name for name in METHODS if METHODS[name].takes_circuit)
        raise QasError(f"a run or circuit goes with the methods {takers}, got {method.name}")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, about layers that store their weights transposed
        layers, config = {}, None
        if method.injects:
            layers = target_layers(model, method.targets)
            for name, sides in layers.items():
                try:
                    method.check(*sides)
                except QasError as error:
                    raise QasError(f"{name} ({sides[0]} to {sides[1]} features): {error}") from None
            config = method.config(circuit, "|".join(map(re.escape, layers)))
            torch.manual_seed(seed)
            get_peft_model(model, config)  # in place; what it returns adds only saving and loading
        else:
            model.requires_grad_(False)
        parts = method.parts(model, layers, config, seed)
    share_maps(part for part in parts.values() if isinstance(part, Adapter))
    return parts


def detach(model: nn.Module, *, merge: bool = False) -> None:
    """Take all adapters off again, in place; with `merge` their effect stays in the weights.

    Raises:
        QasError: an adapter whose merged weight is not finite; nothing is changed then.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}
    for name, layer in layers.items():
        if merge and not torch.isfinite(cast(Any, layer).get_delta_weight(_NAME)).all():
            raise QasError(f"merging the adapter of {name} would put NaN or infinity into the weights")
    for name, layer in layers.items():
        base = layer.get_base_layer()
        if merge:
            # A parameter of its own: the old one may be the embedding too.
            weight = cast(nn.Parameter, base.weight)
            base.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
            cast(Any, layer).merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, base)
    if layers:
        del model.peft_config


def total_bits(parts: Mapping[str, Part], circuit: Architecture | Architectures | None = None) -> int:
    """Bits of all that is stored, and of the description of a found circuit, once."""
    return sum(p.stored_bits for p in parts.values()) + (0 if circuit is None else circuit.description_bits)
