"""Make `gymnasium.make("qas/CircuitBuilder-v0")` and its like work after a plain ``import qas``."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

ENV_ID = "qas/CircuitBuilder-v0"
EDITOR_ID = "qas/CircuitEditor-v0"


def register() -> None:
    """Register the environments with Gymnasium; further calls do nothing."""
    import gymnasium

    if ENV_ID not in gymnasium.registry:
        gymnasium.register(
            id=ENV_ID,
            entry_point="qas.envs.builder:CircuitBuilderEnv",
            vector_entry_point="qas.envs.vector:CircuitBuilderVectorEnv",
        )
    if EDITOR_ID not in gymnasium.registry:
        gymnasium.register(id=EDITOR_ID, entry_point="qas.envs.editor:CircuitEditorEnv")


def register_when_loaded() -> None:
    """Register now if Gymnasium is loaded, else when it is."""
    if "gymnasium" in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _Hook())  # type: ignore[arg-type]


class _Hook:
    # Gymnasium 1.4 reads no entry points, and importing it here would triple the time that ``import qas`` takes.
    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "gymnasium":
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]  # the search below would come by here again
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)  # type: ignore[arg-type]
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
