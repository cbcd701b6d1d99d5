"""Collectives over network dimensions: who meets whom, what is said of a wrong one, and what cannot be known."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.chakra import read_nodes, write_graph, write_nodes
from converters.execution_graph import ExecutionGraph, NodeType
from tests.external.small_graphs import collective, compute, rank_graph
from trace_test.rule import Subject, run_rules

ROOT = Path(__file__).parents[2]
ALL_REDUCE, ALL_TO_ALL = 0, 6
NETWORK = "topology: [Ring, Ring]\nnpus_count: [2, 2]\nbandwidth: [50, 50]\nlatency: [500, 500]\n"


def over(mask: int, size: int = 1 << 20, kind: int = ALL_REDUCE) -> dict[str, Any]:
    return collective(kind, size, involved_dims=mask)


def graph_of(*per_rank: list[dict[str, Any]]) -> ExecutionGraph:
    return ExecutionGraph([rank_graph((rank,), nodes) for rank, nodes in enumerate(per_rank)])


def found(graph: ExecutionGraph, dims: tuple[int, ...] | None = (2, 2)) -> list[str]:
    outcome = run_rules(Subject("graph", graph=graph, network_dims=dims))
    assert set(outcome.violations) <= {"collective-order"}
    return [f"{one.where}: {one.what}" for one in outcome.violations.get("collective-order", [])]


def test_ranks_that_do_not_meet_may_differ() -> None:
    """On 2 x 2 ranks, those along dimension 0 are (0, 1) and (2, 3), along dimension 1 (0, 2) and (1, 3)."""
    small, large = [over(0b01, 8), over(0b10)], [over(0b01, 16), over(0b10)]
    assert found(graph_of(small, small, large, large)) == []
    assert found(graph_of(small, large, small, large)) == [
        "rank 1, node 0: over dimension 0 of the network it runs ALL_REDUCE of 16 bytes where rank 0 runs "
        "ALL_REDUCE of 8 bytes",
        "rank 3, node 0: over dimension 0 of the network it runs ALL_REDUCE of 16 bytes where rank 2 runs "
        "ALL_REDUCE of 8 bytes",
    ]


def test_type_and_number_are_compared() -> None:
    usual = [over(0b10), over(0b10)]
    other = [over(0b10), over(0b10, kind=ALL_TO_ALL)]
    assert found(graph_of(usual, usual, usual, other)) == [
        "rank 3, node 1: over dimension 1 of the network it runs ALL_TO_ALL of 1048576 bytes where rank 1 runs "
        "ALL_REDUCE of 1048576 bytes"
    ]
    assert found(graph_of(usual, usual, usual[:1], usual)) == [
        "rank 2: over dimension 1 of the network it runs 1 collectives, rank 0 2: they would wait for ever"
    ]


def test_all_dimensions_are_all_ranks_however_it_is_written() -> None:
    """Files list four dimensions, of which a network may have two."""
    named, listed = [collective(ALL_REDUCE, 8)], [over(0b1111, 8)]
    assert found(graph_of(named, listed, named, listed)) == []
    assert found(graph_of(named, listed, named, [over(0b1111, 9)])) == [
        "rank 3, node 0: over all ranks it runs ALL_REDUCE of 9 bytes where rank 0 runs ALL_REDUCE of 8 bytes"
    ]


def test_what_two_kinds_have_in_common_is_run_in_one_order() -> None:
    """Ranks 0 and 1 differ in dimension 0 alone: they meet over dimensions 0 and 1 as well as over 0 and 2."""
    first = [over(0b011, 8), over(0b101, 16)]
    swapped = [over(0b101, 16), over(0b011, 8)]
    same, crossed = graph_of(*[first] * 8), graph_of(first, swapped, *[first, swapped] * 3)
    assert found(same, (2, 2, 2)) == []
    assert found(crossed, (2, 2, 2))[0] == (
        "rank 1, node 0: over dimension 0 of the network it runs ALL_REDUCE of 16 bytes where rank 0 runs "
        "ALL_REDUCE of 8 bytes"
    )


def test_groups_apart_from_dimensions() -> None:
    """Collectives of a communicator group are its own, whatever the ranks do along the network."""
    nodes = [over(0b01), collective(ALL_REDUCE, 8, comm_group=1)]
    graph = graph_of(nodes, nodes[:1], nodes[:1], nodes)
    graph.groups[1] = (0, 3)
    assert found(graph) == []
    graph.groups[1] = (0, 1, 3)
    assert found(graph) == ["rank 1: over group 1 it runs 0 collectives, rank 0 1: they would wait for ever"]
    graph.groups[1] = (0, 1)
    assert found(graph)[1:] == ["rank 3: it communicates in group 1, to which it does not belong"]
    graph.groups.clear()
    assert found(graph) == ["group 1: collectives name it, but the communicator group file does not"]


def test_without_the_network_it_says_what_it_leaves_out() -> None:
    nodes = [over(0b01), collective(ALL_REDUCE, 8), compute(5)]
    outcome = run_rules(Subject("graph", graph=ExecutionGraph([rank_graph((0, 1), nodes)])))
    assert "collective-order of 2 collectives over some network dimensions (give --network FILE)" in outcome.skipped
    assert outcome.violations == {}
    wrong = graph_of(nodes, [over(0b01), collective(ALL_REDUCE, 9)])
    assert found(wrong, None) == [
        "rank 1, node 1: over all ranks it runs ALL_REDUCE of 9 bytes where rank 0 runs ALL_REDUCE of 8 bytes"
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The .et files of 2 x 2 ranks as `main.py --trace_dir` leaves them, the network beside."""
    nodes = [compute(1000), over(0b01), compute(5), over(0b10)]
    write_graph(ExecutionGraph([rank_graph((0, 1, 2, 3), nodes)]), tmp_path / "out" / "llm")
    (tmp_path / "out" / "network.yml").write_text(NETWORK)
    return tmp_path / "out"


