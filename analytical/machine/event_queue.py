"""The global event queue and the per-NPU lists of events, in ASTRA-sim's order.

Events at one time run in the order in which they were scheduled, those scheduled for the present time at its end.
What an NPU schedules for itself goes through a list of its own (`LocalEvents`): the first event for a time puts that
list into the global queue, and the whole list runs when its turn comes. Both orders decide which node is issued first.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from analytical.machine.limits import LONGEST_RUN_NS
from foundation.errors import SimulationError

Action = Callable[[Any], object]


class EventQueue:
    """Events by time (integer ns), first in first out within a time."""

    __slots__ = ("_buckets", "_times", "now")

    def __init__(self) -> None:
        self.now = 0
        self._buckets: dict[int, list[tuple[Action, Any]]] = {}
        self._times: list[int] = []

    def schedule(self, time: int, action: Action, argument: Any) -> None:
        """Call ``action(argument)`` at `time` (not before `now`)."""
        bucket = self._buckets.get(time)
        if bucket is None:
            self._buckets[time] = [(action, argument)]
            heappush(self._times, time)
        else:
            bucket.append((action, argument))

    @property
    def next_time(self) -> int | None:
        """Time of the earliest event, or None when nothing is left."""
        return self._times[0] if self._times else None

    def run(self) -> None:
        """Run every event, those that come to be on the way included.

        Raises `SimulationError` for a run that takes longer than times are counted.
        """
        times, buckets = self._times, self._buckets
        while times:
            time = times[0]
            if time > LONGEST_RUN_NS:
                raise SimulationError("the run takes longer than 146 years; correct the durations or bandwidths")
            self.now = time
            for action, argument in buckets[time]:  # grows while it runs
                action(argument)
            del buckets[time]
            heappop(times)


class LocalEvents:
    """The events that one NPU schedules for itself."""

    __slots__ = ("_ticks", "queue")

    def __init__(self, queue: EventQueue) -> None:
        self.queue = queue
        self._ticks: dict[int, list[tuple[Action, Any]]] = {}

    def after(self, delay: int, action: Action, argument: Any) -> None:
        """Call ``action(argument)`` `delay` ns from now."""
        self._add(self.queue.now + delay, action, argument)

    def _add(self, time: int, action: Action, argument: Any) -> None:
        tick = self._ticks.get(time)
        if tick is None:
            self._ticks[time] = [(action, argument)]
            self.queue.schedule(time, self._drain, time)
        else:
            tick.append((action, argument))

    def _drain(self, time: int) -> None:
        for action, argument in self._ticks[time]:  # grows while it runs
            action(argument)
        del self._ticks[time]
