"""Independent ways to an answer: message by message, phases solved as a whole, chains without an event queue."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import analytical_cases as cases
import numpy as np
import pytest
from analytical_cases import healthy
from changes import Change, both, change, first, last, ranks
from helpers.reached import Reached, reaches
from hypothesis import strategies as st
from random_cases import chain_case, chained, plain, random_case, solvable_case, sound_case

from analytical.chains import stretches
from analytical.chains.evaluator import NotAChainError
from analytical.chains.plan import ChainPlan
from analytical.collectives.phases import AmbiguousOrderError
from analytical.embedded import EmbeddedBackend
from analytical.events.open_phases import GuardedEvents
from analytical.events.simulation import Simulation
from analytical.machine.event_queue import EventQueue
from analytical.output.chain_report import report_chains
from analytical.output.report import report
from converters.chakra import write_graph
from converters.execution_graph import ExecutionGraph
from foundation.errors import OrreryError, SimulationError

SEEDS = st.integers(0, 10**6)


def by_messages(backend: EmbeddedBackend, graph: ExecutionGraph) -> Simulation | None:
    try:
        return backend.events.run_step(graph, solve=False)
    except OrreryError:
        return None


def figures(simulation: Simulation) -> dict[int, tuple[int | None, int]]:
    """The answer of a finished simulation, as `IterationResult.by_rank` gives it."""
    return {one.rank: (one.finished_ns, (one.finished_ns or 0) - one.gpu_ns) for one in simulation.rank_runs}


@reaches(0.65, examples=80, seed=SEEDS)
def test_solving_whole_phases_changes_nothing(reached: Reached, seed: int) -> None:
    """Every node's start and end, and the bytes on every dimension; where events tie it may decline."""
    case = solvable_case(seed)
    backend, graph = cases.backend(case), cases.graph(case)
    messages = by_messages(backend, graph)
    if messages is None:
        return
    try:
        solved = backend.events.run_step(graph, solve=True)
    except AmbiguousOrderError:
        return
    reached()
    for one, other in zip(messages.rank_runs, solved.rank_runs, strict=True):
        assert (one.start, one.end, one.gpu_ns) == (other.start, other.end, other.gpu_ns)
    assert messages.transport.volume == solved.transport.volume


def test_what_cannot_be_solved_is_declined_when_asked_and_else_runs_by_messages() -> None:
    """Chunks of two collectives on two queues end at the same times: only messages know which comes first."""
    case = healthy()
    case["system"] |= {"preferred-dataset-splits": 2, "active-chunks-per-dimension": 4}
    case["options"]["num_queues_per_dim"] = "2"
    collective = {"type": "COMM_COLL", "comm_type": "ALL_REDUCE", "comm_size": 4096}
    case["ranks"] = [[{**collective, "id": 0}, {**collective, "id": 1}] for _ in range(4)]
    backend, graph = cases.backend(case), cases.graph(case)
    with pytest.raises(AmbiguousOrderError):
        backend.events.run_step(graph, solve=True)
    messages = by_messages(backend, graph)
    assert messages is not None
    assert figures(backend.events.run_step(graph)) == figures(messages)


@reaches(0.95, examples=70, seed=SEEDS)
def test_chains_need_no_event_queue(reached: Reached, seed: int) -> None:
    case = chain_case(seed)
    backend, graph = cases.backend(case), cases.graph(case)
    messages = by_messages(backend, graph)
    planned = backend.plans.get(graph)
    assert isinstance(planned.plan, ChainPlan)
    if messages is None:
        with pytest.raises(OrreryError):
            backend.chains.evaluate(planned.plan, graph, planned.solver)
        return
    reached()
    assert backend.chains.evaluate(planned.plan, graph, planned.solver).by_rank() == figures(messages)


@reaches(0.15, examples=80, seed=SEEDS)
def test_chains_of_any_case_answer_as_messages_do_or_decline(reached: Reached, seed: int) -> None:
    """Unsound cases too: what chains answer, messages answer."""
    case = chained(plain(random_case(seed)), loads=seed % 4)
    case["options"]["num_queues_per_dim"] = "1"
    backend, graph = cases.backend(case), cases.graph(case)
    try:
        planned = backend.plans.get(graph)
        if not isinstance(planned.plan, ChainPlan):
            return
        answer = backend.chains.evaluate(planned.plan, graph, planned.solver).by_rank()
    except (NotAChainError, OrreryError):
        return
    reached()
    messages = by_messages(backend, graph)
    assert messages is not None and answer == figures(messages)


