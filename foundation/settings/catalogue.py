"""All names that a record knows, with those of every choice within it: what flags, help and schema are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace

from foundation.errors import InternalError
from foundation.records import dataclass
from foundation.settings.declare import Choice, Records, Section, Setting, declared


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads a setting: the choice called `choice`, when it is `value` (``scheduling``, ``orca``)."""

    choice: str
    value: str


@dataclass(slots=True)
class Entry:
    """One name: its declaration, the heading of its section, and who reads it (nobody in particular: always read).

    `defaults`: what is shown as the default of each reader, which may have its own.
    """

    declaration: Setting | Choice
    title: str
    readers: list[Reader] = field(default_factory=list)
    always: bool = False
    defaults: dict[Reader, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The setting's one name."""
        return self.declaration.name

    @property
    def is_switch(self) -> bool:
        """Whether it is true or false."""
        return isinstance(self.declaration, Setting) and self.declaration.kind == "bool"

    @property
    def shown_default(self) -> str:
        """Its default in words; where readers have different ones, that of each: ``sarathi: 128; vllm-v0: 256``."""
        own = {reader.value: text for reader, text in self.defaults.items() if reader.choice == self.readers[0].choice}
        if self.always or not self.defaults_differ:
            return shown_default(self.declaration)
        return "; ".join(f"{value}: {text}" for value, text in own.items())

    @property
    def defaults_differ(self) -> bool:
        """Whether its readers have different defaults."""
        return len(set(self.defaults.values())) > 1


@dataclass(frozen=True, slots=True)
class Spelling:
    """What a spelling stands for: a name, or (`negated`) the opposite of a switch."""

    name: str
    negated: bool = False


class Catalogue:
    """The names of the record `root`; see the module's docstring. `lists` are its fields that hold several records.

    `groups`: by the name of a section that is grouped, the names of its settings and lists. With `picked`, values by
    the spellings of choices, it holds of every choice the records of the value that is picked, or of the default.
    """

    def __init__(self, root: type, picked: Mapping[str, str] | None = None) -> None:
        self._picked = picked
        self.entries: dict[str, Entry] = {}
        self.lists: dict[str, Records] = {}
        self.choices: dict[str, Choice] = {}
        self.groups: dict[str, frozenset[str]] = {}
        self._walk(root, "General", None)
        self.spellings = dict(self._spellings())
        self._sizes = {} if picked is not None else {name: len(one.registry) for name, one in self.choices.items()}

    @property
    def complete(self) -> bool:
        """Whether every choice still has the values that it had; a plugin may have added some."""
        return all(len(self.choices[name].registry) == size for name, size in self._sizes.items())

    def readers(self, name: str) -> str:
        """Return the choice that reads `name`, as flags: ``--scheduling none or orca``."""
        readers = self.entries[name].readers
        values = [reader.value for reader in readers if reader.choice == readers[0].choice]
        return f"--{readers[0].choice} {one_of(values)}"

    def heading(self, entry: Entry) -> str:
        """Return the heading under which a setting is listed: its section, or the choice that reads it."""
        if entry.always or not entry.readers:
            return entry.title
        first = entry.readers[0].choice
        choice = self.choices[first]
        values = [reader.value for reader in entry.readers if reader.choice == first]
        title = choice.title or self.entries[first].title
        if values == list(choice.registry):
            return title
        return f"{title}: --{first} {one_of(values)}"

    def by_heading(self) -> dict[str, list[Entry]]:
        """Return the entries under their headings; what belongs to one choice follows what belongs to all."""
        groups: dict[str, list[Entry]] = {}
        for entry in self.entries.values():
            groups.setdefault(self.heading(entry), []).append(entry)
        first = {title.partition(": --")[0]: place for place, title in reversed(list(enumerate(groups)))}
        return dict(sorted(groups.items(), key=lambda item: first[item[0].partition(": --")[0]]))

    def _walk(self, record: type, title: str, reader: Reader | None) -> None:
        for one in declared(record):
            if isinstance(one, Section):
                self._walk(one.record, one.title or title, reader)
                if one.grouped:
                    within = Catalogue(one.record, self._picked)
                    self.groups[one.name] = frozenset({*within.entries, *within.lists})
            elif isinstance(one, Records):
                self.lists[one.name] = one
                self._walk(one.record, title, reader)
            else:
                self._add(one, one.title or title, reader)
                if isinstance(one, Choice):
                    self._walk_choice(one)

    def _walk_choice(self, choice: Choice) -> None:
        for value in choice.registry if self._picked is None else self._pick(choice, self._picked):
            self._walk(choice.registry.get(value), choice.title, Reader(choice.name, value))

    def _pick(self, choice: Choice, picked: Mapping[str, str]) -> list[str]:
        """Return the values of a choice that count; one that is unknown has no records."""
        given = [picked[name] for name in (choice.name, *choice.aliases) if name in picked]
        wanted = given or [choice.default or choice.otherwise]
        return [value for value in dict.fromkeys(wanted) if value and value in choice.registry]

    def _add(self, declaration: Setting | Choice, title: str, reader: Reader | None) -> None:
        entry = self.entries.get(declaration.name)
        if entry is None:
            entry = self.entries[declaration.name] = Entry(declaration, title)
        elif _shape(entry.declaration) != _shape(declaration):
            raise InternalError(f"the setting {declaration.name} is declared twice, and differently")
        if isinstance(declaration, Choice):
            self.choices[declaration.name] = declaration
        if reader is None:
            entry.always = True
        elif reader not in entry.readers:
            entry.readers.append(reader)
            entry.defaults[reader] = shown_default(declaration)

    def _spellings(self) -> Iterator[tuple[str, Spelling]]:
        seen: set[str] = {*self.entries, *self.lists, *self.groups}
        for name, entry in self.entries.items():
            yield name, Spelling(name)
            others = {alias: alias.startswith("no_") for alias in entry.declaration.aliases}
            if entry.is_switch:
                others[f"no_{name}"] = True
            for other, negated in others.items():
                if other in seen:
                    raise InternalError(f"the spelling {other} of {name} is taken")
                seen.add(other)
                yield other, Spelling(name, negated and entry.is_switch)


def shown_default(declaration: Setting | Choice) -> str:
    """Return the default of a declaration in words."""
    default = declaration.default
    if declaration.shown_default:
        return declaration.shown_default
    if isinstance(declaration, Choice):
        default = default or declaration.otherwise or None
    elif declaration.kind == "bool" and default is not None:
        return "on" if default else "off"
    return "none" if default is None else str(default)


def one_of(values: Sequence[str]) -> str:
    """Return ``a, b or c``."""
    return " or ".join(part for part in (", ".join(values[:-1]), values[-1]) if part)


_CATALOGUES: dict[type, Catalogue] = {}


def catalogue(root: type) -> Catalogue:
    """Return the catalogue of a record, made once, and again when a choice has got more values."""
    known = _CATALOGUES.get(root)
    if known is None or not known.complete:
        known = _CATALOGUES[root] = Catalogue(root)
    return known


def _shape(declaration: Setting | Choice) -> object:
    """Return what all declarations of one name must share: all but how it is explained, bounded and by default."""
    if isinstance(declaration, Choice):
        return declaration.registry
    return replace(
        declaration, default=None, optional=False, help="", least=None, most=None, above=None, like=(), shown_default=""
    )
