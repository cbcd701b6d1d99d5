"""One row of a trace as a record, and a trace as a stream of them: what every text format reads and writes.

Streams let a trace of any length pass through in constant memory; `converters.text.columns` converts between a stream
and the columns of a `Trace`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from foundation.records import dataclass
from trace_gen.trace import NO_LAYER, NO_REQUEST, CommType, Location, RowKind


class Operand(NamedTuple):
    """Where an operand lives and its size in bytes. `node` is the memory's device; -1 where a text names none.

    A PIM channel c of device d is written ``d.c`` in the text and is ``d + (c + 1) * CHANNEL`` here.
    """

    location: int = Location.LOCAL
    node: int = 0
    bytes: int = 0


CHANNEL = 1 << 16
NO_NODE = -1


class Record(NamedTuple):
    """A row of `trace_gen.trace.Trace`; `latency`, `flops` and `mem_bytes` hold one value a step.

    `dims` is what a text says of a collective's network dimensions (``1,0``), kept so that it can be written again.
    """

    op: str
    kind: int = RowKind.COMPUTE
    layer: int = NO_LAYER
    stage: int = 0
    ranks: tuple[int, ...] = (0,)
    request: int = NO_REQUEST
    sub_batch: int = 0
    latency: tuple[int, ...] = (0,)
    flops: tuple[int, ...] = (0,)
    mem_bytes: tuple[int, ...] = (0,)
    input: Operand = Operand()
    weight: Operand = Operand()
    output: Operand = Operand()
    comm_type: int = CommType.NONE
    comm_bytes: int = 0
    group: tuple[int, ...] | None = None
    deps: tuple[int, ...] = ()
    dims: str = ""
    parts: int = 1
    """Into how many groups side by side the ranks of `group` are divided."""


@dataclass(slots=True)
class RecordStream:
    """A trace on its way: facts of the header, then `rows` records, once.

    `attributes["format"]` names the text format; a text of LLMServingSim is *unplaced* until
    `converters.text.placement` spreads it over ranks. `rank_sets` and `groups` (with their `group_parts`, see
    `Trace`) list those that the header declares.
    """

    attributes: dict[str, str]
    rows: int
    records: Iterator[Record]
    steps: int = 1
    requests: tuple[int, ...] = ()
    rank_sets: tuple[tuple[int, ...], ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()
    group_parts: tuple[int, ...] = ()
