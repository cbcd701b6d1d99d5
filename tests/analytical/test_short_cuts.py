"""Short cuts are taken where they may be, and give what the long way gives."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import analytical_cases as cases
import numpy as np
import pytest
from analytical_cases import COLLECTIVE, COMPUTE, Description, healthy
from changes import Change, add_all, both, change, dimensions, first, last, ranks
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ways_agree import pipeline

from analytical.actors.simulation import ActorSimulation
from analytical.chains.evaluator import _Run
from analytical.chains.lone_collective import LoneCollective
from analytical.chains.plan import ChainPlan
from analytical.chains.solver import CollectiveSolver
from analytical.chains.stretches import SHORT_NS
from analytical.collectives.phases import AmbiguousOrderError, DirectPhase, SteppedPhase
from analytical.embedded import EmbeddedBackend
from analytical.events.simulation import Simulation
from analytical.machine.compute import roofline_ns
from analytical.machine.description import Machine
from analytical.ordered.evaluator import OrderedPlan
from astra_files.system import SystemConfig
from converters.execution_graph import ABSENT, CollectiveType
from foundation.errors import SimulationError

AR, AG, RS = CollectiveType.ALL_REDUCE, CollectiveType.ALL_GATHER, CollectiveType.REDUCE_SCATTER


class Counted:
    """Counts the calls of a method, which goes on as before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.calls = 0
        method = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            return method(*arguments, **named)

        monkeypatch.setattr(owner, name, counted)


def machine(*changes: Change) -> Machine:
    case = healthy()
    both(*changes)(case)
    return cases.backend(case).machine


@pytest.mark.parametrize(
    ("apply", "solvable", "chainable"),
    [
        (both(), True, True),
        (change("options/congestion", "aware"), False, False),
        (change("options/rendezvous_protocol", "true"), False, True),
        (change("system/model-shared-bus", 1), False, False),
        (change("options/num_queues_per_dim", "2"), True, False),
        (change("system/endpoint-delay", 0), True, False),
        (change("options/injection_scale", "0.05"), True, True),
        (both(change("system/endpoint-delay", 10), change("options/injection_scale", "0.05")), True, False),
        (both(change("system/endpoint-delay", 1), change("options/injection_scale", "1")), True, True),
        (change("system/replay-only", 1), True, False),
        (change("system/all-reduce-implementation-custom", ["graphs/ar"]), True, False),
        (change("system/all-reduce-implementation", ["doubleBinaryTree"]), True, False),
        (change("system/all-to-all-implementation", ["oneRing"]), True, False),
        (change("system/all-to-all-implementation", ["ring", "ring"]), True, False),
        (dimensions(2, 2), True, True),
        (both(dimensions(2, 2), change("system/all-gather-implementation", ["ring"])), True, False),
    ],
)
def test_which_machines_allow_which_short_cut(apply: Change, solvable: bool, chainable: bool) -> None:
    own = machine(apply)
    assert (own.solvable, own.chainable) == (solvable, chainable)


@pytest.mark.parametrize(("chunks", "queues", "expected"), [(1, 1, 1), (4, 1, 4), (4, 2, 2), (5, 2, 3), (1, 4, 1)])
def test_chunks_at_once_are_shared_among_queues(chunks: int, queues: int, expected: int) -> None:
    own = machine(
        change("system/active-chunks-per-dimension", chunks), change("options/num_queues_per_dim", f"{queues}")
    )
    assert own.concurrency == expected


def answer(backend: EmbeddedBackend, case: Description) -> dict[int, tuple[int, int]]:
    return backend.simulate(cases.graph(case)).by_rank()


def test_chains_take_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one set of ranks nor a pipeline of two, one phase a chunk."""
    events = Counted(monkeypatch, Simulation, "__init__")
    for case in (healthy(), pipeline(2, steps=3)):
        assert answer(cases.backend(case), case)
    assert events.calls == 0


def test_what_is_no_chain_takes_an_order_and_what_keeps_none_takes_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events once, with whole phases solved; a deadlock is looked for message by message."""
    case = healthy()
    add_all({**COMPUTE, "id": 6, "deps": [], "num_ops": 777_500})(case)
    events = Counted(monkeypatch, Simulation, "__init__")
    assert answer(cases.backend(case), case)
    assert events.calls == 0
    case["system"]["all-to-all-implementation"] = ["oneRing"]  # no collective of this machine is taken for granted
    assert answer(cases.backend(case), case)
    assert events.calls == 1
    case["ranks"][0].pop(1)
    with pytest.raises(SimulationError):
        answer(cases.backend(case), case)
    assert events.calls == 3


