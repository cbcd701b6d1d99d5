"""A validator of the part of JSON Schema that our schemas use; an unknown keyword is an error, never ignored."""

from __future__ import annotations

import re
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_SILENT = {"$schema", "$defs", "title", "description", "default", "then"}


def valid(schema: Any, value: Any, root: dict[str, Any] | None = None) -> bool:
    """Whether `value` fits `schema` (of which `root` is the document)."""
    if isinstance(schema, bool):
        return schema
    root = schema if root is None else root
    return all(_holds(keyword, schema, value, root) for keyword in schema if keyword not in _SILENT)


def _holds(keyword: str, schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    wanted = schema[keyword]
    match keyword:
        case "$ref":
            return valid(_at(root, wanted), value, root)
        case "type":
            return isinstance(value, _TYPES[wanted]) and (wanted == "boolean" or not isinstance(value, bool))
        case "enum":
            return any(type(value) is type(one) and value == one for one in wanted)
        case "const":
            return bool(value == wanted)
        case "minimum":
            return not _is_number(value) or value >= wanted
        case "exclusiveMinimum":
            return not _is_number(value) or value > wanted
        case "maximum":
            return not _is_number(value) or value <= wanted
        case "minLength":
            return not isinstance(value, str) or len(value) >= wanted
        case "pattern":
            return not isinstance(value, str) or re.search(wanted, value) is not None
        case "minItems":
            return not isinstance(value, list) or len(value) >= wanted
        case "items":
            return not isinstance(value, list) or all(valid(wanted, one, root) for one in value)
        case "required":
            return not isinstance(value, dict) or all(name in value for name in wanted)
        case "properties":
            return not isinstance(value, dict) or all(
                valid(inner, value[name], root) for name, inner in wanted.items() if name in value
            )
        case "additionalProperties":
            assert wanted is False
            return not isinstance(value, dict) or set(value) <= set(schema["properties"])
        case "allOf":
            return all(valid(one, value, root) for one in wanted)
        case "anyOf":
            return any(valid(one, value, root) for one in wanted)
        case "not":
            return not valid(wanted, value, root)
        case "if":
            return not valid(wanted, value, root) or valid(schema["then"], value, root)
    raise AssertionError(f"unknown keyword {keyword}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _at(root: dict[str, Any], pointer: str) -> Any:
    found: Any = root
    for part in pointer.removeprefix("#/").split("/"):
        found = found[part]
    return found
