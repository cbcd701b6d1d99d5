"""Sets of like ranks as actors and collectives as a whole, beside every message of every rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import analytical_cases as cases
import pytest
from analytical_cases import Description, healthy
from changes import change
from helpers.reached import Reached, reaches
from hypothesis import strategies as st
from overlapping_cases import sub_batches
from random_cases import CaseMaker, chain_case, plain, random_case

from analytical.actors.runner import ActorRunner
from analytical.embedded import EmbeddedBackend
from analytical.events.simulation import Simulation
from analytical.machine.validation import check_graph
from analytical.output.actor_report import report_actors
from analytical.output.report import report
from converters.execution_graph import ExecutionGraph
from foundation.errors import OrreryError

SEEDS = st.integers(0, 10**6)


def by_messages(backend: EmbeddedBackend, graph: ExecutionGraph) -> Simulation | None:
    try:
        return backend.events.run_step(graph, solve=False)
    except OrreryError:
        return None


def agrees(case: Any) -> bool:
    """Whether actors take a case; if they do every node of every rank starts and ends when its messages let it."""
    backend, graph = cases.backend(case), cases.graph(case)
    try:
        check_graph(graph, backend.machine.network, backend.machine.system, backend.machine.memory)
    except OrreryError:
        return False
    acted = ActorRunner(backend.events.models, graph).run(0)
    if acted is None:
        return False
    messages = by_messages(backend, graph)
    assert messages is not None  # what ends in an error is not for actors
    runs = {rank: run for ranks, run in acted.runs for rank in ranks}
    assert sorted(runs) == [one.rank for one in messages.rank_runs]
    for one in messages.rank_runs:
        run = runs[one.rank]
        assert (run.start, run.end, run.gpu_ns) == (one.start, one.end, one.gpu_ns)
        assert run.finished_ns == one.finished_ns
    return True


def without_messages(case: Description) -> Description:
    """Leave out sends and receives; who waited for one waits for what it waited for."""
    for rank, nodes in enumerate(case["ranks"]):
        instead: dict[int, list[int]] = {}
        kept = []
        for node in nodes:
            waits = sorted({parent for dep in node.get("deps", []) for parent in instead.get(dep, [dep])})
            if node["type"] in ("COMM_SEND", "COMM_RECV"):
                instead[node["id"]] = waits
            else:
                kept.append({**node, "deps": waits})
        case["ranks"][rank] = kept or [{"id": 0, "type": "COMP", "num_ops": 1500, "tensor_size": 1}]
    return case


@reaches(0.4, examples=150, seed=SEEDS)
def test_actors_find_what_messages_find(reached: Reached, seed: int) -> None:
    """Nodes that compete for slots, groups, ranks that differ; collectives of several phases are declined."""
    if agrees(without_messages(plain(CaseMaker(seed, chainable=True).case()))):
        reached()


@reaches(0.05, examples=100, seed=SEEDS)
def test_actors_find_what_messages_find_or_decline(reached: Reached, seed: int) -> None:
    """Cases of every kind, also those that end in an error."""
    if agrees(without_messages(random_case(seed))):
        reached()


@reaches(0.3, examples=60, seed=SEEDS)
def test_sub_batches_by_actors(reached: Reached, seed: int) -> None:
    """Two and three blocks of nodes that compete for the slots of every rank."""
    if agrees(sub_batches(seed, steps=1)):
        reached()


@reaches(0.3, examples=60, seed=SEEDS)
def test_the_report_of_actors_is_the_report_of_events(reached: Reached, seed: int) -> None:
    """Every line, statistics and utilisation included; ranks that tie may stand in another order."""
    case = sub_batches(seed, steps=1) if seed % 2 else chain_case(seed)
    backend, graph = cases.backend(case), cases.graph(case)
    lines = report_actors(backend.events.models, graph)
    if lines is not None:
        reached()
        messages = by_messages(backend, graph)
        assert messages is not None
        assert sorted(lines) == sorted(report(messages))


def test_ranks_that_are_alike_are_one_actor_and_stand_in_ascending_order() -> None:
    backend, graph = cases.backend(healthy()), cases.graph(healthy())
    acted = ActorRunner(backend.events.models, graph).run(0)
    assert acted is not None and [ranks for ranks, _ in acted.runs] == [(0, 1, 2, 3)]
    lines = report_actors(backend.events.models, graph)
    assert lines is not None
    assert [line.split("sys[")[1][0] for line in lines if "finished" in line] == ["0", "1", "2", "3"]


def test_like_ranks_that_fall_out_of_step_are_actors_of_their_own() -> None:
    """A group's ring crosses the network's border between 3 and 4, so that its ranks do not leave together."""
    case = healthy()
    case["network"] |= {"topology": ["Ring"], "npus_count": [8], "bandwidth": [50.0], "latency": [500.0]}
    case["system"] |= {"all-reduce-implementation": ["direct"]}
    collective = {"type": "COMM_COLL", "comm_type": "ALL_REDUCE", "comm_size": 4096, "group": 1}
    case["groups"] = {"1": [0, 1, 2, 5]}
    idle = [{"id": 0, "type": "COMP", "num_ops": 5_000_500, "tensor_size": 1}]
    member = [{**idle[0]}, {**collective, "id": 1, "deps": [0]}, {**collective, "id": 2, "deps": [1]}]
    case["ranks"] = [member if rank in (0, 1, 2, 5) else idle for rank in range(8)]
    backend, graph = cases.backend(case), cases.graph(case)
    acted = ActorRunner(backend.events.models, graph).run(0)
    assert acted is not None
    assert sorted(len(ranks) for ranks, _ in acted.runs) == [1] * 8
    assert agrees(case)


@pytest.mark.parametrize(
    "apply",
    [
        change("system/model-shared-bus", 1),
        change("system/endpoint-delay", 0),
        change("options/congestion", "aware"),
        change("options/num_queues_per_dim", "2"),
        change("options/rendezvous_protocol", "true"),
        change("system/all-reduce-implementation", ["doubleBinaryTree"]),
    ],
)
def test_what_only_every_message_knows_is_declined(apply: Any, tmp_path: Path) -> None:
    case = healthy()
    apply(case)
    backend, graph = cases.backend(case), cases.graph(case)
    assert ActorRunner(backend.events.models, graph).run(0) is None
