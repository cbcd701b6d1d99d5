"""The one typed reader of fields: every problem of a file in one error, each with its line and its place.

    fields = Fields.of(read_json(path, "hardware configuration"))
    name = fields.text("name")
    for request in fields.objects("requests"):
        arrival = request.integer("arrival", low=0)          # a problem is called requests[3].arrival
    fields.only({"name", "requests"})
    fields.finish()                                          # raises what was found

A getter that finds a problem notes it and returns a harmless value of the right type, so that reading goes on to the
end and the user learns of all wrong fields at once. A field that is null counts as absent. Where a getter takes several
names, the first that is present counts. A field that is read twice is told once, and so is one whose contents are not
what they should be: nothing follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from foundation.documents import Document
from foundation.errors import UserError, near_names, raise_all
from foundation.key_paths import KeyPath, shown_key_path
from foundation.printable import brief

D = TypeVar("D")
T = TypeVar("T")
LARGEST = 2**24
"""No dimension of a model or a device comes near; products of a few stay within 64 bits."""
INT64_MAX = 2**63 - 1
SMALLEST_NUMBER, LARGEST_NUMBER = 1e-15, 1e15
"""Numbers other than 0 are taken between these, so that their products and quotients stay finite."""
_LINES_LOOKED_UP = 20
"""Of the problems of one file: looking up the line of a value reads the text again."""


class _Required(Enum):
    """Marks a getter without a default: its field must be there."""

    REQUIRED = 0


REQUIRED = _Required.REQUIRED
_Absent = Literal[_Required.REQUIRED]


class Fields:
    """Typed access to one object of a document; `finish` raises the problems of the whole document."""

    def __init__(
        self,
        values: Mapping[str, Any],
        document: Document,
        place: KeyPath = (),
        problems: list[UserError] | None = None,
    ) -> None:
        self.values, self.document, self.place = values, document, place
        self.problems: list[UserError] = [] if problems is None else problems
        self._faulty: set[str] = set()
        self._asked: set[str] = set()
        self._objects: dict[str, Fields] = {}

    @classmethod
    def of(cls, document: Document) -> Fields:
        """Return the fields of a document whose top level is an object; anything else there is a `UserError`."""
        if not isinstance(document.value, dict):
            said = f"the {document.what} is {brief(document.value)}, not an object of named fields"
            raise UserError(said, path=document.path, line=document.line(()), fix="write the fields by name")
        return cls(document.value, document)

    @property
    def path(self) -> str | Path | None:
        """The file."""
        return self.document.path

    # --- what is there ---------------------------------------------------------------------------------------------

    def has(self, *names: str) -> bool:
        """Whether any of `names` is present and not null."""
        self._asked.update(names)
        return any(self.values.get(name) is not None for name in names)

    def names(self) -> Iterator[str]:
        """Return the names that are present."""
        return iter(self.values)

    def unread(self) -> tuple[str, ...]:
        """Return the names that are present and not null, but were never asked for, in the file's order."""
        return tuple(name for name, value in self.values.items() if value is not None and name not in self._asked)

    def pass_over(self, *names: str) -> None:
        """Count `names` as asked for: the values of others make that they do not matter."""
        self._asked.update(names)

    def suppose(self, values: Mapping[str, Any]) -> None:
        """Take `values` for those of names that are absent; a name that is there and null stays null."""
        absent = {name: value for name, value in values.items() if name not in self.values}
        self.values = {**self.values, **absent}
        self._asked.update(absent)

    def only(self, known: Iterable[str]) -> None:
        """Report every field that is not in `known`, with the near names."""
        expected = set(known)
        for name in self.values:
            if name not in expected:
                self.problem("unknown field", name, near_names(name, expected))

    def one_of(self, *names: str) -> str:
        """Return the one of `names` that is present; several or none are a problem."""
        present = [name for name in names if self.has(name)]
        if len(present) > 1:
            self.problem(f"{' and '.join(present)} are both given", present[1], f"leave out all but {present[0]}")
        elif not present:
            self.problem(f"{' or '.join(names)} is missing")
        return present[0] if present else names[0]

    def sound(self, *names: str) -> bool:
        """Whether nothing was wrong with any of `names` so far: what is to be compared must be the file's own."""
        return self._faulty.isdisjoint(names)

    # --- single values ---------------------------------------------------------------------------------------------

    @overload
    def integer(self, *names: str, low: int = ..., high: int = ...) -> int: ...
    @overload
    def integer(self, *names: str, low: int = ..., high: int = ..., default: D) -> int | D: ...
    def integer(
        self, *names: str, low: int = -INT64_MAX, high: int = INT64_MAX, default: D | _Absent = REQUIRED
    ) -> int | D:
        """Return a whole number from `low` to `high`."""
        return self._integer(names, low, high, default)

    @overload
    def positive_int(self, *names: str, high: int = ...) -> int: ...
    @overload
    def positive_int(self, *names: str, high: int = ..., default: D) -> int | D: ...
    def positive_int(self, *names: str, high: int = LARGEST, default: D | _Absent = REQUIRED) -> int | D:
        """Return a whole number from 1 to `high`."""
        return self._integer(names, 1, high, default)

    @overload
    def number(self, *names: str, low: float = ..., high: float = ..., above: float | None = ...) -> float: ...
    @overload
    def number(
        self, *names: str, low: float = ..., high: float = ..., above: float | None = ..., default: D
    ) -> float | D: ...
    def number(
        self,
        *names: str,
        low: float = -LARGEST_NUMBER,
        high: float = LARGEST_NUMBER,
        above: float | None = None,
        default: D | _Absent = REQUIRED,
    ) -> float | D:
        """Return a number from `low` to `high`, and more than `above` where that is given."""
        return self._number(names, (low, high, above), default)

    @overload
    def positive_number(self, *names: str, high: float = ...) -> float: ...
    @overload
    def positive_number(self, *names: str, high: float = ..., default: D) -> float | D: ...
    def positive_number(self, *names: str, high: float = LARGEST_NUMBER, default: D | _Absent = REQUIRED) -> float | D:
        """Return a number above zero, `high` at most."""
        return self._number(names, (0.0, high, 0.0), default)

    @overload
    def boolean(self, *names: str) -> bool: ...
    @overload
    def boolean(self, *names: str, default: D) -> bool | D: ...
    def boolean(self, *names: str, default: D | _Absent = REQUIRED) -> bool | D:
        """Return true or false."""
        return self._take(names, lambda value: isinstance(value, bool), "true or false", False, default)

    @overload
    def text(self, *names: str) -> str: ...
    @overload
    def text(self, *names: str, default: D) -> str | D: ...
    def text(self, *names: str, default: D | _Absent = REQUIRED) -> str | D:
        """Return a string."""
        return self._take(names, lambda value: isinstance(value, str), "a string", "", default)

    @overload
    def choice(self, name: str, choices: Sequence[str]) -> str: ...
    @overload
    def choice(self, name: str, choices: Sequence[str], *, default: D) -> str | D: ...
    def choice(self, name: str, choices: Sequence[str], *, default: D | _Absent = REQUIRED) -> str | D:
        """Return one of `choices`; of a string that is none, the near ones are named."""
        self._asked.add(name)
        value = self.values.get(name)
        if isinstance(value, str) and value not in choices:
            self.problem(f"{brief(value)} is unknown", name, near_names(value, choices))
            return choices[0]
        return self._take((name,), lambda value: value in choices, f"one of {', '.join(choices)}", choices[0], default)

    # --- what is made of several -----------------------------------------------------------------------------------

    def object(self, name: str) -> Fields:
        """Return the object under `name` (an empty one where it is absent), each time the same.

        Of a value that is none, that is all there is to tell: what is asked of it then is answered in silence.
        """
        self._asked.add(name)
        if name in self._objects:
            return self._objects[name]
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict) and self.sound(name):
            self.wrong(name, "an object")
            self._faulty.add(name)
        self._objects[name] = self._inner(value, (name,))
        return self._objects[name]

    def objects(self, name: str) -> Sequence[Fields]:
        """Return the objects of the list under `name` (none where it is absent); see `object`."""
        items = self.items(name, default=())
        for index, item in enumerate(items):
            if not isinstance(item, dict):
                self._faulty.add(name)
                self._wrong_item(name, index, "an object")
        return [self._inner(item, (name, index)) for index, item in enumerate(items)]

    @overload
    def items(self, name: str) -> Sequence[Any]: ...
    @overload
    def items(self, name: str, *, default: D) -> Sequence[Any] | D: ...
    def items(self, name: str, *, default: D | _Absent = REQUIRED) -> Sequence[Any] | D:
        """Return a list, whatever is in it."""
        nothing: Sequence[Any] = ()
        return self._take((name,), lambda value: isinstance(value, list), "a list", nothing, default)

    def integers(self, name: str, *, low: int = -INT64_MAX, high: int = INT64_MAX) -> tuple[int, ...]:
        """Return a list of whole numbers from `low` to `high` (none where it is absent)."""
        return self._alike(name, _whole_range(low, high), lambda item: type(item) is int and low <= item <= high)

    def numbers(self, name: str, *, low: float = -LARGEST_NUMBER, high: float = LARGEST_NUMBER) -> tuple[float, ...]:
        """Return a list of numbers from `low` to `high` (none where it is absent)."""
        expected = _number_range(low, high, None)
        found = self._alike(name, expected, lambda item: _is_number(item) and low <= item <= high)
        return tuple(map(float, found))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings (none where it is absent)."""
        return self._alike(name, "a string", lambda item: isinstance(item, str))

    # --- problems --------------------------------------------------------------------------------------------------

    def wrong(self, name: str, expected: str) -> None:
        """Report that the value of `name` is not what is `expected` (``a whole number``)."""
        self.problem(f"{brief(self.values.get(name))} is not {expected}", name)

    def problem(self, text: str, name: str | None = None, fix: str = "") -> None:
        """Report a problem of the field `name`, or of several fields together."""
        place = self.place if name is None else (*self.place, name)
        self._report(text, place, fix)

    def finish(self) -> None:
        """Raise a `UserError` with all the problems found in the document, if there are any."""
        raise_all(self.problems)

    def _report(self, text: str, place: KeyPath, fix: str = "") -> None:
        looked_up = len(self.problems) < _LINES_LOOKED_UP
        line = self.document.line(place) if looked_up and place else None
        self.problems.append(UserError(text, path=self.path, line=line, field=shown_key_path(place) or None, fix=fix))

    def _wrong_item(self, name: str, index: int, expected: str) -> None:
        place = (*self.place, name, index)
        self._report(f"{brief(self.values[name][index])} is not {expected}", place)

    def _integer(self, names: tuple[str, ...], low: int, high: int, default: D | _Absent) -> int | D:
        def fits(value: Any) -> bool:
            return type(value) is int and low <= value <= high

        return self._take(names, fits, _whole_range(low, high), max(low, min(high, 1)), default)

    def _number(
        self, names: tuple[str, ...], limits: tuple[float, float, float | None], default: D | _Absent
    ) -> float | D:
        low, high, above = limits

        def fits(value: Any) -> bool:
            if not _is_number(value) or not low <= value <= high or 0 < abs(value) < SMALLEST_NUMBER:
                return False
            return above is None or value > above

        harmless = max(low, min(high, 1.0))
        found = self._take(names, fits, _number_range(low, high, above), harmless, default)
        return float(found) if isinstance(found, int) and not isinstance(found, bool) else found

    def _alike(self, name: str, expected: str, fits: Callable[[Any], bool]) -> tuple[Any, ...]:
        """Return the items of a list that fit; those that do not are problems."""
        items = self.items(name, default=())
        for index, item in enumerate(items):
            if not fits(item):
                self._faulty.add(name)
                self._wrong_item(name, index, expected)
        return tuple(item for item in items if fits(item))

    def _inner(self, value: Any, inside: KeyPath) -> Fields:
        """Return the fields of an object, none of what is absent; what is none has told its one problem."""
        is_object = isinstance(value, dict)
        heard = self.problems if is_object or value is None else []
        return Fields(value if is_object else {}, self.document, (*self.place, *inside), heard)

    def _take(
        self, names: tuple[str, ...], fits: Callable[[Any], bool], expected: str, harmless: T, default: D | _Absent
    ) -> T | D:
        """Return the first of `names` that is present, if it `fits`; note a problem otherwise."""
        self._asked.update(names)
        name = next((name for name in names if self.values.get(name) is not None), None)
        if name is None:
            if not isinstance(default, _Required):
                return default
            if self.sound(*names):
                self.problem(f"{' or '.join(names)} is missing", fix=f"give {expected}")
            self._faulty.update(names)
            return harmless
        value: T = self.values[name]
        if fits(value):
            return value
        if self.sound(*names):
            self.wrong(name, expected)
        self._faulty.update(names)
        return harmless


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole_range(low: int, high: int) -> str:
    if low == -INT64_MAX and high == INT64_MAX:
        return "a whole number"
    if high == INT64_MAX:
        return f"a whole number of at least {low}"
    return f"a whole number from {low} to {high}"


def _number_range(low: float, high: float, above: float | None) -> str:
    parts = []
    if above is not None:
        parts.append(f"above {above:g}")
    elif low != -LARGEST_NUMBER:
        parts.append(f"of at least {low:g}")
    if high != LARGEST_NUMBER or above is not None:
        parts.append(f"of at most {high:g}" if not parts else f"and at most {high:g}")
    return " ".join(["a number", *parts])
