"""Graphs that are no chains, by an order of events: the figures of messages, and how often an order was proven."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import analytical_cases as cases
import numpy as np
import pytest
from analytical_cases import COLLECTIVE, COMPUTE, Description, Node, healthy
from changes import Change, add, add_all, both, change, every, first, last
from helpers.reached import Reached, reaches
from hypothesis import strategies as st
from overlapping_cases import pipeline_of_batches, sub_batches
from random_cases import CaseMaker, plain, sound_case

from analytical.chains.solver import CollectiveSolver
from analytical.chains.stretches import SHORT_NS
from analytical.embedded import EmbeddedBackend
from analytical.ordered import compiling
from analytical.ordered.evaluating import NotOrderedError
from analytical.ordered.evaluator import ORDERS_KEPT, OrderedPlan
from analytical.ordered.finding import OrderFinder
from converters.execution_graph import ExecutionGraph, IterationResult
from foundation.errors import OrreryError, SimulationError

SEEDS = st.integers(0, 10**6)
STEPS = 4


class Ordered:
    """A case's backend and graph, and the answers by order; `left`: steps that the event queue had to take."""

    def __init__(self, case: Description) -> None:
        self.backend: EmbeddedBackend = cases.backend(case)
        self.graph = cases.graph(case)
        self.plan = OrderedPlan(seen=1)
        self.left = 0

    def evaluate(self, graph: ExecutionGraph | None = None) -> IterationResult:
        chosen = graph or self.graph
        solver = CollectiveSolver(self.backend.events.models, chosen.groups)
        return self.backend.ordered.evaluate(self.plan, chosen, solver, self._fall_back)

    def agrees(self, result: IterationResult) -> bool:
        """Whether every rank's figures are those of messages, in every step."""
        column = {rank: at for at, ranks in enumerate(result.rank_sets) for rank in ranks}
        for step in range(self.graph.steps):
            for run in self.backend.events.run_step(self.graph, step, solve=False).rank_runs:
                at = column[run.rank]
                found = int(result.finish_ns[step, at]), int(result.exposed_ns[step, at])
                if found != (run.finished_ns, (run.finished_ns or 0) - run.gpu_ns):
                    return False
        return True

    def _fall_back(self, graph: ExecutionGraph) -> IterationResult:
        self.left += graph.steps
        return self.backend.events.simulate(graph)


def in_steps(case: Description, seed: int) -> Description:
    """Let the compute nodes of a case take a different time in each of `STEPS` steps."""
    source = random.Random(seed)
    for nodes in case["ranks"]:
        for node in nodes:
            if node["type"] == "COMP":
                growth = source.choice([0, 0.001, 0.01, 0.1, 0.5])
                node["num_ops"] = [max(1, int(node["num_ops"] * (1 + growth * step))) for step in range(STEPS)]
    return case


def proves(share: float, make: Callable[[int], Description], examples: int) -> Callable[[], None]:
    """A property: orders answer as messages do, and at least `share` of the cases leave the event queue nothing."""

    @reaches(share, examples=examples, seed=SEEDS)
    def agree(reached: Reached, seed: int) -> None:
        ordered = Ordered(make(seed))
        try:
            result = ordered.evaluate()
        except SimulationError:
            return
        if not ordered.left:
            reached()
        assert ordered.agrees(result)

    return agree


def any_graph(seed: int) -> Description:
    return CaseMaker(seed, chainable=True).case()


