"""One registry helper for every choice point: schedulers, performance models, backends, text formats."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Generic, TypeVar

from foundation.errors import InternalError, UserError, near_names
from foundation.printable import shorten

T = TypeVar("T")


class Registry(Generic[T]):
    """Named choices of one kind. A duplicate name raises; an unknown one lists the names that exist.

    A choice registers itself (`register`), or is named with the module that holds it (`register_lazy`). With
    `package`, every module of that package may hold choices: dropping a file into it is all that adding one takes.
    A choice is looked for in the module of its own name first, so the others' dependencies load only when they must.
    """

    def __init__(self, kind: str, package: str | None = None) -> None:
        self.kind = kind
        self._package = package
        self._complete = package is None
        self._choices: dict[str, T] = {}
        self._modules: dict[str, tuple[str, str]] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate a class or factory to make it available under `name`."""

        def add(choice: T) -> T:
            self._claim(name)
            self._choices[name] = choice
            return choice

        return add

    def register_lazy(self, name: str, module: str, attribute: str) -> None:
        """Make `module.attribute` available under `name` without importing the module yet."""
        self._claim(name)
        self._modules[name] = (module, attribute)

    def get(self, name: str, *, field: str | None = None) -> T:
        """Return the choice called `name`; a `UserError` names the near ones (`field`: the flag it came from)."""
        self._look_for(name)
        if name in self._choices:
            return self._choices[name]
        if name in self._modules:
            module, attribute = self._modules[name]
            choice: T = getattr(import_module(module), attribute)
            return choice
        raise UserError(f"unknown {self.kind} '{shorten(name)}'", fix=near_names(name, self), field=field)

    def name_of(self, choice: T) -> str:
        """Return the name under which `choice` is registered."""
        for name in [*self._choices, *self._modules]:
            imported = name in self._choices or self._modules[name][0] in sys.modules
            if imported and self.get(name) is choice:
                return name
        raise InternalError(f"{choice!r} is no registered {self.kind}")

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._known()))

    def __len__(self) -> int:
        self._discover()
        return len(self._known())

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str):
            self._look_for(name)
        return name in self._known()

    def _known(self) -> set[str]:
        return {*self._choices, *self._modules}

    def _look_for(self, name: str) -> None:
        """Import the module called `name`, and where that is not enough all of them."""
        if name not in self._known():
            self._discover(name.replace("-", "_"))
        if name not in self._known():
            self._discover()

    def _discover(self, only: str | None = None) -> None:
        """Import the modules of the package, or the one called `only`, so that their choices register."""
        if self._complete or self._package is None:
            return
        for module in iter_modules(import_module(self._package).__path__):
            if only is None or module.name == only:
                import_module(f"{self._package}.{module.name}")
        self._complete = only is None

    def _claim(self, name: str) -> None:
        if name in self._known():
            raise InternalError(f"{self.kind} {name!r} is registered twice")
