"""Second pass of a streamed conversion: records become nodes one by one, written as they come.

Ranks that have run the same rows so far share a *lane* with one buffer of encoded nodes; a row that only some of them
run splits the lane. Memory is bounded by lanes, ranks and the buffers' limit. The nodes are those of
`converters.lowering`; what is there an array over rows is here a few integers a lane.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from converters.chakra import wire
from converters.chakra.framing import encode_varint
from converters.chakra.nodes import SCHEMA_VERSION
from converters.execution_graph import ABSENT, NodeType
from converters.graph_plan import COLLECTIVE_OF, node_name
from converters.lowering import ZERO_NS_OPS
from converters.node_layout import (
    CLOSE,
    COLL,
    COMP,
    LOAD_INPUT,
    LOAD_WEIGHT,
    MEMORY_SLOTS,
    RECV,
    SEND,
    SLOT_NODE_TYPES,
    STORE,
)
from converters.rank_files import RankFiles
from converters.stream_survey import MOVES, Survey, group_of, has_collective, has_nodes, outside
from converters.text.records import Record, RecordStream
from converters.transfers import Transfer
from trace_gen.trace import RowKind

_HEADER = wire.frame(wire.field(1, SCHEMA_VERSION.encode()))
_BUFFERED_BYTES = 1 << 22


@dataclass(slots=True)
class _Lane:
    """Ranks with one history, and what that history comes to."""

    ranks: tuple[int, ...]
    next_id: int = 0
    ends: dict[int, int] = field(default_factory=dict)
    """Sub-batch -> the node that ends its last row."""
    moved: dict[int, list[int]] = field(default_factory=dict)
    """Stage -> the nodes of memory moved before it works."""
    fed: set[tuple[int, int]] = field(default_factory=set)
    """(stage, sub-batch) whose first working row has been written."""
    childless: set[int] = field(default_factory=set)
    last: Record | None = None
    moves: bool = False
    sends: bool = False
    buffer: bytearray = field(default_factory=lambda: bytearray(_HEADER))

    def split(self, ranks: tuple[int, ...]) -> _Lane:
        """Return a lane of `ranks` with this one's history, and keep the others. The buffer must be empty."""
        self.ranks = tuple(rank for rank in self.ranks if rank not in set(ranks))
        return _Lane(
            ranks,
            self.next_id,
            dict(self.ends),
            {stage: list(nodes) for stage, nodes in self.moved.items()},
            set(self.fed),
            set(self.childless),
            self.last,
            self.moves,
            self.sends,
            bytearray(),
        )


