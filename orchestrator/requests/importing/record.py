"""One JSON object of a workload file, read field by field; what is wrong has the file, the line and the field."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from foundation.errors import UserError, near_names
from foundation.key_paths import KeyPath, shown_key_path
from foundation.printable import brief

Line = Callable[[KeyPath], int | None]
"""Where a value stands; None where nobody knows."""


class _Kind(NamedTuple):
    """Which types a number may have, and what they are called."""

    types: tuple[type, ...]
    named: str


_WHOLE = _Kind((int,), "a whole number")
_NUMBER = _Kind((int, float), "a number")


class Record:
    """The object at `place` in a record of a file. A field that is null counts as absent."""

    __slots__ = ("_line", "_path", "place", "values")

    def __init__(self, values: Mapping[str, Any], path: Path, line: Line, place: KeyPath = ()) -> None:
        self.values, self._path, self._line, self.place = values, path, line, place

    @classmethod
    def of(cls, value: Any, path: Path, line: Line, place: KeyPath = ()) -> Record:
        """Return the record of a value, which must be an object."""
        if isinstance(value, dict):
            return cls(value, path, line, place)
        said = f"{brief(value)} is no object" if place else f"the record is {brief(value)}, not an object"
        raise _wrong(said, path, line, place, "write its fields by name")

    @property
    def line(self) -> int | None:
        """The line on which the record stands."""
        return self._line(self.place)

    def wrong(self, what: str, name: str | KeyPath, fix: str) -> UserError:
        """Return the error of a field, or of a place below one."""
        return _wrong(what, self._path, self._line, (*self.place, *((name,) if isinstance(name, str) else name)), fix)

    def has(self, name: str) -> bool:
        """Whether the field is there."""
        return self.values.get(name) is not None

    def only(self, known: Sequence[str]) -> None:
        """Refuse fields that are not in `known`."""
        for name in self.values:
            if name not in known:
                raise self.wrong("unknown field", name, near_names(name, known))

    def first(self, *names: str, fix: str) -> str:
        """Return the first of `names` that is there; none is an error of the first."""
        found = next((name for name in names if self.has(name)), None)
        if found is None:
            raise self.wrong(f"{' or '.join(names)} is missing", names[0], fix)
        return found

    def whole(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """Return a whole number."""
        value: int = self._checked(self.values.get(name, default), name, (name,), low, high, _WHOLE)
        return value

    def whole_at(self, name: str, at: int, low: int, high: int) -> int:
        """Return a whole number of a list."""
        value: int = self._checked(self.list(name)[at], f"{name}[{at}]", (name, at), low, high, _WHOLE)
        return value

    def number(self, name: str, low: float, high: float) -> float:
        """Return a number."""
        value: float = self._checked(self.values.get(name), name, (name,), low, high, _NUMBER)
        return value

    def number_at(self, name: str, at: int, low: float, high: float) -> float:
        """Return a number of a list."""
        value: float = self._checked(self.list(name)[at], f"{name}[{at}]", (name, at), low, high, _NUMBER)
        return value

    def text(self, name: str) -> str:
        """Return a text."""
        value = self.values.get(name)
        if isinstance(value, str):
            return value
        what = f"{name} is missing" if value is None else f"{brief(value)} is no text"
        raise self.wrong(what, name, "give a text")

    def object(self, name: str) -> Record:
        """Return the object in a field."""
        value = self.values.get(name)
        if value is None:
            raise self.wrong(f"{name} is missing", name, "write its fields by name")
        return Record.of(value, self._path, self._line, (*self.place, name))

    def list(self, name: str) -> list[Any]:
        """Return the list in a field."""
        value = self.values.get(name)
        if isinstance(value, list):
            return value
        what = f"{name} is missing" if value is None else f"{brief(value)} is no list"
        raise self.wrong(what, name, "give a list")

    def objects(self, name: str) -> Iterator[Record]:
        """Yield the objects in a list, each when it is asked for."""
        return (self.object_at(name, at) for at in range(len(self.list(name))))

    def object_at(self, name: str, at: int) -> Record:
        """Return an object of a list."""
        return Record.of(self.list(name)[at], self._path, self._line, (*self.place, name, at))

    def inner(self, name: str, values: Mapping[str, Any]) -> Record:
        """Return the record of an object that a field holds as text."""
        return Record(values, self._path, lambda place: self._line((*self.place, name)), (*self.place, name))

    def _checked(self, value: Any, called: str, place: KeyPath, low: float, high: float, kind: _Kind) -> Any:
        if type(value) in kind.types and low <= value <= high:
            return value
        if value is None:
            said = f"{called} is missing"
        elif type(value) not in kind.types:
            said = f"{brief(value)} is not {kind.named}"
        else:
            said = f"{brief(value)} is too {'small' if value < low else 'large'}"
        fix = f"at most {high}" if type(value) in kind.types and value > high else f"at least {low}"
        raise self.wrong(said, place, fix)


def _wrong(what: str, path: Path, line: Line, place: KeyPath, fix: str) -> UserError:
    return UserError(what, path=path, line=line(place), field=shown_key_path(place) or None, fix=fix)
