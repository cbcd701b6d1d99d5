"""system.json: how an NPU computes and how collectives are cut up, ordered and run.

Read as ASTRA-sim reads it: keys that nothing reads are ignored, and kept when the file is written again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from astra_files.numbers import integer, number, switch
from foundation.documents import Document, parse_json, read_json
from foundation.fields import Fields
from foundation.printable import brief
from foundation.records import dataclass

WHAT = "system configuration"
POLICIES = ("LIFO", "FIFO", "EXPLICIT")
OPTIMISATIONS = ("baseline", "localBWAware")
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
MOST_SPLITS = 2**16
"""Chunks that a collective is cut into; each is simulated on every rank."""
MOST_DELAY = 10**9
"""ns of one step over a bus: a second."""
MOST_PERFORMANCE = 1e15
"""TFLOP/s, or GB/s."""


@dataclass(frozen=True, slots=True)
class SystemConfig:
    """system.json: how an NPU computes and how collectives are cut up, ordered and run.

    Fields are named after the file's keys. `peak_perf` is in TFLOP/s (10^12), `local_mem_bw` in GB/s (10^9),
    `endpoint_delay` in ns (None where absent: 10 ns, which no injection scale touches); `implementations` maps a
    collective (``all-reduce``, ...) to one algorithm a dimension and `custom` to the prefix of a Chakra graph. `other`
    keeps the keys that nothing reads, for `to_text`.

    `collective_optimization` is None where absent: ASTRA-sim's is then undefined, which shows in an all-reduce over
    two or more dimensions and nowhere else.
    """

    scheduling_policy: str = "LIFO"
    collective_optimization: str | None = "baseline"
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
        return cls._read(read_json(path, WHAT))

    @classmethod
    def from_text(cls, text: str, path: str | Path | None = None) -> SystemConfig:
        """Parse JSON. Raises `UserError` with every field that is wrong and its line.

        Absent keys have upstream's defaults, but for the two that upstream leaves undefined: `scheduling-policy`,
        without which it may abort, is required, and `collective-optimization` stays undefined.
        """
        return cls._read(parse_json(text, WHAT, path))

    @classmethod
    def _read(cls, document: Document) -> SystemConfig:
        fields = Fields.of(document)
        read = cls(
            scheduling_policy=fields.choice("scheduling-policy", POLICIES),
            collective_optimization=fields.choice("collective-optimization", OPTIMISATIONS, default=None),
            local_reduction_delay=integer(fields, "local-reduction-delay", 1, 0, MOST_DELAY),
            active_chunks_per_dimension=integer(fields, "active-chunks-per-dimension", 1, 1),
            L=number(fields, "L", MOST_DELAY),
            o=number(fields, "o", MOST_DELAY),
            g=number(fields, "g", MOST_DELAY),
            G=number(fields, "G", MOST_DELAY),
            endpoint_delay=_endpoint_delay(fields),
            model_shared_bus=integer(fields, "model-shared-bus", 0, -1) == 1,
            preferred_dataset_splits=integer(fields, "preferred-dataset-splits", 0, 0, MOST_SPLITS),
            peak_perf=number(fields, "peak-perf", MOST_PERFORMANCE),
            local_mem_bw=number(fields, "local-mem-bw", MOST_PERFORMANCE),
            roofline_enabled=switch(fields, "roofline-enabled"),
            trace_enabled=switch(fields, "trace-enabled"),
            replay_only=switch(fields, "replay-only"),
            implementations=_implementations(fields),
            custom=_custom(fields),
            per_node_custom=fields.text("per-node-custom-implementation", default=None),
            other={key: value for key, value in fields.values.items() if key not in _KEYS},
        )
        if switch(fields, "track-local-mem"):
            fields.problem(
                "ASTRA-sim never ends with it, for Chakra graphs lack what it asks for", _TRACKING, "write 0"
            )
        fields.finish()
        return read

    def to_text(self) -> str:
        """Return the file's canonical text: every field, upstream's key names, unread keys last."""
        values: dict[str, Any] = {key: getattr(self, key.replace("-", "_")) for key in _SCALARS}
        values |= {key: int(getattr(self, key.replace("-", "_"))) for key in _SWITCHES}
        values = {key: value for key, value in values.items() if value is not None}
        values |= {f"{name}-implementation": list(row) for name, row in self.implementations.items()}
        values |= {f"{name}-implementation-custom": [prefix] for name, prefix in self.custom.items()}
        if self.per_node_custom is not None:
            values["per-node-custom-implementation"] = self.per_node_custom
        return json.dumps(values | dict(self.other), indent=1) + "\n"


_SCALARS = (
    "scheduling-policy",
    "collective-optimization",
    "local-reduction-delay",
    "active-chunks-per-dimension",
    "L",
    "o",
    "g",
    "G",
    "endpoint-delay",
    "preferred-dataset-splits",
    "peak-perf",
    "local-mem-bw",
)
_SWITCHES = ("model-shared-bus", "roofline-enabled", "trace-enabled", "replay-only")
_TRACKING = "track-local-mem"
_KEYS = {
    *_SCALARS,
    *_SWITCHES,
    *(f"{name}-implementation" for name in COLLECTIVES),
    *(f"{name}-implementation-custom" for name in COLLECTIVES),
    "per-node-custom-implementation",
}
_ALGORITHM = re.compile(
    r"ring|oneRing|doubleBinaryTree|halvingDoubling|oneHalvingDoubling|(direct|oneDirect)([1-9][0-9]*.*)?"
)


def _endpoint_delay(fields: Fields) -> int | None:
    return integer(fields, "endpoint-delay", 10, 0, MOST_DELAY) if "endpoint-delay" in fields.values else None


def _implementations(fields: Fields) -> dict[str, tuple[str, ...]]:
    found = {}
    for name in COLLECTIVES:
        key = f"{name}-implementation"
        if key not in fields.values:
            continue
        found[name] = _texts(fields, key)
        for algorithm in found[name]:
            if not _ALGORITHM.fullmatch(algorithm):
                fields.problem(
                    f"{brief(algorithm)} is unknown",
                    key,
                    "write ring, direct, directN (N peers at once), halvingDoubling, doubleBinaryTree, oneRing, "
                    "oneDirect, oneDirectN or oneHalvingDoubling",
                )
    return found


def _custom(fields: Fields) -> dict[str, str]:
    found = {}
    for name in COLLECTIVES:
        key = f"{name}-implementation-custom"
        if key not in fields.values:
            continue
        row = _texts(fields, key)
        if len(row) == 1:
            found[name] = row[0]
        elif isinstance(fields.values[key], list):
            fields.problem(f"{len(row)} entries", key, "write one prefix of Chakra files; it covers all dimensions")
    return found


def _texts(fields: Fields, key: str) -> tuple[str, ...]:
    """Return the strings of a list that is there."""
    if not isinstance(fields.values[key], list):
        fields.wrong(key, 'a list of strings, one a dimension, such as ["ring"]')
        return ()
    return fields.texts(key)
