"""Read JSON configuration files field by field, and report every wrong field of a file in one error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foundation.errors import UserError
from foundation.files import read_text

CONFIG_ROOT = Path(__file__).resolve().parent.parent / "configs"
"""The configuration files that ship with the project."""


def read_json_object(path: Path, what: str) -> dict[str, Any]:
    """Return the JSON object in `path`; anything else is a `UserError` that names the file (and the line)."""
    text = read_text(path, what)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"the {what} is not JSON: {error.msg}", path=path, line=error.lineno) from None
    except (RecursionError, ValueError) as error:
        raise UserError(f"the {what} cannot be read as JSON: {error}", path=path) from None
    if not isinstance(content, dict):
        raise UserError(f"the {what} is not a JSON object", path=path, fix="write {...} with the fields inside")
    return content


LARGEST = 2**24
"""No dimension of a model or a device comes near; products of a few stay within 64 bits."""


class Fields:
    """Typed access to one JSON object. Problems are collected; `finish` raises them together.

    A getter that finds a problem returns a harmless value of the right type, so that reading can go on to the
    end and the user learns of all wrong fields at once.
    """

    def __init__(
        self, values: Mapping[str, Any], path: str | Path, prefix: str = "", problems: list[str] | None = None
    ):
        self.values, self.path, self.prefix = values, path, prefix
        self.problems: list[str] = [] if problems is None else problems

    def has(self, *names: str) -> bool:
        """Whether any of `names` is present and not null."""
        return any(self.values.get(name) is not None for name in names)

    def positive_int(self, *names: str, default: int | None = None) -> int:
        """Return the first of `names` that is present as a whole number from 1 to `LARGEST`."""
        name, value = self._find(names)
        expected = f"a whole number from 1 to {LARGEST}"
        if value is None:
            return self._absent(names, expected) if default is None else default
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST:
            self._wrong(name, value, expected)
            return 1
        return value

    def positive_number(self, *names: str, default: float | None = None) -> float:
        """Return the first of `names` that is present as a number above zero."""
        name, value = self._find(names)
        if value is None:
            return float(self._absent(names, "a number above 0")) if default is None else default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e15:
            self._wrong(name, value, "a number above 0")
            return 1.0
        return float(value)

    def boolean(self, *names: str, default: bool) -> bool:
        """Return the first of `names` that is present as true or false."""
        name, value = self._find(names)
        if value is None:
            return default
        if not isinstance(value, bool):
            self._wrong(name, value, "true or false")
            return default
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """Return `name` as a string."""
        value = self.values.get(name)
        if value is None:
            if default is None:
                self._absent((name,), "a string")
                return ""
            return default
        if not isinstance(value, str):
            self._wrong(name, value, "a string")
            return ""
        return value

    def object(self, name: str) -> Fields:
        """Return the object under `name`; its problems count as this file's."""
        value = self.values.get(name, {})
        if not isinstance(value, dict):
            self._wrong(name, value, "an object")
            value = {}
        return Fields(value, self.path, f"{self.prefix}{name}.", self.problems)

    def names(self) -> Iterator[str]:
        """Return the names that are present."""
        return iter(self.values)

    def only(self, known: set[str]) -> None:
        """Report every field that is not in `known`."""
        for name in self.values:
            if name not in known:
                self.problems.append(f"{self.prefix}{name} is not a field (known: {', '.join(sorted(known))})")

    def problem(self, text: str) -> None:
        """Report a problem that concerns several fields."""
        self.problems.append(text)

    def finish(self, what: str) -> None:
        """Raise a `UserError` with all the problems found, if any."""
        if self.problems:
            raise UserError(f"the {what} has wrong fields: {'; '.join(self.problems)}", path=self.path)

    def _find(self, names: tuple[str, ...]) -> tuple[str, Any]:
        for name in names:
            if self.values.get(name) is not None:
                return name, self.values[name]
        return names[0], None

    def _absent(self, names: tuple[str, ...], expected: str) -> int:
        self.problems.append(f"{self.prefix}{' or '.join(names)} is missing (expected {expected})")
        return 1

    def _wrong(self, name: str, value: Any, expected: str) -> None:
        shown = json.dumps(value)
        shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
        self.problems.append(f"{self.prefix}{name} is {shown} (expected {expected})")
