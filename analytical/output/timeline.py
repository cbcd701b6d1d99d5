"""Per-node timelines of a simulation, as `TimelineEvent`s."""

from __future__ import annotations

from collections.abc import Iterator

from analytical.events.program import COMMUNICATE, COMPUTE, CPU, FREE
from analytical.events.simulation import Simulation
from converters.execution_graph import NodeType, TimelineEvent

TRACKS = {CPU: "cpu", COMPUTE: "comp", COMMUNICATE: "comm", FREE: "recv"}
"""The resource that a node occupies, by slot."""


def timeline(simulation: Simulation) -> Iterator[TimelineEvent]:
    """Yield every node of every rank, rank by rank in ascending node id. Times in ns."""
    for run in simulation.rank_runs:
        program = run.program
        graph = program.graph
        for row, position in enumerate(program.order.tolist()):
            name = graph.names[int(graph.name[position])] or NodeType(int(graph.node_type[position])).name
            yield TimelineEvent(
                rank=run.rank,
                track=TRACKS[program.slot[row]],
                name=name,
                node_id=program.attribute("node_id", row),
                start_ns=run.start[row],
                end_ns=run.end[row],
            )
