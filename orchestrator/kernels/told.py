"""What a user sees while tables are filled, and of how far they are off afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from foundation.printable import printable
from orchestrator.kernels.filling import fill
from orchestrator.kernels.planning import TablePlan
from trace_gen.kernels.layout import Meta

_EVERY_S = 1.0


def fill_tables(plans: Sequence[TablePlan], folder: Path, processes: int | None) -> dict[str, Path]:
    """Fill the tables of `plans` in `folder`, of several models in a folder each, and say how it goes.

    The folder of each table is returned by its model. `processes`: None for one a processor that we may use.
    """
    count = processes or _processors()
    tables = {}
    for plan in plans:
        own = folder if len(plans) == 1 else folder / plan.model.rpartition("/")[2]
        _print_filled(own, fill(plan, own, count, _Progress(plan.model)))
        tables[plan.model] = own
    return tables


def _processors() -> int:
    """Return how many processors we may use; where the system does not say, how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _print_filled(folder: Path, meta: Meta) -> None:
    print(printable(f"{folder}: kernels of {meta.model} on {meta.hardware}, from {meta.filled_from}"))
    for name, error in meta.errors.items():
        off = f"{error.mean:.2f} % in the mean, {error.most:.2f} % at most"
        print(f"  {name}: between its sizes off by {off} ({error.probes} probes)")


class _Progress:
    """Prints a line now and then: how many jobs are done."""

    def __init__(self, what: str) -> None:
        self._what, self._said = what, monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = monotonic()
        if now - self._said >= _EVERY_S:
            self._said = now
            text = f"{self._what}: {done} of {total} jobs priced ({100 * done / total:.0f} %)"
            print(printable(text), file=sys.stderr, flush=True)
