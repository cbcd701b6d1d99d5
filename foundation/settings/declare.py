"""The declarations: a setting, a choice between records, a section, a list of records; and how they are read back.

A record is a frozen dataclass whose fields are declared with the functions below. Names are flat: a setting has the
same name in its record, on the command line and in a file, however deep its record stands, and a name means one thing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import field
from typing import Any, Literal, get_args

from foundation.errors import InternalError
from foundation.records import dataclass
from foundation.registry import Registry

Kind = Literal["int", "float", "str", "bool", "Path"]
Bearing = Literal["results", "way", "output"]
_METADATA = "declaration"


@dataclass(frozen=True, slots=True)
class Setting:
    """One value. `name`, `kind` and `optional` (None: absent, or decided by something else) come from the field.

    - `help` says what it means and `unit` in what unit; `shown_default` what decides where the default is None;
    - `least`, `most` bound a number from both sides, `above` from below without the bound itself; `choices` names the
      texts that are allowed;
    - `aliases` are other spellings; one that begins with ``no_`` turns a switch off;
    - `bearing`: whether it can change the results, only the way to the same ones, or only what is written and said;
    - `implies`: giving it makes the choice that reads it, where no other is made;
    - `like`: settings of other choices that ask for nearly the same;
    - `title`: the heading under which it is listed, where that is not its record's;
    - `folder`: its path may be a folder's; one that ends with a slash is refused elsewhere;
    - `infinite`: a number may be ``inf``, too.
    """

    default: Any
    help: str
    unit: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    choices: Iterable[str] | None = None
    aliases: tuple[str, ...] = ()
    shown_default: str = ""
    bearing: Bearing = "results"
    implies: bool = False
    like: tuple[str, ...] = ()
    title: str = ""
    folder: bool = False
    infinite: bool = False
    name: str = ""
    kind: Kind = "str"
    optional: bool = False

    @property
    def meaning(self) -> str:
        """What it means, with its unit."""
        return f"{self.help}, {self.unit}" if self.unit else self.help


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the records that a registry holds, chosen by name; its own settings follow from the choice.

    `default` None: the choice that a given setting `implies`, else `otherwise`, or absent where `optional`. `title`
    heads the settings of the records in lists.
    """

    registry: Registry[Any]
    default: str | None
    help: str
    title: str = ""
    otherwise: str = ""
    aliases: tuple[str, ...] = ()
    shown_default: str = ""
    bearing: Bearing = "results"
    name: str = ""
    optional: bool = False

    @property
    def meaning(self) -> str:
        """What it means."""
        return self.help


@dataclass(frozen=True, slots=True)
class Section:
    """A record within a record; `title` heads its settings in lists (empty: those of the record around it).

    `grouped`: in a file its settings and lists may also stand together, under the section's own name.
    """

    record: type
    title: str = ""
    grouped: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Records:
    """A list of records in a file; what stands beside the list are their common values. One is the plain case."""

    record: type
    help: str
    name: str = ""


Declaration = Setting | Choice | Section | Records


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    choices: Iterable[str] | None = None,
    aliases: tuple[str, ...] = (),
    shown_default: str = "",
    bearing: Bearing = "results",
    implies: bool = False,
    like: tuple[str, ...] = (),
    title: str = "",
    folder: bool = False,
    infinite: bool = False,
) -> Any:
    """Declare a field of type int, float, str (or a `Literal` of texts), bool or Path, or one of these or None."""
    declaration = Setting(
        default,
        help,
        unit,
        least,
        above,
        most,
        choices,
        aliases,
        shown_default,
        bearing,
        implies,
        like,
        title,
        folder,
        infinite,
    )
    return field(default=default, metadata={_METADATA: declaration})


def choice(
    registry: Registry[Any],
    default: str | None,
    help: str,
    *,
    title: str = "",
    otherwise: str = "",
    aliases: tuple[str, ...] = (),
    shown_default: str = "",
    bearing: Bearing = "results",
) -> Any:
    """Declare a field that holds one of the records in `registry`. See `Choice`."""
    declaration = Choice(registry, default, help, title, otherwise, aliases, shown_default, bearing)
    chosen = default or otherwise
    metadata = {_METADATA: declaration}
    if not chosen:
        return field(default=None, metadata=metadata)
    return field(default_factory=lambda: registry.get(chosen)(), metadata=metadata)


def section(record: type, title: str = "", *, grouped: bool = False) -> Any:
    """Declare a field that holds a record of settings. See `Section`."""
    return field(default_factory=record, metadata={_METADATA: Section(record, title, grouped)})


def records(record: type, help: str) -> Any:
    """Declare a field that holds a tuple of records, by default a single one."""
    return field(default_factory=lambda: (record(),), metadata={_METADATA: Records(record, help)})


_DECLARED: dict[type, tuple[Declaration, ...]] = {}


def declared(record: type) -> tuple[Declaration, ...]:
    """Return the declarations of a record in the order of its fields.

    A field without one is an `InternalError`, and so is a record that may change: equal ones are taken for one another.
    """
    if record not in _DECLARED:
        if not (dataclasses.is_dataclass(record) and record.__dataclass_params__.frozen):  # type: ignore[attr-defined]
            raise InternalError(f"{record.__name__} holds settings and is no @dataclass(frozen=True)")
        _DECLARED[record] = tuple(_bound(record, one) for one in dataclasses.fields(record))
    return _DECLARED[record]


def _bound(record: type, one: dataclasses.Field[Any]) -> Declaration:
    declaration: Declaration | None = one.metadata.get(_METADATA)
    if declaration is None:
        raise InternalError(
            f"{record.__name__}.{one.name} is not declared by setting(), choice(), section(), records()"
        )
    if isinstance(declaration, Section | Records):
        return dataclasses.replace(declaration, name=one.name)
    kind, optional = _annotation(record, one)
    if isinstance(declaration, Choice):
        return dataclasses.replace(declaration, name=one.name, optional=optional)
    if kind not in get_args(Kind) and declaration.choices is not None:
        kind = "str"  # a `Literal` by its name
    if kind not in get_args(Kind):
        raise InternalError(f"{record.__name__}.{one.name}: a setting cannot be a {kind}")
    return dataclasses.replace(declaration, name=one.name, kind=kind, optional=optional)


def _annotation(record: type, one: dataclasses.Field[Any]) -> tuple[Any, bool]:
    """Return the type of a field as text, and whether it may be None."""
    text = one.type if isinstance(one.type, str) else getattr(one.type, "__name__", str(one.type))
    plain, bar, rest = text.partition(" | ")
    if bar and rest != "None":
        raise InternalError(f"{record.__name__}.{one.name}: {text} is more than one type")
    return plain, bool(bar)
