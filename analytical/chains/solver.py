"""When the ranks of one collective leave it, from when they enter: the collective alone, on idle NPUs.

A rank that runs one node at a time has nothing else in its queues, so a collective's times depend on the entries only.
One phase a chunk is solved directly; several are simulated (`lone_collective`), each distinct set of entries once.
"""

from __future__ import annotations

from typing import NamedTuple

from analytical.collectives.models import Models
from analytical.collectives.phases import AmbiguousOrderError, PhaseModel
from analytical.collectives.plan import CollectivePlanner, Phase
from converters.execution_graph import CollectiveType
from foundation.recent import Recent

Entries = tuple[int, ...]
"""ns by member, in the order of the member list; the earliest is 0."""

KEPT = 4096
"""So many solutions are kept."""


PHASES_KEPT = 256


class _LonePhase(NamedTuple):
    """A collective whose `chunks` are one phase each (else `model` is None): the place of each rank of its ring."""

    model: PhaseModel | None
    order: list[int]
    chunks: int


class CollectiveSolver:
    """Solves the collectives of one machine and one set of groups."""

    def __init__(self, models: Models, groups: dict[int, tuple[int, ...]]) -> None:
        machine = models.machine
        self._models = models
        self._groups = groups
        self._planner = CollectivePlanner(
            machine.network,
            machine.system,
            groups,
            machine.options.num_queues_per_dim,
            machine.per_node_custom,
            models.rings,
        )
        self._concurrency = machine.concurrency
        self._solved: Recent[Entries] = Recent(KEPT)
        self._lone_phases: Recent[_LonePhase] = Recent(PHASES_KEPT)

    def streams(self, rank: int, collective: CollectiveType, size: int, involved: int, group: int) -> list[list[Phase]]:
        """Return the phases of each chunk, as `rank` runs them. Raises `SimulationError` if it cannot be planned."""
        memory = self._planner.rank_planner(rank)
        return [phases for _, phases in self._planner.plan(memory, collective, size, involved, group, 0)]

    def last_ns(self, rank: int, collective: CollectiveType, size: int, involved: int, group: int) -> int | None:
        """Return the ns of the event that ends a collective: the reduction or bus of its last packet.

        None where it is of several phases, or of one that goes message by message. Raises as `streams`.
        """
        model = self._lone_phase((rank,), collective, size, involved, group).model
        if model is None:
            return None
        return model.bus if model.last_reduction is None else model.last_reduction

    def exits(
        self, ranks: tuple[int, ...], collective: CollectiveType, size: int, involved: int, group: int, entries: Entries
    ) -> Entries:
        """Return when each of `ranks` leaves, relative to the first entry. Raises `SimulationError`.

        Ranks that meet over the same dimensions, elsewhere on the network, leave at the same times if they are listed
        in the same order: their lists then differ by a constant only.
        """
        place = ranks
        if group == 0:
            first = min(ranks)
            place = tuple([rank - first for rank in ranks])
        key = (place, collective, size, involved, group, entries)
        return self._solved.get(key, lambda: self._solve(ranks, collective, size, involved, group, entries))

    def _solve(
        self, ranks: tuple[int, ...], collective: CollectiveType, size: int, involved: int, group: int, entries: Entries
    ) -> Entries:
        key = (ranks, collective, size, involved, group)
        lone = self._lone_phases.get(key, lambda: self._lone_phase(*key))
        found = None if lone.model is None else self._by_model(lone.model, lone, entries)
        if found is None:
            from analytical.chains.lone_collective import LoneCollective  # which many a run does without

            alone = LoneCollective(ranks, collective, size, involved, group)
            found = alone.exits(self._models, self._groups, entries)
        return found

    def _lone_phase(
        self, ranks: tuple[int, ...], collective: CollectiveType, size: int, involved: int, group: int
    ) -> _LonePhase:
        """Return what a collective's chunks consist of."""
        streams = self.streams(ranks[0], collective, size, involved, group)
        phase = streams[0][0]
        alone = len(streams[0]) == 1 and not self._models.machine.options.rendezvous_protocol
        place = {rank: at for at, rank in enumerate(ranks)}
        order = [place[rank] for rank in phase.ring.ranks] if alone and len(place) == len(phase.ring.ranks) else []
        return _LonePhase(self._models.phases.model(phase) if alone else None, order, len(streams))

    def _by_model(self, model: PhaseModel, lone: _LonePhase, entries: Entries) -> Entries | None:
        """Solve chunk after chunk: each starts on a rank where the one `concurrency` before it has ended."""
        end = model.bus + (model.last_reduction or 0)
        starts = [entries[at] for at in lone.order]
        ends: list[list[int]] = []
        for chunk in range(lone.chunks):
            if chunk >= self._concurrency:
                starts = ends[chunk - self._concurrency]
            first = min(starts)
            try:
                solution = model.solve([start - first for start in starts])
            except AmbiguousOrderError:
                return None
            ends.append([first + arrival + end for arrival in solution.arrivals])
        result = [0] * len(lone.order)
        for at, time in zip(lone.order, ends[-1], strict=True):
            result[at] = time
        return tuple(result)
