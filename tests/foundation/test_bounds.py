"""How much of what others wrote is read, from both sides of each bound, in plain numbers."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from foundation.bounds import DATA_BYTES
from foundation.documents import Document, parse_json, parse_yaml, read_document, read_json, read_yaml
from foundation.errors import UserError
from foundation.files import read_text

MIB = 1024 * 1024
READERS: dict[str, tuple[Callable[[Path], object], int]] = {
    "YAML": (lambda path: read_yaml(path, "file"), MIB // 2),
    "a configuration": (lambda path: read_json(path, "file"), 4 * MIB),
    "a document": (lambda path: read_document(path, "file"), 4 * MIB),
    "data": (lambda path: read_json(path, "file", DATA_BYTES), 32 * MIB),
}


@pytest.mark.parametrize("name", READERS)
def test_files_up_to_the_bound_are_read(name: str, tmp_path: Path) -> None:
    read, most = READERS[name]
    path = tmp_path / "file"
    path.write_bytes(b"{}" + b" " * (most - 2))
    found = read(path)
    assert isinstance(found, Document) and found.value == {}
    path.write_bytes(b"{}" + b" " * (most - 1))
    with pytest.raises(UserError, match=f"the file is larger than {most} bytes"):
        read(path)
    path.write_bytes(gzip.compress(b"{}" + b" " * (most - 2), 1))
    assert isinstance(found := read(path), Document) and found.value == {}


def test_text_is_read_whole_up_to_its_bound(tmp_path: Path) -> None:
    """The file is one hole: it takes no room on the disk."""
    path = tmp_path / "text"
    with path.open("wb") as stream:
        stream.truncate(256 * MIB + 1)
    with pytest.raises(UserError, match="is larger than 268435456 bytes"):
        read_text(path, "text")


def test_texts_are_64_levels_deep_at_most() -> None:
    for parse in (parse_json, parse_yaml):
        depths = [depth for depth in range(60, 70) if taken(parse, "[" * depth + "]" * depth)]
        assert depths == list(range(60, 65))


def taken(parse: Callable[[str, str], Document], text: str) -> bool:
    try:
        return parse(text, "file").value is not None
    except UserError:
        return False
