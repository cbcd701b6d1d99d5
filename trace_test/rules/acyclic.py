"""No node waits for itself, by whatever detour."""

from __future__ import annotations

from collections.abc import Iterator

from converters.execution_graph import RankGraph
from trace_test.rule import Rule, Subject, Violation


def check(subject: Subject) -> Iterator[Violation]:
    """Take away nodes that wait for nothing until none are left, or only those of cycles."""
    assert subject.graph is not None
    for graph in subject.graph.rank_graphs:
        stuck = _stuck(graph)
        if stuck:
            node = f"node {int(graph.node_id[stuck[0]])} ({graph.names[graph.name[stuck[0]]]})"
            what = f"{len(stuck)} node(s) wait for each other, {node} among them"
            yield Violation(f"rank {graph.ranks[0]}", what, rank=graph.ranks[0])


def _stuck(graph: RankGraph) -> list[int]:
    children: list[list[int]] = [[] for _ in range(graph.nodes)]
    waiting = [0] * graph.nodes
    for row in range(graph.nodes):
        for parent in graph.dependencies(row).tolist():
            children[parent].append(row)
            waiting[row] += 1
    ready = [row for row, count in enumerate(waiting) if count == 0]
    while ready:
        for child in children[ready.pop()]:
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
    return [row for row, count in enumerate(waiting) if count > 0]


RULE = Rule(
    name="acyclic",
    about="The dependencies of a rank's nodes have no cycle; ASTRA-sim drops the nodes of one silently.",
    cause="a row that waits for a later one, directly or through a row of another sub-batch",
    needs="graph",
    check=check,
)
