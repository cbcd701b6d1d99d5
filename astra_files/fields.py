"""Reading fields out of JSON and YAML, collecting every mistake with its line instead of stopping at the first."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foundation.errors import UserError

INT32_MAX = 2**31 - 1


def parse_json_object(text: str, path: str | Path | None) -> dict[str, Any]:
    """Return the JSON object in `text`; a `UserError` names the line of a syntax error."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"not valid JSON: {error.msg}", path=path, line=error.lineno, fix="correct the syntax"
        ) from None
    if not isinstance(value, dict):
        raise UserError("the top level is not a JSON object", path=path, line=1, fix="write { ... }")
    return value


@dataclass
class FieldReader:
    """Typed access to the fields of one file; `problems` collects what is wrong, `finish` raises it.

    `lines` maps a field's name to its line (1-based); without it the line is looked up in the JSON `text`.
    """

    values: Mapping[str, Any]
    text: str
    path: str | Path | None
    lines: Mapping[str, int] = field(default_factory=dict)
    problems: list[UserError] = field(default_factory=list)

    def wrong(self, name: str, what: str, fix: str) -> None:
        """Record one mistake in the field called `name`."""
        self.problems.append(UserError(what, path=self.path, line=self._line(name), field=name, fix=fix))

    def integer(self, name: str, default: int, *, low: int | None = None, high: int = INT32_MAX) -> int:
        """Return an integer; a float is truncated towards zero and a boolean is 0 or 1, as upstream's reader does."""
        number = self.number(name, float(default))
        value = math.trunc(number) if isinstance(number, float) else number
        value = int(self.values[name]) if isinstance(self.values.get(name), int) else value
        if low is not None and value < low:
            self.wrong(name, f"{self.values.get(name)!r} is below {low}", f"write an integer of at least {low}")
            return default
        if abs(value) > high:
            self.wrong(name, f"{self.values.get(name)!r} does not fit", f"write an integer of at most {high}")
            return default
        return value

    def number(self, name: str, default: float, *, low: float | None = None) -> float:
        """Return a finite number of at least `low`."""
        value = self.values.get(name, default)
        if not isinstance(value, int | float) or not math.isfinite(value):
            self.wrong(name, f"{value!r} is not a number", "write a number")
            return default
        if low is not None and value < low:
            self.wrong(name, f"{value!r} is below {low:g}", f"write a number of at least {low:g}")
            return default
        return float(value)

    def switch(self, name: str) -> bool:
        """Return an on/off field: 0 is off, any other number is on.

        ASTRA-sim compares the value with 0, so that `false` and every other value that is no number switch *on*;
        such a value is an error here rather than the opposite of what it says.
        """
        value = self.values.get(name, 0)
        if value is True:
            return True
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.wrong(name, f"{json.dumps(value)} is read as on by ASTRA-sim", "write 0 for off or 1 for on")
            return False
        return value != 0

    def choice(self, name: str, default: str, choices: Sequence[str]) -> str:
        """Return one of `choices`."""
        value = self.values.get(name, default)
        if value not in choices:
            self.wrong(name, f"{value!r} is unknown", f"write one of {', '.join(choices)}")
            return default
        return str(value)

    def texts(self, name: str) -> tuple[str, ...] | None:
        """Return a list of strings, or None where the field is absent."""
        if name not in self.values:
            return None
        value = self.values[name]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.wrong(name, f"{value!r} is not a list of strings", 'write for example ["ring"], one entry a dimension')
            return None
        return tuple(value)

    def finish(self) -> None:
        """Raise what was wrong: one error as it is, several joined."""
        if len(self.problems) == 1:
            raise self.problems[0]
        if self.problems:
            raise UserError("; ".join(str(problem) for problem in self.problems))

    def _line(self, name: str) -> int | None:
        if name in self.lines:
            return self.lines[name]
        match = re.search(rf'"{re.escape(name)}"\s*:', self.text)
        return None if match is None else self.text.count("\n", 0, match.start()) + 1
