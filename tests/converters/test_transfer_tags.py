"""How transfers are told apart: one tag for each."""

from __future__ import annotations

from converters.execution_graph import ABSENT, NodeType
from converters.lowering import lower
from tests.converters.traces import Row, make_trace
from trace_gen.trace import Location


def test_transfers_are_numbered_without_gaps_those_between_stages_first() -> None:
    graph = lower(
        make_trace([
            Row("a", (0,), output=(Location.LOCAL, 0, 33)),
            Row("b", (1,), output=(Location.LOCAL, 0, 44)),
            Row("c", (1,), deps=(0,)),
            Row("d", (0,), deps=(1,)),
            Row("e", (2,), stage=1),
        ])
    )  # fmt: skip
    tags: dict[int, int] = {}
    for own in graph.rank_graphs:
        for tag in own.comm_tag[own.comm_tag != ABSENT].tolist():
            tags[tag] = tags.get(tag, 0) + 1
    assert tags == {0: 2, 1: 2, 2: 2}, "one SEND and one RECV each"
    last = graph.rank_graphs[2]
    assert last.comm_tag[last.node_type == NodeType.COMM_RECV].tolist() == [0]


def test_what_a_boundary_moves_already_is_not_moved_again_but_what_follows_is() -> None:
    graph = lower(
        make_trace([
            Row("a", (0,)), Row("b", (1,), stage=1, deps=(0,)), Row("c", (2,), stage=2, deps=(0,)),
        ])
    )  # fmt: skip
    peers = [own.comm_src_delta[own.node_type == NodeType.COMM_RECV].tolist() for own in graph.rank_graphs]
    assert peers == [[], [-1], [-1, -2]]
