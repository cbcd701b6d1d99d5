"""What a graph must hold to be simulated; raised before the run, naming rank, node and field.

ASTRA-sim finds these only when it reaches the node, and then aborts, or drops the node and never finishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from analytical.machine.compute import roofline_nodes
from analytical.machine.limits import MOST_BYTES, MOST_RECORDED_US
from astra_files.memory import RemoteMemoryConfig
from astra_files.network import NetworkConfig
from astra_files.system import SystemConfig
from converters.execution_graph import ABSENT, CollectiveType, ExecutionGraph, IntArray, NodeType, NodeWork, RankGraph
from foundation.errors import SimulationError, UserError
from foundation.printable import brief, shorten

MAX_GROUP = 2147
"""Streams of a group are numbered from a million times its id, in 32 bits."""

_TAG_MAX = 2**31 - 1
_SUPPORTED = (
    CollectiveType.ALL_REDUCE,
    CollectiveType.ALL_GATHER,
    CollectiveType.BROADCAST,
    CollectiveType.ALL_TO_ALL,
    CollectiveType.REDUCE_SCATTER,
)
_REDUCING = (CollectiveType.ALL_REDUCE, CollectiveType.REDUCE_SCATTER)

Mask = NDArray[np.bool_]
Finding = tuple[Mask, str]
"""Which nodes are wrong, ``[n]``, and what about them."""


def check_graph(
    graph: ExecutionGraph, network: NetworkConfig, system: SystemConfig, memory: RemoteMemoryConfig
) -> None:
    """Raise `SimulationError` for the first node that cannot run, `UserError` for groups that cannot be."""
    ranks = sorted(rank for rank_graph in graph.rank_graphs for rank in rank_graph.ranks)
    if ranks != list(range(network.npus)):
        raise SimulationError(
            f"the graph is for {len(ranks)} ranks, the network for {network.npus} NPUs (npus_count "
            f"{list(network.npus_count)}); make their product the number of ranks"
        )
    _check_groups(graph.groups, network.npus)
    for rank_graph in graph.rank_graphs:
        _check_shape(rank_graph)
        for wrong, what in _findings(rank_graph, graph, network, system, memory):
            if wrong.any():
                raise SimulationError(f"rank {rank_graph.ranks[0]}, {_name(rank_graph, int(np.argmax(wrong)))}: {what}")
        if not system.replay_only:
            _check_peers(rank_graph, network.npus)
            _check_members(rank_graph, graph.groups)


def _check_shape(graph: RankGraph) -> None:
    rank = graph.ranks[0]
    if not graph.nodes:
        raise SimulationError(f"rank {rank} has no nodes; give every rank at least one")
    if not (np.diff(graph.dep_offsets) == 0).any():
        raise SimulationError(
            f"rank {rank}, {_name(graph, 0)}: every node waits for another (a dependency cycle); break the cycle"
        )


def _findings(
    graph: RankGraph,
    whole: ExecutionGraph,
    network: NetworkConfig,
    system: SystemConfig,
    memory: RemoteMemoryConfig,
) -> Iterator[Finding]:
    kind = graph.node_type
    yield kind == NodeType.METADATA, "METADATA nodes take no part (ASTRA-sim aborts); leave them out (--metadata=skip)"
    yield graph.duration_us > MOST_RECORDED_US, "duration_micros is more than 104 days"
    if system.replay_only:
        return
    yield from _compute_findings(graph, system)
    yield from _memory_findings(graph, network, memory)
    communicates = kind >= NodeType.COMM_SEND
    if not communicates.any():
        return
    yield communicates & graph.is_cpu_op, "communication cannot be a CPU operation; drop is_cpu_op"
    yield communicates & (graph.comm_size == ABSENT), "comm_size is missing"
    yield communicates & (graph.comm_size < 0), "comm_size is negative"
    yield communicates & (graph.comm_size > MOST_BYTES), f"comm_size is more than {MOST_BYTES} bytes"
    yield from _collective_findings(graph, whole, network, system)
    pairs = (kind == NodeType.COMM_SEND) | (kind == NodeType.COMM_RECV)
    yield pairs & (graph.comm_tag == ABSENT), "comm_tag is missing"
    yield (
        pairs & ((graph.comm_tag < 0) | (graph.comm_tag > _TAG_MAX)),
        f"comm_tag does not lie in 0..{_TAG_MAX}",
    )
    yield pairs & (graph.comm_size == 0), "comm_size is 0; send at least 1 byte"
    sends, receives = kind == NodeType.COMM_SEND, kind == NodeType.COMM_RECV
    yield sends & (graph.comm_dst_delta == ABSENT), "comm_dst is missing"
    yield receives & (graph.comm_src_delta == ABSENT), "comm_src is missing"
    yield sends & _other_rank(graph.comm_src_delta), "comm_src of a SEND is another rank; only the sender can send"
    yield receives & _other_rank(graph.comm_dst_delta), "comm_dst of a RECV is another rank; only the receiver can"


def _compute_findings(graph: RankGraph, system: SystemConfig) -> Iterator[Finding]:
    modelled, work = roofline_nodes(graph, system), graph.work
    if not modelled.any():
        return
    operations, sizes = work.num_ops, work.tensor_size
    yield modelled & _some(work, operations == ABSENT), "num_ops is missing (roofline-enabled needs it)"
    yield modelled & _some(work, sizes == ABSENT), "tensor_size is missing (roofline-enabled needs it)"
    yield modelled & _some(work, sizes < 0), "tensor_size is negative"
    without = _some(work, sizes == 0)
    yield modelled & without & _some(work, sizes > 0), "tensor_size is 0 in some steps only; simulate those apart"
    runs = modelled & ~without
    yield (
        runs & _some(work, operations <= 0),
        "num_ops is 0, for which ASTRA-sim answers nonsense; write at least 1",
    )
    if system.peak_perf == 0 or system.local_mem_bw == 0:
        name = "peak-perf" if system.peak_perf == 0 else "local-mem-bw"
        yield runs, f"{name} of the system configuration is missing or 0, but the roofline needs it"


def _memory_findings(graph: RankGraph, network: NetworkConfig, memory: RemoteMemoryConfig) -> Iterator[Finding]:
    loads = (graph.node_type == NodeType.MEM_LOAD) | (graph.node_type == NodeType.MEM_STORE)
    if not loads.any():
        return
    work, sizes = graph.work, graph.work.tensor_size
    yield loads & _some(work, sizes == ABSENT), "tensor_size is missing"
    yield loads & _some(work, sizes < 0), "tensor_size is negative"
    yield loads & _some(work, sizes > MOST_BYTES), f"tensor_size is more than {MOST_BYTES} bytes"
    kind = memory.memory_type
    yield loads & (kind == "NO_MEMORY_EXPANSION"), "memory-type is NO_MEMORY_EXPANSION; choose another for memory nodes"
    yield loads & (memory.remote_mem_bw == 0), "remote-mem-bw of the memory configuration is missing or 0 GB/s"
    if kind == "PER_NODE_MEMORY_EXPANSION":
        beyond = max(graph.ranks) // memory.num_npus_per_node >= memory.num_nodes
        yield loads & beyond, f"num-nodes * num-npus-per-node does not cover {network.npus} NPUs"


def _collective_findings(
    graph: RankGraph, whole: ExecutionGraph, network: NetworkConfig, system: SystemConfig
) -> Iterator[Finding]:
    collectives = graph.node_type == NodeType.COMM_COLL
    yield collectives & (graph.comm_type < 0), "comm_type is missing"
    supported = np.isin(graph.comm_type, _SUPPORTED)
    yield (
        collectives & ~supported,
        f"comm_type is not supported; write one of {', '.join(kind.name for kind in _SUPPORTED)}",
    )
    known = np.isin(graph.comm_group, [0, *whole.groups])
    yield collectives & ~known, f"its communicator group is unknown; known: {sorted(whole.groups) or 'none'}"
    if len(network.npus_count) > 4:
        world = collectives & (graph.comm_group == 0) & (graph.involved_dims == ABSENT)
        yield world, "involved_dim is missing, whose default covers 4 dimensions only"
    if system.local_mem_bw == 0 and not system.custom and system.per_node_custom is None:
        yield (
            collectives & np.isin(graph.comm_type, _REDUCING),
            "local-mem-bw of the system configuration is missing or 0, but the reduction needs it",
        )


def _some(work: NodeWork, entries: Mask) -> Mask:
    """Return the nodes that have such an entry of their table of work at some step, ``[n]``."""
    found: Mask = np.asarray(entries.any(axis=0))[work.column]
    return found


def _other_rank(delta: IntArray) -> Mask:
    other: Mask = (delta != ABSENT) & (delta != 0)
    return other


def _check_peers(graph: RankGraph, npus: int) -> None:
    ends: tuple[tuple[NodeType, IntArray, Callable[[int], str]], ...] = (
        (NodeType.COMM_SEND, graph.comm_dst_delta, lambda rank: f"sends to rank {rank}"),
        (NodeType.COMM_RECV, graph.comm_src_delta, lambda rank: f"receives from rank {rank}"),
    )
    for kind, deltas, text in ends:
        rows = np.flatnonzero(graph.node_type == kind)
        for rank in graph.ranks if rows.size else ():
            peers = deltas[rows] + rank
            wrong = (peers < 0) | (peers >= npus) | (peers == rank)
            if wrong.any():
                row = int(rows[np.argmax(wrong)])
                other = int(peers[np.argmax(wrong)])
                raise SimulationError(
                    f"rank {rank}, {_name(graph, row)}: it {text(other)}; write another rank of 0..{npus - 1}"
                )


def _check_members(graph: RankGraph, groups: dict[int, tuple[int, ...]]) -> None:
    collectives = (graph.node_type == NodeType.COMM_COLL) & (graph.comm_type != CollectiveType.BROADCAST)
    for group in sorted(set(graph.comm_group[collectives].tolist())):
        outside = sorted(set(graph.ranks) - set(groups[group])) if group else []
        if outside:
            row = int(np.argmax(collectives & (graph.comm_group == group)))
            raise SimulationError(f"rank {outside[0]}, {_name(graph, row)}: the rank is not a member of group {group}")


def _check_groups(groups: dict[int, tuple[int, ...]], npus: int) -> None:
    for group, ranks in groups.items():
        name = f"communicator group {group}"
        if not 1 <= group <= MAX_GROUP:
            raise UserError("the id is out of range", field=name, fix=f"use ids 1..{MAX_GROUP} (0 means all ranks)")
        if len(set(ranks)) < len(ranks) or not all(0 <= rank < npus for rank in ranks):
            raise UserError(
                f"{brief(list(ranks))} are not distinct ranks",
                field=name,
                fix=f"list each rank of 0..{npus - 1} once at most",
            )


def _name(graph: RankGraph, position: int) -> str:
    kind = NodeType(int(graph.node_type[position])).name
    name = shorten(graph.names[int(graph.name[position])])
    return f"node {int(graph.node_id[position])} ({f'{name}, ' if name else ''}{kind})"
