"""Laws that hold whatever the figures are."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import analytical_cases as cases
import pytest
from helpers.reached import Reached, reaches
from hypothesis import strategies as st
from random_cases import chained, plain, sound_case

from analytical.embedded import EmbeddedBackend
from analytical.machine.network import DelayModel
from astra_files.network import NetworkConfig
from converters.execution_graph import ExecutionGraph
from foundation.errors import OrreryError

SEEDS = st.integers(0, 10**6)
SHUFFLERS = st.builds(random.Random, st.integers(0, 10**6))


def answers(case: cases.Description) -> dict[int, tuple[int, int]] | None:
    try:
        return cases.backend(case).simulate(cases.graph(case)).by_rank()
    except OrreryError:
        return None


def symmetric_case(seed: int) -> cases.Description:
    """One dimension, collectives over all ranks, every rank its own compute times."""
    source = random.Random(seed)
    npus = source.choice([2, 4, 8])
    algorithm = source.choice(["ring", "direct", "halvingDoubling", "direct2"])
    kinds = [source.choice(["ALL_REDUCE", "ALL_GATHER", "REDUCE_SCATTER"]) for _ in range(3)]
    ranks = []
    for _ in range(npus):
        nodes: list[dict[str, object]] = []
        for kind in kinds:
            ops = 1000 * source.randint(1, 20_000) + 500
            for node in (
                {"type": "COMP", "num_ops": ops, "tensor_size": 1},
                {"type": "COMM_COLL", "comm_type": kind, "comm_size": 50_000},
            ):
                nodes.append({"id": len(nodes), "deps": [len(nodes) - 1] if nodes else [], **node})
        ranks.append(nodes)
    names = ("all-reduce", "all-gather", "reduce-scatter")
    return {
        "network": {
            "topology": [source.choice(["Ring", "FullyConnected", "Switch"])],
            "npus_count": [npus],
            "bandwidth": [50],
            "latency": [500.5],
        },
        "system": {
            "scheduling-policy": "LIFO",
            "preferred-dataset-splits": source.choice([1, 2, 3]),
            "active-chunks-per-dimension": source.choice([1, 2]),
            "local-mem-bw": 1600,
            "peak-perf": 1,
            "roofline-enabled": 1,
            **{f"{name}-implementation": [algorithm] for name in names},
        },
        "memory": {"memory-type": "NO_MEMORY_EXPANSION"},
        "options": {},
        "ranks": ranks,
    }


def agreement(reached: Reached, case: cases.Description, changed: cases.Description) -> None:
    """Both complete with the same figures, which counts, or both are refused."""
    expected = answers(case)
    if expected is not None:
        reached()
    assert answers(changed) == expected


def renumbered(case: cases.Description, numbers: Callable[[list[int]], dict[int, int]]) -> cases.Description:
    """`case` with every rank's node ids replaced by `numbers` of them."""
    changed = copy.deepcopy(case)
    for nodes in changed["ranks"]:
        fresh = numbers([node["id"] for node in nodes])
        for node in nodes:
            node["id"] = fresh[node["id"]]
            node["deps"] = [fresh[parent] for parent in node["deps"]]
    return changed


@reaches(0.9, examples=40, seed=SEEDS, shuffler=SHUFFLERS)
def test_file_order_does_not_matter(reached: Reached, seed: int, shuffler: random.Random) -> None:
    case = sound_case(seed)
    shuffled = copy.deepcopy(case)
    for nodes in shuffled["ranks"]:
        shuffler.shuffle(nodes)
    agreement(reached, case, shuffled)


@reaches(0.9, examples=40, seed=SEEDS, shuffler=SHUFFLERS)
def test_ids_matter_by_their_order_only(reached: Reached, seed: int, shuffler: random.Random) -> None:
    def numbers(ids: list[int]) -> dict[int, int]:
        return dict(zip(sorted(ids), sorted(shuffler.sample(range(10**6), len(ids))), strict=True))

    case = sound_case(seed)
    agreement(reached, case, renumbered(case, numbers))


@reaches(0.9, examples=40, seed=SEEDS, shuffler=SHUFFLERS)
def test_ids_of_a_chain_do_not_matter(reached: Reached, seed: int, shuffler: random.Random) -> None:
    def numbers(ids: list[int]) -> dict[int, int]:
        return dict(zip(ids, shuffler.sample(range(10**6), len(ids)), strict=True))

    case = chained(plain(sound_case(seed)))
    agreement(reached, case, renumbered(case, numbers))


@reaches(0.9, examples=40, seed=SEEDS)
def test_doubling_the_bandwidth_never_slows_a_chain(reached: Reached, seed: int) -> None:
    case = chained(plain(sound_case(seed)))
    slow = answers(case)
    case["network"]["bandwidth"] = [2 * value for value in case["network"]["bandwidth"]]
    fast = answers(case)
    if slow is not None and fast is not None:
        reached()
        assert all(fast[rank][0] <= slow[rank][0] for rank in slow)


