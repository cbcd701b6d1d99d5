"""An order of events, ready to be evaluated: segments, what each waits for, and what must hold for the order to be.

A segment is a node, or a row of nodes on one slot of which each waits for the one before it alone. Segments of a set
are numbered from 1; segment 0 stands for the start, and ends at 0.

When does another step keep an order? At each of its events a rank fills every slot that is free with the ready node of
the lowest id. Let X run before Y on one slot in the order found. Where another step first departs from it, some such Y
is issued before its X, and then neither X nor any slot-mate behind X can be an ancestor of Y. Y is not issued before X
if

- Y is ready only after X has started (strictly, so that no tie decides), or
- X has the lower id and is ready whenever Y could take its place. Y could when it is ready and the node before X on the
  slot has ended; what X waits for and Y does not, that node apart, must have ended before that, again strictly.

Pairs of which only the first can hold are the check's `later`, the others `behind`. If it holds for all pairs then
every decision falls as it did, and times follow from the order alone. Receives take no slot, but those of like messages
are served in the order in which they are posted, which is checked too (`posted`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field

import numpy as np

from analytical.chains.meetings import Meeting
from analytical.chains.stretches import Shares
from analytical.ordered.finding import Kind
from converters.execution_graph import IntArray
from foundation.records import dataclass

Waits = tuple[int, int, tuple[int, ...]]
"""A segment, the one before it on its slot (0: none), and the others that it waits for."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to evaluate. `rows` and `waits` by set of `sets`; `sends` of a RECV: (set, segment, row) by sender."""

    kind: Kind
    sets: tuple[int, ...]
    rows: tuple[int, ...]
    waits: tuple[Waits, ...]
    meeting: Meeting | None = None
    sends: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Lists of segments whose latest ends are wanted: laid end to end, and where each list begins."""

    flat: IntArray
    begins: IntArray

    @classmethod
    def of(cls, lists: Iterable[Sequence[int]]) -> Gathered:
        """Gather `lists`; an empty one stands for the start."""
        full = [list(segments) or [0] for segments in lists]
        begins = np.cumsum([0, *map(len, full)], dtype=np.int64)[:-1]
        return cls(np.array([one for segments in full for one in segments], dtype=np.int64), begins)

    def latest(self, ends: IntArray) -> IntArray:
        """Return the latest end of each list, ``[lists, k, columns]``."""
        if not self.begins.size:
            return ends[:0]
        found: IntArray = np.maximum.reduceat(ends[self.flat], self.begins, axis=0)
        return found


@dataclass(slots=True, eq=False)
class Check:
    """What must hold in a set. Segments are named by their places in `starting` (X) and `ready` (Y).

    `starting` gathers what an X waits for but for the segment before it on its slot, `before` names that (0: none);
    `ready` gathers all that a Y waits for. `later` and `behind` are pairs of places (X, Y) ``[2, pairs]``; `posted`
    pairs of places in `ready`. `unshared` gathers for each pair of `behind` what X waits for and Y does not. `long`
    are places of X with several nodes, `segments` their segments and `tails` the last node of each: a later Y must not
    be ready before that starts.
    """

    starting: Gathered
    before: IntArray
    ready: Gathered
    later: IntArray
    behind: IntArray
    unshared: Gathered
    posted: IntArray
    long: IntArray
    segments: IntArray
    tails: Shares


@dataclass(slots=True, eq=False)
class SetOrder:
    """One set: its segments, what they take, and what must hold.

    `sinks`: segments that nothing waits for. `messages`: SENDs and RECVs, where the set may not end with one (ASTRA-sim
    aborts in its statistics). `prompt`: SENDs that wait for nothing, and may not take 0 ns.
    """

    segments: int
    shares: Shares
    check: Check | None
    sinks: IntArray
    messages: IntArray
    prompt: IntArray


@dataclass(slots=True)
class Order:
    """The order of a structure: what to evaluate, one after the other. `apart`: sets whose ranks need a column each.

    `shared`: whether some collective is met in by several sets, which then have to count their streams alike.
    """

    sets: list[SetOrder]
    actions: list[Action]
    shared: bool
    apart: set[int] = field(default_factory=set)
