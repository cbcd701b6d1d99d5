"""Make a graph that an unmodified ASTRA-sim binary runs without its traps, and map its answer back.

Four properties of the upstream analytical binary (astra-sim 518bd513) stand in the way of graphs that are otherwise
fine; each is met by a change of which we know exactly what it adds:

- A network of one NPU is refused. A second NPU, with one tiny node, then idles beside ours.
- The event queue aborts when an event falls on t = 0 (a roofline time below 1 ns, a collective without endpoint delay,
  a tiny transfer without latency). Every rank then starts with one compute node of about 1 ns, the *lead*, that all its
  roots wait for: the whole graph is shifted in time by its duration.
- A rank with MEM, INVALID or CPU nodes makes the statistics throw when the rank ends; if it ends with a SEND or RECV
  this aborts the process. Such ranks get one more compute node, the *tail*, that waits for everything else.
- A dependency cycle beside other nodes is dropped without a word. It is refused here.

Lead and tail are GPU compute: they lengthen the finish time and the compute time alike, so "exposed" stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from astra_files.memory import RemoteMemoryConfig
from astra_files.network import NetworkConfig
from astra_files.system import SystemConfig
from converters.execution_graph import ABSENT, ExecutionGraph, IntArray, NodeType, NodeWork, RankGraph
from foundation.errors import SimulationError, UserError
from foundation.records import dataclass

_EXACT_DOUBLE = 2**53
"""Beyond this a double no longer holds every integer, and a duration is garbage anyway."""


@dataclass(frozen=True, slots=True)
class Pad:
    """The compute node that serves as lead and tail: its attributes, and its duration in ns on the user's system."""

    num_ops: int
    tensor_size: int
    duration_ns: int


@dataclass(frozen=True, slots=True)
class Configuration:
    """The effective files' text, ready for upstream; `npus` is the number of NPUs of the user's network.

    `roofline`: (local memory bytes/s, peak FLOP/s) where it is on, else None. `pad`: None where no compute node is
    sure to take 1 ns (a roofline without bandwidth).
    """

    network: str
    system: str
    memory: str
    npus: int
    roofline: tuple[float, float] | None
    pad: Pad | None


@dataclass(frozen=True, slots=True)
class Adapted:
    """A one-step graph as it is written for the binary, and what to take off each real rank's finish time (ns)."""

    graph: ExecutionGraph
    ranks: int
    """Real ranks: the answer's rank 0 .. ranks - 1; what is beyond them idles."""
    surplus_ns: tuple[int, ...]


def adapt_configuration(network: str, system: str, memory: str) -> Configuration:
    """Check the three files' text as the embedded backend does, and rewrite the network where upstream refuses it.

    Other files are passed on to the byte. Raises `UserError` for text that is wrong.
    """
    layout = NetworkConfig.from_text(network, "the network file")
    settings = SystemConfig.from_text(system, "the system file")
    RemoteMemoryConfig.from_text(memory, "the memory file")
    if settings.custom or settings.per_node_custom:
        raise UserError(
            "custom collectives name further files, which are not carried to the binary",
            path="the system file",
            fix="use the native implementations, or --backend embedded",
        )
    if layout.npus == 1:
        network = replace(layout, topology=("FullyConnected",), npus_count=(2,)).to_text()
    roofline = None
    if settings.roofline_enabled and not settings.replay_only:
        roofline = settings.local_mem_bw * 1e9, settings.peak_perf * 1e12
    return Configuration(network, system, memory, layout.npus, roofline, _pad(roofline))


