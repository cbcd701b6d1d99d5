"""The three configuration files of ASTRA-sim's analytical backend as frozen, typed records.

Each is read as ASTRA-sim reads it (unknown keys of the JSON files are ignored, and kept when the file is written
again) and refused where ASTRA-sim would abort, hang or answer nonsense. Reading reports every mistake, not the first.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analytical.fields import FieldReader, parse_json_object
from foundation.errors import UserError
from foundation.files import read_text

TOPOLOGIES = ("Ring", "FullyConnected", "Switch")
MEMORY_TYPES = ("NO_MEMORY_EXPANSION", "PER_NODE_MEMORY_EXPANSION", "PER_NPU_MEMORY_EXPANSION", "MEMORY_POOL")
POLICIES = ("LIFO", "FIFO", "EXPLICIT")
OPTIMISATIONS = ("baseline", "localBWAware")
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
UINT64_MAX = 2**64 - 1


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


@dataclass(frozen=True, slots=True)
class SystemConfig:
    """system.json: how an NPU computes and how collectives are cut up, ordered and run.

    Fields are named after the file's keys. `peak_perf` is in TFLOP/s (10^12), `local_mem_bw` in GB/s (10^9),
    `endpoint_delay` in ns (None where absent: 10 ns, which no injection scale touches); `implementations` maps a
    collective (``all-reduce``, ...) to one algorithm a dimension and `custom` to the prefix of a Chakra graph. `other`
    keeps the keys that nothing reads, for `to_text`.
    """

    scheduling_policy: str = "LIFO"
    collective_optimization: str = "baseline"
    local_reduction_delay: int = 1
    active_chunks_per_dimension: int = 1
    L: float = 0.0
    o: float = 0.0
    g: float = 0.0
    G: float = 0.0
    endpoint_delay: int | None = None
    model_shared_bus: bool = False
    preferred_dataset_splits: int = 0
    peak_perf: float = 0.0
    local_mem_bw: float = 0.0
    roofline_enabled: bool = False
    trace_enabled: bool = False
    replay_only: bool = False
    implementations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    custom: Mapping[str, str] = field(default_factory=dict)
    per_node_custom: str | None = None
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_file(cls, path: str | Path) -> SystemConfig:
        """Read `path`; see `from_text`."""
        return cls.from_text(read_text(path, "system configuration"), path)

    @classmethod
    def from_text(cls, text: str, path: str | Path | None = None) -> SystemConfig:
        """Parse JSON. Absent keys have upstream's defaults; raises `UserError` with every field that is wrong."""
        values = parse_json_object(text, path)
        reader = FieldReader(values, text, path)
        config = cls(
            scheduling_policy=reader.choice("scheduling-policy", "LIFO", POLICIES),
            collective_optimization=reader.choice("collective-optimization", "baseline", OPTIMISATIONS),
            local_reduction_delay=reader.integer("local-reduction-delay", 1),
            active_chunks_per_dimension=reader.integer("active-chunks-per-dimension", 1, low=1),
            L=reader.number("L", 0.0, low=0),
            o=reader.number("o", 0.0, low=0),
            g=reader.number("g", 0.0, low=0),
            G=reader.number("G", 0.0, low=0),
            endpoint_delay=reader.integer("endpoint-delay", 10, low=0) if "endpoint-delay" in values else None,
            model_shared_bus=reader.integer("model-shared-bus", 0) == 1,
            preferred_dataset_splits=reader.integer("preferred-dataset-splits", 0, low=0),
            peak_perf=reader.number("peak-perf", 0.0, low=0),
            local_mem_bw=reader.number("local-mem-bw", 0.0, low=0),
            roofline_enabled=reader.switch("roofline-enabled"),
            trace_enabled=reader.switch("trace-enabled"),
            replay_only=reader.switch("replay-only"),
            implementations=_implementations(reader),
            custom=_custom(reader),
            per_node_custom=_per_node(reader),
            other={key: value for key, value in values.items() if key not in _SYSTEM_KEYS},
        )
        reader.finish()
        return config

    def to_text(self) -> str:
        """Return the file's canonical text: every field, upstream's key names, unread keys last."""
        switches = {
            "model-shared-bus": int(self.model_shared_bus),
            "roofline-enabled": int(self.roofline_enabled),
            "trace-enabled": int(self.trace_enabled),
            "replay-only": int(self.replay_only),
        }
        values: dict[str, Any] = {
            key: getattr(self, key.replace("-", "_")) for key in _SCALAR_KEYS if key not in switches
        }
        values |= switches
        if self.endpoint_delay is None:
            del values["endpoint-delay"]
        values |= {f"{name}-implementation": list(row) for name, row in self.implementations.items()}
        values |= {f"{name}-implementation-custom": [prefix] for name, prefix in self.custom.items()}
        if self.per_node_custom is not None:
            values["per-node-custom-implementation"] = self.per_node_custom
        return json.dumps(values | dict(self.other), indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class RemoteMemoryConfig:
    """memory.json: what MEM_LOAD and MEM_STORE cost. Latency in ns, bandwidth in GB/s (10^9, so bytes per ns)."""

    memory_type: str = "NO_MEMORY_EXPANSION"
    remote_mem_latency: int = 0
    remote_mem_bw: int = 0
    num_nodes: int = 0
    num_npus_per_node: int = 0
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_file(cls, path: str | Path) -> RemoteMemoryConfig:
        """Read `path`; see `from_text`."""
        return cls.from_text(read_text(path, "remote memory configuration"), path)

    @classmethod
    def from_text(cls, text: str, path: str | Path | None = None) -> RemoteMemoryConfig:
        """Parse JSON; numbers are truncated to integers, as upstream does (2.9 GB/s is 2)."""
        values = parse_json_object(text, path)
        reader = FieldReader(values, text, path)
        if "memory-type" not in values:
            reader.wrong("memory-type", "missing", f"write one of {', '.join(MEMORY_TYPES)}")
        kind = reader.choice("memory-type", MEMORY_TYPES[0], MEMORY_TYPES)
        per_node = kind == "PER_NODE_MEMORY_EXPANSION"
        config = cls(
            memory_type=kind,
            remote_mem_latency=reader.integer("remote-mem-latency", 0, low=0, high=UINT64_MAX),
            remote_mem_bw=reader.integer("remote-mem-bw", 0, low=0, high=UINT64_MAX),
            num_nodes=reader.integer("num-nodes", 0, low=0) if per_node else 0,
            num_npus_per_node=reader.integer("num-npus-per-node", 0, low=0) if per_node else 0,
            other={key: value for key, value in values.items() if key not in _MEMORY_KEYS},
        )
        if per_node and (config.num_npus_per_node < 1 or config.num_nodes < 1):
            reader.wrong("num-npus-per-node", "nodes or NPUs a node are 0 or missing", "write both, at least 1")
        reader.finish()
        return config

    def to_text(self) -> str:
        """Return the file's canonical text."""
        values: dict[str, Any] = {
            "memory-type": self.memory_type,
            "remote-mem-latency": self.remote_mem_latency,
            "remote-mem-bw": self.remote_mem_bw,
        }
        if self.memory_type == "PER_NODE_MEMORY_EXPANSION":
            values |= {"num-nodes": self.num_nodes, "num-npus-per-node": self.num_npus_per_node}
        return json.dumps(values | dict(self.other), indent=1) + "\n"


_SCALAR_KEYS = (
    "scheduling-policy",
    "collective-optimization",
    "local-reduction-delay",
    "active-chunks-per-dimension",
    "L",
    "o",
    "g",
    "G",
    "endpoint-delay",
    "model-shared-bus",
    "preferred-dataset-splits",
    "peak-perf",
    "local-mem-bw",
    "roofline-enabled",
    "trace-enabled",
    "replay-only",
)
_SYSTEM_KEYS = {
    *_SCALAR_KEYS,
    *(f"{name}-implementation" for name in COLLECTIVES),
    *(f"{name}-implementation-custom" for name in COLLECTIVES),
    "per-node-custom-implementation",
}
_MEMORY_KEYS = {"memory-type", "remote-mem-latency", "remote-mem-bw", "num-nodes", "num-npus-per-node"}
_ALGORITHM = re.compile(
    r"ring|oneRing|doubleBinaryTree|halvingDoubling|oneHalvingDoubling|(one)?[dD]irect([1-9]\d*.*)?"
)


def _implementations(reader: FieldReader) -> dict[str, tuple[str, ...]]:
    found = {}
    for name in COLLECTIVES:
        key = f"{name}-implementation"
        row = reader.texts(key)
        if row is None:
            continue
        for algorithm in row:
            if not _ALGORITHM.fullmatch(algorithm) or algorithm.startswith(("Direct", "onedirect")):
                reader.wrong(
                    key,
                    f"{algorithm!r} is unknown",
                    "write ring, direct, directN (N peers at once), halvingDoubling, doubleBinaryTree, oneRing, "
                    "oneDirect, oneDirectN or oneHalvingDoubling",
                )
        found[name] = row
    return found


def _custom(reader: FieldReader) -> dict[str, str]:
    found = {}
    for name in COLLECTIVES:
        key = f"{name}-implementation-custom"
        row = reader.texts(key)
        if row is not None and len(row) != 1:
            reader.wrong(key, f"{len(row)} entries", "write one prefix of Chakra files; it covers all dimensions")
        elif row is not None:
            found[name] = row[0]
    return found


def _per_node(reader: FieldReader) -> str | None:
    value = reader.values.get("per-node-custom-implementation")
    if value is not None and not isinstance(value, str):
        reader.wrong("per-node-custom-implementation", f"{value!r} is not a path", "write the path of a YAML file")
        return None
    return value


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
