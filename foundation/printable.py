"""Text and values of others as they may be shown to people: on one line, without control characters, and bounded.

A name out of a file may hold line breaks, terminal escape sequences or half a surrogate pair, and a value may unfold
to gigabytes. Whatever goes into an error, the console or a report passes through here.
"""

from __future__ import annotations

from collections.abc import Iterator

_SHOWN = 40
_LONGEST_NAME = 80
"""Characters of a field's, a flag's or a node's name, which may be a file's own."""
_LONGEST_INTEGER_BITS = 128
_DEEPEST = 3


def printable(text: str) -> str:
    """Return `text` with what is not printable (line breaks, escape sequences, lone surrogates) escaped: ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def shorten(text: str, limit: int = _LONGEST_NAME) -> str:
    """Return a name of others' that is printable, cut at `limit` characters."""
    shown = printable(text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."


def brief(value: object, limit: int = _SHOWN) -> str:
    """Return a JSON value (as `json` or `foundation.documents` give it) as text, cut at about `limit` characters.

    Only what is shown is looked at, so that the cost does not depend on the value's size.
    """
    parts: list[str] = []
    length = 0
    for part in _parts(value, limit, 0):
        parts.append(part)
        length += len(part)
        if length > limit:
            return "".join(parts)[: limit - 3] + "..."
    return "".join(parts)


def _parts(value: object, limit: int, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield f'"{printable(value[: limit + 1])}"'
    elif isinstance(value, dict | list | tuple):
        yield from _container(value, limit, depth)
    elif isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > _LONGEST_INTEGER_BITS:
        yield f"{'-' if value < 0 else ''}(a number of {value.bit_length()} bits)"
    else:
        known = {"None": "null", "True": "true", "False": "false"}
        yield known.get(str(value), printable(str(value)))


def _container(
    value: dict[object, object] | list[object] | tuple[object, ...], limit: int, depth: int
) -> Iterator[str]:
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    if value and depth == _DEEPEST:
        yield f"{opening}...{closing}"
        return
    yield opening
    for index, item in enumerate(value):
        yield ", " if index else ""
        if isinstance(value, dict):
            yield f'"{printable(str(item)[: limit + 1])}": '
        yield from _parts(value[item] if isinstance(value, dict) else item, limit, depth + 1)
    yield closing


def holdable(text: str) -> bool:
    """Whether file names and outputs can hold `text`: no NUL, and no half of a surrogate pair."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
