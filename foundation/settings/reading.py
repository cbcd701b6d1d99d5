"""From given values to a record: every name known, every value right, nothing given that nobody reads.

All problems are found before one error tells them. What stands in a list of records wins over what stands beside the
list, and flags win over a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, TypeVar

from foundation.errors import UserError, near_names, raise_all
from foundation.printable import brief, shorten
from foundation.records import dataclass
from foundation.settings.catalogue import Catalogue, catalogue
from foundation.settings.declare import Choice, Records, Section, Setting, declared
from foundation.settings.values import WrongValueError, from_text, from_value, to_file

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was given: by the flag or field `where`, as text of a command line or as a value of a file."""

    value: Any
    where: str
    is_text: bool = False
    path: str | Path | None = None
    line: int | None = None

    def problem(self, what: str, fix: str = "") -> UserError:
        """Return the error that says what is wrong with it."""
        return UserError(what, fix=fix, path=self.path, line=self.line, field=self.where)


Values = Mapping[str, Given]


@dataclass(frozen=True, slots=True)
class Layers:
    """What was given, by name: in a file, in the lists of the file (by the list's name), and by flags.

    `problems` were found while they were taken apart; `notes` are what a user should know of the files.
    """

    file: Values = field(default_factory=dict)
    lists: Mapping[str, Sequence[Values]] = field(default_factory=dict)
    flags: Values = field(default_factory=dict)
    problems: Sequence[UserError] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with values that are each right: the name to blame, what is wrong, what would be right."""

    name: str
    what: str
    fix: str = ""


def read(root: type[R], layers: Layers, known: Catalogue | None = None) -> R:
    """Return the record of type `root`; a `UserError` tells everything that is wrong.

    `known`: its catalogue where that is not the whole one, see `narrowing`.
    """
    reading = _Reading(known or catalogue(root), layers)
    result: R = reading.record(root, {**layers.file, **layers.flags}, top=True)
    reading.check_read()
    raise_all(reading.problems)
    return result


def check(record: object) -> None:
    """Check a record that was made in Python: types, bounds, and whether its values fit together; a `UserError`."""
    problems: list[UserError] = []
    _check(record, problems)
    raise_all(problems)


def flat(record: object) -> dict[str, Any]:
    """Return the values of a record by name as a file holds them, choices by their names; what is absent is left out.

    A list of several records is a list of such values; that of a single one stands among the others.
    """
    result: dict[str, Any] = {}
    for one in declared(type(record)):
        value = getattr(record, one.name)
        if isinstance(one, Section):
            result |= flat(value)
        elif isinstance(one, Records):
            result |= flat(value[0]) if len(value) == 1 else {one.name: [flat(item) for item in value]}
        elif value is not None:
            result |= (
                {one.name: one.registry.name_of(type(value)), **flat(value)}
                if isinstance(one, Choice)
                else {one.name: to_file(value)}
            )
    return result


def choice_names(record: object) -> dict[str, str]:
    """Return the names of the choices that a record itself has made, by setting."""
    made = ((one, getattr(record, one.name)) for one in declared(type(record)) if isinstance(one, Choice))
    return {one.name: one.registry.name_of(type(value)) for one, value in made if value is not None}


class _Reading:
    """Builds records and notes problems, which names were read, and by which choices."""

    def __init__(self, known: Catalogue, layers: Layers) -> None:
        self.problems = list(layers.problems)
        self._known = known
        self._layers = layers
        self._read: set[int] = set()
        self._made: dict[str, str] = {}

    def record(self, record: type[R], given: Values, *, top: bool = False) -> R:
        """Return a record of the values in `given` that it declares."""
        before = len(self.problems)
        values: dict[str, Any] = {}
        for one in declared(record):
            if isinstance(one, Section):
                values[one.name] = self.record(one.record, given)
            elif isinstance(one, Records):
                values[one.name] = self._records(one)
            elif isinstance(one, Choice):
                values[one.name] = self._choice(one, given)
            else:
                values[one.name] = self._setting(one, given)
        result = record(**values)
        if len(self.problems) == before:
            self.problems += [_explained(problem, given) for problem in _conflicts(result)]
        return result

    def check_read(self) -> None:
        """Note every value that was given and that nobody read."""
        layers = self._layers
        entries = [entry for entries in layers.lists.values() for entry in entries]
        winning = {**layers.file, **layers.flags}
        for name, given in winning.items():
            if name not in self._known.entries:
                self.problems.append(self._unknown(name, given))
            elif id(given) not in self._read and not any(name in entry and name in layers.file for entry in entries):
                self.problems.append(self._unread(name, given))
        for entry in entries:
            for name, given in entry.items():
                if name not in self._known.entries:
                    self.problems.append(self._unknown(name, given))
                elif name not in layers.flags and id(given) not in self._read:
                    self.problems.append(self._unread(name, given))

    def _records(self, one: Records) -> tuple[Any, ...]:
        entries = self._layers.lists.get(one.name) or ({},)
        return tuple(self.record(one.record, {**self._layers.file, **entry, **self._layers.flags}) for entry in entries)

    def _setting(self, one: Setting, given: Values) -> Any:
        value = given.get(one.name)
        if value is None:
            return one.default
        self._read.add(id(value))
        try:
            return from_text(one, value.value) if value.is_text else from_value(one, value.value)
        except WrongValueError as error:
            self.problems.append(value.problem(str(error)))
            return one.default

    def _choice(self, one: Choice, given: Values) -> Any:
        name = self._chosen(one, given)
        if name is None:
            return None
        self._made[one.name] = name
        return self.record(one.registry.get(name), given)

    def _chosen(self, one: Choice, given: Values) -> str | None:
        value = given.get(one.name)
        if value is not None:
            self._read.add(id(value))
            if isinstance(value.value, str) and value.value in one.registry:
                return value.value
            said = f"'{shorten(value.value)}'" if isinstance(value.value, str) else brief(value.value)
            near = near_names(str(value.value), one.registry)
            self.problems.append(value.problem(f"unknown {one.registry.kind} {said}", near))
            for name in given:  # whatever the unknown choice would have read is not to be blamed as well
                self._read |= {id(given[name])} if self._belongs(name, one.name) else set()
        if one.default:
            return one.default
        return self._implied(one, given) or one.otherwise or None

    def _implied(self, one: Choice, given: Values) -> str | None:
        """Return what a given setting implies; where a choice may be absent, one that no like choice reads.

        Of several settings, that which the fewest records read decides.
        """
        for name in sorted(given, key=self._count_readers):
            entry = self._known.entries.get(name)
            if entry and isinstance(entry.declaration, Setting) and entry.declaration.implies:
                own = [reader.value for reader in entry.readers if reader.choice == one.name]
                if own and not (one.optional and any(self._must_make(reader.choice, one) for reader in entry.readers)):
                    return own[0]
        return None

    def _must_make(self, name: str, like: Choice) -> bool:
        """Whether a choice is between the same records as another, and may not be absent as that one may."""
        choice = self._known.choices[name]
        return choice.registry is like.registry and not choice.optional

    def _count_readers(self, name: str) -> int:
        return len(self._known.entries[name].readers) if name in self._known.entries else 0

    def _belongs(self, name: str, choice: str) -> bool:
        entry = self._known.entries.get(name)
        return entry is not None and any(reader.choice == choice for reader in entry.readers)

    def _unknown(self, name: str, given: Given) -> UserError:
        """Say that nobody knows a name, with those near to it."""
        is_flag = given.where.startswith("--") and given.path is None
        if name.lstrip("_") in self._known.spellings:
            return given.problem("unknown setting", f"write {name.lstrip('_')}")
        known = {*self._known.spellings, *(() if is_flag or "." in given.where else self._known.lists)}
        near = near_names(name, known)
        if not near.startswith("did you mean"):
            near = "see --help"
        elif is_flag:
            near = near.replace("did you mean ", "did you mean --").replace(", ", ", --")
        return given.problem("unknown flag" if is_flag else "unknown setting", near)

    def _unread(self, name: str, given: Given) -> UserError:
        """Say which choice left the value unread, which would read it, and what does nearly the same here."""
        readers = self._known.entries[name].readers
        if not readers:  # it is always read, but not by the records of a list
            return given.problem("holds for the whole run", "write it beside the list")
        made = [
            f"--{choice} {self._made[choice]}"
            for choice in dict.fromkeys(r.choice for r in readers)
            if choice in self._made
        ]
        fix = f"{self._known.readers(name)} reads it"
        instead = self._instead(name)
        if instead:
            fix += f", here give --{instead}"
        return given.problem(f"not read by {' and '.join(made) or 'this run'}", fix)

    def _instead(self, name: str) -> str | None:
        """Return the setting of a choice that was made which asks for nearly the same as `name`."""
        for entry in self._known.entries.values():
            one = entry.declaration
            if not isinstance(one, Setting) or name not in one.like:
                continue
            if entry.always or any(self._made.get(reader.choice) == reader.value for reader in entry.readers):
                return one.name
        return None


def _explained(problem: Problem, given: Values) -> UserError:
    """Return a problem of several values as an error at the place where the one to blame was given."""
    value = given.get(problem.name)
    if value is not None:
        return value.problem(problem.what, problem.fix)
    return UserError(problem.what, fix=problem.fix, field=f"--{problem.name}")


def _check(record: object, problems: list[UserError]) -> None:
    before = len(problems)
    for one in declared(type(record)):
        value = getattr(record, one.name)
        if isinstance(one, Setting):
            try:
                from_value(one, value)
            except WrongValueError as error:
                problems.append(UserError(str(error), field=one.name))
        else:
            for inner in value if isinstance(one, Records) else (value,):
                if inner is not None:
                    _check(inner, problems)
    if len(problems) == before:
        problems += [UserError(found.what, fix=found.fix, field=found.name) for found in _conflicts(record)]


def _conflicts(record: object) -> Iterator[Problem]:
    """Yield what does not fit together, if a record's values must: it then has a method `problems`."""
    problems: Callable[[], Iterator[Problem]] | None = getattr(record, "problems", None)
    if problems is not None:
        yield from problems()
