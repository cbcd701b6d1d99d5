"""The one reader of JSON and YAML that others wrote: bounded before it is parsed, strict in what it takes.

Refused, each in one line with the file and the line where it is known: files beyond a size (also while a gzip file is
unpacked), deep nesting, more objects and lists than any of our files has, YAML whose aliases unfold to more than that,
keys that occur twice, NaN, infinities and numbers that no float holds, integers of absurd length, NUL and lone
surrogates in texts. A byte-order mark is skipped. `foundation.bounds` has the figures.

What comes out are dicts with text keys, lists, str, int, float, bool and None, in both languages: YAML is read as its
core schema says (YAML 1.2: ``yes`` and ``2024-01-01`` are texts; ``010`` is one too, because readers differ over it).
`foundation.fields` reads typed values out of a document.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundation import yaml_lists
from foundation.bounds import CONFIGURATION_BYTES, YAML_BYTES
from foundation.errors import UserError
from foundation.files import decode, read_bytes
from foundation.key_paths import KeyPath
from foundation.records import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """One parsed file: its `value`, what errors call it (`what`) and where it came from."""

    value: Any
    what: str
    path: str | Path | None = None
    text: str = ""
    """The JSON text, from which lines are found when they are asked for."""
    lines: Mapping[KeyPath, int] | None = None
    """The lines of a YAML text's values, which its parser knows."""

    def line(self, place: KeyPath) -> int | None:
        """Return the line (from 1) of the value at `place`, or None where nothing stands there."""
        if self.lines is not None:
            return self.lines.get(place)
        from foundation.json_places import find_line

        return find_line(self.text, place)


def read_json(path: str | Path, what: str, limit: int = CONFIGURATION_BYTES) -> Document:
    """Read a JSON file of at most `limit` bytes, or a gzip file that unpacks to as many. Raises `UserError`."""
    return parse_json(_load(path, what, limit), what, path)


def read_yaml(path: str | Path, what: str, *, plain: bool = False) -> Document:
    """Read a YAML file of at most 512 KiB; see `parse_yaml`. Raises `UserError`."""
    return parse_yaml(_load(path, what, YAML_BYTES), what, path, plain=plain)


def read_document(path: str | Path, what: str) -> Document:
    """Read a configuration in either language: YAML where the name ends in .yaml or .yml, JSON otherwise."""
    name = Path(path).name.removesuffix(".gz")
    if name.endswith((".yaml", ".yml")):
        return read_yaml(path, what)
    try:
        return read_json(path, what)
    except UserError as error:
        if name.endswith(".json") or error.line is None:
            raise
        fix = f"{error.fix}, or name the file .yaml where it is YAML"
        raise UserError(error.what, fix=fix, path=path, line=error.line) from error


def parse_json(text: str, what: str, path: str | Path | None = None) -> Document:
    """Parse JSON. `what` and `path` are for errors, which are `UserError`s."""
    from foundation.json_values import parse

    text = text.removeprefix("\ufeff")
    return Document(parse(text, what, path), what, path, text)


def parse_yaml(text: str, what: str, path: str | Path | None = None, *, plain: bool = False) -> Document:
    """Parse one YAML document. `plain`: scalars stay texts as they are written, for readers with rules of their own."""
    lists = yaml_lists.parse(text) if plain else None
    if lists is not None:
        return Document(lists[0], what, path, lines=lists[1])
    from foundation.yaml_values import parse

    value, lines = parse(text.removeprefix("\ufeff"), what, path, plain=plain)
    return Document(value, what, path, lines=lines)


def _load(path: str | Path, what: str, limit: int) -> str:
    content = read_bytes(path, what, limit)
    if content.startswith(b"\x1f\x8b"):
        content = _unpack(content, path, what, limit)
    return decode(content, path, what)


def _unpack(content: bytes, path: str | Path, what: str, limit: int) -> bytes:
    """Unpack gzip, never further than `limit` bytes."""
    unpacked = bytearray()
    while content:
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            unpacked += member.decompress(content, limit + 1 - len(unpacked))
        except zlib.error:
            raise UserError(f"the {what} is a damaged gzip file", path=path, fix="pack it anew") from None
        if len(unpacked) > limit:
            raise UserError(f"the {what} unpacks to more than {limit} bytes", path=path, fix="is this the right file?")
        if not member.eof:
            raise UserError(f"the {what} is a gzip file that was cut off", path=path, fix="pack it anew")
        content = member.unused_data.lstrip(b"\0")  # gzip files may be joined, and padded
    return bytes(unpacked)
