"""What a run says of its settings: as values that repeat it, and as text with meaning and unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from foundation.records import dataclass
from foundation.settings import Choice, Records, Section, Setting, declared
from foundation.settings.reading import flat
from foundation.settings.values import to_file
from orchestrator.settings.specification import RunSpec


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """One setting: its flag, value as text, meaning with unit, and whether its value is not the default."""

    name: str
    value: str
    meaning: str
    given: bool


def repeating(spec: RunSpec) -> dict[str, Any]:
    """Return the values that repeat a run when a file gives them again: all that decide, and the way that was taken.

    Where results and records are written is left out, and so is a way that is the default one. (Of the engines in a
    list every value that is stated decides.)
    """
    left_out = {one.name for one, value in _values(spec) if not _repeats(one, value)}
    return {name: value for name, value in flat(spec).items() if name not in left_out}


def shown(decided: object, given: object) -> list[ShownSetting]:
    """Return the settings that decide the results, as text, in the order of the flags; `given`: what was asked for."""
    asked = {one.name: value for one, value in _values(given) if value != _default(one)}
    rows = [(one, value) for one, value in _values(decided) if one.bearing == "results"]
    return [ShownSetting(f"--{one.name}", _text(one, value), one.meaning, one.name in asked) for one, value in rows]


def input_paths(record: object) -> list[Path]:
    """Return the files that a run reads: every path among the settings that decide its results."""
    return [value for one, value in _values(record) if one.bearing == "results" and isinstance(value, Path)]


def _repeats(one: Setting | Choice, value: object) -> bool:
    return one.bearing == "results" or (one.bearing == "way" and value != _default(one))


def _values(record: object) -> Iterator[tuple[Setting | Choice, Any]]:
    """Yield every setting and choice of a record with its value; choices by name, lists of records left out."""
    for one in declared(type(record)):
        value = getattr(record, one.name)
        if isinstance(one, Section):
            yield from _values(value)
        elif isinstance(one, Records):
            if len(value) == 1:
                yield from _values(value[0])
        elif isinstance(one, Choice):
            yield one, None if value is None else one.registry.name_of(type(value))
            if value is not None:
                inner = _values(value)
                yield from inner if one.bearing == "results" else ((replace(s, bearing="way"), v) for s, v in inner)
        else:
            yield one, value


def _default(one: Setting | Choice) -> Any:
    return one.default if isinstance(one, Setting) else one.default or one.otherwise or None


def _text(one: Setting | Choice, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return one.shown_default or "none"
    return str(to_file(value))