def spoil(path: Path, attribute: str, value: int) -> None:
    nodes = list(read_nodes(path))
    node = next(node for node in nodes if node.type == NodeType.COMM_COLL)
    (found,) = [one for one in node.attr if one.name == attribute]
    found.int64_val = value
    write_nodes(path, nodes)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trace_test", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize(("attribute", "value"), [("comm_size", 77), ("comm_type", ALL_TO_ALL)])
def test_one_ranks_wrong_collective_is_found_and_its_file_named(folder: Path, attribute: str, value: int) -> None:
    fine = run(folder)
    assert (fine.returncode, fine.stdout.splitlines()[-1]) == (
        0,
        "1 checked, no rule that could be checked is violated",
    )
    assert "dimensions" not in fine.stdout
    spoil(folder / "llm.3.et", attribute, value)
    answer = run(folder)
    assert answer.returncode == 1
    start = f"{folder}/llm.3.et: rank 3, node 1: collective-order: over dimension 0 of the network it runs "
    assert answer.stdout.startswith(start)
    assert answer.stdout.count("llm.3.et") == 1


def test_the_network_can_be_given(folder: Path) -> None:
    spoil(folder / "llm.3.et", "comm_size", 77)
    network = (folder / "network.yml").rename(folder.parent / "mine.yml")
    blind = run(folder)
    assert blind.returncode == 0
    assert "collective-order of 8 collectives over some network dimensions (give --network FILE)" in blind.stdout
    assert run(folder, "--network", network).returncode == 1


def test_a_network_of_other_ranks(folder: Path) -> None:
    other = folder.parent / "other.yml"
    other.write_text(NETWORK.replace("[2, 2]", "[2, 4]"))
    answer = run(folder, "--network", other)
    assert answer.returncode == 2
    assert answer.stderr == (
        "error: --network: the network has 8 NPUs, but there are 4 ranks; give the network that these files were made "
        "for\n"
    )
    other.replace(folder / "network.yml")
    answer = run(folder)
    assert answer.returncode == 1
    assert "network.yml: the network has 8 NPUs, but there are 4 ranks; a rank is missing, or" in answer.stdout
    other.write_text("topology: [")
    assert run(folder, "--network", other).returncode == 2


def test_ranks_that_are_missing_are_another_rules_affair() -> None:
    nodes = [over(0b01)]
    graph = graph_of(nodes, nodes, nodes)
    graph.rank_graphs[2] = replace(graph.rank_graphs[2], ranks=(3,), comm_size=np.array([9]))
    outcome = run_rules(Subject("graph", graph=graph, network_dims=(2, 2)))
    assert list(outcome.violations) == ["ranks-present"]
