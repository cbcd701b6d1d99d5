"""Numbers and switches of the JSON files as ASTRA-sim converts them, with a problem where it would misread one.

Its reader truncates a float towards zero where it wants an integer, takes a boolean for 0 or 1, and compares a switch
with 0. A key that is null makes it abort.
"""

from __future__ import annotations

import math
from typing import Any

from foundation.fields import Fields
from foundation.printable import brief

INT32_MAX = 2**31 - 1


def integer(fields: Fields, name: str, default: int, low: int, high: int = INT32_MAX) -> int:
    """Return an integer from `low` to `high`, `default` where the key is absent."""
    if name not in fields.values:
        return default
    value = fields.values[name]
    if isinstance(value, int | float):
        whole = math.trunc(value)
        if low <= whole <= high:
            return whole
    fields.wrong(name, f"a whole number from {low} to {high}")
    return default


def number(fields: Fields, name: str, high: float) -> float:
    """Return a number from 0 to `high`, 0 where the key is absent; smaller ones than 1e-15 are none."""
    if name not in fields.values:
        return 0.0
    if fields.values[name] is None:
        fields.wrong(name, f"a number of at least 0 and at most {high:g}")
    return fields.number(name, low=0.0, high=high, default=0.0)


def switch(fields: Fields, name: str) -> bool:
    """Return an on/off field: 0 is off, any other number is on.

    ASTRA-sim compares the value with 0, so that `false` and every other value that is no number switch *on*;
    such a value is a problem here rather than the opposite of what it says.
    """
    value: Any = fields.values.get(name, 0)
    if value is True:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        fields.problem(f"{brief(value)} is read as on by ASTRA-sim", name, "write 0 for off or 1 for on")
        return False
    return value != 0
