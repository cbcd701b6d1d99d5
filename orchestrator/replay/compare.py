"""Find the first difference between two replays: totals last, since a step says more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def first_difference(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> str | None:
    """Return the first step and column that differ, else the first request, else the first total; None if equal.

    Objects are compared with their order: scheduling and admission order are part of a decision.
    """
    for table, label in (("steps", "step"), ("requests", "request")):
        columns = _names(expected, actual, "step_columns" if table == "steps" else "request_columns")
        if isinstance(columns, str):
            return columns
        difference = _rows(expected.get(table, ()), actual[table], columns, label)
        if difference is not None:
            return difference
    for name in actual:
        if name in expected and name not in ("steps", "requests") and expected[name] != actual[name]:
            return f"{name}: expected {expected[name]!r}, got {actual[name]!r}"
    return None


def _names(expected: Mapping[str, Any], actual: Mapping[str, Any], key: str) -> list[str] | str:
    names: list[str] = list(actual[key])
    if list(expected.get(key, ())) != names:
        return f"{key}: expected {expected.get(key)!r}, got {names!r}"
    return names


def _rows(expected: Sequence[Any], actual: Sequence[Any], columns: Sequence[str], label: str) -> str | None:
    for number, (wanted, got) in enumerate(zip(expected, actual, strict=False)):
        if len(wanted) != len(columns):
            return f"{label} {number}: expected {len(wanted)} columns, got {len(columns)}"
        for column, left, right in zip(columns, wanted, got, strict=True):
            if _ordered(left) != _ordered(right):
                return f"{label} {number}, {column}: expected {left!r}, got {right!r}"
    if len(expected) != len(actual):
        return f"{label} {min(len(expected), len(actual))}: expected {len(expected)} {label}s, got {len(actual)}"
    return None


def _ordered(value: Any) -> Any:
    return list(value.items()) if isinstance(value, dict) else value