@reaches(1.0, examples=60, seed=SEEDS)
def test_a_dependency_on_another_rank_never_speeds_up_a_chain(reached: Reached, seed: int) -> None:
    """Every rank's second half waits for a message of the rank before."""
    case = symmetric_case(seed)
    free = answers(case)
    npus = len(case["ranks"])
    for rank, nodes in enumerate(case["ranks"]):
        message = {"comm_tag": 1, "comm_size": 1000}
        send = {"id": 90, "type": "COMM_SEND", "comm_dst": (rank + 1) % npus, "deps": [1], **message}
        wait = {"id": 91, "type": "COMM_RECV", "comm_src": (rank - 1) % npus, "deps": [90], **message}
        nodes[2]["deps"] = [91]
        nodes[2:2] = [send, wait]
    bound = answers(case)
    assert free is not None and bound is not None
    reached()
    assert all(bound[rank][0] >= free[rank][0] for rank in free)


@reaches(1.0, examples=60, seed=SEEDS, shift=st.integers(1, 7))
def test_rotating_the_ranks_rotates_the_answer(reached: Reached, seed: int, shift: int) -> None:
    case = symmetric_case(seed)
    npus = len(case["ranks"])
    if "halvingDoubling" in case["system"]["all-reduce-implementation"]:
        shift = 0  # pairs of ranks are no symmetry of a rotation
    rotated = copy.deepcopy(case)
    rotated["ranks"] = [case["ranks"][(rank + shift) % npus] for rank in range(npus)]
    straight, turned = answers(case), answers(rotated)
    assert straight is not None and turned is not None
    reached()
    assert turned == {rank: straight[(rank + shift) % npus] for rank in range(npus)}


@pytest.mark.parametrize("npus", [2, 4, 7, 8])
@pytest.mark.parametrize("topology", ["Ring", "FullyConnected", "Switch"])
def test_closed_forms_of_rings(npus: int, topology: str) -> None:
    """Ranks in step, one chunk: the sums of endpoint delays, messages and reductions."""
    size, endpoint = 840_000, 10
    reductions = 3 * int(size / npus / 1600e9 * 1e9)
    network = NetworkConfig((topology,), (npus,), (50.0,), (500.0,))
    delay = DelayModel(network).delay(0, 1, size // npus)
    whole = DelayModel(network).delay(0, 1, size)
    expected = {
        "REDUCE_SCATTER": (npus - 1) * (endpoint + delay + reductions) + endpoint,
        "ALL_GATHER": npus * endpoint + (npus - 1) * whole,
        "ALL_REDUCE": (2 * npus - 1) * endpoint + 2 * (npus - 1) * delay + (npus - 1) * reductions,
        "ALL_TO_ALL": (npus * (npus - 1) // 2 + 1) * endpoint + npus * (npus - 1) // 2 * delay,
    }
    for kind, time in expected.items():
        case = symmetric_case(0)
        case["network"] = {"topology": [topology], "npus_count": [npus], "bandwidth": [50], "latency": [500]}
        case["system"]["preferred-dataset-splits"] = 1
        case["system"] |= {f"{name}-implementation": ["ring"] for name in ("all-reduce", "all-gather")}
        case["system"] |= {f"{name}-implementation": ["ring"] for name in ("reduce-scatter", "all-to-all")}
        node = {"id": 0, "type": "COMM_COLL", "comm_type": kind, "comm_size": size, "deps": []}
        case["ranks"] = [[node] for _ in range(npus)]
        assert answers(case) == dict.fromkeys(range(npus), (time, time))


def test_the_reference_example() -> None:
    """1 MiB reduce-scatter over a Ring of 4 at 50 GB/s and 500 ns in 4 chunks: 4 * 5560 ns."""
    case = symmetric_case(0)
    case["network"] = {"topology": ["Ring"], "npus_count": [4], "bandwidth": [50], "latency": [500]}
    case["system"] |= {"preferred-dataset-splits": 4, "active-chunks-per-dimension": 1}
    case["system"]["reduce-scatter-implementation"] = ["ring"]
    node = {"id": 0, "type": "COMM_COLL", "comm_type": "REDUCE_SCATTER", "comm_size": 1 << 20, "deps": []}
    case["ranks"] = [[node] for _ in range(4)]
    assert answers(case) == dict.fromkeys(range(4), (22240, 22240))


def test_one_npu_has_no_network() -> None:
    """A system of one NPU, which ASTRA-sim refuses, runs what needs no other."""
    case = symmetric_case(0)
    case["network"] = {"topology": ["Ring"], "npus_count": [1], "bandwidth": [50], "latency": [500]}
    case["ranks"] = [[{"id": 0, "type": "COMP", "num_ops": 7500, "tensor_size": 1, "deps": []}]]
    assert answers(case) == {0: (7, 0)}


def test_equal_ranks_share_one_program() -> None:
    """2,048 ranks of one graph are compiled once."""
    nodes = [
        {"id": at, "type": "COMP", "num_ops": 1500, "tensor_size": 1, "deps": [at - 1] * (at > 0)} for at in range(50)
    ]
    case = symmetric_case(0)
    case["network"] = {"topology": ["Switch"], "npus_count": [2048], "bandwidth": [50], "latency": [500]}
    backend: EmbeddedBackend = cases.backend(case)
    graph = ExecutionGraph([cases.rank_graph(tuple(range(2048)), nodes)])
    simulation = backend.events.run_step(graph)
    assert {id(run.program) for run in simulation.rank_runs} == {id(simulation.rank_runs[0].program)}
    assert backend.simulate(graph).rank_sets == (tuple(range(2048)),)
    assert {run.finished_ns for run in simulation.rank_runs} == {50}
