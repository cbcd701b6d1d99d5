"""All ranks of a group run the same collectives in the same order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from converters.execution_graph import ABSENT, CollectiveType, NodeType, RankGraph
from trace_test.rule import Rule, Subject, Violation

Collectives = list[tuple[int, int, int]]


def check(subject: Subject) -> Iterator[Violation]:
    """Compare every rank's sequence of (node id, type, bytes) with that of the group's first rank."""
    graph = subject.graph
    assert graph is not None
    ranks = dict(graph.by_rank())
    everyone = tuple(range(graph.num_ranks))
    used = {int(group) for own in graph.rank_graphs for group in np.unique(own.comm_group[_collective(own)])}
    for group in sorted(used):
        members = graph.groups.get(group, ()) if group else everyone
        if not members:
            yield Violation(f"group {group}", "collectives name it, but the communicator group file does not")
            continue
        outside = [rank for rank, own in ranks.items() if rank not in members and _sequence(own, group)]
        if outside:
            yield Violation(f"rank {outside[0]}", f"it communicates in group {group}, to which it does not belong")
        first = _sequence(ranks[members[0]], group)
        for rank in members[1:]:
            yield from _compare(rank, _sequence(ranks[rank], group), members[0], first)


def _collective(graph: RankGraph) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Collectives over some network dimensions are left out: which ranks meet there is the network's affair."""
    result: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (graph.node_type == NodeType.COMM_COLL) & (
        (graph.involved_dims == ABSENT) | (graph.comm_group > 0)
    )
    return result


def _sequence(graph: RankGraph, group: int) -> Collectives:
    rows = np.flatnonzero(_collective(graph) & (graph.comm_group == group))
    columns = (graph.node_id[rows], graph.comm_type[rows], graph.comm_size[rows])
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def _compare(rank: int, own: Collectives, other: int, first: Collectives) -> Iterator[Violation]:
    if len(own) != len(first):
        yield Violation(f"rank {rank}", f"it runs {len(own)} collectives of a group, rank {other} runs {len(first)}")
        return
    for (node, kind, size), (_, kind_there, size_there) in zip(own, first, strict=True):
        if (kind, size) != (kind_there, size_there):
            here, there = CollectiveType(kind).name, CollectiveType(kind_there).name
            what = f"it runs {here} of {size} bytes where rank {other} runs {there} of {size_there} bytes"
            yield Violation(f"rank {rank}, node {node}", what)
            return


RULE = Rule(
    name="collective-order",
    about="All ranks of a communicator group run the same collectives (type and bytes) in the same order of node ids; "
    "ASTRA-sim matches them by number and waits for ever where one differs.",
    cause="a collective that only some ranks' rows have, or a group file that belongs to another deployment",
    needs="graph",
    check=check,
)
