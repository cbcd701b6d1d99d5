"""How a workload file begins: its first line, and the names of its first JSON object's fields."""

from __future__ import annotations

import re
from pathlib import Path

from foundation.errors import UserError
from foundation.files import open_input, reason
from foundation.records import dataclass

WHAT = "workload file"
_LOOKED_AT = 1 << 20
"""Bytes of a file's head; an object that is longer is known by the fields that it begins with."""
_MARK = b"\xef\xbb\xbf"
_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[{}\[\]"]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Beginning:
    """The head of a file.

    `line` is its first line without a byte-order mark. Where the text opens a JSON object, `names` are those of its
    fields; where it opens a list (`in_list`), those of its first element's.
    """

    line: bytes
    names: frozenset[str] = frozenset()
    in_list: bool = False

    @property
    def is_json(self) -> bool:
        """Whether the text opens an object or a list."""
        return self.in_list or self.line.lstrip().startswith(b"{") or bool(self.names)

    def header(self) -> list[str]:
        """Return the first line's cells, as the header of a CSV file."""
        return [name.strip() for name in self.line.decode("utf-8", "replace").split(",")]

    def has(self, *names: str) -> bool:
        """Whether all of `names` are among the fields of the file's own first object."""
        return not self.in_list and self.names.issuperset(names)


def beginning_of(path: str | Path) -> Beginning:
    """Read the head of a file. Raises `UserError` where it cannot be read."""
    with open_input(path, WHAT) as stream:
        try:
            head = stream.read(_LOOKED_AT)
        except OSError as error:
            raise UserError(f"the {WHAT} cannot be read: {reason(error)}", path=path) from error
    head = head.removeprefix(_MARK)
    line = head.partition(b"\n")[0]
    text = head.lstrip()
    if not text.startswith((b"{", b"[")):
        return Beginning(line)
    return Beginning(line, _names(text.decode("utf-8", "replace")), text.startswith(b"["))


def _names(text: str) -> frozenset[str]:
    """Return the names of the fields of the first object, whose text may be cut off."""
    names: set[str] = set()
    wanted = 2 if text.startswith("[") else 1
    depth = 0
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark == '"':  # a text that does not end
            break
        if mark in "{[":
            depth += 1
        elif mark in "}]":
            depth -= 1
            if depth < wanted:
                break
        elif token[2] and depth == wanted:
            names.add(_unquoted(token[1]))
    return frozenset(names)


def _unquoted(text: str) -> str:
    import json

    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        return text
