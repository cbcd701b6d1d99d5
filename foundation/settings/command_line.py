"""Flags, derived from declared settings: reading a command line, and the text of its help.

`--name VALUE` and `--name=VALUE`; hyphens may stand for underscores, and of a flag that is given twice the last one
counts. A switch takes no value; `--no_name` is its opposite. Whether values are right is for `reading` to say, so that
everything wrong is told at once.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from foundation.errors import UserError
from foundation.printable import brief
from foundation.settings.catalogue import Catalogue, Entry
from foundation.settings.declare import Choice, Setting
from foundation.settings.reading import Given
from foundation.settings.values import INFINITE, expected

_NAME_COLUMN = 24
_WIDEST = 120
_OPPOSITES: dict[Any, str] = {True: "no_", False: "", None: "[no_]"}
_METAVARIABLES = {"int": "N", "float": "X", "str": "NAME", "Path": "PATH"}


def parse(arguments: Sequence[str], known: Catalogue, *, first: str = "") -> dict[str, Given]:
    """Return what a command line gives, by name; names that nobody knows are kept as they are.

    A word that belongs to no flag is the value of the setting `first`, if there is one. A second such word and a flag
    without its value are `UserError`s.
    """
    found: dict[str, Given] = {}
    rest = list(reversed(arguments))
    while rest:
        word = rest.pop()
        if first and first not in found and not word.startswith("-"):
            found[first] = Given(word, first.upper(), is_text=True)
            continue
        if not word.startswith("--") or word == "--":
            raise UserError(f"{brief(word)} belongs to no flag", fix="flags begin with --; see --help")
        name, value = _take(word, rest, known)
        found.pop(name, None)
        found[name] = value
    return found


def _take(word: str, rest: list[str], known: Catalogue) -> tuple[str, Given]:
    """Return the name and value of the flag `word`; its value is taken from `rest` where it stands apart."""
    spelled, equals, value = word[2:].partition("=")
    where = f"--{spelled}"
    spelling = known.spellings.get(spelled.replace("-", "_"))
    if spelling is None:
        if not equals and rest and not rest[-1].startswith("--"):
            rest.pop()
        return spelled.replace("-", "_"), Given(value, where, is_text=True)
    entry = known.entries[spelling.name]
    if entry.is_switch and not equals:
        return spelling.name, Given(not spelling.negated, where)
    if not equals and (not rest or _is_flag(rest[-1], known)):
        raise UserError("its value is missing", field=where, fix=f"give {_expected(entry)}")
    return spelling.name, Given(value if equals else rest.pop(), where, is_text=True)


def _is_flag(word: str, known: Catalogue) -> bool:
    return word.startswith("--") and word[2:].partition("=")[0].replace("-", "_") in known.spellings


def _expected(entry: Entry) -> str:
    if isinstance(entry.declaration, Setting):
        return expected(entry.declaration)
    return f"one of {', '.join(entry.declaration.registry)}"


def help_text(known: Catalogue, usage: str, description: str, epilog: str) -> str:
    """Return the help: flags under their headings, each with meaning, unit and default."""
    import shutil  # with all that it can unpack

    width = min(_WIDEST, shutil.get_terminal_size().columns)
    parts = [f"usage: {usage}", *textwrap.wrap(description, width)]
    for heading, entries in known.by_heading().items():
        parts += ["", f"{heading}:", *(line for entry in entries for line in _flag_help(entry, width))]
    return "\n".join([*parts, "", *textwrap.wrap(epilog, width)])


def _flag_help(entry: Entry, width: int) -> list[str]:
    margin = " " * _NAME_COLUMN
    head = f"  {_shown_flag(entry)}"
    lines = textwrap.wrap(_explanation(entry), width, initial_indent=margin, subsequent_indent=margin)
    if len(head) + 2 <= _NAME_COLUMN:
        return [head.ljust(_NAME_COLUMN) + lines[0].lstrip(), *lines[1:]]
    return [head, *lines]


def _shown_flag(entry: Entry) -> str:
    """Return the flag with what it takes; of a switch, the spelling that changes the default."""
    one = entry.declaration
    if entry.is_switch:
        return f"--{_OPPOSITES[None if entry.defaults_differ else one.default]}{one.name}"
    choices = one.choices if isinstance(one, Setting) else one.registry
    if choices is not None:
        return f"--{one.name} {{{','.join(choices)}}}"
    if not isinstance(one, Setting):
        return f"--{one.name} NAME"
    return f"--{one.name} {_METAVARIABLES[one.kind]}{f'|{INFINITE}' if one.infinite else ''}"


def _job(record: type) -> str:
    """Return the first sentence of a record's docstring, as part of another."""
    sentence = (record.__doc__ or "").partition(".")[0]
    return sentence if sentence[1:2].isupper() else sentence[:1].lower() + sentence[1:]


def _explanation(entry: Entry) -> str:
    one = entry.declaration
    undoes = entry.is_switch and one.default is not None and not entry.defaults_differ
    text = f"do not {one.meaning}" if undoes and one.default else one.meaning
    if isinstance(one, Choice):
        text += ": " + "; ".join(f"{value}: {_job(one.registry.get(value))}" for value in one.registry)
    if not undoes:
        text += f" (default: {entry.shown_default})"
    if one.aliases:
        text += f" (also {', '.join(f'--{alias}' for alias in one.aliases)})"
    return text
