"""Devices, nodes and fabrics that ship with the project: one row each, and one of them in full, with its sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from foundation.documents import read_json
from foundation.errors import UserError, near_names
from foundation.fields import Fields
from foundation.printable import printable
from foundation.records import dataclass
from orchestrator.cluster.nodes import load_node, shipped_nodes
from orchestrator.fabrics.reading import load_fabric, shipped_fabrics
from orchestrator.observers.tables import print_table
from trace_gen.config_root import is_file
from trace_gen.hardware import Hardware, load_hardware, plain_name, shipped_hardware

Row = tuple[str, ...]
NONE = "-"
DEVICE_HEADER = (
    "device",
    "what it is",
    "16 bits, TFLOP/s",
    "8 bits, TFLOP/s",
    "memory, GiB",
    "memory, GB/s",
    "link, GB/s",
    "W",
    "fabric",
)
NODE_HEADER = ("node", "NPUs", "device", "within it, GB/s a direction", "between nodes, GB/s", "fabric")
FABRIC_HEADER = ("fabric", "ranks", "collectives", "measured by")
_WHAT = "hardware configuration"
_UNITS = {"tflops": "TFLOP/s, dense", "gb_s": "GB/s", "gb": "GB", "gib": "GiB", "mib": "MiB", "ns": "ns", "w": "W"}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing that is listed: its files by name, its table, and what reads and so checks one of them."""

    name: str
    shipped: Callable[[], Mapping[str, Path]]
    header: Row
    row: Callable[[str], Row]


def device_row(name: str) -> Row:
    """Return the main figures of a device."""
    one = load_hardware(name)
    return (
        name,
        one.device,
        _rate(one, "bf16", "fp16"),
        _rate(one, "fp8", "int8"),
        f"{one.driver_memory_bytes / 2**30:.4g}",
        f"{one.memory_bandwidth / 1e9:.5g}",
        f"{one.link_bandwidth / 1e9:.4g}",
        NONE if one.power_w is None else f"{one.power_w:g}",
        one.fabric or NONE,
    )


def node_row(name: str) -> Row:
    """Return what a node is made of."""
    one = load_node(name)
    within = ", ".join(f"{dim.topology} of {dim.npus} at {dim.bandwidth / 1e9:g}" for dim in one.dims)
    between = f"{one.between.count} x {one.between.bandwidth / 1e9:g} {one.between.fabric}".rstrip()
    return (name, str(one.npus), one.hardware, within, between, one.fabric or NONE)


def fabric_row(name: str) -> Row:
    """Return which collectives were measured on a fabric, over how many ranks."""
    one = load_fabric(name)
    ranks = sorted({ranks for curves in one.curves.values() for ranks in curves})
    return (name, ", ".join(map(str, ranks)), ", ".join(sorted(one.curves)), one.origin)


KINDS = (
    Kind("devices", shipped_hardware, DEVICE_HEADER, device_row),
    Kind("nodes", shipped_nodes, NODE_HEADER, node_row),
    Kind("fabrics", shipped_fabrics, FABRIC_HEADER, fabric_row),
)


def print_all(stream: TextIO) -> None:
    """Print a table of each kind."""
    for kind in KINDS:
        print_table(kind.name.capitalize(), kind.header, [kind.row(name) for name in kind.shipped()], stream)


def all_as_json() -> dict[str, Any]:
    """Return the files of each kind, by name, as they are: figures in the units that their fields name, and sources."""
    return {kind.name: {name: _document(path) for name, path in kind.shipped().items()} for kind in KINDS}


def print_one(name: str, stream: TextIO) -> None:
    """Print every figure of what is called `name`, with its source; an unknown name is a `UserError`."""
    kind, known, path = find(name)
    document = _document(path)
    print_table(printable(known), ("", "", "source"), list(_figures(document)), stream)
    if kind.name == "fabrics":
        print_table("Curves", ("collective", "ranks", "sizes", "source"), list(_curves(document)), stream)


def one_as_json(name: str) -> dict[str, Any]:
    """Return the file of what is called `name`, and which kind it is."""
    kind, known, path = find(name)
    return {"kind": kind.name.removesuffix("s"), "name": known, **_document(path)}


def find(name: str) -> tuple[Kind, str, Path]:
    """Return the kind, name and file of what is called `name`: a device, node or fabric, or a device's file.

    Spelling is as tolerant as where a run names it; raises `UserError` for an unknown name, with near ones.
    """
    if is_file(Path(name)) or Path(name).suffix == ".json":
        return KINDS[0], load_hardware(name).name, Path(name)
    wanted, known = plain_name(name), list[str]()
    for kind in KINDS:
        for shipped, path in kind.shipped().items():
            known.append(shipped)
            if wanted in {plain_name(shipped), *map(plain_name, _aliases(path))}:
                return kind, shipped, path
    fix = f"{near_names(name, known)}; orrery hardware lists all"
    raise UserError(f"no device, node or fabric is called {name[:80]!r}", fix=fix.replace("?;", "?"))


def _aliases(path: Path) -> tuple[str, ...]:
    return tuple(Fields.of(read_json(path, _WHAT)).texts("aliases"))


def _document(path: Path) -> dict[str, Any]:
    return dict(read_json(path, _WHAT).value)


def _rate(device: Hardware, *formats: str) -> str:
    return next((f"{device.peak_flops[one] / 1e12:.4g}" for one in formats if one in device.peak_flops), NONE)


def _figures(document: Mapping[str, Any]) -> Iterator[Row]:
    """Yield every field but the curves, flat, with its unit and the source that its file gives."""
    sources = document.get("sources", {})
    for name, value in _flat({one: value for one, value in document.items() if one not in ("sources", "curves")}):
        yield name, _shown(name, value), source_of(name, sources) or NONE


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        for place, part in enumerate(value):
            yield from _flat(part, name if len(value) == 1 else f"{name}[{place}]")
    else:
        yield name, value


def source_of(name: str, sources: Mapping[str, str]) -> str | None:
    """Return the source that a file gives for a figure, by its own name or that of what it is a part of."""
    whole = name
    while whole:
        for said in (whole, whole.removesuffix("_gb").removesuffix("_gib")):
            if said in sources:
                return sources[said]
        whole = whole.rpartition(".")[0]
    return None


def _shown(name: str, value: Any) -> str:
    if isinstance(value, list):
        return printable(", ".join(map(str, value)))
    unit = next(
        (unit for end, unit in _UNITS.items() if f"_{end}" in f"_{name}".partition(".")[0][-len(end) - 1 :]), ""
    )
    numeric = isinstance(value, int | float)
    return f"{value:g} {unit}".rstrip() if numeric else printable(str(value))


def _curves(document: Mapping[str, Any]) -> Iterator[Row]:
    for curve in document["curves"]:
        sizes = [size for size, _ in curve["points"]]
        source = document["sources"].get(curve["source"], curve["source"])
        yield curve["collective"], str(curve["ranks"]), f"{len(sizes)}, {sizes[0]} to {sizes[-1]} bytes", source