PROPERTIES = {
    "any graph": proves(0.9, any_graph, 80),
    "any graph in steps": proves(0.85, lambda seed: in_steps(any_graph(seed), seed), 40),
    "sub-batches": proves(0.95, lambda seed: sub_batches(seed, steps=STEPS), 60),
    "pipelines of sub-batches": proves(0.9, lambda seed: pipeline_of_batches(seed, steps=STEPS), 40),
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_orders_answer_as_messages_do(name: str) -> None:
    PROPERTIES[name]()


@reaches(0.2, examples=60, seed=SEEDS)
def test_orders_of_any_machine_answer_as_messages_do(reached: Reached, seed: int) -> None:
    """Queues, trees, memory that ranks share, rendezvous and replays are left to the event queue."""
    case = sound_case(seed) if seed % 2 else plain(sound_case(seed))
    ordered = Ordered(case)
    try:
        result = ordered.evaluate()
    except OrreryError:
        return
    if not ordered.left:
        reached()
    assert ordered.agrees(result)


def beside(*nodes: Node, steps: int = 1) -> Description:
    """Four ranks that all run `nodes`."""
    case = healthy()
    every(*nodes)(case)
    return case


def compute(number: int, ns: int | list[int], *deps: int) -> Node:
    ops = [1000 * one + 500 for one in ns] if isinstance(ns, list) else 1000 * ns + 500
    return {"id": number, "type": "COMP", "num_ops": ops, "tensor_size": 1, "deps": list(deps)}


def load(number: int, ns: int, *deps: int) -> Node:
    """A load of `ns` ns (100 ns of latency and 25 bytes a ns)."""
    return {"id": number, "type": "MEM_LOAD", "tensor_size": 25 * (ns - 100), "deps": list(deps)}


def test_a_step_in_which_another_node_is_ready_first_gets_an_order_of_its_own() -> None:
    """Node 1 waits for a load of 500 or 2000 ns, node 2 for a CPU node of 1000: whoever is ready first runs first."""
    cpu = {**compute(3, 0), "is_cpu_op": True, "duration_us": 1}
    loads = {**load(0, 500), "tensor_size": [25 * 400, 25 * 1900]}
    ordered = Ordered(beside(loads, cpu, compute(1, [3000, 3000], 0), compute(2, [4000, 4000], 3)))
    result = ordered.evaluate()
    assert ordered.left == 0 and ordered.agrees(result)
    assert len(ordered.plan.orders) == 2
    assert result.finish_ns.tolist() == [[500 + 3000 + 4000], [1000 + 4000 + 3000]]


def test_a_row_of_nodes_can_be_overtaken_until_its_last_one_starts() -> None:
    """Node 11 follows node 10, of 300 or 1500 ns; node 1, ready at 1000 ns, runs behind both of them or in between."""
    cpu = {**compute(3, 0), "is_cpu_op": True, "duration_us": 1}
    ordered = Ordered(beside(cpu, compute(10, [300, 1500]), compute(11, 3000, 10), compute(1, 50, 3), load(4, 6000, 1)))
    result = ordered.evaluate()
    assert ordered.left == 0 and ordered.agrees(result)
    assert len(ordered.plan.orders) == 2
    assert result.finish_ns.tolist() == [[300 + 3000 + 50 + 6000], [1500 + 50 + 6000]]


@pytest.mark.parametrize(
    ("ns", "receives", "left"),
    [
        pytest.param([100, 900], {5: [0], 6: [1]}, 0, id="they wait for others"),
        pytest.param([900, 100], {5: [1], 4: [0, 1]}, 1, id="posted together, the lower id goes first"),
    ],
)
def test_like_receives_take_messages_as_they_are_posted(
    ns: list[int], receives: dict[int, list[int]], left: int
) -> None:
    """A load of 500 ns and a compute node decide which of two receives is posted first; 10 us of work follow one."""
    posted = [
        {"id": number, "type": "COMM_RECV", "comm_src": 0, "comm_tag": 1, "comm_size": 9, "deps": deps}
        for number, deps in receives.items()
    ]
    sends = [
        {"id": number + 1, "type": "COMM_SEND", "comm_dst": 1, "comm_tag": 1, "comm_size": 9, "deps": [number]}
        for number in (0, 2)
    ]
    case = beside(compute(0, [600, 600]))
    case["ranks"][0] = [compute(0, [600, 600]), sends[0], compute(2, 3000, 0), sends[1]]
    case["ranks"][1] = [compute(0, ns), load(1, 500), *posted, compute(10, 10_000, 5)]
    ordered = Ordered(case)
    result = ordered.evaluate()
    assert ordered.left == left and ordered.agrees(result)
    assert len(ordered.plan.orders) == 2 - left
    assert len(set(result.finish_ns[:, 1].tolist())) == 2


def tie(first: int, second: int) -> Description:
    """Nodes 1 and 2 both need the compute slot, behind a load and behind another rank's message of like duration."""
    return beside(
        load(5, first),
        {**compute(6, 0), "is_cpu_op": True, "duration_us": second},
        compute(2, 50, 5),
        compute(1, 70, 6),
    )


@pytest.mark.parametrize(("ns", "taken"), [(999, True), (1000, False), (1001, True)])
def test_where_a_tie_decides_the_event_queue_is_asked(ns: int, taken: bool) -> None:
    ordered = Ordered(tie(ns, 1))
    result = ordered.evaluate()
    assert (ordered.left == 0) is taken
    assert ordered.agrees(result)


def test_a_tie_that_decides_nothing_is_no_matter() -> None:
    """Both are ready at once but run on different slots; and of two children of one node the lower id runs first."""
    case = beside(
        load(5, 1000), {**compute(6, 0), "is_cpu_op": True, "duration_us": 1}, compute(1, 70, 6), load(2, 200, 5)
    )
    add_all(compute(7, 20, 1, 2), compute(8, 30, 2, 1), compute(9, 30, 2))(case)
    ordered = Ordered(case)
    result = ordered.evaluate()
    assert ordered.left == 0 and ordered.agrees(result)


def test_futile_searches_end() -> None:
    """Where ties decide every step no more than four orders are looked for."""
    case = tie(1000, 1)
    for nodes in case["ranks"]:
        for node in nodes:
            if node["type"] == "COMP":
                node["num_ops"] = [node["num_ops"]] * 20
    ordered = Ordered(case)
    searched = []
    find = ordered.backend.ordered._find
    ordered.backend.ordered._find = lambda *arguments: searched.append(1) or find(*arguments)  # type: ignore[method-assign]
    result = ordered.evaluate()
    assert ordered.left == 20 and len(searched) == 4
    assert ordered.agrees(result)


def test_an_order_found_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the same graph and for like ones with other durations and sizes; the latest order is tried first."""
    found = []
    find = OrderFinder.find
    monkeypatch.setattr(OrderFinder, "find", lambda self: found.append(1) or find(self))
    case = healthy()
    add_all(compute(6, [50, 60, 70]))(case)
    backend, graph = cases.backend(case), cases.graph(case)
    monkeypatch.setattr(type(backend.events), "simulate", None)
    assert (backend.simulate(graph).finish_ns == backend.simulate(graph).finish_ns).all()
    assert len(found) == 1
    for one in graph.rank_graphs:
        one.work = cases.longer(one.work, 3000)
        one.comm_size = np.where(one.comm_size > 0, one.comm_size * 2, one.comm_size)
    backend.simulate(graph)
    assert len(found) == 1


def test_as_many_orders_are_kept_as_are_worth_it() -> None:
    plan = OrderedPlan()
    orders: list[Any] = [object() for _ in range(ORDERS_KEPT + 2)]
    for order in orders:
        plan.used(order)
    assert plan.orders == orders[2:]
    plan.used(orders[4])
    assert plan.orders == [*orders[2:4], *orders[5:], orders[4]]


def test_a_single_step_of_ranks_that_all_differ_is_run_when_it_first_comes() -> None:
    case = healthy()
    for rank, nodes in enumerate(case["ranks"]):
        nodes.append(compute(7, 100 + rank))
    ordered = Ordered(case)
    ordered.plan = OrderedPlan()
    ordered.evaluate()
    assert (ordered.left, ordered.plan.known) == (1, False)
    result = ordered.evaluate()
    assert (ordered.left, ordered.plan.known) == (1, True)
    assert ordered.agrees(result)


@pytest.mark.parametrize(("steps", "ranks", "sets", "expected"), [(1, 3, 1, True), (1, 4, 2, False), (3, 4, 4, True)])
def test_what_is_worth_an_order(steps: int, ranks: int, sets: int, expected: bool) -> None:
    nodes = [compute(0, [5] * steps)]
    split = np.array_split(np.arange(ranks), sets)
    graph = ExecutionGraph([cases.rank_graph(tuple(one.tolist()), nodes) for one in split])
    plan = OrderedPlan()
    assert plan.worth_it(graph) is expected
    assert plan.worth_it(graph)


BESIDE = add_all({**COMPUTE, "id": 6, "deps": []})


@pytest.mark.parametrize(
    "apply",
    [
        change("options/num_queues_per_dim", "2"),
        change("system/all-reduce-implementation", ["doubleBinaryTree"]),
        both(change("groups/500", [0, 1, 2, 3]), last(group=500)),
        add_all({"id": 7, "type": "INVALID", "deps": [0]}, {**COMPUTE, "id": 8, "deps": [0]}),
        add_all({**COMPUTE, "id": 8, "tensor_size": 0}, {**COMPUTE, "id": 9}),
        both(change("memory/memory-type", "MEMORY_POOL"), add_all(load(7, 200), {**COMPUTE, "id": 8, "deps": [7]})),
        both(
            change("options/rendezvous_protocol", "true"),
            add(0, {"id": 7, "type": "COMM_SEND", "comm_dst": 1, "comm_tag": 1, "comm_size": 9, "deps": [1]}),
            add(1, {"id": 7, "type": "COMM_RECV", "comm_src": 0, "comm_tag": 1, "comm_size": 9, "deps": [1]}),
        ),
    ],
)
def test_what_only_the_event_queue_knows_has_no_structure(apply: Change) -> None:
    case = healthy()
    if "INVALID" not in str(apply):
        both(BESIDE)(case)
    apply(case)
    ordered = Ordered(case)
    assert ordered.agrees(ordered.evaluate()) and ordered.left == 1
    assert ordered.plan.known and ordered.plan.structure is None
    assert ordered.agrees(ordered.evaluate()) and ordered.left == 2


def test_rendezvous_alone_is_no_matter() -> None:
    case = healthy()
    both(change("options/rendezvous_protocol", "true"), BESIDE)(case)
    ordered = Ordered(case)
    assert ordered.agrees(ordered.evaluate()) and not ordered.left


def with_sizes(graph: ExecutionGraph, **columns: Callable[[Any], Any]) -> ExecutionGraph:
    """The same structure with other values."""
    for one in graph.rank_graphs:
        for name, new in columns.items():
            if hasattr(one.work, name):
                one.work = replace(one.work, **{name: new(getattr(one.work, name))})
            else:
                setattr(one, name, new(getattr(one, name)))
    return graph


@pytest.mark.parametrize(
    "columns",
    [
        {"tensor_size": lambda size: np.where(size == 1, 0, size)},
        {"comm_size": lambda size: np.where(size > 0, 0, size)},
        {"num_ops": lambda ops: np.where(ops > 0, 2**62, ops)},
        {"duration_us": lambda us: us * 0 + 2**43},
    ],
)
def test_values_that_are_not_for_this_way_are_the_event_queues(columns: dict[str, Callable[[Any], Any]]) -> None:
    """A kept order serves like graphs; of these values the event queue says what they come to, or what is wrong."""
    case = healthy()
    BESIDE(case)
    add_all({**COMPUTE, "id": 9, "is_cpu_op": True, "duration_us": 3, "deps": [6]})(case)
    ordered = Ordered(case)
    ordered.evaluate()
    graph = with_sizes(ordered.graph, **columns)
    solver = CollectiveSolver(ordered.backend.events.models, graph.groups)
    with pytest.raises(NotOrderedError):
        ordered.backend.ordered.proven(ordered.plan, graph, solver)


def test_a_node_that_takes_longer_than_times_are_counted_is_refused() -> None:
    """Before anything is made a whole number of it."""
    case = healthy()
    both(BESIDE, change("system/peak-perf", 1e-9), first(num_ops=2**62))(case)
    ordered = Ordered(case)
    with pytest.raises(SimulationError, match="it takes longer than 104 days"):
        ordered.evaluate()


def test_messages_whose_bytes_do_not_match_are_the_event_queues() -> None:
    case = pipeline_of_batches(1, steps=1)
    ordered = Ordered(case)
    ordered.evaluate()
    received = [one for one in ordered.graph.rank_graphs if (one.comm_src_delta < 0).any()]
    for one in received:
        one.comm_size = np.where(one.node_type == 6, one.comm_size + 1, one.comm_size)
    solver = CollectiveSolver(ordered.backend.events.models, ordered.graph.groups)
    with pytest.raises(NotOrderedError):
        ordered.backend.ordered.proven(ordered.plan, ordered.graph, solver)


def test_sets_that_disagree_on_the_bytes_keep_no_order() -> None:
    case = healthy()
    BESIDE(case)
    case["ranks"][0][0]["num_ops"] += 5000
    ordered = Ordered(case)
    ordered.evaluate()
    (own, _) = ordered.graph.rank_graphs
    own.comm_size = np.where(own.comm_size > 0, own.comm_size + 4, own.comm_size)
    solver = CollectiveSolver(ordered.backend.events.models, ordered.graph.groups)
    with pytest.raises(NotOrderedError):
        ordered.backend.ordered.proven(ordered.plan, ordered.graph, solver)


def test_a_message_at_the_start_takes_some_time() -> None:
    """Of 0 ns at t = 0 ASTRA-sim aborts, whatever order is known."""
    message = {"id": 7, "comm_tag": 1, "comm_size": 60_000, "deps": []}
    case = beside(compute(0, 900), compute(1, 800))
    case["network"]["latency"] = [0]
    add(0, {**message, "type": "COMM_SEND", "comm_dst": 1})(case)
    add(1, {**message, "type": "COMM_RECV", "comm_src": 0})(case)
    ordered = Ordered(case)
    assert ordered.agrees(ordered.evaluate()) and not ordered.left
    for one in ordered.graph.rank_graphs:
        one.comm_size = np.where(one.comm_size > 0, 9, one.comm_size)
    with pytest.raises(SimulationError, match="something takes 0 ns at t = 0"):
        ordered.evaluate()


def test_times_stay_whole_beyond_what_doubles_hold() -> None:
    """A message arrives after more than 2^53 ns, of which doubles know the even ones only."""
    case = beside(compute(0, 10), compute(1, 20))
    longest, count = SHORT_NS - 1, 2**10 + 3
    row = [load(0, longest), *(load(2 * at, longest, 2 * at - 1) for at in range(1, count))]
    between = [compute(2 * at + 1, 2, 2 * at) for at in range(count)]
    last = 2 * count
    message = {"id": last, "comm_tag": 1, "comm_size": 9}
    case["ranks"][0] = [*row, *between, {**message, "type": "COMM_SEND", "comm_dst": 1, "deps": [last - 1]}]
    case["ranks"][0].append(compute(last + 1, 5000, last - 1))
    case["ranks"][1].append({**message, "type": "COMM_RECV", "comm_src": 0, "deps": []})
    case["ranks"][1].append(compute(last + 1, 4, last))
    ordered = Ordered(case)
    result = ordered.evaluate()
    assert not ordered.left and ordered.agrees(result)
    received = result.finish_ns[0, 1] - 4
    assert received > 2**53 and received % 2 == 1


def test_a_deadlock_is_the_event_queues() -> None:
    case = healthy()
    BESIDE(case)
    case["ranks"][0].pop(1)
    ordered = Ordered(case)
    with pytest.raises(SimulationError, match="deadlock"):
        ordered.evaluate()
    assert ordered.left == 1


def test_members_that_disagree_on_the_bytes_are_the_event_queues() -> None:
    case = healthy()
    BESIDE(case)
    case["ranks"][0][1]["comm_size"] = 999
    ordered = Ordered(case)
    with pytest.raises(SimulationError, match="deadlock"):
        ordered.evaluate()


@pytest.mark.parametrize("splits", [1, 4])
def test_streams_are_counted_as_ranks_do(splits: int) -> None:
    """A group that only two ranks are in moves their count of streams on: they never meet the others again."""
    case = healthy()
    both(BESIDE, change("groups/1", [0, 1]), change("system/preferred-dataset-splits", splits))(case)
    for rank in (0, 1):
        case["ranks"][rank].insert(1, {**COLLECTIVE, "id": 8, "group": 1})
        case["ranks"][rank][2]["deps"] = [8]
    ordered = Ordered(case)
    with pytest.raises(SimulationError, match="deadlock"):
        ordered.evaluate()


def test_an_end_that_astra_sim_aborts_at_is_looked_for_in_each_step() -> None:
    """A message of the first step that arrives after the end of the second is no matter."""
    case = beside(compute(0, [59_000, 1000]), compute(9, [40_000, 49_000], 0))
    send = {"id": 7, "type": "COMM_SEND", "comm_dst": 1, "comm_tag": 1, "comm_size": 9, "deps": [0]}
    receive = {"id": 7, "type": "COMM_RECV", "comm_src": 0, "comm_tag": 1, "comm_size": 9, "deps": [0]}
    both(add(0, load(8, 200), send), add(1, load(8, 200), receive))(case)
    ordered = Ordered(case)
    assert ordered.agrees(ordered.evaluate()) and not ordered.left
    assert len(ordered.plan.orders) == 1


def test_an_end_that_astra_sim_aborts_at_is_the_event_queues() -> None:
    """A rank that holds memory nodes and ends with a SEND, or at the same time as one."""
    for ns, refused in ((10, True), (1_000_000, False)):
        case = healthy()
        BESIDE(case)
        send = {"id": 7, "type": "COMM_SEND", "comm_dst": 1, "comm_tag": 1, "comm_size": 9, "deps": [1]}
        add(0, load(8, 200), send, compute(9, ns, 0))(case)
        ordered = Ordered(case)
        if refused:
            with pytest.raises(SimulationError, match="ends with a SEND"):
                ordered.evaluate()
        else:
            assert ordered.agrees(ordered.evaluate()) and not ordered.left


def test_nothing_takes_0_ns_at_the_start() -> None:
    """ASTRA-sim aborts: a compute node of 0 ns in any step, or a message over a link without latency."""
    case = healthy()
    both(BESIDE, first(num_ops=[5500, 500]))(case)
    ordered = Ordered(case)
    with pytest.raises(SimulationError, match="0 ns at t = 0"):
        ordered.evaluate()
    send = {"id": 7, "type": "COMM_SEND", "comm_dst": 1, "comm_tag": 1, "comm_size": 9, "deps": []}
    case = healthy()
    both(BESIDE, change("network/latency", [0.0]), add(0, send))(case)
    ordered = Ordered(case)
    with pytest.raises(SimulationError, match="0 ns at t = 0"):
        ordered.evaluate()


def test_a_graph_that_is_too_wide_to_check_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "COMPARISONS", 0)
    ordered = Ordered(sub_batches(3, steps=1))
    result = ordered.evaluate()
    assert ordered.left == 1 and ordered.agrees(result)


@pytest.mark.parametrize(("room", "left"), [(0, 0), (-1, 1)])
def test_so_many_nodes_are_put_into_an_order(room: int, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many pieces as nodes: the sum of all must stay within 64 bits."""
    ordered = Ordered(sub_batches(3, steps=1))
    nodes = sum(one.nodes for one in ordered.graph.rank_graphs)
    monkeypatch.setattr("analytical.ordered.structure.MOST_PIECES", 2 * nodes + room)
    result = ordered.evaluate()
    assert ordered.left == left and ordered.agrees(result)


def test_a_wide_graph_is_checked_in_time() -> None:
    """200 nodes that wait for nothing, and 200 that wait for one of them each and for a collective."""
    nodes = [compute(number, 100 + number) for number in range(200)]
    nodes += [{**COLLECTIVE, "id": 200, "deps": [0]}]
    nodes += [compute(201 + number, 50, number, 200) for number in range(200)]
    ordered = Ordered(beside(*nodes))
    result = ordered.evaluate()
    assert ordered.left == 0 and ordered.agrees(result)


def test_ranks_that_leave_a_collective_at_different_times_have_columns_of_their_own() -> None:
    ordered = next(
        one for seed in range(100) if (one := Ordered(pipeline_of_batches(seed, steps=2))).evaluate() and _apart(one)
    )
    result = ordered.evaluate()
    assert ordered.agrees(result) and not ordered.left
    assert len(result.rank_sets) > len(ordered.graph.rank_graphs)


def _apart(ordered: Ordered) -> bool:
    return any(order.apart for order in ordered.plan.orders) and not ordered.left


def test_steps_of_the_event_queue_and_of_orders_are_put_together() -> None:
    """Two of four steps have a tie that decides; the answer has all four, in their order."""
    case = tie(1000, 1)
    case["system"]["roofline-enabled"] = 1
    for nodes in case["ranks"]:
        for node in nodes:
            if node["type"] == "COMP":
                node["num_ops"] = [node["num_ops"]] * 4
        nodes[0] = {**compute(5, [1000, 990, 1000, 1010])}
        nodes[2]["type"] = "COMP"
    ordered = Ordered(case)
    result = ordered.evaluate()
    assert result.finish_ns.shape[0] == 4 and ordered.left == 2
    assert ordered.agrees(result)
