"""All ranks are there, each with nodes."""

from __future__ import annotations

from collections.abc import Iterator

from trace_test.rule import Rule, Subject, Violation


def check(subject: Subject) -> Iterator[Violation]:
    """Compare the ranks of the graph with 0 .. n - 1 and with those its groups name."""
    graph = subject.graph
    assert graph is not None
    ranks = sorted(rank for own in graph.rank_graphs for rank in own.ranks)
    for expected, rank in enumerate(ranks):
        if rank != expected:
            yield Violation(f"rank {min(expected, rank)}", "it is missing or occurs twice")
            break
    for own in graph.rank_graphs:
        if own.nodes == 0 or own.names == ("idle",):
            yield Violation(f"rank {own.ranks[0]}", "it has nothing to do", rank=own.ranks[0])
    for group, members in sorted(graph.groups.items()):
        absent = sorted(set(members) - set(ranks))
        if absent:
            yield Violation(f"group {group}", f"it names rank {absent[0]}, which is not in the graph")


RULE = Rule(
    name="ranks-present",
    about="Ranks 0 to n - 1 are all there and have work; ASTRA-sim stops at a rank without a file or without nodes.",
    cause="files of another number of NPUs under the same prefix, or a rank set that no row uses",
    needs="graph",
    check=check,
)
