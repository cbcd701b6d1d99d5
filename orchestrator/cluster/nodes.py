"""Kinds of nodes (`--node`): the machine that NPUs stand in, from ``configs/nodes/*.json`` or a user's file.

A file names its device and gives each number's source. Units in the files: GB/s (1e9 bytes a second, one direction),
ns. A topology is ASTRA-sim's: between two NPUs a message takes one link of a FullyConnected dimension, two of a Switch
(in and out), so that a switch's latency is given for each of the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from astra_files.network import MOST_LATENCY, MOST_NPUS, TOPOLOGIES
from foundation.documents import read_json
from foundation.errors import UserError, near_names
from foundation.fields import Fields
from foundation.records import dataclass
from orchestrator.fabrics.reading import load_fabric
from trace_gen.config_root import CONFIG_ROOT, is_file
from trace_gen.hardware import load_hardware, plain_name

NODES_FOLDER = CONFIG_ROOT / "nodes"
MOST_DIMENSIONS = 3
"""Of a node: with the one between nodes a network then has four, the most that ASTRA-sim's collectives can name."""
MOST_GB_S = 1e6
_WHAT = "node file"


@dataclass(frozen=True, slots=True)
class Dimension:
    """A dimension of a node's network: `npus` along it, and each one's link: bytes/s a direction, and ns."""

    topology: str
    npus: int
    bandwidth: float
    latency_ns: float


@dataclass(frozen=True, slots=True)
class Link:
    """What joins nodes through a switch: `count` links of a node, each of bytes/s a direction, and ns."""

    bandwidth: float
    latency_ns: float
    count: int
    fabric: str = ""

    def share(self, npus: int) -> float:
        """Return the bytes/s that each of `npus` has when all of them send at once: never more than one link."""
        return self.bandwidth * min(1.0, self.count / npus)


@dataclass(frozen=True, slots=True)
class NodeKind:
    """One kind of node: its device, the dimensions within it, innermost first, and the links between such nodes.

    `fabric`: what collectives within it take, by the name that ``--fabric`` takes; None where nobody measured it.
    """

    name: str
    device: str
    hardware: str
    dims: tuple[Dimension, ...]
    between: Link
    sources: Mapping[str, str]
    fabric: str | None = None

    @property
    def npus(self) -> int:
        """NPUs of a node."""
        return math.prod(one.npus for one in self.dims)


def shipped_nodes() -> dict[str, Path]:
    """Return the files of the kinds that ship with the project, by name."""
    return {path.stem: path for path in sorted(NODES_FOLDER.glob("*.json"))}


def load_node(name_or_path: str) -> NodeKind:
    """Return a shipped kind by name (spelling is tolerant: ``DGX H100``) or the one in a file.

    Raises `UserError` for an unknown name (with near ones) and for wrong fields (all of them at once).
    """
    path = Path(name_or_path)
    if is_file(path) or path.suffix == ".json":
        return read_node(path)
    shipped = shipped_nodes()
    wanted = plain_name(name_or_path)
    for name, candidate in shipped.items():
        if plain_name(name) == wanted:
            return read_node(candidate)
    for candidate in shipped.values():
        if wanted in map(plain_name, Fields.of(read_json(candidate, _WHAT)).texts("aliases")):
            return read_node(candidate)
    near = near_names(name_or_path, shipped)
    guess = f"{near} " if near.startswith("did you mean") else ""
    fix = f"{guess}shipped: {', '.join(shipped)} (or give the path of a node file)"
    raise UserError(f"unknown node {name_or_path[:80]!r}", fix=fix)


def read_node(path: Path) -> NodeKind:
    """Return the kind described in `path`."""
    fields = Fields.of(read_json(path, _WHAT))
    fields.only({"name", "device", "aliases", "hardware", "dimensions", "fabric", "between", "sources"})
    fields.texts("aliases")
    name = fields.text("name", default=path.stem)
    sources = fields.object("sources")
    read = NodeKind(
        name=name,
        device=fields.text("device", default=name),
        hardware=_hardware(fields),
        dims=_dimensions(fields),
        between=_between(fields.object("between", required=True)),
        sources={one: sources.text(one) for one in sources.names()},
        fabric=_fabric(fields),
    )
    fields.finish()
    return read


def _hardware(fields: Fields) -> str:
    name = fields.text("hardware")
    if fields.sound("hardware"):
        try:
            load_hardware(name)
        except UserError as error:
            fields.problem(str(error), "hardware")
    return name


def _fabric(fields: Fields) -> str | None:
    name = fields.text("fabric", default=None)
    if name is not None and fields.sound("fabric"):
        try:
            load_fabric(name)
        except UserError as error:
            fields.problem(str(error), "fabric")
    return name


def _dimensions(fields: Fields) -> tuple[Dimension, ...]:
    parts = fields.objects("dimensions")
    if not 1 <= len(parts) <= MOST_DIMENSIONS and fields.sound("dimensions"):
        said = f"{len(parts)} dimensions within a node"
        fields.problem(said, "dimensions", f"write 1 to {MOST_DIMENSIONS}, innermost first")
    read = tuple(_dimension(part) for part in parts)
    npus = math.prod(one.npus for one in read)
    if npus > MOST_NPUS:
        fields.problem(f"{npus} NPUs in a node", "dimensions", f"describe {MOST_NPUS} at most")
    return read


def _dimension(part: Fields) -> Dimension:
    part.only({"topology", "npus", "link_gb_s", "latency_ns"})
    return Dimension(
        topology=part.choice("topology", TOPOLOGIES),
        npus=part.integer("npus", low=2, high=MOST_NPUS),
        bandwidth=part.positive_number("link_gb_s", high=MOST_GB_S) * 1e9,
        latency_ns=part.number("latency_ns", low=0, high=MOST_LATENCY),
    )


def _between(part: Fields) -> Link:
    part.only({"fabric", "link_gb_s", "links", "latency_ns"})
    return Link(
        bandwidth=part.positive_number("link_gb_s", high=MOST_GB_S) * 1e9,
        latency_ns=part.number("latency_ns", low=0, high=MOST_LATENCY),
        count=part.positive_int("links", default=1),
        fabric=part.text("fabric", default=""),
    )
