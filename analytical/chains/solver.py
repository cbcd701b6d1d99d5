"""When the ranks of one collective leave it, from when they enter: the collective alone, on idle NPUs.

A rank that runs one node at a time has nothing else in its queues, so a collective's times depend on the entries only.
One phase a chunk is solved directly; several are simulated, each distinct set of entries once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from analytical.collectives.models import Models
from analytical.collectives.phases import AmbiguousOrderError, PhaseModel
from analytical.collectives.plan import CollectivePlanner, Phase
from analytical.events.program import Program, compile_graph
from analytical.events.simulation import Simulation
from converters.execution_graph import ABSENT, CollectiveType, IntArray, NodeType, NodeWork, RankGraph
from foundation.errors import InternalError

Entries = tuple[int, ...]
"""ns by member, in the order of the member list; the earliest is 0."""

KEPT = 4096
"""So many solutions are kept."""


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
        self._homogeneous = not (machine.per_node_custom or machine.system.custom)
        self._solved: OrderedDict[tuple[object, ...], Entries] = OrderedDict()

    def streams(self, rank: int, collective: CollectiveType, size: int, involved: int, group: int) -> list[list[Phase]]:
        """Return the phases of each chunk, as `rank` runs them. Raises `SimulationError` if it cannot be planned."""
        memory = self._planner.rank_planner(rank)
        return [phases for _, phases in self._planner.plan(memory, collective, size, involved, group, 0)]

    def exits(
        self, ranks: tuple[int, ...], collective: CollectiveType, size: int, involved: int, group: int, entries: Entries
    ) -> Entries:
        """Return when each of `ranks` leaves, relative to the first entry. Raises `SimulationError`.

        Ranks that meet over the same dimensions, elsewhere on the network, leave at the same times if they are listed
        in the same order: their lists then differ by a constant only.
        """
        place = ranks
        if group == 0 and self._homogeneous:
            first = min(ranks)
            place = tuple([rank - first for rank in ranks])
        key = (place, collective, size, involved, group, entries)
        found = self._solved.get(key)
        if found is None:
            streams = self.streams(ranks[0], collective, size, involved, group)
            model = self._models.phases.model(streams[0][0]) if len(streams[0]) == 1 else None
            if model is not None and not self._models.machine.options.rendezvous_protocol:
                found = self._by_model(model, streams[0][0], len(streams), ranks, entries)
            found = found or self._by_simulation(ranks, collective, size, involved, group, entries)
            self._solved[key] = found
            if len(self._solved) > KEPT:
                self._solved.popitem(last=False)
        return found

    def _by_model(
        self, model: PhaseModel, phase: Phase, chunks: int, ranks: tuple[int, ...], entries: Entries
    ) -> Entries | None:
        """Solve chunk after chunk: each starts on a rank where the one `concurrency` before it has ended."""
        place = {rank: at for at, rank in enumerate(ranks)}
        order = [place[rank] for rank in phase.ring.ranks]
        end = model.bus + (model.last_reduction or 0)
        starts = [entries[at] for at in order]
        ends: list[list[int]] = []
        for chunk in range(chunks):
            if chunk >= self._concurrency:
                starts = ends[chunk - self._concurrency]
            first = min(starts)
            try:
                solution = model.solve([start - first for start in starts])
            except AmbiguousOrderError:
                return None
            ends.append([first + arrival + end for arrival in solution.arrivals])
        result = [0] * len(ranks)
        for at, time in zip(order, ends[-1], strict=True):
            result[at] = time
        return tuple(result)

    def _by_simulation(
        self, ranks: tuple[int, ...], collective: CollectiveType, size: int, involved: int, group: int, entries: Entries
    ) -> Entries:
        machine = self._models.machine
        program = compile_graph(_one_collective(collective, size, involved, group), machine.system)
        idle = compile_graph(_EMPTY, machine.system)
        offsets = dict(zip(ranks, entries, strict=True))
        programs: list[tuple[Program, Sequence[int], Sequence[int]]] = [
            (program if rank in offsets else idle, [0], [0]) for rank in range(machine.network.npus)
        ]
        for solve in (True, False) if machine.solvable else (False,):
            simulation = Simulation(self._models, programs, self._groups, solve=solve)
            try:
                simulation.run_from(offsets)
            except AmbiguousOrderError:
                continue
            return tuple(_finish(simulation, offsets)[rank] for rank in ranks)
        raise InternalError("a simulation message by message did not know the order of its events")


def _finish(simulation: Simulation, offsets: Mapping[int, int]) -> dict[int, int]:
    return {rank: simulation.rank_runs[rank].end[0] - Simulation.START for rank in offsets}


def _one_collective(collective: CollectiveType, size: int, involved: int, group: int) -> RankGraph:
    return _graph(1, comm_type=collective, comm_size=size, involved_dims=involved, comm_group=group)


def _graph(nodes: int, **values: int) -> RankGraph:
    def column(name: str, default: int = ABSENT) -> IntArray:
        return np.full(nodes, values.get(name, default), dtype=np.int64)

    return RankGraph(
        ranks=(0,),
        names=("",),
        node_id=np.arange(nodes),
        node_type=np.full(nodes, NodeType.COMM_COLL, dtype=np.int8),
        is_cpu_op=np.zeros(nodes, dtype=np.bool_),
        name=np.zeros(nodes, dtype=np.int32),
        duration_us=np.zeros(nodes, dtype=np.int64),
        work=NodeWork.by_node(np.full((1, nodes), ABSENT), np.full((1, nodes), ABSENT)),
        comm_type=column("comm_type").astype(np.int8),
        comm_group=column("comm_group").astype(np.int32),
        dep_offsets=np.zeros(nodes + 1, dtype=np.int64),
        dep_index=np.zeros(0, dtype=np.int64),
        comm_size=column("comm_size"),
        comm_priority=column("comm_priority"),
        comm_tag=column("comm_tag"),
        comm_src_delta=column("comm_src_delta"),
        comm_dst_delta=column("comm_dst_delta"),
        involved_dims=column("involved_dims"),
    )


_EMPTY = _graph(0)
