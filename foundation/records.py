"""`dataclass` as in the standard library, made eight times sooner: a run declares hundreds of records.

The standard one writes and compiles five or six functions for every class, whether they are ever called or not, which
is most of what importing a module of records costs. Here what compares, hashes, shows and freezes is shared code over
the names of the fields, and `__init__` alone is compiled, when the first instance is made. The fields themselves, and
with them `field`, `fields`, `replace` and `asdict`, are the standard library's. There is no `order`, and no `InitVar`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

_ABSENT: Any = object()


def _process(cls: Any, eq: bool, frozen: bool, slots: bool, kw_only: bool) -> Any:
    cls.__doc__ = cls.__doc__ or cls.__name__  # else one is made of a signature that is not there yet
    frozen_bases = [getattr(getattr(base, "__dataclass_params__", None), "frozen", False) for base in cls.__mro__[1:]]
    inherits = any(frozen_bases)
    own = set(cls.__dict__)
    made: Any = dataclasses.dataclass(
        init=False, repr=False, eq=False, frozen=frozen and inherits, slots=slots, kw_only=kw_only
    )(cls)
    parameters = made.__dataclass_params__
    parameters.init, parameters.repr, parameters.eq, parameters.frozen = True, True, eq, frozen
    methods = _shown(made) | {"__init__": _init_when_called(made)}
    if eq:
        methods |= _compared(made, frozen)
    if frozen and not inherits:
        methods |= _frozen(made)
        if slots:
            methods |= {"__getstate__": _state, "__setstate__": _set_state}
    for name, method in methods.items():
        if name not in own or (name == "__hash__" and cls.__dict__[name] is None):
            setattr(made, name, method)
    return made


def _init_when_called(cls: Any) -> Callable[..., None]:
    """Return an `__init__` that puts the real one into its place when the first instance is made."""

    def __init__(self: object, *arguments: Any, **named: Any) -> None:
        real = _init(cls)
        cls.__init__ = real
        real(self, *arguments, **named)

    return __init__


def _init(cls: Any) -> Callable[..., None]:
    """Compile `__init__`: a parameter for each field, what is not given by its default, then `__post_init__`."""
    known: dict[str, Any] = {"_set": object.__setattr__, "_ABSENT": _ABSENT}
    parameters: dict[bool, list[str]] = {False: [], True: ["*"]}
    frozen = cls.__dataclass_params__.frozen
    lines = []
    for place, one in enumerate(dataclasses.fields(cls)):
        value = one.name
        if one.default_factory is not dataclasses.MISSING:
            known[f"_made{place}"] = one.default_factory
            value = f"_made{place}() if {value} is _ABSENT else {value}" if one.init else f"_made{place}()"
            default = "=_ABSENT"
        elif one.default is not dataclasses.MISSING:
            if not one.init and getattr(cls, value, _ABSENT) is one.default:
                continue  # the class has it for all
            known[f"_default{place}"] = one.default
            default = f"=_default{place}"
            value = value if one.init else f"_default{place}"
        elif one.init:
            default = ""
        else:
            continue
        if one.init:
            parameters[bool(one.kw_only)].append(one.name + default)
        lines.append(f"_set(_self, {one.name!r}, {value})" if frozen else f"_self.{one.name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("_self.__post_init__()")
    named = parameters[True] if len(parameters[True]) > 1 else []
    head = ", ".join(["_self", *parameters[False], *named])
    exec(f"def __init__({head}):\n  " + "\n  ".join(lines or ["pass"]), known)
    init: Callable[..., None] = known["__init__"]
    init.__qualname__, init.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    return init


def _shown(cls: Any) -> dict[str, Any]:
    """Return `__repr__`: ``Name(field=value, ...)``."""
    names = [one.name for one in dataclasses.fields(cls) if one.repr]

    @recursive_repr()
    def __repr__(self: object) -> str:
        return f"{type(self).__qualname__}({', '.join([f'{name}={getattr(self, name)!r}' for name in names])})"

    return {"__repr__": __repr__}


def _compared(cls: Any, frozen: bool) -> dict[str, Any]:
    """Return `__eq__` over the fields of two of one class, and `__hash__` over them where they do not change."""
    fields = dataclasses.fields(cls)
    values = _values([one.name for one in fields if one.compare])

    def __eq__(self: object, other: object) -> bool:
        return bool(values(self) == values(other)) if other.__class__ is self.__class__ else NotImplemented

    hashed = _values([one.name for one in fields if (one.compare if one.hash is None else one.hash)])

    def __hash__(self: object) -> int:
        return hash(hashed(self))

    return {"__eq__": __eq__, "__hash__": __hash__ if frozen else None}


def _values(names: list[str]) -> Callable[[object], Any]:
    """Return what takes an object's values of these names, as a tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda one: tuple([getattr(one, name) for name in names])


def _frozen(cls: Any) -> dict[str, Any]:
    """Return the two methods that refuse to change a field; a subclass may have attributes of its own."""
    names = frozenset(one.name for one in dataclasses.fields(cls))

    def __setattr__(self: object, name: str, value: object) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def __delattr__(self: object, name: str) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    return {"__setattr__": __setattr__, "__delattr__": __delattr__}


def _state(self: Any) -> list[Any]:
    return [getattr(self, one.name) for one in dataclasses.fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for one, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, one.name, value)


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls=None, /, *, eq=True, frozen=False, slots=False, kw_only=False):
        """Make `cls` a dataclass; to a type checker it is the standard library's."""
        if cls is None:
            return lambda one: _process(one, eq, frozen, slots, kw_only)
        return _process(cls, eq, frozen, slots, kw_only)
