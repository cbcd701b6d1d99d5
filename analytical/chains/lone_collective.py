"""One collective simulated alone, on NPUs that do nothing else: where no formula knows when its ranks leave."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analytical.collectives.models import Models
from analytical.collectives.phases import AmbiguousOrderError
from analytical.events.program import Program, compile_graph
from analytical.events.simulation import Simulation
from converters.execution_graph import ABSENT, CollectiveType, IntArray, NodeType, NodeWork, RankGraph
from foundation.errors import InternalError
from foundation.records import dataclass


@dataclass(frozen=True, slots=True)
class LoneCollective:
    """A collective that `ranks` enter."""

    ranks: tuple[int, ...]
    collective: CollectiveType
    size: int
    involved: int
    group: int

    def exits(self, models: Models, groups: dict[int, tuple[int, ...]], entries: tuple[int, ...]) -> tuple[int, ...]:
        """Return when each rank leaves, entering at `entries` (ns, the earliest 0). Raises `SimulationError`."""
        machine = models.machine
        program, idle = (compile_graph(graph, machine.system) for graph in (self._graph(), _EMPTY))
        offsets = dict(zip(self.ranks, entries, strict=True))
        programs: list[tuple[Program, Sequence[int], Sequence[int]]] = [
            (program if rank in offsets else idle, [0], [0]) for rank in range(machine.network.npus)
        ]
        for solve in (True, False) if machine.solvable else (False,):
            simulation = Simulation(models, programs, groups, solve=solve)
            try:
                simulation.run_from(offsets)
            except AmbiguousOrderError:
                continue
            return tuple(simulation.rank_runs[rank].end[0] - Simulation.START for rank in self.ranks)
        raise InternalError("a simulation message by message did not know the order of its events")

    def _graph(self) -> RankGraph:
        return _graph(
            1, comm_type=self.collective, comm_size=self.size, involved_dims=self.involved, comm_group=self.group
        )


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
