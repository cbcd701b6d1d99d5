"""Numbers written by people, in ASCII digits and nothing else.

Python's own `int` and `float` also take ``1_000``, full-width and Arabic-Indic digits, blanks, ``nan`` and ``inf``; a
flag or a column of a file that holds one of these is a mistake, and is refused.
"""

from __future__ import annotations

import math
import re

_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")  # nothing is counted further than 40 digits
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,1000})?|\.[0-9]{1,1000})(?:[eE][+-]?[0-9]{1,4})?")


def whole_number(text: str, low: int | None = None, high: int | None = None) -> int | None:
    """Return the whole number that `text` writes, or None where it writes none or one outside `low` to `high`."""
    if _WHOLE.fullmatch(text) is None:
        return None
    value = int(text)
    outside = (low is not None and value < low) or (high is not None and value > high)
    return None if outside else value


def decimal_number(text: str) -> float | None:
    """Return the number that `text` writes (``2``, ``.5``, ``1e-3``), or None where it writes none that a float holds.

    Neither infinite (``1e400``) nor so small that it would be taken for zero (``1e-400``).
    """
    if _DECIMAL.fullmatch(text) is None:
        return None
    value = float(text)
    return None if math.isinf(value) or (value == 0.0 and _is_not_zero(text)) else value


def _is_not_zero(text: str) -> bool:
    mantissa = re.split("[eE]", text)[0]
    return any(digit in mantissa for digit in "123456789")
