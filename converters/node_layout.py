"""Where the nodes of one set of like ranks stand, and what each waits for.

A row becomes up to five nodes on each rank of its rank set, and transfers stand before and after it; the slot is the
order within a row:

    slot    0      1            2            3      4            5       6
    node    RECV   MEM_LOAD     MEM_LOAD     COMP   COMM_COLL    STORE   SEND
                   (input)      (weights)
    waits   -      row's        row's        1, 2   3            4 or 3  end of row
    for            parents      parents

The row's parents are awaited by its loads, or by its first node where it has none. The row ends with slot 5, 4 or 3,
whichever is last; that is what its dependents and its SEND wait for.

A rank that moves memory and sends gets one more node, a COMP of 0 ns that waits for all others: ASTRA-sim aborts where
the last node to complete on a rank with MEM nodes is a SEND.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.execution_graph import NodeType
from converters.transfers import Transfer
from trace_gen.trace import CommType, Location, RowKind, Trace

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

SLOTS = 7
RECV, LOAD_INPUT, LOAD_WEIGHT, COMP, COLL, STORE, SEND, CLOSE = range(SLOTS + 1)
MEMORY_SLOTS = (LOAD_INPUT, LOAD_WEIGHT, STORE)
COMMUNICATION_SLOTS = (RECV, COLL, SEND)
SLOT_NODE_TYPES = (
    NodeType.COMM_RECV,
    NodeType.MEM_LOAD,
    NodeType.MEM_LOAD,
    NodeType.COMP,
    NodeType.COMM_COLL,
    NodeType.MEM_STORE,
    NodeType.COMM_SEND,
    NodeType.COMP,
)
"""The type of the node in each slot, `CLOSE` last."""


def row_slots(trace: Trace) -> BoolArray:
    """Return which of the slots every row fills by itself, ``[rows, SLOTS]`` (transfers are not in it).

    Operands outside device memory are moved only where they have bytes.
    """
    slots = np.zeros((trace.rows, SLOTS), dtype=np.bool_)
    compute = trace.kind == RowKind.COMPUTE
    slots[:, LOAD_INPUT] = compute & (trace.input_loc != Location.LOCAL) & (trace.input_bytes > 0)
    slots[:, LOAD_INPUT] |= trace.kind == RowKind.MEM_LOAD
    slots[:, LOAD_WEIGHT] = compute & (trace.weight_loc != Location.LOCAL) & (trace.weight_bytes > 0)
    slots[:, COMP] = compute
    slots[:, COLL] = (trace.comm_type != CommType.NONE) & (compute | (trace.kind == RowKind.COMM))
    slots[:, STORE] = compute & (trace.output_loc != Location.LOCAL) & (trace.output_bytes > 0)
    slots[:, STORE] |= trace.kind == RowKind.MEM_STORE
    return slots


@dataclass(frozen=True, slots=True)
class Layout:
    """The ``n`` nodes of one rank in file order.

    `rows` are the trace rows that the rank runs, `place` the inverse (-1 elsewhere). `row` and `slot` say what every
    node is; ``grid[i, s]`` is the position of slot s of ``rows[i]`` (-1: none; RECV and SEND are in `moves`, with
    their positions in `move_at`: first the `received`, then the sent).
    """

    rows: IntArray
    place: IntArray
    row: IntArray
    slot: IntArray
    grid: IntArray
    moves: tuple[Transfer, ...]
    move_at: IntArray
    received: int
    closed: bool
    """Whether the last node is the COMP of 0 ns."""
    row_end: IntArray
    """Position of the node that ends each of `rows`: its last own one, or a RECV where it has no other."""

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return int(self.row.shape[0])


def lay_out(
    rows: IntArray, total_rows: int, slots: BoolArray, received: list[Transfer], sent: list[Transfer]
) -> Layout:
    """Lay out the nodes of a rank that runs `rows` (filling `slots`, ``[rows of the trace, SLOTS]``)."""
    place = np.full(total_rows, -1, dtype=np.int64)
    place[rows] = np.arange(rows.size)
    local, own_slot = np.nonzero(slots[rows])
    anchors = np.array([m.recv_row for m in received] + [m.send_row for m in sent], dtype=np.int64)
    closed = bool(sent) and bool(slots[rows][:, MEMORY_SLOTS].any())
    where = np.concatenate([local, place[anchors], [rows.size - 1] * closed]).astype(np.int64)
    kinds = np.repeat([RECV, SEND, CLOSE], [len(received), len(sent), closed])
    slot = np.concatenate([own_slot, kinds])
    order = np.lexsort((slot, where))  # stable: transfers of one row keep their order
    position = np.empty_like(order)
    position[order] = np.arange(order.size)
    grid = np.full((rows.size, SLOTS), -1, dtype=np.int64)
    grid[local, own_slot] = position[: local.size]
    moves = (*received, *sent)
    move_at = position[local.size : local.size + len(moves)]
    end = grid[:, LOAD_INPUT:SEND].max(axis=1)
    for move, at in zip(received, move_at.tolist(), strict=False):
        if slots[move.recv_row].any():
            continue
        end[place[move.recv_row]] = max(at, end[place[move.recv_row]])
    return Layout(rows, place, rows[where[order]], slot[order], grid, moves, move_at, len(received), closed, end)


def dependencies(trace: Trace, layout: Layout, leading: BoolArray) -> tuple[IntArray, IntArray]:
    """Return what the nodes wait for as CSR (`RankGraph.dep_offsets`, `dep_index`), ascending and without repeats."""
    row_at, parent = _row_parents(trace, layout, leading)
    edges = [*_within_rows(layout)]
    entry, second = _entries(layout)
    for node in (entry[row_at], second[row_at]):
        edges.append((node[node >= 0], parent[node >= 0]))
    sends = [layout.place[move.send_row] for move in layout.moves[layout.received :]]
    edges.append((layout.move_at[layout.received :], layout.row_end[np.array(sends, dtype=np.int64)]))
    child = np.concatenate([pair[0] for pair in edges])
    waits = np.concatenate([pair[1] for pair in edges])
    if layout.closed:
        last = layout.nodes - 1
        awaited = np.setdiff1d(np.arange(last), waits)
        child, waits = np.append(child, np.full(awaited.size, last)), np.append(waits, awaited)
    keys = np.unique(child * layout.nodes + waits)
    counts = np.bincount(keys // max(layout.nodes, 1), minlength=layout.nodes)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), keys % max(layout.nodes, 1)


def _within_rows(layout: Layout) -> list[tuple[IntArray, IntArray]]:
    """Return (node, awaited node) pairs between the slots of a row."""
    grid = layout.grid
    pairs = []
    for slot, awaited in ((COMP, LOAD_INPUT), (COMP, LOAD_WEIGHT), (COLL, COMP), (STORE, COLL)):
        both = (grid[:, slot] >= 0) & (grid[:, awaited] >= 0)
        pairs.append((grid[both, slot], grid[both, awaited]))
    direct = (grid[:, STORE] >= 0) & (grid[:, COLL] < 0) & (grid[:, COMP] >= 0)
    pairs.append((grid[direct, STORE], grid[direct, COMP]))
    return pairs


def _entries(layout: Layout) -> tuple[IntArray, IntArray]:
    """Return the node of each row that awaits the row's parents, and the second one of rows with two loads (-1)."""
    own = layout.grid[:, LOAD_INPUT:SEND]
    first = np.where(own >= 0, own, np.iinfo(np.int64).max).min(axis=1)
    first[first == np.iinfo(np.int64).max] = -1  # a row that only receives
    both = (layout.grid[:, LOAD_INPUT] >= 0) & (layout.grid[:, LOAD_WEIGHT] >= 0)
    return first, np.where(both, layout.grid[:, LOAD_WEIGHT], -1)


