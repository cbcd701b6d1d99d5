"""Say which ASTRA-sim was found and whether it answers as it should, by running one graph of two ranks on it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from converters.execution_graph import (
    ABSENT,
    CollectiveType,
    ExecutionGraph,
    IterationResult,
    NodeType,
    NodeWork,
    RankGraph,
)
from external.astra_sim.backend import AstraSimBackend
from external.astra_sim.factories import create_docker, create_process, create_spool
from foundation.printable import printable

VARIANTS = ("unaware", "aware")
NETWORK = "topology: [ Switch ]\nnpus_count: [ 2 ]\nbandwidth: [ 50.0 ]\nlatency: [ 500.0 ]\n"
SYSTEM = """{
  "scheduling-policy": "LIFO", "collective-optimization": "baseline", "endpoint-delay": 10,
  "active-chunks-per-dimension": 1, "preferred-dataset-splits": 1, "local-mem-bw": 1600,
  "roofline-enabled": 1, "peak-perf": 1,
  "all-reduce-implementation": ["ring"], "all-gather-implementation": ["ring"],
  "reduce-scatter-implementation": ["ring"], "all-to-all-implementation": ["ring"]
}
"""
MEMORY = '{"memory-type": "PER_NPU_MEMORY_EXPANSION", "remote-mem-latency": 100, "remote-mem-bw": 50}\n'


def check(options: Mapping[str, str]) -> int:
    """Print what was found and both answers; return 0 when they are equal, 1 otherwise.

    `options`: as for the backends; `astra_sim_image` or `spool_dir` choose the container or the spool, else the binary
    is a process. Raises `UserError` when it is missing and `SimulationError` when it cannot run the graph.
    """
    backend = _backend({**options, "no_cache": "1"})
    try:
        print(f"found: {printable(backend.description)}")
        print(f"identity: {backend.identity() or 'none (a script: its answers are not cached)'}")
        answer = backend.simulate(two_ranks())
    finally:
        backend.close()
    print(f"answer: {_shown(answer)}")
    for variant in VARIANTS:
        ours = embedded_answer(variant)
        if ours.by_rank() == answer.by_rank():
            print(f"variant: congestion-{variant}: the embedded backend gives the same")
            return 0
        print(f"embedded, congestion-{variant}: {_shown(ours)}")
    print("it gives neither: is it the ASTRA-sim analytical backend, of the commit that docs/accuracy.md names?")
    return 1


def embedded_answer(variant: str) -> IterationResult:
    """Return the embedded backend's answer to `two_ranks` as a congestion-`variant` network."""
    from analytical.embedded import create

    embedded = create(network=NETWORK, system=SYSTEM, memory=MEMORY, options={"congestion": variant})
    return embedded.simulate(two_ranks())


def two_ranks() -> ExecutionGraph:
    """Compute, all-reduce, a memory load, 64 KiB from rank 0 to rank 1, compute: what serving graphs are made of.

    The transfer over a switch takes longer with congestion (its bytes are paid at both links), which tells the variants
    apart.
    """
    transfer = {"comm_size": 1 << 16, "comm_tag": 1}
    shared: list[dict[str, int]] = [
        {"node_type": NodeType.COMP, "num_ops": 12_345_500, "tensor_size": 1},
        {"node_type": NodeType.COMM_COLL, "comm_type": CollectiveType.ALL_REDUCE, "comm_size": 1 << 20},
        {"node_type": NodeType.MEM_LOAD, "tensor_size": 1 << 20},
    ]
    sender = {"node_type": NodeType.COMM_SEND, "comm_src_delta": 0, "comm_dst_delta": 1, **transfer}
    receiver = {"node_type": NodeType.COMM_RECV, "comm_src_delta": -1, "comm_dst_delta": 0, **transfer}
    last = {"node_type": NodeType.COMP, "num_ops": 6_500, "tensor_size": 1}
    return ExecutionGraph([chain(0, [*shared, sender, last]), chain(1, [*shared, receiver, last])])


def chain(rank: int, nodes: list[dict[str, int]]) -> RankGraph:
    """Return one rank's `nodes`, each waiting for the one before; what a node does not name is absent."""
    count = len(nodes)

    def column(name: str, default: int = ABSENT) -> list[int]:
        return [node.get(name, default) for node in nodes]

    return RankGraph(
        ranks=(rank,),
        names=("check",),
        node_id=np.arange(count, dtype=np.int64),
        node_type=np.array(column("node_type"), np.int8),
        is_cpu_op=np.zeros(count, np.bool_),
        name=np.zeros(count, np.int32),
        duration_us=np.zeros(count, np.int64),
        work=NodeWork.by_node(np.array([column("num_ops")], np.int64), np.array([column("tensor_size")], np.int64)),
        comm_type=np.array(column("comm_type", -1), np.int8),
        comm_size=np.array(column("comm_size"), np.int64),
        comm_priority=np.array(column("comm_priority"), np.int64),
        comm_tag=np.array(column("comm_tag"), np.int64),
        comm_src_delta=np.array(column("comm_src_delta"), np.int64),
        comm_dst_delta=np.array(column("comm_dst_delta"), np.int64),
        comm_group=np.array(column("comm_group", 0), np.int32),
        involved_dims=np.array(column("involved_dims"), np.int64),
        dep_offsets=np.maximum(np.arange(-1, count, dtype=np.int64), 0),
        dep_index=np.arange(count - 1, dtype=np.int64),
    )


def _backend(options: dict[str, str]) -> AstraSimBackend:
    if "astra_sim_image" in options:
        create = create_docker
    elif "spool_dir" in options:
        create = create_spool
    else:
        create = create_process
    return create(network=NETWORK, system=SYSTEM, memory=MEMORY, options=options)


def _shown(answer: IterationResult) -> str:
    ranks = answer.by_rank().items()
    return ", ".join(f"rank {rank} {finish} ns (exposed {exposed} ns)" for rank, (finish, exposed) in ranks)
