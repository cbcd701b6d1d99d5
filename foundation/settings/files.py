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
    values = values_of(document, (), top, known, problems)
    return Layers(file=values, lists=lists, problems=problems)


def _entries(document: Document, name: str, value: Any, known: Catalogue, problems: list[UserError]) -> list[Values]:
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        line = document.line((name,))
        problems.append(
            UserError(
                f"{brief(value)} is not a list of objects",
                path=document.path,
                line=line,
                field=name,
                fix="write what each has of its own: - name: value",
            )
        )
        return []
    return [values_of(document, (name, index), item, known, problems) for index, item in enumerate(value)]


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
