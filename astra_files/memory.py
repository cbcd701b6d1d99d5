"""memory.json: the remote memory.

Read as ASTRA-sim reads it: keys that nothing reads are ignored, and kept when the file is written again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from astra_files.numbers import integer
from foundation.documents import Document, parse_json, read_json
from foundation.fields import Fields
from foundation.records import dataclass

WHAT = "memory configuration"
MEMORY_TYPES = ("NO_MEMORY_EXPANSION", "PER_NODE_MEMORY_EXPANSION", "PER_NPU_MEMORY_EXPANSION", "MEMORY_POOL")
PER_NODE = "PER_NODE_MEMORY_EXPANSION"
MOST_LATENCY = 10**12
"""ns: a quarter of an hour."""
MOST_BANDWIDTH = 2**63 - 1


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
        return cls._read(read_json(path, WHAT))

    @classmethod
    def from_text(cls, text: str, path: str | Path | None = None) -> RemoteMemoryConfig:
        """Parse JSON; numbers are truncated to integers, as upstream does (2.9 GB/s is 2).

        Raises `UserError` with every field that is wrong and its line.
        """
        return cls._read(parse_json(text, WHAT, path))

    @classmethod
    def _read(cls, document: Document) -> RemoteMemoryConfig:
        fields = Fields.of(document)
        kind = fields.choice("memory-type", MEMORY_TYPES)
        per_node = kind == PER_NODE
        read = cls(
            memory_type=kind,
            remote_mem_latency=integer(fields, "remote-mem-latency", 0, 0, MOST_LATENCY),
            remote_mem_bw=integer(fields, "remote-mem-bw", 0, 0, MOST_BANDWIDTH),
            num_nodes=integer(fields, "num-nodes", 0, 0) if per_node else 0,
            num_npus_per_node=integer(fields, "num-npus-per-node", 0, 0) if per_node else 0,
            other={key: value for key, value in fields.values.items() if key not in _KEYS},
        )
        if per_node and (read.num_npus_per_node < 1 or read.num_nodes < 1):
            fields.problem("nodes or NPUs a node are 0 or missing", "num-npus-per-node", "write both, at least 1")
        fields.finish()
        return read

    def to_text(self) -> str:
        """Return the file's canonical text."""
        values: dict[str, Any] = {
            "memory-type": self.memory_type,
            "remote-mem-latency": self.remote_mem_latency,
            "remote-mem-bw": self.remote_mem_bw,
        }
        if self.memory_type == PER_NODE:
            values |= {"num-nodes": self.num_nodes, "num-npus-per-node": self.num_npus_per_node}
        return json.dumps(values | dict(self.other), indent=1) + "\n"


_KEYS = {"memory-type", "remote-mem-latency", "remote-mem-bw", "num-nodes", "num-npus-per-node"}
