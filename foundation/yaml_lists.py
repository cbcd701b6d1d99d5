"""The YAML that network files are written in, ``name: [ word, word ]`` line by line, read without a YAML library.

Importing one takes longer than a small simulation. Whatever is not plainly of this form, repeated names and all that
is wrong among it, is left to `foundation.yaml_values`.
"""

from __future__ import annotations

import re

from foundation.key_paths import KeyPath

_LONGEST = 100_000
"""Longer texts are left to the parser that counts what it makes."""
_WORD = r"[-+]?[\w.]+(?:[-+][\w.]+)*"
_COMMENT = r"#[\t -~]*"
_ROW = re.compile(rf"([A-Za-z]\w*): +\[ *((?:{_WORD}(?: *, *{_WORD})*)?) *\](?: +{_COMMENT}| *)", re.ASCII)
_BLANK = re.compile(rf" *(?:{_COMMENT})?")


def parse(text: str) -> tuple[dict[str, list[str]], dict[KeyPath, int]] | None:
    """Return the lists and the line of every value, as `yaml_values.parse` with `plain`; None: not of this form."""
    values: dict[str, list[str]] = {}
    lines: dict[KeyPath, int] = {}
    for number, line in enumerate(text[: _LONGEST + 1].split("\n"), 1):
        row = _ROW.fullmatch(line)
        if row is not None and row[1] not in values:
            values[row[1]] = words = re.findall(_WORD, row[2], re.ASCII)
            lines |= dict.fromkeys([(row[1],), *((row[1], place) for place in range(len(words)))], number)
        elif row is not None or _BLANK.fullmatch(line) is None:
            return None
    if not values or len(text) > _LONGEST:
        return None
    return values, {(): min(lines.values()), **lines}
