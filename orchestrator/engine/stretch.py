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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.engine.priced_ahead import Steps
from orchestrator.engine.records import UsageLine
from orchestrator.engine.stages import Passage, StageClock
from orchestrator.schedulers.interface import Alike, KVUsage

IntArray = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Stretch:
    """See the module's docstring. `ends` are those of all positions; `passages` of decisions only, None where there is
    one stage. `lanes`: what decisions cost, in the order of the first ones.
    """

    period: int
    in_flight: int
    lanes: Sequence[Steps]
    usage: KVUsage
    free_blocks: IntArray
    decided: IntArray
    ends: IntArray
    passages: Sequence[Passage] | None

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
        return int(self.decided.searchsorted(moment))

    def free_at(self, moment: int) -> int:
        """Return the free KV blocks just before `moment`."""
        return int(self.free_blocks[self.decided_before(moment)])

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
        if self.passages is None:
            first, last = self.passage(positions[0]), self.passage(positions[-1])
            return np.array([[first.begins, last.ends]], dtype=np.int64)
        return np.array([self.passage(position) for position in positions], dtype=np.int64)

    def passage(self, position: int) -> Passage:
        """Return when each stage begins and ends the batch of a decision's position."""
        if self.passages is None:
            return Passage([int(self.ends[position - 1])], [int(self.ends[position])])
        return self.passages[position - self.in_flight]


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
    steps = _in_turn([lane.stage_ns for lane in lanes], alike.times)
    if len(clock.free) == 1:
        times = _one_after_another(flying, steps, horizon)
    else:
        times = _stage_by_stage(clock, flying, steps, alike, horizon, waits)
    if not len(times.decided):
        return None
    return Stretch(alike.period, len(flying), lanes, usage, alike.free_blocks, *times)


def _in_turn(lanes: list[IntArray], times: int) -> IntArray:
    """Return the lanes' rows in the order of decisions; the first decision is the first lane's."""
    if len(lanes) == 1:
        return lanes[0][:times]
    rounds, stages = -(-times // len(lanes)), lanes[0].shape[1]
    padded = [np.resize(lane, (rounds, stages)) for lane in lanes]
    result: IntArray = np.stack(padded, axis=1).reshape(-1, stages)[:times]
    return result


class _Times(NamedTuple):
    """When decisions before the horizon are made, when all batches end, and how they pass the stages; see `Stretch`."""

    decided: IntArray
    ends: IntArray
    passages: Sequence[Passage] | None


def _one_after_another(flying: Sequence[int], steps: IntArray, horizon: int) -> _Times:
    """Return the times on one stage, of which ends are sums; `steps` ``[times, 1]``."""
    ends = np.concatenate((np.array(flying, dtype=np.int64), flying[-1] + steps[:, 0].cumsum()))
    times = int(np.searchsorted(ends[: len(steps)], horizon))
    return _Times(ends[:times], ends[: len(flying) + times], None)


def _stage_by_stage(
    clock: StageClock, flying: Sequence[int], steps: IntArray, alike: Alike, horizon: int, waits: bool
) -> _Times:
    """Return the times on several stages; `steps` ``[times, stages]``: what each stage takes."""
    ahead = StageClock(len(clock.free))
    ahead.free = list(clock.free)
    ends = list(flying)
    decided: list[int] = []
    passages: list[Passage] = []
    for time, takes in enumerate(steps.tolist()):
        moment = max(ends[time], ahead.free[0]) if waits else ends[time]
        if moment >= horizon or (alike.pooled and any(end <= moment for end in ends[time + 1 : time + 2])):
            break
        # A token is computed from the one before: its batch cannot begin while that is in flight.
        ready = max(moment, ends[len(ends) - alike.period])
        passage = ahead.passage(ready, takes)
        ahead.free = passage.ends
        decided.append(moment)
        ends.append(passage.ends[-1])
        passages.append(passage)
    return _Times(np.array(decided, dtype=np.int64), np.array(ends, dtype=np.int64), passages)
