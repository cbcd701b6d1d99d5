"""Redundant experts: who has a second copy, where copies stand, what ranks then hold, and that the slowest gains."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_cases import PLAIN, routing, slowest
from trace_cases import MIXTRAL, QWEN, batch, make_generator, model

from foundation.errors import UserError
from trace_gen.generator import TraceGenerator
from trace_gen.memory import ModelMemory
from trace_gen.mesh import Mesh
from trace_gen.mlp.placement import place_experts
from trace_gen.mlp.routing import BalancedRouting, ExpertSpread

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)


def test_placement_by_hand() -> None:
    """Loads 8, 4, 2, 2 on 2 ranks with 2 copies more.

    Expert 0 has a second copy (4 each), then 1 (2 each), for 0 has one a rank. 0 to rank 0, its copy to rank 1; 1 to
    rank 0, 2 to rank 1, 3 to rank 0, which is full; the copy of 1 to rank 1.
    """
    placed = place_experts(np.array([[8.0, 4.0, 2.0, 2.0]]), 2, 2)
    assert placed.expert.tolist() == [[0, 1, 3, 2, 0, 1]]
    assert placed.number.tolist() == [[0, 0, 0, 0, 1, 1]]
    assert placed.copies.tolist() == [[2, 2, 1, 1, 2, 2]]
    assert placed.shared(np.array([[9, 4, 3, 0]])).tolist() == [[5, 2, 0, 3, 4, 2]]


def test_the_busiest_go_first_and_to_the_idlest_rank() -> None:
    """Loads 6, 1, 1, 1, 3 on 2 ranks, with a second copy of expert 0 (3 each).

    0 to rank 0; 4 to rank 1, which is idle; the copy of 0 to rank 1, for rank 0 has one; 1 and 2 to rank 0 (3 and 4
    against 6), which is full; 3 to rank 1.
    """
    placed = place_experts(np.array([[6.0, 1.0, 1.0, 1.0, 3.0]]), 2, 1)
    assert placed.expert.tolist() == [[0, 1, 2, 3, 4, 0]]


@SETTINGS
@given(
    popularity=st.lists(st.floats(0, 1e6), min_size=2, max_size=24),
    ranks=st.integers(2, 6),
    more=st.integers(0, 3),
    layers=st.integers(1, 3),
)
def test_every_expert_is_there_and_ranks_are_full(popularity: list[float], ranks: int, more: int, layers: int) -> None:
    count = len(popularity)
    redundant = min(-count % ranks + ranks * more, count * (ranks - 1) - (count * (ranks - 1) + count) % ranks)
    loads = np.array([np.roll(popularity, layer) for layer in range(layers)])
    placed = place_experts(loads, ranks, redundant)
    assert placed.expert.shape == (layers, count + redundant)
    tokens = np.arange(layers * count).reshape(layers, count)
    shared = placed.shared(tokens)
    for layer in range(layers):
        held = placed.expert[layer]
        assert set(held.tolist()) == set(range(count))
        for expert in range(count):
            own = np.flatnonzero(held == expert)
            assert sorted(placed.number[layer, own].tolist()) == list(range(len(own)))
            assert (placed.copies[layer, own] == len(own)).all() and len(own) <= ranks
            parts = shared[layer, own]
            assert parts.sum() == tokens[layer, expert] and parts.max() - parts.min() <= 1


def test_second_copies_lower_the_most_that_any_rank_has() -> None:
    tokens, ranks = 512, 4
    most = [slowest("zipf", PLAIN, ranks, tokens, redundant) for redundant in (0, 4, 8, 16)]
    mean = tokens * PLAIN.per_token // ranks
    assert most[0] > 1.2 * mean
    assert mean <= min(most[1:]) <= max(most[1:]) < 1.1 * mean


@pytest.mark.parametrize(("redundant", "held"), [(0, 32), (4, 33), (64, 48)])
def test_weights_of_a_rank_grow_by_the_experts_it_holds_more(redundant: int, held: int) -> None:
    shape, one = model(QWEN), 3 * 2048 * 768 * 2
    plain, more = (ModelMemory(shape, Mesh(4, 1, 4, redundant_experts=count)) for count in (0, redundant))
    assert more.weight_bytes(0) - plain.weight_bytes(0) == 48 * (held - 32) * one
    generator = make_generator(shape, 4, expert=4)
    mesh = Mesh(4, 1, 4, redundant_experts=redundant)
    for name in ("balanced", "random"):
        trace = TraceGenerator(shape, mesh, generator.perf_model, routing=routing(name)).generate([batch([9])])
        rows = [row for row in range(trace.rows) if trace.name(row) in ("expert_gate_up_proj", "expert_down_proj")]
        assert {int(trace.weight_bytes[row]) for row in rows} == {held * one // 3, held * one * 2 // 3}
        assert trace.attributes.get("redundant_experts") == (str(redundant) if redundant else None)


def test_balanced_tokens_choose_from_experts_and_copies_alike() -> None:
    spread = ExpertSpread(PLAIN, 4, 4, 4)
    loads = BalancedRouting().loads(spread, [0], 0, range(3))
    assert loads.copies.tolist() == [[3]]
    assert loads.active[0, 0] == pytest.approx(1 - (1 - 4 / 20) ** 3)


@pytest.mark.parametrize(
    ("name", "mesh", "message"),
    [
        (
            MIXTRAL,
            (4, 1, 1, 4),
            "--redundant_experts: 4 redundant experts, but no rank holds whole experts; leave them",
        ),
        (MIXTRAL, (4, 1, 4, 3), "has 8 experts, which with 3 redundant ones 4 ranks do not divide; give 4$"),
        (MIXTRAL, (4, 1, 4, 9), "--redundant_experts: .* which with 9 redundant ones .* do not divide; give 8 or 12$"),
        (
            MIXTRAL,
            (2, 1, 2, 10),
            "--redundant_experts: 10 redundant experts, but 8 with a copy on each of 2 ranks take 8",
        ),
        (MIXTRAL, (3, 1, 3, 2), "has 8 experts, which with 2 redundant ones 3 ranks do not divide; give 1 or 4$"),
    ],
)
def test_redundant_experts_that_do_not_fit(name: str, mesh: tuple[int, int, int, int], message: str) -> None:
    tensor, pipeline, expert, redundant = mesh
    with pytest.raises(UserError, match=message):
        TraceGenerator(
            model(name),
            Mesh(tensor, pipeline, expert, redundant_experts=redundant),
            make_generator(model(name)).perf_model,
        )


@pytest.mark.parametrize(("ranks", "redundant"), [(3, 1), (2, 8), (6, 40)])
def test_redundant_experts_that_just_fit(ranks: int, redundant: int) -> None:
    """8 experts on 3 ranks with one more; and one copy of each expert on every rank."""
    mesh = Mesh(ranks, 1, ranks, redundant_experts=redundant)
    generator = TraceGenerator(model(MIXTRAL), mesh, make_generator(model(MIXTRAL)).perf_model, routing=routing("zipf"))
    trace = generator.generate([batch([12])])
    assert trace.attributes["redundant_experts"] == str(redundant)
