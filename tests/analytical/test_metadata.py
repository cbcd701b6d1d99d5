"""METADATA nodes are refused, or left out when asked: then they change nothing."""

import random
import re

import pytest
from analytical_cases import Description, backend, graph
from helpers.reached import Reached, reaches
from hypothesis import strategies as st
from random_cases import CaseMaker

from foundation.errors import SimulationError, UserError


def with_metadata(case: Description, seed: int) -> Description:
    """Put METADATA nodes, single and in rows of two, on about half of the dependencies, and one beside them."""
    chance = random.Random(seed)
    ranks = []
    for nodes in case["ranks"]:
        fresh = 1 + max(node["id"] for node in nodes)
        more = [{"id": fresh, "type": "METADATA", "name": "process_group:init", "deps": []}]
        moved = []
        for node in nodes:
            parents = []
            for parent in node.get("deps", []):
                for _ in range(chance.choice([0, 0, 1, 2])):
                    fresh = more[-1]["id"] + 1
                    more.append({"id": fresh, "type": "METADATA", "deps": [parent]})
                    parent = fresh
                parents.append(parent)
            moved.append({**node, "deps": parents})
        mixed = moved + more
        chance.shuffle(mixed)
        ranks.append(mixed)
    return {**case, "ranks": ranks}


@reaches(0.95, examples=30, seed=st.integers(0, 10**6))
def test_left_out_they_change_nothing(reached: Reached, seed: int) -> None:
    case = CaseMaker(seed, dims=2, sound=True).case()
    try:
        expected = backend(case).simulate(graph(case)).by_rank()
    except SimulationError:
        return
    reached()
    described = with_metadata(case, seed)
    assert backend(described, metadata="skip").simulate(graph(described)).by_rank() == expected
    with pytest.raises(SimulationError, match=re.escape("--metadata=skip")):
        backend(described).simulate(graph(described))


def test_a_cycle_of_metadata_is_named() -> None:
    case = CaseMaker(1).case()
    last = max(node["id"] for node in case["ranks"][0])
    loop = [
        {"id": last + 1, "type": "METADATA", "deps": [last + 2]},
        {"id": last + 2, "type": "METADATA", "deps": [last + 1]},
    ]
    case["ranks"][0] = [*case["ranks"][0], *loop, {**case["ranks"][0][-1], "id": last + 3, "deps": [last + 1]}]
    with pytest.raises(UserError, match=rf"rank 0, node {last + 1}: METADATA nodes wait for each other"):
        backend(case, metadata="skip").simulate(graph(case))
