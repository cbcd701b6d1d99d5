"""JSON text -> values, within the bounds of `foundation.documents`.

The standard parser does the work, and stops by itself at what nests too deep for it or counts more digits than it may;
the other bounds are checked beside it. Lines are looked for only when something is wrong.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from foundation.bounds import MOST_DEPTH, MOST_NODES
from foundation.digits import decimal_number
from foundation.errors import UserError
from foundation.json_places import find_deep, find_repeated, find_word
from foundation.printable import brief, holdable

_LONG = re.compile(r"[0-9]{640,}")
"""Python reads integers of at most as many digits without complaint whatever its settings (`sys.int_info`)."""


class _WrongNumberError(Exception):
    """A number that we do not take, as it is written; the text says why."""

    def __init__(self, written: str, text: str) -> None:
        super().__init__(text)
        self.written = written


class _RepeatedKeyError(Exception):
    """An object has a key twice."""


def parse(text: str, what: str, path: str | Path | None) -> Any:
    """Return the value of `text`. Raises `UserError`."""
    if text.count("[") + text.count("{") > MOST_NODES:
        raise UserError(f"the {what} holds more than {MOST_NODES} objects and lists", path=path)
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_decimal)
    except json.JSONDecodeError as error:
        said = f"not valid JSON: {error.msg} (column {error.colno})"
        raise UserError(said, path=path, line=error.lineno, fix="correct the syntax") from None
    except _WrongNumberError as error:
        line = find_word(text, error.written)
        raise UserError(str(error), path=path, line=line, fix="write one that a 64-bit float holds") from None
    except _RepeatedKeyError:
        key, line = find_repeated(text) or ("", None)
        raise UserError(f"the key {brief(key)} occurs twice", path=path, line=line, fix="keep one") from None
    except RecursionError:
        raise _too_deep(text, what, path) from None
    except ValueError:
        raise _too_long(text, path) from None
    if _is_too_deep(value):
        raise _too_deep(text, what, path)
    if "\\u" in text or not holdable(text):
        _check_texts(value, path)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise _RepeatedKeyError
    return values


def _constant(name: str) -> Any:
    raise _WrongNumberError(name, f"{name} is not a number that JSON has")


def _decimal(text: str) -> float:
    value = float(text)
    if value and math.isfinite(value):
        return value
    if decimal_number(text) is None:
        raise _WrongNumberError(text, f"the number {brief(text)[1:-1]} is out of range")
    return value


def _is_too_deep(value: Any) -> bool:
    """Look at the containers level by level, which needs no recursion."""
    level = [value]
    for _ in range(MOST_DEPTH):
        inside = [one.values() if type(one) is dict else one for one in level if type(one) in (dict, list)]
        level = [one for items in inside for one in items if type(one) in (dict, list)]
        if not level:
            return False
    return True


def _too_deep(text: str, what: str, path: str | Path | None) -> UserError:
    line = find_deep(text, MOST_DEPTH)
    return UserError(f"the {what} nests deeper than {MOST_DEPTH} levels", path=path, line=line)


def _too_long(text: str, path: str | Path | None) -> UserError:
    found = max(_LONG.finditer(text), key=lambda match: match.end() - match.start())
    said = f"the number {found[0][:12]}... has {len(found[0])} digits"
    return UserError(said, path=path, line=text.count("\n", 0, found.start()) + 1, fix="write a shorter one")


def _check_texts(value: Any, path: str | Path | None) -> None:
    """Refuse NUL and lone surrogates in keys and texts: no file name and no output can hold them."""
    unread = [value]
    while unread:
        one = unread.pop()
        if isinstance(one, dict):
            unread += (*one, *one.values())
        elif isinstance(one, list):
            unread += one
        elif isinstance(one, str) and not holdable(one):
            raise UserError(f"the text {brief(one)} holds NUL or half a surrogate pair", path=path, fix="remove it")
