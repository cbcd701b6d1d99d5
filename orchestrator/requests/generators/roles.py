"""One distribution in several roles: the settings of a choice, with the role in their names.

`in_role` makes, of the registry of distributions, that of a role: ``input`` has a `lognormal` whose settings are
``input_mean``, ``input_cv`` and so on. A distribution that a plugin adds is in all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from foundation.errors import InternalError
from foundation.records import dataclass
from foundation.registry import Registry
from foundation.settings import Setting, declared
from foundation.settings.reading import Problem
from orchestrator.requests.generators.lengths import LengthDistribution, distributions

_METADATA = "declaration"
_WORDS = {"input": "prompts", "output": "answers", "total": "prompts with their answers"}


@dataclass(frozen=True)
class InRole:
    """A distribution whose settings have the names of a role; `plain` is the distribution itself."""

    def plain(self) -> LengthDistribution:
        """Return the distribution with its own names."""
        raise InternalError("made by in_role")

    def problems(self) -> Iterator[Problem]:
        """Those of the distribution, in the role's names."""
        raise InternalError("made by in_role")


class _RoleRegistry(Registry[type[Any]]):
    """The distributions in one role, each made when it is asked for."""

    def __init__(self, role: str) -> None:
        super().__init__(distributions.kind)
        self._role = role

    def get(self, name: str, *, field: str | None = None) -> type[Any]:
        """See `Registry.get`."""
        plain = distributions.get(name, field=field)
        if name not in self._choices:
            self._choices[name] = _named(plain, self._role)
        return self._choices[name]

    def name_of(self, choice: type[Any]) -> str:
        """See `Registry.name_of`."""
        return next(name for name, one in self._choices.items() if one is choice)

    def __iter__(self) -> Iterator[str]:
        return iter(distributions)

    def __len__(self) -> int:
        return len(distributions)

    def __contains__(self, name: object) -> bool:
        return name in distributions


_REGISTRIES = {role: _RoleRegistry(role) for role in _WORDS}


def in_role(role: str) -> Registry[type[Any]]:
    """Return the registry of distributions with settings named for `role`: input, output or total."""
    return _REGISTRIES[role]


def _named(plain: type[Any], role: str) -> type[Any]:
    """Return a record like `plain` whose fields have the names of the role."""
    own = getattr(plain, "names", {})
    names = {one.name: own.get(one.name, f"{role}_{_short(one.name)}").format(role=role) for one in declared(plain)}
    body: dict[str, Any] = {"__annotations__": {}, "__module__": plain.__module__, "__doc__": plain.__doc__}
    for one in declared(plain):
        if not isinstance(one, Setting):
            raise InternalError(f"{plain.__name__}.{one.name}: a distribution has plain settings")
        words = one.help.format(them=_WORDS[role])
        aliases = tuple(alias.format(role=role) for alias in one.aliases)
        fitting = replace(one, name="", help=words, aliases=aliases)
        body["__annotations__"][names[one.name]] = f"{one.kind} | None" if one.optional else one.kind
        body[names[one.name]] = dataclasses.field(default=one.default, metadata={_METADATA: fitting})

    def make(self: Any) -> Any:
        return plain(**{short: getattr(self, long) for short, long in names.items()})

    def problems(self: Any) -> Iterator[Problem]:
        found = getattr(make(self), "problems", None)
        for problem in found() if found is not None else ():
            yield replace(problem, name=names[problem.name])

    body |= {"plain": make, "problems": problems}
    return dataclass(frozen=True)(type(f"{role.title()}{plain.__name__}", (InRole,), body))


def _short(name: str) -> str:
    """Return the name that a field has behind its role's: ``least`` is ``input_min``."""
    return {"least": "min", "most": "max", "tokens_each": "tokens"}.get(name, name)
