"""What every policy must keep of its batches in flight: their order and numbers, and many like steps counted at once.

A policy decides who computes what; the ledger books it. Where all batches in flight are plain decodes that come again
in turn, each is a *lane* of its own cohort::

    flights   A0 B0 C0   ->  (A0 done, A1 decided)  B0 C0 A1  ->  (B0 done, B1 decided)  C0 A1 B1

or all are steps of one cohort, where decisions do not wait for tokens::

    flights   A0 A1      ->  (A0 done, A2 decided)  A1 A2
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from foundation.errors import InternalError
from foundation.records import dataclass
from orchestrator.engine.batch import Batch
from orchestrator.kv_memory.store import NOW, KVStore, Later
from orchestrator.requests.request import Request
from orchestrator.schedulers.cohort import Cohort, Member
from orchestrator.schedulers.interface import Alike

IntArray = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Flight(Generic[Member]):
    """A batch in flight and the requests behind its rows.

    `plain`: every request decodes one token, and nothing else happened. `cohort`: all its members get a token, which it
    counts when they arrive; the rows of `others` count for themselves. `store`: which of the ledger's they are in.
    """

    batch: Batch
    members: Sequence[Member]
    plain: bool = False
    cohort: Cohort[Member] | None = None
    others: Sequence[int] = ()
    store: int = 0


class Ledger(Generic[Member]):
    """The batches in flight of one policy over `kv`; `serial` is the number of the next.

    A policy whose memory is divided has several `stores`, and each batch is of requests in one of them.
    """

    def __init__(self, kv: KVStore, *more: KVStore) -> None:
        self.kv = kv
        self.stores = (kv, *more)
        self.flights: deque[Flight[Member]] = deque()
        self.serial = 0
        self._lanes: list[Cohort[Member]] = []
        self._taken: IntArray = np.zeros(0, dtype=np.int64)

    def launch(self, flight: Flight[Member]) -> Batch:
        """Book a decision."""
        self.flights.append(flight)
        self.serial += 1
        return flight.batch

    def land(self, batch: Batch) -> Flight[Member]:
        """Return the flight of the oldest batch, which has finished."""
        if not self.flights or self.flights[0].batch is not batch:
            raise InternalError(f"batch {batch.serial} finished out of the order in which batches were scheduled")
        return self.flights.popleft()

    def forget(self, request: Request) -> None:
        """Note that `request` is gone: what is in flight of it counts for nothing, and does not come again."""
        for flight in self.flights:
            for member in flight.members:
                if member.request is request:
                    member.gone = True
                    flight.plain = False

    def alike_in_turn(
        self, most: int, steps_left: Callable[[Member], int], *, spare: int = 0, pooled: bool = False
    ) -> Alike | None:
        """Foresee that the batches in flight, of different requests, come again in turn, each while steps are left.

        `spare`: blocks that must be free beside those that a step takes. `pooled`: see `Alike`.
        """
        lanes = []
        for flight in self.flights:
            kv = self.stores[flight.store].cohort(flight.members) if flight.plain else None
            if kv is None:
                return None
            lanes.append(Cohort(flight.members, kv))
        rounds = [min(map(steps_left, lane.members)) for lane in lanes]
        most = min([most, *(len(lanes) * left + place for place, left in enumerate(rounds))])
        return self.alike(lanes, most, spare=spare, pooled=pooled)

    def alike(self, lanes: list[Cohort[Member]], most: int, *, spare: int = 0, pooled: bool = False) -> Alike | None:
        """Foresee up to `most` decisions of `lanes`: as many as find KV blocks, never counting on a step's own."""
        if most < 1 or not lanes:
            return None
        taken, given = self._flow(lanes, most)
        enough = self._finds_blocks(taken, given, len(lanes), spare)
        times = most if enough.all() else int(np.argmin(enough))
        self._lanes, self._taken = lanes, taken.cumsum()
        free = sum(store.free for store in self.stores) - np.concatenate(([0], (taken - given).cumsum()))
        return Alike(times, len(lanes), free, pooled) if times else None

    def repeat(self, times: int) -> list[Batch]:
        """Book `times` of the decisions foreseen, and as many arrivals; return the batches in flight, oldest first."""
        lanes, flights = self._lanes, list(self.flights)
        period = len(lanes)
        for time in range(times):
            lanes[time % period].arrived += 1
            if not lanes[(len(flights) + time) % period].step():
                raise InternalError("a decision that was foreseen lacks KV blocks")
        self.serial += times
        first = self.serial - len(flights)
        self.flights.clear()
        for place in range(len(flights)):
            lane = lanes[(times + place) % period]
            before = flights[(times + place) % period]
            back = (len(flights) - 1 - place) // period + 1
            if lane.decided or before.cohort is not None:
                batch = lane.batch(first + place, back)
                batch.padding = before.batch.padding
                before = Flight(batch, lane.members, plain=True, cohort=before.cohort, store=before.store)
            self.flights.append(before)
        for lane, flight in zip(lanes, flights, strict=False):
            if flight.cohort is None:
                lane.settle()
        self._lanes = []
        return [flight.batch for flight in self.flights]

    def foreseen(self, ahead: int) -> Iterator[tuple[Cohort[Member], int]]:
        """Yield whose turn the first `ahead` of the decisions foreseen last are, and how many were its own before."""
        period = len(self._lanes)
        for decision in range(ahead):
            yield self._lanes[(len(self.flights) + decision) % period], decision // period

    def later(self, ahead: int) -> Later:
        """Return what the first `ahead` of the decisions foreseen last do to what is found in the KV memory."""
        if not ahead:
            return NOW
        lanes, flights = self._lanes, len(self.flights)
        period, coming = len(lanes), set[object]()
        for turn, lane in enumerate(lanes):
            decided = range((turn - flights) % period, ahead, period)
            if decided:  # by its last decision so many more of its tokens have arrived
                coming.update(lane.kv.coming(lane.arrived + len(range(turn, decided[-1] + 1, period))))
        return Later(int(self._taken[ahead - 1]), coming)

    def _flow(self, lanes: Sequence[Cohort[Member]], most: int) -> tuple[IntArray, IntArray]:
        """Return the blocks that each of the first so many decisions takes, and gives back, ``[most]`` each."""
        period, first = len(lanes), len(self.flights)
        rounds = -(-most // period)
        flows = [lanes[(first + place) % period].kv.flow(rounds) for place in range(period)]
        taken, given = (np.array([flow[side] for flow in flows]).T.ravel()[:most] for side in (0, 1))
        return taken, given

    def _finds_blocks(self, taken: IntArray, given: IntArray, period: int, spare: int) -> NDArray[np.bool_]:
        """Return which of the decisions, all before it made, find their blocks in their store, ``[most]``."""
        turns = (len(self.flights) + np.arange(len(taken))) % period
        of_turn = np.array([flight.store for flight in self.flights])[:period]
        found = np.ones(len(taken), dtype=bool)
        for number in set(of_turn.tolist()):
            mine = of_turn[turns] == number
            took, gave = (taken * mine).cumsum(), (given * mine).cumsum()
            found &= took + spare * mine - np.concatenate(([0], gave[:-1])) <= self.stores[number].free
        return found
