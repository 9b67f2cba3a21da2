"""Make `gymnasium.make("qas/CircuitBuilder-v0")` work after a plain ``import qas``.

Importing Gymnasium here would triple the time ``import qas`` takes, and Gymnasium reads no entry points of other
packages. So the environment is registered at once if Gymnasium is loaded, and otherwise right after somebody loads it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

ENV_ID = "qas/CircuitBuilder-v0"


def register() -> None:
    """Register the environment with Gymnasium; further calls do nothing."""
    import gymnasium

    if ENV_ID not in gymnasium.registry:
        gymnasium.register(id=ENV_ID, entry_point="qas.envs.builder:CircuitBuilderEnv")


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        register()


class _Finder(importlib.abc.MetaPathFinder):
    _asking = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "gymnasium" or self._asking:
            return None
        self._asking = True  # the search below comes by here again
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def register_when_loaded() -> None:
    """Register now if Gymnasium is loaded, else when it is."""
    if "gymnasium" in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _Finder())
