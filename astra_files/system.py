"""system.json: how an NPU computes and how collectives are cut up, ordered and run.

Read as ASTRA-sim reads it: keys that nothing reads are ignored, and kept when the file is written again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astra_files.fields import FieldReader, parse_json_object
from foundation.files import read_text

POLICIES = ("LIFO", "FIFO", "EXPLICIT")
OPTIMISATIONS = ("baseline", "localBWAware")
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")


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
