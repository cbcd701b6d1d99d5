"""memory.json: the remote memory, as frozen, typed records.

Read as ASTRA-sim reads it: keys that nothing reads are ignored, and kept when the file is written again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astra_files.fields import FieldReader, parse_json_object
from foundation.files import read_text

MEMORY_TYPES = ("NO_MEMORY_EXPANSION", "PER_NODE_MEMORY_EXPANSION", "PER_NPU_MEMORY_EXPANSION", "MEMORY_POOL")
UINT64_MAX = 2**64 - 1


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


_MEMORY_KEYS = {"memory-type", "remote-mem-latency", "remote-mem-bw", "num-nodes", "num-npus-per-node"}