@pytest.mark.parametrize("build", [chain_case, sound_case])
def test_nodes_may_share_their_work(build: Callable[[int], cases.Description]) -> None:
    """However nodes are told their work, a column each or one for all alike, every step takes as long."""
    tables = []

    @reaches(0.6, examples=60, seed=SEEDS, times=st.integers(1, 4))
    def compare(reached: Reached, seed: int, times: int) -> None:
        case = build(seed)
        for nodes in case["ranks"]:  # like nodes, as layers are
            for node in nodes:
                if node["type"] == "COMP" and node.get("num_ops"):
                    node["num_ops"] = [1000 * (node["id"] % times + 1 + step) + 500 for step in range(2)]
        graph = cases.graph(case)
        try:
            apart = cases.backend(case).simulate(graph)
        except OrreryError:
            return
        backend = cases.backend(case)
        shared = backend.simulate(cases.sharing(graph))
        reached()
        assert apart.rank_sets == shared.rank_sets
        assert np.array_equal(apart.finish_ns, shared.finish_ns)
        assert np.array_equal(apart.exposed_ns, shared.exposed_ns)
        planned = backend.plans.get(graph).plan
        if isinstance(planned, ChainPlan) and planned.shares.compute.rows.size:
            works = [one.work for one in cases.sharing(graph).rank_graphs]
            tables.append(stretches._kinds(planned.shares, works, works[0])[0].times is not None)

    compare()
    assert build is sound_case or {True, False} == set(tables), "added up as a table, and node by node"


def test_ranks_of_chains_that_have_counted_other_streams_never_meet() -> None:
    """A collective of a group of two moves their count of all streams on, and the collective of all waits for ever."""
    case = healthy()
    case["groups"] = {"1": [0, 1]}
    for rank in (0, 1):
        collective = case["ranks"][rank][1]
        case["ranks"][rank][1:] = [dict(collective, id=8, group=1), dict(collective, id=9, deps=[8])]
    backend, graph = cases.backend(case), cases.graph(case)
    planned = backend.plans.get(graph)
    assert isinstance(planned.plan, ChainPlan)
    with pytest.raises(NotAChainError):
        backend.chains.evaluate(planned.plan, graph, planned.solver)
    with pytest.raises(SimulationError, match="deadlock"):
        backend.simulate(graph)


def test_a_parent_that_is_named_twice_is_waited_for_once() -> None:
    """As in ASTRA-sim, which keeps a set; by chains, by an order of events and by messages."""
    for extra in ([], [{"id": 9, "type": "COMP", "num_ops": 9500, "tensor_size": 1, "deps": [0]}]):
        answers = []
        for twice in (False, True):
            case = healthy()
            for nodes in case["ranks"]:
                nodes += [dict(one) for one in extra]
                for node in nodes[1:]:
                    node["deps"] = [0, 0] if twice else [0]
            backend, graph = cases.backend(case), cases.graph(case)
            answers += [backend.simulate(graph).by_rank(), figures(backend.events.run_step(graph, solve=False))]
        assert answers == answers[:1] * 4


@pytest.mark.parametrize("shared", [False, True])
def test_kinds_of_work_are_found_once_and_only_where_nodes_share_it(shared: bool) -> None:
    """Graphs from files never show the same columns twice, and each node has its own: nothing is looked for there."""
    case = healthy()
    for nodes in case["ranks"]:
        nodes[1:] = [dict(nodes[0], id=place, deps=[place - 1]) for place in (1, 2, 3)]
    backend, graph = cases.backend(case), cases.graph(case)
    graph = cases.sharing(graph) if shared else graph
    assert (
        backend.simulate(graph).by_rank() == backend.simulate(graph).by_rank() == figures(by_messages(backend, graph))
    )
    planned = backend.plans.get(graph).plan
    assert isinstance(planned, ChainPlan)
    assert planned.shares.kinds.misses == (1 if shared else 0)


