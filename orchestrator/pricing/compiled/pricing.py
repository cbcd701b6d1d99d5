"""Pricing by tables where they cover an iteration, and by tracing it where they do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from orchestrator.engine.batch import Batch
from orchestrator.pricing.compiled.covering import covers
from orchestrator.pricing.compiled.tables import PriceTables
from orchestrator.pricing.interface import Cost
from orchestrator.pricing.traced import TracedPricing


class CompiledPricing:
    """What `traced` says, by the tables that `make_tables` makes of it when the first batch comes.

    `by_tables`, `by_traces`: iterations that were priced either way.
    """

    def __init__(self, traced: TracedPricing, make_tables: Callable[[], PriceTables]) -> None:
        self.stages = traced.stages
        self.max_steps = traced.max_steps
        self.classes = traced.classes
        self.by_tables = self.by_traces = 0
        self.traced = traced
        self._make_tables = make_tables

    @cached_property
    def tables(self) -> PriceTables:
        """The tables; made when they are first asked for."""
        return self._make_tables()

    def price(self, wave: Sequence[Batch]) -> Cost:
        """See `orchestrator.pricing.interface.Pricing.price`."""
        cost = self.tables.cost(wave[0]) if covers(wave) else None
        if cost is not None:
            self.by_tables += wave[0].steps
            return cost
        self.by_traces += wave[0].steps
        return self.traced.price(wave)


def counted(pricings: Sequence[CompiledPricing]) -> dict[str, int]:
    """Return how many iterations were priced either way; nothing where all were by tables."""
    traced = sum(one.by_traces for one in pricings)
    by_tables = sum(one.by_tables for one in pricings)
    return {"iterations_by_tables": by_tables, "iterations_traced": traced} if traced else {}
