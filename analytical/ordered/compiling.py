"""From the log of one step to an `Order`: nodes joined to segments, and the pairs of segments that must be checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

import numpy as np

from analytical.chains.stretches import OwnNodes, Shares, share_out
from analytical.events.program import FREE, Task
from analytical.machine.description import Machine
from analytical.ordered.finding import Log
from analytical.ordered.order import Action, Check, Gathered, Order, SetOrder, Waits
from analytical.ordered.structure import TIMED, SetStructure, Structure
from converters.execution_graph import IntArray
from foundation.records import dataclass

COMPARISONS = 64
"""So many segments are compared with each on average at most; a graph that is wider is for the event queue."""

SLOTS = 3
"""Slots that hold one node at a time."""


class TooWideError(Exception):
    """So many nodes may overtake each other that checking them takes longer than running them."""


def compile_order(structure: Structure, log: Log, machine: Machine) -> Order | None:
    """Return the order that the log tells of; None if there is too much to check."""
    compilers = [SetCompiler(own) for own in structure.sets]
    actions: list[Action] = []
    try:
        for settled in log:
            waits = [compilers[index].add(row) for index, row in settled.nodes]
            if waits[0] is None:
                continue  # joined to the segment before it
            sets, rows = zip(*settled.nodes, strict=True)
            meeting = structure.sets[sets[0]].meetings.get(rows[0])
            sends = tuple((index, compilers[index].segment_of(row), row) for index, row in settled.sends)
            kept = tuple(one for one in waits if one is not None)
            actions.append(Action(settled.kind, sets, rows, kept, meeting, sends))
    except TooWideError:
        return None
    shared = any(len(action.sets) > 1 for action in actions)
    return Order([compiler.finish(machine) for compiler in compilers], actions, shared)


@dataclass(slots=True)
class _Slot:
    """The segments of a slot in their order. `higher`: places whose ids are higher than all behind them, as far as it
    matters; `joining`: places of segments that wait for more than the one before them.
    """

    segments: list[int] = field(default_factory=list)
    higher: list[int] = field(default_factory=list)
    joining: list[int] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The latest segment; 0 for none."""
        return self.segments[-1] if self.segments else 0

    def append(self, segment: int, joins: bool) -> int:
        """Append a segment and return its place."""
        place = len(self.segments)
        self.segments.append(segment)
        self.higher.append(place)
        if joins:
            self.joining.append(place)
        return place


