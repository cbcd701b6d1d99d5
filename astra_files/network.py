"""network.yml: the dimensions of the network, innermost first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astra_files.fields import FieldReader
from foundation.errors import UserError
from foundation.files import read_text

TOPOLOGIES = ("Ring", "FullyConnected", "Switch")


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
        return cls.from_text(read_text(path, "network configuration"), path)

    @classmethod
    def from_text(cls, text: str, path: str | Path | None = None) -> NetworkConfig:
        """Parse YAML. `npus_count: [1]` is allowed here (a system without a network), unlike upstream.

        Raises `UserError` with every missing, mistyped or inconsistent field and its line.
        """
        values, lines = _yaml_fields(text, path)
        reader = FieldReader(values, text, path, lines)
        topology = _column(reader, "topology", str)
        npus = _column(reader, "npus_count", int)
        bandwidth = _column(reader, "bandwidth", float)
        latency = _column(reader, "latency", float)
        lengths = {"npus_count": npus, "bandwidth": bandwidth, "latency": latency}
        for name, column in lengths.items():
            if topology and column and len(column) != len(topology):
                reader.wrong(
                    name,
                    f"{len(column)} entries for {len(topology)} dimensions of topology",
                    "write one entry a dimension",
                )
        for name in topology:
            if name not in TOPOLOGIES:
                reader.wrong("topology", f"{name!r} is unknown", f"write one of {', '.join(TOPOLOGIES)}")
        if any(count < 1 or (count == 1 and len(npus) > 1) for count in npus):
            reader.wrong("npus_count", f"{list(npus)} has a dimension of fewer than 2 NPUs", "drop that dimension")
        if any(value <= 0 for value in bandwidth):
            reader.wrong("bandwidth", f"{list(bandwidth)} is not above 0", "write GB/s above 0")
        if any(value < 0 for value in latency):
            reader.wrong("latency", f"{list(latency)} is negative", "write ns of at least 0")
        reader.finish()
        return cls(topology, npus, bandwidth, latency)

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


def _column(reader: FieldReader, name: str, kind: type) -> tuple[Any, ...]:
    """Return one list of network.yml, converted to `kind`."""
    rows = {str: "names", int: "integers", float: "numbers"}
    value = reader.values.get(name)
    if not isinstance(value, list) or not value:
        what = "missing" if value is None else f"{value!r} is not a list"
        reader.wrong(name, what, f"write a list of {rows[kind]}, one a dimension")
        return ()
    try:
        column = tuple(kind(item) for item in value)
    except (TypeError, ValueError):
        column = ()
    finite = kind is not float or all(math.isfinite(item) for item in column)
    if not column or not finite or any("_" in item for item in value if kind is not str):
        written = f"[{', '.join(map(str, value))}]"
        reader.wrong(name, f"{written} does not hold {rows[kind]}", f"write a list of {rows[kind]}")
        return ()
    return column


def _yaml_fields(text: str, path: str | Path | None) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the top-level mapping of a YAML text, scalars as they are written, and the line of each of its keys.

    As written, because upstream's reader goes by no YAML type: it takes "4" in quotes for 4, and 0500 for 500.
    """
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "unreadable"
        raise UserError(
            f"not valid YAML: {problem}",
            path=path,
            line=None if mark is None else mark.line + 1,
            fix="correct the syntax",
        ) from None
    if not isinstance(values, dict) or not isinstance(node, yaml.MappingNode):
        raise UserError(
            "the top level is not a mapping", path=path, fix="write topology, npus_count, bandwidth and latency"
        )
    return values, {str(key.value): key.start_mark.line + 1 for key, _ in node.value}


def _canonical(value: float) -> str:
    return repr(float(value))
