"""What waiting needs of time; tests put a clock of their own in its place."""

from __future__ import annotations

import time
from typing import Protocol


class Timer(Protocol):
    """Seconds that only go forward, and waiting for some of them."""

    def monotonic(self) -> float:
        """Return the seconds since some moment."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


SYSTEM: Timer = time
