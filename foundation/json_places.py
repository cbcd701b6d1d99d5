"""Where values stand in a JSON text. Looked up when an error needs it: the parser itself keeps no places."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from foundation.key_paths import KeyPath

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{\]}]', re.DOTALL)


def find_line(text: str, place: KeyPath) -> int | None:
    """Return the line (from 1) on which the value at `place` begins (in objects: its key), or None."""
    return next((_line(text, at) for at, found in _values(text) if found == place), None)


def find_word(text: str, word: str) -> int | None:
    """Return the line of the first number or name that is written as `word`, texts left aside."""
    return next((_line(text, token.start()) for token in _TOKEN.finditer(text) if token[0] == word), None)


def find_repeated(text: str) -> tuple[str, int] | None:
    """Return the first key that its object already has, and its line."""
    known: set[KeyPath] = set()
    for at, place in _values(text):
        if place in known:
            return str(place[-1]), _line(text, at)
        known.add(place)
    return None


def find_deep(text: str, most: int) -> int | None:
    """Return the line on which the text first opens more than `most` objects and lists inside each other."""
    depth = 0
    for token in _BRACKET.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > most:
            return _line(text, token.start())
    return None


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _values(text: str) -> Iterator[tuple[int, KeyPath]]:
    """Yield where each value begins, in text order, and its place. Ends early where the text is no JSON."""
    place: list[str | int] = []
    key: tuple[int, str] | None = None
    awaits_key = False
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark in ("]", "}", ",") and not place:
            return
        if mark in ("]", "}"):
            place.pop()
            awaits_key = False
        elif mark == ",":
            last = place[-1]
            awaits_key = isinstance(last, str)
            if isinstance(last, int):
                place[-1] = last + 1
        elif awaits_key:
            key, awaits_key = (token.start(), mark), False
        elif mark == ":":
            if key is None or not place:
                return
            place[-1] = json.loads(key[1], strict=False)
            yield key[0], tuple(place)
        else:
            if not place or isinstance(place[-1], int):
                yield token.start(), tuple(place)
            if mark in ("[", "{"):
                awaits_key = mark == "{"
                place.append("" if awaits_key else 0)
