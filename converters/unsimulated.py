"""The timeline of a graph's ranks without simulating it.

A node begins when the last of those it waits for has ended and lasts as long as it says itself (COMP: ``num_ops``, or
``duration_micros``; all else: nothing), which shows order and dependencies, not contention. A simulated timeline comes
from the embedded backend (``python -m analytical --timeline``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from converters.execution_graph import ABSENT, ExecutionGraph, IntArray, NodeType, RankGraph, TimelineEvent
from foundation.errors import UserError
from foundation.files import names_in


def find_prefix(folder: str | Path) -> Path:
    """Return the one PREFIX of the .et files in `folder`, or `folder` itself where it is a prefix already."""
    path = Path(folder)
    if not path.is_dir():
        return path
    matches = (re.fullmatch(r"(.+)\.[0-9]+\.et", name) for name in names_in(path))
    prefixes = sorted({match[1] for match in matches if match})
    if len(prefixes) != 1:
        found = ", ".join(prefixes[:8]) or "none"
        raise UserError(f"the folder holds {len(prefixes)} prefixes of .et files ({found})", path=path, fix="name one")
    return path / prefixes[0]


def unsimulated(graph: ExecutionGraph) -> Iterator[TimelineEvent]:
    """Yield every node of every rank, rank by rank, with times worked out from the nodes alone."""
    for rank, rank_graph in graph.by_rank():
        starts = _starts(rank_graph)
        for row, (start, duration) in enumerate(starts):
            yield TimelineEvent(
                rank=rank,
                track=_track(rank_graph, row),
                name=rank_graph.names[rank_graph.name[row]],
                node_id=int(rank_graph.node_id[row]),
                start_ns=start,
                end_ns=start + duration,
            )


def _track(graph: RankGraph, row: int) -> str:
    if graph.is_cpu_op[row]:
        return "cpu"
    kind = graph.node_type[row]
    return {NodeType.COMP: "comp", NodeType.COMM_RECV: "recv"}.get(NodeType(kind), "comm")


def _starts(graph: RankGraph) -> list[tuple[int, int]]:
    """Return (start, duration) of every node, in ns; a node in a cycle starts at 0."""
    times: list[tuple[int, int]] = [(0, duration) for duration in _durations(graph).tolist()]
    children: list[list[int]] = [[] for _ in times]
    waiting = [0] * len(times)
    for row in range(graph.nodes):
        for parent in graph.dependencies(row).tolist():
            children[parent].append(row)
            waiting[row] += 1
    ready = [row for row, count in enumerate(waiting) if count == 0]
    while ready:
        row = ready.pop()
        start, duration = times[row]
        for child in children[row]:
            times[child] = (max(times[child][0], start + duration), times[child][1])
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
    return times


def _durations(graph: RankGraph) -> IntArray:
    """Return what the nodes say of their own duration, in ns: exact where `num_ops` holds nanoseconds."""
    num_ops, tensor_size = graph.work.at(0)
    exact = (graph.node_type == NodeType.COMP) & (tensor_size == 1) & (num_ops != ABSENT)
    return np.where(exact, num_ops // 1000, graph.duration_us * 1000)
