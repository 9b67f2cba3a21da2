"""What circuit adapters need of Hugging Face peft, its undocumented parts among it: checked here, imported here."""

from __future__ import annotations

import warnings
from importlib.metadata import PackageNotFoundError, version

from qas.errors import MissingExtraError

OLDEST, NEWEST = (0, 21), (0, 21)
"""Versions of peft that the tests have run with; older ones cannot save methods that they do not know by name."""


def _told(release: tuple[int, ...]) -> str:
    return ".".join(map(str, release))


TESTED = f"peft>={_told(OLDEST)}, tested up to {_told(NEWEST)}"


def check_peft() -> None:
    """Refuse to go on without peft or with one that is too old, and warn of one that is newer than was tested.

    Raises:
        MissingExtraError: no peft, no transformers, or a peft that is too old.
    """
    try:
        found = version("peft")
        version("transformers")
    except PackageNotFoundError as error:
        raise MissingExtraError(f"fine-tuning with Hugging Face models ({TESTED}; {error.name})", "peft") from None
    release = tuple(int("".join(filter(str.isdigit, part)) or 0) for part in found.split(".")[:2])
    if release < OLDEST:
        raise MissingExtraError(f"the peft integration ({TESTED}; found {found})", "peft")
    if release > NEWEST:
        warnings.warn(f"circuit adapters want {TESTED}; found {found}, which may differ", stacklevel=2)


check_peft()

try:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PeftConfig
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
    from peft.tuners.tuners_utils import (
        BaseTuner,
        BaseTunerLayer,
        _maybe_include_all_linear_layers,
        check_adapters_to_merge,
    )
    from peft.utils import (
        SAFETENSORS_WEIGHTS_NAME,
        TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
        WEIGHTS_NAME,
        AuxiliaryTrainingWrapper,
    )
    from peft.utils.other import get_pattern_key
except ImportError as error:
    raise MissingExtraError(f"the peft integration ({TESTED}; found {version('peft')}: {error})", "peft") from None

OVERRIDDEN = (
    "_cast_adapter_dtype",
    "_check_target_module_exists",
    "_create_and_replace",
    "_get_adapter_state_dict",
    "_prepare_adapter_config",
    "_remap_adapter_state_dict_for_load",
    "_replace_module",
)
"""Methods of peft's tuners that the circuit tuner overrides or calls."""

_lost = [name for name in OVERRIDDEN if not hasattr(BaseTuner, name)]
if _lost:
    raise MissingExtraError(
        f"the peft integration ({TESTED}; found {version('peft')}, whose tuners lack {', '.join(_lost)})", "peft"
    )

__all__ = [
    "PEFT_TYPE_TO_CONFIG_MAPPING",
    "PEFT_TYPE_TO_PREFIX_MAPPING",
    "PEFT_TYPE_TO_TUNER_MAPPING",
    "SAFETENSORS_WEIGHTS_NAME",
    "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING",
    "WEIGHTS_NAME",
    "AuxiliaryTrainingWrapper",
    "BaseTuner",
    "BaseTunerLayer",
    "PeftConfig",
    "_maybe_include_all_linear_layers",
    "check_adapters_to_merge",
    "get_pattern_key",
]