class SetCompiler:
    """Numbers the segments of one set as its nodes come, and notes which pairs of them must be checked."""

    def __init__(self, structure: SetStructure) -> None:
        self._structure = structure
        self._program = structure.program
        rows = structure.program.rows
        offsets = structure.program.child_offsets
        self._children = [offsets[row + 1] - offsets[row] for row in range(rows)]
        self._segment = [0] * rows
        self._rows: list[list[int]] = [[]]
        self._before = [0]
        self._others: list[tuple[int, ...]] = [()]
        self._parents: list[tuple[int, ...]] = [()]
        self._reach: list[tuple[int, ...]] = [(-1,) * SLOTS]
        self._heard = [0]
        self._slots = [_Slot() for _ in range(SLOTS)]
        self._received: dict[tuple[object, ...], int] = {}
        self._later: list[tuple[int, int]] = []
        self._behind: list[tuple[int, int, tuple[int, ...]]] = []
        self._posted: list[tuple[int, int]] = []
        self._compared = 0

    def segment_of(self, row: int) -> int:
        """Return the segment of a node that has come."""
        return self._segment[row]

    def add(self, row: int) -> Waits | None:
        """Take the next node; None where it joins the segment before it. Raises `TooWideError`."""
        slot = self._program.slot[row]
        parents = self._structure.parents[row]
        last = self._slots[slot].last if slot != FREE else 0
        if last and self._joins(row, parents, last):
            self._rows[last].append(row)
            self._segment[row] = last
            return None
        segment = len(self._rows)
        self._segment[row] = segment
        waited = tuple(dict.fromkeys(self._segment[parent] for parent in parents))
        others = tuple(one for one in waited if one != last)
        self._rows.append([row])
        self._before.append(last)
        self._others.append(others)
        self._parents.append(waited)
        self._note_ancestors(segment, row, slot, waited)
        return segment, last, others

    def finish(self, machine: Machine) -> SetOrder:
        """Return the order of the set."""
        program = self._program
        rows = [row for own in self._rows for row in own]
        order = [(row, self._segment[row]) for row in rows if program.task[row] in TIMED]
        messages = [self._segment[row] for row in rows if program.task[row] in (Task.SEND, Task.RECEIVE)]
        roots = set(program.roots)
        return SetOrder(
            segments=len(self._rows),
            shares=self._shares(order, machine),
            check=self._check(machine),
            sinks=np.array(sorted({self._segment[row] for row in rows if not self._children[row]}), dtype=np.int64),
            messages=np.array(messages if program.untimed_row is not None else [], dtype=np.int64),
            prompt=np.array([self._segment[row] for row in roots & self._structure.sends.keys()], dtype=np.int64),
        )

    def _joins(self, row: int, parents: tuple[int, ...], last: int) -> bool:
        """Whether a node and the last segment of its slot wait for each other alone, and both take their own time.

        Ids rise within a segment, so that the last node is the one that a later segment could most easily overtake.
        """
        tail = self._rows[last][-1]
        task = self._program.task
        alone = parents == (tail,) and self._children[tail] == 1
        return alone and row > tail and task[row] in TIMED and task[tail] in TIMED

    def _note_ancestors(self, segment: int, row: int, slot: int, waited: Sequence[int]) -> None:
        """Note how far up each slot the ancestors of a segment reach, and compare it with what lies between.

        Ancestors are by dependencies only. `_reach` and `_heard` (receives, a bit each) count the segment itself.
        """
        reach = [max(own) for own in zip(*(self._reach[one] for one in waited), strict=True)] or [-1] * SLOTS
        heard = 0
        for one in waited:
            heard |= self._heard[one]
        if slot == FREE:
            heard = self._receive(segment, row, heard)
        else:
            self._compare(segment, row, self._slots[slot], reach[slot])
            reach[slot] = self._slots[slot].append(segment, bool(self._others[segment]))
        self._reach.append(tuple(reach))
        self._heard.append(heard)

    def _compare(self, segment: int, row: int, slot: _Slot, reach: int) -> None:
        """Note which segments behind the last ancestor of a new one might be overtaken by it.

        Where an id is higher than its own the new one may only be ready after that has started; the nearest of these
        speaks for all before it, for it starts after them.
        """
        higher = slot.higher
        while higher and self._rows[slot.segments[higher[-1]]][-1] < row:
            higher.pop()
        if higher and higher[-1] > reach:
            reach = higher[-1]
            self._later.append((slot.segments[reach], segment))
        for at in reversed(slot.joining):
            if at <= reach:
                break
            self._behind_of(slot.segments[at], segment)

    def _behind_of(self, earlier: int, segment: int) -> None:
        """Note that `earlier` has to be ready when `segment` could take its place, if it waits for anything else."""
        unshared = tuple(one for one in self._others[earlier] if one not in self._parents[segment])
        if unshared:
            self._behind.append((earlier, segment, unshared))
        self._compared += 1
        if self._compared > COMPARISONS * (segment + COMPARISONS):
            raise TooWideError

    def _receive(self, segment: int, row: int, heard: int) -> int:
        """Note that a receive has to be posted after the one before it of like messages, unless it waits for it."""
        sender = self._structure.receives[row][0]
        kind = sender.key[1:]
        earlier = self._received.get(kind)
        self._received[kind] = segment
        if earlier is not None and not heard >> earlier & 1:
            head = self._rows[earlier][0]
            parents = self._structure.parents
            if head > row or not set(parents[head]) <= set(parents[row]):
                self._posted.append((earlier, segment))
        return heard | 1 << segment

    def _check(self, machine: Machine) -> Check | None:
        if not (self._later or self._behind or self._posted):
            return None
        behind = [(earlier, later) for earlier, later, _ in self._behind]
        overtaking = (*self._later, *behind)
        starting = sorted({earlier for earlier, _ in overtaking})
        ready = sorted({later for _, later in overtaking} | {one for pair in self._posted for one in pair})
        place, at = {one: i for i, one in enumerate(starting)}, {one: i for i, one in enumerate(ready)}
        long = [one for one in starting if len(self._rows[one]) > 1]
        tails = [(self._rows[one][-1], one) for one in long]
        return Check(
            starting=Gathered.of(self._others[one] for one in starting),
            before=np.array([self._before[one] for one in starting], dtype=np.int64),
            ready=Gathered.of(self._parents[one] for one in ready),
            later=_pairs([(place[one], at[other]) for one, other in self._later]),
            behind=_pairs([(place[one], at[other]) for one, other in behind]),
            unshared=Gathered.of(unshared for _, _, unshared in self._behind),
            posted=_pairs([(at[one], at[other]) for one, other in self._posted]),
            long=np.array([place[one] for one in long], dtype=np.int64),
            segments=np.array(long, dtype=np.int64),
            tails=self._shares(tails, machine),
        )

    def _shares(self, order: Sequence[tuple[int, int]], machine: Machine) -> Shares:
        """Share out (row, segment) pairs, segments ascending."""
        rows = np.array([row for row, _ in order], dtype=np.int64)
        segments = np.array([segment for _, segment in order], dtype=np.int64)
        first = np.isin(rows, self._program.roots)
        own = OwnNodes(self._program.graph, self._program.order[rows], segments, first, len(self._rows))
        return share_out([own], machine)


def _pairs(pairs: Sequence[tuple[int, int]]) -> IntArray:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2).T