def adapt(graph: ExecutionGraph, step: int, configuration: Configuration) -> Adapted:
    """Return step `step` of `graph` as a one-step graph that upstream runs to the end, and how to map the answer back.

    Raises `SimulationError` when the rank count is not the network's or a rank's dependencies form a cycle.
    """
    if graph.num_ranks != configuration.npus:
        raise SimulationError(
            f"the graph has {graph.num_ranks} ranks, but npus_count in the network file makes {configuration.npus} NPUs"
        )
    lead = any(_may_end_at_zero(rank_graph, step, configuration.roofline) for rank_graph in graph.rank_graphs)
    surplus = [0] * graph.num_ranks
    adapted = []
    for rank_graph in graph.rank_graphs:
        _check_acyclic(rank_graph)
        plain = _one_step(rank_graph, step)
        tail = _statistics_abort(rank_graph)
        if (lead or tail) and configuration.pad is not None:
            plain = _padded(plain, configuration.pad, lead, tail)
            for rank in rank_graph.ranks:
                surplus[rank] = configuration.pad.duration_ns * (lead + tail)
        adapted.append(plain)
    if configuration.npus == 1:
        adapted.append(_idle_rank(1, configuration.pad or Pad(1, 1, 1)))
    return Adapted(ExecutionGraph(adapted, dict(graph.groups)), graph.num_ranks, tuple(surplus))


def compute_ns(num_ops: IntArray, tensor_size: IntArray, roofline: tuple[float, float]) -> IntArray:
    """Durations of GPU compute under the roofline as upstream works them out, in doubles, truncated to ns.

    ``perf = min(bandwidth * num_ops / tensor_size, peak)``, ``ns = trunc(num_ops / perf * 1e9)`` (Roofline.cc).
    Nodes whose duration is not finite (no operations, no bandwidth) come back as 0.
    """
    bandwidth, peak = roofline
    with np.errstate(all="ignore"):
        perf = np.minimum(bandwidth * (num_ops / tensor_size), peak)
        ns = np.trunc(num_ops / perf * 1e9)
    return np.where(np.isfinite(ns) & (ns < _EXACT_DOUBLE), ns, 0).astype(np.int64)


def _pad(roofline: tuple[float, float] | None) -> Pad | None:
    """The shortest compute node that surely takes 1 ns or more: 1.5 ns at peak, cut to 1, unless memory is slower."""
    if roofline is None:
        return Pad(num_ops=1, tensor_size=1, duration_ns=1)
    num_ops = max(1, math.ceil(1.5e-9 * roofline[1]))
    duration = int(compute_ns(np.array([num_ops]), np.array([1]), roofline)[0])
    return Pad(num_ops, 1, duration) if duration >= 1 else None


def _may_end_at_zero(graph: RankGraph, step: int, roofline: tuple[float, float] | None) -> bool:
    """Whether an event of this rank could fall on t = 0: a root that is not compute of at least 1 ns, or no node."""
    roots = np.diff(graph.dep_offsets) == 0
    if not graph.nodes:
        return True
    computing = (graph.node_type == NodeType.COMP) | graph.is_cpu_op
    if (roots & ~computing).any():
        return True
    if roofline is None:
        return False
    timed = roots & ~graph.is_cpu_op
    num_ops, tensor_size = graph.work.at(step)
    return bool((compute_ns(num_ops[timed], tensor_size[timed], roofline) < 1).any())


def _statistics_abort(graph: RankGraph) -> bool:
    """Whether upstream's statistics throw for this rank and a SEND or RECV may be what ends it."""
    kinds = graph.node_type
    throwing = graph.is_cpu_op | np.isin(kinds, (NodeType.MEM_LOAD, NodeType.MEM_STORE, NodeType.INVALID))
    if not throwing.any():
        return False
    return bool(np.isin(kinds[_sinks(graph)], (NodeType.COMM_SEND, NodeType.COMM_RECV)).any())


def _sinks(graph: RankGraph) -> IntArray:
    """The rows that no row waits for."""
    waited_for = np.zeros(graph.nodes, np.bool_)
    waited_for[graph.dep_index] = True
    return np.flatnonzero(~waited_for).astype(np.int64)


