"""JSON and YAML as such, and numbers as people write them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fuzz.target import Target, targets
from foundation.bounds import DATA_BYTES
from foundation.digits import decimal_number, whole_number
from foundation.documents import read_json, read_yaml
from foundation.errors import UserError
from foundation.printable import brief


def _json(path: Path) -> None:
    document = read_json(path, "document", DATA_BYTES)
    brief(document.value)
    if isinstance(document.value, dict):
        for name in document.value:
            document.line((name,))


def _yaml(path: Path) -> None:
    for plain in (False, True):
        document = read_yaml(path, "document", plain=plain)
        brief(document.value)


def _numbers(path: Path) -> None:
    text = path.read_bytes().decode(errors="replace")
    whole, decimal = whole_number(text), decimal_number(text)
    assert whole is None or decimal is None or float(whole) == decimal
    if whole is None and decimal is None:
        raise UserError("no number")


targets.register("json")(Target("JSON, plain or packed with gzip", _json))
targets.register("yaml")(
    Target("YAML", _yaml, words=(b"&a", b"*a", b"<<: *a", b"? ", b"|-\n", b"!!int", b"---\n", b"...\n"))
)
targets.register("numbers")(Target("numbers as people write them", _numbers))
