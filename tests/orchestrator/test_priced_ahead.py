"""How often a batch that goes on, decision after decision, is priced."""

from __future__ import annotations

import pytest

from orchestrator.engine.batch import Batch
from orchestrator.engine.priced_ahead import PricedAhead
from orchestrator.requests.request import Request
from tests.orchestrator.serving import FormulaPricing


@pytest.mark.parametrize("begin", [10, 5000])
def test_a_batch_that_goes_on_is_priced_for_longer_and_longer(begin: int) -> None:
    pricing, alone = FormulaPricing(2), FormulaPricing(2)
    prices = PricedAhead(pricing, keep=4)
    request = Request(0, 0, begin, 1000)
    for step in range(400):
        batch = Batch.of(step, [request], [1], [begin + step], [1])
        (found,), (finish,) = prices.price([batch], 1, lambda: (1, 10**6)), alone.price([batch]).finish_ns
        assert found.stage_ns[0].cumsum().tolist() == finish[0].tolist()
    assert len(alone.priced) == 400
    assert len(pricing.priced) < 10, "each time for twice as many steps as have come"


def test_as_many_steps_are_priced_as_batches_have_lately_come_twice() -> None:
    """What had come of the one that is forgotten counts a quarter, what came of those before it the rest."""
    pricing = FormulaPricing(2)
    prices = PricedAhead(pricing, keep=1)
    priced = []
    for turn, lasts in enumerate([41, 1, 1, 1, 1]):
        request, before = Request(turn, 0, 10, 1000), len(pricing.priced)
        for step in range(lasts):
            prices.price([Batch.of(step, [request], [1], [10 + step], [1])], 1, lambda: (1, 10**6))
        priced.append(pricing.priced[before:])
    assert priced == [[(0, 2), (2, 4), (6, 12), (18, 36)], [(0, 2)], [(0, 2 * 11)], [(0, 2 * 8)], [(0, 2 * 6)]]
