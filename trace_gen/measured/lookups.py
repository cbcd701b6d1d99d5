"""How many times were looked up among measured ones, and how many of those lay beyond them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


class Lookups:
    """Counts lookups by what was looked up: those within the measured sizes, and those beyond the largest."""

    def __init__(self) -> None:
        self.within: Counter[str] = Counter()
        self.beyond: Counter[str] = Counter()

    def count(self, what: str, times: int, beyond: int) -> None:
        """Count `times` lookups of `what`, `beyond` of them beyond the measured sizes."""
        self.within[what] += times - beyond
        if beyond:
            self.beyond[what] += beyond

    def notes(self, source: str) -> Sequence[str]:
        """Return one sentence on what was extrapolated, none where nothing was."""
        if not self.beyond:
            return ()
        parts = [f"{what} {100 * n / (n + self.within[what]):.2g} %" for what, n in sorted(self.beyond.items())]
        return (f"{source}: beyond the measured sizes, so extrapolated, were {', '.join(parts)} of the lookups",)
