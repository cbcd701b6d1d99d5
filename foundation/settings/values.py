"""What a single value may be: from the text of a flag, from a file, or from Python.

Every function returns the value in its setting's type, or raises `WrongValueError` with one clause: what is wrong and
what would be right.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from foundation.digits import decimal_number, whole_number
from foundation.errors import near_names
from foundation.printable import brief, holdable
from foundation.settings.declare import Setting

LARGEST_WHOLE = 10**15
SMALLEST, LARGEST = 1e-15, 1e15
"""Numbers other than 0 lie between these (below, where a setting does not go further), so that their products and
quotients stay finite."""
_LONGEST_TEXT = 4096
INFINITE = "inf"
"""How a number that may be infinite is written then, in flags and in files."""


class WrongValueError(ValueError):
    """A value is none that its setting takes; the text says both."""


def from_text(setting: Setting, text: str) -> Any:
    """Return the value that the text of a flag means."""
    if setting.kind == "int":
        return _in_range(setting, whole_number(text), f"'{brief(text)[1:-1]}'")
    if setting.kind == "float":
        if setting.infinite and text == INFINITE:
            return math.inf
        return _in_range(setting, decimal_number(text), f"'{brief(text)[1:-1]}'")
    if setting.kind == "bool":
        raise WrongValueError(f"takes no value; leave {brief(text)} out")
    return _from_string(setting, text)


def from_value(setting: Setting, value: Any) -> Any:
    """Return `value`, of a file or from Python, in the setting's type; None where it is absent."""
    if value is None and setting.optional:
        return None
    if setting.kind == "bool":
        if not isinstance(value, bool):
            raise WrongValueError(f"{brief(value)} is not true or false")
        return value
    if setting.infinite and value in (INFINITE, math.inf):
        return math.inf
    if setting.kind in ("int", "float"):
        return _from_number(setting, value)
    if isinstance(value, int | float) and str(value) in (setting.choices or ()):
        return str(value)  # a version number that a YAML file holds without quotes
    if not isinstance(value, str | Path):
        raise WrongValueError(f"{brief(value)} is not {expected(setting)}")
    return _from_string(setting, str(value))


def expected(setting: Setting) -> str:
    """Return what a setting takes: ``a whole number from 1 to 1024``."""
    if setting.kind == "bool":
        return "true or false"
    if setting.choices is not None:
        return f"one of {', '.join(setting.choices)}"
    if setting.kind in ("int", "float"):
        return f"{_range(setting)}{f', or {INFINITE}' if setting.infinite else ''}"
    return "a path" if setting.kind == "Path" else "a text"


def to_file(value: Any) -> Any:
    """Return a value as JSON and YAML can hold it."""
    return str(value) if isinstance(value, Path) or value == math.inf else value


def _from_number(setting: Setting, value: Any) -> int | float:
    whole = setting.kind == "int"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise WrongValueError(f"{brief(value)} is not {expected(setting)}")
    return _in_range(setting, value if whole else _as_float(value), brief(value))


def _as_float(value: int | float) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def _in_range(setting: Setting, value: int | float | None, shown: str) -> int | float:
    if value is not None and abs(value) > LARGEST_WHOLE and setting.most is None:
        raise WrongValueError(f"{shown} is too large; at most 1e15")
    if setting.kind == "float" and value is not None and 0 < abs(value) < SMALLEST:
        raise WrongValueError(f"{shown} is too close to 0; at least 1e-15")
    if value is None or not _fits(setting, value):
        raise WrongValueError(f"{shown} is not {expected(setting)}")
    return value


def _fits(setting: Setting, value: int | float) -> bool:
    if setting.choices is not None and str(value) not in setting.choices:
        return False
    low = setting.least is None or value >= setting.least
    return low and (setting.above is None or value > setting.above) and (setting.most is None or value <= setting.most)


def _range(setting: Setting) -> str:
    what = "a whole number" if setting.kind == "int" else "a number"
    if setting.above is not None:
        low = f"above {setting.above:g}"
        return f"{what} {low}" if setting.most is None else f"{what} {low} and at most {setting.most:g}"
    if setting.least is not None and setting.most is not None:
        return f"{what} from {_digits(setting.least)} to {_digits(setting.most)}"
    if setting.least is not None:
        return f"{what} of at least {_digits(setting.least)}"
    return what


def _digits(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"


def _from_string(setting: Setting, text: str) -> str | Path:
    if not text:
        raise WrongValueError(f"nothing is given: it takes {expected(setting)}")
    if not holdable(text) or len(text) > _LONGEST_TEXT:
        raise WrongValueError(f"{brief(text)} is not {expected(setting)} that can be used")
    if setting.choices is not None and text not in setting.choices:
        raise WrongValueError(f"unknown {brief(text)}; {near_names(text, setting.choices)}")
    if setting.kind != "Path":
        return text
    if text.endswith("/") and not setting.folder:
        raise WrongValueError(f"{brief(text)} is a folder's name; it takes a file's")
    return Path(text)