@pytest.mark.parametrize("beside", [{"type": "COMP", "is_cpu_op": True, "duration_us": 9}, "COMM_COLL", "MEM_LOAD"])
def test_nodes_that_meet_in_one_child_overlap(beside: str | dict[str, object]) -> None:
    """Two nodes that wait for nothing, on different slots, and one that waits for both: not a chain."""
    other = beside if isinstance(beside, dict) else {"type": beside, "comm_type": "ALL_GATHER"}
    other = {"comm_size": 9000, "tensor_size": 9000, **other}
    case = healthy()
    case["system"]["roofline-enabled"] = 0
    for nodes in case["ranks"]:
        nodes[:] = [{"id": 0, **other}, {"id": 1, "type": "COMP", "duration_us": 5}]
        nodes.append({"id": 2, "type": "COMP", "duration_us": 1, "deps": [0, 1]})
    backend, graph = cases.backend(case), cases.graph(case)
    messages = by_messages(backend, graph)
    assert messages is not None
    assert backend.simulate(graph).by_rank() == figures(messages)


@pytest.mark.parametrize("congestion", ["unaware", "aware"])
def test_the_backend_answers_as_messages_do(congestion: str) -> None:
    """Whatever way it takes."""

    @reaches(0.95, examples=50, seed=SEEDS)
    def agree(reached: Reached, seed: int) -> None:
        case = sound_case(seed, aware=congestion == "aware")
        backend, graph = cases.backend(case, congestion=congestion), cases.graph(case)
        messages = by_messages(backend, graph)
        if messages is not None:
            reached()
            assert backend.simulate(graph).by_rank() == figures(messages)

    agree()


@pytest.mark.parametrize("congestion", ["unaware", "aware"])
def test_the_backend_refuses_what_messages_refuse(congestion: str) -> None:
    @reaches(0.25, examples=60, seed=SEEDS)
    def agree(reached: Reached, seed: int) -> None:
        case = random_case(seed, aware=congestion == "aware")
        backend, graph = cases.backend(case, congestion=congestion), cases.graph(case)
        messages = by_messages(backend, graph)
        if messages is not None:
            assert backend.simulate(graph).by_rank() == figures(messages)
            return
        reached()
        with pytest.raises(OrreryError):
            backend.simulate(graph)

    agree()