@pytest.mark.parametrize(
    "apply",
    [
        change("options/rendezvous_protocol", "true"),
        change("system/model-shared-bus", 1),
        lambda case: case["memory"].update({"memory-type": "MEMORY_POOL"}),
        both(change("groups/500", [0, 1, 2, 3]), last(group=500)),
    ],
)
def test_what_depends_on_the_order_of_ranks_runs_message_by_message(
    apply: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = healthy()
    add_all({"id": 6, "type": "MEM_LOAD", "tensor_size": 10}, {**COMPUTE, "id": 7, "deps": [1, 6]})(case)
    apply(case)
    solved: list[bool] = []
    make = Simulation.__init__

    def watch(self: Simulation, *arguments: Any, solve: bool) -> None:
        solved.append(solve)
        make(self, *arguments, solve=solve)

    monkeypatch.setattr(Simulation, "__init__", watch)
    assert answer(cases.backend(case), case)
    assert solved == [False]


def test_groups_below_500_are_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    case = healthy()
    both(change("groups/499", [0, 1, 2, 3]), last(group=499))(case)
    backend, graph = cases.backend(case), cases.graph(case)
    assert isinstance(backend.plans.get(graph).plan, ChainPlan)
    assert backend.events.run_step(graph).queue.now == backend.events.run_step(graph, solve=False).queue.now
    case["groups"] = {"500": [0, 1, 2, 3]}
    last(group=500)(case)
    assert isinstance(cases.backend(case).plans.get(cases.graph(case)).plan, OrderedPlan)


@pytest.mark.parametrize("deps", [[[], [0], [1], [2]], [[], [0], [1, 0], [0, 2]], [[], [], [0, 1], [2]]])
def test_what_runs_one_by_one_is_a_chain(deps: list[list[int]]) -> None:
    """Also where a node waits for others beside the one before it, and where two loads come first."""
    case = healthy()
    loads = sum(not waited for waited in deps) if len(deps[1]) == 0 else 0
    kinds = [{"type": "MEM_LOAD", "tensor_size": 50}] * loads + [COMPUTE] * (len(deps) - loads)
    nodes = [{**kind, "id": at, "deps": waited} for at, (kind, waited) in enumerate(zip(kinds, deps, strict=True))]
    case["ranks"] = [[dict(node) for node in nodes] for _ in range(4)]
    backend, graph = cases.backend(case), cases.graph(case)
    assert isinstance(backend.plans.get(graph).plan, ChainPlan)
    assert backend.simulate(graph).finish_ns[0, 0] == backend.events.run_step(graph, solve=False).queue.now


@pytest.mark.parametrize("deps", [[[], [0], [0], [2]], [[], [], [0, 1], [1]], [[], [], [0], [2]]])
def test_what_may_overlap_is_no_chain(deps: list[list[int]]) -> None:
    case = healthy()
    kinds = [{"type": "MEM_LOAD", "tensor_size": 50}] * 2 + [COMPUTE] * 2
    nodes = [{**kind, "id": at, "deps": waited} for at, (kind, waited) in enumerate(zip(kinds, deps, strict=True))]
    case["ranks"] = [[dict(node) for node in nodes] for _ in range(4)]
    backend, graph = cases.backend(case), cases.graph(case)
    assert isinstance(backend.plans.get(graph).plan, OrderedPlan)


def test_collectives_in_a_row_are_one_sum_while_ranks_are_in_step(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = Counted(monkeypatch, _Run, "enter")
    case = healthy()
    add_all({**COLLECTIVE, "id": 2, "deps": [1]}, {**COMPUTE, "id": 3, "deps": [2]})(case)
    together = answer(cases.backend(case), case)
    assert entered.calls == 0
    ranks(8)(case)
    case["network"]["topology"] = ["Ring"]
    case["groups"] = {"1": [0, 1, 2, 3], "2": [4, 5, 6, 7]}  # once around it is one hop, one, one and three
    for rank, nodes in enumerate(case["ranks"]):
        nodes[1]["group"] = nodes[2]["group"] = 1 + rank // 4
        nodes[1]["comm_type"] = nodes[2]["comm_type"] = "ALL_GATHER"
    apart = answer(cases.backend(case), case)
    assert entered.calls == 4 and set(together.values()) != set(apart.values())


@pytest.mark.parametrize(("ns", "events"), [(SHORT_NS, 0), (SHORT_NS + 1, 1)])
def test_sums_go_so_far_without_events(ns: int, events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of 2.4 hours, computed or loaded; the event queue takes a longer one."""
    counted = Counted(monkeypatch, ActorSimulation, "__init__")
    for node in ({"num_ops": 1000 * ns + 500}, {"type": "MEM_LOAD", "num_ops": None, "tensor_size": 25 * (ns - 100)}):
        case = healthy()
        both(first(**node), add_all({**COLLECTIVE, "id": 2, "deps": [1]}))(case)
        graphs = cases.graph(case), cases.sharing(cases.graph(case))
        assert graphs[1].rank_graphs[0].work.num_ops.shape[1] < graphs[1].rank_graphs[0].nodes
        for graph in graphs:
            counted.calls = 0
            assert cases.backend(case).simulate(graph).finish_ns.min() > ns
            assert counted.calls == events


@pytest.mark.parametrize(("room", "events"), [(0, 0), (-1, 1)])
def test_collectives_go_so_far_without_events(room: int, events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = healthy()
    (finish, _), *_ = answer(cases.backend(case), case).values()
    monkeypatch.setattr("analytical.chains.meetings.SHORT_NS", finish - 5 + room)  # the node before it takes 5 ns
    counted = Counted(monkeypatch, Simulation, "__init__")
    assert set(answer(cases.backend(case), case).values()) == {(finish, finish - 5)}
    assert counted.calls == events


def test_sets_with_sizes_by_step_lie_beside_sets_without() -> None:
    """A table of sizes may have one row for all steps, on some ranks and not on others."""
    case = healthy()
    for rank, nodes in enumerate(case["ranks"]):
        nodes[0] |= {"num_ops": [5500, 5500], "tensor_size": [10_000, 90_000] if rank < 2 else 7000}
    backend, graph = cases.backend(case), cases.graph(case)
    expected = backend.simulate(graph).finish_ns.tolist()
    for index in (1, 0):
        both_rows = graph.rank_graphs[index].work
        if (both_rows.tensor_size[0] == both_rows.tensor_size[1]).all():
            graph.rank_graphs[index].work = replace(both_rows, tensor_size=both_rows.tensor_size[:1])
    assert sorted(len(one.work.tensor_size) for one in graph.rank_graphs) == [1, 2]
    assert backend.simulate(graph).finish_ns.tolist() == expected
    graph.rank_graphs.reverse()
    assert backend.simulate(graph).finish_ns.tolist() == [row[::-1] for row in expected]


class Solver:
    """The solver of a case's collectives, and how often it had to simulate."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *changes: Change) -> None:
        case = healthy()
        case["system"]["reduce-scatter-implementation"] = ["ring"]
        both(*changes)(case)
        self.npus = len(case["ranks"])
        self.models = cases.backend(case).events.models
        self.solver = CollectiveSolver(self.models, {})
        self.simulated = Counted(monkeypatch, LoneCollective, "exits")

    def exits(self, *entries: int, kind: CollectiveType = AR, size: int = 4096) -> tuple[int, ...]:
        """When ranks leave the collective that they enter at `entries`."""
        return self.solver.exits(tuple(range(self.npus)), kind, size, ABSENT, 0, entries)


@pytest.mark.parametrize("algorithm", ["ring", "direct", "halvingDoubling"])
@pytest.mark.parametrize("chunks", [1, 2])
def test_collectives_of_one_phase_are_solved_without_events(
    algorithm: str, chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    implementations = [
        change(f"system/{kind}-implementation", [algorithm]) for kind in ("all-reduce", "all-gather", "reduce-scatter")
    ]
    quick = Solver(monkeypatch, *implementations, change("system/active-chunks-per-dimension", chunks))
    source = random.Random(7)
    for kind in (AR, AG, RS):
        for _ in range(10):
            entries = [source.choice([0, 3, 1000, 5000]) for _ in range(4)]
            entries[source.randrange(4)] = 0
            found = quick.exits(*entries, kind=kind)
            whole = LoneCollective((0, 1, 2, 3), kind, 4096, ABSENT, 0).exits(quick.models, {}, tuple(entries))
            assert found == whole
    slow = quick.simulated.calls - 30
    assert slow <= (6 if algorithm == "direct" else 0), "but for ties of direct all-reduces, no simulation"


@pytest.mark.parametrize(
    "apply",
    [
        change("options/rendezvous_protocol", "true"),
        both(dimensions(2, 2), change("system/collective-optimization", "baseline")),
        change("system/all-reduce-implementation", ["direct2"]),
        both(ranks(3), change("system/all-reduce-implementation", ["direct2"])),
    ],
)
def test_other_collectives_are_simulated_once(apply: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    solver = Solver(monkeypatch, apply)
    entries = range(solver.npus)
    assert solver.exits(*entries) == solver.exits(*entries)
    assert solver.simulated.calls == (0 if solver.npus == 3 else 1)


def test_a_first_half_that_ends_as_the_last_message_comes_is_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of the two comes first decides when the second half begins."""
    direct = change("system/all-reduce-implementation", ["direct"])
    model, solver = phase_model(direct), Solver(monkeypatch, direct)
    turn = model.bus + model.reduction
    for late, tie in ((turn - 1, False), (turn, True), (turn + 1, False)):
        entries = (0, 0, 0, late)
        if tie:
            with pytest.raises(AmbiguousOrderError):
                model.solve(entries)
        whole = LoneCollective((0, 1, 2, 3), AR, 4096, ABSENT, 0).exits(solver.models, {}, entries)
        calls = solver.simulated.calls
        assert solver.exits(*entries) == whole
        assert solver.simulated.calls - calls == tie


def test_a_window_of_all_peers_is_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = [
        Solver(monkeypatch, change("system/all-reduce-implementation", [name]))
        for name in ("direct", "direct3", "direct9")
    ]
    assert len({solver.exits(0, 5, 0, 9) for solver in windows}) == 1
    assert [solver.simulated.calls for solver in windows] == [0, 0, 0]


def phase_model(*changes: Change, kind: CollectiveType = AR) -> Any:
    """The model of the only phase of an all-reduce of `healthy`, changed."""
    case = healthy()
    both(*changes)(case)
    models = cases.backend(case).events.models
    streams = CollectiveSolver(models, {}).streams(0, kind, 4096, ABSENT, 0)
    return models.phases.model(streams[0][0])


def test_phases_that_run_message_by_message_have_no_model() -> None:
    assert isinstance(phase_model(), SteppedPhase)
    assert isinstance(phase_model(change("system/all-reduce-implementation", ["direct"])), DirectPhase)
    for apply in (
        change("system/endpoint-delay", 0),
        change("system/model-shared-bus", 1),
        change("system/all-reduce-implementation", ["doubleBinaryTree"]),
        change("system/all-reduce-implementation", ["direct2"]),
        both(ranks(3), change("system/all-reduce-implementation", ["halvingDoubling"])),
    ):
        assert phase_model(apply) is None


@pytest.mark.parametrize(("room", "solved"), [(0, True), (-1, False)])
def test_phases_that_may_take_too_long_for_64_bits_have_no_model(
    room: int, solved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = phase_model()
    longest = sum(step.times * int(step.delays.max()) + step.bus for step in model.steps)
    monkeypatch.setattr("analytical.collectives.phases.LONGEST_RUN_NS", 2 * (longest + room))
    assert (phase_model() is not None) is solved


def test_ranks_in_step_and_alike_are_solved_as_one() -> None:
    """The time of a uniform phase is the one that its exchanges add up to; where delays differ there is none."""
    for algorithm in ("ring", "halvingDoubling"):
        model = phase_model(change("system/all-reduce-implementation", [algorithm]))
        assert isinstance(model, SteppedPhase) and model.uniform_ns is not None
        quick = model.solve([0, 0, 0, 0]).arrivals
        model.uniform_ns = None
        model.solutions.clear()
        assert model.solve([0, 0, 0, 0]).arrivals == quick
    uneven = phase_model(
        lambda case: case["network"].update(topology=["Ring"], npus_count=[8]),
        change("system/all-reduce-implementation", ["halvingDoubling"]),
    )
    assert isinstance(uneven, SteppedPhase) and uneven.uniform_ns is not None


def test_solutions_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = phase_model()
    worked = Counted(monkeypatch, SteppedPhase, "_arrivals")
    assert model.solve([0, 1, 2, 3]) is model.solve([0, 1, 2, 3])
    assert worked.calls == 1


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.lists(st.tuples(st.integers(1, 2**53), st.integers(1, 2**40)), min_size=1, max_size=4),
    st.sampled_from([1.0, 0.3, 989.5]),
    st.sampled_from([1.0, 936.2, 3350.0]),
    st.booleans(),
)
def test_the_roofline_is_upstreams_formula(
    nodes: list[tuple[int, int]], peak: float, bandwidth: float, of_one_byte: bool
) -> None:
    """In doubles and in their order: trunc(num_ops / min(bandwidth * num_ops / size, peak) * 10^9)."""
    if of_one_byte:
        nodes = [(operations, 1) for operations, _ in nodes]
    system = SystemConfig(peak_perf=peak, local_mem_bw=bandwidth)
    operations, size = np.array(nodes).T
    expected = [
        float(int(float(ops) / min(bandwidth * 1_000_000_000 * (float(ops) / moved), peak * 1e12) * 1e9))
        for ops, moved in nodes
    ]
    assert roofline_ns(operations, size, system).tolist() == expected