def _check_acyclic(graph: RankGraph) -> None:
    """Refuse a dependency cycle. Rows in dependency order, which is what our own lowering writes, cost one pass."""
    rows = np.repeat(np.arange(graph.nodes), np.diff(graph.dep_offsets))
    if (graph.dep_index < rows).all():
        return
    waiting = np.diff(graph.dep_offsets)
    order = np.argsort(graph.dep_index, kind="stable")
    first = np.searchsorted(graph.dep_index[order], np.arange(graph.nodes + 1))
    children = rows[order]
    ready = np.flatnonzero(waiting == 0).tolist()
    done = 0
    while ready:
        row = ready.pop()
        done += 1
        for child in children[first[row] : first[row + 1]].tolist():
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
    if done != graph.nodes:
        stuck = int(graph.node_id[np.flatnonzero(waiting > 0)[0]])
        raise SimulationError(
            f"rank {graph.ranks[0]}: {graph.nodes - done} nodes wait for each other in a cycle, among them node {stuck}"
        )


def _one_step(graph: RankGraph, step: int) -> RankGraph:
    return replace(graph, work=graph.work.of_steps(slice(step, step + 1)), annotations={})


def _padded(graph: RankGraph, pad: Pad, lead: bool, tail: bool) -> RankGraph:
    """Append the lead (every root waits for it) and the tail (it waits for every row nothing waits for)."""
    nodes = graph.nodes
    counts = np.diff(graph.dep_offsets)
    index = graph.dep_index
    sinks = _sinks(graph)
    if lead:
        roots = np.flatnonzero(counts == 0)
        index = np.insert(index, graph.dep_offsets[roots], nodes)
        counts = np.where(counts == 0, 1, counts)
        counts = np.append(counts, 0)
    if tail:
        index = np.append(index, sinks)
        counts = np.append(counts, len(sinks))
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    return _with_compute_rows(replace(graph, dep_offsets=offsets, dep_index=index.astype(np.int64)), pad, lead + tail)


def _with_compute_rows(graph: RankGraph, pad: Pad, count: int) -> RankGraph:
    """Append `count` GPU compute rows of `pad`'s size to every column but the dependencies."""
    top = int(graph.node_id.max()) if graph.nodes else -1

    def more(column: Any, value: int | bool) -> Any:
        return np.concatenate([column, np.full((*column.shape[:-1], count), value, column.dtype)], axis=-1)

    absent = {
        name: more(getattr(graph, name), ABSENT)
        for name in ("comm_size", "comm_priority", "comm_tag", "comm_src_delta", "comm_dst_delta", "involved_dims")
    }
    return replace(
        graph,
        names=(*graph.names, "pad"),
        node_id=np.concatenate([graph.node_id, np.arange(top + 1, top + 1 + count, dtype=np.int64)]),
        node_type=more(graph.node_type, NodeType.COMP),
        is_cpu_op=more(graph.is_cpu_op, False),
        name=more(graph.name, len(graph.names)),
        duration_us=more(graph.duration_us, 0),
        work=graph.work.with_nodes(count, pad.num_ops, pad.tensor_size),
        comm_type=more(graph.comm_type, -1),
        comm_group=more(graph.comm_group, 0),
        **absent,
    )


def _idle_rank(rank: int, pad: Pad) -> RankGraph:
    none = np.empty(0, np.int64)
    empty = RankGraph(
        ranks=(rank,),
        names=(),
        node_id=none,
        node_type=np.empty(0, np.int8),
        is_cpu_op=np.empty(0, np.bool_),
        name=np.empty(0, np.int32),
        duration_us=none,
        work=NodeWork.by_node(none.reshape(1, 0), none.reshape(1, 0)),
        comm_type=np.empty(0, np.int8),
        comm_size=none,
        comm_priority=none,
        comm_tag=none,
        comm_src_delta=none,
        comm_dst_delta=none,
        comm_group=np.empty(0, np.int32),
        involved_dims=none,
        dep_offsets=np.zeros(1, np.int64),
        dep_index=none,
    )
    return _padded(empty, pad, lead=True, tail=False)
