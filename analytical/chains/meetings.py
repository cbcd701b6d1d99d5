"""Who meets whom in collectives, and when they leave: sets of ranks, each set in step or with a column a rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from analytical.chains.solver import CollectiveSolver
from analytical.chains.stretches import SHORT_NS
from converters.execution_graph import ABSENT, CollectiveType, ExecutionGraph, IntArray
from foundation.errors import SimulationError
from foundation.records import dataclass

DURATIONS_KEPT = 4096
"""So many durations a collective of a plan keeps."""


@dataclass(frozen=True, slots=True, eq=False)
class Component:
    """Ranks that meet in one collective. `columns`: (set, columns of the set) whose ranks they are, in their order."""

    ranks: tuple[int, ...]
    columns: tuple[tuple[int, NDArray[np.int64]], ...]


@dataclass(slots=True)
class Meeting:
    """Who meets in collectives of one kind: all of `sets`, ascending, in `components` that do not know of each other.

    ``widths[i]``: how many ranks ``sets[i]`` has.
    """

    collective: CollectiveType
    involved: int
    group: int
    sets: tuple[int, ...]
    widths: tuple[int, ...]
    components: list[Component]
    durations: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By bytes: ns for ranks that enter together and leave together, and the number of streams."""

    def duration(self, size: int, solver: CollectiveSolver) -> tuple[int, int]:
        """Return (ns, streams) of a collective whose ranks enter together; -1 ns if they do not leave together.

        Raises `SimulationError` if it cannot be planned or takes too long for a sum of 64 bits.
        """
        found = self.durations.get(size)
        if found is None:
            streams = solver.streams(self.components[0].ranks[0], self.collective, size, self.involved, self.group)
            ends: set[int] = set()
            for component in self.components:
                ends.update(self.component_exits(component, size, (0,) * len(component.ranks), solver))
            if len(self.durations) > DURATIONS_KEPT:
                self.durations.clear()
            found = self.durations[size] = (ends.pop() if len(ends) == 1 else -1, len(streams))
        return found

    def exits(self, size: int, entries: Mapping[int, IntArray], solver: CollectiveSolver) -> dict[int, IntArray]:
        """Return by set when its ranks leave, ``[k, ranks]``, from when they enter, ``[k, 1]`` or ``[k, ranks]``."""
        steps = len(entries[self.sets[0]])
        pairs = zip(self.sets, self.widths, strict=True)
        left = {index: np.empty((steps, ranks), dtype=np.int64) for index, ranks in pairs}
        for component in self.components:
            times = [_columns(entries[index], columns) for index, columns in component.columns]
            solved = self._solve(component, size, np.concatenate(times, axis=1), solver)
            at = 0
            for index, columns in component.columns:
                left[index][:, columns] = solved[:, at : at + len(columns)]
                at += len(columns)
        return left

    def _solve(self, component: Component, size: int, entries: IntArray, solver: CollectiveSolver) -> IntArray:
        """Solve the ranks of one component, each distinct set of entries once."""
        first = entries.min(axis=1, keepdims=True)
        rows = list(map(tuple, (entries - first).tolist()))
        exits = {row: self.component_exits(component, size, row, solver) for row in dict.fromkeys(rows)}
        left: IntArray = first + np.array([exits[row] for row in rows], dtype=np.int64)
        return left

    def component_exits(
        self, component: Component, size: int, entries: tuple[int, ...], solver: CollectiveSolver
    ) -> tuple[int, ...]:
        """Return when each rank of a component leaves; `entries`, of which the earliest is 0, and exits in its order.

        Raises `SimulationError` if that takes too long for a sum of 64 bits.
        """
        found = solver.exits(component.ranks, self.collective, size, self.involved, self.group, entries)
        if max(found) - max(entries) > SHORT_NS:
            raise SimulationError("a collective takes longer than the fast ways count")
        return found


class MeetingFinder:
    """Finds who meets in the collectives of a graph; each kind of collective of a set once."""

    def __init__(self, graph: ExecutionGraph, npus_count: tuple[int, ...]) -> None:
        self._graph = graph
        self._counts = npus_count
        self._set_of = {rank: index for index, one in enumerate(graph.rank_graphs) for rank in one.ranks}
        self._meetings: dict[tuple[int, int, int, int], Meeting] = {}

    def find(self, index: int, row: int) -> Meeting:
        """Return who meets in the collective of a row: the sets that the set's ranks meet, that those meet, ..."""
        graph = self._graph.rank_graphs[index]
        kind, group, involved = int(graph.comm_type[row]), int(graph.comm_group[row]), int(graph.involved_dims[row])
        key = (index, kind, group, involved)
        if key not in self._meetings:
            meeting = self._make(index, CollectiveType(kind), group, involved)
            self._meetings.update({(other, kind, group, involved): meeting for other in meeting.sets})
        return self._meetings[key]

    def _make(self, index: int, kind: CollectiveType, group: int, involved: int) -> Meeting:
        members: set[int] = set()
        components: dict[tuple[int, ...], None] = {}
        placed: set[int] = set()
        reached = [index]
        while reached:
            current = reached.pop()
            if current in members:
                continue
            members.add(current)
            for rank in self._graph.rank_graphs[current].ranks:
                if rank not in placed:
                    ranks = self._meets(rank, group, involved)
                    placed.update(ranks)
                    components[ranks] = None
                    reached += {self._set_of[other] for other in ranks} - members
        sets = tuple(sorted(members))
        widths = tuple(len(self._graph.rank_graphs[other].ranks) for other in sets)
        return Meeting(kind, involved, group, sets, widths, [self._component(ranks, sets) for ranks in components])

    def _component(self, ranks: tuple[int, ...], members: tuple[int, ...]) -> Component:
        """Order the ranks of a component by set, so that their entries are slices of the sets' columns."""
        chosen = set(ranks)
        columns, ordered = [], []
        for index in members:
            own = self._graph.rank_graphs[index].ranks
            at = [column for column, rank in enumerate(own) if rank in chosen]
            if at:
                columns.append((index, np.array(at)))
                ordered += [own[column] for column in at]
        return Component(tuple(ordered), tuple(columns))

    def _meets(self, rank: int, group: int, involved: int) -> tuple[int, ...]:
        """Return the ranks that meet `rank` in a collective: its group, or those that differ in involved dimensions."""
        if group:
            return self._graph.groups[group]
        if involved == ABSENT:
            return tuple(sorted(self._set_of))
        ranks = [rank]
        stride = 1
        for dim, count in enumerate(self._counts):
            if involved >> dim & 1:
                base = [other - other // stride % count * stride for other in ranks]
                ranks = sorted({first + at * stride for first in base for at in range(count)})
            stride *= count
        return tuple(ranks)


def narrow(time: IntArray) -> IntArray:
    """Return ``[k, 1]`` where all columns are equal."""
    return time[:, :1] if time.shape[1] > 1 and (time == time[:, :1]).all() else time


def _columns(time: IntArray, columns: NDArray[np.int64]) -> IntArray:
    if time.shape[1] > 1:
        return time[:, columns]
    return time if len(columns) == 1 else np.broadcast_to(time, (len(time), len(columns)))
