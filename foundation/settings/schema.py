"""The JSON schema of a run file, derived from declared settings.

The values that a choice reads are allowed only with it: what a reading refuses, an editor that knows the schema marks.
Spellings other than a setting's one name are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from foundation.settings.catalogue import Catalogue, Entry
from foundation.settings.declare import Choice, Setting
from foundation.settings.values import INFINITE, LARGEST, LARGEST_WHOLE

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPES = {"int": "integer", "float": "number", "str": "string", "bool": "boolean", "Path": "string"}


def json_schema(known: Catalogue, title: str) -> dict[str, Any]:
    """Return the schema of a file that holds the settings of a catalogue."""
    properties = {name: _property(entry) for name, entry in known.entries.items()}
    rules = [rule for choice in known.choices.values() for rule in _rules(known, choice)]
    lists = {
        name: {"type": "array", "minItems": 1, "description": one.help, "items": {"$ref": "#/$defs/settings"}}
        for name, one in known.lists.items()
    }
    groups = {
        name: {
            "type": "object",
            "properties": {**_referred(one for one in properties if one in within), **_chosen(lists, within)},
            "additionalProperties": False,
        }
        for name, within in known.groups.items()
    }
    return {
        "$schema": DIALECT,
        "title": title,
        "type": "object",
        "properties": {**_referred(properties), **lists, **groups},
        "additionalProperties": False,
        "if": {"not": {"anyOf": [{"required": [name]} for name in lists]}} if lists else True,
        "then": {"allOf": rules},
        "$defs": {"settings": {"type": "object", "properties": properties, "additionalProperties": False}},
    }


def _referred(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/$defs/settings/properties/{name}"} for name in names}


def _chosen(lists: Mapping[str, Any], within: Collection[str]) -> dict[str, Any]:
    return {name: one for name, one in lists.items() if name in within}


def _property(entry: Entry) -> dict[str, Any]:
    one = entry.declaration
    shown = f" (default: {entry.shown_default})" if one.shown_default or entry.defaults_differ else ""
    described: dict[str, Any] = {"description": one.meaning + shown}
    if one.default is not None and not entry.defaults_differ:
        described["default"] = str(one.default) if not isinstance(one.default, int | float) else one.default
    if isinstance(one, Choice):
        return {"enum": list(one.registry), **described}
    return {**_type(one), **described}


def _type(one: Setting) -> dict[str, Any]:
    if one.choices is not None:
        return {"enum": [int(text) if one.kind == "int" else text for text in one.choices]}
    found: dict[str, Any] = {"type": _TYPES[one.kind]}
    if one.kind in ("int", "float"):
        largest = LARGEST_WHOLE if one.kind == "int" else LARGEST
        found["maximum"] = largest if one.most is None else one.most
        if one.above is not None:
            found["exclusiveMinimum"] = one.above
        else:
            found["minimum"] = -largest if one.least is None else one.least
        if one.infinite:
            return {"anyOf": [found, {"const": INFINITE}]}
    elif one.kind in ("str", "Path"):
        found["minLength"] = 1
        if one.kind == "Path" and not one.folder:
            found["pattern"] = "[^/]$"
    return found


def _rules(known: Catalogue, choice: Choice) -> list[dict[str, Any]]:
    """Return, for each value of a choice, that what only other values read must not be given."""
    rules = []
    for value in choice.registry:
        unread = {
            name: False
            for name, entry in known.entries.items()
            if not entry.always
            and {reader.choice for reader in entry.readers} == {choice.name}
            and value not in {reader.value for reader in entry.readers}
        }
        if unread:
            rules.append({"if": _is(choice, value), "then": {"properties": unread}})
    return rules


def _is(choice: Choice, value: str) -> dict[str, Any]:
    chosen: dict[str, Any] = {"properties": {choice.name: {"const": value}}}
    if value != choice.default:
        chosen["required"] = [choice.name]
    return chosen
