"""Collectives over part of the dimensions or in groups, which ranks enter at times that follow no pattern."""

from __future__ import annotations

import random
from typing import Any

import analytical_cases as cases
import numpy as np
import pytest
from changes import both, change, dimensions, last
from helpers.reached import Reached, reaches
from hypothesis import strategies as st

from analytical.chains.evaluator import State, _Run
from analytical.chains.meetings import Meeting, MeetingFinder
from analytical.chains.plan import ChainPlan
from analytical.chains.repeats import Repeat
from analytical.chains.stops import CollectiveStop, SoloRun, Stop
from analytical.collectives.phases import SOLUTIONS_KEPT
from converters.execution_graph import ABSENT, CollectiveType
from foundation.errors import SimulationError

COUNTS = ([4], [6], [8], [2, 3], [3, 4], [4, 2], [2, 2, 2], [3, 2, 3], [2, 3, 4])
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")


def scattered_case(seed: int, *, steps: int, layers: int = 1) -> cases.Description:
    """Chains of compute and collectives, `layers` alike; every rank computes one of a few times, drawn rank by rank.

    So the sets of ranks that are in step lie across the places at which a collective is run, in another order at each.
    """
    source = random.Random(seed)
    counts = source.choice(COUNTS)
    case = cases.healthy()
    case["network"] = {
        "topology": [source.choice(["Ring", "FullyConnected", "Switch"]) for _ in counts],
        "npus_count": counts,
        "bandwidth": [source.choice([12.5, 50, 400]) for _ in counts],
        "latency": [source.choice([0, 10, 500]) for _ in counts],
    }
    npus = int(np.prod(counts))
    case["groups"] = _groups(source, npus)
    halves = len(counts) > 1 or not case["groups"]  # a group takes the sole entry of a list, whatever its size
    case["system"] |= {
        "collective-optimization": source.choice(["localBWAware", "baseline"]),
        "preferred-dataset-splits": source.choice([1, 2, 4]),
        "active-chunks-per-dimension": source.choice([1, 2]),
        **{f"{kind}-implementation": [_algorithm(source, kind, count, halves) for count in counts] for kind in KINDS},
    }
    case["ranks"] = [[] for _ in range(npus)]
    pattern = [source.randrange(3) for _ in range(npus)]
    layer = []
    for _ in range(source.randint(1, 4)):
        if source.random() < 0.3:
            pattern = [source.randrange(3) for _ in range(npus)]
        durations = [[1000 * source.randint(1, 3000) + 500 for _ in range(steps)] for _ in range(3)]
        layer.append((pattern, durations, _collective(source, len(counts))))
    for pattern, durations, collective in layers * layer:
        for rank in range(npus):
            compute = {"type": "COMP", "num_ops": durations[pattern[rank]], "tensor_size": 1}
            own = next((int(group) for group, ranks in case["groups"].items() if rank in ranks), 0)
            group = {"group": own} if "involved_dims" not in collective else {}
            _append(case["ranks"][rank], compute)
            _append(case["ranks"][rank], {**collective, **group})
    return case


def _algorithm(source: random.Random, kind: str, count: int, halves: bool) -> str:
    halving = halves and count & (count - 1) == 0 and kind != "all-to-all"
    return source.choice(["ring", "direct", "direct1", "direct2", *["halvingDoubling"] * halving])


