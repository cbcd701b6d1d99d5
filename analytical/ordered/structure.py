"""What of a graph the order of its events can depend on besides times: slots, dependencies, meetings, messages.

A `Structure` is kept for graphs that bring the same structure with other durations and sizes. Its actors are the
graph's sets of like ranks; where the ranks of a set do not stay in step, each has a column of its own in the times.
"""

from __future__ import annotations

import numpy as np

from analytical.chains.meetings import Meeting, MeetingFinder
from analytical.chains.stretches import MOST_PIECES
from analytical.events.program import Program, Task, compile_graph
from analytical.machine.description import Machine
from analytical.machine.messages import WRAPPING_GROUPS, point_to_point_tag
from converters.execution_graph import ExecutionGraph, IntArray
from foundation.records import dataclass

TIMED = (Task.RUN, Task.MEMORY, Task.BROADCAST)
"""Tasks that take a time of their own, whatever others do."""

Key = tuple[int, int, int]
"""What a message is matched by besides its bytes: the sending set, the tag, and how far on its receivers are."""


@dataclass(frozen=True, slots=True, eq=False)
class Sender:
    """Where some ranks of a receiving set hear from: their columns there, and those of the set that sends to them."""

    key: Key
    columns: IntArray
    sending: IntArray


@dataclass(slots=True, eq=False)
class SetStructure:
    """One set of ranks that run the same nodes. By row, rows in ascending node id.

    `parents`: the rows that a row waits for; `meetings`, `sends` and `receives` by the rows that collect and send.
    """

    ranks: tuple[int, ...]
    program: Program
    parents: list[tuple[int, ...]]
    meetings: dict[int, Meeting]
    sends: dict[int, Key]
    receives: dict[int, tuple[Sender, ...]]
    waiting: IntArray
    """The positions in the graph of the nodes that have `comm_size` bytes to agree on: collectives and messages."""


@dataclass(slots=True)
class Structure:
    """All sets of a graph."""

    sets: list[SetStructure]


def structure_of(graph: ExecutionGraph, machine: Machine) -> Structure | None:
    """Return the structure of a checked graph, or None if it has what only the event queue knows."""
    if not machine.chainable or any(group >= WRAPPING_GROUPS for group in graph.groups):
        return None
    nodes = sum(one.nodes for one in graph.rank_graphs)
    if 2 * nodes > MOST_PIECES:
        return None
    programs = [compile_graph(one, machine.system) for one in graph.rank_graphs]
    if any(_unknown(program.task, machine) for program in programs):
        return None
    finder = MeetingFinder(graph, machine.network.npus_count)
    return Structure([_structure(graph, index, program, finder) for index, program in enumerate(programs)])


def _unknown(task: bytes, machine: Machine) -> bool:
    """Whether something in a set needs the event queue: skipped nodes, memory that ranks share, rendezvous messages."""
    shared = Task.MEMORY in task and machine.memory.memory_type != "PER_NPU_MEMORY_EXPANSION"
    sends = Task.SEND in task  # what is received is sent by a set, too
    return Task.SKIP in task or shared or (sends and machine.options.rendezvous_protocol)


def _structure(graph: ExecutionGraph, index: int, program: Program, finder: MeetingFinder) -> SetStructure:
    own = graph.rank_graphs[index]
    rows = range(program.rows)
    of_task = {task: [row for row in rows if program.task[row] == task] for task in Task}
    waiting = [row for task in (Task.COLLECTIVE, Task.SEND, Task.RECEIVE) for row in of_task[task]]
    return SetStructure(
        own.ranks,
        program,
        _parents(program),
        {row: finder.find(index, int(program.order[row])) for row in of_task[Task.COLLECTIVE]},
        {row: _sent(index, program, row) for row in of_task[Task.SEND]},
        {row: _senders(graph, index, program, row) for row in of_task[Task.RECEIVE]},
        program.order[waiting],
    )


def _parents(program: Program) -> list[tuple[int, ...]]:
    found: list[list[int]] = [[] for _ in range(program.rows)]
    offsets, children = program.child_offsets, program.children
    for row in range(program.rows):
        for child in children[offsets[row] : offsets[row + 1]]:
            found[child].append(row)
    return [tuple(parents) for parents in found]


def _sent(index: int, program: Program, row: int) -> Key:
    return index, point_to_point_tag(program.attribute("comm_tag", row)), program.attribute("comm_dst_delta", row)


def _senders(graph: ExecutionGraph, index: int, program: Program, row: int) -> tuple[Sender, ...]:
    """Return where each rank of a set hears from in the RECV of `row`."""
    tag, delta = point_to_point_tag(program.attribute("comm_tag", row)), program.attribute("comm_src_delta", row)
    own = np.array(graph.rank_graphs[index].ranks)
    senders = []
    for sender, one in enumerate(graph.rank_graphs):
        place = {rank: column for column, rank in enumerate(one.ranks)}
        columns = [column for column, rank in enumerate(own.tolist()) if rank + delta in place]
        if columns:
            sending = np.array([place[rank] for rank in (own[columns] + delta).tolist()])
            senders.append(Sender((sender, tag, -delta), np.array(columns), sending))
    return tuple(senders)