def pipeline(seed: int, *, steps: int) -> cases.Description:
    """Two stages of 4 ranks: compute, all-reduces within the stage, and a message to the next stage, in chains.

    The stage is a communicator group on a ring of 8, or (odd seeds) the first dimension of a network of 4 x 2.
    """
    source = random.Random(seed)
    by_dimension = seed % 2 == 1

    def compute(at: int) -> dict[str, object]:
        return {"id": at, "type": "COMP", "tensor_size": 1, "num_ops": [_ops(source) for _ in range(steps)]}

    ranks = []
    stages = [[compute(0), compute(2)], [compute(1), compute(3)]]
    for rank in range(8):
        first, second = stages[rank // 4]
        reduce: dict[str, object] = {"type": "COMM_COLL", "comm_type": "ALL_REDUCE", "comm_size": 70_000}
        reduce |= {"involved_dims": 1} if by_dimension else {"group": rank // 4 + 1}
        message = {"comm_tag": 7, "comm_size": 4096}
        if rank < 4:
            nodes = [
                first,
                {**reduce, "id": 1},
                second,
                {"id": 3, "type": "COMM_SEND", "comm_dst": rank + 4, **message},
            ]
        else:
            nodes = [
                {"id": 0, "type": "COMM_RECV", "comm_src": rank - 4, **message},
                first,
                {**reduce, "id": 2},
                second,
            ]
        ranks.append(nodes)
    case = cases.Description(
        network=(
            {"topology": ["Ring", "Switch"], "npus_count": [4, 2], "bandwidth": [50, 25], "latency": [500, 900]}
            if by_dimension
            else {"topology": ["Ring"], "npus_count": [8], "bandwidth": [50], "latency": [500]}
        ),
        system={
            "scheduling-policy": "LIFO",
            "preferred-dataset-splits": source.choice([1, 3]),
            "active-chunks-per-dimension": source.choice([1, 2]),
            "local-mem-bw": 1600,
            "peak-perf": 1,
            "roofline-enabled": 1,
            "all-reduce-implementation": [source.choice(["ring", "direct"])] * (2 if by_dimension else 1),
        },
        memory={"memory-type": "NO_MEMORY_EXPANSION"},
        groups={} if by_dimension else {"1": [0, 1, 2, 3], "2": [4, 5, 6, 7]},
        options={},
        ranks=ranks,
    )
    return chained(case)


def _ops(source: random.Random) -> int:
    return 1000 * source.randint(1, 30_000) + 500


@pytest.mark.parametrize("seed", range(6))
def test_steps_are_independent_and_vectorised(seed: int) -> None:
    """k steps at once equal k graphs of one step; on a ring the ranks of a group do not stay in step."""
    steps = 5
    case = pipeline(seed, steps=steps)
    backend, graph = cases.backend(case), cases.graph(case)
    assert len(graph.rank_graphs) == 2
    planned = backend.plans.get(graph)
    assert isinstance(planned.plan, ChainPlan)
    together = backend.chains.evaluate(planned.plan, graph, planned.solver)
    columns = {rank: at for at, ranks in enumerate(together.rank_sets) for rank in ranks}
    for step in range(steps):
        alone = backend.events.run_step(graph, step, solve=False)
        for run in alone.rank_runs:
            finish, exposed = together.finish_ns[step], together.exposed_ns[step]
            assert finish[columns[run.rank]] == run.finished_ns
            assert exposed[columns[run.rank]] == run.finished_ns - run.gpu_ns


def test_a_kept_plan_serves_new_durations_and_sizes() -> None:
    case = pipeline(1, steps=2)
    backend = cases.backend(case)
    graph = cases.graph(case)
    first = backend.simulate(graph).by_rank()
    for one in graph.rank_graphs:
        one.work = cases.longer(one.work, 500_000)
        one.comm_size = np.where(one.comm_size > 10_000, one.comm_size * 2, one.comm_size)
    second = backend.simulate(graph).by_rank()
    assert second != first
    expected = cases.backend(case).events.run_step(graph, solve=False)
    assert second == figures(expected)


def test_a_custom_collective_runs_its_graph(tmp_path: Path) -> None:
    """A ring of two written as SEND and RECV: two messages one after the other, reduced for 1 ns between them."""
    ranks = []
    for rank in range(2):
        pair = {"comm_tag": 0, "comm_size": 4096}
        send = {"type": "COMM_SEND", "comm_dst": 1 - rank, **pair}
        receive = {"type": "COMM_RECV", "comm_src": 1 - rank, **pair}
        ranks.append(
            [
                {"id": 0, **send},
                {"id": 1, **receive},
                {"id": 2, "type": "COMP", "deps": [1]},
                {"id": 3, **send, "deps": [2]},
                {"id": 4, **receive, "deps": [2]},
            ]
        )
    write_graph(cases.graph({"ranks": ranks}), tmp_path / "ring")
    case = pipeline(0, steps=1)
    case["network"] = {"topology": ["Switch"], "npus_count": [2], "bandwidth": [50], "latency": [500]}
    case["groups"] = {}
    case["system"] |= {"preferred-dataset-splits": 1, "all-reduce-implementation-custom": [str(tmp_path / "ring")]}
    node = {"id": 0, "type": "COMM_COLL", "comm_type": "ALL_REDUCE", "comm_size": 99}
    case["ranks"] = [[node], [node]]
    delay = int(2 * 500 + 4096 / (50 * 2**30 / 1e9))
    assert cases.backend(case).simulate(cases.graph(case)).by_rank() == dict.fromkeys((0, 1), (2 * delay + 1,) * 2)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (
            {"id": 7, "type": "MEM_LOAD", "tensor_size": 5},
            "rank 0: node 7 of a custom collective is MEM_LOAD; use SEND, RECV and COMP only",
        ),
        (
            {"id": 7, "type": "COMM_SEND", "comm_dst": 2, "comm_tag": 0, "comm_size": 8},
            "rank 0: node 7 of a custom collective has no peer within the communicator; write a number of 0..1",
        ),
        (
            {"id": 7, "type": "COMM_RECV", "comm_src": -1, "comm_tag": 0, "comm_size": 8},
            "rank 0: node 7 of a custom collective has no peer within the communicator; write a number of 0..1",
        ),
    ],
)
def test_custom_collectives_that_cannot_run(node: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_graph(cases.graph({"ranks": [[node], [{"id": 0, "type": "COMP"}]]}), tmp_path / "own")
    case = cases.healthy()
    case["network"] |= {"npus_count": [2]}
    case["system"] |= {"preferred-dataset-splits": 1, "all-reduce-implementation-custom": [str(tmp_path / "own")]}
    collective = {"id": 0, "type": "COMM_COLL", "comm_type": "ALL_REDUCE", "comm_size": 99}
    case["ranks"] = [[collective], [collective]]
    with pytest.raises(SimulationError) as error:
        cases.backend(case).simulate(cases.graph(case))
    assert str(error.value) == said


@reaches(0.9, examples=60, seed=SEEDS)
def test_the_report_of_chains_is_the_report_of_events(reached: Reached, seed: int) -> None:
    """Every line, statistics and utilisation included; ranks that tie may stand in another order."""
    case = pipeline(seed, steps=1) if seed % 3 == 0 else chain_case(seed)
    backend, graph = cases.backend(case), cases.graph(case)
    messages = by_messages(backend, graph)
    if messages is None:
        return
    lines = report_chains(backend.events.models, graph)
    if lines is not None:
        reached()
        assert sorted(lines) == sorted(report(messages))


@pytest.mark.parametrize(
    "apply",
    [
        both(ranks(3), change("system/all-reduce-implementation", ["halvingDoubling"])),
        first(num_ops=1),
        last(comm_size=0),
        change("options/num_queues_per_dim", "2"),
    ],
)
def test_what_chains_cannot_report_is_left_to_events(apply: Change) -> None:
    """Bytes that only a run tells, values of no chain, no chain at all."""
    case = cases.healthy()
    graph = cases.graph(case)
    assert report_chains(cases.backend(case).events.models, graph) is not None
    apply(case)
    assert report_chains(cases.backend(case).events.models, cases.graph(case)) is None


def test_an_event_that_ties_with_the_end_of_a_solved_phase_is_told() -> None:
    """Scheduled at the same time for the same time: which comes first, only messages one by one tell."""
    queue = EventQueue()
    events = GuardedEvents(queue)
    stream, model = MagicMock(), MagicMock()
    queue.now = 5
    events.expect(5, 12, stream, model)
    events.after(6, MagicMock(), None)
    queue.now = 6
    events.after(6, MagicMock(), None)
    queue.now = 5
    with pytest.raises(AmbiguousOrderError):
        events.after(7, MagicMock(), None)
    events.after_solved(7, MagicMock(), None)
    events.expect(5, 12, stream, model)
    other = MagicMock(collective=stream.collective)
    events.expect(5, 12, other, model)
    with pytest.raises(AmbiguousOrderError):
        events.expect(5, 12, MagicMock(), model)


@pytest.mark.parametrize("group", [1, 2])
def test_ranks_that_have_counted_other_streams_never_meet(group: int) -> None:
    """Two of four ranks run a collective of their own before one of all: its streams have other numbers there."""
    case = cases.healthy()
    case["groups"] = {"1": [0, 1], "2": [2, 3]}
    both = {**cases.COLLECTIVE, "id": 2, "deps": [1]}
    own = {**cases.COLLECTIVE, "group": group}
    alone = [dict(cases.COMPUTE), {**cases.COMPUTE, "id": 1}, dict(both)]
    grouped = [dict(cases.COMPUTE), own, dict(both)]
    case["ranks"] = [grouped if rank // 2 == group - 1 else alone for rank in range(4)]
    with pytest.raises(SimulationError, match="deadlock"):
        cases.backend(case).simulate(cases.graph(case))
    case["ranks"] = [[dict(cases.COMPUTE), {**own, "group": 1 + rank // 2}, dict(both)] for rank in range(4)]
    assert len(cases.backend(case).simulate(cases.graph(case)).by_rank()) == 4
