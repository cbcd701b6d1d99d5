"""Timelines without a simulation: when nodes begin, how long they say they take, and on which track they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.execution_graph import ABSENT, ExecutionGraph, NodeType
from converters.unsimulated import find_prefix, unsimulated
from foundation.errors import UserError
from tests.external.small_graphs import collective, compute, load, rank_graph, receive, send


def shown(*nodes: dict[str, object]) -> list[tuple[str, int, int]]:
    graph = ExecutionGraph([rank_graph((0,), list(nodes))])
    return [(event.track, event.start_ns, event.end_ns) for event in unsimulated(graph)]


def test_nodes_begin_when_the_last_that_they_wait_for_ends() -> None:
    nodes = [compute(5), compute(7, deps=[]), compute(2, deps=[0, 1]), compute(1, deps=[0])]
    assert shown(*nodes) == [("comp", 0, 5), ("comp", 0, 7), ("comp", 7, 9), ("comp", 5, 6)]


def test_every_kind_of_node_has_its_track() -> None:
    cpu = {"type": NodeType.COMP, "cpu": True, "duration_us": 3, "tensor_size": 9}
    nodes = [cpu, compute(5), load(8), collective(0, 8), send(1, 8), receive(1, 8)]
    assert [track for track, _, _ in shown(*nodes)] == ["cpu", "comp", "comm", "comm", "comm", "recv"]


def test_durations_are_what_nodes_say_of_themselves() -> None:
    """Exact nanoseconds where the node holds them, else its microseconds; communication says nothing."""
    timed = {"type": NodeType.COMP, "duration_us": 3, "tensor_size": 9}
    assert shown(timed, compute(5), collective(0, 8)) == [("comp", 0, 3000), ("comp", 3000, 3005), ("comm", 3005, 3005)]
    without = rank_graph((0,), [timed])
    without.work.tensor_size[:] = 1
    assert without.num_ops[0, 0] == ABSENT
    (event,) = unsimulated(ExecutionGraph([without]))
    assert event.end_ns == 3000


def test_nodes_in_a_cycle_begin_at_zero() -> None:
    assert shown(compute(5), compute(7, deps=[2]), compute(2, deps=[1]), compute(1, deps=[0])) == [
        ("comp", 0, 5), ("comp", 0, 7), ("comp", 0, 2), ("comp", 5, 6),
    ]  # fmt: skip


def test_ranks_come_in_order_with_their_own_ids_and_names() -> None:
    one, two = rank_graph((1,), [compute(5)]), rank_graph((0, 2), [compute(7, id=40)])
    two.node_id = np.array([40])
    events = list(unsimulated(ExecutionGraph([one, two])))
    assert [(event.rank, event.node_id, event.end_ns, event.name) for event in events] == [
        (0, 40, 7, "node"), (1, 0, 5, "node"), (2, 40, 7, "node"),
    ]  # fmt: skip


def test_the_prefix_of_a_folder(tmp_path: Path) -> None:
    for name in ("llm.0.et", "llm.12.et", "network.yml", "llm.x.et"):
        (tmp_path / name).touch()
    assert find_prefix(tmp_path) == tmp_path / "llm"
    assert find_prefix(tmp_path / "llm") == tmp_path / "llm"
    (tmp_path / "other.0.et").touch()
    with pytest.raises(UserError, match=r"the folder holds 2 prefixes of \.et files \(llm, other\); name one"):
        find_prefix(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: the folder holds 0 prefixes of \.et files \(none\)"):
        find_prefix(tmp_path / "empty")
    for number in range(9):
        (tmp_path / f"p{number}.0.et").touch()
    with pytest.raises(UserError, match=r"11 prefixes of \.et files \(llm, other, p0, p1, p2, p3, p4, p5\)"):
        find_prefix(tmp_path)