def _groups(source: random.Random, npus: int) -> dict[str, list[int]]:
    """Divide all ranks into groups of one size, in any order; none now and then."""
    ranks = list(range(npus))
    source.shuffle(ranks)
    size = source.choice([size for size in range(2, npus + 1) if npus % size == 0])
    if source.random() < 0.3:
        return {}
    return {str(at // size + 1): ranks[at : at + size] for at in range(0, npus, size)}


def _collective(source: random.Random, dims: int) -> dict[str, Any]:
    kind = source.choice(["ALL_REDUCE", "ALL_GATHER", "REDUCE_SCATTER", "ALL_TO_ALL"])
    node = {"type": "COMM_COLL", "comm_type": kind, "comm_size": source.choice([4096, 65536, 1 << 20])}
    if source.random() < 0.7:
        node["involved_dims"] = source.randint(1, (1 << dims) - 1)
    return node


def _append(nodes: list[dict[str, Any]], node: dict[str, Any]) -> None:
    nodes.append({**node, "id": len(nodes), "deps": [len(nodes) - 1] if nodes else []})


def _meetings(stop: Stop) -> list[Meeting]:
    if isinstance(stop, SoloRun):
        return stop.meetings
    return [stop.meeting] if isinstance(stop, CollectiveStop) else []


@reaches(0.4, examples=60, seed=st.integers(0, 10**6))
def test_places_where_ranks_come_in_another_order_do_not_share_an_answer(reached: Reached, seed: int) -> None:
    plan = assert_as_by_events(scattered_case(seed, steps=2))
    if any(len(meeting.components) > 1 for stop in plan.stops for meeting in _meetings(stop)):
        reached()


@reaches(0.15, examples=40, seed=st.integers(0, 10**6), layers=st.integers(5, 8))
def test_like_layers_are_left_out_once_they_move_times_only(reached: Reached, seed: int, layers: int) -> None:
    """And only then: what they do is what each of them does."""
    left_out: list[int] = []
    with pytest.MonkeyPatch.context() as patch:

        def skip(run: _Run, repeat: Repeat, before: State, times: int) -> bool:
            skipped = original(run, repeat, before, times)
            left_out.append(times if skipped else 0)
            return skipped

        original = _Run.skip
        patch.setattr(_Run, "skip", skip)
        case = scattered_case(seed, steps=2, layers=layers)
        try:
            assert_as_by_events(case)
        except SimulationError:  # which some algorithms come to when they meet unlike ranks
            with pytest.raises(SimulationError):
                cases.backend(case).events.run_step(cases.graph(case), 0, solve=False)
    if any(left_out):
        reached()


def assert_as_by_events(case: cases.Description) -> ChainPlan:
    """Compare the evaluation of chains with event queues, step by step, and return the plan."""
    backend, graph = cases.backend(case), cases.graph(case)
    planned = backend.plans.get(graph)
    assert isinstance(planned.plan, ChainPlan)
    together = backend.chains.evaluate(planned.plan, graph, planned.solver)
    columns = {rank: at for at, ranks in enumerate(together.rank_sets) for rank in ranks}
    for step in range(graph.steps):
        alone = backend.events.run_step(graph, step, solve=False)
        for run in alone.rank_runs:
            assert together.finish_ns[step, columns[run.rank]] == run.finished_ns
            assert together.exposed_ns[step, columns[run.rank]] == run.finished_ns - run.gpu_ns
    return planned.plan


def test_who_meets_is_told_in_ascending_order() -> None:
    """Whichever set asks."""
    case = cases.healthy()
    case["network"]["npus_count"] = [9]
    collective = {**cases.COLLECTIVE, "id": 9, "group": 1}
    case["groups"] = {"1": [1, 8]}
    case["ranks"] = [[{**cases.COMPUTE, "num_ops": 5500 + 1000 * rank}] for rank in range(9)]
    for rank in (1, 8):
        case["ranks"][rank].append(dict(collective))
    graph = cases.graph(case)
    for index in (1, 8):
        assert MeetingFinder(graph, (9,)).find(index, 1).sets == (1, 8)


@pytest.mark.parametrize("dims", [3, 4])
def test_a_collective_that_names_no_dimensions_is_over_the_first_four(dims: int) -> None:
    finished = []
    for named in ({}, {"involved_dims": 0b111}, {"involved_dims": 0b1111}):
        case = cases.healthy()
        both(dimensions(*[2] * dims), change("system/collective-optimization", "baseline"), last(**named))(case)
        finished.append(cases.backend(case).events.run_step(cases.graph(case)).queue.now)
    unnamed, *first = finished
    assert [unnamed == one for one in first] == [dims < 4, True]


def test_what_stands_behind_an_algorithm_over_all_ranks_is_not_read() -> None:
    """It is the last dimension that there is."""
    finished = []
    for names in (["oneRing"], ["oneRing", "ring"], ["oneRing", "oneDirect"], ["ring", "ring"]):
        case = cases.healthy()
        dimensions(2, 2)(case)
        case["system"] |= {"all-reduce-implementation": names, "collective-optimization": "baseline"}
        finished.append(cases.backend(case).events.run_step(cases.graph(case)).queue.now)
    assert finished[0] == finished[1] == finished[2] != finished[3]


def test_solutions_are_kept_for_so_many_entries_only() -> None:
    case = cases.healthy()
    backend = cases.backend(case)
    graph = cases.graph(case)
    solver = backend.plans.get(graph).solver
    [phase], *_ = solver.streams(0, CollectiveType.ALL_REDUCE, 4096, ABSENT, 0)
    model = backend.events.models.phases.model(phase)
    assert model is not None
    first = model.solve([0, 0, 0, 0])
    for late in range(1, SOLUTIONS_KEPT + 5):
        assert model.solve([0, 0, 0, late]).arrivals[3] >= late
        assert len(model.solutions) <= SOLUTIONS_KEPT
    assert model.solve([0, 0, 0, 0]) == first
