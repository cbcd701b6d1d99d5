"""Modules of compiled functions, once as they are and once as plain Python."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

import pytest

from foundation.compiling import SWITCH, compiled, compiles, inner


def both_ways(name: str) -> dict[str, ModuleType]:
    """Return the module `name` as plain Python, and compiled where there is a compiler."""
    found = {"plain": plain_module(name)}
    return {**found, "compiled": import_module(name)} if compiles() else found


def plain_module(name: str) -> ModuleType:
    """Return the module `name` as plain Python; whoever has imported it, or does so later, has it as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SWITCH, "0")
        compiles.cache_clear()
        for loaded in _of_both():
            package, _, last = loaded.rpartition(".")
            patch.delitem(sys.modules, loaded)
            patch.delattr(sys.modules[package], last)
        made = import_module(name)
        for loaded in _of_both():
            package, _, last = loaded.rpartition(".")
            del sys.modules[loaded]
            delattr(sys.modules[package], last)
    compiles.cache_clear()
    return made


def _of_both() -> list[str]:
    """Return the modules that have compiled functions, and those of the packages around them, which call them."""
    apart, made = (compiled.__module__, __name__), (compiled, inner)
    loaded = [name for name in sys.modules if name not in apart]
    users = [name for name in loaded if any(one in made for one in _decorators(sys.modules[name]))]
    return [name for name in loaded if name in users or ".compiled." in name]


def _decorators(module: ModuleType) -> tuple[object, object]:
    return getattr(module, "compiled", None), getattr(module, "inner", None)
