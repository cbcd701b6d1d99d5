"""Experts that the ranks do not divide: as in vLLM, some ranks hold one more, and the fullest decides."""

from __future__ import annotations

import pytest
from trace_cases import MIXTRAL, QWEN, batch, experts_of, make_generator, model, rows_named, with_layers

from foundation.errors import UserError
from trace_gen.mlp.routing import ExpertRouting
from trace_test.rule import ModelFacts, run_rules
from trace_test.subjects import of_trace


@pytest.mark.parametrize(("ranks", "held"), [(1, 128), (3, 43), (5, 26), (64, 2), (127, 2), (128, 1)])
def test_what_the_fullest_rank_holds_and_works_on(ranks: int, held: int) -> None:
    experts = experts_of(model(QWEN))
    routing = ExpertRouting(experts, ranks)
    assert experts.held(ranks) == held
    assert routing.copies(1000) == -(-1000 * 8 * held // 128)
    assert routing.activated_share(1) == pytest.approx(max(1 / 16, 1 / held))


def test_rows_by_hand() -> None:
    """8 experts on 3 ranks: 3 at the most, which 3/8 of 60 copies meet; a rank sends a third of them."""
    architecture = with_layers(model(MIXTRAL), *model(MIXTRAL).layers[:2])
    generator = make_generator(architecture, 3, expert=3)
    shape = batch([30])
    trace = generator.generate([shape])
    up, dispatch = rows_named(trace, "expert_gate_up_proj")[0], rows_named(trace, "expert_dispatch")[0]
    assert trace.input_bytes[up] == 23 * 8192 and trace.weight_bytes[up] == 3 * 4096 * 2 * 14336 * 2
    assert trace.comm_bytes[dispatch] == 20 * 8192
    facts = ModelFacts(architecture, generator.mesh, generator.precision, (shape,))
    assert not run_rules(of_trace("uneven", trace, facts)).violations


def test_ranks_without_experts_are_refused() -> None:
    make_generator(model(MIXTRAL), 8, expert=8)
    message = "^--ep_size: .*has 8 experts for 9 ranks, so that some would have none; spread them over at most 8 NPUs"
    with pytest.raises(UserError, match=message):
        make_generator(model(MIXTRAL), 9, expert=9)
