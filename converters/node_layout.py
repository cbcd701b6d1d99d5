"""Where the nodes of one set of like ranks stand, and what each waits for (`converters.row_slots` has the picture).

Nodes are numbered through the blocks of a trace. What earlier blocks leave for later ones (the ends that rows will wait
for) is a `Carry`; a trace in one block begins and ends with an empty one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from converters.row_slots import CLOSE, COLL, COMP, LOAD_INPUT, LOAD_WEIGHT, RECV, SEND, SLOTS, STORE, BoolArray
from converters.transfers import Transfer
from foundation.records import dataclass
from trace_gen.trace import Trace

IntArray = NDArray[np.int64]
Pairs = tuple[IntArray, IntArray]
"""Who waits (a position here) and for which node (a number through all blocks)."""
_NOTHING = np.zeros(0, dtype=np.int64)
_LAST = np.iinfo(np.int64).max


@dataclass(slots=True, eq=False)
class Carry:
    """What the rows so far leave for those to come, on one set of like ranks.

    `nodes`: how many there are. `ends`: sub-batch -> the node that ends its last row. `moved`: stage -> the nodes that
    end memory moved before it works; `fed`: (stage, sub-batch) whose first row has waited for these. `loose`: nodes
    that nothing waits for, None where nobody will ask for them.
    """

    nodes: int = 0
    ends: dict[int, int] = field(default_factory=dict)
    moved: dict[int, list[int]] = field(default_factory=dict)
    fed: set[tuple[int, int]] = field(default_factory=set)
    loose: IntArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The ``n`` nodes that a block adds to one rank, in file order; the first is node number `base`.

    `rows` are the block's rows that the rank runs, `place` the inverse (-1 elsewhere). `row` and `slot` say what every
    node is; ``grid[i, s]`` is the position of slot s of ``rows[i]`` (-1: none; RECV and SEND are in `moves`, with
    their positions in `move_at`: first the `received`, then the sent).
    """

    base: int
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


@dataclass(frozen=True, slots=True, eq=False)
class BlockTransfers:
    """Transfers of one rank in a block, by the block's own rows: those awaited by ``recv_rows[i]``, then those sent."""

    received: Sequence[Transfer]
    recv_rows: IntArray
    sent: Sequence[Transfer]
    send_rows: IntArray


def lay_out(rows: IntArray, slots: BoolArray, transfers: BlockTransfers, *, base: int, closed: bool) -> Layout:
    """Lay out the nodes of a rank that runs `rows` of a block (filling `slots`, ``[rows of the block, SLOTS]``)."""
    place = np.full(slots.shape[0], -1, dtype=np.int64)
    place[rows] = np.arange(rows.size)
    local, own_slot = np.nonzero(slots[rows])
    anchors = np.concatenate([transfers.recv_rows, transfers.send_rows])
    where = np.concatenate([local, place[anchors], [rows.size - 1] * closed]).astype(np.int64)
    kinds = np.repeat([RECV, SEND, CLOSE], [len(transfers.received), len(transfers.sent), closed])
    slot = np.concatenate([own_slot, kinds])
    order = np.lexsort((slot, where))  # stable: transfers of one row keep their order
    position = np.empty_like(order)
    position[order] = np.arange(order.size)
    grid = np.full((rows.size, SLOTS), -1, dtype=np.int64)
    grid[local, own_slot] = position[: local.size]
    moves = (*transfers.received, *transfers.sent)
    move_at = position[local.size : local.size + len(moves)]
    end = grid[:, LOAD_INPUT:SEND].max(axis=1, initial=-1)
    bare = np.flatnonzero(~slots[transfers.recv_rows].any(axis=1))
    np.maximum.at(end, place[transfers.recv_rows[bare]], move_at[bare])
    count = len(transfers.received)
    return Layout(base, rows, place, rows[where[order]], slot[order], grid, moves, move_at, count, closed, end)


def dependencies(block: Trace, layout: Layout, leading: BoolArray, carry: Carry) -> Pairs:
    """Return what the nodes wait for as CSR (`RankGraph.dep_offsets`, `dep_index` by number), ascending, each once.

    `leading` are the rows that move memory before their stage works. Moves `carry` on to the end of the block.
    """
    row_at, parent = _row_parents(block, layout, leading, carry)
    edges = _within_rows(layout)
    entry, second = _entries(layout)
    for node in (entry[row_at], second[row_at]):
        edges.append((node[node >= 0], parent[node >= 0]))
    sends = layout.move_at[layout.received :]
    edges.append((sends, layout.base + layout.row_end[_anchor_places(layout, sent=True)]))
    child = np.concatenate([pair[0] for pair in edges])
    waits = np.concatenate([pair[1] for pair in edges])
    if carry.loose is not None:
        carry.loose = np.setdiff1d(np.append(carry.loose, layout.base + np.arange(layout.nodes)), waits)
        awaited = carry.loose[:-1] if layout.closed else _NOTHING  # all but the last node, which asks
        child, waits = np.append(child, np.full(awaited.size, layout.nodes - 1)), np.append(waits, awaited)
    carry.nodes += layout.nodes
    keys = np.sort(child * max(carry.nodes, 1) + waits)
    keys = keys[np.append(keys[1:] != keys[:-1], True)[: keys.size]]  # the last of equal ones
    child, waits = np.divmod(keys, max(carry.nodes, 1))
    offsets = np.zeros(layout.nodes + 1, dtype=np.int64)
    np.cumsum(np.bincount(child, minlength=layout.nodes), out=offsets[1:])
    return offsets, waits