def _row_parents(trace: Trace, layout: Layout, leading: BoolArray) -> tuple[IntArray, IntArray]:
    """Return (index into `layout.rows`, awaited node) for every row and each of its parents on this rank."""
    rows, end = layout.rows, layout.row_end
    pairs = [_explicit(trace, layout), _moved_before(trace, layout, leading)]
    explicit = np.diff(trace.dep_offsets)[rows] > 0
    ordered = np.argsort(trace.sub_batch[rows], kind="stable")
    ordered = ordered[~leading[rows[ordered]]]
    child, parent = ordered[1:], ordered[:-1]
    chained = (trace.sub_batch[rows[child]] == trace.sub_batch[rows[parent]]) & ~explicit[child]
    pairs.append((child[chained], end[parent[chained]]))
    received = [layout.place[move.recv_row] for move in layout.moves[: layout.received]]
    pairs.append((np.array(received, dtype=np.int64), layout.move_at[: layout.received]))
    return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])


def _explicit(trace: Trace, layout: Layout) -> tuple[IntArray, IntArray]:
    child = layout.place[np.repeat(np.arange(trace.rows), np.diff(trace.dep_offsets))]
    parent = layout.place[trace.dep_rows]
    here = (child >= 0) & (parent >= 0)
    return child[here], layout.row_end[parent[here]]


def _moved_before(trace: Trace, layout: Layout, leading: BoolArray) -> tuple[IntArray, IntArray]:
    """Memory moved before a stage computes is awaited by the stage's first row of each sub-batch."""
    rows = layout.rows
    moved = np.flatnonzero(leading[rows])
    if moved.size == 0:
        return moved, moved
    working = np.flatnonzero(~leading[rows])
    key = np.stack([trace.stage[rows[working]], trace.sub_batch[rows[working]]])
    _, first = np.unique(key, axis=1, return_index=True)
    child, parent = (grid.ravel() for grid in np.meshgrid(working[first], moved, indexing="ij"))
    same = (trace.stage[rows[child]] == trace.stage[rows[parent]]) & (np.diff(trace.dep_offsets)[rows[child]] == 0)
    return child[same], layout.row_end[parent[same]]
