"""One registry helper for every choice point: schedulers, perf models, backends, routers, engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Generic, TypeVar

from foundation.errors import InternalError, UserError, near_names

T = TypeVar("T")


class Registry(Generic[T]):
    """Named choices of one kind. A duplicate name raises; an unknown one lists the names that exist.

    A choice is registered either directly (`register`) or by the module that holds it (`register_lazy`), which
    is imported when the choice is first used, so that heavy dependencies load only where they are needed.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
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
        if name in self._choices:
            return self._choices[name]
        if name in self._modules:
            module, attribute = self._modules[name]
            choice: T = getattr(import_module(module), attribute)
            self._choices[name] = choice
            return choice
        raise UserError(f"unknown {self.kind} {name!r}", fix=near_names(name, self), field=field)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._choices, *self._modules}))

    def __contains__(self, name: str) -> bool:
        return name in self._choices or name in self._modules

    def _claim(self, name: str) -> None:
        if name in self:
            raise InternalError(f"{self.kind} {name!r} is registered twice")
