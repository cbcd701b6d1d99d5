"""Spreads a text trace of LLMServingSim over ranks, as that program's own converters do when they write .et files.

Rank ``s * n + i`` is NPU i of pipeline stage s, n NPUs a stage. For ``ORCA`` times and sizes are divided by n here
(integer division), except inside ``ATTENTION i``, which runs whole on NPU ``i % n``; only the first row's input is
loaded and only the last row's **input size** is stored. The later formats are per rank as they stand: ``EXPERT i`` and
``PIM i`` run on NPU ``i % n``, and KV bytes on a ``PREFILL`` row (comm_size without comm_type) are sent to the rank
``npu_num`` further on. Stages are ``pp_stage_boundaries``, or equal numbers of rows with sections kept whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from itertools import pairwise

from converters.text.records import Operand, Record, RecordStream
from converters.text.table import KNOWN_ROWS
from foundation.errors import UserError
from foundation.records import dataclass
from trace_gen.mesh import Mesh
from trace_gen.trace import CommType, Location, RowKind

NO_STAGE = -1
MAX_NPUS = 65536
LOCAL = Operand()


def is_placed(stream: RecordStream) -> bool:
    """Whether rows name the ranks that run them (traces of ours do, LLMServingSim's texts do not)."""
    return stream.attributes.get("format", "orrery") == "orrery"


def place(stream: RecordStream, npu_num: int | None = None, npu_group: int | None = None) -> RecordStream:
    """Spread `stream` over `npu_num` ranks in `npu_group` pipeline stages (default: the header's, one NPU each).

    The result's records may wait for earlier ones by their index among the *placed* rows, whose number is not known
    until they have been read (`rows` is then an upper bound). A placed stream is returned as it is.
    """
    if is_placed(stream):
        return stream
    declared = int(stream.attributes.get("npu_group", "0")) or None
    stages = npu_group or declared or 1
    if declared is not None and stages != declared:
        raise UserError(
            f"npu_group is {stages} but the trace's header says {declared}", field="--npu_group", fix="leave it out"
        )
    npus = npu_num or stages
    if npus > MAX_NPUS or npus % stages:
        raise UserError(
            f"{npus} NPUs cannot be split into {stages} pipeline stages", field="--npu_num", fix="give a multiple"
        )
    placer = _Placer(stream, Mesh(npus // stages, stages))
    attributes = {key: value for key, value in stream.attributes.items() if not key.startswith("pp_stage")}
    attributes.update(format="orrery", origin=stream.attributes["format"], npu_num=str(npus), npu_group=str(stages))
    attributes.pop("layout", None)
    return RecordStream(attributes, stream.rows * (2 + stages), placer.records())


@dataclass(slots=True)
class _Placer:
    """State of one pass over the rows."""

    stream: RecordStream
    mesh: Mesh
    stage: int = 0
    moved: list[Record] = field(default_factory=list)
    """The leading kv_load and kv_evict rows, repeated in every stage."""
    section: tuple[str, int] | None = None
    written: int = 0
    known: dict[tuple[Record, int, tuple[str, int] | None], Record] = field(default_factory=dict)
    """Rows placed already: those of a block come back in the next."""

    @property
    def format(self) -> str:
        return self.stream.attributes["format"]

    @property
    def stages(self) -> int:
        return self.mesh.pipeline

    @property
    def stage_ranks(self) -> tuple[int, ...]:
        return self.mesh.stage_ranks(self.stage)

    def records(self) -> Iterator[Record]:
        """Yield the placed rows."""
        for record in self._rows():
            yield record
            self.written += 1

    def _rows(self) -> Iterator[Record]:
        if self.format == "event":
            ranks = tuple(range(self.mesh.ranks))
            for record in self.stream.records:
                yield record._replace(ranks=ranks, input=LOCAL, weight=LOCAL, output=LOCAL)
            return
        edges: list[int] = []
        row = -1
        for record in self.stream.records:
            if row < 0 and record.kind in (RowKind.MEM_LOAD, RowKind.MEM_STORE):
                self.moved.append(record)
                continue
            row += 1
            if row == 0:
                edges = self._edges(self.stream.rows - len(self.moved))
                yield from self._moves()
            if self.stage + 1 < self.stages and row >= edges[self.stage] and self.section is None:
                if "pp_stage_boundaries" not in self.stream.attributes:
                    edges = [edge + row - edges[self.stage] for edge in edges]  # a stretched stage moves later ones on
                self.stage += 1
                yield from self._moves()
            yield from self._place(record, row)
        if self.stage + 1 < self.stages:
            raise UserError(
                f"pipeline stage {self.stage + 1} of {self.stages} has no rows", field="--npu_group", fix="use fewer"
            )

    def _edges(self, rows: int) -> list[int]:
        """Return the row at which each stage ends."""
        listed = self.stream.attributes.get("pp_stage_boundaries", "")
        if listed and self.stages > 1:
            edges = [0, *map(int, listed.split(",")), rows]
            if len(edges) != self.stages + 1 or any(after <= before for before, after in pairwise(edges)):
                raise UserError(
                    f"pp_stage_boundaries {listed} do not split {rows} rows into {self.stages} stages",
                    fix="give one increasing row number for each stage after the first",
                )
            return edges[1:]
        size, extra = divmod(rows, self.stages)
        return [size * stage + min(stage, extra) for stage in range(1, self.stages + 1)]

    def _moves(self) -> Iterator[Record]:
        """Yield the KV movement of the stage that begins: evictions first, then loads; bytes are per NPU already."""
        for record in sorted(self.moved, key=lambda record: record.kind == RowKind.MEM_LOAD):
            yield self._move(record)

    def _move(self, record: Record) -> Record:
        """The text has the memory and the bytes in the weight columns."""
        moved = record._replace(stage=self.stage, ranks=self.stage_ranks, latency=(0,), comm_bytes=0)
        moved = moved._replace(input=LOCAL, weight=LOCAL, output=LOCAL, comm_type=CommType.NONE, group=None, dims="")
        there = _device(record.weight)
        return moved._replace(input=there) if record.kind == RowKind.MEM_LOAD else moved._replace(output=there)

    def _place(self, record: Record, row: int) -> Iterator[Record]:
        if record.kind in (RowKind.MEM_LOAD, RowKind.MEM_STORE):
            yield self._move(record)
        elif record.kind == RowKind.COMM:
            yield from self._mark(record)
        else:
            placed = self._work_once(record, first=row == 0, last=row == self.stream.rows - len(self.moved) - 1)
            if placed.kind == RowKind.COMPUTE or placed.comm_type != CommType.NONE:
                yield placed
                if placed.comm_bytes and placed.comm_type == CommType.NONE:
                    yield self._receive(self.written - 1)

    def _mark(self, record: Record) -> Iterator[Record]:
        """A section begins or ends; the collectives of EXPERT markers are over the stage's ranks."""
        name, _, number = record.op.partition(" ")
        opens = self.section is None
        self.section = None if number == "END" else (name, int(number))
        if record.comm_type != CommType.NONE and record.comm_bytes > 0 and (opens or number == "END"):
            op = "expert_combine" if number == "END" else "expert_dispatch"
            ranks = self.stage_ranks
            yield record._replace(op=op, stage=self.stage, ranks=ranks, group=ranks, dims="")

    def _work_once(self, record: Record, *, first: bool, last: bool) -> Record:
        if first or last:
            return self._work(record, first=first, last=last)
        key = (record, self.stage, self.section)
        placed = self.known.get(key)
        if placed is None:
            placed = self._work(record, first=False, last=False)
            if len(self.known) < KNOWN_ROWS:
                self.known[key] = placed
        return placed

    def _work(self, record: Record, *, first: bool, last: bool) -> Record:
        """Place an operator."""
        ranks = self.stage_ranks
        if self.section is not None:
            ranks = (ranks[self.section[1] % self.mesh.stage_size],)
        whole = self.format != "orca" or self.section is not None
        share = 1 if whole else self.mesh.stage_size
        computes = record.latency[0] > 0
        stored = record.input if self.format == "orca" else record.output
        transfers = self.format == "prefill" and "v_proj" in record.op and record.comm_type == CommType.NONE
        return record._replace(
            kind=RowKind.COMPUTE if computes else RowKind.COMM,
            stage=self.stage,
            ranks=ranks,
            latency=(max(record.latency[0] // share, 1) if computes else 0,),
            input=_device(record.input, share) if first else _local(record.input, share),
            weight=_local(record.weight, share) if self.format == "orca" else _device(record.weight),
            output=_device(record.output._replace(bytes=stored.bytes), share) if last else _local(record.output, share),
            comm_bytes=record.comm_bytes // share if record.comm_type != CommType.NONE or transfers else 0,
            group=ranks if record.comm_type != CommType.NONE else None,
            dims="",
        )

    def _receive(self, row: int) -> Record:
        """KV of a prefill row arrives on the ranks that decode; they do nothing else here."""
        ranks = tuple(rank + self.mesh.ranks for rank in self.stage_ranks)
        return Record("kv_receive", kind=RowKind.COMM, stage=NO_STAGE, ranks=ranks, deps=(row,))


def _local(operand: Operand, share: int = 1) -> Operand:
    """Only the first operand of a trace is loaded and the last one stored, whatever memory the text names between."""
    return Operand(Location.LOCAL, 0, operand.bytes // share)


def _device(operand: Operand, share: int = 1) -> Operand:
    return Operand(operand.location, max(operand.node, 0), operand.bytes // share)
