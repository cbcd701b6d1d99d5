"""Every SEND has its RECV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from converters.execution_graph import ABSENT, NodeType, RankGraph
from trace_test.rule import Rule, Subject, Violation

Key = tuple[int, int, int, int]


def check(subject: Subject) -> Iterator[Violation]:
    """Count (tag, source, target, bytes) on both sides."""
    graph = subject.graph
    assert graph is not None
    sent: Counter[Key] = Counter()
    received: Counter[Key] = Counter()
    for rank, own in graph.by_rank():
        sent.update(_messages(own, rank, NodeType.COMM_SEND))
        received.update(_messages(own, rank, NodeType.COMM_RECV))
    for (tag, source, target, size), count in sorted((sent - received).items()):
        what = f"sends {count} message(s) of {size} bytes with tag {tag} to rank {target}, which does not receive them"
        yield Violation(f"rank {source}", what, rank=source)
    for (tag, source, target, size), count in sorted((received - sent).items()):
        what = f"waits for {count} message(s) of {size} bytes with tag {tag} that rank {source} does not send"
        yield Violation(f"rank {target}", what, rank=target)


def _messages(graph: RankGraph, rank: int, kind: NodeType) -> Iterator[Key]:
    for row in np.flatnonzero(graph.node_type == kind).tolist():
        source, target = int(graph.comm_src_delta[row]), int(graph.comm_dst_delta[row])
        ends = (rank if end == ABSENT else rank + end for end in (source, target))
        yield (int(graph.comm_tag[row]), *ends, int(graph.comm_size[row]))  # type: ignore[misc]


RULE = Rule(
    name="send-matches-recv",
    about="Every SEND has a RECV on the other rank with the same tag, ranks and bytes; ASTRA-sim says nothing when one "
    "is missing and ends with exit code 0.",
    cause="output bytes of a stage's last operator that differ from what the next stage expects, or a reused tag",
    needs="graph",
    check=check,
)
