"""How many times were looked up among measured ones: at sizes that were measured, between them, and outside of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from foundation.records import dataclass

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    IntArray = NDArray[np.int64]


@dataclass(slots=True)
class LookupCounts:
    """Lookups whose sizes were measured, lay between measured ones, and lay below the least or above the largest.

    `roofline`: times that no table has, and the roofline gave.
    """

    measured: int = 0
    interpolated: int = 0
    extrapolated: int = 0
    roofline: int = 0

    @property
    def total(self) -> int:
        """All that were looked up."""
        return self.measured + self.interpolated + self.extrapolated

    def add(self, other: LookupCounts) -> None:
        """Count the lookups of `other`, too."""
        self.measured += other.measured
        self.interpolated += other.interpolated
        self.extrapolated += other.extrapolated
        self.roofline += other.roofline


class Lookups:
    """Counts lookups in the tables called `source`, by what was looked up.

    What a model remembers it does not look up again. `off`: how far the tables say that times between their sizes are
    off, in per cent, by class of operators: the mean and the greatest (`trace_gen.kernels.probing`).
    """

    def __init__(self, source: str, off: Mapping[str, tuple[float, float]] | None = None) -> None:
        self.source = source
        self.off = off or {}
        self._counts: dict[str, LookupCounts] = {}
        self._elsewhere: list[tuple[str, IntArray]] = []

    def count(self, what: str, found: LookupCounts) -> None:
        """Count lookups of `what`."""
        self._counts.setdefault(what, LookupCounts()).add(found)

    def follow(self, what: str, counts: IntArray) -> None:
        """Count lookups of `what` that others count in an array: measured, interpolated and extrapolated, ``[3]``."""
        self._elsewhere.append((what, counts))

    @contextmanager
    def apart(self) -> Iterator[dict[str, LookupCounts]]:
        """Count what the block looks up into what is yielded, and not here."""
        own, self._counts = self._counts, {}
        try:
            yield self._counts
        finally:
            self._counts = own

    def counts(self) -> Mapping[str, LookupCounts]:
        """Return the counts by what was looked up."""
        result = {
            what: LookupCounts(counts.measured, counts.interpolated, counts.extrapolated, counts.roofline)
            for what, counts in self._counts.items()
        }
        for what, counts in self._elsewhere:
            if counts.any():
                result.setdefault(what, LookupCounts()).add(LookupCounts(*counts.tolist()))
        return dict(sorted(result.items()))

    def notes(self) -> tuple[str, ...]:
        """Return a sentence on what was extrapolated, and one on what no table has; none where nothing was."""
        counts, found = self.counts(), []
        outside = {what: count for what, count in counts.items() if count.extrapolated}
        if outside:
            parts = [f"{what} {100 * count.extrapolated / count.total:.3g} %" for what, count in outside.items()]
            found.append(f"outside the measured sizes, so extrapolated, were {', '.join(parts)} of the lookups")
        lacks = {what: count.roofline for what, count in counts.items() if count.roofline}
        if lacks:
            parts = [f"{what} {count}" for what, count in lacks.items()]
            found.append(f"in no table, so the roofline's, were {sum(lacks.values())} times: {', '.join(parts)}")
        return tuple(f"{self.source}: {sentence}" for sentence in found)


@runtime_checkable
class TellsOfLookups(Protocol):
    """A performance model that looks times up in tables.

    `notes`: what a user should know of the tables themselves, one sentence each, from the start.
    """

    lookups: Lookups
    notes: tuple[str, ...]