class StreamLowering:
    """Writes the nodes of one trace; `survey` is what its first pass found."""

    def __init__(self, survey: Survey, files: RankFiles, *, step: int = 0, true_work: bool, annotate: bool) -> None:
        self._survey, self._files, self._step = survey, files, step
        self._true_work, self._annotate = true_work, annotate
        everyone = _Lane(tuple(range(survey.ranks)))
        self._lane_of = dict.fromkeys(everyone.ranks, everyone)
        self._known: dict[tuple[int, ...], list[_Lane]] = {}
        self._limit = _BUFFERED_BYTES
        self._received: dict[int, dict[int, list[Transfer]]] = {}
        self._sent: dict[int, dict[int, list[Transfer]]] = {}
        for move in survey.transfers:
            self._received.setdefault(move.recv_row, {}).setdefault(move.target, []).append(move)
            self._sent.setdefault(move.send_row, {}).setdefault(move.source, []).append(move)

    def write(self, stream: RecordStream) -> None:
        """Write every row of `stream`, then what closes each rank."""
        for row, record in enumerate(stream.records):
            if has_nodes(record, alone=self._survey.participants[group_of(record)] is None):
                for lane in self._lanes(record.ranks, row):
                    self._row(lane, record, row)
        for lane in {id(lane): lane for lane in self._lane_of.values()}.values():
            self._close(lane)

    def _row(self, lane: _Lane, record: Record, row: int) -> None:
        first_work = self._survey.first_work[record.stage]
        leading = record.kind in MOVES and first_work is not None and row < first_work
        parents = self._peers(lane, record, RECV, row, [])
        if not leading:
            parents += _before(lane, record)
        loads: list[int] = []
        waits = parents
        end = -1
        for slot in self._slots(record):
            if slot in (LOAD_INPUT, LOAD_WEIGHT):
                loads.append(self._node(lane, record, slot, parents))
                waits = loads
            else:
                end = self._node(lane, record, slot, waits)
                waits = [end]
        end = waits[-1]
        if leading:
            lane.moved.setdefault(record.stage, []).append(end)
        else:
            lane.ends[record.sub_batch] = end
        lane.last = record
        self._peers(lane, record, SEND, row, [end])

    def _slots(self, record: Record) -> Iterator[int]:
        """Yield the nodes of a row, as `converters.node_layout.row_slots` does for columns."""
        computes = record.kind == RowKind.COMPUTE
        if record.kind == RowKind.MEM_LOAD or (computes and outside(record.input)):
            yield LOAD_INPUT
        if computes and outside(record.weight):
            yield LOAD_WEIGHT
        if computes:
            yield COMP
        if has_collective(record) and self._survey.participants[group_of(record)] is not None:
            yield COLL
        if record.kind == RowKind.MEM_STORE or (computes and outside(record.output)):
            yield STORE

    def _node(self, lane: _Lane, record: Record, slot: int, waits: list[int]) -> int:
        """Append one node to the lane's buffer and return its id."""
        node, head = self._head(lane, record, slot, waits)
        lane.buffer += wire.frame(head + self._attributes(record, slot) + self._own(record, slot))
        if len(lane.buffer) > self._limit:
            self._flush(lane)
        return node

    def _peers(self, lane: _Lane, record: Record, slot: int, row: int, waits: list[int]) -> list[int]:
        """Write the SENDs or RECVs of a row, which differ from rank to rank, and return their ids."""
        by_rank = (self._received if slot == RECV else self._sent).get(row, {})
        moves = [by_rank.get(rank, []) for rank in lane.ranks]
        nodes = []
        for same in zip(*moves, strict=True):
            node, head = self._head(lane, record, slot, waits)
            nodes.append(node)
            self._flush(lane)
            for rank, move in zip(lane.ranks, same, strict=True):
                size = wire.integer("comm_size", max(self._survey.sizes[move.tag, move.source], 1))
                body = head + wire.integer("is_cpu_op", 0) + size + wire.integer("comm_tag", move.tag)
                body += self._own(record, slot)
                body += wire.integer("comm_src", move.source) + wire.integer("comm_dst", move.target)
                self._files.append([rank], wire.frame(body))
            lane.sends = lane.sends or slot == SEND
        return nodes

    def _head(self, lane: _Lane, record: Record, slot: int, waits: list[int]) -> tuple[int, bytes]:
        node = lane.next_id
        lane.next_id += 1
        parents = sorted(set(waits))
        lane.childless.difference_update(parents)
        lane.childless.add(node)
        lane.moves = lane.moves or slot in MEMORY_SLOTS
        name = node_name(record.op, record.layer, slot)
        return node, wire.head(node, name, SLOT_NODE_TYPES[slot], b"".join(map(encode_varint, parents)), 0)

    def _attributes(self, record: Record, slot: int) -> bytes:
        encoded = wire.integer("is_cpu_op", 0)
        if slot == COMP:
            work, traffic = max(record.latency[self._step], 1) * 1000 + 500, 1
            if self._true_work:
                work, traffic = max(record.flops[self._step], 1), max(record.mem_bytes[self._step], 1)
            return encoded + wire.integer("num_ops", work) + wire.integer("tensor_size", traffic)
        if slot == CLOSE:
            return encoded + wire.integer("num_ops", ZERO_NS_OPS) + wire.integer("tensor_size", 1)
        if slot != COLL:
            operand = {LOAD_INPUT: record.input, LOAD_WEIGHT: record.weight, STORE: record.output}[slot]
            return encoded + wire.integer("tensor_size", operand.bytes)
        named = self._survey.participants[group_of(record)]
        assert named is not None  # `_slots` yields COLL for no other
        encoded += wire.integer("comm_type", int(COLLECTIVE_OF[record.comm_type]))
        encoded += wire.integer("comm_size", record.comm_bytes)
        encoded += wire.group_name(named.comm_group) if named.comm_group else b""
        return encoded + (wire.involved(named.involved_dims) if named.involved_dims != ABSENT else b"")

    def _own(self, record: Record, slot: int) -> bytes:
        """Encode the annotations of `converters.lowering`."""
        if not self._annotate:
            return b""
        encoded = b""
        if slot == COMP:
            encoded += wire.integer("orrery.flops", record.flops[self._step])
            encoded += wire.integer("orrery.bytes", record.mem_bytes[self._step])
        encoded += wire.integer("orrery.layer", record.layer) if record.layer >= 0 else b""
        return encoded + (wire.integer("orrery.request", record.request) if record.request >= 0 else b"")

    def _lanes(self, ranks: tuple[int, ...], row: int) -> list[_Lane]:
        """Return lanes that hold exactly `ranks`, splitting those that hold more or whose transfers here differ."""
        lanes = self._known.get(ranks)
        if lanes is None:
            members = set(ranks)
            for lane in {id(lane): lane for lane in map(self._lane_of.__getitem__, ranks)}.values():
                inside = tuple(rank for rank in lane.ranks if rank in members)
                if len(inside) < len(lane.ranks):
                    self._split(lane, inside)
            lanes = list({id(lane): lane for lane in map(self._lane_of.__getitem__, ranks)}.values())
            self._known[ranks] = lanes
        if row not in self._received and row not in self._sent:
            return lanes
        for lane in lanes:
            kinds: dict[tuple[int, int], list[int]] = {}
            for rank in lane.ranks:
                moves = (self._received.get(row, {}).get(rank, ()), self._sent.get(row, {}).get(rank, ()))
                kinds.setdefault((len(moves[0]), len(moves[1])), []).append(rank)
            for part in list(kinds.values())[1:]:
                self._split(lane, tuple(part))
        return list({id(lane): lane for lane in map(self._lane_of.__getitem__, ranks)}.values())

    def _split(self, lane: _Lane, ranks: tuple[int, ...]) -> None:
        self._flush(lane)
        apart = lane.split(ranks)
        self._lane_of.update(dict.fromkeys(ranks, apart))
        self._known.clear()
        lanes = len(set(map(id, self._lane_of.values())))
        self._limit = max(_BUFFERED_BYTES // lanes, 4096)

    def _flush(self, lane: _Lane) -> None:
        if lane.buffer:
            self._files.append(lane.ranks, bytes(lane.buffer))
            lane.buffer.clear()

    def _close(self, lane: _Lane) -> None:
        """Write the last node of ranks that move memory and send, or the only one of idle ranks."""
        if lane.last is None:
            cpu = wire.integer("is_cpu_op", int(self._true_work))
            work = wire.integer("num_ops", 1 if self._true_work else 1500) + wire.integer("tensor_size", 1)
            lane.buffer += wire.frame(wire.head(0, "idle", NodeType.COMP, b"", 0) + cpu + work)
        elif lane.moves and lane.sends:
            self._node(lane, lane.last, CLOSE, list(lane.childless))
        self._flush(lane)


def _before(lane: _Lane, record: Record) -> list[int]:
    """Return the nodes that a row waits for: its sub-batch's previous row, and memory moved before the stage works."""
    parents = [lane.ends[record.sub_batch]] if record.sub_batch in lane.ends else []
    if (record.stage, record.sub_batch) not in lane.fed:
        lane.fed.add((record.stage, record.sub_batch))
        parents += lane.moved.get(record.stage, [])
    return parents


def stream_lower(
    prefix: str | Path, survey: Survey, stream: RecordStream, *, step: int = 0, true_work: bool, annotate: bool
) -> list[Path]:
    """Write `stream`, of which `survey` was made, as ``PREFIX.<rank>.et``; return the paths."""
    with RankFiles(prefix, survey.ranks) as files:
        StreamLowering(survey, files, step=step, true_work=true_work, annotate=annotate).write(stream)
    return files.paths
