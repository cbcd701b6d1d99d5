"""Where a run's own (wall-clock) time goes, by component. It never touches simulated time or results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns


class Stopwatch:
    """Adds up wall-clock nanoseconds a component. Components do not nest."""

    def __init__(self) -> None:
        self.spent_ns: dict[str, int] = {}
        self._born_ns = perf_counter_ns()

    @contextmanager
    def measure(self, component: str) -> Iterator[None]:
        """Charge the time of the block to `component`."""
        begin = perf_counter_ns()
        try:
            yield
        finally:
            self.spent_ns[component] = self.spent_ns.get(component, 0) + perf_counter_ns() - begin

    def milliseconds(self) -> dict[str, float]:
        """Return ms a component, then what no component took (`scheduling and metrics`) and the `total`."""
        total = perf_counter_ns() - self._born_ns
        shares = {component: spent / 1e6 for component, spent in self.spent_ns.items()}
        rest = (total - sum(self.spent_ns.values())) / 1e6
        return {**shares, "scheduling and metrics": rest, "total": total / 1e6}