def _anchor_places(layout: Layout, *, sent: bool) -> IntArray:
    """Return where in `rows` the rows stand that transfers belong to."""
    at = layout.move_at[layout.received :] if sent else layout.move_at[: layout.received]
    result: IntArray = layout.place[layout.row[at]]
    return result


def _within_rows(layout: Layout) -> list[Pairs]:
    """Return the pairs between the slots of a row."""
    grid, filled = layout.grid, layout.grid >= 0
    waits = [
        (slot, awaited, filled[:, slot] & filled[:, awaited])
        for slot, awaited in ((COMP, LOAD_INPUT), (COMP, LOAD_WEIGHT), (COLL, COMP), (STORE, COLL))
    ]
    waits.append((STORE, COMP, filled[:, STORE] & ~filled[:, COLL] & filled[:, COMP]))
    return [(grid[both, slot], layout.base + grid[both, awaited]) for slot, awaited, both in waits if both.any()]


def _entries(layout: Layout) -> Pairs:
    """Return the node of each row that awaits the row's parents, and the second one of rows with two loads (-1)."""
    own = layout.grid[:, LOAD_INPUT:SEND]
    first = np.where(own >= 0, own, _LAST).min(axis=1, initial=_LAST)
    first[first == _LAST] = -1  # a row that only receives
    both = (layout.grid[:, LOAD_INPUT] >= 0) & (layout.grid[:, LOAD_WEIGHT] >= 0)
    return first, np.where(both, layout.grid[:, LOAD_WEIGHT], -1)


def _row_parents(block: Trace, layout: Layout, leading: BoolArray, carry: Carry) -> Pairs:
    """Return (index into `layout.rows`, awaited node) for every row and each of its parents on this rank."""
    explicit = np.diff(block.dep_offsets)[layout.rows] > 0
    leads = leading[layout.rows]
    working = np.flatnonzero(~leads)
    pairs = [
        _explicit(block, layout),
        _moved_before(block, layout, np.flatnonzero(leads), working, explicit, carry),
        *_chains(block, layout, working, explicit, carry),
        (_anchor_places(layout, sent=False), layout.base + layout.move_at[: layout.received]),
    ]
    return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])


def _explicit(block: Trace, layout: Layout) -> Pairs:
    """Rows that name what they wait for; a trace that has them is one block."""
    if not block.dep_rows.size:
        return _NOTHING, _NOTHING
    child = layout.place[np.repeat(np.arange(block.rows), np.diff(block.dep_offsets))]
    parent = layout.place[block.dep_rows]
    here = (child >= 0) & (parent >= 0)
    return child[here], layout.base + layout.row_end[parent[here]]


def _chains(block: Trace, layout: Layout, working: IntArray, explicit: BoolArray, carry: Carry) -> list[Pairs]:
    """A row that names nothing waits for the end of its sub-batch's previous row."""
    batch = block.sub_batch[layout.rows[working]]
    order = np.argsort(batch, kind="stable")
    ordered, batch = working[order], batch[order]
    end = layout.base + layout.row_end
    same = batch[1:] == batch[:-1]
    child, parent = ordered[1:][same], ordered[:-1][same]
    silent = ~explicit[child]
    pairs = [(child[silent], end[parent[silent]])]
    first = np.flatnonzero(np.append(batch[:1] == batch[:1], ~same))
    last = np.append(first[1:], batch.size)[: first.size] - 1
    ends = zip(batch[first].tolist(), ordered[first].tolist(), ordered[last].tolist(), strict=True)
    for number, row, closing in ends:
        if number in carry.ends and not explicit[row]:
            pairs.append((np.array([row]), np.array([carry.ends[number]])))
        carry.ends[number] = int(end[closing])
    return pairs


def _moved_before(
    block: Trace, layout: Layout, moved: IntArray, working: IntArray, explicit: BoolArray, carry: Carry
) -> Pairs:
    """Memory moved before a stage works is awaited by the stage's first row of each sub-batch."""
    stage = block.stage[layout.rows]
    for number, row in zip(stage[moved].tolist(), moved.tolist(), strict=True):
        carry.moved.setdefault(number, []).append(layout.base + int(layout.row_end[row]))
    if not carry.moved or not working.size:
        return _NOTHING, _NOTHING
    keys = np.stack([stage[working], block.sub_batch[layout.rows[working]]])
    distinct, first = np.unique(keys, axis=1, return_index=True)
    child: list[int] = []
    parent: list[int] = []
    for number, batch, row in zip(*distinct.tolist(), working[first].tolist(), strict=True):
        if (number, batch) in carry.fed:
            continue
        carry.fed.add((number, batch))
        awaited = [] if explicit[row] else carry.moved.get(number, [])
        child += [row] * len(awaited)
        parent += awaited
    return np.array(child, dtype=np.int64), np.array(parent, dtype=np.int64)
