"""Per-node timelines of a simulation: `TimelineEvent`s, and a file for Perfetto or chrome://tracing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from analytical.events.program import COMMUNICATE, COMPUTE, CPU, FREE
from analytical.events.simulation import Simulation
from converters.execution_graph import NodeType, TimelineEvent
from foundation.files import atomic_write

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


def write_timeline(simulation: Simulation, path: str | Path) -> None:
    """Write a Chrome trace: a process a rank, a thread a resource, times in microseconds."""
    with atomic_write(path) as stream:
        stream.write('{"displayTimeUnit": "ns", "traceEvents": [\n')
        separator = ""
        for run in simulation.rank_runs:
            stream.write(separator + json.dumps(_label("process_name", run.rank, 0, f"rank {run.rank}")))
            separator = ",\n"
            for slot, track in TRACKS.items():
                stream.write(separator + json.dumps(_label("thread_name", run.rank, slot, track)))
        threads = {track: slot for slot, track in TRACKS.items()}
        for event in timeline(simulation):
            record = {
                "ph": "X",
                "name": event.name,
                "pid": event.rank,
                "tid": threads[event.track],
                "ts": event.start_ns / 1000,
                "dur": (event.end_ns - event.start_ns) / 1000,
                "args": {"node": event.node_id, "start_ns": event.start_ns, "end_ns": event.end_ns},
            }
            stream.write(separator + json.dumps(record))
        stream.write("\n]}\n")


def _label(kind: str, rank: int, slot: int, name: str) -> dict[str, object]:
    return {"ph": "M", "name": kind, "pid": rank, "tid": slot, "args": {"name": name}}
