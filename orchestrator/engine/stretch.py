"""Like iterations worked out ahead: when each further decision would be made, and when its batch would end.

Positions count the batches in flight and then the further decisions. Batch k ends, and decision q + k is made, where q
are in flight; it is like position q + k - p, p being the period. Whatever intervenes at time t leaves those decisions
standing that were made before t::

    position      0    1  |  2    3    4    5 ...        q = p = 2: two batches that take turns
    batch         A0   B0 |  A1   B1   A2   B2
    decided when  .    .     A0 ends, B0 ends, A1 ends ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.engine.priced_ahead import Steps
from orchestrator.engine.records import UsageLine
from orchestrator.engine.stages import StageClock
from orchestrator.schedulers.interface import Alike, KVUsage

IntArray = NDArray[np.int64]


@dataclass(slots=True)
class Stretch:
    """See the module's docstring. `ends` are those of all positions; `begins` and `stage_ends` those of decisions,
    stage by stage (None where there is one stage). `lanes`: what decisions cost, in the order of the first ones.
    """

    period: int
    in_flight: int
    lanes: Sequence[Steps]
    usage: KVUsage
    free_blocks: IntArray
    decided: IntArray
    ends: IntArray
    begins: list[Sequence[int]] | None
    stage_ends: list[Sequence[int]] | None

    @property
    def times(self) -> int:
        """How many further decisions were worked out."""
        return len(self.decided)

    @property
    def end_ns(self) -> int:
        """When the batch ends that is the oldest in flight after all of them."""
        return int(self.ends[self.times])

    def decided_before(self, moment: int) -> int:
        """Return how many of the decisions are made before `moment`."""
        return int(np.searchsorted(self.decided, moment))

    def usage_at(self, moment: int) -> KVUsage:
        """Return the state of the KV memory just before `moment`."""
        free = int(self.free_blocks[self.decided_before(moment)])
        return KVUsage(self.usage.total_blocks, free, self.usage.running, self.usage.waiting)

    def busy_ns(self, positions: Sequence[int]) -> IntArray:
        """Return the time by class of work of decisions' positions, all of one lane."""
        turn = (positions[0] - self.in_flight) % self.period
        first = (positions[0] - self.in_flight) // self.period
        busy: IntArray = self.lanes[turn].busy_ns[first : first + len(positions)].sum(axis=0)
        return busy

    def usages(self, positions: range) -> UsageLine:
        """Return the state of the KV memory as the decisions at `positions` were made."""
        first = positions.start - self.in_flight + 1
        return UsageLine([(self.usage, self.free_blocks[first :: positions.step][: len(positions)])])

    def stages_ns(self, positions: range) -> IntArray:
        """Return when each stage began and ended the batches at decisions' `positions`, see `CompletedBatch`."""
        if self.begins is None:
            first, last = self.passage(positions[0])[0], self.passage(positions[-1])[1]
            return np.array([[first, last]], dtype=np.int64)
        return np.array([self.passage(position) for position in positions], dtype=np.int64)

    def passage(self, position: int) -> tuple[Sequence[int], Sequence[int]]:
        """Return when each stage begins and ends the batch of a decision's position."""
        if self.begins is None or self.stage_ends is None:
            return (int(self.ends[position - 1]),), (int(self.ends[position]),)
        return self.begins[position - self.in_flight], self.stage_ends[position - self.in_flight]


def run_ahead(
    clock: StageClock,
    flying: Sequence[int],
    alike: Alike,
    lanes: Sequence[Steps],
    usage: KVUsage,
    *,
    horizon: int,
    waits: bool,
) -> Stretch | None:
    """Work out the decisions that `alike` foresees before `horizon`; None where there is none.

    `flying` are the ends of the batches in flight; `waits`: decisions wait for the first stage to be free.
    """
    if len(clock.free) == 1:
        return _one_stage(flying, alike, lanes, usage, horizon)
    return _stage_by_stage(clock, flying, alike, lanes, usage, horizon, waits)


def _one_stage(
    flying: Sequence[int], alike: Alike, lanes: Sequence[Steps], usage: KVUsage, horizon: int
) -> Stretch | None:
    """One batch runs after the other, so ends are sums."""
    durations = _in_turn([lane.finish_ns[:, 0] for lane in lanes], alike.times)
    ends = np.concatenate((np.array(flying, dtype=np.int64), flying[-1] + durations.cumsum()))
    times = int(np.searchsorted(ends[: alike.times], horizon))
    if not times:
        return None
    ends = ends[: len(flying) + times]
    return Stretch(alike.period, len(flying), lanes, usage, alike.free_blocks, ends[:times], ends, None, None)


def _in_turn(columns: list[IntArray], times: int) -> IntArray:
    """Return the lanes' values in the order of decisions; the first decision is the first lane's."""
    if len(columns) == 1:
        return columns[0][:times]
    rounds = -(-times // len(columns))
    padded = [np.resize(column, rounds) for column in columns]
    result: IntArray = np.stack(padded, axis=1).ravel()[:times]
    return result


def _stage_by_stage(
    clock: StageClock,
    flying: Sequence[int],
    alike: Alike,
    lanes: Sequence[Steps],
    usage: KVUsage,
    horizon: int,
    waits: bool,
) -> Stretch | None:
    period = alike.period
    steps = [lane.finish_ns.tolist() for lane in lanes]
    ahead = StageClock(len(clock.free))
    ahead.free = list(clock.free)
    ends = list(flying)
    decided: list[int] = []
    begins: list[Sequence[int]] = []
    stage_ends: list[Sequence[int]] = []
    for time in range(alike.times):
        moment = max(ends[time], ahead.free[0]) if waits else ends[time]
        if moment >= horizon:
            break
        # A token is computed from the one before: its batch cannot begin while that is in flight.
        ready = max(moment, ends[len(ends) - period])
        passage = ahead.passage(ready, steps[time % period][time // period])
        ahead.free = passage.ends
        decided.append(moment)
        ends.append(passage.ends[-1])
        begins.append(passage.begins)
        stage_ends.append(passage.ends)
    if not decided:
        return None
    moments, all_ends = np.array(decided, dtype=np.int64), np.array(ends, dtype=np.int64)
    return Stretch(period, len(flying), lanes, usage, alike.free_blocks, moments, all_ends, begins, stage_ends)
