"""Lookups in measured tables, counted as the traced way counts them though they are made at other times.

A performance model counts what it looks up, and does not look up again what it remembers: the sizes of the
`CACHE_ENTRIES` batches that were used last. Tables look an entry up once, ahead of any batch, and remember it for good.
So what an entry's lookups were is kept with it, and counted when a batch comes that the model would have forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from foundation.recent import Recent
from trace_gen.generator import CACHE_ENTRIES
from trace_gen.measured.lookups import LookupCounts, TellsOfLookups
from trace_gen.perf_model import PerfModel
from trace_gen.sized_columns import Count

Entry = tuple[Count, int]


class RememberedLookups:
    """The lookups behind the entries of `tables` for `model`; nothing where it has none to tell of."""

    def __init__(self, model: PerfModel, tables: Iterable[Count]) -> None:
        self._lookups = model.lookups if isinstance(model, TellsOfLookups) else None
        self._tables = tables
        self._of: dict[Entry, dict[str, LookupCounts]] = {}
        self._recent: Recent[bool] = Recent(CACHE_ENTRIES)

    @contextmanager
    def apart(self, entry: Entry | None = None) -> Iterator[None]:
        """Keep the lookups of the block for when `entry` is used; without one they do not count."""
        if self._lookups is None:
            yield
            return
        with self._lookups.apart() as found:
            yield
        if entry is not None:
            self._of[entry] = found

    @property
    def counts(self) -> bool:
        """Whether the model tells of lookups."""
        return self._lookups is not None

    def use(self, counts: tuple[int, ...]) -> None:
        """Count the lookups of a batch of these `counts` (those of `tables`), unless the model would remember it."""
        if self._lookups is not None:
            self._recent.get(counts, lambda: self._count(counts))

    def _count(self, counts: tuple[int, ...]) -> bool:
        assert self._lookups is not None
        for entry in zip(self._tables, counts, strict=True):
            for name, found in self._of.get(entry, {}).items():
                self._lookups.count(name, found)
        return True
