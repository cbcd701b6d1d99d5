"""Run files: settings by name, in YAML or JSON, with the spellings of the flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundation.documents import Document, read_document
from foundation.errors import UserError
from foundation.key_paths import KeyPath, shown_key_path
from foundation.printable import brief
from foundation.settings.catalogue import Catalogue
from foundation.settings.reading import Given, Layers, Values


def read_file(path: str | Path, known: Catalogue) -> Layers:
    """Return what a run file gives; one that is no object, or names a setting twice, is a `UserError`."""
    document = read_document(path, "run file")
    if not isinstance(document.value, dict):
        raise UserError(
            f"the run file is {brief(document.value)}", path=path, fix="write settings by name, name: value"
        )
    problems: list[UserError] = []
    top = dict(document.value)
    lists: dict[str, list[Values]] = {}
    for name in known.lists:
        if name in top:
            lists[name] = _entries(document, name, top.pop(name), known, problems)
    groups = {name: top.pop(name) for name in known.groups if top.get(name) is not None}
    values = values_of(document, (), top, known, problems)
    for name, group in groups.items():
        _take_group(document, name, group, known, problems, values, lists)
    return Layers(file=values, lists=lists, problems=problems)


def _take_group(
    document: Document,
    name: str,
    group: Any,
    known: Catalogue,
    problems: list[UserError],
    values: dict[str, Given],
    lists: dict[str, list[Values]],
) -> None:
    """Add what stands under the name of a section to `values` and `lists`; what is no part of it is a problem."""
    if not isinstance(group, dict):
        what = f"{brief(group)} is not an object"
        line = document.line((name,))
        problems.append(UserError(what, path=document.path, line=line, field=name, fix="write settings by name"))
        return
    within = dict(group)
    for one in known.lists:
        if one in known.groups[name] and one in within:
            found = _entries(document, one, within.pop(one), known, problems, (name,))
            if one in lists:
                line = document.line((name, one))
                field = shown_key_path((name, one))
                problems.append(UserError("stands twice", path=document.path, line=line, field=field, fix="keep one"))
            lists[one] = found
    for setting, given in values_of(document, (name,), within, known, problems).items():
        if setting in known.entries and setting not in known.groups[name]:
            problems.append(given.problem(f"is no setting of {name}", "write it beside, not within"))
        elif setting in values:
            problems.append(given.problem(f"{values[setting].where} says it already", "leave one out"))
        else:
            values[setting] = given


def _entries(
    document: Document, name: str, value: Any, known: Catalogue, problems: list[UserError], place: KeyPath = ()
) -> list[Values]:
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        line = document.line((*place, name))
        problems.append(
            UserError(
                f"{brief(value)} is not a list of objects",
                path=document.path,
                line=line,
                field=shown_key_path((*place, name)),
                fix="write what each has of its own: - name: value",
            )
        )
        return []
    return [values_of(document, (*place, name, index), item, known, problems) for index, item in enumerate(value)]


def values_of(
    document: Document, place: KeyPath, values: Mapping[str, Any], known: Catalogue, problems: list[UserError]
) -> dict[str, Given]:
    """Return the values of one object by their one name; a null counts as absent."""
    found: dict[str, Given] = {}
    for written, value in values.items():
        spelled = written.replace("-", "_")
        spelling = known.spellings.get(spelled)
        given = Given(
            value, shown_key_path((*place, written)), path=document.path, line=document.line((*place, written))
        )
        if value is None:
            continue
        if spelling is None:
            found[spelled] = given
            continue
        if spelling.negated and isinstance(value, bool):
            given = Given(not value, given.where, path=given.path, line=given.line)
        if spelling.name in found:
            problems.append(given.problem(f"{found[spelling.name].where} says it already", "leave one out"))
        found[spelling.name] = given
    return found
