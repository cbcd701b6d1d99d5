"""network.yml: the dimensions of the network, innermost first."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from foundation.digits import decimal_number, whole_number
from foundation.documents import Document, parse_yaml, read_yaml
from foundation.fields import Fields
from foundation.records import dataclass

WHAT = "network configuration"
TOPOLOGIES = ("Ring", "FullyConnected", "Switch")
MOST_NPUS = 2**20
LEAST_BANDWIDTH, MOST_BANDWIDTH = 1e-9, 1e9
"""GB/s: from a byte a second, so that no transfer takes longer than can be counted."""
MOST_LATENCY = 1e12
"""ns: a quarter of an hour."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """network.yml: one entry a dimension, dimension 0 innermost (the fastest varying part of a rank).

    `topology`: Ring, FullyConnected or Switch; `npus_count`: NPUs along the dimension; `bandwidth`: GB/s of a link,
    where upstream's GB is 2^30 bytes; `latency`: ns of a link.
    """

    topology: tuple[str, ...]
    npus_count: tuple[int, ...]
    bandwidth: tuple[float, ...]
    latency: tuple[float, ...]

    @property
    def npus(self) -> int:
        """Number of NPUs, the product of `npus_count`."""
        return math.prod(self.npus_count)

    @property
    def bytes_per_ns(self) -> tuple[float, ...]:
        """Bandwidth of each dimension as upstream computes it (NetworkFunction.cpp): GB/s * 2^30 / 10^9."""
        return tuple(value * (1 << 30) / 1_000_000_000 for value in self.bandwidth)

    @classmethod
    def from_file(cls, path: str | Path) -> NetworkConfig:
        """Read `path`; see `from_text`."""
        return cls._read(read_yaml(path, WHAT, plain=True))

    @classmethod
    def from_text(cls, text: str, path: str | Path | None = None) -> NetworkConfig:
        """Parse YAML. `npus_count: [1]` is allowed here (a system without a network), unlike upstream.

        Raises `UserError` with every missing, mistyped or inconsistent field and its line.
        """
        return cls._read(parse_yaml(text, WHAT, path, plain=True))

    @classmethod
    def _read(cls, document: Document) -> NetworkConfig:
        fields = Fields.of(document)
        read = cls(
            _column(fields, "topology", "a list of names, one a dimension", _text),
            _column(fields, "npus_count", "a list of whole numbers, one a dimension", whole_number),
            _column(fields, "bandwidth", "a list of numbers, one a dimension", decimal_number),
            _column(fields, "latency", "a list of numbers, one a dimension", decimal_number),
        )
        _check_lengths(fields, read)
        _check_values(fields, read)
        fields.finish()
        return read

    def to_text(self) -> str:
        """Return the file's canonical text."""
        rows = {
            "topology": ", ".join(self.topology),
            "npus_count": ", ".join(str(count) for count in self.npus_count),
            "bandwidth": ", ".join(_canonical(value) for value in self.bandwidth),
            "latency": ", ".join(_canonical(value) for value in self.latency),
        }
        notes = {"bandwidth": "  # GB/s", "latency": "  # ns"}
        return "".join(f"{name}: [ {row} ]{notes.get(name, '')}\n" for name, row in rows.items())


def _column(fields: Fields, name: str, expected: str, convert: Callable[[str], T | None]) -> tuple[T, ...]:
    """Return one list of the file; empty where a problem was noted.

    Its scalars are texts as they are written, because upstream's reader goes by no YAML type: "4" in quotes is 4.
    """
    value: Any = fields.values.get(name)
    if value is None:
        fields.problem("missing", name, f"write {expected}")
        return ()
    items = value if isinstance(value, list) else []
    column = [convert(item) if isinstance(item, str) else None for item in items]
    found = tuple(item for item in column if item is not None)
    if not found or len(found) < len(column):
        fields.wrong(name, expected)
        return ()
    return found


def _check_lengths(fields: Fields, read: NetworkConfig) -> None:
    dimensions = len(read.topology)
    for name in ("npus_count", "bandwidth", "latency"):
        entries = len(getattr(read, name))
        if dimensions and entries and entries != dimensions:
            said = f"{entries} entries for {dimensions} dimensions of topology"
            fields.problem(said, name, "write one entry a dimension")


def _check_values(fields: Fields, read: NetworkConfig) -> None:
    for name in read.topology:
        if name not in TOPOLOGIES:
            fields.problem(f"{name!r} is unknown", "topology", f"write one of {', '.join(TOPOLOGIES)}")
    counts = list(read.npus_count)
    if any(count < 1 or (count == 1 and len(counts) > 1) for count in counts):
        fields.problem(f"{counts} has a dimension of fewer than 2 NPUs", "npus_count", "drop that dimension")
    elif read.npus > MOST_NPUS:
        fields.problem(f"{counts} makes {read.npus} NPUs", "npus_count", f"simulate {MOST_NPUS} at most")
    _check_range(fields, "bandwidth", read.bandwidth, LEAST_BANDWIDTH, MOST_BANDWIDTH, "GB/s")
    _check_range(fields, "latency", read.latency, 0, MOST_LATENCY, "ns")


def _check_range(fields: Fields, name: str, column: tuple[float, ...], low: float, high: float, unit: str) -> None:
    if any(not low <= value <= high for value in column):
        said = f"{list(column)} does not lie between {low:g} and {high:g} {unit}"
        fields.problem(said, name, f"write {unit} within them")


def _text(item: str) -> str:
    return item


def _canonical(value: float) -> str:
    return repr(float(value))
