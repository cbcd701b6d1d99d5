"""Where actors meet in collectives, and when they leave them."""

from __future__ import annotations

from typing import NamedTuple

from analytical.chains.meetings import Meeting, MeetingFinder
from analytical.chains.solver import CollectiveSolver
from analytical.events.program import Program, Task
from converters.execution_graph import ExecutionGraph


class NotActorsError(Exception):
    """The graph or its times are not for this way."""


class _Entry(NamedTuple):
    """An actor in a collective of `size` bytes: its row, and when it entered."""

    row: int
    size: int
    time: int


class Settled(NamedTuple):
    """A collective that all have entered: (actor, row) of those that leave, by when.

    The event that ends it on a rank is scheduled `last_ns` before; 0 where that is not known.
    """

    ends: dict[int, list[tuple[int, int]]]
    last_ns: int


Kind = tuple[int, int, int]
"""What meetings are found by besides the actor: type, group and involved dimensions."""


class Collectives:
    """The collectives of one step. `held`: how many there were of a meeting and a size."""

    def __init__(self, graph: ExecutionGraph, npus_count: tuple[int, ...], solver: CollectiveSolver) -> None:
        self.meetings: dict[int, Meeting] = {}
        self.held: dict[tuple[int, int], int] = {}
        self._finder = MeetingFinder(graph, npus_count)
        self._solver = solver
        self._rows: dict[int, dict[int, tuple[Kind, int]]] = {}
        self._of_actor: dict[tuple[int, Kind], Meeting] = {}
        self._open: dict[int, dict[int, _Entry]] = {}
        self._streams: dict[tuple[int, int], int] = {}
        self._last_ns: dict[tuple[int, int], int] = {}

    def enter(self, actor: int, program: Program, row: int, now: int) -> Settled | None:
        """Enter the collective of a row; the last to enter settles it. Raises `NotActorsError`."""
        rows = self._rows.get(id(program))
        if rows is None:
            rows = self._rows[id(program)] = _collective_rows(program)
        kind, size = rows[row]
        meeting = self._of_actor.get((actor, kind))
        if meeting is None:
            meeting = self._of_actor[actor, kind] = self._finder.find(actor, int(program.order[row]))
            self.meetings[id(meeting)] = meeting
        entered = self._open.setdefault(id(meeting), {})
        entered[actor] = _Entry(row, size, now)
        if len(entered) < len(meeting.sets):
            return None
        del self._open[id(meeting)]
        return self._settled(meeting, entered)

    def _settled(self, meeting: Meeting, entered: dict[int, _Entry]) -> Settled:
        sizes = {entry.size for entry in entered.values()}
        size = sizes.pop()
        known = (id(meeting), size)
        if known not in self._last_ns:
            kind = meeting.collective, size, meeting.involved, meeting.group
            self._last_ns[known] = self._solver.last_ns(meeting.components[0].ranks[0], *kind) or 0
        last_ns = self._last_ns[known]
        if sizes:
            raise NotActorsError
        self.held[known] = self.held.get(known, 0) + 1
        duration, streams = meeting.duration(size, self._solver)
        self._count(meeting, streams)
        first = min(entry.time for entry in entered.values())
        ends: dict[int, list[tuple[int, int]]] = {}
        if duration >= 0 and all(entry.time == first for entry in entered.values()):
            ends[first + duration] = [(actor, entry.row) for actor, entry in entered.items()]
            return Settled(ends, last_ns)
        if any(width > 1 for width in meeting.widths):
            raise NotActorsError
        (component,) = meeting.components
        members = [actor for actor, _ in component.columns]
        entries = tuple([entered[actor].time - first for actor in members])
        for actor, left in zip(members, meeting.component_exits(component, size, entries, self._solver), strict=True):
            ends.setdefault(first + left, []).append((actor, entered[actor].row))
        return Settled(ends, last_ns)

    def _count(self, meeting: Meeting, streams: int) -> None:
        """Count streams as the ranks do; ranks that have counted differently never meet."""
        counted = self._streams
        if len({counted.get((actor, meeting.group), 0) for actor in meeting.sets}) > 1:
            raise NotActorsError
        for actor in meeting.sets:
            for group in {meeting.group, 0}:
                counted[actor, group] = counted.get((actor, group), 0) + streams


def _collective_rows(program: Program) -> dict[int, tuple[Kind, int]]:
    """Return kind and bytes of a program's collectives, by row."""
    rows = [row for row, task in enumerate(program.task) if task == Task.COLLECTIVE]
    graph, places = program.graph, program.order[rows]
    columns = (graph.comm_type, graph.comm_group, graph.involved_dims, graph.comm_size)
    kinds = zip(*(column[places].tolist() for column in columns), strict=True)
    return {row: ((kind, group, dims), size) for row, (kind, group, dims, size) in zip(rows, kinds, strict=True)}
