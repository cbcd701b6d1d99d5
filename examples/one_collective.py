"""Time one all-reduce on networks of different size: the embedded backend alone, with no serving around it.

    python examples/one_collective.py

Writes the Chakra execution trace that every rank runs (one node), then asks the backend, as
`python -m analytical --workload-configuration=PREFIX ...` would.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from analytical.embedded import create  # noqa: E402
from converters.chakra import read_graph, write_nodes  # noqa: E402
from converters.chakra.et_def_pb2 import AttributeProto, Node  # noqa: E402
from converters.execution_graph import CollectiveType, NodeType  # noqa: E402

MEBIBYTE = 1 << 20


def all_reduce(size: int) -> Node:
    """Return the node of an all-reduce of `size` bytes over all ranks."""
    return Node(
        id=1,
        name="all_reduce",
        type=NodeType.COMM_COLL,
        attr=[
            AttributeProto(name="is_cpu_op", bool_val=False),
            AttributeProto(name="comm_type", int64_val=CollectiveType.ALL_REDUCE),
            AttributeProto(name="comm_size", int64_val=size),
        ],
    )


def time_ns(ranks: int, size: int) -> int:
    """Return when the last of `ranks` ranks of a ring (50 GB/s, 500 ns a hop) has reduced `size` bytes."""
    network = f"topology: [ Ring ]\nnpus_count: [ {ranks} ]\nbandwidth: [ 50.0 ]\nlatency: [ 500.0 ]\n"
    settings = {"scheduling-policy": "LIFO", "preferred-dataset-splits": 1, "local-mem-bw": 1600}
    system = json.dumps(settings | {"all-reduce-implementation": ["ring"]})
    backend = create(network=network, system=system, memory='{"memory-type": "NO_MEMORY_EXPANSION"}', options={})
    with tempfile.TemporaryDirectory() as folder:
        prefix = f"{folder}/all_reduce"
        for rank in range(ranks):
            write_nodes(f"{prefix}.{rank}.et", [all_reduce(size)])
        return int(backend.simulate(read_graph(prefix, ranks)).makespan_ns[0])


def main() -> None:
    """Print one line a ring."""
    for ranks in (2, 4, 8, 16):
        print(f"{ranks:2} ranks: {time_ns(ranks, 8 * MEBIBYTE):8,} ns for 8 MiB")


if __name__ == "__main__":
    main()
